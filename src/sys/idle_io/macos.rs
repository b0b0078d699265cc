//! macOS: the I/O policy of this thread (setiopolicy_np(3)), by which its reads are throttled while other processes
//! read. Each thread has a policy of its own. Type-checked only; see docs/platforms.md.

pub(super) type Priority = libc::c_int;

pub(super) const IS_INHERITED: bool = false;

unsafe extern "C" {
    fn getiopolicy_np(iotype: libc::c_int, scope: libc::c_int) -> libc::c_int;
    fn setiopolicy_np(iotype: libc::c_int, scope: libc::c_int, policy: libc::c_int) -> libc::c_int;
}

/// From sys/resource.h; libc has no names for these constants.
const IOPOL_TYPE_DISK: libc::c_int = 0;
const IOPOL_SCOPE_THREAD: libc::c_int = 1;
const IOPOL_THROTTLE: libc::c_int = 3;

pub(super) fn lower() -> Option<Priority> {
    // SAFETY: the call takes two numbers and returns one.
    let before = unsafe { getiopolicy_np(IOPOL_TYPE_DISK, IOPOL_SCOPE_THREAD) };
    (set(IOPOL_THROTTLE) && before >= 0).then_some(before)
}

pub(super) fn restore(before: Priority) {
    set(before);
}

fn set(policy: Priority) -> bool {
    // SAFETY: the call takes three numbers.
    unsafe { setiopolicy_np(IOPOL_TYPE_DISK, IOPOL_SCOPE_THREAD, policy) == 0 }
}
