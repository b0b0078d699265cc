//! Reports changes of `/proc/self/mountinfo`, for which it waits with poll(2) (proc(5)).

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::thread::JoinHandle;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pipe::{PipeFlags, pipe_with};

use super::MountCallback;
use crate::sys::mountinfo;

/// A line of the table: the numbers and the source of a mount, and its mount point.
type MountEntry = (Vec<u8>, PathBuf);

/// The time, in nanoseconds, between a change and the reading of the table: a container that starts makes a dozen
/// mounts.
const SETTLE_TIME: i64 = 20_000_000;

/// A thread that sleeps in poll(2) until the table changes or the listener is dropped.
#[derive(Debug)]
pub(super) struct Listener {
    end: Option<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Listener {
    fn drop(&mut self) {
        // Closing this end of the pipe wakes the thread.
        self.end = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

pub(super) fn listen(on_change: MountCallback) -> Option<Listener> {
    let start = || -> io::Result<Listener> {
        let mut table = File::open("/proc/self/mountinfo")?;
        let known = read(&mut table)?;
        let (ended, end) = pipe_with(PipeFlags::CLOEXEC)?;
        let thread = std::thread::Builder::new().name("orphand-mounts".into());
        let thread = thread.spawn(move || watch_table(&mut table, known, &ended, on_change))?;
        Ok(Listener {
            end: Some(end),
            thread: Some(thread),
        })
    };
    start()
        .inspect_err(|error| {
            log::warn!(
                "cannot watch for mounts ({error}); the next scan notices a mount over a watched \
                 directory, and nothing is removed there before that"
            );
        })
        .ok()
}

fn watch_table(
    table: &mut File,
    mut known: HashSet<MountEntry>,
    ended: &OwnedFd,
    mut on_change: MountCallback,
) {
    let settle_time = Timespec {
        tv_sec: 0,
        tv_nsec: SETTLE_TIME,
    };
    loop {
        let mut both = [
            // The table is always readable. A change is reported as an exceptional condition.
            PollFd::new(table, PollFlags::PRI),
            PollFd::new(ended, PollFlags::empty()),
        ];
        match poll(&mut both, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return log::warn!("mounts are no longer noticed: {error}"),
        }
        let [changed, end] = both.map(|one| !one.revents().is_empty());
        if end {
            return;
        }
        if !changed {
            continue;
        }
        let _ = poll(
            &mut [PollFd::new(ended, PollFlags::empty())],
            Some(&settle_time),
        );
        let Ok(now) = read(table) else {
            continue;
        };
        let changed: HashSet<PathBuf> = now
            .symmetric_difference(&known)
            .map(|(_, path)| path.clone())
            .collect();
        known = now;
        if !changed.is_empty() {
            on_change(changed.into_iter().collect());
        }
    }
}

fn read(table: &mut File) -> io::Result<HashSet<MountEntry>> {
    let mut text = Vec::new();
    table.rewind()?;
    table.read_to_end(&mut text)?;
    Ok(text
        .split(|byte| *byte == b'\n')
        .filter_map(parse)
        .collect())
}

/// Parses a line of the table.
fn parse(line: &[u8]) -> Option<MountEntry> {
    let mount = mountinfo::parse(line)?;
    Some((mount.source.to_owned(), mount.path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_parsed() {
        for (line, path) in [
            (
                "36 35 98:0 / /mnt rw,noatime - ext4 /dev/sda rw",
                Some("/mnt"),
            ),
            (
                r"36 35 0:5 /a /with\040space\134 rw - tmpfs x rw",
                Some(r"/with space\"),
            ),
            (
                r"36 35 0:5 /a /not\04octal rw - tmpfs x rw",
                Some(r"/not\04octal"),
            ),
            ("36 35 0:5", None),
            ("", None),
        ] {
            let parsed = parse(line.as_bytes());
            assert_eq!(
                parsed.map(|(_, path)| path),
                path.map(PathBuf::from),
                "{line}"
            );
        }
        let line = |number: u32| format!("{number} 35 98:0 / /mnt rw - ext4 /dev/sda rw");
        assert_ne!(parse(line(36).as_bytes()), parse(line(37).as_bytes()));
    }

    #[test]
    fn the_table_of_this_process_can_be_read() {
        let mut table = File::open("/proc/self/mountinfo").unwrap();
        let mounts = read(&mut table).unwrap();
        assert!(mounts.iter().any(|(_, path)| path.as_os_str() == "/"));
        assert_eq!(
            read(&mut table).unwrap(),
            mounts,
            "a second reading begins at the start of the table"
        );
    }
}
