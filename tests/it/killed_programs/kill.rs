//! Runs a writer, kills it under strace(1), sweeps, and checks what happened to each file that it left.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use orphand::core::temp_name;
use regex_lite::Regex;

use super::rows::{self, Leftover, Outcome, Outcomes, Writer};
use crate::sandbox::{CommandResult, Sandbox};

/// The grace of the sweeps, and the time for which all files are unchanged before.
const GRACE: &str = "100ms";
const OLD_ENOUGH: Duration = Duration::from_millis(110);
/// Targets are older than temps by more than a tick of the clock, as they are outside of tests.
/// The most kills until a name is clearly random. Of `write-file-atomic`'s names a quarter are.
const ATTEMPTS: usize = 60;
const TARGET_AGE: Duration = Duration::from_millis(30);

/// Checks a writer with a whole target and without a target, with the default names and with its rows.
pub(super) fn check(writer: &Writer) {
    for target_is_whole in [true, false] {
        let case = Case {
            writer,
            target_is_whole,
        };
        if case.leaves().next().is_none() {
            continue;
        }
        // The files that the default names leave alone are swept again with the rows on.
        case.check(&[Names::Default, Names::Rows]);
        // A fresh leftover, if the rows change what the default names do.
        let changes = |(_, outcomes): (_, Outcomes)| {
            outcomes.default != Outcome::Untouched && outcomes.default != outcomes.named
        };
        if case.leaves().any(changes) {
            case.check(&[Names::Rows]);
        }
    }
}

/// The names that a sweep takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Names {
    Default,
    Rows,
}

/// A writer in one state of its target.
#[derive(Clone, Copy)]
struct Case<'a> {
    writer: &'a Writer,
    target_is_whole: bool,
}

impl fmt::Debug for Case<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let target = match (self.writer.target, self.target_is_whole) {
            (None, _) => "no target",
            (_, true) => "target whole",
            (_, false) => "target missing",
        };
        write!(f, "{}, {target}", self.writer.name)
    }
}

/// A file that the killed writer left.
#[derive(Debug)]
struct Left {
    outcomes: Outcomes,
    content: Vec<u8>,
    mode: u32,
}

impl Left {
    fn new(file: &Path, outcomes: Outcomes) -> Left {
        Left {
            outcomes,
            content: fs::read(file).unwrap(),
            mode: fs::metadata(file).unwrap().permissions().mode(),
        }
    }
}

impl<'a> Case<'a> {
    /// Returns what the writer leaves in this state.
    fn leaves(self) -> impl Iterator<Item = (&'a Leftover, Outcomes)> {
        self.writer.leaves.iter().filter_map(move |leftover| {
            let outcomes = match self.target_is_whole {
                true => leftover.whole,
                false => leftover.missing,
            };
            Some((leftover, outcomes?))
        })
    }

    fn check(self, sweeps: &[Names]) {
        let sandbox = Sandbox::new();
        let stage = Scripts::new(&sandbox, sandbox.base().to_owned(), self.writer);
        stage.run(self.writer.prepare, "a", Run::Whole);
        if self.target_is_whole {
            stage.run(self.writer.write, &"a".repeat(60), Run::Whole);
            stage.sandbox.age(TARGET_AGE);
        }
        let mut left = self.killed_writes(&stage);
        if !self.target_is_whole
            && let Some(target) = self.writer.target
        {
            let content = fs::read(stage.path(target)).unwrap_or_default();
            assert!(content.is_empty(), "{self:?}: {target} has data");
        }
        for names in sweeps {
            self.sweep(&stage, *names, &mut left);
        }
        stage.run(self.writer.check, &"z".repeat(60), Run::Whole);
    }

    /// Kills the writer, twice if that leaves two temps: the larger one first. Returns the files that it left.
    fn killed_writes(self, stage: &Scripts<'_>) -> BTreeMap<String, Left> {
        let texts: &[String] = match self.writer.leaves_several {
            true => &["b".repeat(60), "c".repeat(50)],
            false => &["b".repeat(60)],
        };
        let mut left = BTreeMap::new();
        for text in texts {
            left.extend(self.killed_write(stage, text));
        }
        assert!(left.len() >= texts.len(), "{self:?} left {:?}", left.keys());
        left
    }

    /// Kills the writer until all random parts of the names are clearly random.
    fn killed_write(self, stage: &Scripts<'_>, text: &str) -> BTreeMap<String, Left> {
        let finished = whole_match(self.writer.finished);
        let patterns = self
            .leaves()
            .map(|(leftover, outcomes)| (whole_match(leftover.path), outcomes));
        let patterns: Vec<_> = patterns.collect();
        for _ in 0..ATTEMPTS {
            let before = stage.files();
            let result = stage.run(self.writer.write, text, Run::Killed);
            let output = format!("{}{}", result.stdout, result.stderr);
            let (mut seen, mut left) = (BTreeSet::new(), BTreeMap::new());
            let mut is_clear = true;
            for path in stage.files().difference(&before) {
                let known = patterns.iter().enumerate();
                let mut known = known.filter_map(|(number, (path_is, outcomes))| {
                    Some((number, path_is.captures(path)?, *outcomes))
                });
                let Some((number, captures, outcomes)) = known.next() else {
                    assert!(finished.is_match(path), "{self:?} left {path}\n{output}");
                    continue;
                };
                seen.insert(number);
                let random = captures.get(1).map(|part| part.as_str());
                is_clear &= random.is_none_or(rows::is_clearly_random);
                left.insert(path.clone(), Left::new(&stage.path(path), outcomes));
            }
            let all_seen = seen.len() == patterns.len();
            assert!(all_seen, "{self:?} left {:?}\n{output}", left.keys());
            if is_clear {
                return left;
            }
            for path in left.keys() {
                fs::remove_file(stage.path(path)).unwrap();
            }
        }
        panic!("{self:?}: no clearly random name in {ATTEMPTS} attempts");
    }

    /// Sweeps the root, checks the outcomes, and restores what was moved. Files that stay are left for another sweep.
    fn sweep(self, stage: &Scripts<'_>, names: Names, left: &mut BTreeMap<String, Left>) {
        stage.sandbox.age(OLD_ENOUGH);
        let before = stage.files();
        let mut args = vec!["-r", "--grace", GRACE];
        let rows = self.writer.known_rows();
        if names == Names::Rows {
            args.extend(rows.iter().flat_map(|row| ["--writer", row]));
        }
        let result = stage.sandbox.sweep(&args).exit(0);
        let events = result.events();
        let (mut moved, mut faults) = (Vec::new(), Vec::new());
        let mut expected_gone = BTreeSet::new();
        for (path, one) in &*left {
            let expected = match names {
                Names::Default => one.outcomes.default,
                Names::Rows => one.outcomes.named,
            };
            let full = format!("{}/{path}", stage.sandbox.root().display());
            let about: Vec<_> = (events.0.iter())
                .filter(|event| event["path"] == full.as_str())
                .map(|event| match event["event"].as_str() {
                    Some("reaped") => "removed".to_owned(),
                    Some("quarantined") => "moved".to_owned(),
                    Some(other) => format!("{other} {}", event["reason"]),
                    None => String::new(),
                })
                .collect();
            let wanted = match expected {
                Outcome::Removed => vec!["removed".to_owned()],
                Outcome::Moved => vec!["moved".to_owned()],
                Outcome::Kept(reason) => vec![format!("kept \"{reason}\"")],
                Outcome::Untouched => vec![],
            };
            if about != wanted {
                let fault = format!("{self:?}, {names:?}: {path}: {about:?} instead of {wanted:?}");
                faults.push(fault);
            }
            if matches!(expected, Outcome::Removed | Outcome::Moved) {
                expected_gone.insert(path.clone());
            }
            if expected == Outcome::Moved {
                moved.push(path.clone());
            }
        }
        assert!(
            faults.is_empty(),
            "{faults:#?}\n{}{}",
            result.stdout,
            result.stderr
        );
        // Nothing else has changed: in particular no finished file.
        let after = stage.files();
        let stored = |path: &&String| path.starts_with(".orphand/");
        let gone: BTreeSet<_> = before.difference(&after).cloned().collect();
        let new: Vec<_> = after
            .difference(&before)
            .filter(|path| !stored(path))
            .collect();
        assert_eq!(
            (gone, new),
            (expected_gone, vec![]),
            "{self:?}: {}",
            result.stdout
        );
        for path in moved {
            let full = stage.path(&path);
            stage
                .sandbox
                .run(["restore".as_ref(), full.as_os_str()])
                .exit(0);
            let one = &left[&path];
            assert_eq!(fs::read(&full).unwrap(), one.content, "{path}");
            assert_eq!(
                fs::metadata(&full).unwrap().permissions().mode(),
                one.mode,
                "{path}"
            );
            fs::remove_file(full).unwrap();
            left.remove(&path);
        }
        left.retain(|path, _| after.contains(path));
    }
}

impl Writer {
    /// Returns its rows in the catalog, or every row if none is meant for it.
    fn known_rows(&self) -> Vec<&'static str> {
        match self.rows {
            [] => temp_name::writers().map(|row| row.name.as_str()).collect(),
            rows => rows.to_vec(),
        }
    }
}

/// How a script runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Run {
    Whole,
    /// `run` kills its program.
    Killed,
    /// A program that can write several times does so.
    Times(usize),
}

/// The scripts of a writer, which run in a base directory with the directory `root`.
pub(super) struct Scripts<'a> {
    sandbox: &'a Sandbox,
    base: PathBuf,
    pub(super) writer: &'a Writer,
    leftovers: Vec<Regex>,
}

impl<'a> Scripts<'a> {
    /// Creates in `base` what the scripts rely on.
    pub(super) fn new(sandbox: &'a Sandbox, base: PathBuf, writer: &'a Writer) -> Scripts<'a> {
        for dir in ["root", "home"] {
            fs::create_dir_all(base.join(dir)).unwrap();
        }
        crate::sandbox::write(&base.join("write.mjs"), include_str!("write.mjs"));
        crate::sandbox::write(&base.join("write.py"), include_str!("write.py"));
        symlink(
            rows::packages().join("node_modules"),
            base.join("node_modules"),
        )
        .unwrap();
        let leftovers = writer
            .leaves
            .iter()
            .map(|leftover| whole_match(leftover.path));
        let leftovers = leftovers.collect();
        Scripts {
            sandbox,
            base,
            writer,
            leftovers,
        }
    }

    /// Runs a script with this text to its end, and asserts that it succeeds, unless it kills its program.
    #[track_caller]
    pub(super) fn run(&self, script: &str, text: &str, run: Run) -> CommandResult {
        let result = self.sandbox.finish(self.command(script, text, run));
        match run {
            Run::Killed => result,
            Run::Whole | Run::Times(_) => result.exit(0),
        }
    }

    fn command(&self, script: &str, text: &str, run: Run) -> Command {
        // Without --seccomp-bpf, which makes strace 6.1 return the error but not send the signal.
        let strace = self.writer.kill.strace().join(" ");
        let killed = format!("strace -f -qq -o trace {strace} \"$@\" || true");
        let runner = match run {
            Run::Whole | Run::Times(_) => "\"$@\"",
            Run::Killed => &killed,
        };
        let functions = format!(
            "run() {{ {runner}; }}\nwrite() {{ {}\n}}\n",
            self.writer.write
        );
        let mut command = self.sandbox.program("sh");
        command
            .args(["-eu", "-c", &(functions + script)])
            .current_dir(&self.base);
        let times = match run {
            Run::Times(times) => times,
            Run::Whole | Run::Killed => 1,
        };
        let names = [
            "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK",
            "BORG_RELOCATED_REPO_ACCESS_IS_OK",
        ];
        command.envs(names.map(|name| (name, "yes")));
        for name in ["GIT_AUTHOR", "GIT_COMMITTER"] {
            command.env(format!("{name}_NAME"), "writer");
            command.env(format!("{name}_EMAIL"), "writer@localhost");
        }
        command
            .env("text", text)
            .env("times", times.to_string())
            .env("PATH", rows::path_variable())
            .env("PYTHONPATH", rows::packages().join("python"))
            .env("SELF", std::env::current_exe().unwrap())
            .env("LC_ALL", "C.UTF-8")
            .env("HOME", self.base.join("home"))
            .env("BORG_BASE_DIR", self.base.join("root/home"));
        command
    }

    /// Reports whether the random part of a temp that the killed writer leaves is clearly random. Returns `None` if
    /// this path below `root` is not one of such a temp.
    pub(super) fn is_clear_leftover(&self, path: &str) -> Option<bool> {
        let captures = self
            .leftovers
            .iter()
            .find_map(|leftover| leftover.captures(path))?;
        let random = captures.get(1).map(|part| part.as_str());
        Some(random.is_none_or(rows::is_clearly_random))
    }

    /// Returns a path below `root`.
    pub(super) fn path(&self, below: &str) -> PathBuf {
        self.base.join("root").join(below)
    }

    /// Returns the paths of all regular files below `root`.
    pub(super) fn files(&self) -> BTreeSet<String> {
        let root = self.base.join("root");
        let mut files = BTreeSet::new();
        collect(&root, &root, &mut files);
        files
    }
}

fn collect(root: &Path, dir: &Path, files: &mut BTreeSet<String>) {
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if entry.file_type().unwrap().is_dir() {
            collect(root, &path, files);
        } else {
            let below = path.strip_prefix(root).unwrap();
            files.insert(below.to_str().unwrap().to_owned());
        }
    }
}

fn whole_match(pattern: &str) -> Regex {
    Regex::new(&format!("^(?:{pattern})$")).unwrap()
}

/// The writer of the crate tempfile: persists `$text` at the path in `ORPHAND_TEST_PERSIST`.
#[test]
#[ignore = "a program that other tests run and kill"]
fn persist_a_tempfile() {
    let path = std::env::var_os("ORPHAND_TEST_PERSIST").expect("the path to write");
    let path = Path::new(&path);
    let text = std::env::var("text").unwrap() + "\n";
    let mut temp = tempfile::NamedTempFile::new_in(path.parent().unwrap()).unwrap();
    temp.write_all(text.as_bytes()).unwrap();
    temp.persist(path).unwrap();
    assert_eq!(fs::read_to_string(path).unwrap(), text);
}
