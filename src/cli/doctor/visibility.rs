//! Judges which processes this process can examine. The proof does not need that; the names of holders do.

use super::check::Check;

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

pub(super) fn judge(seen: Visibility) -> Check {
    let check = "sight";
    if !seen.proc {
        return Check::warning(
            check,
            "there is no /proc of this pid namespace: the proof still holds, but holders are not named, and a temp \
             with a pid in its name is kept until it has been unused for 24 h, because its writer may run in a \
             container",
            "mount -t proc proc /proc",
        );
    }
    let mut because = Vec::new();
    if seen.other_pids {
        because.push("a private pid namespace (a container)");
    }
    if seen.other_users {
        because.push("a private user namespace");
    }
    if seen.hidden && !seen.root {
        because.push("/proc mounted with hidepid");
    }
    if because.is_empty() && seen.root && !seen.all {
        because.push("some processes cannot be examined, not even by root");
    }
    match (because.as_slice(), seen.root) {
        ([], true) => Check::ok(check, "every process can be examined"),
        ([], false) => Check::ok(
            check,
            "not running as root: the proof holds for your own files; holders of other users are not named",
        ),
        (because, _) => {
            let pids = match seen.other_pids {
                true => {
                    "; a pid in a temp's name may belong to another namespace, and only the proof shows whether its \
                     writer is running"
                }
                false => "",
            };
            Check::warning(
                check,
                format!(
                    "{}: the proof still holds, but some holders are not named{pids}. On overlayfs orphans are moved \
                     to the quarantine instead of being deleted",
                    because.join(", ")
                ),
                "no fix is needed for removals; to see all names, run orphand outside of the container, as root",
            )
        }
    }
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
            let check = judge(seen);
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
