//! The journal records each intended disposal and its outcome, one JSON object per line.
//!
//! The journal is only a record. Recovery after a crash does not use it. A write waits while another process appends to the
//! same file. The journal is not synced. It is rotated at a size limit. A failure to write it is logged at most once an hour.
//!
//! There are two kinds of lines: `{"journal":"intent", …}` before the first step of a disposal, and
//! `{"journal":"outcome","event":"reaped", …}` after its last step.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::store::capped_file::CappedFile;
use crate::store::json::{self, Fields};
use crate::store::regular_file::open_own;
use crate::sys::mutex::guard;

/// The name of the journal in the state folder.
pub const FILE: &str = "journal.jsonl";

/// The default size at which the journal is rotated, in bytes. One older file is kept beside it.
const CAP: u64 = 16 << 20;

/// More bytes than any line has: a path has at most 4 kB.
const MAX_LINE: u64 = 1 << 20;

/// The journal of disposals. Clones write to the same file.
#[derive(Clone, Debug)]
pub struct Journal {
    file: Option<Arc<CappedFile>>,
    unwritten: Arc<UnwrittenLines>,
}

/// Counts the lines that could not be written. On a full disk these are at least one for each temp, so the number is
/// logged at most once an hour, and once at the end.
#[derive(Debug, Default)]
struct UnwrittenLines(Mutex<UnwrittenCount>);

#[derive(Debug, Default)]
struct UnwrittenCount {
    lines: u64,
    /// The value of `lines` at the last report.
    reported: u64,
    /// The time of the last report.
    reported_at: Option<Instant>,
}

/// The shortest time between two reports of lines that could not be written.
const REPORT_INTERVAL: Duration = Duration::from_secs(60 * 60);

impl UnwrittenLines {
    fn count(&self, lines: usize, path: &Path, error: &io::Error) {
        let mut count = guard(&self.0);
        count.lines += lines as u64;
        if count
            .reported_at
            .is_some_and(|at| at.elapsed() < REPORT_INTERVAL)
        {
            return;
        }
        log::error!(
            "cannot write the journal {path:?}: {error}; removals continue, but history does not show them until the \
             journal can be written again"
        );
        count.reported = count.lines;
        count.reported_at = Some(Instant::now());
    }
}

impl Drop for UnwrittenLines {
    fn drop(&mut self) {
        let count = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        if count.lines > count.reported {
            log::error!("could not write {} lines of the journal", count.lines);
        }
    }
}

/// A line that is read: its kind, and the fields of the action.
#[derive(Deserialize)]
struct Line<T> {
    journal: LineKind,
    #[serde(flatten)]
    action: T,
}

/// A line that is written.
struct NewLine<'a, T> {
    journal: &'static str,
    action: &'a T,
}

impl<T: Fields> Fields for NewLine<'_, T> {
    fn append_fields(&self, text: &mut Vec<u8>) {
        // The words have no character that needs an escape.
        text.extend_from_slice(b"\"journal\":\"");
        text.extend_from_slice(self.journal.as_bytes());
        text.extend_from_slice(b"\",");
        self.action.append_fields(text);
    }
}

/// The kind of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LineKind {
    /// An action that is about to begin.
    Intent,
    /// An action that has ended.
    Outcome,
}

impl LineKind {
    fn as_str(self) -> &'static str {
        match self {
            LineKind::Intent => "intent",
            LineKind::Outcome => "outcome",
        }
    }
}

impl Journal {
    /// Returns the journal in the folder `state`. Without a folder nothing is written.
    #[must_use]
    pub fn new(state: Option<&Path>) -> Journal {
        Journal {
            file: state.map(|state| Arc::new(CappedFile::new(state.join(FILE), CAP))),
            unwritten: Arc::default(),
        }
    }

    /// Returns the journal with its size limit set to `bytes`.
    #[must_use]
    pub fn with_cap(self, bytes: u64) -> Journal {
        self.set_cap(bytes);
        self
    }

    /// Sets the size at which the journal is rotated, in bytes.
    pub fn set_cap(&self, bytes: u64) {
        if let Some(file) = &self.file {
            file.set_cap(bytes);
        }
    }

    /// Writes `actions`, all of them with one call. An error is only counted and logged: a full disk must not prevent a
    /// removal that would free space.
    pub fn write<T: Fields>(&self, journal: LineKind, actions: impl IntoIterator<Item = T>) {
        let Some(file) = &self.file else {
            return;
        };
        const USUAL_LINE: usize = 768;
        let actions = actions.into_iter();
        let (mut text, mut lines) = (Vec::with_capacity(actions.size_hint().0 * USUAL_LINE), 0);
        for action in actions {
            let (journal, action) = (journal.as_str(), &action);
            json::append(&mut text, &NewLine { journal, action });
            text.push(b'\n');
            lines += 1;
        }
        if lines > 0
            && let Err(error) = file.append(&text)
        {
            self.unwritten.count(lines, file.path(), &error);
        }
    }

    /// Calls `each` with every outcome, oldest first. A line that cannot be parsed (truncated by a crash, for example)
    /// is skipped.
    pub fn outcomes<T: DeserializeOwned>(&self, mut each: impl FnMut(T)) -> io::Result<()> {
        let Some(file) = &self.file else {
            return Ok(());
        };
        for path in [file.older_path(), file.path().to_owned()] {
            let file = match open_own(File::options().read(true).to_owned(), &path) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            let (mut reader, mut line) = (BufReader::new(file), Vec::new());
            loop {
                line.clear();
                // A longer line is read in parts. None of them is a JSON object, so all are skipped.
                let part = reader
                    .by_ref()
                    .take(MAX_LINE)
                    .read_until(b'\n', &mut line)?;
                if part == 0 {
                    break;
                }
                if let Ok(Line {
                    journal: LineKind::Outcome,
                    action,
                }) = serde_json::from_slice(&line)
                {
                    each(action);
                }
            }
        }
        Ok(())
    }

    /// Returns the path of the journal, if it is written.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.file.as_ref().map(|file| file.path())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::json::BySerde;
    use proptest::prelude::*;
    use serde_json::{Value, json};
    use std::fs;
    use std::io::Write;

    fn read(journal: &Journal) -> Vec<Value> {
        let mut all = Vec::new();
        journal.outcomes(|value| all.push(value)).unwrap();
        all
    }

    #[test]
    fn outcomes_are_read_back_and_intents_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::new(Some(&folder.path().join("made/on/demand")));
        assert_eq!(read(&journal), Vec::<Value>::new());
        journal.write(LineKind::Intent, [BySerde(json!({"path": "/a"}))]);
        journal.write(
            LineKind::Outcome,
            [json!({"event": "reaped"}), json!({"event": "b"})].map(BySerde),
        );
        assert_eq!(
            read(&journal),
            [json!({"event": "reaped"}), json!({"event": "b"})]
        );
        let text = fs::read_to_string(journal.path().unwrap()).unwrap();
        assert_eq!(text.lines().count(), 3, "no empty lines: {text}");
    }

    #[test]
    fn a_truncated_line_is_skipped() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::new(Some(folder.path()));
        journal.write(
            LineKind::Outcome,
            [json!({"n": 1}), json!({"n": 2})].map(BySerde),
        );
        let path = journal.path().unwrap();
        let whole = fs::read(path).unwrap();
        for cut in 1..whole.len() {
            fs::write(path, &whole[..cut]).unwrap();
            let before = read(&journal);
            journal.write(
                LineKind::Outcome,
                [json!({"n": 3}), json!({"n": 4})].map(BySerde),
            );
            let after = read(&journal);
            assert_eq!(after.last(), Some(&json!({"n": 4})), "cut at {cut}");
            assert!(after.len() > before.len(), "cut at {cut}");
        }
    }

    #[test]
    fn an_endless_line_is_skipped() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::new(Some(folder.path()));
        let path = journal.path().unwrap();
        fs::write(path, vec![0; 3 * MAX_LINE as usize + 7]).unwrap();
        journal.write(LineKind::Outcome, [json!({"n": 1})].map(BySerde));
        assert_eq!(read(&journal), [json!({"n": 1})]);
    }

    /// A change of the file between two lines.
    #[derive(Clone, Debug)]
    enum Damage {
        /// These bytes are appended: other programs may write to the file, and crashes leave blocks of zeros.
        Garbage(Vec<u8>),
        /// This many of the last bytes are lost.
        Truncated(u64),
    }

    fn damage() -> impl Strategy<Value = Damage> {
        let start =
            prop::sample::select(&["", "\n", "\0\0\0", "{\"journal\":\"outcome\"", "[{\n"][..]);
        let bytes = prop::collection::vec(any::<u8>(), 0..40);
        prop_oneof![
            (start, bytes)
                .prop_map(|(start, end)| Damage::Garbage([start.as_bytes(), &end].concat())),
            (1..20u64).prop_map(Damage::Truncated),
        ]
    }

    proptest! {
        #[test]
        fn garbage_and_truncation_cost_no_other_line(
            damages in prop::collection::vec(damage(), 0..12),
        ) {
            let folder = tempfile::tempdir().unwrap();
            let journal = Journal::new(Some(folder.path()));
            let mut whole = Vec::new();
            for (n, damage) in damages.iter().enumerate() {
                let line = json!({"n": n, "path": "a line longer than the part that is truncated"});
                journal.write(LineKind::Outcome, [BySerde(&line)]);
                let path = journal.path().unwrap();
                let mut file = File::options().append(true).open(path).unwrap();
                match damage {
                    Damage::Garbage(bytes) => {
                        file.write_all(b"\n").unwrap();
                        file.write_all(bytes).unwrap();
                        whole.push(line);
                    }
                    Damage::Truncated(bytes) => {
                        let length = file.metadata().unwrap().len();
                        file.set_len(length - bytes).unwrap();
                        // Without only its "\n" the line is still complete.
                        if *bytes == 1 {
                            whole.push(line);
                        }
                    }
                }
            }
            let last = json!({"n": "last"});
            journal.write(LineKind::Outcome, [BySerde(&last)]);
            whole.push(last);
            let mut all = read(&journal);
            // The garbage may contain lines as well.
            all.retain(|line| line.get("n").is_some());
            prop_assert_eq!(all, whole);
        }
    }

    #[test]
    fn a_full_journal_is_rotated_and_the_older_file_is_read_first() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::new(Some(folder.path())).with_cap(200);
        for n in 0..20 {
            journal.write(LineKind::Outcome, [json!({"n": n})].map(BySerde));
        }
        let numbers: Vec<_> = read(&journal)
            .iter()
            .map(|v| v["n"].as_u64().unwrap())
            .collect();
        assert!(numbers.len() < 20, "capped");
        assert!(numbers.is_sorted(), "{numbers:?}");
        assert_eq!(numbers.last(), Some(&19));
    }

    #[test]
    fn without_a_folder_nothing_is_written() {
        let journal = Journal::new(None);
        journal.write(LineKind::Outcome, [json!({"n": 1})].map(BySerde));
        assert_eq!(read(&journal), Vec::<Value>::new());
    }
}
