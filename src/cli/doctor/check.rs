//! The result of one check: its state, the finding, and the fix.

use std::path::Path;

use orphand::store::json::{WirePath, field};
use rustix::io::Errno;
use serde::Serialize;

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
    pub(super) fn label(self) -> &'static str {
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
    pub(super) root: WirePath<'static>,
    pub(super) state: CheckState,
    /// The finding with its measured value and, if something is wrong, the consequence.
    pub(super) what: String,
    /// The fix, line by line: commands to type, where they exist.
    #[serde(rename = "cure")]
    pub(super) fix: Option<String>,
}

/// The document of `doctor --json`.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) checks: Vec<Check>,
}

impl Check {
    pub(super) fn ok(name: &'static str, what: impl Into<String>) -> Check {
        Check {
            name,
            root: None,
            state: CheckState::Ok,
            what: what.into(),
            fix: None,
        }
    }

    pub(super) fn warning(
        name: &'static str,
        what: impl Into<String>,
        fix: impl Into<String>,
    ) -> Check {
        Check {
            state: CheckState::Warning,
            fix: Some(fix.into()),
            ..Check::ok(name, what)
        }
    }

    pub(super) fn error(
        name: &'static str,
        what: impl Into<String>,
        fix: impl Into<String>,
    ) -> Check {
        Check {
            state: CheckState::Error,
            ..Check::warning(name, what, fix)
        }
    }

    /// Returns the same check for a root.
    pub(super) fn for_root(self, root: &Path) -> Check {
        Check {
            root: Some(root.to_owned().into()),
            ..self
        }
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
}
