//! How long what is waited for may take. The variables are for tests.

use std::time::Duration;

use crate::cli::{duration, variables};

/// A call of launchctl or systemctl: both wait for a watcher that ends, which has 20 s.
pub(super) fn call_limit() -> Duration {
    variable("ORPHAND_SERVICE_LIMIT", Duration::from_secs(30))
}

/// Until a watcher that was started answers.
pub(super) fn answer_limit() -> Duration {
    variable("ORPHAND_SERVICE_WAIT", Duration::from_secs(10))
}

fn variable(name: &str, usual: Duration) -> Duration {
    let Some(text) = variables::set(name) else {
        return usual;
    };
    duration::parse(&text.to_string_lossy()).unwrap_or_else(|error| {
        log::warn!("{name}: {error}");
        usual
    })
}
