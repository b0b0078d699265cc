//! The answer of a watcher to `orphand status`: one JSON object.

use orphand::core::leaks::{Leak, LeakSource, LeakSum, SPAN};
use orphand::daemon::RootStatus;
use orphand::store::json;
use orphand::store::json::Object;
use serde_json::Value;

use crate::cli::output::watch_status::{WatchStatus, leak_line, state};

/// Returns the answer for the state in `status`.
pub(crate) fn answer(status: &WatchStatus) -> Value {
    let seen = status.snapshot();
    let roots: Vec<Value> = seen.roots.iter().map(root).collect();
    let leaks: Vec<Value> = seen.leaks.iter().map(leak).collect();
    Object::default()
        .with("pid", std::process::id())
        .with("version", env!("CARGO_PKG_VERSION"))
        .with_path("program", status.program.path.as_deref())
        .with("program_stamp", status.program.stamp.as_deref())
        .with("background", status.is_background)
        .with("since", json::time(status.since))
        .with("line", seen.line())
        .with("trouble", seen.problems())
        .with_path("config", seen.config.as_deref())
        .with("config_error", seen.config_error.as_deref())
        .with("roots", roots)
        .with("tracked", seen.tracked)
        .with("last_event_ms", seen.last_created_ms)
        .with("reaped", seen.summary.reaped)
        .with("quarantined", seen.summary.quarantined)
        .with("failed", seen.summary.failed)
        .with("bytes", seen.summary.freed.bytes)
        .with("disk_bytes", seen.summary.freed.disk_bytes)
        .with("leaks", leaks)
        .into_value()
}

fn root(one: &RootStatus) -> Value {
    let (root_stats, waiting) = (&one.stats, &one.pending);
    let kept: serde_json::Map<String, Value> = waiting
        .reasons
        .iter()
        .map(|(reason, count)| ((*reason).to_owned(), (*count).into()))
        .collect();
    Object::default()
        .with_path("root", Some(&one.root.path))
        .with("state", state(one).as_str())
        .with("recursive", one.root.policy.recursive)
        .with("dry_run", one.root.policy.is_dry_run())
        .with("directories", root_stats.directories)
        .with("waiting", waiting.waiting)
        .with("kept", kept)
        .with("kept_bytes", waiting.held_bytes)
        .with("reaped", root_stats.summary.reaped)
        .with("quarantined", root_stats.summary.quarantined)
        .with("failed", root_stats.summary.failed)
        .with("bytes", root_stats.summary.freed.bytes)
        .with("disk_bytes", root_stats.summary.freed.disk_bytes)
        .with("last_disposal", root_stats.last_disposal.map(json::time))
        .with(
            "last_scan",
            root_stats.last_scan.map(|scan| json::time(scan.ended)),
        )
        .with_ms("last_scan_ms", root_stats.last_scan.map(|scan| scan.took))
        .into_value()
}

fn leak((leak, sum): &(Leak, LeakSum)) -> Value {
    let (program, target) = match &leak.source {
        LeakSource::Program(program) => (Some(program.as_str()), None),
        LeakSource::WriterOf(target) => (None, Some(target.as_str())),
        LeakSource::Unknown => (None, None),
    };
    Object::default()
        .with("program", program)
        .with("writer_of", target)
        .with_path("dir", leak.dir.as_deref())
        .with("temps", sum.temps)
        .with("bytes", sum.bytes)
        .with_ms("within_ms", Some(SPAN))
        .with("line", leak_line(leak, sum))
        .into_value()
}
