//! The help of options that several commands share, where the general text is not true for one of them.
//!
//! [`options`](super::options) has the general texts, which are true for `watch`.

use clap::Arg;

/// The help of an option, by its id.
type Wording = (&'static str, &'static str);

/// Returns `arg` with its text for `scan`, which changes nothing.
pub(crate) fn scan(arg: Arg) -> Arg {
    with_help(arg, &[&SCAN, &JUDGE])
}

/// Returns `arg` with its text for `explain`, which changes nothing and takes files.
pub(crate) fn explain(arg: Arg) -> Arg {
    with_help(arg, &[&EXPLAIN, &JUDGE])
}

/// Returns `arg` with its text for a command that removes temps.
pub(crate) fn act(arg: Arg) -> Arg {
    with_help(arg, &[&ACT])
}

/// The texts for commands that only judge.
const JUDGE: [Wording; 5] = [
    (
        "grace",
        "Judge by this time for which a temp must be unused: 250ms, 1.5s, 30s, 5m, 1h30m, 7d [default: 5m, and 1h for \
         names without a random part]",
    ),
    (
        "writers",
        "Judge the temps of this program too; --writer list prints all programs; may be repeated",
    ),
    (
        "closed",
        "Judge a closed temp as an orphan or as finished (the kernel also closes the files of a killed writer)",
    ),
    (
        "open",
        "The verdict for a temp that a running process has open",
    ),
    (
        "sole_copy",
        "The verdict for a temp that may be the only copy of its data",
    ),
];

const SCAN: [Wording; 3] = [
    (
        "exclude",
        "Do not list these files and the files in these folders, besides those of the configuration; may be repeated. \
         A glob with a \"/\" is relative to DIR",
    ),
    ("action", "The verdict for an orphan"),
    ("dry_run", "Has no effect: a scan changes nothing"),
];

const EXPLAIN: [Wording; 1] = [(
    "exclude",
    "Count these files as excluded, besides those of the configuration; may be repeated. A glob with a \"/\" is \
     relative to the folder of FILE",
)];

const ACT: [Wording; 1] = [(
    "print0",
    "Print only the paths of the removed orphans, each followed by a zero byte; with -n, of those that would be removed",
)];

fn with_help(arg: Arg, tables: &[&[Wording]]) -> Arg {
    let mut all = tables.iter().copied().flatten();
    match all.find(|(id, _)| arg.get_id() == id) {
        Some((_, help)) => arg.help(*help),
        None => arg,
    }
}
