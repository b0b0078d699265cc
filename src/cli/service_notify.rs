//! What launchd's and systemd's processes owe them: readiness, a sign of life, and lines that the
//! journal can sort. Absent on purpose: anything for launchd, which wants nothing but that the
//! process stays in the foreground and ends on SIGTERM.

use std::env;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use orphand::Watcher;
use sd_notify::NotifyState;

/// Whether `stream` ends in systemd's journal: `JOURNAL_STREAM` has its device and inode
/// (systemd.exec(5)).
pub(crate) fn is_journal(stream: impl AsFd) -> bool {
    let journal = env::var("JOURNAL_STREAM").unwrap_or_default();
    let Some((dev, ino)) = journal.split_once(':') else {
        return false;
    };
    let number = |text: &str| text.parse::<u64>().ok();
    let seen = stream.as_fd().try_clone_to_owned().map(File::from);
    let seen = seen.and_then(|stream| stream.metadata());
    seen.is_ok_and(|seen| number(dev) == Some(seen.dev()) && number(ino) == Some(seen.ino()))
}

/// systemd, if it started this process and wants to hear from it (sd_notify(3)).
#[derive(Debug)]
pub(crate) struct ServiceNotifier {
    is_enabled: bool,
    /// The time after which it takes a silent process for a hanging one.
    watchdog: Option<Duration>,
    /// When the threads are asked again.
    next_tick: Option<Instant>,
    /// How often they had come round when they were asked last.
    heartbeats: [u64; 2],
    status: String,
}

/// How much longer than until now a start may take, each time that it says so.
const START_EXTENSION: Duration = Duration::from_secs(30);

impl ServiceNotifier {
    pub(crate) fn from_env() -> ServiceNotifier {
        let listens = env::var_os("NOTIFY_SOCKET").is_some_and(|socket| !socket.is_empty());
        ServiceNotifier {
            is_enabled: listens,
            watchdog: sd_notify::watchdog_enabled().filter(|_| listens),
            next_tick: listens.then(Instant::now),
            heartbeats: [0, 0],
            status: String::new(),
        }
    }

    /// When [`Supervisor::tick`] is to be called next.
    pub(crate) fn next_tick(&self) -> Option<Instant> {
        self.next_tick
    }

    /// The start is still under way: a long first scan is no hanging start.
    pub(crate) fn report_starting(&mut self, now: Instant) {
        if self.next_tick.is_some_and(|next| next <= now) {
            let more = u32::try_from(START_EXTENSION.as_micros()).unwrap_or(u32::MAX);
            self.send(&[NotifyState::ExtendTimeoutUsec(more)]);
            self.next_tick = Some(now + START_EXTENSION / 3);
        }
    }

    /// The watches stand and the first scan is in; or the configuration is waited for, and `status`
    /// says so: a start that never ended would hold up the whole session's.
    pub(crate) fn report_ready(&mut self, status: &str) {
        self.send(&[NotifyState::Ready, NotifyState::Status(status)]);
        status.clone_into(&mut self.status);
        self.next_tick = self.watchdog.map(|_| Instant::now());
    }

    /// What it does, in a line: `systemctl status` shows it.
    pub(crate) fn report_status(&mut self, status: String) {
        if status != self.status {
            self.send(&[NotifyState::Status(&status)]);
            self.status = status;
        }
    }

    /// It is about to end.
    pub(crate) fn report_stopping(&self) {
        self.send(&[NotifyState::Stopping]);
    }

    /// Says that it is alive, if it is: the timer and the keeper have both come round since they
    /// were asked to. A timer that pings by itself would say so of a process that hangs.
    pub(crate) fn ping_watchdog(&mut self, now: Instant, watcher: &Watcher) {
        let (Some(patience), Some(next)) = (self.watchdog, self.next_tick) else {
            return;
        };
        if next > now {
            return;
        }
        let rounds = watcher.heartbeats();
        let moved = |(now, before): (&u64, &u64)| now > before;
        if rounds.iter().zip(&self.heartbeats).all(moved) {
            self.send(&[NotifyState::Watchdog]);
            self.heartbeats = rounds;
        }
        self.next_tick = Some(now + patience / 4);
    }

    /// The same while no watcher runs: this thread is all there is.
    pub(crate) fn ping_without_watcher(&mut self, now: Instant) {
        if let (Some(patience), Some(next)) = (self.watchdog, self.next_tick)
            && next <= now
        {
            self.send(&[NotifyState::Watchdog]);
            self.next_tick = Some(now + patience / 4);
        }
    }

    fn send(&self, states: &[NotifyState<'_>]) {
        if !self.is_enabled {
            return;
        }
        if let Err(error) = sd_notify::notify(states) {
            log::debug!("systemd does not hear: {error}");
        }
    }
}

/// The journal's number for how much a line matters, as it stands before the line (sd-daemon(3)).
pub(crate) fn priority(level: log::Level) -> &'static str {
    match level {
        log::Level::Error => "<3>",
        log::Level::Warn => "<4>",
        log::Level::Info => "<6>",
        log::Level::Debug | log::Level::Trace => "<7>",
    }
}

/// Both of our streams, once asked.
pub(crate) fn stdout_is_journal() -> bool {
    is_journal(io::stdout())
}
