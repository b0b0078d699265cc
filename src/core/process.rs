//! The process that wrote or holds a temp. It is reported, and no verdict depends on it.

use std::path::PathBuf;

use super::time::Wall;

/// A process, as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its pid.
    pub pid: u32,
    /// Its command name. `None` if it was never seen.
    pub name: Option<String>,
    /// The path of its program.
    pub exe: Option<PathBuf>,
    /// The last part of its control group, such as the name of a systemd unit.
    pub unit: Option<String>,
    /// How it ended. `None` if it runs, or the kernel does not tell.
    pub ended: Option<Ended>,
    /// How it was found.
    pub via: Via,
}

/// The end of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// How it ended.
    pub status: ExitStatus,
    /// The time at which its end was noticed.
    pub at: Wall,
}

/// The way in which a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitStatus {
    /// This signal killed it.
    Signal(u32),
    /// It exited with this code.
    Code(u32),
}

impl ExitStatus {
    /// Returns the meaning of a status as wait(2) returns it.
    #[must_use]
    pub fn from_wait(status: u32) -> ExitStatus {
        match status & 0x7f {
            0 => ExitStatus::Code((status >> 8) & 0xff),
            signal => ExitStatus::Signal(signal),
        }
    }

    /// Returns the signal that killed the process.
    #[must_use]
    pub fn signal(self) -> Option<u32> {
        match self {
            ExitStatus::Signal(signal) => Some(signal),
            ExitStatus::Code(_) => None,
        }
    }

    /// Returns the code with which the process exited.
    #[must_use]
    pub fn code(self) -> Option<u32> {
        match self {
            ExitStatus::Code(code) => Some(code),
            ExitStatus::Signal(_) => None,
        }
    }
}

words! {
    /// How a process was found.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Via {
        /// Its pid is in the name of the temp.
        Name = "name",
        /// It held the temp at a look.
        Holder = "holder",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_of_wait_is_read() {
        for (status, want) in [
            (0, ExitStatus::Code(0)),
            (3 << 8, ExitStatus::Code(3)),
            (9, ExitStatus::Signal(9)),
            // With a core dump.
            (11 | 0x80, ExitStatus::Signal(11)),
        ] {
            assert_eq!(ExitStatus::from_wait(status), want, "{status}");
        }
    }
}
