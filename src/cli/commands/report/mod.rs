//! `orphand report`: who leaked how much, when, and what was done, from the journal.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use orphand::store::folders::Folders;
use orphand::store::journal::Journal;
use orphand::store::json::HistoryLine;
use orphand::store::regular_file;
use orphand::sys::clock;

use crate::cli::commands::history::Filter;
use crate::cli::commands::status::disk::DiskUsage;
use crate::cli::config::{Config, RuleSettings};
use crate::cli::exit::{Exit, Failure};
use crate::cli::options::OutputOptions;
use crate::cli::output::event_printer::EventPrinter;
use crate::cli::output::groups::Grouping;
use crate::cli::output::moment::{self, Moment};
use crate::cli::output::standard_streams::{print, write_fix};
use crate::cli::output::text;
use data::ReportData;

mod data;
mod document;
mod lines;
mod page;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  orphand report                            the last seven days
  orphand report --since yesterday ~/.app   one directory
  orphand report --html report.html         a page to attach to a bug report")]
pub(crate) struct Report {
    /// Only what happened since this time: 90m or 7d (ago), today, yesterday, 2026-11-28
    #[arg(long, value_name = "WHEN", value_parser = moment::parse, default_value = "7d")]
    since: Moment,
    /// Write a page for a browser to this file: one file, without scripts
    #[arg(long, value_name = "FILE", conflicts_with = "json")]
    html: Option<PathBuf>,
    /// Read this configuration file for the names of temps
    #[arg(long, value_name = "FILE", env = "ORPHAND_CONFIG")]
    config: Option<PathBuf>,
    /// Only what happened in these directories and below them
    #[arg(value_name = "DIR")]
    dirs: Vec<PathBuf>,
}

/// The disks of the roots, each with its usage if it answers.
type Disks = Vec<(PathBuf, Option<DiskUsage>)>;

/// The content of a report.
struct Content {
    data: ReportData,
    since: Timestamp,
    now: Timestamp,
    disks: Disks,
}

pub(crate) fn run(command: &Report, output: &OutputOptions) -> Result<Exit, Failure> {
    let journal = Journal::new(Folders::from_env().state.as_deref());
    let filter = Filter::new(Some(command.since), None, &command.dirs);
    let mut lines = Vec::new();
    let read = journal.outcomes(|line: HistoryLine| {
        if filter.matches(&line) {
            lines.push(line);
        }
    });
    read.map_err(|error| {
        let path = journal.path().unwrap_or(Path::new(""));
        let what = format!("cannot read the journal {path:?}: {error}");
        Failure::failed(what)
    })?;
    // The configuration is only needed for the shapes of names, so the report is printed without it too.
    let (config, config_error) = Config::load_or_default(command.config.as_deref());
    let roots = config.roots(&RuleSettings::default()).unwrap_or_default();
    let now = timestamp(clock::wall());
    let since = timestamp(command.since.wall());
    let data = ReportData::new(&lines, Some(since), now, &Grouping::new(&roots));
    let disk = |root: &PathBuf| (root.clone(), DiskUsage::of(root));
    let content = Content {
        disks: data.roots.iter().map(disk).collect(),
        data,
        since,
        now,
    };
    let mut report = EventPrinter::new(output);
    if let Some(file) = &command.html {
        write_page(file, &page::page(&content)).map_err(|error| {
            let fix = write_fix(&error, "a file in a folder");
            Failure::failed(format!("cannot write {file:?}: {error}; {fix}"))
        })?;
        if !output.quiet && !is_stdout(file) {
            report.line(&format!("wrote {}", text::escaped(file)))?;
        }
    } else if output.json {
        report.json(&document::document(&content))?;
    } else {
        for line in lines::lines(&content) {
            report.line(&line)?;
        }
    }
    match config_error {
        Some(error) => Err(error.into()),
        None => Ok(Exit::Done),
    }
}

/// Reports whether the page is to be written to stdout.
fn is_stdout(file: &Path) -> bool {
    file.as_os_str() == "-"
}

/// Writes the page to `file`. A regular file is replaced only when the new one is complete: the disk may be full.
fn write_page(file: &Path, page: &str) -> io::Result<()> {
    if is_stdout(file) {
        return print(page.as_bytes()).map(drop);
    }
    // A device or a FIFO is written to, and so is the file that a symlink leads to.
    if file.symlink_metadata().is_ok_and(|seen| !seen.is_file()) {
        return fs::write(file, page);
    }
    let mut new = file.as_os_str().to_owned();
    new.push(".new");
    // The umask decides who may read it.
    regular_file::replace(file, Path::new(&new), 0o666, |out| {
        out.write_all(page.as_bytes())
    })
}

fn timestamp(at: orphand::core::time::Wall) -> Timestamp {
    let nanos = i32::try_from(at.nsec).unwrap_or(0);
    Timestamp::new(at.sec, nanos).unwrap_or_default()
}

/// Formats a time of a report in the time zone of this machine.
fn local(at: Timestamp) -> String {
    let zoned = at.to_zoned(jiff::tz::TimeZone::system());
    zoned.strftime("%Y-%m-%d %H:%M").to_string()
}

/// Formats a time of the timeline: with seconds, if a step is shorter than a minute.
fn axis_time(content: &Content, at: Timestamp) -> String {
    match content.data.timeline.step {
        ..60 => {
            let zoned = at.to_zoned(jiff::tz::TimeZone::system());
            zoned.strftime("%Y-%m-%d %H:%M:%S").to_string()
        }
        _ => local(at),
    }
}
