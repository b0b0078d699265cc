//! `orphand explain`: every gate, its evidence, the verdict.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anstyle::AnsiColor;
use orphand::clock;
use orphand::decide::judge::{Answer, GATES, Reason, Verdict};
use orphand::decide::observation::Holder;
use orphand::decide::time::Wall;
use orphand::evidence::{self, Asker, FileId};
use orphand::json;
use orphand::look::{Dir, answer};
use orphand::pass::{self, Examined, Ground};
use orphand::reap::quarantine;
use orphand::root::{Root, absolute};
use orphand::state::Folders;
use serde_json::{Value, json};

use super::args::{Explain, Look};
use super::report::Report;
use super::scan::object;
use super::words;
use super::{Exit, Failure, Intent, list_writers, lossy, missing, no_answer, plan, text, tools};

pub(super) fn run(command: &Explain, look: &Look) -> Result<Exit, Failure> {
    if list_writers(&command.rule) {
        return Ok(Exit::Done);
    }
    let mut report = Report::new(look, Vec::new());
    let mut documents = Vec::new();
    let mut cannot_tell = false;
    for file in &command.files {
        let typed = command.rule.settings(None, None);
        let path = absolute(file);
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(Failure::new(Exit::Usage, format!("{file:?} is not a file")));
        };
        let plan = plan(&command.rule, typed, &[parent.to_owned()], Intent::Look)?;
        let Some(root) = plan.roots.first() else {
            continue;
        };
        if !answer::answers(&root.path) {
            return Err(Failure::new(Exit::Failed, no_answer(&root.path)));
        }
        if path.is_dir() && !path.is_symlink() {
            return Err(Failure::new(
                Exit::Usage,
                format!("{path:?} is a directory; to see what is in it: orphand scan {path:?}"),
            ));
        }
        let examined = examine(root, name)?;
        match examined {
            Some((examined, holders)) => {
                cannot_tell |= examined.verdict == Verdict::Keep(Reason::CannotTell);
                match look.json {
                    true => documents.push(document(root, &examined, &holders)),
                    false => print(&mut report, root, &examined, &holders)?,
                }
            }
            None => match (look.json, path.symlink_metadata()) {
                (_, Err(_)) => return Err(missing(&path)),
                (true, Ok(seen)) => documents.push(not_regular(root, &path, &seen)),
                (false, Ok(_)) => report.line(&format!(
                    "{}\nkeep: not-regular. It is no regular file, so it is never a temp.",
                    text::escaped(&path)
                ))?,
            },
        }
    }
    if look.json {
        report.line(&json!({"temps": documents}).to_string())?;
    }
    Ok(if cannot_tell {
        Exit::Partly
    } else {
        Exit::Done
    })
}

fn examine(
    root: &Root,
    name: &std::ffi::OsStr,
) -> Result<Option<(Examined, Vec<Holder>)>, Failure> {
    let tools = tools(&Folders::from_env(), false)?;
    let failed = |error: &dyn std::fmt::Display| {
        Failure::new(
            Exit::Failed,
            format!(
                "cannot look at \"{}\" in {:?}: {error}",
                lossy(name),
                root.path
            ),
        )
    };
    let dir = Dir::open_root(&root.path, None).map_err(|error| match error {
        orphand::look::RootError::Missing => missing(&root.path.join(name)),
        error => failed(&error),
    })?;
    let ground = Ground {
        root,
        id: None,
        below: Path::new(""),
    };
    let has_quarantine = quarantine::is_possible(&dir);
    let asker = Asker::new();
    let examined = pass::examine(&tools, ground, &dir, &asker, name, has_quarantine);
    let Some(examined) = examined.map_err(|error| failed(&error))? else {
        return Ok(None);
    };
    let holders = match examined.evidence.hold.is_held() {
        true => {
            let file = FileId::from(&examined.evidence.observation.fingerprint);
            evidence::census(&[file], dir.reach()).of(file)
        }
        false => Vec::new(),
    };
    Ok(Some((examined, holders)))
}

fn document(root: &Root, examined: &Examined, holders: &[Holder]) -> Value {
    let gate = |gate: &orphand::decide::judge::Gate| {
        let (passes, reason) = match gate.ask(&examined.evidence, &root.policy) {
            Answer::Pass => (true, None),
            Answer::Keep(reason) | Answer::Quarantine(reason) => (false, Some(reason.as_str())),
        };
        json!({
            "gate": gate.name,
            "passes": passes,
            "reason": reason,
            "evidence": gate.says(&examined.evidence),
        })
    };
    let gates: Vec<Value> = GATES.iter().map(gate).collect();
    object(examined)
        .with_path("root", Some(&root.path))
        .with_ms("grace_ms", Some(examined.suspect.grace))
        .with("grammar", examined.suspect.reading.grammar)
        .with("holders", json::holders(holders))
        .with("matches", matches(root, examined))
        .with("gates", gates)
        .into_value()
}

/// What is said of something that is never a temp: the same fields, as far as they have values.
fn not_regular(root: &Root, path: &Path, seen: &Metadata) -> Value {
    let newest = Wall {
        sec: seen.mtime().max(seen.ctime()),
        nsec: 0,
    };
    orphand::json::Object::default()
        .with_path("path", Some(path))
        .with("bytes", seen.len())
        .with_ms("quiet_ms", Some(clock::wall().since(newest)))
        .with("verdict", "keep")
        .with("reason", Reason::NotRegular.as_str())
        .with("target", Value::Null)
        .with("writer_pid", Value::Null)
        .with_path("root", Some(&root.path))
        .with("grace_ms", Value::Null)
        .with("grammar", Value::Null)
        .with("holders", json::holders(&[]))
        .with("matches", Value::Null)
        .with("gates", Vec::<Value>::new())
        .into_value()
}

fn matches(root: &Root, examined: &Examined) -> bool {
    root.policy.takes(Path::new(""), &examined.suspect.name)
}

fn print(
    report: &mut Report,
    root: &Root,
    examined: &Examined,
    holders: &[Holder],
) -> Result<(), Failure> {
    report.line(&text::escaped(&examined.path))?;
    let policy = &root.policy;
    if policy.exclude.excludes(Path::new(&examined.suspect.name)) {
        report.line(&format!(
            "the rule excludes it ({}): it is left alone",
            policy.exclude
        ))?;
    } else if !matches(root, examined) {
        let names = &policy.names;
        report.line(&format!(
            "its name is none that the rule takes ({names}): it is left alone"
        ))?;
    }
    for gate in GATES {
        let (mark, style) = match gate.ask(&examined.evidence, &root.policy) {
            Answer::Pass => ("passes", AnsiColor::Green.on_default()),
            Answer::Keep(_) => ("keeps", AnsiColor::Yellow.on_default()),
            Answer::Quarantine(_) => ("moves", AnsiColor::Cyan.on_default()),
        };
        let mark = report.paint(&format!("{mark:<6}"), style);
        report.line(&format!(
            "  {mark}  {:<30}  {}",
            gate.name,
            gate.says(&examined.evidence)
        ))?;
    }
    for holder in holders {
        let name = text::escaped(Path::new(&holder.name));
        report.line(&format!("  held by {name}[{}]", holder.pid))?;
    }
    let verdict = match examined.verdict {
        Verdict::Reap => "reap: nothing stands against removing it".to_owned(),
        Verdict::Keep(reason) => format!(
            "keep: {reason} ({})",
            words::kept(reason, "", None, &examined.details)
        ),
        Verdict::Quarantine(Some(reason)) => {
            format!(
                "quarantine: {reason} ({})",
                words::kept(reason, "", None, &examined.details)
            )
        }
        Verdict::Quarantine(None) => "quarantine".to_owned(),
    };
    report.line(&verdict)?;
    Ok(())
}
