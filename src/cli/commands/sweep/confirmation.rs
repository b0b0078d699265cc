//! The question that a sweep asks before it removes files.

use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, bounded};
use orphand::core::policy::{Action, Open, SoleCopy};
use orphand::fs::response;
use orphand::fs::root::Root;
use orphand::fs::walk;
use orphand::sys::stop::Stop;

use super::Sweep;
use crate::cli::exit::{Exit, Failure};
use crate::cli::options::OutputOptions;
use crate::cli::output::shell::Suggestion;
use crate::cli::output::standard_streams::{confirm, why_it_cannot_ask};
use crate::cli::output::text;
use crate::cli::runtime::plan::cannot_scan;

/// Returns the same command with one more option.
pub(super) fn same_command(command: &Sweep, option: &str) -> Suggestion {
    let sweep = command.options.sweep_command(&command.dirs, false);
    sweep.flag(option, true)
}

/// Asks on the terminal whether to continue. Without a terminal or with `--json`, `--yes` is needed. A signal counts as
/// no.
pub(super) fn is_confirmed(
    command: &Sweep,
    roots: &[Root],
    output: &OutputOptions,
    stop: &Stop,
) -> Result<bool, Failure> {
    if let Some(why) = why_it_cannot_ask(output) {
        return Err(Failure::new(
            Exit::Usage,
            format!(
                "sweep removes files and {why}; add --yes, or -n for a preview\n\
                 to remove:   {}\n\
                 to preview:  {}",
                same_command(command, "--yes"),
                same_command(command, "-n")
            ),
        ));
    }
    let mut temps = 0;
    for root in roots.iter().filter(|root| response::responds(&root.path)) {
        let is_stopped = || stop.is_stopped();
        let found = walk::find(root, &mut |_, _| {}, &|_| {}, &is_stopped);
        let found = found.map_err(|error| cannot_scan(root, &error))?;
        temps += found
            .temps
            .iter()
            .map(|(_, names)| names.len())
            .sum::<usize>();
    }
    match temps {
        _ if stop.is_stopped() => Ok(false),
        0 => Ok(true),
        temps => Ok(ask(question(roots, temps as u64), stop)),
    }
}

fn question(roots: &[Root], temps: u64) -> String {
    let moves = |root: &Root| {
        let policy = &root.policy;
        policy.action == Action::Quarantine
            || policy.sole_copy == SoleCopy::Quarantine
            || policy.open == Open::Quarantine
    };
    let deletes = |root: &Root| root.policy.action == Action::Delete;
    let what = match (roots.iter().any(deletes), roots.iter().any(moves)) {
        (true, false) => "remove those",
        (true, true) => "remove, or move to the quarantine, those",
        (false, _) => "move to the quarantine those",
    };
    let names: Vec<String> = roots.iter().map(|root| text::escaped(&root.path)).collect();
    let answering = roots.iter().filter(|root| response::responds(&root.path));
    let graces = answering.map(|root| root.policy.grace.shortest());
    format!(
        "{} in {}: {what} that no process has used for {}?",
        text::counted(temps, "temp", "temps"),
        names.join(", "),
        text::span(graces.min().unwrap_or(Duration::ZERO))
    )
}

/// The interval of the checks for a signal while the sweep waits for an answer.
const SIGNAL_CHECK: Duration = Duration::from_millis(50);

/// Asks `question` and returns whether the answer is yes. A thread reads the answer, because a signal does not
/// interrupt a read from the terminal. The end of the process ends that thread.
fn ask(question: String, stop: &Stop) -> bool {
    let (send, answer) = bounded(1);
    let thread = std::thread::Builder::new().name("orphand-question".into());
    let asks = question.clone();
    if thread.spawn(move || send.send(confirm(&asks))).is_err() {
        return confirm(&question);
    }
    loop {
        match answer.recv_timeout(SIGNAL_CHECK) {
            Ok(yes) => return yes && !stop.is_stopped(),
            Err(RecvTimeoutError::Timeout) if !stop.is_stopped() => {}
            Err(_) => return false,
        }
    }
}
