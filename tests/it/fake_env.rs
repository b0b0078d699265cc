//! A simulated environment for a program: a wall clock that the test sets, a short event queue, and threads
//! whose system calls fail. The machine's own clock and limits do not change: `fake_env.c` is compiled and
//! preloaded.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;

use crate::sandbox::{Sandbox, StartChild, is_sanitized};

/// The simulated values are in a file that the program has mapped.
pub(crate) struct FakeEnv {
    shim: PathBuf,
    file: PathBuf,
    shared: File,
}

/// The fault that hits the next thread of the program that receives an event.
#[derive(Clone, Copy)]
pub(crate) enum ThreadFault {
    /// Waiting for events fails, which ends the notify thread.
    WaitFails = 1,
    /// Reading events fails, from now on.
    ReadFails = 2,
}

const YEAR: i64 = 365 * 24 * 60 * 60;

impl FakeEnv {
    /// Creates an environment without changes. Returns the reason as the error if there can be none.
    pub(crate) fn new(sandbox: &Sandbox) -> Result<FakeEnv, String> {
        if is_sanitized() {
            return Err("no library can be preloaded under a sanitizer".to_owned());
        }
        let (shim, file) = (
            sandbox.base().join("fake_env.so"),
            sandbox.base().join("fake_env"),
        );
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/fake_env.c");
        let mut cc = Command::new("cc");
        cc.args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"]);
        let made = cc.arg(&shim).args([source, "-ldl"]).collect_output();
        let made = made.map_err(|error| format!("no C compiler: {error}"))?;
        let stderr = String::from_utf8_lossy(&made.stderr);
        assert!(made.status.success(), "{stderr}");
        let shared = File::create_new(&file).unwrap();
        shared.set_len(24).unwrap();
        for path in [&shim, &file] {
            sandbox.chown_to_user(path);
        }
        Ok(FakeEnv { shim, file, shared })
    }

    /// Makes `command` run in this environment.
    pub(crate) fn apply_to(&self, mut command: Command) -> Command {
        command.env("LD_PRELOAD", &self.shim);
        command.env("ORPHAND_TEST_ENV", &self.file);
        command
    }

    /// Sets the wall clock of the program `years` ahead of the machine's.
    pub(crate) fn set_clock(&self, years: i64) {
        self.store(0, years * YEAR);
    }

    /// Limits the event queue to `events`.
    pub(crate) fn set_queue(&self, events: i64) {
        self.store(8, events);
    }

    /// Injects the fault, once.
    pub(crate) fn inject_fault(&self, fault: ThreadFault) {
        self.store(16, fault as i64);
    }

    /// Reports whether the fault has hit a thread.
    pub(crate) fn fault_has_occurred(&self) -> bool {
        let mut value = [0; 8];
        self.shared.read_exact_at(&mut value, 16).unwrap();
        i64::from_ne_bytes(value) == 0
    }

    fn store(&self, at: u64, value: i64) {
        self.shared.write_all_at(&value.to_ne_bytes(), at).unwrap();
    }
}
