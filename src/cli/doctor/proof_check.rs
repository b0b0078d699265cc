//! Whether it can be proven in a root that nobody holds a file.

use orphand::decide::judge::LeaseCoverage;
use orphand::decide::observation::UseState;
use rustix::io::Errno;

use super::super::shell::Suggestion;
use super::check::{Check, error_text};
use super::lease_probe::LeaseProbe;

/// The file system of a root.
#[derive(Clone, Debug)]
pub(super) struct FileSystemCheck {
    /// As rules name it.
    pub(super) name: String,
    /// As the kernel names its type, where that is known.
    pub(super) kernel: Option<String>,
    /// How far the proof reaches.
    pub(super) coverage: LeaseCoverage,
    /// The rule trusts it all the same.
    pub(super) trusted: bool,
    /// Every process on this machine can be examined, with what it has mapped.
    pub(super) all_seen: bool,
}

/// Types on which other machines, or the host of this one, work on the same files.
const SHARED: &[&str] = &[
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "smbfs",
    "afs",
    "afpfs",
    "webdav",
    "ceph",
    "glusterfs",
    "lustre",
    "gfs2",
    "ocfs2",
    "9p",
    "virtiofs",
    "vboxsf",
    "vmhgfs",
];

pub(super) fn file_system(seen: &FileSystemCheck) -> Check {
    let check = "file-system";
    let name = match &seen.kernel {
        Some(kernel) if *kernel != seen.name => format!("{kernel} (for rules: {})", seen.name),
        _ => seen.name.clone(),
    };
    match (seen.coverage, seen.trusted) {
        (LeaseCoverage::OpensAndMaps, _) => Check::ok(
            check,
            format!("{name}: the proof that nobody holds a file is known to hold on it"),
        ),
        (LeaseCoverage::OpensOnly, _) if seen.all_seen => Check::ok(
            check,
            format!(
                "{name}: the kernel's proof does not see who only mapped a file; the walk over \
                 all processes that can be made here does"
            ),
        ),
        (LeaseCoverage::OpensOnly, _) => Check::warning(
            check,
            format!(
                "{name}: the kernel's proof does not see who only mapped a file, nor who uses a \
                 layer directly, and not every process can be examined here: what is an orphan is \
                 moved to the quarantine instead of being deleted"
            ),
            "put the directory on a volume (a bind mount of ext4, xfs, btrfs or a tmpfs), or run \
             orphand as root outside of the container",
        ),
        (LeaseCoverage::Unknown, true) => Check::warning(
            check,
            format!("{name}: your rule trusts it, {}", risk(seen)),
            format!(
                "if that can happen, take {:?} out of network = […] in the rule",
                seen.name
            ),
        ),
        (LeaseCoverage::Unknown, false) => Check::error(
            check,
            format!("{name}: everything is kept (network-fs), {}", risk(seen)),
            format!(
                "run orphand on the machine that has the disk; or, if no other works on these \
                 files, in the rule: network = [{:?}]",
                seen.name
            ),
        ),
    }
}

fn risk(seen: &FileSystemCheck) -> &'static str {
    let kernel = seen.kernel.as_deref().unwrap_or(&seen.name);
    let shared = |name: &str| SHARED.contains(&name);
    if shared(kernel) || shared(&seen.name) && !kernel.starts_with("fuse") {
        "and a program on another machine that has a file open is not seen from here"
    } else if kernel.starts_with("fuse") || seen.name.contains("fuse") {
        "and what a program behind FUSE does with a file is not seen by the kernel"
    } else {
        "and nobody has measured whether the proof holds on it"
    }
}

/// What the trial on a file of doctor's own says.
pub(super) fn lease_probe(seen: &Result<LeaseProbe, Errno>) -> Check {
    let check = "proof";
    let trial = match seen {
        Ok(trial) => trial,
        Err(Errno::NOSPC | Errno::DQUOT) => {
            return Check::warning(
                check,
                "it could not be tried: there is no room for an empty file",
                format!("make room, then: {}", doctor_command()),
            );
        }
        Err(error) => {
            return Check::warning(
                check,
                format!(
                    "it could not be tried, as no file can be made here: {}",
                    error_text(*error)
                ),
                format!("mend what is said of the root, then: {}", doctor_command()),
            );
        }
    };
    let by = trial.source;
    match (trial.while_open, trial.after_close) {
        (UseState::InUse | UseState::Locked, UseState::Unused) => Check::ok(
            check,
            format!("{by}: refused while a file of doctor's own was open, granted when it was not"),
        ),
        (UseState::Unused, _) => Check::error(
            check,
            format!(
                "{by}: granted although a file of doctor's own was open. It proves nothing here; \
                 orphand must not run on this file system"
            ),
            "take the directory out of the rules, and network = […] with it",
        ),
        (_, UseState::InUse | UseState::Locked) => Check::error(
            check,
            format!(
                "{by}: refused, though doctor had closed its file: something opens every new file \
                 here (a virus scanner, an indexer, a backup), so every temp is kept as in-use"
            ),
            "except the directory in that program's settings",
        ),
        _ => Check::error(
            check,
            format!("{by}: it cannot be asked here, so every temp is kept as cannot-tell"),
            "look at the lines on leases and on the file system; a seccomp filter that forbids \
             fcntl(F_SETLEASE) does this too",
        ),
    }
}

/// The command to try again with.
fn doctor_command() -> Suggestion {
    Suggestion::new("doctor").configured()
}

#[cfg(test)]
mod tests {
    use super::super::check::CheckState;
    use super::*;
    use std::time::Duration;

    #[test]
    fn file_systems() {
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
            // What is to be written into a rule is the name that rules know.
            let named = check
                .fix
                .as_deref()
                .unwrap_or("")
                .contains(&format!("{name:?}"));
            assert_eq!(named, reach == Unknown, "{check:?}");
        }
    }

    #[test]
    fn trials() {
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
            let check = lease_probe(&Ok(seen));
            assert_eq!(check.state, state, "{check:?}");
            assert!(check.what.contains(words), "{check:?}");
        }
        for error in [Errno::NOSPC, Errno::DQUOT, Errno::ACCESS] {
            let check = lease_probe(&Err(error));
            assert_eq!(check.state, CheckState::Warning, "{check:?}");
            assert!(check.what.contains("could not be tried"), "{check:?}");
        }
    }
}
