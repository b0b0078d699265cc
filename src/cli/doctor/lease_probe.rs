//! Creates a file in a root, and tests on it the mechanisms that orphand relies on there.
//!
//! The name of the file has the prefix of orphand's own files, so scans and watches skip it, and no claim can have it.
//! The file is empty and inaccessible to other users. Its name is removed before the tests begin, so a killed doctor
//! leaves the file behind only if it is killed between two system calls. The date of the directory changes.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

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

use super::system;

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
pub(super) fn run(dir: &Dir) -> Result<LeaseProbe, Errno> {
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
    OsStr::from_bytes(format!(".orphand-doctor-{random:016x}").as_bytes()).to_owned()
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
    use super::*;
    use orphand::core::own_names;
    use orphand::core::own_names::is_own;

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
        let probe = run(&dir).unwrap();
        assert!(probe.clocks_differ < Duration::from_secs(2), "{probe:?}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
