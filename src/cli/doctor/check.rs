//! The result of one check, and the report of all checks.

use std::io;
use std::path::Path;

use anstyle::{AnsiColor, Style};
use orphand::store::json::{WirePath, field};
use rustix::io::Errno;
use serde::Serialize;

use crate::cli::options::OutputOptions;
use crate::cli::output::event_printer::EventPrinter;
use crate::cli::output::text;

/// The state of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum CheckState {
    /// Nothing to do.
    Ok,
    /// orphand works, but later, with less, or with a limit that the user should know.
    Warning,
    /// orphand does not work, or keeps everything.
    #[serde(rename = "trouble")]
    Error,
}

impl CheckState {
    /// Returns the state for people.
    fn label(self) -> &'static str {
        match self {
            CheckState::Ok => "ok",
            CheckState::Warning => "warning",
            CheckState::Error => "error",
        }
    }
}

/// One check of the report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Check {
    /// A short name, which is the same in all versions.
    #[serde(rename = "check")]
    pub(super) name: &'static str,
    /// The root that the check concerns; `None` for the machine.
    #[serde(flatten, with = "field::root")]
    root: WirePath<'static>,
    pub(super) state: CheckState,
    /// The finding with its measured value and, if something is wrong, the consequence.
    pub(super) what: String,
    /// The fix, line by line: commands to type, where they exist.
    #[serde(rename = "cure")]
    pub(super) fix: Option<String>,
}

/// The document of `doctor --json`.
#[derive(Debug, Serialize)]
struct Report {
    checks: Vec<Check>,
}

impl Check {
    fn new(
        name: &'static str,
        state: CheckState,
        what: impl Into<String>,
        fix: Option<String>,
    ) -> Check {
        Check {
            name,
            root: None,
            state,
            what: what.into(),
            fix,
        }
    }

    pub(super) fn ok(name: &'static str, what: impl Into<String>) -> Check {
        Check::new(name, CheckState::Ok, what, None)
    }

    pub(super) fn warning(
        name: &'static str,
        what: impl Into<String>,
        fix: impl Into<String>,
    ) -> Check {
        Check::new(name, CheckState::Warning, what, Some(fix.into()))
    }

    pub(super) fn error(
        name: &'static str,
        what: impl Into<String>,
        fix: impl Into<String>,
    ) -> Check {
        Check::new(name, CheckState::Error, what, Some(fix.into()))
    }

    /// Returns the same check for a root.
    pub(super) fn for_root(self, root: &Path) -> Check {
        Check {
            root: Some(root.to_owned().into()),
            ..self
        }
    }
}

/// Prints the checks. With `quiet`, those without a problem are left out.
pub(super) fn print_report(output: &OutputOptions, mut checks: Vec<Check>) -> io::Result<()> {
    let mut report = EventPrinter::new(output);
    checks.retain(|check| !output.quiet || check.state != CheckState::Ok);
    if output.json {
        return report.json(&Report { checks });
    }
    let mut about = &None;
    for check in &checks {
        if check.root != *about {
            about = &check.root;
            if let Some(root) = about {
                let root = text::escaped(root);
                report.line(&report.paint(&root, Style::new().bold()))?;
            }
        }
        for line in check_lines(check, |mark, style| report.paint(mark, style)) {
            report.line(&line)?;
        }
    }
    match output.quiet {
        true => Ok(()),
        false => report.line(&summary_line(&checks)),
    }
}

/// Returns the lines of a check: the finding, and below it the fix.
fn check_lines(check: &Check, paint: impl Fn(&str, Style) -> String) -> Vec<String> {
    let style = match check.state {
        CheckState::Ok => AnsiColor::Green,
        CheckState::Warning => AnsiColor::Yellow,
        CheckState::Error => AnsiColor::Red,
    };
    let mark = paint(&format!("{:<7}", check.state.label()), style.on_default());
    let mut what = check.what.lines();
    let first = what.next().unwrap_or_default();
    let mut lines = vec![format!("  {mark}  {:<17}  {first}", check.name)];
    lines.extend(what.map(|line| format!("{:30}{line}", "")));
    for (index, line) in check.fix.iter().flat_map(|fix| fix.lines()).enumerate() {
        let word = if index == 0 { "fix" } else { "" };
        lines.push(format!("{:11}{word:<17}  {line}", ""));
    }
    lines
}

fn summary_line(checks: &[Check]) -> String {
    let of = |state| checks.iter().filter(|check| check.state == state).count() as u64;
    let warnings = match of(CheckState::Warning) {
        0 => String::new(),
        number => format!("; {}", text::counted(number, "warning", "warnings")),
    };
    match of(CheckState::Error) {
        0 => format!("no problems found{warnings}"),
        number => format!(
            "{} found{warnings}",
            text::counted(number, "problem", "problems")
        ),
    }
}

/// Returns the text of an error of the system, without its number.
pub(super) fn error_text(error: Errno) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_is_always_present() {
        let fine = Check::ok("disk", "12 % full");
        assert_eq!(
            serde_json::to_string(&fine).unwrap(),
            r#"{"check":"disk","root":null,"state":"ok","what":"12 % full","cure":null}"#
        );
        let bad = Check::error("root", "gone", "mkdir x").for_root(Path::new("/x"));
        assert_eq!(
            serde_json::to_string(&bad).unwrap(),
            r#"{"check":"root","root":"/x","state":"trouble","what":"gone","cure":"mkdir x"}"#
        );
        assert!(CheckState::Ok < CheckState::Warning && CheckState::Warning < CheckState::Error);
    }

    #[test]
    fn a_check_has_its_fix_below_it() {
        let bad = Check::warning(
            "inotify-queue",
            "64 events: few",
            "now: sudo x\nfor good: y",
        );
        let lines = check_lines(&bad, |mark, _| format!("<{mark}>"));
        let want = [
            "  <warning>  inotify-queue      64 events: few",
            "           fix                now: sudo x",
            "                              for good: y",
        ];
        assert_eq!(lines, want);
    }

    #[test]
    fn the_last_line_counts_problems_and_warnings() {
        let fine = || Check::ok("a", "");
        let warned = || Check::warning("a", "", "");
        let bad = || Check::error("a", "", "");
        for (checks, want) in [
            (vec![fine()], "no problems found"),
            (vec![fine(), warned()], "no problems found; 1 warning"),
            (
                vec![bad(), warned(), warned()],
                "1 problem found; 2 warnings",
            ),
            (vec![bad(), bad()], "2 problems found"),
        ] {
            assert_eq!(summary_line(&checks), want);
        }
    }
}
