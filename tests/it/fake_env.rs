//! A world of its own for a program: a wall clock that the test sets, a short queue of events,
//! threads that die. The machine's own clock and limits are left alone: `fake_env.c` is compiled and
//! preloaded.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;

use crate::sandbox::{Sandbox, StartChild, is_sanitized};

/// What the program believes is kept in a file that it has mapped.
pub(crate) struct FakeEnv {
    shim: PathBuf,
    file: PathBuf,
    shared: File,
}

/// What happens to the next of its threads that hears something.
#[derive(Clone, Copy)]
pub(crate) enum ThreadFault {
    /// Waiting for events fails, which notify does not survive.
    WaitFails = 1,
    /// Reading events fails, now and for ever.
    ReadFails = 2,
}

const YEAR: i64 = 365 * 24 * 60 * 60;

impl FakeEnv {
    /// A world like the real one. Says why where none can be made.
    pub(crate) fn new(sandbox: &Sandbox) -> Result<FakeEnv, String> {
        if is_sanitized() {
            return Err("under a sanitizer nothing else can be preloaded".to_owned());
        }
        let (shim, file) = (
            sandbox.base().join("world.so"),
            sandbox.base().join("world"),
        );
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/fake_env.c");
        let mut cc = Command::new("cc");
        cc.args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"]);
        let made = cc.arg(&shim).args([source, "-ldl"]).collect_output();
        let made = made.map_err(|error| format!("no C compiler: {error}"))?;
        let said = String::from_utf8_lossy(&made.stderr);
        assert!(made.status.success(), "{said}");
        let shared = File::create_new(&file).unwrap();
        shared.set_len(24).unwrap();
        for path in [&shim, &file] {
            sandbox.chown_to_user(path);
        }
        Ok(FakeEnv { shim, file, shared })
    }

    /// Has `command` run in it.
    pub(crate) fn apply_to(&self, mut command: Command) -> Command {
        command.env("LD_PRELOAD", &self.shim);
        command.env("ORPHAND_TEST_ENV", &self.file);
        command
    }

    /// The wall clock is set so many years ahead of the machine's.
    pub(crate) fn set_clock(&self, years: i64) {
        self.store(0, years * YEAR);
    }

    /// The queue of events holds so many.
    pub(crate) fn set_queue(&self, events: i64) {
        self.store(8, events);
    }

    /// Trouble comes, once.
    pub(crate) fn inject_fault(&self, trouble: ThreadFault) {
        self.store(16, trouble as i64);
    }

    /// Whether the trouble has come to somebody.
    pub(crate) fn fault_has_occurred(&self) -> bool {
        let mut value = [0; 8];
        self.shared.read_exact_at(&mut value, 16).unwrap();
        i64::from_ne_bytes(value) == 0
    }

    fn store(&self, at: u64, value: i64) {
        self.shared.write_all_at(&value.to_ne_bytes(), at).unwrap();
    }
}
