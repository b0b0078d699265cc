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
    listens: bool,
    /// The time after which it takes a silent process for a hanging one.
    patience: Option<Duration>,
    /// When the threads are asked again.
    next: Option<Instant>,
    /// How often they had come round when they were asked last.
    rounds: [u64; 2],
    status: String,
}

/// How much longer than until now a start may take, each time that it says so.
const START: Duration = Duration::from_secs(30);

impl ServiceNotifier {
    pub(crate) fn from_env() -> ServiceNotifier {
        let listens = env::var_os("NOTIFY_SOCKET").is_some_and(|socket| !socket.is_empty());
        ServiceNotifier {
            listens,
            patience: sd_notify::watchdog_enabled().filter(|_| listens),
            next: listens.then(Instant::now),
            rounds: [0, 0],
            status: String::new(),
        }
    }

    /// When [`Supervisor::tick`] is to be called next.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.next
    }

    /// The start is still under way: a long first scan is no hanging start.
    pub(crate) fn is_starting(&mut self, now: Instant) {
        if self.next.is_some_and(|next| next <= now) {
            let more = u32::try_from(START.as_micros()).unwrap_or(u32::MAX);
            self.say(&[NotifyState::ExtendTimeoutUsec(more)]);
            self.next = Some(now + START / 3);
        }
    }

    /// The watches stand and the first scan is in; or the configuration is waited for, and `status`
    /// says so: a start that never ended would hold up the whole session's.
    pub(crate) fn is_ready(&mut self, status: &str) {
        self.say(&[NotifyState::Ready, NotifyState::Status(status)]);
        status.clone_into(&mut self.status);
        self.next = self.patience.map(|_| Instant::now());
    }

    /// What it does, in a line: `systemctl status` shows it.
    pub(crate) fn does(&mut self, status: String) {
        if status != self.status {
            self.say(&[NotifyState::Status(&status)]);
            self.status = status;
        }
    }

    /// It is about to end.
    pub(crate) fn is_stopping(&self) {
        self.say(&[NotifyState::Stopping]);
    }

    /// Says that it is alive, if it is: the timer and the keeper have both come round since they
    /// were asked to. A timer that pings by itself would say so of a process that hangs.
    pub(crate) fn tick(&mut self, now: Instant, watcher: &Watcher) {
        let (Some(patience), Some(next)) = (self.patience, self.next) else {
            return;
        };
        if next > now {
            return;
        }
        let rounds = watcher.heartbeats();
        let moved = |(now, before): (&u64, &u64)| now > before;
        if rounds.iter().zip(&self.rounds).all(moved) {
            self.say(&[NotifyState::Watchdog]);
            self.rounds = rounds;
        }
        self.next = Some(now + patience / 4);
    }

    /// The same while no watcher runs: this thread is all there is.
    pub(crate) fn tick_alone(&mut self, now: Instant) {
        if let (Some(patience), Some(next)) = (self.patience, self.next)
            && next <= now
        {
            self.say(&[NotifyState::Watchdog]);
            self.next = Some(now + patience / 4);
        }
    }

    fn say(&self, states: &[NotifyState<'_>]) {
        if !self.listens {
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
