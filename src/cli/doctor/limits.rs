//! What Linux allows: inotify's watches, instances and queue, and leases.

use std::time::Duration;

use super::super::text;
use super::check::Check;
use super::tree::TreeSize;

/// A limit in force, and the sysctl(8) name under which it is raised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KernelLimit {
    pub(super) name: &'static str,
    pub(super) value: u64,
}

/// What a limit is, and whether it is reached at this moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct LimitState {
    /// None where it cannot be read.
    pub(super) limit: Option<KernelLimit>,
    /// One more was asked for, and refused because of it.
    pub(super) reached: bool,
}

/// What is written into a sysctl where it is too low: what desktop systems ship by now.
const RAISED_WATCHES: u64 = 524_288;
const RAISED_INSTANCES: u64 = 1_024;
const RAISED_QUEUE: u64 = 16_384;

/// Watchers for directories, for those with `closed = "settled"`, for the parents of roots, and
/// for the configuration file.
const OUR_INSTANCES: u64 = 4;

/// `need`: the directories of all roots. Their parents are watched too, some ten of them.
pub(super) fn watches(tried: LimitState, need: TreeSize) -> Check {
    let check = "inotify-watches";
    let needed = format!(
        "the roots need {}{}",
        if need.at_least { "at least " } else { "" },
        text::count(need.directories)
    );
    let Some(limit) = tried.limit else {
        return Check::ok(check, format!("the limit cannot be read; {needed}"));
    };
    let may = text::count(limit.value);
    let raise = limit.value.max(RAISED_WATCHES).max(
        need.directories
            .saturating_mul(2)
            .checked_next_power_of_two()
            .unwrap_or(u64::MAX),
    );
    // Not raised far enough by the usual value only where somebody else has them all.
    let raise = match tried.reached && raise == limit.value {
        true => raise.saturating_mul(2),
        false => raise,
    };
    let slowly = "What is not watched is scanned every minute at the latest: nothing is missed, \
                  only later. (Linux calls this \"no space left on device\"; no disk is full)";
    if tried.reached {
        let what = format!("all {may} of this user are in use. {slowly}");
        Check::warning(check, what, sysctl_commands(limit.name, raise))
    } else if need.directories > limit.value {
        let what = format!("{may} for this user, but {needed}. {slowly}");
        Check::warning(check, what, sysctl_commands(limit.name, raise))
    } else {
        Check::ok(check, format!("{may} for this user; {needed}"))
    }
}

pub(super) fn instances(tried: LimitState) -> Check {
    let check = "inotify-instances";
    let Some(limit) = tried.limit else {
        return Check::ok(check, "the limit cannot be read");
    };
    let may = text::count(limit.value);
    let slowly = "Without them directories are scanned every minute at the latest";
    let raise = match limit.value {
        value @ RAISED_INSTANCES.. => value.saturating_mul(2),
        _ => RAISED_INSTANCES,
    };
    if tried.reached {
        let what = format!("all {may} of this user are in use. {slowly}");
        Check::warning(check, what, sysctl_commands(limit.name, raise))
    } else if limit.value < OUR_INSTANCES {
        let what = format!("{may} for this user, but orphand needs {OUR_INSTANCES}. {slowly}");
        Check::warning(check, what, sysctl_commands(limit.name, raise))
    } else {
        let what = format!("{may} for this user; orphand needs {OUR_INSTANCES} at most");
        Check::ok(check, what)
    }
}

pub(super) fn queue(value: Option<u64>) -> Check {
    let check = "inotify-queue";
    match value {
        Some(value @ 0..1_024) => Check::warning(
            check,
            format!(
                "{} events: a burst of writes overflows it, and each time every root is scanned",
                text::count(value)
            ),
            sysctl_commands("fs.inotify.max_queued_events", RAISED_QUEUE),
        ),
        Some(value) => Check::ok(check, format!("{} events", text::count(value))),
        None => Check::ok(check, "its length cannot be read"),
    }
}

/// `fs.leases-enable`.
pub(super) fn leases(enabled: Option<u64>) -> Check {
    match enabled {
        Some(0) => Check::error(
            "leases",
            "switched off for the whole machine: nothing can be proven, so every temp is kept as \
             cannot-tell",
            sysctl_commands("fs.leases-enable", 1),
        ),
        Some(_) => Check::ok("leases", "enabled"),
        None => Check::ok("leases", "whether they are enabled cannot be read"),
    }
}

/// `fs.lease-break-time`.
pub(super) fn break_time(seconds: Option<u64>) -> Check {
    let check = "lease-break";
    match seconds {
        Some(0) => Check::warning(
            check,
            "no limit: should orphand be stopped (SIGSTOP, a debugger) in the microseconds in \
             which it holds a lease, whoever opens that file waits until it goes on",
            sysctl_commands("fs.lease-break-time", 45),
        ),
        Some(seconds) => Check::ok(
            check,
            format!(
                "{}: the longest that an opener could wait, should orphand be stopped",
                text::span(Duration::from_secs(seconds))
            ),
        ),
        None => Check::ok(check, "the time cannot be read"),
    }
}

/// Now, and for good.
fn sysctl_commands(name: &str, value: u64) -> String {
    match name.starts_with("user.") {
        // It belongs to the user namespace, and goes with it.
        true => format!("whoever made this user namespace or container: sysctl {name}={value}"),
        false => format!(
            "now: sudo sysctl {name}={value}\n\
             for good: echo {name}={value} | sudo tee -a /etc/sysctl.d/60-orphand.conf"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::CheckState;
    use super::*;

    fn tried(name: &'static str, value: u64, reached: bool) -> LimitState {
        let limit = Some(KernelLimit { name, value });
        LimitState { limit, reached }
    }

    const NAME: &str = "fs.inotify.max_user_watches";

    #[test]
    fn watches_for_the_roots() {
        // limit, reached, directories; what it is to be raised to
        for (value, reached, directories, raised) in [
            (8_192, false, 1, None),
            (8_192, false, 8_192, None),
            (8_192, false, 8_193, Some(524_288)),
            (8_192, true, 1, Some(524_288)),
            (524_288, false, 600_000, Some(2_097_152)),
            (524_288, true, 1, Some(1_048_576)),
            (0, false, 1, Some(524_288)),
        ] {
            let need = TreeSize {
                directories,
                at_least: false,
            };
            let check = watches(tried(NAME, value, reached), need);
            match raised {
                None => assert_eq!((check.state, check.fix), (CheckState::Ok, None), "{value}"),
                Some(raised) => {
                    assert_eq!(check.state, CheckState::Warning, "{check:?}");
                    let fix = check.fix.unwrap();
                    let now = format!("now: sudo sysctl {NAME}={raised}\n");
                    assert!(fix.starts_with(&now), "{fix}");
                    assert!(fix.contains("/etc/sysctl.d/"), "{fix}");
                    assert!(check.what.contains("no disk is full"), "{}", check.what);
                }
            }
        }
        let some = TreeSize {
            directories: 70,
            at_least: true,
        };
        let check = watches(tried("user.max_inotify_watches", 5, false), some);
        assert!(check.what.contains("at least 70"), "{check:?}");
        let fix = check.fix.unwrap();
        assert!(!fix.contains("sysctl.d"), "{fix}");
        let unknown = LimitState {
            limit: None,
            reached: false,
        };
        assert_eq!(watches(unknown, some).state, CheckState::Ok);
    }

    #[test]
    fn instances_queue_and_leases() {
        let name = "fs.inotify.max_user_instances";
        for (check, state, words) in [
            (instances(tried(name, 128, false)), CheckState::Ok, "128"),
            (
                instances(tried(name, 128, true)),
                CheckState::Warning,
                "all 128",
            ),
            (
                instances(tried(name, 3, false)),
                CheckState::Warning,
                "needs 4",
            ),
            (queue(Some(16_384)), CheckState::Ok, "16,384"),
            (queue(Some(64)), CheckState::Warning, "overflows"),
            (queue(None), CheckState::Ok, "cannot be read"),
            (leases(Some(1)), CheckState::Ok, "enabled"),
            (leases(Some(0)), CheckState::Error, "cannot-tell"),
            (leases(None), CheckState::Ok, "cannot be read"),
            (break_time(Some(45)), CheckState::Ok, "45 s"),
            (break_time(Some(0)), CheckState::Warning, "no limit"),
            (break_time(None), CheckState::Ok, "cannot be read"),
        ] {
            assert_eq!(check.state, state, "{check:?}");
            assert!(check.what.contains(words), "{check:?}");
            assert_eq!(check.fix.is_some(), state != CheckState::Ok);
        }
    }
}
