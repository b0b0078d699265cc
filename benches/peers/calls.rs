//! Makes the system calls of a sweep for each temp, in their order, and nothing else: no decision, no journal, no check
//! of the results. Their time is the lower bound for a sweep.
//!
//! They are the calls of `src/engine/pass/` (the looks) and `src/reap/batch.rs` (the steps), without those that are
//! made once per batch. `strace -f -c` on sweeps of 1,000 and of 2,000 temps shows whether this list is still correct.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags, StatxFlags};

/// The target of all temps.
const TARGET: &str = "sessions.json";
/// The number of temps that go through the protocol together.
const BATCH: usize = orphand::reap::BATCH;

/// The time of one call of one step.
struct CallTime {
    step: &'static str,
    call: &'static str,
    times: u32,
    took: Duration,
}

/// Makes the calls for all temps in `dir`, with as many threads as a sweep.
pub(crate) fn make(dir: &Path) {
    make_by(dir, orphand::engine::max_workers());
}

/// Makes the calls for all temps in `dir` with `workers` threads.
pub(crate) fn make_by(dir: &Path, workers: usize) {
    let names = temps(dir);
    for look in [
        CallThread::look_first as fn(&mut CallThread, &[OsString]),
        CallThread::reap,
    ] {
        let todo: Mutex<VecDeque<&[OsString]>> = Mutex::new(names.chunks(BATCH).collect());
        std::thread::scope(|scope| {
            for _ in 0..workers {
                scope.spawn(|| {
                    let mut worker = CallThread::new(dir, false);
                    let next = || todo.lock().expect("no panic").pop_front();
                    while let Some(batch) = next() {
                        look(&mut worker, batch);
                    }
                });
            }
        });
    }
}

/// Renames each temp in `dir` to its claim and removes that, in one thread, in the order of the directory. The kernel
/// allows only one such call at a time in a directory, so no sweep that claims can be faster.
pub(crate) fn rename_and_unlink(dir: &Path) {
    let at = CallThread::new(dir, false).dir;
    for entry in fs::read_dir(dir).expect("a directory").flatten() {
        let name = entry.file_name();
        if name.as_encoded_bytes().ends_with(b".tmp") {
            let claim = claim(&name);
            let flags = RenameFlags::NOREPLACE;
            rustix::fs::renameat_with(&at, &name, &at, &claim, flags).expect("a claim");
            rustix::fs::unlinkat(&at, &claim, AtFlags::empty()).expect("a claim");
        }
    }
}

/// Makes the calls for all temps in `dir`, one after the other, and prints the time of each.
pub(crate) fn table(dir: &Path) {
    let names = temps(dir);
    let mut worker = CallThread::new(dir, true);
    names
        .chunks(BATCH)
        .for_each(|batch| worker.look_first(batch));
    names.chunks(BATCH).for_each(|batch| worker.reap(batch));
    let (mut calls, mut all) = (0, 0.0);
    for time in &worker.times {
        let each = time.took.as_secs_f64() * 1e6 / names.len() as f64;
        let times = time.times as usize / names.len();
        println!("{:<12} {:<22} {each:>6.2} µs", time.step, time.call);
        calls += times;
        all += each;
    }
    println!("{calls} calls: {all:.1} µs per temp");
}

fn temps(dir: &Path) -> Vec<OsString> {
    let entries = fs::read_dir(dir).expect("a directory").flatten();
    let mut names: Vec<OsString> = entries.map(|entry| entry.file_name()).collect();
    names.retain(|name| name.as_encoded_bytes().ends_with(b".tmp"));
    names.sort_unstable();
    names
}

/// One thread that makes the calls.
struct CallThread {
    dir: OwnedFd,
    is_timed: bool,
    times: Vec<CallTime>,
    step: &'static str,
}

impl CallThread {
    fn new(dir: &Path, is_timed: bool) -> CallThread {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        CallThread {
            dir: rustix::fs::open(dir, flags, Mode::empty()).expect("a directory"),
            is_timed,
            times: Vec::new(),
            step: "",
        }
    }

    fn look_first(&mut self, batch: &[OsString]) {
        for name in batch {
            self.step = "first look";
            let file = self.open(name);
            self.lease(&file);
            self.statx_fd(&file);
            self.close(file);
        }
    }

    fn reap(&mut self, batch: &[OsString]) {
        let mut files = Vec::with_capacity(BATCH);
        for name in batch {
            self.step = "Open";
            let file = self.open(name);
            self.step = "Prove";
            self.lease(&file);
            self.step = "Judge";
            self.statx_fd(&file);
            self.call("fgetxattr", |_| {
                let mut mark = [0; 128];
                let _ = rustix::fs::fgetxattr(&file, "user.orphand.restored", &mut mark[..]);
            });
            self.step = "Claim";
            let claim = claim(name);
            self.call("renameat2", |worker| {
                let (dir, flags) = (worker.dir.as_fd(), RenameFlags::NOREPLACE);
                rustix::fs::renameat_with(dir, name, dir, &claim, flags).expect("a claim");
            });
            self.step = "Compare";
            self.statx(&claim, "statx, the claim");
            self.step = "ProveAgain";
            self.fcntl("F_GETLEASE", &file, libc::F_GETLEASE, 0);
            self.lease(&file);
            self.step = "Release";
            self.fcntl("F_UNLCK", &file, libc::F_SETLEASE, libc::F_UNLCK);
            files.push(file);
        }
        std::thread::sleep(orphand::reap::RELEASE_WAIT);
        for (name, file) in batch.iter().zip(files) {
            let claim = claim(name);
            self.step = "ProveLast";
            self.lease(&file);
            self.statx(&claim, "statx, the claim");
            self.statx(&TARGET.into(), "statx, its target");
            self.step = "Unlink";
            self.call("unlinkat", |worker| {
                rustix::fs::unlinkat(&worker.dir, &claim, AtFlags::empty()).expect("a claim");
            });
            self.statx_fd(&file);
            self.close(file);
        }
    }

    fn call<T>(&mut self, call: &'static str, make: impl FnOnce(&CallThread) -> T) -> T {
        if !self.is_timed {
            return make(self);
        }
        let began = Instant::now();
        let answer = make(self);
        let took = began.elapsed();
        let step = self.step;
        let mut known = self.times.iter_mut();
        match known.find(|time| time.step == step && time.call == call) {
            Some(time) => {
                time.times += 1;
                time.took += took;
            }
            None => self.times.push(CallTime {
                step,
                call,
                times: 1,
                took,
            }),
        }
        answer
    }

    fn statx(&mut self, name: &OsString, call: &'static str) {
        self.call(call, |worker| {
            let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
            rustix::fs::statx(&worker.dir, name, flags, wanted()).expect("a file")
        });
    }

    fn statx_fd(&mut self, file: &OwnedFd) {
        self.call("statx, what is open", |_| {
            rustix::fs::statx(file, "", AtFlags::EMPTY_PATH, wanted()).expect("a file")
        });
    }

    fn open(&mut self, name: &OsString) -> OwnedFd {
        self.call("openat", |worker| {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            rustix::fs::openat(&worker.dir, name, flags | OFlags::NOATIME, Mode::empty())
                .expect("a file of ours")
        })
    }

    fn lease(&mut self, file: &OwnedFd) {
        self.fcntl("F_SETLEASE", file, libc::F_SETLEASE, libc::F_WRLCK);
    }

    fn fcntl(&mut self, call: &'static str, file: &OwnedFd, command: i32, with: i32) {
        // SAFETY: these two take an int, or nothing.
        let answer = self.call(call, |_| unsafe {
            libc::fcntl(file.as_raw_fd(), command, with)
        });
        assert!(answer >= 0, "{call}: {}", std::io::Error::last_os_error());
    }

    fn close(&mut self, file: OwnedFd) {
        self.call("close", |_| drop(file));
    }
}

fn claim(name: &OsString) -> OsString {
    let mut claim = OsString::from(".orphand-0123456789abcdef-");
    claim.push(name);
    claim
}

fn wanted() -> StatxFlags {
    StatxFlags::BASIC_STATS | StatxFlags::BTIME | StatxFlags::MNT_ID
}
