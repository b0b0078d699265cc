//! Judges the limits of Linux: inotify watches, instances and queue, and leases.

use std::time::Duration;

use super::check::Check;
use super::tree::TreeSize;
use crate::cli::output::text;

/// A limit in force, and the name of its sysctl(8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KernelLimit {
    pub(super) name: &'static str,
    pub(super) value: u64,
}

/// A limit, and whether it is reached at this moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct LimitState {
    /// `None` if the limit cannot be read.
    pub(super) limit: Option<KernelLimit>,
    /// A request for one more was refused because of the limit.
    pub(super) reached: bool,
}

/// The values that doctor suggests for sysctls that are too low: the defaults of current desktop systems.
const RAISED_WATCHES: u64 = 524_288;
const RAISED_INSTANCES: u64 = 1_024;
const RAISED_QUEUE: u64 = 16_384;

/// The instances that one orphand needs: for directories, for directories with `closed = "settled"`, for the ancestors
/// of roots, and for the configuration file.
const OUR_INSTANCES: u64 = 4;

/// Judges the limit on watches. `need` is the number of directories in all roots; about ten of their ancestors are
/// watched too.
pub(super) fn watches(state: LimitState, need: TreeSize) -> Check {
    let check = "inotify-watches";
    let needed = format!(
        "the directories need {}{}",
        if need.at_least { "at least " } else { "" },
        text::count(need.directories)
    );
    let Some(limit) = state.limit else {
        return Check::ok(check, format!("the limit cannot be read; {needed}"));
    };
    let allowed = text::count(limit.value);
    let raise = limit.value.max(RAISED_WATCHES).max(
        need.directories
            .saturating_mul(2)
            .checked_next_power_of_two()
            .unwrap_or(u64::MAX),
    );
    // If the limit is reached and the suggested value would not raise it, other programs use all the watches.
    let raise = match state.reached && raise == limit.value {
        true => raise.saturating_mul(2),
        false => raise,
    };
    let consequence = "Directories without a watch are scanned at least once a minute: nothing is missed, only found \
                  later. (Linux calls this \"no space left on device\"; no disk is full)";
    if state.reached {
        let what = format!("all {allowed} inotify watches of this user are in use. {consequence}");
        Check::warning(check, what, sysctl_commands(limit.name, raise))
    } else if need.directories > limit.value {
        let what = format!("this user may have {allowed} watches, but {needed}. {consequence}");
        Check::warning(check, what, sysctl_commands(limit.name, raise))
    } else {
        Check::ok(
            check,
            format!("this user may have {allowed} watches; {needed}"),
        )
    }
}

pub(super) fn instances(state: LimitState) -> Check {
    let check = "inotify-instances";
    let Some(limit) = state.limit else {
        return Check::ok(check, "the limit cannot be read");
    };
    let allowed = text::count(limit.value);
    let consequence = "Without instances, directories are scanned at least once a minute";
    let raise = match limit.value {
        value @ RAISED_INSTANCES.. => value.saturating_mul(2),
        _ => RAISED_INSTANCES,
    };
    if state.reached {
        let what =
            format!("all {allowed} inotify instances of this user are in use. {consequence}");
        Check::warning(check, what, sysctl_commands(limit.name, raise))
    } else if limit.value < OUR_INSTANCES {
        let what = format!(
            "this user may have {allowed} instances, but orphand needs {OUR_INSTANCES}. {consequence}"
        );
        Check::warning(check, what, sysctl_commands(limit.name, raise))
    } else {
        let what = format!(
            "this user may have {allowed} instances; orphand needs {OUR_INSTANCES} at most"
        );
        Check::ok(check, what)
    }
}

pub(super) fn queue(value: Option<u64>) -> Check {
    let check = "inotify-queue";
    match value {
        Some(value @ 0..1_024) => Check::warning(
            check,
            format!(
                "the queue holds {} events: a burst of writes overflows it, and then every directory is scanned",
                text::count(value)
            ),
            sysctl_commands("fs.inotify.max_queued_events", RAISED_QUEUE),
        ),
        Some(value) => Check::ok(
            check,
            format!("the queue holds {} events", text::count(value)),
        ),
        None => Check::ok(check, "the length cannot be read"),
    }
}

/// Judges `fs.leases-enable`.
pub(super) fn leases(enabled: Option<u64>) -> Check {
    match enabled {
        Some(0) => Check::error(
            "leases",
            "disabled for the whole machine: nothing can be proven, so every temp is kept as cannot-tell",
            sysctl_commands("fs.leases-enable", 1),
        ),
        Some(_) => Check::ok("leases", "enabled"),
        None => Check::ok("leases", "the setting cannot be read"),
    }
}

/// Judges `fs.lease-break-time`.
pub(super) fn break_time(seconds: Option<u64>) -> Check {
    let check = "lease-break";
    match seconds {
        Some(0) => Check::warning(
            check,
            "no limit: if orphand is stopped (SIGSTOP, a debugger) in the microseconds in which it holds a lease, a \
             process that opens that file waits until orphand continues",
            sysctl_commands("fs.lease-break-time", 45),
        ),
        Some(seconds) => Check::ok(
            check,
            format!(
                "{}: the longest wait of a process that opens a file, if orphand is stopped while it holds a lease",
                text::span(Duration::from_secs(seconds))
            ),
        ),
        None => Check::ok(check, "the time cannot be read"),
    }
}

/// Returns the commands that set a sysctl now and permanently.
fn sysctl_commands(name: &str, value: u64) -> String {
    match name.starts_with("user.") {
        // The limit belongs to the user namespace, and ends with it.
        true => format!("as the owner of this user namespace or container: sysctl {name}={value}"),
        false => format!(
            "now: sudo sysctl {name}={value}\n\
             permanently: echo {name}={value} | sudo tee -a /etc/sysctl.d/60-orphand.conf"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::CheckState;
    use super::*;

    fn state(name: &'static str, value: u64, reached: bool) -> LimitState {
        let limit = Some(KernelLimit { name, value });
        LimitState { limit, reached }
    }

    const NAME: &str = "fs.inotify.max_user_watches";

    #[test]
    fn too_few_watches_are_a_warning_with_a_higher_limit() {
        // limit, reached, directories; the suggested limit
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
            let check = watches(state(NAME, value, reached), need);
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
        let check = watches(state("user.max_inotify_watches", 5, false), some);
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
    fn low_limits_and_disabled_leases_are_reported() {
        let name = "fs.inotify.max_user_instances";
        for (check, state, words) in [
            (instances(state(name, 128, false)), CheckState::Ok, "128"),
            (
                instances(state(name, 128, true)),
                CheckState::Warning,
                "all 128",
            ),
            (
                instances(state(name, 3, false)),
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
