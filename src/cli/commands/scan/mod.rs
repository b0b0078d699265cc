//! `orphand scan`: lists the temps in a directory, with the verdict that each of them would get now.

use std::path::PathBuf;

use crate::cli::exit::{Exit, Failure};
use crate::cli::options::{ListOptions, OutputOptions, PolicyOptions};
use crate::cli::output::event_printer::EventPrinter;
use crate::cli::output::writer_list::list_writers;
use crate::cli::runtime::plan::{Intent, given_or_listed};
use crate::cli::runtime::trees::tree_lines;
use crate::cli::wording;
use document::ScanDocument;
use search::{ScanResult, is_orphan};

mod document;
mod lines;
mod search;

#[derive(Debug, clap::Args)]
#[command(mut_args(wording::scan))]
pub(crate) struct Scan {
    #[command(flatten)]
    pub(crate) options: PolicyOptions,
    #[command(flatten)]
    pub(crate) list: ListOptions,
    /// Exit with 10 if there are orphans
    #[arg(long)]
    pub(crate) exit_code: bool,
    /// The directories; without any, those of the configuration file
    #[arg(value_name = "DIR")]
    pub(crate) dirs: Vec<PathBuf>,
}

pub(crate) fn run(command: &Scan, output: &OutputOptions) -> Result<Exit, Failure> {
    if list_writers(&command.options.rule, output)? {
        return Ok(Exit::Done);
    }
    // A scan changes nothing, so a dry run is ignored here: the verdicts are those of a real sweep.
    let typed = command.options.settings_without_dry_run();
    let plan = given_or_listed(&command.options.rule, typed, &command.dirs, Intent::Look)?;
    plan.report_rules(output);
    let mut report = EventPrinter::new(output, Vec::new()).for_roots(&plan.roots, &command.list);
    let mut result = ScanResult::default();
    for root in &plan.roots {
        result.scan(root, output)?;
    }
    result.find_learned(&plan.roots);
    let sums = result.sums(report.grouping());
    let groups = sums.groups();
    if command.list.print0 {
        lines::print_paths(&mut report, &result.rows)?;
    } else if output.json {
        report.json(&ScanDocument::new(&plan, &result, &groups))?;
    } else {
        match command.list.list || output.verbose > 0 {
            _ if output.quiet => {}
            true => lines::print_rows(&mut report, &result.rows)?,
            false => lines::print_groups(&mut report, &groups, &sums.sums)?,
        }
        if !output.quiet {
            for line in tree_lines(&result.trees) {
                report.line(&line)?;
            }
            for learned in &result.learned {
                report.line(&learned.line())?;
            }
        }
        if let Some(line) = lines::claims_line(command, &result) {
            report.line(&line)?;
        }
        if let Some(census) = result.census(&plan.roots).line().filter(|_| !output.quiet) {
            report.line(&census)?;
        }
        report.line(&lines::closing_line(command, &plan, &result))?;
    }
    if !output.quiet {
        for note in lines::narrower_patterns(&plan.roots, &result.rows) {
            anstream::eprintln!("note: {note}");
        }
    }
    let found = result.rows.iter().any(|row| is_orphan(&row.examined));
    Ok(match (result.is_partial(), found) {
        (true, _) => Exit::Partial,
        (false, true) if command.exit_code => Exit::Found,
        _ => Exit::Done,
    })
}
