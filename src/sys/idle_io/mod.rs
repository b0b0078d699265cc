//! Idle I/O priority for periodic scans, so that they do not slow down other processes.

use std::marker::PhantomData;

#[cfg_attr(target_os = "linux", path = "linux.rs")]
#[cfg_attr(target_os = "macos", path = "macos.rs")]
mod system;

/// While this value exists, reads of this thread yield to the I/O of other processes. A thread that it starts during
/// this time must call [`IdleIoPriority::apply_to_child`], which costs nothing on a system where the priority is
/// inherited.
#[derive(Debug)]
pub(crate) struct IdleIoPriority {
    before: Option<system::Priority>,
    /// Makes this type neither `Send` nor `Sync`, because each thread has a priority of its own.
    _not_send: PhantomData<*const ()>,
}

impl IdleIoPriority {
    /// Lowers the priority of this thread. On a system without such a priority, scans run at the normal one.
    pub(crate) fn begin() -> IdleIoPriority {
        IdleIoPriority {
            before: system::lower(),
            _not_send: PhantomData,
        }
    }

    /// Lowers the priority of a thread that was started during a low-priority scan, until that thread ends.
    pub(crate) fn apply_to_child() {
        if !system::IS_INHERITED {
            let _ = system::lower();
        }
    }
}

impl Drop for IdleIoPriority {
    fn drop(&mut self) {
        if let Some(before) = self.before {
            system::restore(before);
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_thread_and_its_children_are_idle_until_the_guard_is_dropped() {
        let before = system::now();
        assert!(!system::is_idle(before));
        let idle_io = IdleIoPriority::begin();
        assert!(system::is_idle(system::now()));
        let started = std::thread::spawn(system::now).join().unwrap();
        assert!(system::is_idle(started), "scans start threads of their own");
        drop(idle_io);
        assert_eq!(system::now(), before);
        let started = std::thread::spawn(system::now).join().unwrap();
        assert!(!system::is_idle(started));
    }
}
