//! `orphand scan`: what is there, with the verdict that each temp would get now.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use orphand::decide::judge::{Reason, Verdict};
use orphand::event::Event;
use orphand::evidence::Asker;
use orphand::json::Object;
use orphand::look::{Dir, RootError, answer};
use orphand::pass::{self, Examined, Ground};
use orphand::reap::quarantine;
use orphand::root::Root;
use orphand::state::Folders;
use serde_json::Value;

use super::args::{Look, Scan};
use super::report::Report;
use super::words;
use super::{
    Exit, Failure, Intent, list_writers, missing, no_answer, plan, progress_bar, text, tools,
};

/// A temp and the root it was found in.
struct Row {
    root: usize,
    examined: Examined,
}

/// Everything that a scan has seen.
#[derive(Default)]
struct Seen {
    rows: Vec<Row>,
    /// Directories that were not entered: other mounts and subvolumes.
    skipped: Vec<PathBuf>,
    /// The number of directories that could not be read.
    unread: u64,
    /// A temp could not be examined.
    failed: bool,
}

pub(super) fn run(command: &Scan, look: &Look) -> Result<Exit, Failure> {
    if list_writers(&command.rule) {
        return Ok(Exit::Done);
    }
    let typed = command
        .rule
        .settings(Some(&command.depth), Some(&command.deed));
    let plan = plan(&command.rule, typed, &command.dirs, Intent::Look)?;
    let paths = plan.roots.iter().map(|root| root.path.clone()).collect();
    let mut report = Report::new(look, paths);
    let mut seen = Seen::default();
    for (index, root) in plan.roots.iter().enumerate() {
        seen.unread += scan_root(index, root, look, &mut seen)?;
    }
    let rows = &seen.rows;
    let failed = seen.failed || seen.unread > 0;
    let failed = failed
        || rows
            .iter()
            .any(|row: &Row| row.examined.verdict == Verdict::Keep(Reason::CannotTell));
    let orphans = rows.iter().filter(|row| is_orphan(&row.examined)).count();
    if look.json {
        report.line(&document(&plan.roots, &seen).to_string())?;
    } else {
        print(&mut report, &plan.roots, &seen, look.quiet)?;
    }
    Ok(match (failed, orphans) {
        (true, _) => Exit::Partly,
        (false, 1..) if command.exit_code => Exit::Found,
        _ => Exit::Done,
    })
}

/// Examines every temp of one root. Returns the number of directories that could not be read.
fn scan_root(index: usize, root: &Root, look: &Look, seen: &mut Seen) -> Result<u64, Failure> {
    if !answer::answers(&root.path) {
        log::error!("{}", no_answer(&root.path));
        return Ok(1);
    }
    let tools = tools(&Folders::from_env(), false)?;
    let bar = progress_bar(look, "temps examined");
    let denials = AtomicU64::new(0);
    let mut denied = |path: &std::path::Path, error: &std::io::Error| {
        denials.fetch_add(1, Ordering::Relaxed);
        log::error!("cannot read {path:?}: {error}");
    };
    let found = orphand::scan::find(root, &mut denied, &|count| bar.set_length(count as u64));
    let found = match found {
        // The same of the root itself: the others are read all the same.
        Err(RootError::Io(error)) if !RootError::is_gone_by(&error) => {
            log::error!("cannot read {:?}: {error}", root.path);
            return Ok(1);
        }
        found => found.map_err(|error| cannot_scan(root, &error))?,
    };
    if let Some(what) = orphand::scan::not_entered(root, &found.elsewhere) {
        log::warn!("{what}");
    }
    seen.skipped.extend(found.elsewhere);
    let asker = Asker::new();
    let has_quarantine =
        Dir::open_root(&root.path, None).is_ok_and(|dir| quarantine::is_possible(&dir));
    let mut failed = 0;
    for (below, names) in found.temps {
        let ground = Ground {
            root,
            id: None,
            below: &below,
        };
        let dir = match Dir::open_below(&root.path, None, &below) {
            Ok(dir) => dir,
            Err(error) => {
                log::error!("cannot open {:?}: {error}", root.path.join(&below));
                failed += 1;
                continue;
            }
        };
        for name in names {
            bar.inc(1);
            match pass::examine(&tools, ground, &dir, &asker, &name, has_quarantine) {
                Ok(Some(examined)) => seen.rows.push(Row {
                    root: index,
                    examined,
                }),
                Ok(None) => {}
                Err(error) => {
                    log::error!("cannot examine {:?}: {error}", dir.path().join(&name));
                    seen.failed = true;
                }
            }
        }
    }
    bar.finish_and_clear();
    Ok(failed + denials.into_inner())
}

pub(super) fn cannot_scan(root: &Root, error: &RootError) -> Failure {
    match error {
        RootError::Missing => missing(&root.path),
        error => Failure::new(
            Exit::Failed,
            format!(
                "cannot read {:?}: {error}; check its permissions",
                root.path
            ),
        ),
    }
}

pub(super) fn is_orphan(examined: &Examined) -> bool {
    !matches!(examined.verdict, Verdict::Keep(_))
}

/// The fields that a temp has in every document.
pub(super) fn object(examined: &Examined) -> Object {
    let verdict = examined.verdict;
    Object::default()
        .with_path("path", Some(&examined.path))
        .with("bytes", examined.evidence.observation.fingerprint.size)
        .with_ms("quiet_ms", Some(examined.suspect.quiet))
        .with("verdict", verdict.as_str())
        .with("reason", verdict.reason().map(Reason::as_str))
        .with_path("target", examined.target.as_deref())
        .with("writer_pid", examined.suspect.reading.pid)
}

fn document(roots: &[Root], seen: &Seen) -> Value {
    let rows = &seen.rows;
    let roots = orphand::json::event(
        &Event::Ready {
            roots: roots.iter().map(|root| root.path.clone()).collect(),
            tracked: 0,
        },
        orphand::clock::wall(),
    )
    .into_value();
    let temps: Vec<Value> = rows
        .iter()
        .map(|row| object(&row.examined).into_value())
        .collect();
    let (all, orphans) = totals(rows);
    let total = Object::default()
        .with("temps", all.0)
        .with("bytes", all.1)
        .with("orphans", orphans.0)
        .with("orphan_bytes", orphans.1);
    let mut document = Object::default();
    for key in ["roots", "roots_b64"] {
        if let Some(value) = roots.get(key) {
            document = document.with(key, value.clone());
        }
    }
    let skipped = seen.skipped.iter().map(|path| {
        Object::default()
            .with_path("path", Some(path))
            .with("why", "other-mount")
            .into_value()
    });
    document
        .with("temps", temps)
        .with("skipped", skipped.collect::<Vec<_>>())
        .with("total", total.into_value())
        .into_value()
}

/// Number and bytes of all temps, and of the orphans among them.
fn totals(rows: &[Row]) -> ((u64, u64), (u64, u64)) {
    let (mut all, mut orphans) = ((0, 0), (0, 0));
    for row in rows {
        let bytes = row.examined.evidence.observation.fingerprint.size;
        all = (all.0 + 1, bytes.saturating_add(all.1));
        if is_orphan(&row.examined) {
            orphans = (orphans.0 + 1, bytes.saturating_add(orphans.1));
        }
    }
    (all, orphans)
}

fn print(report: &mut Report, roots: &[Root], seen: &Seen, quiet: bool) -> Result<(), Failure> {
    let rows = &seen.rows;
    let name = |row: &Row| {
        let root = roots.get(row.root).map(|root| root.path.as_path());
        report.name(&row.examined.path, root.unwrap_or(&row.examined.path))
    };
    let names: Vec<String> = rows.iter().map(name).collect();
    let width = names
        .iter()
        .map(|name| name.chars().count())
        .max()
        .unwrap_or(0)
        .min(60);
    for (row, name) in rows.iter().zip(&names) {
        if quiet {
            break;
        }
        let (word, style) = match row.examined.verdict {
            Verdict::Reap => ("orphan", AnsiColor::Green.on_default()),
            Verdict::Quarantine(_) => ("move", AnsiColor::Cyan.on_default()),
            Verdict::Keep(_) => ("keep", Style::new().dimmed()),
        };
        let word = report.paint(&format!("{word:<6}"), style);
        let bytes = text::size(row.examined.evidence.observation.fingerprint.size);
        let line = format!("{word}  {name:<width$}  {bytes:>8}  {}", why(&row.examined));
        report.line(line.trim_end())?;
    }
    let ((temps, _), (orphans, bytes)) = totals(rows);
    let unread = text::counted(seen.unread, "directory", "directories");
    if orphans == 0 {
        let temps = text::counted(temps, "temp", "temps");
        report.line(&match seen.unread {
            0 => format!("no orphans ({temps})"),
            _ => format!("no orphans found ({temps}), but {unread} could not be read"),
        })?;
        return Ok(());
    }
    if seen.unread > 0 {
        report.line(&format!(
            "{unread} could not be read, and may hold more orphans"
        ))?;
    }
    let oldest = rows.iter().filter(|row| is_orphan(&row.examined));
    let oldest = oldest
        .map(|row| row.examined.suspect.quiet)
        .max()
        .unwrap_or(Duration::ZERO);
    let roots: Vec<String> = roots.iter().map(|root| shell_word(&root.path)).collect();
    report.line(&format!(
        "{}, {}, the oldest {}.   remove them: orphand sweep {}",
        text::counted(orphans, "orphan", "orphans"),
        text::size(bytes),
        text::span(oldest),
        roots.join(" ")
    ))?;
    Ok(())
}

fn why(examined: &Examined) -> String {
    let quiet = text::span(examined.suspect.quiet);
    match examined.verdict {
        Verdict::Reap => format!("unused for {quiet}"),
        Verdict::Keep(reason) => words::kept(reason, "", None, &examined.details),
        Verdict::Quarantine(Some(Reason::SoleCopy)) => {
            format!("unused for {quiet}; it may be the only copy")
        }
        Verdict::Quarantine(_) => format!("unused for {quiet}; it would be moved"),
    }
}

/// A path as a shell takes it; with `$'…'` (bash, zsh, ksh) where it has to be escaped.
fn shell_word(path: &std::path::Path) -> String {
    use std::os::unix::ffi::OsStrExt;
    let text = text::escaped(path);
    let plain = |c: char| c.is_alphanumeric() || "/._-+,:@%".contains(c);
    if text.chars().all(plain) {
        return text;
    }
    let bytes = path.as_os_str().as_bytes();
    if std::str::from_utf8(bytes) == Ok(text.as_str()) {
        return format!("'{}'", text.replace('\'', r"'\''"));
    }
    let byte = |b: &u8| match b {
        b'\'' | b'\\' | 0..0x20 | 0x7f.. => format!("\\x{b:02x}"),
        b => char::from(*b).to_string(),
    };
    format!("$'{}'", bytes.iter().map(byte).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    #[test]
    fn words_that_a_shell_takes() {
        for (path, want) in [
            (&b"/srv/app-1"[..], "/srv/app-1"),
            (b"/a b", "'/a b'"),
            (b"/it's", r"'/it'\''s'"),
            (b"/a\nb", r"$'/a\x0ab'"),
            (b"/\xff", r"$'/\xff'"),
        ] {
            assert_eq!(
                shell_word(std::path::Path::new(OsStr::from_bytes(path))),
                want
            );
        }
    }
}
