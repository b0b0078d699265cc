//! `orphand scan`: what is there, with the verdict that each temp would get now.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use orphand::decide::judge::{Reason, Verdict};
use orphand::decide::observation::FileSize;
use orphand::decide::temp_name::Names;
use orphand::event::Event;
use orphand::evidence::Asker;
use orphand::evidence::siblings::Listings;
use orphand::json::Object;
use orphand::look::{Dir, RootError};
use orphand::pass::{self, Examined, Ground};
use orphand::reap::quarantine;
use orphand::root::Root;
use orphand::state::Folders;
use serde_json::Value;

use super::args::{Look, Scan};
use super::report::Report;
use super::words;
use super::{Exit, Failure, Intent, list_writers, missing, plan, progress_bar, text, tools};

/// A temp and the root it was found in.
struct Row {
    root: usize,
    examined: Examined,
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
    let (mut rows, mut failed) = (Vec::new(), false);
    for (index, root) in plan.roots.iter().enumerate() {
        failed |= scan_root(index, root, look, &mut rows)?;
    }
    failed |= rows
        .iter()
        .any(|row: &Row| row.examined.verdict == Verdict::Keep(Reason::CannotTell));
    let orphans = rows.iter().filter(|row| is_orphan(&row.examined)).count();
    if look.json {
        report.line(&document(&plan.roots, &rows).to_string())?;
    } else {
        print(&mut report, &plan.roots, &rows, look.quiet)?;
    }
    if !look.quiet {
        for note in narrower(&plan.roots, &rows) {
            anstream::eprintln!("note: {note}");
        }
    }
    Ok(match (failed, orphans) {
        (true, _) => Exit::Partly,
        (false, 1..) if command.exit_code => Exit::Found,
        _ => Exit::Done,
    })
}

/// Examines every temp of one root. Says whether something could not be read.
fn scan_root(index: usize, root: &Root, look: &Look, rows: &mut Vec<Row>) -> Result<bool, Failure> {
    let mut tools = tools(&Folders::from_env(), false)?;
    tools.listings = Listings::for_one_look();
    let bar = progress_bar(look, "temps examined");
    let denials = AtomicU64::new(0);
    let mut denied = |path: &std::path::Path, error: &std::io::Error| {
        denials.fetch_add(1, Ordering::Relaxed);
        log::error!("cannot read {path:?}: {error}");
    };
    let found = orphand::scan::temps(root, &mut denied, &|count| bar.set_length(count as u64));
    let found = match found {
        // The same of the root itself: the others are read all the same.
        Err(RootError::Io(error)) if !RootError::is_gone_by(&error) => {
            log::error!("cannot read {:?}: {error}", root.path);
            return Ok(true);
        }
        found => found.map_err(|error| cannot_scan(root, &error))?,
    };
    let asker = Asker::new();
    let has_quarantine = Dir::open_root(&root.path, None).is_ok_and(|dir| {
        root.report_coarse_dates(dir.place().dates);
        quarantine::is_possible(&dir)
    });
    let mut failed = false;
    for (below, names) in found {
        let ground = Ground {
            root,
            id: None,
            below: &below,
        };
        let dir = match Dir::open_below(&root.path, None, &below) {
            Ok(dir) => dir,
            Err(error) => {
                log::error!("cannot open {:?}: {error}", root.path.join(&below));
                failed = true;
                continue;
            }
        };
        for name in names {
            bar.inc(1);
            match pass::examine(&tools, ground, &dir, &asker, &name, has_quarantine) {
                Ok(Some(examined)) => rows.push(Row {
                    root: index,
                    examined,
                }),
                Ok(None) => {}
                Err(error) => {
                    log::error!("cannot examine {:?}: {error}", dir.path().join(&name));
                    failed = true;
                }
            }
        }
    }
    bar.finish_and_clear();
    Ok(failed || denials.into_inner() > 0)
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
        .with("disk_bytes", examined.evidence.observation.allocated)
        .with_ms("quiet_ms", Some(examined.suspect.quiet))
        .with("verdict", verdict.as_str())
        .with("reason", verdict.reason().map(Reason::as_str))
        .with_path("target", examined.target.as_deref())
        .with("writer_pid", examined.suspect.reading.pid)
}

fn document(roots: &[Root], rows: &[Row]) -> Value {
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
    let total = Total::of(rows);
    let total = Object::default()
        .with("temps", total.temps)
        .with("bytes", total.size.bytes)
        .with("disk_bytes", total.size.disk_bytes)
        .with("orphans", total.orphans)
        .with("orphan_bytes", total.orphan_size.bytes)
        .with("orphan_disk_bytes", total.orphan_size.disk_bytes);
    let mut document = Object::default();
    for key in ["roots", "roots_b64"] {
        if let Some(value) = roots.get(key) {
            document = document.with(key, value.clone());
        }
    }
    document
        .with("temps", temps)
        .with("total", total.into_value())
        .into_value()
}

/// The sums of a scan.
#[derive(Default)]
struct Total {
    temps: u64,
    size: FileSize,
    orphans: u64,
    orphan_size: FileSize,
}

impl Total {
    fn of(rows: &[Row]) -> Total {
        let mut total = Total::default();
        for row in rows {
            let size = row.examined.evidence.observation.size();
            total.temps += 1;
            total.size = total.size.plus(size);
            if is_orphan(&row.examined) {
                total.orphans += 1;
                total.orphan_size = total.orphan_size.plus(size);
            }
        }
        total
    }
}

fn print(report: &mut Report, roots: &[Root], rows: &[Row], quiet: bool) -> Result<(), Failure> {
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
    let total = Total::of(rows);
    if total.orphans == 0 {
        let temps = text::counted(total.temps, "temp", "temps");
        report.line(&format!("no orphans ({temps})"))?;
        return Ok(());
    }
    let oldest = rows.iter().filter(|row| is_orphan(&row.examined));
    let oldest = oldest
        .map(|row| row.examined.suspect.quiet)
        .max()
        .unwrap_or(Duration::ZERO);
    let roots: Vec<String> = roots.iter().map(|root| shell_word(&root.path)).collect();
    report.line(&format!(
        "{}, {}, the oldest {}.   remove them: orphand sweep {}",
        text::counted(total.orphans, "orphan", "orphans"),
        text::size(total.orphan_size.disk_bytes),
        text::span(oldest),
        roots.join(" ")
    ))?;
    Ok(())
}

/// Patterns that would take reserved names, each with one that takes all the other temps here as well.
fn narrower(roots: &[Root], rows: &[Row]) -> Vec<String> {
    let names = |glob: &str| Names::allowing_broad(&[glob], &[] as &[&str]);
    let mut notes = Vec::new();
    for (index, root) in roots.iter().enumerate() {
        for one in root.policy.names.narrower() {
            let (Ok(glob), Ok(instead)) = (names(&one.glob), names(&one.instead)) else {
                continue;
            };
            let bytes = |row: &Row| row.examined.suspect.name.as_encoded_bytes().to_vec();
            let fits = |row: &&Row| row.root == index && glob.matches(&bytes(row));
            let (reserved, temps): (Vec<&Row>, Vec<&Row>) = rows
                .iter()
                .filter(fits)
                .partition(|row| row.examined.evidence.reserved.is_some());
            let is_enough = temps.iter().all(|row| instead.matches(&bytes(row)));
            let note = one.to_string();
            if !reserved.is_empty() && is_enough && !notes.contains(&note) {
                notes.push(note);
            }
        }
    }
    notes
}

fn why(examined: &Examined) -> String {
    let quiet = text::span(examined.suspect.quiet);
    match examined.verdict {
        Verdict::Reap => format!("unused for {quiet}"),
        Verdict::Keep(Reason::Reserved) => match &examined.evidence.reserved {
            Some(reserved) => reserved.to_string(),
            None => words::kept(Reason::Reserved, "", None),
        },
        Verdict::Keep(reason) => words::kept(reason, "", None),
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
