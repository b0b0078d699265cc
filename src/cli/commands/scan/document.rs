//! The parts of the JSON document of `scan`.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use orphand::core::judge::Reason;
use orphand::engine::Examined;
use orphand::store::json::{self, LookalikeFields, TreeFields, WirePath, field};
use serde::Serialize;

use super::group::DirGroup;
use super::result::ScanResult;
use super::tally::Totals;
use crate::cli::output::census::Census;
use crate::cli::output::learned::LearnedFiles;
use crate::cli::runtime::claims::FoundClaims;
use crate::cli::runtime::plan::Plan;

/// The fields before the temps.
#[derive(Serialize)]
struct Head<'a> {
    roots: Vec<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    roots_b64: Option<Vec<String>>,
}

/// The fields after the temps and groups.
#[derive(Serialize)]
struct Tail<'a> {
    skipped: Vec<SkippedFields<'a>>,
    total: Totals,
    claims: FoundClaims,
    trees: Vec<TreeFields<'a>>,
    lookalikes: Vec<LookalikeFields<'a>>,
    learned: &'a [LearnedFiles],
    census: Census,
}

/// Temps of one directory with similar names and the same verdict.
#[derive(Serialize)]
pub(super) struct GroupFields<'a> {
    #[serde(flatten, with = "field::root")]
    root: WirePath<'a>,
    #[serde(flatten, with = "field::dir")]
    dir: WirePath<'a>,
    shape: Cow<'a, str>,
    #[serde(flatten, with = "field::target")]
    target: WirePath<'a>,
    writer: Option<&'a str>,
    verdict: &'static str,
    reason: Option<&'static str>,
    temps: u64,
    bytes: u64,
    disk_bytes: u64,
    oldest_ms: u64,
    newest_ms: u64,
}

impl<'a> GroupFields<'a> {
    /// Returns the fields of a group in the directory `dir` of a root. `first` is one of its temps.
    pub(super) fn of(
        root: &'a Path,
        dir: &'a Path,
        group: &'a DirGroup,
        first: &'a Examined,
    ) -> GroupFields<'a> {
        let sum = &group.sum;
        let writer = &first.temp_info.parsed.writer;
        GroupFields {
            root: Some(root.into()),
            dir: Some(dir.into()),
            shape: group.shape.to_string_lossy(),
            target: sum.target().map(|target| target.into()),
            writer: writer.as_ref().map(|row| row.name.as_str()),
            verdict: first.verdict.as_str(),
            reason: first.verdict.reason().map(Reason::as_str),
            temps: sum.temps,
            bytes: sum.size.bytes,
            disk_bytes: sum.size.disk_bytes,
            oldest_ms: json::ms(sum.oldest),
            newest_ms: json::ms(sum.newest),
        }
    }
}

/// A directory that was not entered.
#[derive(Serialize)]
struct SkippedFields<'a> {
    #[serde(flatten, with = "field::path")]
    path: WirePath<'a>,
    why: &'static str,
}

/// Returns the document up to its first temp.
pub(super) fn head(plan: &Plan) -> serde_json::Result<Vec<u8>> {
    let roots: Vec<&Path> = plan.roots.iter().map(|root| root.path.as_path()).collect();
    let mut text = serde_json::to_vec(&Head {
        roots: roots.iter().map(|root| root.to_string_lossy()).collect(),
        roots_b64: json::paths_b64(&roots),
    })?;
    text.pop();
    text.extend_from_slice(b",\"temps\":[");
    Ok(text)
}

/// Returns the rest of the document, after its groups.
pub(super) fn tail(result: &ScanResult<'_>) -> serde_json::Result<Vec<u8>> {
    fn skipped(path: &PathBuf) -> SkippedFields<'_> {
        SkippedFields {
            path: Some(path.into()),
            why: "other-mount",
        }
    }
    let mut text = serde_json::to_vec(&Tail {
        skipped: result.skipped.iter().map(skipped).collect(),
        total: result.tally.total,
        claims: result.total_claims(),
        trees: result.trees.iter().map(Into::into).collect(),
        lookalikes: result.lookalikes.iter().map(Into::into).collect(),
        learned: &result.learned,
        census: result.tally.census,
    })?;
    text.remove(0);
    Ok(text)
}
