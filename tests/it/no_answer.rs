//! A directory on a file system that does not answer: a FUSE mount in a private mount namespace. This test is
//! its server.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::Value;

use crate::fixture::{RunAs, in_own_process, report_skipped, try_mount, wait_until};
use crate::sandbox::{Sandbox, in_parallel, is};

/// A mount whose server reads every request but answers none until the test allows it.
struct SilentMount {
    at: PathBuf,
    flags: Arc<ServerFlags>,
    server: Option<JoinHandle<()>>,
}

/// What the test and the server of a mount tell each other.
#[derive(Default)]
struct ServerFlags {
    /// All requests are answered.
    answers: AtomicBool,
    /// No further request is read.
    is_deaf: AtomicBool,
    /// The server has seen that.
    has_stopped: AtomicBool,
    /// The server ends.
    ends: AtomicBool,
}

impl SilentMount {
    /// Mounts it at a new directory of the sandbox. Returns `None`, with a report, if FUSE is not available.
    fn mount(sandbox: &Sandbox) -> Option<SilentMount> {
        let at = sandbox.base().join("silent");
        fs::create_dir(&at).unwrap();
        let device = File::options().read(true).write(true).open("/dev/fuse");
        let device = match device {
            Ok(device) => device,
            Err(error) => {
                report_skipped(&format!("/dev/fuse: {error}"));
                return None;
            }
        };
        let options = format!(
            "fd={},rootmode=40000,user_id=0,group_id=0",
            device.as_raw_fd()
        );
        if let Err(error) = try_mount("silent", &at, "fuse", 0, &options) {
            report_skipped(&format!("no FUSE mount: {error}"));
            return None;
        }
        let flags = Arc::<ServerFlags>::default();
        let of_server = Arc::clone(&flags);
        let server = std::thread::spawn(move || serve(device, &of_server));
        Some(SilentMount {
            at,
            flags,
            server: Some(server),
        })
    }

    fn path(&self) -> &str {
        self.at.to_str().unwrap()
    }

    fn answer(&self) {
        self.flags.answers.store(true, Ordering::SeqCst);
    }

    /// Lets the server read no further request, so that a process that waits for an answer can be killed. A request that
    /// was read and not answered would keep its process forever.
    fn stop_reading(&self) {
        self.flags.is_deaf.store(true, Ordering::SeqCst);
        wait_until("the server reads no more", || {
            self.flags.has_stopped.load(Ordering::SeqCst)
        });
    }

    fn state_is<'a>(&'a self, state: &'a str) -> impl Fn(&Value) -> bool + 'a {
        move |event| {
            event["event"] == "root" && event["root"] == self.path() && event["state"] == state
        }
    }
}

impl Drop for SilentMount {
    /// Closing the device returns an error to every process that waits for an answer.
    fn drop(&mut self) {
        self.flags.ends.store(true, Ordering::SeqCst);
        let _ = self.server.take().map(JoinHandle::join);
        let at = std::ffi::CString::new(self.path()).unwrap();
        // SAFETY: the path ends in NUL and outlives the call.
        unsafe { libc::umount2(at.as_ptr(), libc::MNT_DETACH) };
    }
}

/// Reads requests, and answers all of them, including older ones, once the test allows it.
fn serve(mut device: File, flags: &ServerFlags) {
    let ServerFlags {
        answers,
        is_deaf,
        has_stopped,
        ends,
    } = flags;
    let mut waiting = Vec::new();
    let mut request = vec![0; 1 << 20];
    while !ends.load(Ordering::SeqCst) {
        if is_deaf.load(Ordering::SeqCst) {
            has_stopped.store(true, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(5));
            continue;
        }
        let timeout = Timespec {
            tv_sec: 0,
            tv_nsec: 5_000_000,
        };
        let mut fds = [PollFd::new(&device, PollFlags::IN)];
        let ready = poll(&mut fds, Some(&timeout)).is_ok_and(|ready| ready > 0);
        if ready && let Ok(40..) = device.read(&mut request) {
            let number = |at: usize| u32::from_ne_bytes(request[at..at + 4].try_into().unwrap());
            waiting.push((number(4), request[8..16].to_vec()));
        }
        // The first request opens the connection: without its answer no other request is sent.
        let is_open = |(code, _): &(u32, Vec<u8>)| *code == INIT || answers.load(Ordering::SeqCst);
        for (code, unique) in waiting.extract_if(.., |one| is_open(one)) {
            if let Some((error, body)) = reply(code) {
                let mut out = u32::to_ne_bytes(16 + body.len() as u32).to_vec();
                out.extend(i32::to_ne_bytes(-error));
                out.extend(unique);
                out.extend(body);
                let _ = device.write(&out);
            }
        }
    }
}

const INIT: u32 = 26;

/// Returns the reply to a request, as linux/fuse.h defines it, for one empty directory.
fn reply(code: u32) -> Option<(i32, Vec<u8>)> {
    let mut body = Vec::new();
    let mut put = |numbers: &[u32]| {
        body.extend(numbers.iter().flat_map(|number| number.to_ne_bytes()));
    };
    let error = match code {
        // FORGET, INTERRUPT, BATCH_FORGET
        2 | 36 | 42 => return None,
        INIT => {
            put(&[7, 31, 0, 0, 0, 4096]);
            put(&[0; 10]);
            0
        }
        // GETATTR: not cacheable; inode 1, a directory of root.
        3 => {
            put(&[0; 4]);
            put(&[1, 0]);
            put(&[0; 10]);
            put(&[0, 0, 0, 0o40755, 2, 0, 0, 0, 4096, 0]);
            0
        }
        // OPENDIR
        27 => {
            put(&[1, 0, 0, 0]);
            0
        }
        // READDIR, RELEASEDIR
        28 | 29 => 0,
        // STATFS
        17 => {
            put(&[0; 20]);
            0
        }
        // LOOKUP
        1 => libc::ENOENT,
        _ => libc::ENOSYS,
    };
    Some((error, body))
}

const SHORT: [&str; 2] = ["--grace", "200ms"];

#[test]
fn a_root_that_does_not_answer_blocks_no_other() {
    in_own_process(&[RunAs::OwnMounts], || {
        let sandbox = Sandbox::new();
        let Some(silent) = SilentMount::mount(&sandbox) else {
            return;
        };
        let args = SHORT.into_iter().chain([silent.path(), "root"]);
        let mut watching = sandbox.watch_dirs(args).ready();
        watching.wait_for(silent.state_is("no-answer"));
        sandbox.write("a.4194304.tmp", "");
        watching.wait_for(is("reaped", "a.4194304.tmp"));
        assert!(watching.stderr().contains("does not answer"));
        let status = sandbox.run(["status"]).exit(0).stdout_has("no-answer");
        assert!(status.stdout.contains("its file system does not answer"));
        silent.answer();
        watching.wait_for(silent.state_is("watching"));
        let returned = |event: &Value| {
            event["event"] == "rescan"
                && event["root"] == silent.path()
                && event["cause"] == "root-returned"
        };
        watching.wait_for(returned);
        sandbox.write("b.4194304.tmp", "");
        watching.wait_for(is("reaped", "b.4194304.tmp"));
        watching.stop().exit(0);
    });
}

/// A root that stops answering is released, and is watched again once it answers.
#[test]
fn a_watched_root_that_stops_answering_is_released() {
    in_own_process(&[RunAs::OwnMounts], || {
        let sandbox = Sandbox::new();
        let Some(silent) = SilentMount::mount(&sandbox) else {
            return;
        };
        silent.answer();
        let config = |grace: &str| {
            let root = sandbox.root();
            format!(
                "[defaults]\ngrace = {grace:?}\n[[watch]]\npath = {:?}\n[[watch]]\npath = {root:?}\n",
                silent.path()
            )
        };
        let file = "../config/orphand/config.toml";
        sandbox.write(file, config("4s"));
        let mut watching = sandbox.watch_dirs([""; 0]).ready();
        // An answer is cached for a moment, which has passed after a grace.
        watching.wait_for_sentinel(&sandbox);
        silent.flags.answers.store(false, Ordering::SeqCst);
        // A changed rule makes orphand check every root again.
        sandbox.write(file, config("200ms"));
        watching.wait_for(silent.state_is("no-answer"));
        silent.answer();
        watching.wait_for(silent.state_is("watching"));
        watching.stop().exit(0);
    });
}

/// The server has read the request and never answers it: a thread of the process itself could not end.
#[test]
fn signals_end_a_watch_whose_only_root_does_not_answer() {
    in_own_process(&[RunAs::OwnMounts], || {
        for signals in 1..=2 {
            let sandbox = Sandbox::new();
            let Some(silent) = SilentMount::mount(&sandbox) else {
                return;
            };
            let args = SHORT.into_iter().chain([silent.path()]);
            let mut watching = sandbox.watch_dirs(args);
            watching.wait_for(silent.state_is("no-answer"));
            for _ in 0..signals {
                watching.signal(libc::SIGTERM);
            }
            let stopped = watching.end();
            let code = stopped.status.code();
            assert!(
                code == Some(0) || (signals == 2 && code == Some(130)),
                "{stopped:?}"
            );
        }
    });
}

/// The main thread is in a system call that does not return: another thread handles the signals.
#[test]
fn two_signals_end_a_watch_that_hangs_in_its_configuration() {
    in_own_process(&[RunAs::OwnMounts], || {
        let sandbox = Sandbox::new();
        let Some(silent) = SilentMount::mount(&sandbox) else {
            return;
        };
        silent.stop_reading();
        let file = silent.at.join("config.toml");
        let args = ["--config", file.to_str().unwrap(), "root"];
        let mut watching = sandbox.watch_dirs(args);
        let hangs = format!("/proc/{}/wchan", watching.pid());
        let end = Instant::now() + Duration::from_secs(60);
        // The functions of the kernel in which it waits: for an answer or, if the server has not opened the
        // connection, for permission to send the request.
        let blocks = || {
            let place = fs::read_to_string(&hangs).unwrap_or_default();
            place.contains("request_wait_answer") || place.contains("fuse")
        };
        while !blocks() {
            if !watching.is_running() {
                // orphand may refuse a configuration that does not answer.
                return;
            }
            assert!(Instant::now() < end, "it does not block");
            std::thread::sleep(Duration::from_millis(5));
        }
        // Two signals that arrive at the same time count as one.
        while watching.is_running() {
            if Instant::now() > end {
                // Otherwise the end of the test would wait for the process.
                drop(silent);
                panic!("it does not end");
            }
            watching.signal(libc::SIGTERM);
            std::thread::sleep(Duration::from_millis(20));
        }
    });
}

/// Each command reports the directory that does not answer, and processes the others.
#[test]
fn no_command_hangs_on_a_directory_that_does_not_answer() {
    in_own_process(&[RunAs::OwnMounts], || {
        let sandbox = Sandbox::new()
            .file("a.4194304.tmp", "")
            .aged(Duration::from_millis(300));
        let Some(silent) = SilentMount::mount(&sandbox) else {
            return;
        };
        let config = format!("[[watch]]\npath = {:?}\n", silent.path());
        sandbox.write("../config/orphand/config.toml", config);
        let assert_reported = |output: &str| {
            let named = output.contains(silent.path()) && output.contains("does not answer");
            assert!(named, "{output}");
        };
        let grace = ["--grace", "200ms"];
        let run = |verb: &[&str], dirs: &[&str]| {
            sandbox.run(verb.iter().chain(&grace).chain(dirs).copied())
        };

        // At the same time, because each waits for an answer. None of them changes a file.
        let file = silent.at.join("x.tmp");
        let commands: [&(dyn Fn() + Sync); 9] = [
            &|| assert_reported(&sandbox.run(["config", "check"]).exit(0).stdout),
            &|| assert_reported(&sandbox.run(["doctor"]).exit(3).stdout),
            &|| {
                _ = sandbox
                    .run(["status"])
                    .exit(1)
                    .stdout_has("does not answer")
            },
            &|| assert_reported(&sandbox.run(["quarantine", "list"]).exit(3).stderr),
            &|| {
                let list = ["quarantine", "list", silent.path()];
                assert_reported(&sandbox.run(list).exit(3).stderr);
            },
            &|| {
                let explain = ["explain", file.to_str().unwrap()];
                assert_reported(&sandbox.run(explain).exit(1).stderr);
            },
            &|| assert_reported(&run(&["scan"], &[silent.path()]).exit(3).stderr),
            &|| {
                let ran = run(&["scan"], &[silent.path(), "root"]).exit(3);
                assert_reported(&ran.stderr);
                ran.stdout_has("a.4194304.tmp");
            },
            &|| assert_reported(&run(&["sweep", "--yes"], &[silent.path()]).exit(3).stdout),
        ];
        in_parallel(commands, |command| command());

        let ran = run(&["sweep", "--yes", "--json"], &[silent.path(), "root"]).exit(3);
        let events = ran.events();
        assert_eq!(events.names("reaped"), ["a.4194304.tmp"], "{events:?}");
        assert_eq!(events.one("failed")["root"], silent.path());
    });
}

/// A probe is a separate process that has no other file of the watch open.
#[test]
fn a_waiting_probe_holds_no_file() {
    in_own_process(&[RunAs::OwnMounts], || {
        let sandbox = Sandbox::new();
        let Some(silent) = SilentMount::mount(&sandbox) else {
            return;
        };
        let args = SHORT.into_iter().chain([silent.path(), "root"]);
        let watching = sandbox.watch_dirs(args).ready();
        let children = |pid: u32| -> Vec<u32> {
            let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
            let children = |task: &Path| fs::read_to_string(task.join("children")).unwrap();
            let text: String = tasks.map(|task| children(&task.path())).collect();
            text.split_whitespace()
                .map(|pid| pid.parse().unwrap())
                .collect()
        };
        let left = children(watching.pid());
        assert_eq!(left.len(), 1, "one probe for each root: {left:?}");
        let open = fs::read_dir(format!("/proc/{}/fd", left[0])).unwrap();
        assert_eq!(open.count(), 0);
        watching.stop().exit(0);
    });
}
