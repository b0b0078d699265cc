//! `orphand scan`: lists the temps in a directory, with the verdict that each of them would get now.

use std::path::PathBuf;

use crate::cli::exit::{Exit, Failure};
use crate::cli::options::{ListOptions, OutputOptions, PolicyOptions};
use crate::cli::output::event_printer::EventPrinter;
use crate::cli::output::writer_list::list_writers;
use crate::cli::runtime::plan::{Intent, given_or_listed};
use crate::cli::wording;
use dir_report::ScanContext;
use listing::Listing;
use narrower::Narrower;
use output::ScanOutput;
use result::ScanResult;
use search::Search;

mod dir_report;
mod document;
mod group;
mod lines;
mod listing;
mod narrower;
mod output;
mod result;
mod row;
mod search;
mod tally;

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
    let mut printer = EventPrinter::new(output).for_roots(&plan.roots, &command.list);
    let grouping = printer.grouping().clone();
    let narrower: Vec<Narrower> = plan.roots.iter().map(Narrower::new).collect();
    let context = ScanContext {
        plan: &plan,
        listing: Listing::new(command, output),
        grouping: &grouping,
        narrower: &narrower,
    };
    let mut out = ScanOutput::new(&mut printer, context.listing);
    let mut result = ScanResult::default();
    search::check_roots(&plan.roots)?;
    out.begin(&plan)?;
    let mut search = Search {
        context,
        result: &mut result,
        output,
    };
    for index in 0..plan.roots.len() {
        search.scan(index, &mut out)?;
    }
    result.find_learned(&plan.roots);
    result.count_stored(&plan.roots);
    match context.listing {
        Listing::Json => out.end_document(&result)?,
        Listing::Paths => out.end_listing()?,
        listing => {
            out.end_listing()?;
            if listing != Listing::Nothing {
                lines::print_findings(&mut printer, &result)?;
            }
            lines::print_end(command, &plan, &mut printer, &result)?;
        }
    }
    if !output.quiet {
        for note in narrower::notes(&narrower) {
            anstream::eprintln!("note: {note}");
        }
    }
    Ok(
        match (result.is_partial(), result.tally.total.orphans > 0) {
            (true, _) => Exit::Partial,
            (false, true) if command.exit_code => Exit::Found,
            _ => Exit::Done,
        },
    )
}
