//! The JSON document of `scan`.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use orphand::core::judge::Reason;
use orphand::store::json::{self, TreeFields, WirePath, field};
use serde::Serialize;

use super::search::{Row, ScanGroup, ScanResult, is_orphan};
use crate::cli::output::census::Census;
use crate::cli::output::learned::LearnedFiles;
use crate::cli::output::temp_fields::TempFields;
use crate::cli::runtime::claims::FoundClaims;
use crate::cli::runtime::plan::Plan;

/// The JSON document.
#[derive(Serialize)]
pub(super) struct ScanDocument<'a> {
    roots: Vec<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    roots_b64: Option<Vec<String>>,
    temps: Vec<TempFields<'a>>,
    groups: Vec<GroupFields<'a>>,
    skipped: Vec<SkippedFields<'a>>,
    total: Totals,
    claims: FoundClaims,
    trees: Vec<TreeFields<'a>>,
    learned: &'a [LearnedFiles],
    census: Census,
}

/// Temps of one directory with similar names and the same verdict.
#[derive(Serialize)]
struct GroupFields<'a> {
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
    fn of(group: &ScanGroup<'a>) -> GroupFields<'a> {
        let ScanGroup { key, sum, first } = group;
        let verdict = first.examined.verdict;
        let writer = &first.examined.temp_info.parsed.writer;
        GroupFields {
            root: Some(key.root.as_path().into()),
            dir: Some(key.dir.as_path().into()),
            shape: key.shape.to_string_lossy(),
            target: sum.target().map(|target| target.into()),
            writer: writer.as_ref().map(|row| row.name.as_str()),
            verdict: verdict.as_str(),
            reason: verdict.reason().map(Reason::as_str),
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

impl ScanDocument<'_> {
    pub(super) fn new<'a>(
        plan: &'a Plan,
        result: &'a ScanResult<'_>,
        groups: &[ScanGroup<'a>],
    ) -> ScanDocument<'a> {
        let roots: Vec<&Path> = plan.roots.iter().map(|root| root.path.as_path()).collect();
        let temp = |row: &'a Row<'_>| {
            TempFields::new(
                &row.examined,
                Some(row.examined.verdict),
                plan.rule(row.root),
            )
        };
        let skipped = |path: &'a PathBuf| SkippedFields {
            path: Some(path.into()),
            why: "other-mount",
        };
        ScanDocument {
            roots: roots.iter().map(|root| root.to_string_lossy()).collect(),
            roots_b64: json::paths_b64(&roots),
            temps: result.rows.iter().map(temp).collect(),
            groups: groups.iter().map(GroupFields::of).collect(),
            skipped: result.skipped.iter().map(skipped).collect(),
            total: Totals::of(&result.rows),
            claims: result.total_claims(),
            trees: result.trees.iter().map(Into::into).collect(),
            learned: &result.learned,
            census: result.census(&plan.roots),
        }
    }
}

/// The sums of a scan.
#[derive(Default, Serialize)]
pub(super) struct Totals {
    pub(super) temps: u64,
    bytes: u64,
    disk_bytes: u64,
    pub(super) orphans: u64,
    orphan_bytes: u64,
    pub(super) orphan_disk_bytes: u64,
}

impl Totals {
    pub(super) fn of(rows: &[Row<'_>]) -> Totals {
        let mut total = Totals::default();
        let add = |sum: &mut u64, more: u64| *sum = sum.saturating_add(more);
        for row in rows {
            let size = row.examined.evidence.observation.size();
            total.temps += 1;
            add(&mut total.bytes, size.bytes);
            add(&mut total.disk_bytes, size.disk_bytes);
            if is_orphan(&row.examined) {
                total.orphans += 1;
                add(&mut total.orphan_bytes, size.bytes);
                add(&mut total.orphan_disk_bytes, size.disk_bytes);
            }
        }
        total
    }
}
