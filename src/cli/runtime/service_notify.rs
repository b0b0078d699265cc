//! Notifications for systemd: readiness, watchdog pings, and log lines with a priority for the journal.
//!
//! launchd needs none of these. It only requires that the process stays in the foreground and ends on SIGTERM.

use std::env;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use orphand::Watcher;
use sd_notify::NotifyState;

/// Returns whether `stream` is connected to systemd's journal: `JOURNAL_STREAM` has its device and inode
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

/// The connection to systemd, if systemd started this process and expects notifications (sd_notify(3)).
#[derive(Debug)]
pub(crate) struct ServiceNotifier {
    is_enabled: bool,
    /// The time without a ping after which systemd restarts the process.
    watchdog: Option<Duration>,
    /// The time of the next ping, or of the next request for more time to start.
    next_tick: Option<Instant>,
    /// The heartbeats of the scheduler and of the supervisor thread at the last ping.
    heartbeats: [u64; 2],
    status: String,
}

/// The time that each request adds to the time limit of the start.
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

    /// Returns when [`ServiceNotifier::ping_watchdog`] or [`ServiceNotifier::report_starting`] must be called next.
    pub(crate) fn next_tick(&self) -> Option<Instant> {
        self.next_tick
    }

    /// Asks for more time to start, so that systemd does not end a watch that is still in a long first scan.
    pub(crate) fn report_starting(&mut self, now: Instant) {
        if self.next_tick.is_some_and(|next| next <= now) {
            let more = u32::try_from(START_EXTENSION.as_micros()).unwrap_or(u32::MAX);
            self.send(&[NotifyState::ExtendTimeoutUsec(more)]);
            self.next_tick = Some(now + START_EXTENSION / 3);
        }
    }

    /// Reports readiness: the watches are set and the first scan is complete. With a wrong configuration it reports
    /// ready too, and `status` has the error; otherwise systemd would wait for it and hold up the login.
    pub(crate) fn report_ready(&mut self, status: &str) {
        self.send(&[NotifyState::Ready, NotifyState::Status(status)]);
        status.clone_into(&mut self.status);
        self.next_tick = self.watchdog.map(|_| Instant::now());
    }

    /// Reports the status line that `systemctl status` shows.
    pub(crate) fn report_status(&mut self, status: String) {
        if status != self.status {
            self.send(&[NotifyState::Status(&status)]);
            self.status = status;
        }
    }

    /// Reports that the process is about to end.
    pub(crate) fn report_stopping(&self) {
        self.send(&[NotifyState::Stopping]);
    }

    /// Pings the watchdog, but only if both the scheduler and the supervisor thread have answered since the last ping.
    /// A timer that pings by itself would also ping while these threads hang.
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

    /// Pings the watchdog while no watcher runs and this thread is the only one.
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
            log::debug!("cannot notify systemd: {error}");
        }
    }
}

/// Returns the prefix that tells the journal the priority of a line (sd-daemon(3)).
pub(crate) fn priority(level: log::Level) -> &'static str {
    match level {
        log::Level::Error => "<3>",
        log::Level::Warn => "<4>",
        log::Level::Info => "<6>",
        log::Level::Debug | log::Level::Trace => "<7>",
    }
}

/// Returns whether stdout is connected to systemd's journal.
pub(crate) fn stdout_is_journal() -> bool {
    is_journal(io::stdout())
}
