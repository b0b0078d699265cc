//! A file of doctor's own in a root, on which is tried what orphand relies on there.
//!
//! Its name begins like all names of orphand's own, so scans and watches pass over it, and it is
//! none that a claim can have. It is empty, closed to everybody else, and has lost its name again
//! before anything is asked of it: a killed doctor leaves nothing behind but in the moment between
//! two system calls. What stays is the date of the folder.

use std::ffi::{OsStr, OsString};
use std::hash::{BuildHasher, Hasher};
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use orphand::clock;
use orphand::decide::observation::UseState;
use orphand::decide::time::Wall;
use orphand::evidence::{LeaseThread, open_to_ask};
use orphand::look::{self, Dir};
use rustix::fd::AsFd;
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::system;

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LeaseProbe {
    /// What the proof says while a second descriptor of ours has the file open.
    pub(super) while_open: UseState,
    /// What it says when nobody has.
    pub(super) after_close: UseState,
    /// What stands behind it here.
    pub(super) source: &'static str,
    /// The file is also found by its name in capitals.
    pub(super) folds_case: bool,
    /// How far the date that the file got is from our clock.
    pub(super) clocks_differ: Duration,
}

/// Tries it in `dir`. The error is that of making the file.
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
    let seen = look::observe_fd(user.as_fd()).map_err(|error| errno(&error))?;
    let dated = seen.fingerprint.mtime;
    let loud = OsString::from(name.to_string_lossy().to_uppercase());
    let folded = dir.observe(&loud).ok().flatten();
    let folds_case = folded.is_some_and(|other| other.fingerprint.ino == seen.fingerprint.ino);
    let asked = open_to_ask(dir, &name).map_err(|error| errno(&error))?;
    drop(named);

    let lease_thread = LeaseThread::new();
    let (in_use, mut leased) = lease_thread.lease(asked);
    let by = system::proof_source(&leased);
    drop(user);
    let mut free = UseState::InUse;
    // Whoever looks into every new file, a virus scanner say, has it open for a moment.
    for pause in [0, 10, 40, 160] {
        std::thread::sleep(Duration::from_millis(pause));
        leased.release();
        free = leased.acquire();
        if !free.is_held() {
            break;
        }
    }
    Ok(LeaseProbe {
        while_open: in_use,
        after_close: free,
        source: by,
        folds_case,
        clocks_differ: distance_from_span(dated, before, after),
    })
}

/// The name of the file, until this is dropped.
///
/// RACE: between making the file and removing its name somebody may move another file there. Worst
/// case: whoever guesses 64 random bits within two system calls loses a file of theirs.
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
    let random = std::collections::hash_map::RandomState::new()
        .build_hasher()
        .finish();
    OsStr::from_bytes(format!(".orphand-doctor-{random:016x}").as_bytes()).to_owned()
}

/// How far `moment` is outside of the span between two readings of our clock.
fn distance_from_span(moment: Wall, before: Wall, after: Wall) -> Duration {
    before.since(moment).max(moment.since(after))
}

fn errno(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

#[cfg(test)]
mod tests {
    use super::*;
    use orphand::reap::claim;
    use orphand::root::is_own;

    #[test]
    fn nothing_mistakes_it_for_a_temp_or_a_claim() {
        let name = new_name();
        assert!(is_own(&name), "scans and watches pass over it");
        assert_eq!(claim::read(&name), None, "no start puts it in order");
        assert_ne!(name, new_name());
    }

    #[test]
    fn how_far_a_date_is_off() {
        let at = |sec| Wall { sec, nsec: 0 };
        for (moment, want) in [(10, 0), (11, 0), (12, 0), (9, 1), (15, 3), (-90, 100)] {
            let off = distance_from_span(at(moment), at(10), at(12));
            assert_eq!(off, Duration::from_secs(want), "{moment}");
        }
    }

    #[test]
    fn it_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let dir = Dir::open_root(&std::fs::canonicalize(folder.path()).unwrap(), None).unwrap();
        let trial = run(&dir).unwrap();
        assert!(trial.clocks_differ < Duration::from_secs(2), "{trial:?}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
