//! `orphand explain`: shows every gate with its evidence, and the verdict, for single files.

use std::ffi::OsStr;
use std::fs::Metadata;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anstyle::AnsiColor;
use orphand::core::judge::{GATES, GateResult, Reason, Verdict};
use orphand::core::observation::Holder;
use orphand::core::policy::Policy;
use orphand::core::time::Wall;
use orphand::engine::pass;
use orphand::engine::pass::{DirContext, Examined};
use orphand::evidence::{self, FileId, UseChecker};
use orphand::fs::dir::Dir;
use orphand::fs::response;
use orphand::fs::root::{Root, absolute};
use orphand::reap::quarantine;
use orphand::store::folders::Folders;
use orphand::store::json;
use orphand::sys::clock;
use serde_json::{Value, json};

use super::scan::{object, rule_object};
use crate::cli::config::RuleLocation;
use crate::cli::exit::{Exit, Failure};
use crate::cli::options::{OutputOptions, RuleOptions};
use crate::cli::output::event_printer::EventPrinter;
use crate::cli::output::messages;
use crate::cli::output::shell::Suggestion;
use crate::cli::output::text;
use crate::cli::output::text::escaped_name;
use crate::cli::output::writer_list::list_writers;
use crate::cli::runtime::engine::engine;
use crate::cli::runtime::plan::{Intent, Plan, missing, no_answer, plan};

#[derive(Debug, clap::Args)]
pub(crate) struct Explain {
    #[command(flatten)]
    pub(crate) rule: RuleOptions,
    /// Only show what would be done; explain never does more
    #[arg(short = 'n', long, hide = true)]
    pub(crate) dry_run: bool,
    /// The files
    #[arg(value_name = "FILE", required_unless_present = "writer")]
    pub(crate) files: Vec<PathBuf>,
}

pub(crate) fn run(command: &Explain, output: &OutputOptions) -> Result<Exit, Failure> {
    if list_writers(&command.rule)? {
        return Ok(Exit::Done);
    }
    let mut report = EventPrinter::new(output, Vec::new());
    let mut documents = Vec::new();
    let mut cannot_tell = false;
    for file in &command.files {
        let typed = command.rule.settings();
        let path = absolute(file);
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(Failure::new(Exit::Usage, format!("{file:?} is not a file")));
        };
        let plan = plan(&command.rule, typed, &[parent.to_owned()], Intent::Look)?;
        let Some(root) = plan.roots.first() else {
            continue;
        };
        if !response::responds(&root.path) {
            return Err(Failure::new(Exit::Failed, no_answer(&root.path)));
        }
        if path.is_dir() && !path.is_symlink() {
            let scan = command.rule.append_to(Suggestion::new("scan")).arg(&path);
            return Err(Failure::new(
                Exit::Usage,
                format!("{path:?} is a directory; to see what is in it: {scan}"),
            ));
        }
        let subject = Explained {
            path: &path,
            root,
            rule: plan.rule(root),
            rejection: rejection(&root.policy, name),
        };
        match examine(&subject, name)? {
            Some((examined, holders)) => {
                let cannot_be_told = examined.verdict == Verdict::Keep(Reason::CannotTell);
                cannot_tell |= cannot_be_told && subject.rejection.is_none();
                match output.json {
                    true => documents.push(document(&subject, &examined, &holders)),
                    false => {
                        print_head(&mut report, &subject, &plan)?;
                        print_gates(&mut report, &subject, &examined, &holders)?;
                    }
                }
            }
            None => {
                match (output.json, path.symlink_metadata()) {
                    (_, Err(_)) => return Err(missing(&path)),
                    (true, Ok(seen)) => documents.push(not_regular(&subject, &seen)),
                    (false, Ok(_)) => {
                        print_head(&mut report, &subject, &plan)?;
                        report.line(&match &subject.rejection {
                        Some(why) => format!("not a temp: {why}"),
                        None => "keep: not-regular (it is not a regular file, so it is never a temp)"
                            .to_owned(),
                    })?;
                    }
                }
            }
        }
    }
    if output.json {
        report.line(&json!({"temps": documents}).to_string())?;
    }
    Ok(if cannot_tell {
        Exit::Partial
    } else {
        Exit::Done
    })
}

/// A file to explain, with its root and rule.
struct Explained<'a> {
    path: &'a Path,
    /// Its directory.
    root: &'a Root,
    /// The `[[watch]]` rule that covers it.
    rule: Option<&'a RuleLocation>,
    /// The reason why the file is not a temp by the rule; `None` if it is a temp.
    rejection: Option<String>,
}

/// Returns the reason why a file of this name is not a temp by `policy`, or `None` if it is a temp.
fn rejection(policy: &Policy, name: &OsStr) -> Option<String> {
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

/// Prints the first lines: the file, and the rule by which it is judged.
fn print_head(
    report: &mut EventPrinter,
    subject: &Explained<'_>,
    plan: &Plan,
) -> Result<(), Failure> {
    report.line(&text::escaped(subject.path))?;
    match subject.rule {
        Some(rule) => {
            let root = text::escaped(&rule.root);
            report.line(&format!("by the [[watch]] rule for {root} at {rule}"))?;
        }
        None if !plan.config.watch.is_empty() => {
            report.line("by the [defaults], because no [[watch]] rule covers it")?;
        }
        None => {}
    }
    Ok(())
}

fn examine(
    subject: &Explained<'_>,
    name: &OsStr,
) -> Result<Option<(Examined, Vec<Holder>)>, Failure> {
    let root = subject.root;
    let engine = engine(&Folders::from_env(), false)?;
    let failed = |error: &dyn std::fmt::Display| {
        Failure::new(
            Exit::Failed,
            format!(
                "cannot examine \"{}\" in {:?}: {error}",
                escaped_name(name),
                root.path
            ),
        )
    };
    let dir = Dir::open_root(&root.path, None).map_err(|error| match error {
        orphand::fs::dir::RootError::Missing => missing(&root.path.join(name)),
        error => failed(&error),
    })?;
    let dir_context = DirContext {
        root,
        id: None,
        below: Path::new(""),
    };
    // A watcher has one quarantine for each rule, in the root of that rule.
    let has_quarantine = match subject.rule {
        Some(rule) => {
            Dir::open_root(&rule.root, None).is_ok_and(|dir| quarantine::is_possible(&dir))
        }
        None => quarantine::is_possible(&dir),
    };
    let use_checker = UseChecker::new();
    let examined = pass::judge_now(
        &engine,
        dir_context,
        &dir,
        &use_checker,
        name,
        has_quarantine,
    );
    let Some(examined) = examined.map_err(|error| failed(&error))? else {
        return Ok(None);
    };
    let holders = match examined.evidence.use_state.is_held() {
        true => {
            let file = FileId::from(&examined.evidence.observation.fingerprint);
            evidence::scan_processes(&[file], dir.lease_coverage()).holders_of(file)
        }
        false => Vec::new(),
    };
    Ok(Some((examined, holders)))
}

fn document(subject: &Explained<'_>, examined: &Examined, holders: &[Holder]) -> Value {
    let root = subject.root;
    let gate = |gate: &orphand::core::judge::Gate| {
        let (passes, reason) = match gate.check(&examined.evidence, &root.policy) {
            GateResult::Pass => (true, None),
            GateResult::Keep(reason) | GateResult::Quarantine(reason) => {
                (false, Some(reason.as_str()))
            }
        };
        json!({
            "gate": gate.name,
            "passes": passes,
            "reason": reason,
            "evidence": gate.describe(&examined.evidence),
        })
    };
    let gates: Vec<Value> = GATES.iter().map(gate).collect();
    let verdict = match subject.rejection {
        Some(_) => None,
        None => Some(examined.verdict),
    };
    object(examined, verdict, subject.rule)
        .with_path("root", Some(&root.path))
        .with_ms("grace_ms", Some(examined.temp_info.grace))
        .with("grammar", examined.temp_info.parsed.grammar)
        .with("holders", json::holders(holders))
        .with("matches", subject.rejection.is_none())
        .with("gates", gates)
        .into_value()
}

/// Returns the document of a file that is not regular and so is never a temp. It has the same fields as that of a temp.
fn not_regular(subject: &Explained<'_>, seen: &Metadata) -> Value {
    let verdict = match subject.rejection {
        Some(_) => None,
        None => Some(Verdict::Keep(Reason::NotRegular)),
    };
    let newest = Wall {
        sec: seen.mtime().max(seen.ctime()),
        nsec: 0,
    };
    orphand::store::json::Object::default()
        .with_path("path", Some(subject.path))
        .with("bytes", seen.len())
        .with("disk_bytes", seen.blocks().saturating_mul(512))
        .with_ms("quiet_ms", Some(clock::wall().since(newest)))
        .with("verdict", verdict.map(Verdict::as_str))
        .with(
            "reason",
            verdict.and_then(Verdict::reason).map(Reason::as_str),
        )
        .with("target", Value::Null)
        .with("writer_pid", Value::Null)
        .with("rule", rule_object(subject.rule))
        .with_path("root", Some(&subject.root.path))
        .with("grace_ms", Value::Null)
        .with("grammar", Value::Null)
        .with("holders", json::holders(&[]))
        .with("matches", subject.rejection.is_none())
        .with("gates", Vec::<Value>::new())
        .into_value()
}

fn print_gates(
    report: &mut EventPrinter,
    subject: &Explained<'_>,
    examined: &Examined,
    holders: &[Holder],
) -> Result<(), Failure> {
    let policy = &subject.root.policy;
    for gate in GATES {
        let (mark, style) = match gate.check(&examined.evidence, policy) {
            GateResult::Pass => ("passes", AnsiColor::Green.on_default()),
            GateResult::Keep(_) => ("keeps", AnsiColor::Yellow.on_default()),
            GateResult::Quarantine(_) => ("moves", AnsiColor::Cyan.on_default()),
        };
        let mark = report.paint(&format!("{mark:<6}"), style);
        report.line(&format!(
            "  {mark}  {:<30}  {}",
            gate.name,
            gate.describe(&examined.evidence)
        ))?;
    }
    for holder in holders {
        let name = text::escaped(Path::new(&holder.name));
        report.line(&format!("  held by {name}[{}]", holder.pid))?;
    }
    if let Some(why) = &subject.rejection {
        report.line(&format!("not a temp: {why}"))?;
        return Ok(());
    }
    let verdict = match examined.verdict {
        Verdict::Reap => "reap: every gate passes".to_owned(),
        Verdict::Keep(reason) => format!(
            "keep: {reason} ({})",
            messages::kept_line(&examined.path, reason, "", None, &examined.details)
        ),
        Verdict::Quarantine(Some(reason)) => {
            format!(
                "quarantine: {reason} ({})",
                messages::kept_line(&examined.path, reason, "", None, &examined.details)
            )
        }
        Verdict::Quarantine(None) => "quarantine".to_owned(),
    };
    report.line(&verdict)?;
    Ok(())
}
