//! Evidence: who holds a file, whether its writer lives, what it was to replace.
//!
//! Each system answers in its own file, with the same functions: [`Asker`] and [`Proof`] (nobody
//! holds it), [`census`] (who does, for people), [`writer`], [`open_to_ask`]. What a
//! system cannot prove it says so, and the temp stays.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::io;
use std::time::Duration;

use crate::clock;
use crate::decide::judge::{Evidence, Place, Writer};
use crate::decide::observation::{Fingerprint, Hold, Holder, Observation};
use crate::decide::policy::{self, Policy};
use crate::decide::reserved::Reserved;
use crate::decide::temp_name::Reading;
use crate::decide::time::Mono;
use crate::look::Dir;
use locks::Locks;
use namespaces::Nested;
use restored::Marks;
use siblings::Siblings;

#[cfg_attr(target_os = "linux", path = "linux.rs")]
#[cfg_attr(target_os = "macos", path = "macos.rs")]
mod system;

pub mod locks;
pub mod namespaces;
pub mod restored;
pub mod siblings;
mod target;
pub mod writers;

#[cfg(target_os = "linux")]
pub use system::shows_our_processes;
pub use system::{Asker, ORIGIN, Proof, census, mark, open_to_ask, set_mark, writer};
pub use target::{Compared, Found, target, target_again, target_name};

/// A file, as the kernel's tables name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileId {
    /// Device number.
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
}

impl From<&Fingerprint> for FileId {
    fn from(seen: &Fingerprint) -> FileId {
        FileId {
            dev: seen.dev,
            ino: seen.ino,
        }
    }
}

/// What was seen on a walk over the processes.
#[derive(Clone, Debug, Default)]
pub struct Census {
    /// Who was seen holding which of the files that were asked for.
    pub holders: HashMap<FileId, Vec<Holder>>,
    /// Those that somebody may hold who is not among them: a file with the same number is held, on a device
    /// that may be the same one by another name.
    pub doubtful: HashSet<FileId>,
    /// Every process on this machine was examined, descriptors and mappings, and none of them
    /// could hide. Only then does an absence here prove anything.
    pub complete: bool,
}

impl Census {
    /// Who was seen holding `file`.
    #[must_use]
    pub fn of(&self, file: FileId) -> Vec<Holder> {
        self.holders.get(&file).cloned().unwrap_or_default()
    }

    /// Whether it is proven that nobody has `file` mapped.
    #[must_use]
    pub fn clears(&self, file: FileId) -> bool {
        let is_held = self.holders.contains_key(&file) || self.doubtful.contains(&file);
        self.complete && !is_held
    }
}

/// A temp on its way to a verdict: what is known of it beside what stands on disk.
#[derive(Clone, Debug)]
pub struct Suspect {
    /// Its base name.
    pub name: OsString,
    /// What that says.
    pub reading: Reading,
    /// Why that is reserved, as far as the rule tells and what was seen of it before.
    pub reserved: Option<Reserved>,
    /// What the earlier look saw; `None` where there was none.
    pub expected: Option<Fingerprint>,
    /// How long it has been quiet.
    pub quiet: Duration,
    /// How long nobody has used it.
    pub unused: Duration,
    /// How long it must be quiet.
    pub grace: Duration,
    /// When it was changed last, at the latest, if that is known.
    pub written: Option<Mono>,
    /// Whether a close by a writer was reported.
    pub closed: bool,
}

/// What holds for all temps of one directory.
#[derive(Clone, Copy, Debug)]
pub struct Circumstances<'a> {
    /// The rule.
    pub policy: &'a Policy,
    /// As whom the files are judged.
    pub our_uid: u32,
    /// Where restored files are marked.
    pub marks: &'a Marks,
    /// Who goes by which pid in namespaces below ours.
    pub nested: &'a Nested,
    /// Which files are seen to be locked.
    pub locks: &'a Locks,
    /// What lies beside them.
    pub siblings: &'a Siblings,
    /// What is judged was looked at before this too, and was the same.
    pub since: Mono,
    /// A quarantine is there, or could be.
    pub quarantine: bool,
    /// A walk over the processes, where the proof does not see mappings.
    pub census: Option<&'a Census>,
}

/// Whether the process that goes by `pid`, here or in a namespace below ours, can have written the temp.
fn writer_of(pid: u32, suspect: &Suspect, circumstances: Circumstances<'_>) -> Writer {
    let can_have = |pid| matches!(writer(pid, suspect.written), Writer::Alive(_));
    if can_have(pid) {
        return Writer::Alive(pid);
    }
    // That long it stood between the two looks at the least.
    let between = policy::confirm(suspect.grace, Duration::ZERO);
    let since = circumstances.since.min(clock::mono().before(between));
    match circumstances.nested.called(pid, since) {
        Ok(called)
            if rule!(
                "writer-in-a-container-lives",
                called.iter().copied().any(can_have)
            ) =>
        {
            Writer::Nested(pid)
        }
        Ok(_) => Writer::Gone(pid),
        Err(_) => rule!("failed-walk-keeps", Writer::Unseen(pid), without: Writer::Gone(pid)),
    }
}

/// Puts together what the verdict rests on. `answer` is what the kernel was asked with, if it was,
/// and what it answered; `seen` is the newest look.
///
/// Returns what was found at the name of its target, too.
pub fn gather(
    dir: &Dir,
    suspect: &Suspect,
    seen: Observation,
    answer: (Option<&Proof>, Hold),
    circumstances: Circumstances<'_>,
) -> io::Result<(Evidence, Found)> {
    let (proof, hold) = answer;
    let fingerprint = seen.fingerprint;
    let temp = Compared {
        seen: &seen,
        file: proof.map(Proof::file),
    };
    let found = target(dir, circumstances.policy, &suspect.reading, temp)?;
    let writer = match suspect.reading.pid {
        None => Writer::Unnamed,
        Some(pid) => writer_of(pid, suspect, circumstances),
    };
    let is_locked = || {
        let asked = system::is_locked(proof);
        asked.unwrap_or_else(|| circumstances.locks.tell_of(&fingerprint))
    };
    let hold = match hold {
        Hold::Held | Hold::CannotTell if is_locked() => Hold::Locked,
        // Nobody who locks it lets it be free.
        _ => hold,
    };
    let restored = match proof {
        Some(proof) => circumstances.marks.has(proof.file(), &fingerprint)?,
        None => false,
    };
    // Digits that read as a date may be a part of a flag's name. Only an empty file is asked whether it is one.
    let random_name = suspect.reading.random
        && rule!(
            "empty-file-may-be-flag",
            fingerprint.size > 0
                || circumstances.policy.names.shape(&suspect.name).form != suspect.name,
            without: true,
        );
    let by_name = suspect.reserved.clone();
    let reserved = by_name.or_else(|| circumstances.siblings.protect(&suspect.name));
    let file = FileId::from(&fingerprint);
    let evidence = Evidence {
        observation: seen,
        expected: suspect.expected,
        quiet: suspect.quiet,
        grace: suspect.grace,
        unused: suspect.unused,
        place: Place {
            quarantine: circumstances.quarantine,
            ..dir.place().clone()
        },
        our_uid: circumstances.our_uid,
        writer,
        closed: suspect.closed,
        hold,
        opened: rule!("unopened-is-not-asked", proof.is_some(), without: true),
        mappings_examined: circumstances
            .census
            .is_some_and(|census| census.clears(file)),
        target: found.target,
        random_name,
        restored,
        reserved,
    };
    Ok((evidence, found))
}
