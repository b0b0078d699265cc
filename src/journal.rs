//! The journal: what was about to be done, and what came of it, one JSON object a line.
//!
//! It is a record, not a crutch: nothing is ever put in order by it, and nothing waits for it. It
//! is not synced, it is size-capped and rotated, and a failure to write is logged once an hour.
//!
//! Lines are of two kinds: `{"journal":"intent", …}` before the first step of a disposal, and
//! `{"journal":"outcome","event":"reaped", …}` after its last.

use std::fmt::{Display, Write as _};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::capped::CappedFile;
use crate::state::open_own;

/// Its name in the state folder.
pub const FILE: &str = "journal.jsonl";

/// The size at which it is rotated, bytes; one older file is kept beside it.
const CAP: u64 = 16 << 20;

/// More than any line has, bytes: a path has 4 kB at most.
const LONGEST: u64 = 1 << 20;

/// Where disposals are written down.
#[derive(Clone, Debug)]
pub struct Journal {
    file: Option<Arc<CappedFile>>,
    missing: Arc<Missing>,
}

/// The number of lines that could not be written. It is reported at most once an hour, and at the end: on a full disk
/// there is one for each temp.
#[derive(Debug, Default)]
struct Missing(Mutex<MissingCount>);

#[derive(Debug, Default)]
struct MissingCount {
    lines: u64,
    /// The number that was reported, and when.
    told: u64,
    at: Option<Instant>,
}

/// The shortest time between two reports.
const EVERY: Duration = Duration::from_secs(60 * 60);

impl Missing {
    fn count(&self, lines: usize, path: &Path, error: &io::Error) {
        let mut count = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        count.lines += lines as u64;
        if count.at.is_some_and(|at| at.elapsed() < EVERY) {
            return;
        }
        log::error!(
            "the journal {path:?} cannot be written: {error}; removals go on, and history will not show them \
             until there is room, or the permission, to write it"
        );
        count.told = count.lines;
        count.at = Some(Instant::now());
    }
}

impl Drop for Missing {
    fn drop(&mut self) {
        let count = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        if count.lines > count.told {
            log::error!("{} lines of the journal could not be written", count.lines);
        }
    }
}

/// What a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineKind {
    /// Something is about to be done.
    Intent,
    /// Something was done.
    Outcome,
}

impl Journal {
    /// The journal in the folder `state`; without one nothing is written.
    #[must_use]
    pub fn new(state: Option<&Path>) -> Journal {
        Journal {
            file: state.map(|state| Arc::new(CappedFile::new(state.join(FILE), CAP))),
            missing: Arc::default(),
        }
    }

    /// Rotated at `bytes`.
    #[must_use]
    pub fn with_cap(self, bytes: u64) -> Journal {
        self.set_cap(bytes);
        self
    }

    /// From now on it is rotated at `bytes`.
    pub fn set_cap(&self, bytes: u64) {
        if let Some(file) = &self.file {
            file.set_cap(bytes);
        }
    }

    /// Writes `objects`, with one call for all of them. What cannot be written is counted: a full disk must not stop
    /// a deletion that would free it.
    pub fn write(&self, line: LineKind, objects: &[impl Display]) {
        let (Some(file), false) = (&self.file, objects.is_empty()) else {
            return;
        };
        let kind = match line {
            LineKind::Intent => "\"journal\":\"intent\",",
            LineKind::Outcome => "\"journal\":\"outcome\",",
        };
        let mut text = String::new();
        for object in objects {
            let start = text.len();
            let _ = writeln!(text, "{object}");
            // Every object begins with a brace, and what kind of line it is stands behind that.
            let kind = match text[start..].starts_with("{}") {
                true => kind.trim_end_matches(','),
                false => kind,
            };
            text.insert_str(start + 1, kind);
        }
        if let Err(error) = file.append(text.as_bytes()) {
            self.missing.count(objects.len(), file.path(), &error);
        }
    }

    /// Calls `each` with every outcome, oldest first. A line that cannot be read (torn by a crash,
    /// say) is passed over.
    pub fn outcomes(&self, mut each: impl FnMut(Value)) -> io::Result<()> {
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
                // A longer line is read in parts, none of which is an object.
                let part = reader.by_ref().take(LONGEST).read_until(b'\n', &mut line)?;
                if part == 0 {
                    break;
                }
                let Ok(Value::Object(mut object)) = serde_json::from_slice(&line) else {
                    continue;
                };
                if object.remove("journal") == Some("outcome".into()) {
                    each(Value::Object(object));
                }
            }
        }
        Ok(())
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.file.as_ref().map(|file| file.path())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;
    use std::fs;
    use std::io::Write;

    fn read(journal: &Journal) -> Vec<Value> {
        let mut all = Vec::new();
        journal.outcomes(|value| all.push(value)).unwrap();
        all
    }

    #[test]
    fn outcomes_are_read_back_intents_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::new(Some(&folder.path().join("made/on/demand")));
        assert_eq!(read(&journal), Vec::<Value>::new());
        journal.write(LineKind::Intent, &[json!({"path": "/a"})]);
        journal.write(
            LineKind::Outcome,
            &[json!({"event": "reaped"}), json!({"event": "b"})],
        );
        assert_eq!(
            read(&journal),
            [json!({"event": "reaped"}), json!({"event": "b"})]
        );
        let text = fs::read_to_string(journal.path().unwrap()).unwrap();
        assert_eq!(text.lines().count(), 3, "no empty lines: {text}");
    }

    #[test]
    fn a_torn_line_is_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::new(Some(folder.path()));
        journal.write(LineKind::Outcome, &[json!({"n": 1}), json!({"n": 2})]);
        let path = journal.path().unwrap();
        let whole = fs::read(path).unwrap();
        for cut in 1..whole.len() {
            fs::write(path, &whole[..cut]).unwrap();
            let before = read(&journal);
            journal.write(LineKind::Outcome, &[json!({"n": 3}), json!({"n": 4})]);
            let after = read(&journal);
            assert_eq!(after.last(), Some(&json!({"n": 4})), "cut at {cut}");
            assert!(after.len() > before.len(), "cut at {cut}");
        }
    }

    #[test]
    fn a_line_without_an_end_is_read_in_parts() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::new(Some(folder.path()));
        let path = journal.path().unwrap();
        fs::write(path, vec![0; 3 * LONGEST as usize + 7]).unwrap();
        journal.write(LineKind::Outcome, &[json!({"n": 1})]);
        assert_eq!(read(&journal), [json!({"n": 1})]);
    }

    /// What happens to the file between two lines.
    #[derive(Clone, Debug)]
    enum Between {
        /// Others write to it, and crashes leave blocks of zeros.
        Rubbish(Vec<u8>),
        /// The last bytes are lost, and with any of them the last line.
        Torn(u64),
    }

    fn between() -> impl Strategy<Value = Between> {
        let start =
            prop::sample::select(&["", "\n", "\0\0\0", "{\"journal\":\"outcome\"", "[{\n"][..]);
        let bytes = prop::collection::vec(any::<u8>(), 0..40);
        prop_oneof![
            (start, bytes)
                .prop_map(|(start, end)| Between::Rubbish([start.as_bytes(), &end].concat())),
            (1..20u64).prop_map(Between::Torn),
        ]
    }

    proptest! {
        #[test]
        fn no_rubbish_and_no_tear_costs_another_line(
            all in prop::collection::vec(between(), 0..12),
        ) {
            let folder = tempfile::tempdir().unwrap();
            let journal = Journal::new(Some(folder.path()));
            let mut whole = Vec::new();
            for (n, between) in all.iter().enumerate() {
                let line = json!({"n": n, "path": "a line longer than what is torn off"});
                journal.write(LineKind::Outcome, std::slice::from_ref(&line));
                let path = journal.path().unwrap();
                let mut file = File::options().append(true).open(path).unwrap();
                match between {
                    Between::Rubbish(bytes) => {
                        file.write_all(b"\n").unwrap();
                        file.write_all(bytes).unwrap();
                        whole.push(line);
                    }
                    Between::Torn(bytes) => {
                        let length = file.metadata().unwrap().len();
                        file.set_len(length - bytes).unwrap();
                        // The "\n" alone may go: the line is whole without it.
                        if *bytes == 1 {
                            whole.push(line);
                        }
                    }
                }
            }
            let last = json!({"n": "last"});
            journal.write(LineKind::Outcome, std::slice::from_ref(&last));
            whole.push(last);
            let mut all = read(&journal);
            // Rubbish may be lines as well.
            all.retain(|line| line.get("n").is_some());
            prop_assert_eq!(all, whole);
        }
    }

    #[test]
    fn it_is_rotated_and_one_older_file_is_read_first() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::new(Some(folder.path())).with_cap(200);
        for n in 0..20 {
            journal.write(LineKind::Outcome, &[json!({"n": n})]);
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
        journal.write(LineKind::Outcome, &[json!({"n": 1})]);
        assert_eq!(read(&journal), Vec::<Value>::new());
    }
}
