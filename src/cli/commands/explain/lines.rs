//! The lines of `orphand explain`.

use std::path::Path;

use anstyle::AnsiColor;
use orphand::core::judge::{GATES, Gate, GateResult, Verdict, check_companion};
use orphand::core::process::{Process, Via};
use orphand::engine::groups::Prediction;
use orphand::engine::{Examined, ExaminedMember};

use super::{ExaminedTemp, Explained, Facts};
use crate::cli::exit::Failure;
use crate::cli::output::event_printer::EventPrinter;
use crate::cli::output::reasons::reason_and_hint;
use crate::cli::output::text;

impl Explained {
    /// Prints the file, its rule, each gate, and the verdict.
    pub(super) fn print(&self, report: &mut EventPrinter) -> Result<(), Failure> {
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
            if let Some(line) = target_line(&temp.examined) {
                report.line(&line)?;
            }
            self.print_gates(report, &temp.examined)?;
            if let Some(group) = &temp.group {
                report.line(&group_line(group))?;
            }
            if let Some(process) = &temp.process {
                report.line(&process_line(process))?;
            }
            let shown = temp.process.as_ref().map(|process| process.pid);
            for holder in temp.holders.iter().filter(|one| Some(one.pid) != shown) {
                let holder = text::process(&holder.name, holder.pid);
                report.line(&format!("  held by {holder}"))?;
            }
        }
        let verdict = match (&self.rejection, &self.facts) {
            (Some(why), _) => format!("not a temp: {why}"),
            (None, Facts::Regular(temp)) => verdict_line(temp),
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
                GateResult::Allow(_) => ("allows", AnsiColor::Magenta.on_default()),
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

    /// Returns the line about a companion, with the first gate that it does not pass.
    fn companion_line(&self, companion: &ExaminedMember) -> String {
        let policy = &self.root.policy;
        let passes = |gate: &&Gate| check_companion(gate, &companion.evidence, policy).passes();
        let failed = GATES.iter().find(|gate| !passes(gate));
        let result = failed.map_or_else(
            || "passes every gate".to_owned(),
            |gate| format!("{}: {}", gate.name, gate.describe(&companion.evidence)),
        );
        let path = text::escaped(&companion.path);
        format!("  its companion {path}, which shares its fate: {result}")
    }
}

fn verdict_line(temp: &ExaminedTemp) -> String {
    let examined = &temp.examined;
    let because = |reason| {
        let (text, hint) = reason_and_hint(examined, &temp.holders, reason);
        format!("{reason} ({text}){hint}")
    };
    match examined.verdict {
        Verdict::Reap => "reap: every gate passes".to_owned(),
        Verdict::Keep(reason) => format!("keep: {}", because(reason)),
        Verdict::Quarantine(Some(reason)) => format!("quarantine: {}", because(reason)),
        Verdict::Quarantine(None) => "quarantine".to_owned(),
    }
}

/// Returns the line about the target of a temp, if it is known.
fn target_line(examined: &Examined) -> Option<String> {
    let target = examined.target.as_ref()?;
    let path = text::escaped(target);
    Some(match target.symlink_metadata() {
        Ok(seen) if seen.is_file() => format!("its target: {path}, {}", text::size(seen.len())),
        Ok(_) => format!("its target: {path}"),
        Err(_) => format!("its target: {path}, which does not exist"),
    })
}

/// Returns the line about the process of a temp: `  process: node[4711], /usr/bin/node, in openclaw.service; it holds
/// the temp`.
fn process_line(process: &Process) -> String {
    let name = process.name.as_deref().unwrap_or("unknown");
    let mut parts = vec![text::process(name, process.pid)];
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
