//! The temps that a killed orphand left under the names of their removal.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use orphand::fs::dir::Dir;
use orphand::fs::root::Root;
use serde::Serialize;

use crate::cli::output::shell::Suggestion;
use crate::cli::output::text;

/// The temps that still have the name of a claim, because the orphand that was removing them was killed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct FoundClaims {
    #[serde(rename = "count")]
    pub(crate) files: u64,
    pub(crate) bytes: u64,
}

/// The minimum age of a claim that is counted. A claim of a running orphand lasts a few milliseconds.
const CLAIM_IN_PROGRESS: Duration = Duration::from_millis(250);

impl FoundClaims {
    /// Counts the claims in `found` that still exist after a pause. `found` has the folders below the root, and the
    /// names in them.
    pub(crate) fn still_present(root: &Root, found: &[(PathBuf, OsString)]) -> FoundClaims {
        if !found.is_empty() {
            std::thread::sleep(CLAIM_IN_PROGRESS);
        }
        let mut claims = FoundClaims::default();
        for (below, name) in found {
            let dir = Dir::open_below(&root.path, None, below);
            if let Some(seen) = dir.ok().and_then(|dir| dir.observe(name).ok()?) {
                claims.files += 1;
                claims.bytes = seen.fingerprint.size.saturating_add(claims.bytes);
            }
        }
        claims
    }

    /// Returns the sum of both counts.
    pub(crate) fn plus(self, more: FoundClaims) -> FoundClaims {
        FoundClaims {
            files: self.files + more.files,
            bytes: self.bytes.saturating_add(more.bytes),
        }
    }

    /// Returns the count of claims, for people.
    pub(crate) fn describe(self) -> String {
        let (files, size) = (
            text::counted(self.files, "temp", "temps"),
            text::size(self.bytes),
        );
        let (have, they_were) = match self.files {
            1 => ("has", "it was"),
            _ => ("have", "they were"),
        };
        format!(
            "{files} ({size}) still {have} the name .orphand-… of an unfinished removal: {they_were} being removed when \
             orphand was killed"
        )
    }
}

/// Returns the command that gives the claims in a root their original names. `root` has the configured rule.
pub(crate) fn put_back_command(root: &Root) -> String {
    Suggestion::new("sweep")
        .flag("-r", root.policy.recursive)
        .configured()
        .arg(&root.path)
        .to_string()
}
