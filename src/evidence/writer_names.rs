//! Stores what is known about writers while they are running, because nothing about a killed process can be read any
//! more.
//!
//! This is for messages. No verdict depends on it.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Mutex;

use super::{FileId, system};
use crate::core::observation::Holder;
use crate::core::process::{Ended, Process, Via};
use crate::sys::clock;
use crate::sys::mutex::guard;

/// The processes that were learned.
#[derive(Debug, Default)]
pub struct WriterNames(Mutex<ProcessTable>);

#[derive(Debug, Default)]
struct ProcessTable {
    by_pid: HashMap<u32, KnownProcess>,
    by_file: HashMap<FileId, KnownProcess>,
    /// An upper bound of the number of open handles. They are counted when it reaches [`MAX_HANDLES`].
    handles: usize,
}

/// A process, and a handle that will tell how it ended.
#[derive(Debug)]
struct KnownProcess {
    process: Process,
    handle: Option<system::ProcessHandle>,
}

/// The largest number of processes of each kind. When it is reached, all are dropped. Writers that are still running
/// are learned again.
const MAX_NAMES: usize = 1024;

/// The largest number of open handles. When it is reached, those of ended processes are closed, or else all. Each one is
/// a file descriptor.
const MAX_HANDLES: usize = 16;

impl WriterNames {
    /// Learns about the process `pid`, if it is running. `pid` comes from the name of a temp that belongs to the user
    /// `uid`. A process of another user or of the kernel did not write the temp: if the writer runs in a container, its
    /// pid belongs to another process in this namespace.
    pub fn learn(&self, pid: u32, uid: u32) {
        let Some(name) = system::writer_name(pid, uid) else {
            return;
        };
        let mut known = self.known();
        let is_known = known
            .by_pid
            .get_mut(&pid)
            .is_some_and(|one| one.is_running(&name));
        if !is_known {
            let one = known.examine(pid, name, Via::Name);
            remember(&mut known.by_pid, pid, one);
        }
    }

    /// Learns about the first of `holders`, which use `file`.
    pub fn learn_holders(&self, file: FileId, holders: &[Holder]) {
        let Some(holder) = holders.first() else {
            return;
        };
        let mut known = self.known();
        let is_known = known
            .by_file
            .get_mut(&file)
            .is_some_and(|one| one.process.pid == holder.pid && one.is_running(&holder.name));
        if !is_known {
            let one = known.examine(holder.pid, holder.name.clone(), Via::Holder);
            remember(&mut known.by_file, file, one);
        }
    }

    /// Returns the name of the program that wrote `file`, if it was learned. `pid` is the pid in the name of the file.
    #[must_use]
    pub fn name_of(&self, file: FileId, pid: Option<u32>) -> Option<String> {
        self.process_of(file, pid)?.name
    }

    /// Returns the process that wrote `file`: the one whose pid is in its name, or else the last one that held it.
    #[must_use]
    pub fn process_of(&self, file: FileId, pid: Option<u32>) -> Option<Process> {
        let mut known = self.known();
        let ProcessTable {
            by_pid, by_file, ..
        } = &mut *known;
        let by_pid = pid.and_then(|pid| by_pid.get_mut(&pid));
        match by_pid.or_else(|| by_file.get_mut(&file)) {
            Some(one) => Some(one.now()),
            None => pid.map(|pid| Process {
                pid,
                name: None,
                exe: None,
                unit: None,
                ended: None,
                via: Via::Name,
            }),
        }
    }

    /// Returns what is known about the first of `holders`, which use `file` now.
    #[must_use]
    pub fn holder_of(&self, file: FileId, holders: &[Holder]) -> Option<Process> {
        let holder = holders.first()?;
        self.learn_holders(file, holders);
        let mut known = self.known();
        let one = known.by_file.get_mut(&file)?;
        (one.process.pid == holder.pid).then(|| one.now())
    }

    fn known(&self) -> std::sync::MutexGuard<'_, ProcessTable> {
        guard(&self.0)
    }
}

impl ProcessTable {
    /// Returns what the kernel tells about a running process.
    fn examine(&mut self, pid: u32, name: String, via: Via) -> KnownProcess {
        if self.handles >= MAX_HANDLES {
            self.close_handles();
        }
        let handle = system::ProcessHandle::open(pid);
        self.handles += usize::from(handle.is_some());
        KnownProcess {
            process: Process {
                pid,
                name: Some(name),
                exe: system::program(pid),
                unit: system::unit(pid),
                ended: None,
                via,
            },
            handle,
        }
    }

    /// Closes the handles of the processes that have ended, whose end is noted. Closes all others too if they are too
    /// many.
    fn close_handles(&mut self) {
        self.handles = self
            .all()
            .filter_map(|one| one.update().handle.as_ref())
            .count();
        if self.handles >= MAX_HANDLES {
            self.all().for_each(|one| one.handle = None);
            self.handles = 0;
        }
    }

    fn all(&mut self) -> impl Iterator<Item = &mut KnownProcess> {
        self.by_pid.values_mut().chain(self.by_file.values_mut())
    }
}

impl KnownProcess {
    /// Returns the process, with its end as soon as the kernel tells it.
    fn now(&mut self) -> Process {
        self.update().process.clone()
    }

    /// Notes the end of the process as soon as the kernel tells it. The handle is of no more use then.
    fn update(&mut self) -> &mut KnownProcess {
        let handle = self.handle.as_ref();
        if let Some(status) = handle.and_then(system::ProcessHandle::exit_status) {
            let at = clock::wall();
            self.process.ended = Some(Ended { status, at });
            self.handle = None;
        }
        self
    }

    /// Reports whether this is a process with this name that is not known to have ended.
    fn is_running(&mut self, name: &str) -> bool {
        let process = &self.update().process;
        process.ended.is_none() && process.name.as_deref() == Some(name)
    }
}

fn remember<K: Hash + Eq>(known: &mut HashMap<K, KnownProcess>, key: K, one: KnownProcess) {
    if known.len() >= MAX_NAMES {
        known.clear();
    }
    known.insert(key, one);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(ino: u64) -> FileId {
        FileId { dev: 1, ino }
    }

    #[test]
    fn only_a_possible_writer_is_learned() {
        let writers = WriterNames::default();
        let (us, uid) = (std::process::id(), rustix::process::geteuid().as_raw());
        writers.learn(us, uid + 1);
        assert_eq!(writers.name_of(file(1), Some(us)), None, "another user's");
        writers.learn(us, uid);
        let known = cfg!(any(target_os = "linux", target_os = "macos"));
        assert_eq!(writers.name_of(file(1), Some(us)).is_some(), known);
        let process = writers
            .process_of(file(1), Some(us))
            .expect("the pid is known");
        assert_eq!((process.pid, process.via), (us, Via::Name));
        if cfg!(target_os = "linux") {
            assert_eq!(process.exe, std::env::current_exe().ok());
        }
        assert_eq!(writers.name_of(file(1), None), None);
    }

    #[test]
    fn a_holder_is_learned_and_memory_is_bounded() {
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

    /// The end of a process is noted before its handle is closed to open another one.
    #[test]
    fn ended_processes_have_no_handles() {
        let writers = WriterNames::default();
        let last = MAX_HANDLES as u64;
        for ino in 0..=last {
            let mut child = std::process::Command::new("sleep")
                .arg("600")
                .spawn()
                .expect("it starts");
            let (pid, name) = (child.id(), "sleep".to_owned());
            writers.learn_holders(file(ino), &[Holder { pid, name }]);
            child.kill().expect("it runs");
            child.wait().expect("it was started");
        }
        let end = |ino| {
            let process = writers.process_of(file(ino), None).expect("it was learned");
            process.ended.map(|ended| ended.status)
        };
        for ino in 0..last {
            assert_eq!(end(ino), end(last), "{ino}");
        }
        // Before Linux 6.15, and on macOS, the end is not known.
        if end(last).is_some() {
            let open = writers
                .known()
                .all()
                .filter(|one| one.handle.is_some())
                .count();
            assert_eq!(open, 0);
        }
    }
}
