//! The names of writers, learnt while they lived: a killed one cannot be asked any more.
//!
//! For people, never for a verdict.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use super::{FileId, system};
use crate::decide::observation::Holder;

/// What was learnt.
#[derive(Debug, Default)]
pub struct WriterNames(Mutex<NameTable>);

#[derive(Debug, Default)]
struct NameTable {
    by_pid: HashMap<u32, String>,
    by_file: HashMap<FileId, String>,
}

/// The most names that are remembered of each kind. Beyond that all are forgotten: those that still
/// write are seen again.
const MAX_NAMES: usize = 1024;

impl WriterNames {
    /// A temp of the user `uid` carries `pid` in its name. If that process lives, its name is learnt.
    /// One of another user, or of the kernel, did not write it: in a container numbers mean other
    /// processes than they do outside.
    pub fn learn(&self, pid: u32, uid: u32) {
        let Some(name) = system::writer_name(pid, uid) else {
            return;
        };
        remember(&mut self.known().by_pid, pid, name);
    }

    /// Somebody was seen holding `file`.
    pub fn learn_holders(&self, file: FileId, holders: &[Holder]) {
        if let Some(holder) = holders.first() {
            remember(&mut self.known().by_file, file, holder.name.clone());
        }
    }

    /// The name of the program that wrote `file`, whose name carries `pid`, if it was learnt.
    #[must_use]
    pub fn name_of(&self, file: FileId, pid: Option<u32>) -> Option<String> {
        let known = self.known();
        let by_pid = pid.and_then(|pid| known.by_pid.get(&pid));
        by_pid.or_else(|| known.by_file.get(&file)).cloned()
    }

    fn known(&self) -> std::sync::MutexGuard<'_, NameTable> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn remember<K: std::hash::Hash + Eq>(names: &mut HashMap<K, String>, key: K, name: String) {
    if names.len() >= MAX_NAMES {
        names.clear();
    }
    names.insert(key, name);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(ino: u64) -> FileId {
        FileId { dev: 1, ino }
    }

    #[test]
    fn who_lives_is_learnt_and_who_cannot_have_written_it_is_not() {
        let writers = WriterNames::default();
        let (us, uid) = (std::process::id(), rustix::process::geteuid().as_raw());
        writers.learn(us, uid + 1);
        assert_eq!(writers.name_of(file(1), Some(us)), None, "another user's");
        writers.learn(us, uid);
        let known = cfg!(any(target_os = "linux", target_os = "macos"));
        assert_eq!(writers.name_of(file(1), Some(us)).is_some(), known);
        assert_eq!(writers.name_of(file(1), None), None);
    }

    #[test]
    fn a_holder_is_remembered_and_memory_is_bounded() {
        let writers = WriterNames::default();
        for ino in 0..=MAX_NAMES as u64 {
            let name = ino.to_string();
            writers.learn_holders(file(ino), &[Holder { pid: 1, name }]);
        }
        assert_eq!(
            writers.name_of(file(MAX_NAMES as u64), None),
            Some(MAX_NAMES.to_string())
        );
        assert_eq!(writers.name_of(file(0), None), None);
        assert!(writers.known().by_file.len() <= MAX_NAMES);
    }
}
