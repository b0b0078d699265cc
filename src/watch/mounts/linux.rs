//! Mounts on Linux: `/proc/self/mountinfo`, which poll(2) reports as changed (proc(5)).

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::thread::JoinHandle;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pipe::{PipeFlags, pipe_with};

use super::MountCallback;
use crate::mountinfo;

/// A line of the table: what is mounted, by its numbers, and where.
type MountEntry = (Vec<u8>, PathBuf);

/// After a change so long is waited, nanoseconds: a container that starts mounts a dozen things.
const SETTLE_TIME: i64 = 20_000_000;

/// A thread that sleeps in poll(2) until the table changes or its end comes.
#[derive(Debug)]
pub(super) struct Listener {
    end: Option<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Listener {
    fn drop(&mut self) {
        // The other end of the pipe hangs up.
        self.end = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

pub(super) fn listen(tell: MountCallback) -> Option<Listener> {
    let begun = || -> io::Result<Listener> {
        let mut table = File::open("/proc/self/mountinfo")?;
        let known = read(&mut table)?;
        let (ended, end) = pipe_with(PipeFlags::CLOEXEC)?;
        let thread = std::thread::Builder::new().name("orphand-mounts".into());
        let thread = thread.spawn(move || watch_table(&mut table, known, &ended, tell))?;
        Ok(Listener {
            end: Some(end),
            thread: Some(thread),
        })
    };
    begun()
        .inspect_err(|error| {
            log::warn!(
                "what is mounted over a directory is not heard ({error}); it is noticed by the \
                 next scan, and nothing is removed there before that"
            );
        })
        .ok()
}

fn watch_table(
    table: &mut File,
    mut known: HashSet<MountEntry>,
    ended: &OwnedFd,
    mut tell: MountCallback,
) {
    let storm = Timespec {
        tv_sec: 0,
        tv_nsec: SETTLE_TIME,
    };
    loop {
        let mut both = [
            // A table is always readable; that it has changed is the exception that is waited for.
            PollFd::new(table, PollFlags::PRI),
            PollFd::new(ended, PollFlags::empty()),
        ];
        match poll(&mut both, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return log::warn!("mounts are not heard any more: {error}"),
        }
        let [changed, end] = both.map(|one| !one.revents().is_empty());
        if end {
            return;
        }
        if !changed {
            continue;
        }
        let _ = poll(&mut [PollFd::new(ended, PollFlags::empty())], Some(&storm));
        let Ok(now) = read(table) else {
            continue;
        };
        let places: HashSet<PathBuf> = now
            .symmetric_difference(&known)
            .map(|(_, place)| place.clone())
            .collect();
        known = now;
        if !places.is_empty() {
            tell(places.into_iter().collect());
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
    fn a_line_says_what_and_where() {
        for (line, place) in [
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
            assert_eq!(parsed.map(|(_, at)| at), place.map(PathBuf::from), "{line}");
        }
        let line = |number: u32| format!("{number} 35 98:0 / /mnt rw - ext4 /dev/sda rw");
        assert_ne!(parse(line(36).as_bytes()), parse(line(37).as_bytes()));
    }

    #[test]
    fn the_table_of_this_process_can_be_read() {
        let mut table = File::open("/proc/self/mountinfo").unwrap();
        let mounts = read(&mut table).unwrap();
        assert!(mounts.iter().any(|(_, place)| place.as_os_str() == "/"));
        assert_eq!(
            read(&mut table).unwrap(),
            mounts,
            "again from its beginning"
        );
    }
}
