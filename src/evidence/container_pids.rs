//! Processes in pid namespaces below ours (containers): by the numbers that they have there.
//!
//! A writer puts the number into its temp's name by which it knows itself (getpid(2)). Here that
//! number is another process's or nobody's: asked for by it alone, a live writer would count as dead.
//! What is not seen: a writer in a namespace that is not below ours, where this is a container itself.

use super::system;
use crate::clock;
use crate::decide::time::Mono;
use std::collections::HashMap;
use std::io;
use std::sync::{Mutex, PoisonError};

/// Which processes have which numbers in namespaces below ours, as it was a moment ago. To see that
/// takes a walk over all processes (18 µs each, measured on Linux 6.18), so one walk answers for all that it can.
#[derive(Debug, Default)]
pub struct ContainerPids(Mutex<LastWalk>);

#[derive(Debug, Default)]
struct LastWalk {
    at: Option<Mono>,
    /// By the number there, the numbers here.
    outer_pids: HashMap<u32, Vec<u32>>,
}

impl ContainerPids {
    /// The pids, as this process sees them, of those that go by `pid` in a namespace below ours.
    ///
    /// What is asked for has stood unchanged `since` then, at the least: who made it was there before
    /// that, and a walk that began then or later has met it if it lives.
    ///
    /// # Errors
    ///
    /// Not all could be looked at, for want of descriptors, say. That answers nothing, and is not remembered.
    pub fn resolve(&self, pid: u32, since: Mono) -> io::Result<Vec<u32>> {
        let mut walked = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if walked
            .at
            .is_none_or(|at| rule!("walk-answers-for-older-temps", at < since))
        {
            let begun = clock::mono();
            walked.outer_pids = rule!(
                "failed-walk-is-forgotten",
                system::container_pids()?,
                without: system::container_pids().unwrap_or_default(),
            );
            walked.at = Some(begun);
        }
        Ok(walked.outer_pids.get(&pid).cloned().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_walk_answers_for_what_has_stood_longer() {
        let nested = ContainerPids::default();
        let walked = || nested.0.lock().unwrap().at;
        let before = clock::mono();
        assert!(nested.resolve(u32::MAX, before).unwrap().is_empty());
        let first = walked().unwrap();
        assert!(first >= before);
        nested.resolve(1, first).unwrap();
        assert_eq!(walked(), Some(first));
        nested.resolve(1, Mono(first.0 + 1)).unwrap();
        assert!(walked() > Some(first));
    }
}
