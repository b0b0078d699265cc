//! `orphand history`: prints the disposals that the journal records.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};

use orphand::store::folders::Folders;
use orphand::store::journal::Journal;
use orphand::store::json::{FileFields, HistoryEvent, HistoryLine};

use crate::cli::exit::{Exit, Failure};
use crate::cli::options::OutputOptions;
use crate::cli::output::event_printer::EventPrinter;
use crate::cli::output::moment::{self, Moment};
use crate::cli::output::text;
use crate::cli::runtime::dir_filter::DirFilter;

#[derive(Debug, clap::Args)]
pub(crate) struct History {
    /// Only the last N actions
    #[arg(short = 'n', value_name = "N", value_parser = number)]
    pub(crate) last: Option<usize>,
    /// Only actions since this time: 90m or 7d (ago), today, yesterday, 2026-11-28, 2026-11-28T09:30:00Z
    #[arg(long, value_name = "WHEN", value_parser = moment::parse)]
    pub(crate) since: Option<Moment>,
    /// Only actions until this time; a day means its beginning, at 00:00 local time
    #[arg(long, value_name = "WHEN", value_parser = moment::parse)]
    pub(crate) until: Option<Moment>,
    /// Only actions in these directories and below them
    #[arg(value_name = "DIR")]
    pub(crate) dirs: Vec<PathBuf>,
}

/// Parses a number of lines.
fn number(text: &str) -> Result<usize, String> {
    text.parse()
        .map_err(|_| "write a whole number, like 20".to_owned())
}

pub(crate) fn run(command: &History, output: &OutputOptions) -> Result<Exit, Failure> {
    let journal = Journal::new(Folders::from_env().state.as_deref());
    if let (Some(since), Some(until)) = (command.since, command.until)
        && since > until
    {
        return Err(Failure::new(
            Exit::Usage,
            "--since is later than --until, so no action can be between them; exchange the two (a duration counts back \
             from now)",
        ));
    }
    let filter = Filter::new(command.since, command.until, &command.dirs);
    let mut printer = HistoryPrinter {
        report: EventPrinter::new(output),
        json: output.json,
        actions: 0,
        freed: 0,
        result: Ok(()),
    };
    let mut matched = 0u64;
    let mut last = VecDeque::new();
    let read = journal.outcomes(|mut line: HistoryLine| {
        if line.event != HistoryEvent::Reaped {
            line.copy = None;
        }
        if !filter.matches(&line) {
            return;
        }
        matched += 1;
        match command.last {
            None => printer.print(&line),
            Some(most) => {
                last.push_back(line);
                while last.len() > most {
                    last.pop_front();
                }
            }
        }
    });
    last.iter().for_each(|line| printer.print(line));
    read.map_err(|error| {
        let path = journal.path().unwrap_or(Path::new(""));
        Failure::failed(format!("cannot read the journal {path:?}: {error}"))
    })?;
    printer.result?;
    if !output.json && !output.quiet {
        let sum = match printer.actions {
            0 if matched > 0 => format!(
                "{}, none of them shown (-n 0)",
                text::counted(matched, "action", "actions")
            ),
            0 => filter.nothing().to_owned(),
            actions => format!(
                "{}, {} freed",
                text::counted(actions, "action", "actions"),
                text::size(printer.freed)
            ),
        };
        printer.report.line(&sum)?;
    }
    Ok(Exit::Done)
}

/// Prints lines of the journal and counts them.
struct HistoryPrinter {
    report: EventPrinter,
    json: bool,
    actions: u64,
    /// The space on the disk that the removed files took, or their length where the journal has no more.
    freed: u64,
    /// The first error. Nothing is printed after it.
    result: io::Result<()>,
}

impl HistoryPrinter {
    fn print(&mut self, line: &HistoryLine) {
        if self.result.is_err() {
            return;
        }
        self.actions += 1;
        if line.event == HistoryEvent::Reaped {
            let freed = line.file.disk_bytes.or(line.file.bytes);
            self.freed = freed.unwrap_or(0).saturating_add(self.freed);
        }
        self.result = match self.json {
            true => self.report.json(line),
            false => self.report.line(&history_line(line)),
        };
    }
}

/// The filter for the lines of the journal.
pub(crate) struct Filter {
    /// Times in the format of the journal, which can be compared as text.
    since: Option<String>,
    until: Option<String>,
    dirs: DirFilter,
}

impl Filter {
    /// Returns the filter for what happened between two times in some directories.
    pub(crate) fn new(since: Option<Moment>, until: Option<Moment>, dirs: &[PathBuf]) -> Filter {
        let time = |moment: Moment| orphand::store::json::time(moment.wall());
        Filter {
            since: since.map(time),
            until: until.map(time),
            dirs: DirFilter::new(dirs),
        }
    }

    /// Returns the message for a journal of which no line matches.
    fn nothing(&self) -> &'static str {
        let is_timed = self.since.is_some() || self.until.is_some();
        match (self.dirs.matches_all(), is_timed) {
            (true, false) => "nothing has been removed or moved yet",
            (true, true) => "nothing was removed or moved in that time",
            (false, false) => "nothing was removed or moved there",
            (false, true) => "nothing was removed or moved there in that time",
        }
    }

    pub(crate) fn matches(&self, line: &HistoryLine) -> bool {
        let early = self.until.as_ref().is_some_and(|until| line.time > *until);
        let late = self.since.as_ref().is_some_and(|since| line.time < *since);
        !early && !late && self.is_in(&line.file)
    }

    /// Returns whether the file is in one of the directories. A file that was restored elsewhere still belongs to its
    /// old root, so the root is compared too.
    fn is_in(&self, file: &FileFields<'_>) -> bool {
        let mut paths = [&file.path, &file.root].into_iter().flatten();
        self.dirs.matches_all() || paths.any(|path| self.dirs.matches(path))
    }
}

fn history_line(line: &HistoryLine) -> String {
    let time = moment::local(&line.time, "%Y-%m-%d %H:%M:%S");
    let path = text::escaped(line.file.path.as_deref().unwrap_or(Path::new("")));
    let bytes = line.file.bytes.map(text::size).unwrap_or_default();
    let id = line.id.as_ref().map(|id| format!("  {id}"));
    let action = match line.event {
        HistoryEvent::Reaped => "removed",
        HistoryEvent::Quarantined => "moved",
        HistoryEvent::Restored => "restored",
        HistoryEvent::Purged => "purged",
    };
    format!(
        "{time}  {action:<8}  {bytes:>8}  {path}{}",
        id.unwrap_or_default()
    )
}
