//! Reading that gives way to everybody else's: for what is scanned by time.

use std::marker::PhantomData;

#[cfg_attr(target_os = "linux", path = "idle_io/linux.rs")]
#[cfg_attr(target_os = "macos", path = "idle_io/macos.rs")]
mod system;

/// While it lives, this thread's reading waits for everybody else's. A thread that it starts
/// meanwhile has to say [`IdleIoPriority::here`], which costs nothing where that is inherited.
#[derive(Debug)]
pub(super) struct IdleIoPriority {
    before: Option<system::Priority>,
    /// A priority is a thread's own.
    _not_send: PhantomData<*const ()>,
}

impl IdleIoPriority {
    /// From now on. That the system does not have it is no reason not to read.
    pub(super) fn begin() -> IdleIoPriority {
        IdleIoPriority {
            before: system::lower(),
            _not_send: PhantomData,
        }
    }

    /// In a thread that was started by one that reads gently, for the rest of its life.
    pub(super) fn apply_to_child() {
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
