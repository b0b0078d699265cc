//! How many files this process may have open.

use super::check::Check;

/// A watcher has some thirty open beside the temps that it proves together, which are an eighth.
const ENOUGH: u64 = 64;

/// `limit`: the soft one; none where there is no limit.
pub(super) fn judge(limit: Option<u64>) -> Check {
    match limit {
        Some(limit @ 0..ENOUGH) => Check::warning(
            "open-files",
            format!(
                "at most {limit}: temps are proven together as far as that allows, so a heap of \
                 orphans goes more slowly"
            ),
            "ulimit -n 256; for a systemd service: LimitNOFILE=256",
        ),
        Some(limit) => Check::ok("open-files", format!("at most {limit}, enough")),
        None => Check::ok("open-files", "no limit"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::CheckState;
    use super::*;

    #[test]
    fn limits() {
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
