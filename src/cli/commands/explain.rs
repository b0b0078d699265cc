//! `orphand explain`: shows every gate with its evidence, and the verdict, for single files.

use std::ffi::OsStr;
use std::fs::Metadata;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anstyle::AnsiColor;
use orphand::core::judge::{GATES, Gate, GateResult, Reason, Verdict, check_companion};
use orphand::core::learn::KnownShape;
use orphand::core::observation::Holder;
use orphand::core::own_names;
use orphand::core::policy::{Learn, Policy};
use orphand::core::process::{Process, Via};
use orphand::core::sort::sort_by;
use orphand::core::time::Wall;
use orphand::engine::groups::{self, Prediction};
use orphand::engine::{self, DirContext, Examined, ExaminedMember, ScannedDir, SharedChecks};
use orphand::evidence::siblings::Siblings;
use orphand::evidence::{self, FileId};
use orphand::fs::dir::{Buffer, Dir, RootError};
use orphand::fs::response;
use orphand::fs::root::{Root, absolute};
use orphand::reap::quarantine::{self, FOLDER, Quarantine};
use orphand::store::folders::Folders;
use orphand::store::json::{self, ProcessFields, WirePath, field};
use orphand::sys::clock;
use serde::Serialize;

use crate::cli::config::RuleLocation;
use crate::cli::exit::{Exit, Failure};
use crate::cli::options::{OutputOptions, RuleOptions};
use crate::cli::output::event_printer::EventPrinter;
use crate::cli::output::learned::LearnedFields;
use crate::cli::output::reasons::reason_and_hint;
use crate::cli::output::shell::Suggestion;
use crate::cli::output::temp_fields::TempFields;
use crate::cli::output::text;
use crate::cli::output::writer_list::list_writers;
use crate::cli::runtime::engine::{engine, known_shapes};
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
    let mut report = EventPrinter::new(output, Vec::new());
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
        let temps = explained.iter().map(Explained::fields).collect();
        report.json(&ExplainDocument { temps })?;
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

/// The JSON document.
#[derive(Serialize)]
struct ExplainDocument<'a> {
    temps: Vec<ExplainedFields<'a>>,
}

/// A file in the document. A file that is not regular has the same fields as a temp.
#[derive(Serialize)]
struct ExplainedFields<'a> {
    #[serde(flatten)]
    temp: TempFields<'a>,
    #[serde(flatten, with = "field::root")]
    root: WirePath<'a>,
    grace_ms: Option<u64>,
    grammar: Option<&'a str>,
    holders: &'a [Holder],
    process: Option<ProcessFields<'a>>,
    matches: bool,
    group: Option<GroupFields>,
    learned: Option<&'a LearnedFields>,
    gates: Vec<GateFields>,
}

/// The copies of the same target that decide whether a temp is needed.
#[derive(Serialize)]
struct GroupFields {
    in_place: usize,
    stored: usize,
    superseded: bool,
    best: Vec<String>,
}

impl From<&Prediction> for GroupFields {
    fn from(group: &Prediction) -> GroupFields {
        let best = group.best.iter().map(|path| path.to_string_lossy());
        GroupFields {
            in_place: group.superseded.len(),
            stored: group.stored,
            superseded: group.superseded.first() == Some(&true),
            best: best.map(Into::into).collect(),
        }
    }
}

#[derive(Serialize)]
struct GateFields {
    gate: &'static str,
    passes: bool,
    reason: Option<&'static str>,
    evidence: String,
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
        let facts = match examine(&root, plan.rule(&root), name)? {
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

    fn fields(&self) -> ExplainedFields<'_> {
        let rule = self.plan.rule(&self.root);
        let root = Some(self.root.path.as_path().into());
        let matches = self.rejection.is_none();
        match &self.facts {
            Facts::Regular(temp) => ExplainedFields {
                temp: TempFields::new(&temp.examined, self.verdict(), rule),
                root,
                grace_ms: Some(json::ms(temp.examined.temp_info.grace)),
                grammar: temp.examined.temp_info.parsed.grammar.as_deref(),
                holders: &temp.holders,
                process: temp.process.as_ref().map(Into::into),
                matches,
                group: temp.group.as_ref().map(GroupFields::from),
                learned: temp.learned.as_ref(),
                gates: GATES
                    .iter()
                    .map(|gate| self.gate(gate, &temp.examined))
                    .collect(),
            },
            Facts::NotRegular(seen) => ExplainedFields {
                temp: TempFields {
                    path: Some(self.path.as_path().into()),
                    bytes: seen.len(),
                    disk_bytes: seen.blocks().saturating_mul(512),
                    quiet_ms: json::ms(clock::wall().since(newest_date(seen))),
                    verdict: self.verdict().into(),
                    target: None,
                    writer_pid: None,
                    writer: None,
                    set: None,
                    set_b64: None,
                    rule: rule.map(Into::into),
                },
                root,
                grace_ms: None,
                grammar: None,
                holders: &[],
                process: None,
                group: None,
                learned: None,
                matches,
                gates: Vec::new(),
            },
        }
    }

    fn gate(&self, gate: &Gate, examined: &Examined) -> GateFields {
        let reason = match gate.check(&examined.evidence, &self.root.policy) {
            GateResult::Pass => None,
            GateResult::Keep(reason) | GateResult::Quarantine(reason) => Some(reason.as_str()),
        };
        GateFields {
            gate: gate.name,
            passes: reason.is_none(),
            reason,
            evidence: gate.describe(&examined.evidence),
        }
    }

    /// Prints the file, its rule, each gate, and the verdict.
    fn print(&self, report: &mut EventPrinter) -> Result<(), Failure> {
        report.line(&text::escaped(&self.path))?;
        match self.plan.rule(&self.root) {
            Some(rule) => {
                let root = text::escaped(&rule.root);
                report.line(&format!("by the [[watch]] rule for {root} at {rule}"))?;
            }
            None if !self.plan.config.watch.is_empty() => {
                report.line("by the [defaults], because no [[watch]] rule covers it")?;
            }
            None => {}
        }
        if let Facts::Regular(temp) = &self.facts {
            let parsed = &temp.examined.temp_info.parsed;
            if let (Some(writer), Some(grammar)) = (&parsed.writer, &parsed.grammar) {
                report.line(&format!("a temp of the writer {}: {grammar}", writer.name))?;
            }
            if let Some(learned) = &temp.learned {
                report.line(&format!("a learned shape: {}", learned.line()))?;
            }
            self.print_gates(report, &temp.examined)?;
            if let Some(group) = &temp.group {
                report.line(&group_line(group))?;
            }
            if let Some(process) = &temp.process {
                report.line(&process_line(process))?;
            }
            for holder in &temp.holders {
                let name = text::escaped(Path::new(&holder.name));
                report.line(&format!("  held by {name}[{}]", holder.pid))?;
            }
        }
        let verdict = match (&self.rejection, &self.facts) {
            (Some(why), _) => format!("not a temp: {why}"),
            (None, Facts::Regular(temp)) => verdict_line(&temp.examined),
            (None, Facts::NotRegular(_)) => {
                "keep: not-regular (it is not a regular file, so it is never a temp)".to_owned()
            }
        };
        report.line(&verdict)?;
        Ok(())
    }

    fn print_gates(&self, report: &mut EventPrinter, examined: &Examined) -> Result<(), Failure> {
        for gate in GATES {
            let (mark, style) = match gate.check(&examined.evidence, &self.root.policy) {
                GateResult::Pass => ("passes", AnsiColor::Green.on_default()),
                GateResult::Keep(_) => ("keeps", AnsiColor::Yellow.on_default()),
                GateResult::Quarantine(_) => ("moves", AnsiColor::Cyan.on_default()),
            };
            let mark = report.paint(&format!("{mark:<6}"), style);
            let evidence = gate.describe(&examined.evidence);
            report.line(&format!("  {mark}  {:<30}  {evidence}", gate.name))?;
        }
        for companion in &examined.companions {
            report.line(&self.companion_line(companion))?;
        }
        Ok(())
    }
}

impl Explained {
    /// Returns the line about a companion, with the first gate that it does not pass.
    fn companion_line(&self, companion: &ExaminedMember) -> String {
        let policy = &self.root.policy;
        let passes =
            |gate: &&Gate| check_companion(gate, &companion.evidence, policy) == GateResult::Pass;
        let failed = GATES.iter().find(|gate| !passes(gate));
        let result = failed.map_or_else(
            || "passes every gate".to_owned(),
            |gate| format!("{}: {}", gate.name, gate.describe(&companion.evidence)),
        );
        let path = text::escaped(&companion.path);
        format!("  its companion {path}, which shares its fate: {result}")
    }
}

/// Returns the newest date of a file, in whole seconds.
fn newest_date(seen: &Metadata) -> Wall {
    Wall {
        sec: seen.mtime().max(seen.ctime()),
        nsec: 0,
    }
}

/// Returns the line about the process of a temp: `  process: node[4711], /usr/bin/node, in openclaw.service; it holds
/// the temp`.
fn process_line(process: &Process) -> String {
    let name = process.name.as_deref().unwrap_or("unknown");
    let mut parts = vec![format!(
        "{}[{}]",
        text::escaped(Path::new(name)),
        process.pid
    )];
    parts.extend(process.exe.as_deref().map(text::escaped));
    let unit = process.unit.as_deref().map(Path::new);
    parts.extend(unit.map(|unit| format!("in {}", text::escaped(unit))));
    let how = match process.via {
        Via::Name => "its pid is in the name",
        Via::Holder => "it holds the temp",
    };
    format!("  process: {}; {how}", parts.join(", "))
}

/// Returns the line about the group of a temp.
fn group_line(group: &Prediction) -> String {
    const SHOWN: usize = 3;
    let mut best: Vec<String> = group
        .best
        .iter()
        .take(SHOWN)
        .map(|path| text::escaped(path))
        .collect();
    if group.best.len() > SHOWN {
        best.push(format!("and {} more", group.best.len() - SHOWN));
    }
    let this = match group.superseded.first() {
        Some(true) => "this one is superseded: at least 3 of them are later and have as much data",
        _ => "this one is needed: fewer than 3 of the others are later and have as much data",
    };
    format!(
        "  its group: {} here and {} in the quarantine, with the same target and owner; {this}\n  needed copies: {}",
        text::counted(group.superseded.len() as u64, "temp", "temps"),
        group.stored,
        best.join(", ")
    )
}

/// Returns the processes that use a temp or its companions.
fn holders_of(dir: &Dir, examined: &Examined) -> Vec<Holder> {
    let companions = examined.companions.iter().map(|member| &member.evidence);
    let all = std::iter::once(&examined.evidence).chain(companions);
    let held = all.filter(|evidence| evidence.use_state.is_held());
    let held: Vec<FileId> = held
        .map(|evidence| FileId::from(&evidence.observation.fingerprint))
        .collect();
    if held.is_empty() {
        return Vec::new();
    }
    let scan = evidence::scan_processes(&held, dir.lease_coverage());
    let mut holders: Vec<Holder> = held
        .iter()
        .flat_map(|file| scan.holders_of(*file))
        .collect();
    sort_by(&mut holders, Ord::cmp);
    holders.dedup();
    holders
}

fn verdict_line(examined: &Examined) -> String {
    let because = |reason| {
        let (text, hint) = reason_and_hint(examined, reason);
        format!("{reason} ({text}){hint}")
    };
    match examined.verdict {
        Verdict::Reap => "reap: every gate passes".to_owned(),
        Verdict::Keep(reason) => format!("keep: {}", because(reason)),
        Verdict::Quarantine(Some(reason)) => format!("quarantine: {}", because(reason)),
        Verdict::Quarantine(None) => "quarantine".to_owned(),
    }
}

fn examine(
    root: &Root,
    rule: Option<&RuleLocation>,
    name: &OsStr,
) -> Result<Option<Facts>, Failure> {
    let folders = Folders::from_env();
    let engine = engine(&folders, false);
    let failed = |error: &dyn std::fmt::Display| {
        let (name, root) = (text::escaped(Path::new(name)), &root.path);
        let what = format!("cannot examine \"{name}\" in {root:?}: {error}");
        Failure::failed(what)
    };
    let dir = Dir::open_root(&root.path, None).map_err(|error| match error {
        RootError::Missing => missing(&root.path.join(name)),
        error => failed(&error),
    })?;
    let root = &*engine.shapes.root_in(root, &dir);
    let dir_context = DirContext {
        root,
        id: None,
        below: Path::new(""),
    };
    // A watcher has one quarantine for each rule, in the root of that rule.
    let has_quarantine = match rule {
        Some(rule) => {
            Dir::open_root(&rule.root, None).is_ok_and(|dir| quarantine::is_possible(&dir))
        }
        None => quarantine::is_possible(&dir),
    };
    let checks = SharedChecks::default();
    let siblings = Siblings::of_dir(&dir, &root.policy.names).map_err(|error| failed(&error))?;
    let scanned = ScannedDir::new(&engine, &dir, dir_context, siblings, has_quarantine);
    let judge = |name: &OsStr| engine::judge_now(&engine, &scanned, &checks, name);
    let examined = judge(name);
    let Some(examined) = examined.map_err(|error| failed(&error))? else {
        return Ok(None);
    };
    let mut members = vec![examined];
    let names = &root.policy.names;
    let uid = members[0].evidence.observation.fingerprint.uid;
    let group_of = |name: &OsStr| names.group_of(name, uid);
    if let Some(target) = group_of(name) {
        let mut names = Vec::new();
        let mut add = |other: &OsStr, _| {
            if other != name && group_of(other).as_ref() == Some(&target) {
                names.push(other.to_owned());
            }
            true
        };
        dir.read_while(&mut Buffer::default(), &mut add)
            .map_err(|error| failed(&error))?;
        for other in names {
            // A file that disappears is no copy.
            members.extend(judge(&other).ok().flatten());
        }
    }
    // The copies are in the quarantine of the rule's root.
    let mut owner = root.clone();
    let below = rule.and_then(|rule| root.path.strip_prefix(&rule.root).ok());
    if let (Some(rule), Some(_)) = (rule, below) {
        owner.path.clone_from(&rule.root);
    }
    let dir_context = DirContext {
        root: &owner,
        id: None,
        below: below.unwrap_or(Path::new("")),
    };
    let quarantine = Quarantine::open_existing(&owner.path, None).ok().flatten();
    // The quarantine records which directory below the root a copy comes from.
    let below_owner = Dir::open_below(&owner.path, None, dir_context.below);
    let below_owner = below_owner.as_ref().unwrap_or(&dir);
    let group = groups::judge_groups(dir_context, below_owner, quarantine.as_ref(), &mut members);
    let examined = members.swap_remove(0);
    let holders = holders_of(&dir, &examined);
    let file = &examined.evidence.observation.fingerprint;
    let uid = file.uid;
    let pid = examined.temp_info.parsed.pid;
    if let Some(pid) = pid {
        engine.writers.learn(pid, file.uid);
    }
    let holder = engine.writers.holder_of(FileId::from(file), &holders);
    let process = holder.or_else(|| engine.writers.process_of(FileId::from(file), pid));
    let known = known_shapes(&folders);
    let known = known.fitting(dir.id().into(), name.as_bytes());
    let is_used =
        |known: &&KnownShape| known.shape.place.owner == uid && root.policy.learn != Learn::Off;
    let known = known.filter(is_used);
    let temp = ExaminedTemp {
        examined,
        holders,
        process,
        group,
        learned: known.map(|known| LearnedFields::new(&root.policy, known)),
    };
    Ok(Some(Facts::Regular(Box::new(temp))))
}
