//! Linux: the idle class of I/O priorities (ioprio_set(2)). Threads inherit it from the thread that starts them. Any
//! user may lower the priority and reset it to none.

/// The priority in the kernel's encoding: class and level.
pub(super) type Priority = libc::c_int;

pub(super) const IS_INHERITED: bool = true;

/// `IOPRIO_WHO_PROCESS`; with the id 0 it means the calling thread (linux/ioprio.h; libc has no names for these
/// constants).
const THREAD: libc::c_int = 1;
const CLASS_SHIFT: u32 = 13;
const CLASS_IDLE: Priority = 3 << CLASS_SHIFT;

/// Returns the priority of this thread.
pub(super) fn now() -> Priority {
    // SAFETY: the call takes two numbers and returns one.
    let now = unsafe { libc::syscall(libc::SYS_ioprio_get, THREAD, 0) };
    let now = Priority::try_from(now).unwrap_or(0);
    // A priority that was never set has no class but may have a level, which cannot be set.
    if now >> CLASS_SHIFT > 0 { now } else { 0 }
}

pub(super) fn lower() -> Option<Priority> {
    let before = now();
    set(CLASS_IDLE).then_some(before)
}

pub(super) fn restore(before: Priority) {
    set(before);
}

fn set(priority: Priority) -> bool {
    // SAFETY: the call takes three numbers.
    unsafe { libc::syscall(libc::SYS_ioprio_set, THREAD, 0, priority) == 0 }
}

#[cfg(test)]
pub(super) fn is_idle(priority: Priority) -> bool {
    priority >> CLASS_SHIFT == CLASS_IDLE >> CLASS_SHIFT
}
