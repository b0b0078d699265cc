//! Judges the number of files that this process may have open.

use super::check::Check;
use crate::cli::output::text;

/// A watcher has about thirty files open, and one eighth of the limit is for the temps that it checks at the same time.
const ENOUGH: u64 = 64;

/// Judges the soft limit; `None` means no limit.
pub(super) fn judge(limit: Option<u64>) -> Check {
    match limit {
        Some(limit @ 0..ENOUGH) => Check::warning(
            "open-files",
            format!(
                "at most {limit}: this limits the number of temps that are checked at the same time, so many orphans are \
                 removed more slowly"
            ),
            "ulimit -n 256; for a systemd service: LimitNOFILE=256",
        ),
        Some(limit) => Check::ok(
            "open-files",
            format!("the limit is {}, which is enough", text::count(limit)),
        ),
        None => Check::ok("open-files", "no limit"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::CheckState;
    use super::*;

    #[test]
    fn a_low_limit_is_a_warning() {
        for (limit, state) in [
            (Some(0), CheckState::Warning),
            (Some(63), CheckState::Warning),
            (Some(64), CheckState::Ok),
            (Some(256), CheckState::Ok),
            (None, CheckState::Ok),
        ] {
            assert_eq!(judge(limit).state, state, "{limit:?}");
        }
    }
}
