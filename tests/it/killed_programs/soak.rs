//! All writers at once beside a watch with every row on: no writer fails, and orphand takes nothing but the temps of
//! killed writers.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use orphand::core::temp_name;

use super::kill::{Run, Scripts};
use super::rows::{self, Outcome, Writer};
use crate::fixture::{in_parallel, report_skipped};
use crate::sandbox::Sandbox;

/// Half of it is the longest time that a writer may take from the close to the rename. The disk of a loaded machine
/// can make it wait for a second.
const GRACE: &str = "4s";
/// The number of writers that run at once.
const PARALLEL: usize = 6;
/// The number of times that each script runs. A script of node or Python writes as often again.
const ROUNDS: usize = 3;
/// The number of writes of a script that can write more than once.
const WRITES: usize = 20;

#[test]
fn live_writers_lose_nothing_while_every_row_is_on() {
    soak(ROUNDS);
}

/// Runs as many rounds as the variable `ORPHAND_SOAK_ROUNDS` says.
#[test]
#[ignore = "takes as long as ORPHAND_SOAK_ROUNDS says"]
fn live_writers_lose_nothing_for_long() {
    let rounds = std::env::var("ORPHAND_SOAK_ROUNDS").unwrap_or_else(|_| "60".into());
    soak(rounds.parse().expect("a number of rounds"));
}

fn soak(rounds: usize) {
    let sandbox = Sandbox::new();
    let (installed, missing): (Vec<&Writer>, Vec<&Writer>) =
        rows::all().partition(|writer| writer.missing_tool().is_none());
    if !missing.is_empty() {
        let names: Vec<_> = missing.iter().map(|writer| writer.name).collect();
        report_skipped(&format!("not installed: {}", names.join(", ")));
    }
    let live: Vec<Scripts<'_>> = (installed.iter().enumerate())
        .map(|(number, writer)| Scripts::new(&sandbox, dir(&sandbox, "live", number), writer))
        .collect();
    // Of the killed writers, those suffice whose temps a sweep removes too. At a later rename of git, the watch has
    // seen its temps get their second names, which are reserved.
    let is_removed = |writer: &&Writer| {
        let removes = |leftover: &rows::Leftover| {
            let outcomes = leftover.whole.or(leftover.missing);
            outcomes.is_some_and(|outcomes| outcomes.named == Outcome::Removed)
        };
        let is_later = matches!(writer.kill, rows::Kill::Link(n) if n > 1);
        writer.leaves.iter().all(removes) && !writer.rows.is_empty() && !is_later
    };
    let killed: Vec<Scripts<'_>> = (installed.iter().filter(|writer| is_removed(writer)))
        .enumerate()
        .map(|(number, writer)| Scripts::new(&sandbox, dir(&sandbox, "killed", number), writer))
        .collect();
    each(live.iter().chain(&killed), |scripts| {
        scripts.run(scripts.writer.prepare, "a", Run::Whole);
    });
    let rows = temp_name::writers().flat_map(|row| ["--writer", row.name.as_str()]);
    let args: Vec<_> = ["-r", "--grace", GRACE].into_iter().chain(rows).collect();
    let mut watch = sandbox.watch(args).ready();
    let orphans = Mutex::new(BTreeMap::new());
    // Each round of each live writer, and the killed writers among them.
    for round in 0..rounds {
        each(&live, |scripts| {
            let letter = if round % 2 == 0 { "a" } else { "b" };
            scripts.run(scripts.writer.write, &letter.repeat(60), Run::Times(WRITES));
        });
        if round == 0 {
            each(&killed, |scripts| {
                scripts.run(scripts.writer.write, &"a".repeat(60), Run::Whole);
                let before = scripts.files();
                scripts.run(scripts.writer.write, &"b".repeat(60), Run::Killed);
                let new = scripts.files();
                let mut orphans = orphans.lock().unwrap();
                let left = new.difference(&before).filter_map(|path| {
                    Some((scripts.path(path), scripts.is_clear_leftover(path)?))
                });
                orphans.extend(left);
            });
        }
    }
    each(&live, |scripts| {
        scripts.run(scripts.writer.check, &"z".repeat(60), Run::Whole);
    });
    let orphans = orphans.into_inner().unwrap();
    assert!(
        killed.is_empty() || orphans.len() >= killed.len(),
        "{orphans:?}"
    );
    // Everything that was due before is done by then.
    watch.wait_for_sentinel(&sandbox);
    // A name that is not clearly random may stay.
    let clear = orphans.iter().filter(|(_, is_clear)| **is_clear);
    let remaining: Vec<_> = clear.filter(|(orphan, _)| orphan.exists()).collect();
    assert!(
        remaining.is_empty(),
        "not taken: {remaining:#?}\n{:#?}",
        watch.events()
    );
    let ended = watch.stop();
    let taken = (ended.events.of("reaped").into_iter()).chain(ended.events.of("quarantined"));
    let taken = taken.map(|event| PathBuf::from(event["path"].as_str().unwrap()));
    let wrong: Vec<_> = taken
        .filter(|path| !orphans.contains_key(path))
        .filter(|path| path.parent() != Some(sandbox.root().as_path()))
        .collect();
    assert!(wrong.is_empty(), "taken from live writers: {wrong:#?}");
    assert!(ended.events.of("failed").is_empty(), "{:#?}", ended.events);
}

fn dir(sandbox: &Sandbox, kind: &str, number: usize) -> PathBuf {
    let dir = sandbox.path(format!("{kind}{number}"));
    fs::create_dir(&dir).unwrap();
    dir
}

/// Calls `act` for each item, for some of them at once.
fn each<T: Send>(items: impl IntoIterator<Item = T>, act: impl Fn(T) + Sync) {
    let items: Vec<_> = items
        .into_iter()
        .map(|item| Mutex::new(Some(item)))
        .collect();
    let next = AtomicUsize::new(0);
    in_parallel(0..PARALLEL.min(items.len()), |_| {
        while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
            act(item.lock().unwrap().take().unwrap());
        }
    });
}
