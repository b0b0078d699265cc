//! Stores the names of writers while they are running, because the name of a killed process cannot be read any more.
//!
//! The names are for messages. No verdict depends on them.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use super::{FileId, system};
use crate::core::observation::Holder;

/// The names that were learnt.
#[derive(Debug, Default)]
pub struct WriterNames(Mutex<NameTable>);

#[derive(Debug, Default)]
struct NameTable {
    by_pid: HashMap<u32, String>,
    by_file: HashMap<FileId, String>,
}

/// The largest number of names of each kind. When it is reached, all names are dropped. Writers that are still running
/// are learnt again.
const MAX_NAMES: usize = 1024;

impl WriterNames {
    /// Learns the name of the process `pid`, if it is running. `pid` comes from the name of a temp that belongs to the
    /// user `uid`. A process of another user or of the kernel did not write the temp: if the writer runs in a
    /// container, its pid belongs to another process in this namespace.
    pub fn learn(&self, pid: u32, uid: u32) {
        let Some(name) = system::writer_name(pid, uid) else {
            return;
        };
        remember(&mut self.known().by_pid, pid, name);
    }

    /// Learns the name of the first of `holders`, which use `file`.
    pub fn learn_holders(&self, file: FileId, holders: &[Holder]) {
        if let Some(holder) = holders.first() {
            remember(&mut self.known().by_file, file, holder.name.clone());
        }
    }

    /// Returns the name of the program that wrote `file`, if it was learnt. `pid` is the pid in the name of the file.
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
    fn only_a_possible_writer_is_learnt() {
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
    fn a_holder_is_learnt_and_memory_is_bounded() {
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
