//! The process whose pid is in the name of a temp.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::Pid;

use super::proc::{
    comm, has_ended, is_denied, namespace_pids, numeric_names, shows_our_processes, task_dir,
};
use crate::core::judge::Writer;
use crate::core::time::Mono;
use crate::sys::clock;

/// Returns whether the process whose pid is in the name of a temp can have written the temp.
///
/// The writer has ended if there is no such process, if the process is a zombie, or if it started after the last change
/// of the temp. `written` is the latest time at which that change can have happened, if that is known.
///
/// A kernel thread cannot have written the temp, and neither can init. A process of another user can: it may
/// have given up root since then, or have given the file away (`CAP_CHOWN`), and no file in `/proc` shows that for
/// certain.
#[must_use]
pub fn writer(pid: u32, written: Option<Mono>) -> Writer {
    let Some(process) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
        return Writer::Alive(pid);
    };
    if rustix::process::test_kill_process(process) == Err(Errno::SRCH) {
        return Writer::Gone(pid);
    }
    let stat = match fs::read(format!("/proc/{pid}/stat")) {
        Ok(stat) if rule!("foreign-proc-shows-no-writer", shows_our_processes(), without: true) => {
            stat
        }
        // `/proc` may show another process with this pid.
        _ => return Writer::Alive(pid),
    };
    let Some(stat) = ProcessStat::parse(&stat) else {
        return Writer::Alive(pid);
    };
    // The main thread of a process may end before the others.
    let has_ended = matches!(stat.state, 'Z' | 'X')
        && rule!("ended-with-its-last-thread", is_its_last_thread(pid), without: true);
    let is_younger = written.is_some_and(|written| started_after(stat.started, written));
    match has_ended || is_younger || stat.is_kernel_thread() || is_init(pid) {
        true => Writer::Gone(pid),
        false => Writer::Alive(pid),
    }
}

/// Reports whether `pid` is init. Only in the initial pid namespace (`PROC_PID_INIT_INO` of linux/proc_ns.h) is pid 1 a
/// process that never writes a temp with its pid. In a container it is the container's own program.
fn is_init(pid: u32) -> bool {
    const INITIAL: &str = "pid:[4026531836]";
    let namespace = fs::read_link("/proc/self/ns/pid");
    pid == 1 && namespace.is_ok_and(|namespace| namespace == Path::new(INITIAL))
}

/// Reports whether the process `pid` has at most one thread. If its threads cannot be listed for any reason but its
/// end, the result is `false`.
fn is_its_last_thread(pid: u32) -> bool {
    match numeric_names(&task_dir(pid)) {
        Ok(threads) => threads.len() < 2,
        Err(error) => has_ended(&error),
    }
}

/// A line of `/proc/PID/stat` (proc_pid_stat(5)).
struct ProcessStat {
    state: char,
    /// `PF_…` of linux/sched.h.
    flags: u32,
    /// The start time, in ticks of the boot clock.
    started: u64,
}

impl ProcessStat {
    /// Parses the fields after the command name, which may contain spaces and parentheses.
    fn parse(stat: &[u8]) -> Option<ProcessStat> {
        let after_name = stat.iter().rposition(|&b| b == b')')? + 1;
        let rest = std::str::from_utf8(stat.get(after_name..)?).ok()?;
        let mut fields = rest.split_ascii_whitespace();
        Some(ProcessStat {
            state: fields.next()?.chars().next()?,
            flags: fields.nth(5)?.parse().ok()?,
            started: fields.nth(12)?.parse().ok()?,
        })
    }

    fn is_kernel_thread(&self) -> bool {
        const PF_KTHREAD: u32 = 0x0020_0000;
        self.flags & PF_KTHREAD != 0
    }
}

/// Reports whether a process that started at `ticks` of the boot clock started after `moment`.
///
/// The boot clock runs during a suspend, and our clock does not. The time of all suspends is added to `moment`, also of
/// suspends after it. So `moment` may become too late, but not too early, and the temp is kept in doubt.
fn started_after(ticks: u64, moment: Mono) -> bool {
    let boot = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let boot = Duration::new(
        u64::try_from(boot.tv_sec).unwrap_or(0),
        u32::try_from(boot.tv_nsec).unwrap_or(0),
    );
    let suspended = boot.saturating_sub(clock::mono().since_boot());
    let moment = moment.since_boot() + suspended;
    let rate = rustix::param::clock_ticks_per_second();
    let Some(started) = ticks.checked_mul(1_000).and_then(|ms| ms.checked_div(rate)) else {
        return false;
    };
    // The second covers the limited precision of both clocks.
    Duration::from_millis(started) > moment + Duration::from_secs(1)
}

/// Returns the name of the process `pid` of the user `uid` (proc_pid_comm(5): its first 15 bytes). Returns `None` if
/// there is no such process, and for threads of the kernel.
pub(in crate::evidence) fn writer_name(pid: u32, uid: u32) -> Option<String> {
    let at = PathBuf::from(format!("/proc/{pid}"));
    let has_uid = fs::metadata(&at).is_ok_and(|meta| meta.uid() == uid);
    // Threads of the kernel have no memory of their own, so they have no command line.
    let has_memory = || fs::read(at.join("cmdline")).is_ok_and(|line| !line.is_empty());
    (has_uid && has_memory() && shows_our_processes()).then(|| comm(&at))
}

/// Returns the processes in child pid namespaces: a map from each pid there to the pids here (`NSpid` of
/// proc_pid_status(5), which has one pid for each namespace, ours first).
///
/// Every user may read these pids, except under hidepid. Processes that are hidden are missing from the result. The ids
/// of threads are included, because kill(2) accepts them too.
pub(in crate::evidence) fn container_pids() -> io::Result<HashMap<u32, Vec<u32>>> {
    if rule!("foreign-proc-shows-no-container", !shows_our_processes()) {
        return Err(io::Error::other("/proc does not show this pid namespace"));
    }
    let mut outer_pids: HashMap<u32, Vec<u32>> = HashMap::new();
    // Processes are listed in the order of their pids, so every process that existed before this call is found.
    for outer in numeric_names(Path::new("/proc"))? {
        if inner_pids(&PathBuf::from(format!("/proc/{outer}")))?.is_empty() {
            continue;
        }
        let threads = match numeric_names(&task_dir(outer)) {
            Err(error) if has_ended(&error) || is_denied(&error) => continue,
            threads => threads?,
        };
        for thread in rule!("threads-have-pids-too", threads, without: vec![outer]) {
            for inner in inner_pids(&task_dir(outer).join(thread.to_string()))? {
                outer_pids.entry(inner).or_default().push(outer);
            }
        }
    }
    Ok(outer_pids)
}

/// Returns the pids of the process or thread at `at` in child namespaces of ours.
fn inner_pids(at: &Path) -> io::Result<Vec<u32>> {
    match fs::read(at.join("status")) {
        Ok(status) => Ok(namespace_pids(&status).skip(1).collect()),
        Err(error) if has_ended(&error) || is_denied(&error) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}
