//! `orphand watch`: the loop that launchd, systemd and people start alike.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{RecvTimeoutError, never};
use orphand::clock;
use orphand::daemon::{Existing, StartError, Watcher};
use orphand::decide::policy::Policy;
use orphand::event::Event;
use orphand::root::{Root, absolute};
use orphand::scan;
use orphand::state::Folders;
use orphand::watch::file::Changes;

use super::args::{Look, Watch};
use super::config_file::{Config, RuleSettings};
use super::report::Report;
use super::{Exit, Failure, Intent, list_writers, plan, stdin_is_terminal, text};

pub(super) fn run(command: &Watch, look: &Look) -> Result<Exit, Failure> {
    if list_writers(&command.rule) {
        return Ok(Exit::Done);
    }
    let typed = command
        .rule
        .settings(Some(&command.depth), Some(&command.deed));
    // Before anything else, so that no signal ends it half-way.
    let signals = Signals::listen()?;
    let (config, roots) = if command.dirs.is_empty() {
        match from_file(command, &typed, &signals)? {
            Some(found) => found,
            None => return Ok(Exit::Done),
        }
    } else {
        let plan = plan(&command.rule, typed, &command.dirs, Intent::Act)?;
        (plan.config, plan.roots)
    };
    let mut report = Report::new(look, roots.iter().map(|root| root.path.clone()).collect());
    let existing = command
        .existing
        .map(Existing::from)
        .unwrap_or(match report.is_live() {
            true => Existing::Wait,
            false => Existing::Take,
        });
    let mut builder = Watcher::builder()
        // Each was asked about above, by its own rule.
        .allow_broad_roots(true)
        .existing(existing)
        .folders(Folders::from_env())
        .quarantine(config.quarantine)
        .verbose(look.verbose > 0);
    for root in &roots {
        builder = builder.root(&root.path, root.policy.clone());
    }
    if report.is_live() && !look.quiet {
        greet(&mut report, &roots, existing)?;
    }
    let watcher = builder.start().map_err(|error| failed(&error))?;
    signals.stop(&watcher);
    follow(&watcher, &mut report)
}

/// What the configuration file lists. Where it is wrong, or lists nothing, a person is told so. A
/// supervisor would start us again and again: for it we stay up, remove nothing, and wait for the
/// file to be mended. `None`: a signal came first.
fn from_file(
    command: &Watch,
    typed: &RuleSettings,
    signals: &Signals,
) -> Result<Option<(Config, Vec<Root>)>, Failure> {
    let explicit = command.rule.config.as_deref();
    let path = explicit.map(absolute).or_else(Config::usual_path);
    let mut changes = None;
    let mut said = String::new();
    loop {
        let read = || {
            let config = Config::load(explicit)?;
            let roots = config.roots(typed)?;
            match roots.is_empty() {
                true => Err(nothing_to_watch(&config)),
                false => Ok((config, roots)),
            }
        };
        let failure = match read() {
            Ok(found) => return Ok(Some(found)),
            Err(failure) => failure,
        };
        let (Some(path), false) = (&path, stdin_is_terminal()) else {
            return Err(failure);
        };
        if failure.text != said {
            log::error!(
                "{}\ndegraded: nothing is watched or removed until {path:?} is mended",
                failure.text
            );
            said = failure.text;
        }
        let changes = match &mut changes {
            None => {
                // It may have been mended before anybody listened: look once more.
                changes = Some(Changes::of(path));
                continue;
            }
            Some(changes) => changes,
        };
        crossbeam_channel::select! {
            recv(signals.arrived) -> _ => return Ok(None),
            recv(changes.rung()) -> _ => changes.listen(),
        }
    }
}

/// Tells what happens until there is nothing more.
fn follow(watcher: &Watcher, report: &mut Report) -> Result<Exit, Failure> {
    let live = report.is_live();
    let mut failed = false;
    let mut next_status = Instant::now();
    loop {
        // The line at the bottom is worth a wake-up a second only while something waits.
        let event = match live && watcher.tracked() > 0 {
            true => match watcher.events().recv_timeout(Duration::from_secs(1)) {
                Ok(event) => Some(event),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => break,
            },
            false => crossbeam_channel::select! {
                recv(watcher.events()) -> event => match event {
                    Ok(event) => Some(event),
                    Err(_) => break,
                },
                recv(if live { watcher.stirred().clone() } else { never() }) -> _ => None,
            },
        };
        if let Some(event) = event {
            if matches!(event, Event::Summary(_)) {
                report.status(String::new());
            }
            let last = matches!(event, Event::Summary(_));
            failed |= matches!(event, Event::Failed { .. });
            if report.event(&event).is_err() {
                // Nobody reads any more: what cannot be told is not done.
                watcher.stopper().stop();
                return Ok(Exit::Failed);
            }
            if last {
                break;
            }
        }
        if live && next_status <= Instant::now() {
            report.status(status(watcher));
            next_status = Instant::now() + Duration::from_secs(1);
        }
    }
    let summary = watcher.summary();
    let partly = failed || summary.failed > 0 || summary.cannot_tell;
    Ok(if partly { Exit::Partly } else { Exit::Done })
}

/// `2 waiting, next in 7 s · 1 held · freed 5 B`
fn status(watcher: &Watcher) -> String {
    let waiting = watcher.waiting();
    let summary = watcher.summary();
    let mut parts = Vec::new();
    if waiting.waiting > 0 {
        let next = waiting.next.map(|next| next.since(clock::mono()).as_secs());
        let next = next.map(|s| format!(", next in {s} s")).unwrap_or_default();
        parts.push(format!(
            "{} waiting{next}",
            text::count(waiting.waiting as u64)
        ));
    }
    if waiting.held > 0 {
        parts.push(format!("{} held", text::count(waiting.held as u64)));
    }
    if summary.reaped > 0 {
        parts.push(format!("freed {}", text::size(summary.bytes)));
    }
    if summary.held_back > 0 {
        parts.push(format!("{} in quarantine", text::size(summary.held_back)));
    }
    parts.join(" · ")
}

/// The first two lines on a terminal.
fn greet(report: &mut Report, roots: &[Root], existing: Existing) -> Result<(), Failure> {
    for root in roots {
        let policy = &root.policy;
        let deep = if policy.recursive {
            "and below it"
        } else {
            "not below it"
        };
        let path = text::escaped(&root.path);
        let names = policy.names.to_string();
        let grace = grace(policy);
        let deed = if policy.is_dry_run() {
            "is told"
        } else {
            "goes"
        };
        report.line(&format!(
            "watching {path} ({deep}) for {names}; what nobody has used for {grace} {deed}. Ctrl-C ends"
        ))?;
    }
    let (mut temps, mut bytes) = (0, 0);
    for root in roots {
        let (more, size) = before(root);
        temps += more;
        bytes = size.saturating_add(bytes);
    }
    if temps > 0 {
        let (were, they, go, use_them) = match temps {
            1 => ("was", "it", "goes", "it"),
            _ => ("were", "they", "go", "them"),
        };
        let what = match (existing, roots) {
            (Existing::Take, _) => {
                format!("{they} {go} once it is proven that nobody uses {use_them}")
            }
            (Existing::Wait, [root]) => {
                let grace = grace(&root.policy);
                format!("{they} {go} in {grace} unless somebody uses {use_them}")
            }
            (Existing::Wait, _) => {
                format!("{they} {go} after the grace unless somebody uses {use_them}")
            }
            (Existing::Leave, _) => format!("left alone until something happens to {use_them}"),
        };
        let size = text::size(bytes);
        let temps = text::counted(temps, "temp", "temps");
        report.line(&format!("{temps} ({size}) {were} here before; {what}"))?;
    }
    Ok(())
}

/// The grace of a rule, for people.
pub(super) fn grace(policy: &Policy) -> String {
    let (random, fixed) = (policy.grace.random, policy.grace.fixed);
    match random == fixed {
        true => text::span(random),
        false => format!(
            "{} (fixed names: {})",
            text::span(random),
            text::span(fixed)
        ),
    }
}

/// How many temps are there already, and how large they are.
fn before(root: &Root) -> (u64, u64) {
    let (mut temps, mut bytes) = (0, 0);
    let found = scan::temps(root, &mut |_, _| {}, &|_| {}).unwrap_or_default();
    for (below, names) in found {
        let Ok(dir) = orphand::look::Dir::open_below(&root.path, None, &below) else {
            continue;
        };
        for name in names {
            if let Ok(Some(seen)) = dir.observe(&name) {
                temps += 1;
                bytes = seen.fingerprint.size.saturating_add(bytes);
            }
        }
    }
    (temps, bytes)
}

fn nothing_to_watch(config: &Config) -> Failure {
    let file = match &config.path {
        Some(path) => format!("{path:?} lists none"),
        None => match Config::usual_path() {
            Some(path) => format!("there is no {path:?}"),
            None => "there is no configuration file".to_owned(),
        },
    };
    Failure::new(
        Exit::Usage,
        format!(
            "no directory to watch: none was given, and {file}.\n\
             watch one now:       orphand watch DIR\n\
             or list them:        orphand config init, then a [[watch]] for each in that file"
        ),
    )
}

fn failed(error: &StartError) -> Failure {
    match error {
        StartError::Busy { .. } => Failure::new(Exit::Busy, error),
        StartError::Refused(_) | StartError::NoRoot => Failure::new(Exit::Usage, error),
        StartError::Io(_) => Failure::new(Exit::Failed, error),
    }
}

/// SIGINT, SIGTERM and SIGHUP end the watch; a second one ends it at once.
struct Signals {
    arrived: crossbeam_channel::Receiver<()>,
}

impl Signals {
    fn listen() -> Result<Signals, Failure> {
        let hangup_ignored = hangup_is_ignored();
        let (send, arrived) = crossbeam_channel::bounded(1);
        let count = AtomicU32::new(0);
        ctrlc::set_handler(move || {
            if count.fetch_add(1, Ordering::SeqCst) > 0 {
                std::process::exit(130);
            }
            let _ = send.try_send(());
        })
        .map_err(|error| {
            Failure::new(Exit::Failed, format!("cannot listen for signals: {error}"))
        })?;
        if hangup_ignored {
            // nohup's wish, which ctrlc does not see.
            ignore_hangup();
        }
        Ok(Signals { arrived })
    }

    fn stop(self, watcher: &Watcher) {
        let stopper = watcher.stopper();
        let thread = std::thread::Builder::new().name("orphand-signals".into());
        let spawned = thread.spawn(move || {
            if self.arrived.recv().is_ok() {
                stopper.stop();
                // Whoever should read our lines does not: nothing is half done by now.
                std::thread::sleep(Duration::from_secs(20));
                std::process::exit(Exit::Failed as i32);
            }
        });
        if let Err(error) = spawned {
            log::error!("signals will not be heard: {error}");
        }
    }
}

fn hangup_is_ignored() -> bool {
    // SAFETY: a null `act` only asks; `old` is valid for the call, which fills it.
    unsafe {
        let mut old = std::mem::zeroed::<libc::sigaction>();
        libc::sigaction(libc::SIGHUP, std::ptr::null(), &raw mut old) == 0
            && old.sa_sigaction == libc::SIG_IGN
    }
}

fn ignore_hangup() {
    // SAFETY: SIG_IGN is a valid disposition, and no handler of ours stands on SIGHUP but ctrlc's.
    unsafe {
        libc::signal(libc::SIGHUP, libc::SIG_IGN);
    }
}
