//! `orphand history`: prints the disposals that the journal records.

use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};

use orphand::fs::root::absolute;
use orphand::store::folders::Folders;
use orphand::store::journal::Journal;
use serde_json::Value;

use crate::cli::exit::{Exit, Failure};
use crate::cli::options::OutputOptions;
use crate::cli::output::event_printer::EventPrinter;
use crate::cli::output::moment;
use crate::cli::output::moment::Moment;
use crate::cli::output::text;
use crate::cli::runtime::quarantines::path_of;

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

/// The events that are printed. Other lines of the journal are skipped.
const HISTORY_EVENTS: [&str; 4] = ["reaped", "quarantined", "restored", "purged"];

pub(crate) fn run(command: &History, output: &OutputOptions) -> Result<Exit, Failure> {
    let journal = Journal::new(Folders::from_env().state.as_deref());
    let mut report = EventPrinter::new(output, Vec::new());
    let filter = Filter::new(command);
    let mut chosen = VecDeque::new();
    let (mut printed, mut bytes, mut end) = (0u64, 0u64, Ok(()));
    let mut print = |object: &Value| {
        if end.is_err() {
            return;
        }
        printed += 1;
        if string_field(object, "event") == "reaped" {
            let freed = object.get("bytes").and_then(Value::as_u64);
            bytes = freed.unwrap_or(0).saturating_add(bytes);
        }
        end = match output.json {
            true => report.line(&object.to_string()),
            false => report.line(&history_line(object)),
        };
    };
    let read = journal.outcomes(|object| {
        if !filter.matches(&object) {
            return;
        }
        match command.last {
            None => print(&object),
            Some(most) => {
                chosen.push_back(object);
                while chosen.len() > most {
                    chosen.pop_front();
                }
            }
        }
    });
    chosen.iter().for_each(&mut print);
    read.map_err(|error| {
        let path = journal.path().unwrap_or(Path::new(""));
        Failure::new(
            Exit::Failed,
            format!("cannot read the journal {path:?}: {error}"),
        )
    })?;
    end?;
    if !output.json && !output.quiet {
        let sum = match printed {
            0 if filter.matches_all() => "nothing has been removed or moved yet".to_owned(),
            0 => "nothing was removed or moved there in that time".to_owned(),
            printed => format!(
                "{}, {} freed",
                text::counted(printed, "action", "actions"),
                text::size(bytes)
            ),
        };
        report.line(&sum)?;
    }
    Ok(Exit::Done)
}

/// The filter for the lines of the journal.
struct Filter {
    /// Times in the format of the journal, which can be compared as text.
    since: Option<String>,
    until: Option<String>,
    /// The directories, each as given and with symlinks resolved.
    dirs: Vec<PathBuf>,
}

impl Filter {
    fn new(command: &History) -> Filter {
        let time = |moment: Moment| orphand::store::json::time(moment.wall());
        let names = |dir: &PathBuf| {
            let real = fs::canonicalize(dir).ok();
            std::iter::once(absolute(dir)).chain(real)
        };
        Filter {
            since: command.since.map(time),
            until: command.until.map(time),
            dirs: command.dirs.iter().flat_map(names).collect(),
        }
    }

    fn matches_all(&self) -> bool {
        self.since.is_none() && self.until.is_none() && self.dirs.is_empty()
    }

    fn matches(&self, object: &Value) -> bool {
        let time = string_field(object, "time");
        let early = self.until.as_deref().is_some_and(|until| time > until);
        let late = self.since.as_deref().is_some_and(|since| time < since);
        HISTORY_EVENTS.contains(&string_field(object, "event"))
            && !early
            && !late
            && self.is_in(object)
    }

    /// Returns whether the line concerns one of the directories. A file that was restored elsewhere still belongs to its
    /// old root, so the root is compared too.
    fn is_in(&self, object: &Value) -> bool {
        let paths = ["path", "root"].map(|key| path_of(object, key));
        let below = |dir: &PathBuf| paths.iter().flatten().any(|path| path.starts_with(dir));
        self.dirs.is_empty() || self.dirs.iter().any(below)
    }
}

fn string_field<'v>(object: &'v Value, key: &str) -> &'v str {
    object.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn history_line(object: &Value) -> String {
    let word = |key: &str| string_field(object, key);
    let time = word("time").parse::<jiff::Timestamp>().map_or_else(
        |_| word("time").to_owned(),
        |time| {
            let zone = jiff::tz::TimeZone::system();
            time.to_zoned(zone)
                .strftime("%Y-%m-%d %H:%M:%S")
                .to_string()
        },
    );
    // The exact bytes, even if they are not UTF-8.
    let path = text::escaped(&path_of(object, "path").unwrap_or_default());
    let bytes = object
        .get("bytes")
        .and_then(Value::as_u64)
        .map(text::size)
        .unwrap_or_default();
    let id = match word("id") {
        "" => String::new(),
        id => format!("  {id}"),
    };
    let action = match word("event") {
        "reaped" => "removed",
        "quarantined" => "moved",
        event => event,
    };
    format!("{time}  {action:<8}  {bytes:>8}  {path}{id}")
}
