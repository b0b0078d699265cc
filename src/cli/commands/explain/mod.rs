//! `orphand explain`: shows every gate with its evidence, and the verdict, for single files.

mod document;
mod examine;
mod lines;

use std::ffi::OsStr;
use std::fs::Metadata;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use orphand::core::judge::{Reason, Verdict};
use orphand::core::observation::Holder;
use orphand::core::own_names;
use orphand::core::policy::{Learn, Policy};
use orphand::core::process::Process;
use orphand::engine::Examined;
use orphand::engine::groups::Prediction;
use orphand::fs::response;
use orphand::fs::root::{Root, absolute};
use orphand::reap::quarantine::FOLDER;

use self::document::ExplainDocument;
use crate::cli::exit::{Exit, Failure};
use crate::cli::options::{OutputOptions, RuleOptions};
use crate::cli::output::event_printer::EventPrinter;
use crate::cli::output::learned::LearnedFields;
use crate::cli::output::shell::Suggestion;
use crate::cli::output::text;
use crate::cli::output::writer_list::list_writers;
use crate::cli::runtime::plan::{Intent, Plan, missing, no_answer, plan};
use crate::cli::wording;

#[derive(Debug, clap::Args)]
#[command(mut_args(wording::explain))]
pub(crate) struct Explain {
    #[command(flatten)]
    pub(crate) rule: RuleOptions,
    /// Only show what would be done; explain never does more
    #[arg(short = 'n', long, hide = true)]
    pub(crate) dry_run: bool,
    /// The files
    #[arg(value_name = "FILE", required_unless_present = "writers")]
    pub(crate) files: Vec<PathBuf>,
}

pub(crate) fn run(command: &Explain, output: &OutputOptions) -> Result<Exit, Failure> {
    if list_writers(&command.rule, output)? {
        return Ok(Exit::Done);
    }
    let mut report = EventPrinter::new(output);
    let mut explained = Vec::new();
    let mut failures: Vec<Failure> = Vec::new();
    for file in &command.files {
        match Explained::new(&command.rule, file) {
            Ok(file) => {
                if !output.json {
                    file.print(&mut report)?;
                }
                explained.push(file);
            }
            // A mistake in the configuration concerns all files.
            Err(failure) if command.files.len() == 1 || failure.exit == Exit::Config => {
                return Err(failure);
            }
            Err(failure) => {
                if failures.iter().all(|known| known.text != failure.text) {
                    failure.report();
                }
                failures.push(failure);
            }
        }
    }
    if output.json && !explained.is_empty() {
        report.json(&ExplainDocument::new(&explained))?;
    }
    let cannot_tell = |file: &Explained| file.verdict() == Some(Verdict::Keep(Reason::CannotTell));
    let is_wrong_usage = |failure: &Failure| failure.exit == Exit::Usage;
    Ok(match failures.first() {
        Some(_) if failures.iter().any(is_wrong_usage) => Exit::Usage,
        Some(failure) => failure.exit,
        None if explained.iter().any(cannot_tell) => Exit::Partial,
        None => Exit::Done,
    })
}

/// Returns the reason why the file `name` in the directory `dir` is not a temp by `policy`, or `None` if it is a temp.
fn rejection(policy: &Policy, dir: &Path, name: &OsStr) -> Option<String> {
    let is_quarantine = |dir: &&Path| dir.file_name() == Some(OsStr::new(FOLDER));
    if let Some(root) = dir.ancestors().find(is_quarantine).and_then(Path::parent) {
        let list = Suggestion::new("quarantine list").configured().arg(root);
        return Some(format!(
            "it is in a quarantine; to see its id, by which it can be restored: {list}"
        ));
    }
    if own_names::is_claim(Path::new(name)) {
        let text = "it is the claim of an unfinished removal; the next watch or sweep gives the file its name back";
        return Some(text.to_owned());
    }
    if let Some(main) = main_of_companion(policy, dir, name) {
        let explain = Suggestion::new("explain").configured().arg(&main);
        return Some(format!(
            "it is a companion of {}, and is removed, moved or kept with it; to see what is done: {explain}",
            text::escaped(&main)
        ));
    }
    if !policy.names.matches(name.as_bytes()) {
        let names = policy.names.to_string();
        let but = match name.as_bytes().ends_with(b".tmp") && names.contains("*.tmp") {
            true => " (*.tmp excludes .syncthing.*.tmp, <digits>.tmp and .tmp)",
            false => "",
        };
        return Some(format!("its name does not match {names}{but}"));
    }
    let glob = policy.exclude.glob(Path::new(name))?;
    Some(format!("excluded by {glob}"))
}

/// Returns the temp beside the file `name` in `dir` of which the file is a companion.
fn main_of_companion(policy: &Policy, dir: &Path, name: &OsStr) -> Option<PathBuf> {
    let is_temp = |temp: &&OsStr| policy.names.matches(temp.as_bytes());
    let mains = policy.names.temps_of(name).filter(is_temp);
    let mut paths = mains.map(|temp| dir.join(temp));
    paths.find(|path| path.symlink_metadata().is_ok_and(|seen| seen.is_file()))
}

/// Returns what a watch does with a file that the rule does not match but a learned shape does.
fn by_watch(policy: &Policy, facts: &Facts) -> Option<&'static str> {
    let Facts::Regular(temp) = facts else {
        return None;
    };
    let is_well = temp.learned.as_ref()?.learned_well;
    (is_well && policy.learn == Learn::Take).then_some(
        "by the learned shape, a watch moves it to the quarantine if it saw the file's creation; a sweep never does, \
         because it saw none",
    )
}

/// An explained file, with its rule.
struct Explained {
    path: PathBuf,
    plan: Plan,
    /// Its directory.
    root: Root,
    /// The reason why the file is not a temp by the rule; `None` if it is a temp.
    rejection: Option<String>,
    facts: Facts,
}

/// The facts about a file.
enum Facts {
    Regular(Box<ExaminedTemp>),
    /// It is not a regular file, so it is never a temp.
    NotRegular(Metadata),
}

struct ExaminedTemp {
    examined: Examined,
    holders: Vec<Holder>,
    /// The process that holds it, or whose pid is in its name.
    process: Option<Process>,
    /// The group that decides whether it is needed.
    group: Option<Prediction>,
    /// The known shape that its name fits.
    learned: Option<LearnedFields>,
}

impl Explained {
    fn new(rule: &RuleOptions, file: &Path) -> Result<Explained, Failure> {
        let path = absolute(file);
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(Failure::new(Exit::Usage, format!("{file:?} is not a file")));
        };
        let plan = plan(rule, rule.settings(), &[parent.to_owned()], Intent::Look)?;
        let root = plan.roots.first().cloned().ok_or_else(|| missing(parent))?;
        if !response::responds(&root.path) {
            return Err(Failure::failed(no_answer(&root.path)));
        }
        if path.is_dir() && !path.is_symlink() {
            let scan = rule.append_to(Suggestion::new("scan")).arg(&path);
            return Err(Failure::new(
                Exit::Usage,
                format!("{path:?} is a directory; to see what is in it: {scan}"),
            ));
        }
        let facts = match examine::examine(&root, plan.rule(&root), name)? {
            Some(facts) => facts,
            None => Facts::NotRegular(path.symlink_metadata().map_err(|_| missing(&path))?),
        };
        Ok(Explained {
            rejection: rejection(&root.policy, parent, name).map(|why| {
                match by_watch(&root.policy, &facts) {
                    Some(watch) => format!("{why}; {watch}"),
                    None => why,
                }
            }),
            path,
            plan,
            root,
            facts,
        })
    }

    /// Returns the verdict. A file that is not a temp has none.
    fn verdict(&self) -> Option<Verdict> {
        match (&self.rejection, &self.facts) {
            (Some(_), _) => None,
            (None, Facts::Regular(temp)) => Some(temp.examined.verdict),
            (None, Facts::NotRegular(_)) => Some(Verdict::Keep(Reason::NotRegular)),
        }
    }
}
