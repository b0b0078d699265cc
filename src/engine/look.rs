//! Looks at one file.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use crate::core::observation::{Kind, Observation, UseState};
use crate::core::policy::Policy;
use crate::evidence::{self, CheckedFile, FileUse, KnownTarget, UseChecker};
use crate::fs::dir;
use crate::fs::dir::Dir;

/// The result of [`look_at`].
pub(super) enum LookResult {
    /// No file has this name.
    Missing,
    /// The name refers to something that is never a temp.
    NotATemp,
    /// A regular file.
    File(SeenFile),
}

/// A regular file that was looked at.
pub(super) struct SeenFile {
    pub(super) observation: Observation,
    pub(super) use_state: UseState,
    /// Its handle, if it was opened.
    pub(super) checked: Option<CheckedFile>,
    /// Whether the check of its use is left to the protocol.
    pub(super) proof: Proof,
}

/// The moment at which a look checks whether a process uses the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Proof {
    /// At the look.
    Now,
    /// At the protocol's first steps, right after the look. Until then the file counts as unused.
    ByProtocol,
    /// Never, because the temp is kept anyway. The use of the file is unknown.
    NotNeeded,
}

impl SeenFile {
    /// Checks whether a process uses an opened file, and observes it.
    fn of_opened(use_checker: &UseChecker, opened: OwnedFd) -> io::Result<SeenFile> {
        let (use_state, checked) = use_checker.check(opened);
        Ok(SeenFile {
            observation: dir::observe_fd(checked.file())?,
            use_state,
            checked: Some(checked),
            proof: Proof::Now,
        })
    }

    /// Checks whether a process uses a file that was opened without that check.
    ///
    /// RACE: a process may change the file between the observation and this check. Worst case: `scan` shows a verdict
    /// that was right a moment before. It removes nothing.
    pub(super) fn with_check(mut self, use_checker: &UseChecker) -> SeenFile {
        if let Some(checked) = &mut self.checked {
            self.use_state = use_checker.check_again(checked);
            self.proof = Proof::Now;
        }
        self
    }

    pub(super) fn file_use(&self) -> FileUse<'_> {
        FileUse {
            state: self.use_state,
            file: self.checked.as_ref(),
            target: KnownTarget::Nothing,
            is_needed: self.proof != Proof::NotNeeded,
        }
    }
}

/// Opens and observes the file `name`, which the listing of the directory has shown to be regular. Does not ask whether a
/// process uses it. Returns `None` if only [`look_at`] can look at it.
pub(super) fn open_listed(
    dir: &Dir,
    name: &OsStr,
    policy: &Policy,
    use_checker: &UseChecker,
    our_uid: u32,
) -> io::Result<Option<SeenFile>> {
    let Some(opened) = open_own(dir, name, policy) else {
        return Ok(None);
    };
    let observation = dir::observe_fd(opened.as_fd())?;
    Ok(is_own_file(&observation, our_uid).then(|| SeenFile {
        observation,
        use_state: UseState::Unknown,
        checked: Some(use_checker.unchecked(opened)),
        proof: Proof::NotNeeded,
    }))
}

/// Opens a listed file without an observation by name, if the proof by a lease counts and the file may be this user's.
///
/// RACE: since the listing the name may have been given to a file of another kind. Worst case: a device special file is
/// opened and closed, as by [`evidence::open_for_check`].
fn open_own(dir: &Dir, name: &OsStr, policy: &Policy) -> Option<OwnedFd> {
    let has_proof = UseChecker::HOLDS_LEASES && dir.properties().has_proof(policy);
    has_proof.then(|| evidence::open_own_for_check(dir, name).ok())?
}

fn is_own_file(seen: &Observation, our_uid: u32) -> bool {
    let file = &seen.fingerprint;
    file.kind == Kind::File && (our_uid == 0 || file.uid == our_uid)
}

/// Looks at the file `name`, which the listing of the directory has shown to be regular, and opens it without an
/// observation by name. So only files of this user are opened. Otherwise it is [`look_at`].
pub(super) fn look_at_listed(
    dir: &Dir,
    name: &OsStr,
    policy: &Policy,
    use_checker: &UseChecker,
    our_uid: u32,
) -> io::Result<LookResult> {
    if let Some(opened) = open_own(dir, name, policy) {
        let seen = SeenFile::of_opened(use_checker, opened)?;
        if is_own_file(&seen.observation, our_uid) {
            return Ok(LookResult::File(seen));
        }
    }
    look_at(dir, name, policy, use_checker, our_uid)
}

/// Observes the file `name`, and checks whether a process uses it if it can be a temp of this user. Changes no state
/// and gathers no other evidence.
pub(super) fn look_at(
    dir: &Dir,
    name: &OsStr,
    policy: &Policy,
    use_checker: &UseChecker,
    our_uid: u32,
) -> io::Result<LookResult> {
    let Some(first) = dir.observe(name)? else {
        return Ok(LookResult::Missing);
    };
    let file = &first.fingerprint;
    if rule!("only-files-are-temps", file.kind != Kind::File) {
        return Ok(LookResult::NotATemp);
    }
    let unopened = |use_state| {
        LookResult::File(SeenFile {
            observation: first,
            use_state,
            checked: None,
            proof: Proof::Now,
        })
    };
    let is_ours = our_uid == 0 || file.uid == our_uid;
    // A file of another user gives no lease. A file whose data is stored elsewhere would be fetched if it were opened.
    // On a file system whose proof does not count, the check would have no meaning.
    if !is_ours || first.dataless || !dir.properties().has_proof(policy) {
        return Ok(unopened(UseState::Unknown));
    }
    let opened = match evidence::open_for_check(dir, name) {
        Ok(opened) => opened,
        Err(error) => {
            return match error.kind() {
                io::ErrorKind::NotFound => Ok(LookResult::Missing),
                // A lease of another process prevents the open: that process is a holder.
                io::ErrorKind::WouldBlock => Ok(unopened(UseState::InUse)),
                io::ErrorKind::PermissionDenied => Ok(unopened(UseState::Unknown)),
                _ => Err(error),
            };
        }
    };
    Ok(LookResult::File(SeenFile::of_opened(use_checker, opened)?))
}
