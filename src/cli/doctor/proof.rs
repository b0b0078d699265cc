//! Judges whether orphand can prove in a root that a file is unused, by its file system and by a test on a new file.
//!
//! The name of the file has the prefix of orphand's own files, so scans and watches skip it, and no claim can have it.
//! The file is empty and inaccessible to other users. Its name is removed before the tests begin, so a killed doctor
//! leaves the file behind only if it is killed between two system calls. The date of the directory changes.

use std::ffi::OsString;
use std::time::Duration;

use orphand::core::judge::LeaseCoverage;
use orphand::core::observation::UseState;
use orphand::core::time::Wall;
use orphand::evidence::{UseChecker, open_for_check};
use orphand::fs::dir;
use orphand::fs::dir::Dir;
use orphand::sys::clock;
use orphand::sys::random::random_u64;
use rustix::fd::AsFd;
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::check::{Check, error_text};
use super::system;
use crate::cli::output::shell::Suggestion;

/// The file system of a root.
#[derive(Clone, Debug)]
pub(super) struct FileSystemCheck {
    /// The name that rules use.
    pub(super) name: String,
    /// The kernel's name of the type, if known.
    pub(super) kernel: Option<String>,
    /// The coverage of the proof.
    pub(super) coverage: LeaseCoverage,
    /// The rule trusts the file system without a proof.
    pub(super) trusted: bool,
    /// Every process on this machine can be examined, including its mappings.
    pub(super) all_seen: bool,
}

pub(super) fn file_system(seen: &FileSystemCheck) -> Check {
    let check = "file-system";
    let name = match &seen.kernel {
        Some(kernel) if *kernel != seen.name => format!("{kernel} (for rules: {})", seen.name),
        _ => seen.name.clone(),
    };
    match (seen.coverage, seen.trusted) {
        (LeaseCoverage::OpensAndMaps, _) => Check::ok(
            check,
            format!("{name}: the proof works on this file system"),
        ),
        (LeaseCoverage::OpensOnly, _) if seen.all_seen => Check::ok(
            check,
            format!(
                "{name}: the kernel's proof does not see a process that has only mapped a file; the scan of all \
                 processes, which is possible here, does"
            ),
        ),
        (LeaseCoverage::OpensOnly, _) => Check::warning(
            check,
            format!(
                "{name}: the kernel's proof does not see a process that has only mapped a file or uses a layer \
                 directly, and not every process can be examined here: orphans are moved to the quarantine instead of \
                 being deleted"
            ),
            "put the directory on a volume (a bind mount of ext4, xfs, btrfs or a tmpfs), or run \
             orphand as root outside of the container",
        ),
        (LeaseCoverage::Unknown, true) => Check::warning(
            check,
            format!("{name}: your rule trusts it, {}", risk(seen)),
            format!(
                "if that can happen, remove {:?} from network = […] in the rule",
                seen.name
            ),
        ),
        (LeaseCoverage::Unknown, false) => Check::error(
            check,
            format!("{name}: everything is kept (network-fs), {}", risk(seen)),
            format!(
                "run orphand on the machine that has the disk; or, if no other machine uses these files, add to the \
                 rule: network = [{:?}]",
                seen.name
            ),
        ),
    }
}

fn risk(seen: &FileSystemCheck) -> &'static str {
    let kernel = seen.kernel.as_deref().unwrap_or(&seen.name);
    if is_shared(kernel) || is_shared(&seen.name) && !kernel.starts_with("fuse") {
        "and a program on another machine that has a file open cannot be seen from here"
    } else if kernel.starts_with("fuse") || seen.name.contains("fuse") {
        "and the kernel does not see what the program behind FUSE does with a file"
    } else {
        "and it has not been measured whether the proof holds on it"
    }
}

/// Returns whether other machines, or the host of a virtual machine, can use the same files on this file system.
#[rustfmt::skip]
fn is_shared(name: &str) -> bool {
    matches!(
        name,
        "nfs" | "nfs4" | "cifs" | "smb3" | "smbfs" | "afs" | "afpfs" | "webdav" | "ceph" | "glusterfs" | "lustre"
            | "gfs2" | "ocfs2" | "9p" | "virtiofs" | "vboxsf" | "vmhgfs"
    )
}

/// Judges the result of the probe.
pub(super) fn judge(probe: &Result<LeaseProbe, Errno>) -> Check {
    match probe {
        Ok(probe) => judge_probe(probe),
        Err(error) => {
            let doctor = Suggestion::new("doctor").configured();
            let (why, first) = match *error {
                Errno::NOSPC | Errno::DQUOT => (
                    ": no space is left for an empty file".to_owned(),
                    "free some space",
                ),
                error => (
                    format!(
                        ", because no file can be created here: {}",
                        error_text(error)
                    ),
                    "fix the directory first",
                ),
            };
            let what = format!("it could not be tested{why}");
            Check::warning("proof", what, format!("{first}, then: {doctor}"))
        }
    }
}

fn judge_probe(probe: &LeaseProbe) -> Check {
    let (what, fix) = match (probe.while_open, probe.after_close) {
        (UseState::InUse | UseState::Locked, UseState::Unused) => {
            let source = probe.source;
            return Check::ok(
                "proof",
                format!(
                    "{source} was refused while the test file was open, and granted after it was closed"
                ),
            );
        }
        (UseState::Unused, _) => (
            "granted although doctor's test file was open. It proves nothing here; orphand must not run on this file \
             system",
            "remove the directory from the rules, together with its network = […]",
        ),
        (_, UseState::InUse | UseState::Locked) => (
            "refused although doctor had closed its test file: another program opens every new file here (a virus \
             scanner, an indexer, a backup), so every temp is kept as in-use",
            "exclude the directory in that program's settings",
        ),
        _ => (
            "it does not work here, so every temp is kept as cannot-tell",
            "see the lines on leases and on the file system; another cause is a seccomp filter that forbids \
             fcntl(F_SETLEASE)",
        ),
    };
    Check::error("proof", format!("{}: {what}", probe.source), fix)
}

/// The result of the probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LeaseProbe {
    /// The result of the proof while a second descriptor of this process has the file open.
    pub(super) while_open: UseState,
    /// The result of the proof after that descriptor is closed.
    pub(super) after_close: UseState,
    /// The mechanism of the proof, for people.
    pub(super) source: &'static str,
    /// The file is also found by its name in upper case.
    pub(super) folds_case: bool,
    /// The difference between the date of the new file and the clock of this machine.
    pub(super) clocks_differ: Duration,
}

/// Runs the probe in `dir`. The error is that of creating the file.
pub(super) fn probe(dir: &Dir) -> Result<LeaseProbe, Errno> {
    let name = new_name();
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let before = clock::wall();
    let user = rustix::fs::openat(dir.fd(), &name, flags, Mode::RUSR | Mode::WUSR)?;
    let named = ProbeFile {
        dir,
        name: name.clone(),
    };
    let after = clock::wall();
    let seen = dir::observe_fd(user.as_fd()).map_err(|error| errno(&error))?;
    let dated = seen.fingerprint.mtime;
    let uppercase = OsString::from(name.to_string_lossy().to_uppercase());
    let folded = dir.observe(&uppercase).ok().flatten();
    let folds_case = folded.is_some_and(|other| other.fingerprint.ino == seen.fingerprint.ino);
    let asked = open_for_check(dir, &name).map_err(|error| errno(&error))?;
    drop(named);

    let use_checker = UseChecker::new();
    let (while_open, mut checked) = use_checker.check(asked);
    let source = system::proof_source(&checked);
    drop(user);
    let mut after_close = UseState::InUse;
    // A program that reads every new file, for example a virus scanner, has it open for a moment.
    for pause in [0, 10, 40, 160] {
        std::thread::sleep(Duration::from_millis(pause));
        checked.release();
        after_close = checked.check();
        if !after_close.is_held() {
            break;
        }
    }
    Ok(LeaseProbe {
        while_open,
        after_close,
        source,
        folds_case,
        clocks_differ: distance_from_span(dated, before, after),
    })
}

/// The name of the file, which is removed when this is dropped.
///
/// RACE: between the creation of the file and the removal of its name, another process may move a different file to
/// this name. Worst case: a process that guesses 64 random bits within two system calls loses that file.
struct ProbeFile<'a> {
    dir: &'a Dir,
    name: OsString,
}

impl Drop for ProbeFile<'_> {
    fn drop(&mut self) {
        let _ = rustix::fs::unlinkat(self.dir.fd(), &self.name, AtFlags::empty());
    }
}

fn new_name() -> OsString {
    let random = random_u64();
    format!(".orphand-doctor-{random:016x}").into()
}

/// Returns the distance of `moment` from the span between two readings of the clock.
fn distance_from_span(moment: Wall, before: Wall, after: Wall) -> Duration {
    before.since(moment).max(moment.since(after))
}

fn errno(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

#[cfg(test)]
mod tests {
    use super::super::check::CheckState;
    use super::*;
    use orphand::core::own_names;
    use orphand::core::own_names::is_own;

    #[test]
    fn file_systems_without_a_proof_are_reported() {
        use LeaseCoverage::{OpensAndMaps, OpensOnly, Unknown};
        // name, kernel's name, reach, trusted, all seen
        for (name, kernel, reach, trusted, all_seen, state, words) in [
            (
                "ext4",
                "ext4",
                OpensAndMaps,
                false,
                false,
                CheckState::Ok,
                "ext4: the proof",
            ),
            (
                "ext4",
                "ext2",
                OpensAndMaps,
                false,
                false,
                CheckState::Ok,
                "ext2 (for rules: ext4)",
            ),
            (
                "overlayfs",
                "overlay",
                OpensOnly,
                false,
                true,
                CheckState::Ok,
                "mapped",
            ),
            (
                "overlayfs",
                "overlay",
                OpensOnly,
                false,
                false,
                CheckState::Warning,
                "quarantine",
            ),
            (
                "nfs",
                "nfs4",
                Unknown,
                false,
                true,
                CheckState::Error,
                "another machine",
            ),
            (
                "nfs",
                "nfs4",
                Unknown,
                true,
                true,
                CheckState::Warning,
                "another machine",
            ),
            (
                "fuse",
                "fuse.sshfs",
                Unknown,
                false,
                true,
                CheckState::Error,
                "behind FUSE",
            ),
            (
                "fuse",
                "virtiofs",
                Unknown,
                false,
                true,
                CheckState::Error,
                "another machine",
            ),
            (
                "0x786f4256",
                "vboxsf",
                Unknown,
                false,
                true,
                CheckState::Error,
                "another machine",
            ),
            (
                "zfs",
                "zfs",
                Unknown,
                false,
                true,
                CheckState::Error,
                "measured",
            ),
        ] {
            let seen = FileSystemCheck {
                name: name.into(),
                kernel: Some(kernel.into()),
                coverage: reach,
                trusted,
                all_seen,
            };
            let check = file_system(&seen);
            assert_eq!(check.state, state, "{check:?}");
            assert!(check.what.contains(words), "{check:?}");
            // The fix has the name that rules use.
            let named = check
                .fix
                .as_deref()
                .unwrap_or("")
                .contains(&format!("{name:?}"));
            assert_eq!(named, reach == Unknown, "{check:?}");
        }
    }

    #[test]
    fn a_probe_that_proves_nothing_is_an_error() {
        use UseState::{InUse, Unknown, Unused};
        for (in_use, free, state, words) in [
            (InUse, Unused, CheckState::Ok, "refused while"),
            (Unused, Unused, CheckState::Error, "proves nothing"),
            (Unused, Unknown, CheckState::Error, "proves nothing"),
            (InUse, InUse, CheckState::Error, "opens every new file"),
            (InUse, Unknown, CheckState::Error, "cannot-tell"),
            (Unknown, Unused, CheckState::Error, "cannot-tell"),
            (Unknown, Unknown, CheckState::Error, "cannot-tell"),
        ] {
            let seen = LeaseProbe {
                while_open: in_use,
                after_close: free,
                source: "a lease",
                folds_case: false,
                clocks_differ: Duration::ZERO,
            };
            let check = judge(&Ok(seen));
            assert_eq!(check.state, state, "{check:?}");
            assert!(check.what.contains(words), "{check:?}");
        }
        for error in [Errno::NOSPC, Errno::DQUOT, Errno::ACCESS] {
            let check = judge(&Err(error));
            assert_eq!(check.state, CheckState::Warning, "{check:?}");
            assert!(check.what.contains("could not be tested"), "{check:?}");
        }
    }

    #[test]
    fn the_probe_file_is_neither_a_temp_nor_a_claim() {
        let name = new_name();
        assert!(is_own(&name), "scans and watches skip it");
        assert_eq!(
            own_names::parse_claim(&name),
            None,
            "it is not recovered as a claim"
        );
        assert_ne!(name, new_name());
    }

    #[test]
    fn the_distance_of_a_date_from_a_span() {
        let at = |sec| Wall { sec, nsec: 0 };
        for (moment, want) in [(10, 0), (11, 0), (12, 0), (9, 1), (15, 3), (-90, 100)] {
            let off = distance_from_span(at(moment), at(10), at(12));
            assert_eq!(off, Duration::from_secs(want), "{moment}");
        }
    }

    #[test]
    fn the_probe_leaves_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let dir = Dir::open_root(&std::fs::canonicalize(folder.path()).unwrap(), None).unwrap();
        let probe = probe(&dir).unwrap();
        assert!(probe.clocks_differ < Duration::from_secs(2), "{probe:?}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
