//! A temp in the list for people.

use std::path::PathBuf;

use orphand::core::judge::{Reason, Verdict};
use orphand::engine::Examined;

use crate::cli::output::reasons::{allowed_reason, verdict_reason};
use crate::cli::output::text;

/// A temp in the list for people.
pub(super) struct ListRow {
    pub(super) path: PathBuf,
    pub(super) verdict: Verdict,
    pub(super) bytes: u64,
    pub(super) text: String,
}

impl ListRow {
    pub(super) fn of(examined: &Examined) -> ListRow {
        ListRow {
            path: examined.path.clone(),
            verdict: examined.verdict,
            bytes: examined.evidence.observation.fingerprint.size,
            text: verdict_text(examined),
        }
    }
}

/// Returns the reason for the verdict on a temp.
fn verdict_text(examined: &Examined) -> String {
    let quiet = text::span(examined.temp_info.quiet);
    let kept = |reason| verdict_reason(examined, reason);
    match examined.verdict {
        Verdict::Reap if examined.evidence.superseded => {
            format!("unused for {quiet}; later copies supersede it")
        }
        Verdict::Reap => match examined.allowed {
            None => format!("unused for {quiet}"),
            Some(reason) => allowed_reason(reason, None),
        },
        Verdict::Keep(Reason::Reserved) => {
            let reserved = examined.evidence.reserved.as_ref();
            reserved.map_or_else(|| kept(Reason::Reserved), ToString::to_string)
        }
        Verdict::Keep(reason) => kept(reason),
        Verdict::Quarantine(Some(Reason::SoleCopy)) => {
            match examined.evidence.observation.fingerprint.size {
                0 => format!("unused for {quiet}; it is empty and may be a flag"),
                _ => format!("unused for {quiet}; it may be the only copy"),
            }
        }
        Verdict::Quarantine(_) => format!("unused for {quiet}; it would be moved"),
    }
}
