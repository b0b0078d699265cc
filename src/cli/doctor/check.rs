//! What one check found: how it stands, the figure, and the cure.

use std::path::{Path, PathBuf};

use orphand::json::Object;
use rustix::io::Errno;
use serde_json::Value;

/// How something stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum CheckState {
    /// Nothing to do.
    Ok,
    /// orphand works, but later, with less, or with a limit that should be known.
    Warning,
    /// orphand does not work, or keeps everything.
    Error,
}

impl CheckState {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            CheckState::Ok => "ok",
            CheckState::Warning => "warning",
            CheckState::Error => "trouble",
        }
    }
}

/// One line of the report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Check {
    /// What was looked at: a short name that stays the same.
    pub(super) name: &'static str,
    /// The root that it is about; none where it is about the machine.
    pub(super) root: Option<PathBuf>,
    pub(super) state: CheckState,
    /// What was found, the figure with it; where something is wrong, also why that matters.
    pub(super) what: String,
    /// What to do, line by line: commands as they can be typed, as far as there is one.
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

    /// The same, of this root.
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

/// What the system said, without its number.
pub(super) fn error_text(error: Errno) -> String {
    let said = error.to_string();
    said.split(" (os error").next().unwrap_or(&said).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_is_always_there() {
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
