//! Finds processes in child pid namespaces (containers) by the pids that they have there.
//!
//! A writer puts its own pid into the name of its temp (getpid(2)). In this namespace that pid belongs to another
//! process or to none, so a live writer in a container would look dead. A writer in a namespace that is not a child of
//! ours cannot be found. This happens if orphand itself runs in a container.

use super::system;
use crate::core::time::Mono;
use crate::sys::clock;
use crate::sys::mutex::guard;
use std::collections::HashMap;
use std::io;
use std::sync::Mutex;

/// The pids in child namespaces at the time of the last process scan. A scan takes 18 µs for each process (measured on
/// Linux 6.18), so one scan is used for as many questions as possible.
#[derive(Debug, Default)]
pub struct ContainerPids(Mutex<LastPidScan>);

#[derive(Debug, Default)]
struct LastPidScan {
    /// The start of the scan. `None`: there was none.
    at: Option<Mono>,
    /// The pids in this namespace, by the pid in a child namespace.
    outer_pids: HashMap<u32, Vec<u32>>,
}

impl ContainerPids {
    /// Returns the pids in this namespace of the processes that have the pid `pid` in a child namespace.
    ///
    /// The temp in question has been unchanged at least since `since`. Its writer existed before that time, so a scan
    /// that began at that time or later has found the writer if it is still running.
    ///
    /// # Errors
    ///
    /// Not all processes could be examined, for example because no descriptor was free. Such a scan is not stored.
    pub fn resolve(&self, pid: u32, since: Mono) -> io::Result<Vec<u32>> {
        let mut last = guard(&self.0);
        if last
            .at
            .is_none_or(|at| rule!("older-temps-reuse-the-scan", at < since))
        {
            let begun = clock::mono();
            last.outer_pids = rule!(
                "failed-scan-is-not-stored",
                system::container_pids()?,
                without: system::container_pids().unwrap_or_default(),
            );
            last.at = Some(begun);
        }
        Ok(last.outer_pids.get(&pid).cloned().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scan_is_reused_for_temps_that_are_older() {
        let container_pids = ContainerPids::default();
        let last_scan = || container_pids.0.lock().unwrap().at;
        let before = clock::mono();
        assert!(container_pids.resolve(u32::MAX, before).unwrap().is_empty());
        let first = last_scan().unwrap();
        assert!(first >= before);
        container_pids.resolve(1, first).unwrap();
        assert_eq!(last_scan(), Some(first));
        container_pids.resolve(1, Mono(first.0 + 1)).unwrap();
        assert!(last_scan() > Some(first));
    }
}
