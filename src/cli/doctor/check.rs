//! The result of one check: its state, the finding, and the fix.

use std::path::{Path, PathBuf};

use orphand::store::json::Object;
use rustix::io::Errno;
use serde_json::Value;

/// The state of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum CheckState {
    /// Nothing to do.
    Ok,
    /// orphand works, but later, with less, or with a limit that the user should know.
    Warning,
    /// orphand does not work, or keeps everything.
    Error,
}

impl CheckState {
    /// Returns the state as the JSON document has it.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            CheckState::Ok => "ok",
            CheckState::Warning => "warning",
            CheckState::Error => "trouble",
        }
    }

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
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Check {
    /// A short name, which is the same in all versions.
    pub(super) name: &'static str,
    /// The root that the check concerns; `None` for the machine.
    pub(super) root: Option<PathBuf>,
    pub(super) state: CheckState,
    /// The finding with its measured value and, if something is wrong, the consequence.
    pub(super) what: String,
    /// The fix, line by line: commands to type, where they exist.
    pub(super) fix: Option<String>,
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
            root: Some(root.to_owned()),
            ..self
        }
    }

    pub(super) fn into_json(self) -> Value {
        Object::default()
            .with("check", self.name)
            .with_path("root", self.root.as_deref())
            .with("state", self.state.as_str())
            .with("what", self.what)
            .with("cure", self.fix)
            .into_value()
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
        let fine = Check::ok("disk", "12 % full").into_json();
        assert_eq!(
            fine.to_string(),
            r#"{"check":"disk","root":null,"state":"ok","what":"12 % full","cure":null}"#
        );
        let bad = Check::error("root", "gone", "mkdir x")
            .for_root(Path::new("/x"))
            .into_json();
        assert_eq!(
            bad.to_string(),
            r#"{"check":"root","root":"/x","state":"trouble","what":"gone","cure":"mkdir x"}"#
        );
        assert!(CheckState::Ok < CheckState::Warning && CheckState::Warning < CheckState::Error);
    }
}
