//! Time limits. Tests set them by environment variables.

use std::time::Duration;

use crate::cli::output::duration;
use crate::cli::variables;

/// Returns the limit for a call of launchctl or systemctl. Both wait for a watcher to end, which may take 20 s.
pub(super) fn call_limit() -> Duration {
    variable("ORPHAND_SERVICE_LIMIT", Duration::from_secs(30))
}

/// Returns the limit for the first answer of a started watcher.
pub(super) fn answer_limit() -> Duration {
    variable("ORPHAND_SERVICE_WAIT", Duration::from_secs(10))
}

fn variable(name: &str, default: Duration) -> Duration {
    let Some(text) = variables::value_of(name) else {
        return default;
    };
    duration::parse(&text.to_string_lossy()).unwrap_or_else(|error| {
        log::warn!("{name}: {error}");
        default
    })
}
