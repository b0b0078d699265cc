//! The quarantine of a batch, opened for the first temp that needs it.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rustix::io::Errno;

use super::quarantine::{ClaimedSet, MovedAs, Quarantine, QuarantineDir, Slot};
use super::types::{BatchContext, Outcome, Step, failed};
use crate::core::judge::Reason;
use crate::fs::dir::RootError;

/// How often a quarantine is opened that is removed while it is in use.
const TRIES: usize = 4;

/// The quarantine of a batch, opened for the first temp that needs it.
pub(super) struct LazyQuarantine<'a> {
    batch_context: BatchContext<'a>,
    quarantine: RefCell<Option<Arc<Quarantine>>>,
    /// The directory in the quarantine for the batch's directory, once a temp has a slot in it.
    dir: RefCell<Option<Arc<QuarantineDir>>>,
}

impl<'a> LazyQuarantine<'a> {
    pub(super) fn new(batch_context: BatchContext<'a>) -> LazyQuarantine<'a> {
        LazyQuarantine {
            batch_context,
            quarantine: RefCell::default(),
            dir: RefCell::default(),
        }
    }

    /// Returns a slot for the temp `name`, or the outcome if there is none.
    pub(super) fn slot(&self, name: &OsStr, moved_as: MovedAs) -> Result<Slot, Outcome> {
        let below = self.batch_context.dir.below().join(name);
        let known = self.dir.borrow().as_ref().map(Arc::clone);
        if let Some(dir) = known.filter(|dir| dir.moved_as() == moved_as)
            && let Some(slot) = dir.slot(&below).map_err(no_quarantine)?
        {
            return Ok(slot);
        }
        let slot = self.with_quarantine(|quarantine| quarantine.new_slot(&below, moved_as))?;
        self.dir.replace(Some(Arc::clone(slot.dir())));
        Ok(slot)
    }

    /// Returns slots for the members of a set, the first of which is the main file, in a folder of their own.
    pub(super) fn set_slots(
        &self,
        names: &[&OsStr],
        moved_as: MovedAs,
    ) -> Result<Vec<Slot>, Outcome> {
        let dir = self.batch_context.dir.below();
        let below: Vec<PathBuf> = names.iter().map(|name| dir.join(name)).collect();
        self.with_quarantine(|quarantine| quarantine.new_set_slots(&below, moved_as))
    }

    /// Returns a slot for a companion of `main` beside that file, which a killed orphand had moved after it claimed the set
    /// `set`. Returns `None` if there is no such file in the quarantine.
    pub(super) fn slot_beside(
        &self,
        main: &OsStr,
        name: &OsStr,
        set: ClaimedSet<'_>,
    ) -> Result<Option<Slot>, Outcome> {
        let dir = self.batch_context.dir.below();
        let (main, below) = (dir.join(main), dir.join(name));
        self.with_quarantine(|quarantine| quarantine.slot_beside(&main, &below, set))
    }

    fn with_quarantine<T>(
        &self,
        act: impl Fn(&Arc<Quarantine>) -> io::Result<T>,
    ) -> Result<T, Outcome> {
        for _ in 0..TRIES {
            let done = self
                .open()
                .and_then(|quarantine| act(&quarantine).map_err(RootError::Io));
            match done {
                Ok(done) => return Ok(done),
                Err(RootError::Io(error)) if error.kind() == io::ErrorKind::NotFound => {
                    self.quarantine.take();
                }
                Err(RootError::Io(error)) => return Err(no_quarantine(error)),
                Err(_) => break,
            }
        }
        Err(Outcome::Kept(Reason::NoQuarantine))
    }

    fn open(&self) -> Result<Arc<Quarantine>, RootError> {
        if let Some(quarantine) = &*self.quarantine.borrow() {
            return Ok(Arc::clone(quarantine));
        }
        let quarantine = Quarantine::open_or_create(self.batch_context.root, self.batch_context.id);
        let quarantine = Arc::new(quarantine?);
        self.quarantine.replace(Some(Arc::clone(&quarantine)));
        Ok(quarantine)
    }
}

/// Returns the outcome for a temp without a slot. If no quarantine is possible here, the temp is kept for that reason.
/// If the system fails or has run out of a resource, the error is reported instead.
fn no_quarantine(error: io::Error) -> Outcome {
    match Errno::from_io_error(&error) {
        Some(
            Errno::IO | Errno::NFILE | Errno::MFILE | Errno::NOMEM | Errno::INTR | Errno::AGAIN,
        ) => failed(Step::Claim)(error),
        _ => Outcome::Kept(Reason::NoQuarantine),
    }
}
