//! The fields of a temp in the documents of `scan` and `explain`.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use orphand::core::judge::{Reason, Verdict};
use orphand::engine::Examined;
use orphand::store::json::{self, WirePath, field};
use serde::Serialize;

use crate::cli::config::RuleLocation;

/// A temp, or a file that is not a temp.
#[derive(Debug, Serialize)]
pub(crate) struct TempFields<'a> {
    #[serde(flatten, with = "field::path")]
    pub(crate) path: WirePath<'a>,
    pub(crate) bytes: u64,
    pub(crate) disk_bytes: u64,
    /// The time since the newest date of the file.
    pub(crate) quiet_ms: u64,
    #[serde(flatten)]
    pub(crate) verdict: VerdictFields,
    #[serde(flatten, with = "field::target")]
    pub(crate) target: WirePath<'a>,
    pub(crate) writer_pid: Option<u32>,
    /// The writer whose grammar the name fits, if the rule has it on.
    pub(crate) writer: Option<&'a str>,
    /// The paths of the temp and its companions, the temp first. `None` if it has no companions.
    pub(crate) set: Option<Vec<Cow<'a, str>>>,
    /// Their bytes, if one of them is not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) set_b64: Option<Vec<String>>,
    pub(crate) rule: Option<RuleFields<'a>>,
}

/// A verdict. Both fields are null for a file that is not a temp.
#[derive(Debug, Serialize)]
pub(crate) struct VerdictFields {
    verdict: Option<&'static str>,
    reason: Option<&'static str>,
}

/// The place of a `[[watch]]` rule in the configuration file.
#[derive(Debug, Serialize)]
pub(crate) struct RuleFields<'a> {
    #[serde(flatten, with = "field::file")]
    file: WirePath<'a>,
    line: usize,
}

impl<'a> TempFields<'a> {
    /// Returns the fields of a file with this verdict. `verdict` is `None` for a file that is not a temp.
    pub(crate) fn new(
        examined: &'a Examined,
        verdict: Option<Verdict>,
        rule: Option<&'a RuleLocation>,
    ) -> TempFields<'a> {
        let size = examined.evidence.observation.size();
        let set = set(examined);
        TempFields {
            path: Some(examined.path.as_path().into()),
            bytes: size.bytes,
            disk_bytes: size.disk_bytes,
            quiet_ms: json::ms(examined.temp_info.quiet),
            verdict: verdict.into(),
            target: examined.target.as_deref().map(Into::into),
            writer_pid: examined.temp_info.parsed.pid,
            writer: examined
                .temp_info
                .parsed
                .writer
                .as_ref()
                .map(|row| row.name.as_str()),
            set: set
                .as_deref()
                .map(|set| set.iter().map(|path| path.to_string_lossy()).collect()),
            set_b64: set.as_deref().and_then(json::paths_b64),
            rule: rule.map(Into::into),
        }
    }
}

/// Returns the paths of a temp and its companions, if it has any.
fn set(examined: &Examined) -> Option<Vec<&Path>> {
    let companions = examined.companions.iter().map(|member| &member.path);
    let paths = std::iter::once(&examined.path).chain(companions);
    let paths: Vec<&Path> = paths.map(PathBuf::as_path).collect();
    (paths.len() > 1).then_some(paths)
}

impl From<Option<Verdict>> for VerdictFields {
    fn from(verdict: Option<Verdict>) -> VerdictFields {
        VerdictFields {
            verdict: verdict.map(Verdict::as_str),
            reason: verdict.and_then(Verdict::reason).map(Reason::as_str),
        }
    }
}

impl<'a> From<&'a RuleLocation> for RuleFields<'a> {
    fn from(rule: &'a RuleLocation) -> RuleFields<'a> {
        RuleFields {
            file: Some(rule.file.as_path().into()),
            line: rule.line,
        }
    }
}
