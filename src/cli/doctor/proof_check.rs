//! Judges whether orphand can prove in a root that a file is unused.

use orphand::core::judge::LeaseCoverage;
use orphand::core::observation::UseState;
use rustix::io::Errno;

use super::check::{Check, error_text};
use super::lease_probe::LeaseProbe;
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

/// The types on which other machines, or the host of a virtual machine, can use the same files.
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
    let shared = |name: &str| SHARED.contains(&name);
    if shared(kernel) || shared(&seen.name) && !kernel.starts_with("fuse") {
        "and a program on another machine that has a file open cannot be seen from here"
    } else if kernel.starts_with("fuse") || seen.name.contains("fuse") {
        "and the kernel does not see what the program behind FUSE does with a file"
    } else {
        "and it has not been measured whether the proof holds on it"
    }
}

/// Judges the result of the probe.
pub(super) fn lease_probe(seen: &Result<LeaseProbe, Errno>) -> Check {
    let check = "proof";
    let probe = match seen {
        Ok(probe) => probe,
        Err(Errno::NOSPC | Errno::DQUOT) => {
            return Check::warning(
                check,
                "it could not be tested: no space is left for an empty file",
                format!("free some space, then: {}", doctor_command()),
            );
        }
        Err(error) => {
            return Check::warning(
                check,
                format!(
                    "it could not be tested, because no file can be created here: {}",
                    error_text(*error)
                ),
                format!("fix the directory first, then: {}", doctor_command()),
            );
        }
    };
    let source = probe.source;
    match (probe.while_open, probe.after_close) {
        (UseState::InUse | UseState::Locked, UseState::Unused) => Check::ok(
            check,
            format!(
                "{source} was refused while the test file was open, and granted after it was closed"
            ),
        ),
        (UseState::Unused, _) => Check::error(
            check,
            format!(
                "{source}: granted although doctor's test file was open. It proves nothing here; orphand must not run \
                 on this file system"
            ),
            "remove the directory from the rules, together with its network = […]",
        ),
        (_, UseState::InUse | UseState::Locked) => Check::error(
            check,
            format!(
                "{source}: refused although doctor had closed its test file: another program opens every new file \
                 here (a virus scanner, an indexer, a backup), so every temp is kept as in-use"
            ),
            "exclude the directory in that program's settings",
        ),
        _ => Check::error(
            check,
            format!("{source}: it does not work here, so every temp is kept as cannot-tell"),
            "see the lines on leases and on the file system; another cause is a seccomp filter that forbids \
             fcntl(F_SETLEASE)",
        ),
    }
}

/// Returns the command that repeats the checks.
fn doctor_command() -> Suggestion {
    Suggestion::new("doctor").configured()
}

#[cfg(test)]
mod tests {
    use super::super::check::CheckState;
    use super::*;
    use std::time::Duration;

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
            let check = lease_probe(&Ok(seen));
            assert_eq!(check.state, state, "{check:?}");
            assert!(check.what.contains(words), "{check:?}");
        }
        for error in [Errno::NOSPC, Errno::DQUOT, Errno::ACCESS] {
            let check = lease_probe(&Err(error));
            assert_eq!(check.state, CheckState::Warning, "{check:?}");
            assert!(check.what.contains("could not be tested"), "{check:?}");
        }
    }
}
