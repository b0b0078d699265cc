//! Judges the limits of Linux, its release, and the view of this process on the other processes.

use std::time::Duration;

use orphand::sys::kernel_version;

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
    let at_least = if need.at_least { "at least " } else { "" };
    let needed = format!(
        "the directories need {at_least}{}",
        text::count(need.directories)
    );
    let Some(limit) = state.limit else {
        return Check::ok(
            "inotify-watches",
            format!("the limit cannot be read; {needed}"),
        );
    };
    let allowed = format!("this user may have {} watches", text::count(limit.value));
    let Some(problem) = state.problem(
        need.directories,
        "watches",
        &format!("{allowed}, but {needed}"),
    ) else {
        return Check::ok("inotify-watches", format!("{allowed}; {needed}"));
    };
    let twice = need
        .directories
        .saturating_mul(2)
        .checked_next_power_of_two();
    let raise = limit
        .value
        .max(RAISED_WATCHES)
        .max(twice.unwrap_or(u64::MAX));
    // If the limit is reached and the suggested value would not raise it, other programs use all the watches.
    let raise = match state.reached && raise == limit.value {
        true => raise.saturating_mul(2),
        false => raise,
    };
    Check::warning(
        "inotify-watches",
        format!(
            "{problem}. Directories without a watch are scanned at least once a minute: nothing is missed, only found \
             later. (Linux calls this \"no space left on device\"; no disk is full)"
        ),
        sysctl_commands(limit.name, raise),
    )
}

/// Judges the limit on inotify instances.
pub(super) fn instances(state: LimitState) -> Check {
    let Some(limit) = state.limit else {
        return Check::ok("inotify-instances", "the limit cannot be read");
    };
    let allowed = format!("this user may have {} instances", text::count(limit.value));
    let few = format!("{allowed}, but orphand needs {OUR_INSTANCES}");
    let Some(problem) = state.problem(OUR_INSTANCES, "instances", &few) else {
        let what = format!("{allowed}; orphand needs {OUR_INSTANCES} at most");
        return Check::ok("inotify-instances", what);
    };
    let raise = match limit.value {
        value @ RAISED_INSTANCES.. => value.saturating_mul(2),
        _ => RAISED_INSTANCES,
    };
    Check::warning(
        "inotify-instances",
        format!("{problem}. Without instances, directories are scanned at least once a minute"),
        sysctl_commands(limit.name, raise),
    )
}

impl LimitState {
    /// Returns `few` if the limit is lower than `need`, or that it is reached.
    fn problem(self, need: u64, noun: &str, few: &str) -> Option<String> {
        let limit = self.limit?.value;
        match self.reached {
            true => Some(format!(
                "all {} inotify {noun} of this user are in use",
                text::count(limit)
            )),
            false => (limit < need).then(|| few.to_owned()),
        }
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

/// Judges a release as uname(2) returns it.
pub(super) fn release(release: &str) -> Check {
    let fix = "update the kernel when possible";
    match kernel_version::parse(release) {
        Some(version) if version < (5, 6) => Check::warning(
            "kernel",
            format!(
                "Linux {release}, older than 5.6: a path below a root is opened one component at a time, and mounts \
                 have no ids, so a bind mount of the same file system below a root cannot be distinguished from a \
                 directory"
            ),
            fix,
        ),
        Some(version) if version < (5, 8) => Check::warning(
            "kernel",
            format!(
                "Linux {release}, older than 5.8: mounts have no ids; devices are compared instead"
            ),
            fix,
        ),
        Some(_) => Check::ok("kernel", format!("Linux {release}")),
        None => Check::ok("kernel", format!("Linux {release:?}, an unknown version")),
    }
}

/// The view of this process on the other processes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Visibility {
    /// `/proc` is mounted, and belongs to the pid namespace of this process.
    pub(super) proc: bool,
    /// The process is not in the initial pid namespace.
    pub(super) other_pids: bool,
    /// The process is not in the initial user namespace.
    pub(super) other_users: bool,
    /// `/proc` hides the processes of other users.
    pub(super) hidden: bool,
    pub(super) root: bool,
    /// Every process can be examined, including its mappings. Checked only for root.
    pub(super) all: bool,
}

pub(super) fn visibility(seen: Visibility) -> Check {
    if !seen.proc {
        return Check::warning(
            "sight",
            "there is no /proc of this pid namespace: the proof still holds, but holders are not named, and a temp \
             with a pid in its name is kept until it has been unused for 24 h, because its writer may run in a \
             container",
            "mount -t proc proc /proc",
        );
    }
    let causes = [
        (seen.other_pids, "a private pid namespace (a container)"),
        (seen.other_users, "a private user namespace"),
        (seen.hidden && !seen.root, "/proc mounted with hidepid"),
    ];
    let mut because: Vec<&str> = causes
        .iter()
        .filter(|(is, _)| *is)
        .map(|(_, why)| *why)
        .collect();
    if because.is_empty() && seen.root && !seen.all {
        because.push("some processes cannot be examined, not even by root");
    }
    if because.is_empty() {
        let what = match seen.root {
            true => "every process can be examined",
            false => {
                "not running as root: the proof holds for your own files; holders of other users are not named"
            }
        };
        return Check::ok("sight", what);
    }
    let pids = match seen.other_pids {
        true => {
            "; a pid in a temp's name may belong to another namespace, and only the proof shows whether its writer is \
             running"
        }
        false => "",
    };
    Check::warning(
        "sight",
        format!(
            "{}: the proof still holds, but some holders are not named{pids}. On overlayfs orphans are moved to the \
             quarantine instead of being deleted",
            because.join(", ")
        ),
        "no fix is needed for removals; to see all names, run orphand outside of the container, as root",
    )
}

/// Returns whether the mount options of `/proc` hide processes (proc(5)).
pub(super) fn hides_processes(options: &str) -> bool {
    options.split(',').any(|option| {
        let value = option.strip_prefix("hidepid=");
        value.is_some_and(|value| !matches!(value, "0" | "off"))
    })
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

    #[test]
    fn releases_before_5_8_are_a_warning() {
        for (release, state) in [
            ("6.18.44-fc-v782", CheckState::Ok),
            ("5.8.0", CheckState::Ok),
            ("5.7.19-arch1", CheckState::Warning),
            ("5.6", CheckState::Warning),
            ("5.5.99", CheckState::Warning),
            ("4.18.0-553.el8", CheckState::Warning),
            ("10.0.1", CheckState::Ok),
            ("", CheckState::Ok),
            ("x.y", CheckState::Ok),
        ] {
            assert_eq!(super::release(release).state, state, "{release}");
        }
    }

    #[test]
    fn a_limited_view_is_a_warning() {
        const PLAIN: Visibility = Visibility {
            proc: true,
            other_pids: false,
            other_users: false,
            hidden: false,
            root: false,
            all: false,
        };
        for (seen, state, words) in [
            (PLAIN, CheckState::Ok, "not running as root"),
            (
                Visibility {
                    root: true,
                    all: true,
                    ..PLAIN
                },
                CheckState::Ok,
                "every process",
            ),
            (
                Visibility {
                    root: true,
                    ..PLAIN
                },
                CheckState::Warning,
                "not even by root",
            ),
            (
                Visibility {
                    root: true,
                    all: true,
                    hidden: true,
                    ..PLAIN
                },
                CheckState::Ok,
                "every process",
            ),
            (
                Visibility {
                    hidden: true,
                    ..PLAIN
                },
                CheckState::Warning,
                "hidepid",
            ),
            (
                Visibility {
                    other_pids: true,
                    root: true,
                    ..PLAIN
                },
                CheckState::Warning,
                "a pid in a temp's",
            ),
            (
                Visibility {
                    other_users: true,
                    ..PLAIN
                },
                CheckState::Warning,
                "user namespace",
            ),
            (Visibility::default(), CheckState::Warning, "no /proc"),
        ] {
            let check = visibility(seen);
            assert_eq!(check.state, state, "{check:?}");
            assert!(check.what.contains(words), "{check:?}");
            let says = check.what.contains("proof still holds");
            assert_eq!(says, state == CheckState::Warning, "{check:?}");
        }
    }

    #[test]
    fn hidepid_hides_processes() {
        for (options, want) in [
            ("rw", false),
            ("rw,hidepid=0", false),
            ("rw,hidepid=off", false),
            ("rw,hidepid=2,gid=4", true),
            ("hidepid=invisible", true),
            ("rw,hidepid=ptraceable", true),
        ] {
            assert_eq!(hides_processes(options), want, "{options}");
        }
    }
}
