//! Linux: the idle class of I/O priorities (ioprio_set(2)), which a thread hands on to those that
//! it starts. Any user may lower it, and set it back to none.

/// As the kernel packs it: class and level.
pub(super) type Priority = libc::c_int;

pub(super) const IS_INHERITED: bool = true;

/// `IOPRIO_WHO_PROCESS` with 0 for whom: this thread (linux/ioprio.h; libc has no names for these).
const THREAD: libc::c_int = 1;
const CLASS_SHIFT: u32 = 13;
const CLASS_IDLE: Priority = 3 << CLASS_SHIFT;

/// This thread's.
pub(super) fn now() -> Priority {
    // SAFETY: two numbers in, one out.
    let now = unsafe { libc::syscall(libc::SYS_ioprio_get, THREAD, 0) };
    let now = Priority::try_from(now).unwrap_or(0);
    // What was never set has no class but may have a level, which cannot be set.
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
    // SAFETY: three numbers.
    unsafe { libc::syscall(libc::SYS_ioprio_set, THREAD, 0, priority) == 0 }
}

#[cfg(test)]
pub(super) fn is_idle(priority: Priority) -> bool {
    priority >> CLASS_SHIFT == CLASS_IDLE >> CLASS_SHIFT
}
