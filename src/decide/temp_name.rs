//! What a base name tells: whether a rule takes it, and what it was to be renamed to.
//!
//! Names come from whoever may write into a watched directory, so they are bytes: nothing here
//! indexes, unwraps or assumes UTF-8. Absent on purpose: files and clocks. Whether a target exists
//! and whether a pid lives is asked elsewhere, of the system.
//!
//! A grammar is a pattern such as `<t>.<pid>.<uuid>.tmp`: `<t>` is what the temp was meant for,
//! `<pid>` a process id, `<uuid>` 8-4-4-4-12 hex digits, `<n>` decimal digits, `<hex:12>`,
//! `<digits:10>` and `<alnum:6>` that many lower-case hex digits, decimal digits or ASCII letters
//! and digits. The rest stands for itself.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStrExt;

use super::glob::{self, Alternative};
use super::reserved::{self, Reserved, ReservedName, TakenBy};
use globset::{Candidate, Glob, GlobSet};

/// The names of a rule that gives none.
const DEFAULT: &str = "*.tmp";

/// Our own things: the quarantine, and what a reap holds for a moment. No rule can name them.
const OURS: &[u8] = b".orphand";

/// Linux' `PID_MAX_LIMIT`; no other system goes higher. More than this is a time or a hash.
const PID_MAX: u32 = 4_194_304;

/// See [`ParsedName::dot_is_prefix`].
const HIDDEN: &str = "<t>.<pid>.<uuid>.tmp";

/// Tried in this order for every rule; the first that fits wins.
const BUILT_IN: [&str; 5] = [
    HIDDEN,
    "<t>.<uuid>.tmp",
    "<t>.<pid>.<n>.tmp",
    "<t>.<pid>.tmp",
    "<t>.tmp",
];

/// Grammars that only a rule turns on. A new one is a row here and a row in the tests below.
const WRITERS: &[WriterGrammar] = &[
    WriterGrammar {
        name: "claude-code",
        patterns: &["<t>.tmp.<pid>.<hex:12>"],
        producer: "Claude Code, beside ~/.claude.json; as reported in \
                   https://github.com/anthropics/claude-code/issues/87677 and 89565",
        truncates_at: None,
    },
    WriterGrammar {
        name: "atomically",
        // The end of the time in milliseconds, then a random number.
        patterns: &["<t>.tmp-<digits:10><hex:6>"],
        producer: "npm atomically, and conf by it: src/utils/temp.ts in \
                   https://github.com/fabiospampinato/atomically, source/index.ts in \
                   https://github.com/sindresorhus/conf",
        // LIMIT_BASENAME_LENGTH, in UTF-16 units; a name never has fewer bytes than those.
        truncates_at: Some(128),
    },
    WriterGrammar {
        name: "git",
        // The object's or pack's own name is a hash of what is being written: not in the temp's.
        patterns: &["tmp_obj_<alnum:6>", "tmp_pack_<alnum:6>"],
        producer: "git: create_tmpfile in object-file.c, create_tmp_packfile in pack-write.c, \
                   builtin/index-pack.c, the letters in wrapper.c; https://github.com/git/git",
        truncates_at: None,
    },
];

/// A program whose temp names are known, for a rule to turn on by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriterGrammar {
    /// What a rule calls it.
    pub name: &'static str,
    /// Its temp names, in the notation of this module.
    pub patterns: &'static [&'static str],
    /// Who makes such names, and where that can be read: project, file or issue, URL.
    pub producer: &'static str,
    /// From this many bytes on, a temp's name may have lost a part of the target's: none is read.
    pub truncates_at: Option<usize>,
}

/// Every writer that a rule can turn on.
pub fn writers() -> impl Iterator<Item = &'static WriterGrammar> {
    WRITERS.iter()
}

/// What a grammar reads out of a temp's base name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ParsedName {
    /// The pattern of the grammar that fitted; `None`: no grammar fits.
    pub grammar: Option<&'static str>,
    /// Base names the temp may have been meant for, best first; empty: not derivable.
    ///
    /// A leading dot may be the target's or the writer's, so `.t` is followed by `t`. Digits that
    /// may be a pid or the end of the target stay in it: it is the longest that could be meant.
    pub targets: Vec<OsString>,
    /// The same with the digits before a uuid, which are the pid unless something in the directory says otherwise.
    /// Empty where there are none.
    pub numbered_targets: Vec<OsString>,
    /// The writer, where the grammar says that digits are a pid.
    pub pid: Option<u32>,
    /// Each write makes another such name, so they pile up; a fixed name (`<t>.tmp`) does not.
    pub is_random: bool,
}

impl ParsedName {
    /// Whether a leading dot is known to be the writer's: of all that name their temps so, those that hide
    /// them (pnpm, and openclaw until it left the dot away).
    #[must_use]
    pub fn dot_is_prefix(&self) -> bool {
        self.grammar == Some(HIDDEN)
    }

    /// The same name, with the digits before its uuid read as the end of its target.
    #[must_use]
    pub fn with_numbered_targets(self) -> ParsedName {
        ParsedName {
            targets: self.numbered_targets,
            numbered_targets: Vec::new(),
            ..self
        }
    }
}

/// Why names cannot be compiled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// An empty glob.
    #[error("a name pattern is empty and would match nothing; leave it out (then it is \"*.tmp\")")]
    EmptyGlob,
    /// A glob that is meant for paths.
    #[error(
        "the name pattern {glob:?} contains a \"/\", but only the last part of a path is compared; \
         write {instead:?} and give the directory as the root"
    )]
    PathGlob {
        /// As given.
        glob: String,
        /// What was probably meant.
        instead: String,
    },
    /// A glob that does not parse.
    #[error(
        "the name pattern {glob:?} cannot be read: {why}; \
         put a backslash before a special character that stands for itself"
    )]
    BadGlob {
        /// As given.
        glob: String,
        /// What is wrong with it.
        why: String,
    },
    /// A glob that fits names of every kind.
    #[error(
        "the name pattern {glob:?} is too broad: it takes names without any letter or digit of its \
         own; write what the temps' names have in common, like \"*.tmp\", or allow it: \
         --allow-broad-name (in the file: broad_names = true)"
    )]
    BroadGlob {
        /// As given.
        glob: String,
    },
    /// A writer that is not in the table.
    #[error(
        "no writer is called {name:?}; did you mean {nearest:?}? `--writer list` shows them all"
    )]
    UnknownWriter {
        /// As given.
        name: String,
        /// The writer whose name takes the fewest changes.
        nearest: &'static str,
    },
}

/// Which base names a rule takes: globs and opt-in writers' grammars, compiled.
///
/// Globs are compared as bytes, and case counts. `.syncthing.*.tmp`, `<digits>.tmp` and a bare
/// `.tmp` are left alone unless a writer's grammar fits or a glob names them: `[0-9]*.tmp` names
/// `0.tmp`, while `*.tmp`, `*` and whatever else takes just any temp do not.
#[derive(Clone, Debug)]
pub struct Names {
    /// `*.tmp`, in nearly every rule: a comparison of four bytes instead of a glob.
    tmp: bool,
    globs: Vec<NameGlob>,
    writers: Vec<Grammar>,
    built_in: Vec<Grammar>,
}

#[derive(Clone, Debug)]
struct NameGlob {
    text: String,
    set: GlobSet,
    /// Takes just any temp, so it names none of those left alone.
    generic: bool,
    /// The alternatives that are whole names, without any wildcard.
    whole: Vec<String>,
    /// The literal text at the end of each of its alternatives.
    endings: Vec<String>,
    /// The same glob without the `*` at its end, if it ends in one.
    without_star: Option<GlobSet>,
    /// One of its alternatives ends in `*`.
    has_open_end: bool,
    /// One of its alternatives has no literal character that counts.
    broad: bool,
}

impl Default for Names {
    /// `*.tmp` and no writers.
    fn default() -> Names {
        let built_in = BUILT_IN
            .iter()
            .filter_map(|p| Grammar::new(p, None))
            .collect();
        Names {
            tmp: true,
            globs: Vec::new(),
            writers: Vec::new(),
            built_in,
        }
    }
}

impl Names {
    /// Compiles a rule's globs (none: `*.tmp`) and the writers that it turns on.
    ///
    /// A glob without a literal character other than `.`, `-`, `_` and `~` is refused, because it fits names
    /// of every kind. Wildcards and classes are no literals, an escaped character is one; of alternatives in
    /// braces each must have one.
    pub fn new<G: AsRef<str>, W: AsRef<str>>(
        globs: &[G],
        writers: &[W],
    ) -> Result<Names, NameError> {
        Names::compile(globs, writers, false)
    }

    /// The same without that refusal.
    pub fn allowing_broad<G: AsRef<str>, W: AsRef<str>>(
        globs: &[G],
        writers: &[W],
    ) -> Result<Names, NameError> {
        Names::compile(globs, writers, true)
    }

    fn compile<G: AsRef<str>, W: AsRef<str>>(
        globs: &[G],
        writers: &[W],
        allow_broad: bool,
    ) -> Result<Names, NameError> {
        let mut names = Names {
            tmp: globs.is_empty(),
            ..Names::default()
        };
        for glob in globs.iter().map(AsRef::as_ref) {
            if glob == DEFAULT {
                names.tmp = true;
            } else {
                let compiled = NameGlob::new(glob)?;
                if rule!("broad-names-are-refused", compiled.broad && !allow_broad) {
                    let glob = glob.to_owned();
                    return Err(NameError::BroadGlob { glob });
                }
                names.globs.push(compiled);
            }
        }
        for name in writers.iter().map(AsRef::as_ref) {
            let Some(writer) = WRITERS.iter().find(|w| w.name == name) else {
                return Err(unknown_writer(name));
            };
            let patterns = writer.patterns.iter();
            names
                .writers
                .extend(patterns.filter_map(|p| Grammar::new(p, writer.truncates_at)));
        }
        Ok(names)
    }

    /// Whether the rule takes this base name.
    ///
    /// Asked for every event of a watched directory. With the default names it allocates nothing
    /// and compares a few bytes; a glob may run a regex.
    #[must_use]
    pub fn matches(&self, name: &[u8]) -> bool {
        if name.starts_with(OURS) {
            return false;
        }
        let is_taken =
            self.takes_by_default(name) || self.writer_takes(name) || self.glob_takes(name);
        rule!("only-names-of-the-rule", is_taken, without: true)
    }

    fn takes_by_default(&self, name: &[u8]) -> bool {
        self.tmp && name.ends_with(b".tmp") && !left_alone(name)
    }

    fn writer_takes(&self, name: &[u8]) -> bool {
        let mut writers = self.writers.iter();
        writers.any(|writer| writer.parts(name).is_some())
    }

    fn glob_takes(&self, name: &[u8]) -> bool {
        if self.globs.is_empty() {
            return false;
        }
        let candidate = Candidate::from_bytes(name);
        let left_alone = left_alone(name);
        self.globs
            .iter()
            .any(|glob| !(left_alone && glob.generic) && glob.set.is_match_candidate(&candidate))
    }

    /// Returns the cause for which a name that the rule takes is reserved, as far as name and rule alone tell.
    ///
    /// A writer's grammar frees no name of the list: the list wins.
    #[must_use]
    pub fn reserved(&self, name: &[u8]) -> Option<Reserved> {
        if self.globs.iter().any(|glob| glob.is_whole(name)) {
            return None;
        }
        let frees = |row: &reserved::ReservedName, glob: &NameGlob| {
            let mut endings = glob.endings.iter();
            row.taken_by == TakenBy::Ending
                && endings.any(|ending| row.has_ending(ending.as_bytes()))
                && glob.set.is_match_candidate(&Candidate::from_bytes(name))
        };
        let is_freed =
            |row: &reserved::ReservedName| self.globs.iter().any(|glob| frees(row, glob));
        let is_kept =
            |row: &&reserved::ReservedName| rule!("reserved-names-are-kept", !is_freed(row));
        if let Some(row) = reserved::rows(name).find(is_kept) {
            return Some(Reserved::Listed(row));
        }
        let fits = |set: &GlobSet| set.is_match_candidate(&Candidate::from_bytes(name));
        let star = |glob: &&NameGlob| glob.without_star.as_ref().is_some_and(fits);
        let glob = self.globs.iter().find(star)?;
        let mut others = self.globs.iter().filter(|glob| !glob.has_open_end);
        let is_taken_otherwise = self.takes_by_default(name)
            || self.writer_takes(name)
            || others.any(|glob| fits(&glob.set));
        rule!("empty-star-is-the-file", !is_taken_otherwise)
            .then(|| Reserved::EmptyStar(glob.text.clone()))
    }

    /// Returns the names that one of `names` may be meant for, each with that one. Both are names that the rule
    /// takes.
    ///
    /// Every grammar that fits counts here, not only the first, and every target that it may mean.
    pub fn targets_among<'n>(
        &self,
        names: impl Iterator<Item = &'n OsStr>,
    ) -> HashMap<OsString, OsString> {
        let mut targets = HashMap::new();
        for name in names {
            self.each_target(name.as_bytes(), &mut |target| {
                targets.insert(OsStr::from_bytes(target).to_owned(), name.to_owned());
            });
        }
        targets
    }

    /// Returns true if the rule takes `name` and may take its target too. With the default names that is rare:
    /// the target would have to end in `.tmp`.
    #[must_use]
    pub fn may_have_target(&self, name: &[u8]) -> bool {
        let is_default = self.globs.is_empty() && self.writers.is_empty();
        let stem = name.strip_suffix(b".tmp").unwrap_or_default();
        let has_tmp = |at| {
            stem.get(at..)
                .is_some_and(|rest: &[u8]| rest.starts_with(b".tmp"))
        };
        (!is_default || memchr::memchr_iter(b'.', stem).any(has_tmp)) && self.matches(name)
    }

    /// Calls `each` with every name that the rule takes and that `name`, which it takes too, may be meant for.
    fn each_target(&self, name: &[u8], each: &mut dyn FnMut(&[u8])) {
        if !self.may_have_target(name) {
            return;
        }
        for grammar in self.writers.iter().chain(&self.built_in) {
            let Some(parts) = grammar.parts(name) else {
                continue;
            };
            let end = grammar.tokens.last();
            let longest = match end {
                Some(Token::Literal(end)) => name.strip_suffix(end.as_bytes()),
                _ => None,
            };
            for target in [parts.target, longest].into_iter().flatten() {
                let without_dot = target.strip_prefix(b".").unwrap_or_default();
                for target in [target, without_dot] {
                    if self.matches(target) {
                        each(target);
                    }
                }
            }
        }
    }

    /// Returns patterns that take nothing, because every name that they fit is reserved, each with its row.
    #[must_use]
    pub fn ineffective_globs(&self) -> Vec<(&str, &'static ReservedName)> {
        let row = |glob: &&NameGlob| {
            let is_it = |row: &&ReservedName| row.taken_by == TakenBy::WholeName;
            let row_of = |ending: &String| {
                let mut rows = reserved::LIST.iter().filter(is_it);
                rows.find(|row| row.has_ending(ending.as_bytes()))
            };
            let rows: Option<Vec<&ReservedName>> = glob.endings.iter().map(row_of).collect();
            rows?.first().copied().filter(|_| glob.whole.is_empty())
        };
        let globs = self.globs.iter();
        globs
            .filter_map(|glob| Some((glob.text.as_str(), row(&glob)?)))
            .collect()
    }

    /// Patterns that end in `*` and also fit the very file that they were written for, each with a narrower
    /// one.
    #[must_use]
    pub fn narrower(&self) -> Vec<NarrowerGlob> {
        let narrower = |glob: &NameGlob| {
            let stem = glob.text.strip_suffix('*')?;
            let is_plain = |c: char| !r"*?[]{}\".contains(c);
            let is_file = stem.ends_with(char::is_alphanumeric)
                && !stem.ends_with(".tmp")
                && stem.chars().all(is_plain);
            is_file.then(|| NarrowerGlob {
                glob: glob.text.clone(),
                file: stem.to_owned(),
                instead: format!("{stem}.*.tmp"),
            })
        };
        self.globs.iter().filter_map(narrower).collect()
    }

    /// Reads a base name by the rule's writers first, then by the built-in grammars.
    #[must_use]
    pub fn parse(&self, name: &OsStr) -> ParsedName {
        self.writers
            .iter()
            .chain(&self.built_in)
            .find_map(|grammar| grammar.read(name.as_bytes()))
            .unwrap_or_default()
    }
}

/// A pattern that is broader than needed, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NarrowerGlob {
    /// As given.
    pub glob: String,
    /// The file that it was written for, which it fits too.
    pub file: String,
    /// The narrower one.
    pub instead: String,
}

impl fmt::Display for NarrowerGlob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let NarrowerGlob {
            glob,
            file,
            instead,
        } = self;
        write!(
            f,
            "the name pattern {glob:?} also fits {file:?}, which is kept as reserved; \
             where all its temps end in \".tmp\", {instead:?} is enough"
        )
    }
}

/// The form that the names of one writer's temps have in common: `sessions.json.<uuid>.tmp`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// The name with its random parts replaced by what they are.
    pub form: OsString,
    /// The shortest target that may be meant: without digits that may be a pid.
    pub target: Option<OsString>,
    /// The same with those digits, where there are any.
    pub numbered_target: Option<OsString>,
    /// A built-in grammar with a uuid, or a writer that the rule turns on.
    pub is_known: bool,
}

impl Names {
    /// Returns the shape of a base name, by the grammar that [`Names::parse`] reads it with.
    ///
    /// Digits that read as a date stay as they are: `log.2024.<uuid>.tmp` is no copy of `log.2025`.
    #[must_use]
    pub fn shape(&self, name: &OsStr) -> Shape {
        let writers = self.writers.iter().map(|grammar| (grammar, true));
        let built_in = self.built_in.iter().map(|grammar| (grammar, false));
        writers
            .chain(built_in)
            .find_map(|(grammar, is_writers)| grammar.shape(name.as_bytes(), is_writers))
            .unwrap_or_else(|| Shape {
                form: form_without_grammar(name.as_bytes()),
                target: None,
                numbered_target: None,
                is_known: false,
            })
    }
}

/// Replaces what counts or is drawn at random in a name that no grammar reads.
fn form_without_grammar(name: &[u8]) -> OsString {
    let mut form = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some((&first, others)) = rest.split_first() {
        // A uuid begins only where no letter or digit stands before it.
        let starts = !form.last().is_some_and(u8::is_ascii_alphanumeric);
        if let Some((_, after)) = rest.split_at_checked(36).filter(|(uuid, after)| {
            starts
                && strip_uuid(uuid).is_some_and(<[u8]>::is_empty)
                && !after.first().is_some_and(u8::is_ascii_alphanumeric)
        }) {
            form.extend_from_slice(b"<uuid>");
            rest = after;
            continue;
        }
        if !first.is_ascii_alphanumeric() {
            form.push(first);
            rest = others;
            continue;
        }
        let end = rest
            .iter()
            .take_while(|b| b.is_ascii_alphanumeric())
            .count();
        let (run, after) = rest.split_at(end);
        let digits = run.iter().filter(|b| b.is_ascii_digit()).count();
        form.extend_from_slice(match run.len() {
            len if len == digits => b"<n>",
            6.. if digits > 0 && run.iter().all(is_lower_hex) => b"<hex>",
            _ => run,
        });
        rest = after;
    }
    OsStr::from_bytes(&form).to_owned()
}

/// Returns whether digits are likely a part of a name instead of a pid: a year from 1900 to 2100, with or without a
/// month, or a date of six digits; or they begin with 0.
fn reads_as_date(digits: &[u8]) -> bool {
    let number =
        |part: Option<&[u8]>| -> Option<u32> { std::str::from_utf8(part?).ok()?.parse().ok() };
    let within = |part: Option<&[u8]>, range: std::ops::RangeInclusive<u32>| {
        number(part).is_some_and(|number| range.contains(&number))
    };
    let year = |part| within(part, 1900..=2100);
    let month = |part| within(part, 1..=12);
    let day = |part| within(part, 1..=31);
    digits.starts_with(b"0")
        || match digits.len() {
            4 => year(Some(digits)),
            6 => {
                (year(digits.get(..4)) && month(digits.get(4..)))
                    || (month(digits.get(2..4)) && day(digits.get(4..)))
            }
            8 => year(digits.get(..4)) && month(digits.get(4..6)) && day(digits.get(6..)),
            _ => false,
        }
}

impl fmt::Display for Names {
    /// The globs and the patterns of the writers, as they were given.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let default = self.tmp.then_some(DEFAULT).into_iter();
        let globs = self.globs.iter().map(|glob| glob.text.as_str());
        let writers = self.writers.iter().map(|writer| writer.pattern);
        for (index, pattern) in default.chain(globs).chain(writers).enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{pattern}")?;
        }
        Ok(())
    }
}

/// Names that `*.tmp` covers and must not take: etcd keeps `0.tmp` and `1.tmp` ready for days as
/// its next log segments, syncthing resumes a transfer from `.syncthing.<t>.tmp` and clears those
/// away itself, and a bare `.tmp` has no target.
fn left_alone(name: &[u8]) -> bool {
    name.strip_suffix(b".tmp").is_some_and(|stem| {
        let is_number = stem.iter().all(u8::is_ascii_digit);
        rule!(
            "kept-ready-or-resumed",
            is_number || stem.starts_with(b".syncthing.")
        )
    })
}

impl NameGlob {
    fn new(glob: &str) -> Result<NameGlob, NameError> {
        if glob.is_empty() {
            return Err(NameError::EmptyGlob);
        }
        if let Some((_, last)) = glob.rsplit_once('/') {
            let usable = NameGlob::new(last).is_ok_and(|last| !last.broad);
            let instead = if usable { last } else { DEFAULT }.to_owned();
            return Err(NameError::PathGlob {
                glob: glob.to_owned(),
                instead,
            });
        }
        // A set for each, not one for all: an error then names its glob, and a pattern that is too
        // large is an error here (a lone matcher panics on it).
        let set = Glob::new(glob).and_then(|parsed| GlobSet::new([parsed]));
        let set = set.map_err(|error| NameError::BadGlob {
            glob: glob.to_owned(),
            why: glob_error_text(&error),
        })?;
        // With "/" no file can have these names: a glob that takes one was not written for it.
        let generic = ["any/thing.tmp", ".any/thing.any/thing.tmp"]
            .iter()
            .any(|name| set.is_match_candidate(&Candidate::from_bytes(name)));
        let bad = |why: String| NameError::BadGlob {
            glob: glob.to_owned(),
            why,
        };
        let all =
            glob::alternatives(glob).ok_or_else(|| bad("it has too many alternatives".into()))?;
        let starless = all.iter().filter_map(Alternative::without_star);
        let starless: Vec<Glob> = starless
            .map(|one| Glob::new(&one.text()))
            .collect::<Result<_, _>>()
            .map_err(|error| bad(glob_error_text(&error)))?;
        let without_star = match starless.is_empty() {
            true => None,
            false => Some(GlobSet::new(starless).map_err(|error| bad(glob_error_text(&error)))?),
        };
        Ok(NameGlob {
            text: glob.to_owned(),
            set,
            generic,
            whole: all.iter().filter_map(Alternative::whole_name).collect(),
            endings: all.iter().map(Alternative::ending).collect(),
            without_star,
            has_open_end: all.iter().any(Alternative::has_open_end),
            broad: !all.iter().all(Alternative::has_literal),
        })
    }

    /// Returns true if the glob is this name, without any wildcard.
    fn is_whole(&self, name: &[u8]) -> bool {
        self.whole.iter().any(|whole| whole.as_bytes() == name)
    }
}

/// What is wrong with a glob. A range names its two ends as they are: what a terminal obeys is
/// escaped.
pub(super) fn glob_error_text(error: &globset::Error) -> String {
    let shown = |char: char| match char.is_control() {
        true => char.escape_default().to_string(),
        false => char.to_string(),
    };
    error.kind().to_string().chars().map(shown).collect()
}

fn unknown_writer(name: &str) -> NameError {
    let nearest = WRITERS
        .iter()
        .map(|w| w.name)
        .min_by_key(|known| strsim::levenshtein(name, known));
    NameError::UnknownWriter {
        name: name.to_owned(),
        nearest: nearest.unwrap_or_default(),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    Target,
    Pid,
    Uuid,
    Number,
    Hex(usize),
    Digits(usize),
    Alnum(usize),
    Literal(&'static str),
}

impl Token {
    fn is_random(&self) -> bool {
        !matches!(self, Token::Target | Token::Literal(_))
    }
}

#[derive(Clone, Debug)]
struct Grammar {
    pattern: &'static str,
    tokens: Vec<Token>,
    cuts_at: Option<usize>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct NameParts<'n> {
    target: Option<&'n [u8]>,
    pid: Option<u32>,
}

impl Grammar {
    /// `None` for a pattern that is not in the notation; none of ours is, a test sees to that.
    fn new(pattern: &'static str, cuts_at: Option<usize>) -> Option<Grammar> {
        let mut tokens = Vec::new();
        for piece in pattern.split_inclusive('>') {
            let (literal, token) = piece.split_once('<').unwrap_or((piece, ""));
            if !literal.is_empty() {
                tokens.push(Token::Literal(literal));
            }
            tokens.push(match token.split_once(':').unwrap_or((token, "")) {
                ("", _) => continue,
                ("t>", _) => Token::Target,
                ("pid>", _) => Token::Pid,
                ("uuid>", _) => Token::Uuid,
                ("n>", _) => Token::Number,
                ("hex", len) => Token::Hex(len.strip_suffix('>')?.parse().ok()?),
                ("digits", len) => Token::Digits(len.strip_suffix('>')?.parse().ok()?),
                ("alnum", len) => Token::Alnum(len.strip_suffix('>')?.parse().ok()?),
                _ => return None,
            });
        }
        Some(Grammar {
            pattern,
            tokens,
            cuts_at,
        })
    }

    /// Takes the name apart from its right end, where writers put what is theirs.
    fn parts<'n>(&self, name: &'n [u8]) -> Option<NameParts<'n>> {
        let mut parts = NameParts::default();
        let mut rest = name;
        for token in self.tokens.iter().rev() {
            rest = match *token {
                Token::Literal(literal) => rest.strip_suffix(literal.as_bytes())?,
                Token::Target if rest.is_empty() => return None,
                Token::Target => {
                    parts.target = Some(rest);
                    &[]
                }
                Token::Pid => {
                    let (before, digits) = split_digits(rest)?;
                    parts.pid = Some(pid(digits)?);
                    before
                }
                Token::Number => split_digits(rest)?.0,
                Token::Uuid => strip_uuid(rest)?,
                Token::Hex(len) => before(rest, len, is_lower_hex)?,
                Token::Digits(len) => before(rest, len, u8::is_ascii_digit)?,
                Token::Alnum(len) => before(rest, len, u8::is_ascii_alphanumeric)?,
            };
        }
        rest.is_empty().then_some(parts)
    }

    fn read(&self, name: &[u8]) -> Option<ParsedName> {
        let NameParts { target, pid } = self.parts(name)?;
        let cut = self.cuts_at.is_some_and(|len| name.len() >= len);
        let target = match self.tokens.last() {
            _ if cut => None,
            Some(Token::Literal(end)) if self.digits_may_be_the_targets() => {
                name.strip_suffix(end.as_bytes())
            }
            _ => target,
        };
        let parsed = ParsedName {
            grammar: Some(self.pattern),
            targets: target.map(target_names).unwrap_or_default(),
            numbered_targets: Vec::new(),
            pid,
            is_random: self.tokens.iter().any(Token::is_random),
        };
        let (Some(target), Some(pid), true) = (target, pid, self.tokens.contains(&Token::Uuid))
        else {
            return Some(parsed);
        };
        let longest = [target, b".", pid.to_string().as_bytes()].concat();
        let parsed = ParsedName {
            numbered_targets: target_names(&longest),
            ..parsed
        };
        let is_date = reads_as_date(pid.to_string().as_bytes());
        Some(match rule!("date-is-no-pid", is_date) {
            true => parsed.with_numbered_targets(),
            false => parsed,
        })
    }

    /// The shape of a name that it fits.
    fn shape(&self, name: &[u8], is_writers: bool) -> Option<Shape> {
        let NameParts { target, .. } = self.parts(name)?;
        let is_cut = self.cuts_at.is_some_and(|len| name.len() >= len);
        let target = target.filter(|_| !is_cut);
        let pid_is_next = [Token::Target, Token::Literal("."), Token::Pid];
        // Behind the target and its dot: the pid, and the number behind that.
        let digits = target
            .filter(|_| self.tokens.starts_with(&pid_is_next))
            .and_then(|target| {
                let rest = name.get(target.len() + 1..)?;
                let numbers = rest.split(|b| *b == b'.');
                let numbers = numbers.take_while(|part| part.iter().all(u8::is_ascii_digit));
                let length: usize = numbers.map(|part| part.len() + 1).sum();
                rest.get(..length.checked_sub(1)?)
            });
        let longer = target
            .zip(digits)
            .map(|(target, digits)| [target, b".", digits].concat());
        let has_date = |digits: &[u8]| digits.split(|b| *b == b'.').any(reads_as_date);
        let is_date = rule!("date-stays-in-the-shape", digits.is_some_and(has_date));
        let target = match (&longer, is_date) {
            (Some(longer), true) => Some(longer.as_slice()),
            _ => target,
        };
        let mut form = Vec::new();
        let mut rest = self.pattern.as_bytes();
        if let Some(target) = target {
            rest = rest.strip_prefix(b"<t>")?;
            form.extend_from_slice(target);
        }
        if is_date {
            rest = rest.strip_prefix(b".<pid>")?;
            rest = rest.strip_prefix(b".<n>").unwrap_or(rest);
        }
        form.extend_from_slice(rest);
        let name_of = |bytes: &[u8]| OsStr::from_bytes(bytes).to_owned();
        Some(Shape {
            form: name_of(&form),
            target: target.map(name_of),
            numbered_target: longer.as_deref().map(name_of),
            is_known: is_writers || self.tokens.contains(&Token::Uuid),
        })
    }

    /// `report.2024.tmp` may be for `report`, by process 2024, or for `report.2024`. Beside a uuid digits that read as no
    /// date count as the pid: that is how openclaw writes `sessions.json.4711.<uuid>.tmp`.
    fn digits_may_be_the_targets(&self) -> bool {
        let pid_is_next = [Token::Target, Token::Literal("."), Token::Pid];
        self.tokens.starts_with(&pid_is_next) && !self.tokens.contains(&Token::Uuid)
    }
}

/// What stands before a number or a uuid at the end of `name`: `metrics` of `metrics.2023`.
#[must_use]
pub fn strip_number(name: &[u8]) -> Option<&[u8]> {
    let digits = split_digits(name).and_then(|(before, _)| before.strip_suffix(b"."));
    let stem = digits.or_else(|| strip_uuid(name)?.strip_suffix(b"."))?;
    (!stem.is_empty()).then_some(stem)
}

/// The readings of `<t>`, without those that no file can have as its name.
fn target_names(target: &[u8]) -> Vec<OsString> {
    [Some(target), target.strip_prefix(b".")]
        .into_iter()
        .flatten()
        .filter(|name| !matches!(*name, b"" | b"." | b"..") && !name.contains(&b'/'))
        .map(|name| OsStr::from_bytes(name).to_owned())
        .collect()
}

/// What stands before the last `len` bytes, if each of these is one of those wanted.
fn before(bytes: &[u8], len: usize, wanted: fn(&u8) -> bool) -> Option<&[u8]> {
    let (before, end) = bytes.split_at_checked(bytes.len().checked_sub(len)?)?;
    end.iter().all(wanted).then_some(before)
}

/// Returns the text before the uuid at the end.
pub(super) fn strip_uuid(bytes: &[u8]) -> Option<&[u8]> {
    let first_group = [12, 4, 4, 4].iter().try_fold(bytes, |rest, len| {
        before(rest, *len, u8::is_ascii_hexdigit)?.strip_suffix(b"-")
    });
    before(first_group?, 8, u8::is_ascii_hexdigit)
}

/// All the decimal digits at the end (at least one), and what stands before them.
fn split_digits(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let digits = bytes.iter().rev().take_while(|b| b.is_ascii_digit());
    let start = bytes.len().checked_sub(digits.count())?;
    let (before, digits) = bytes.split_at_checked(start)?;
    (!digits.is_empty()).then_some((before, digits))
}

/// Strict, because a wrong pid reads as a dead writer: no leading zero, in the kernel's range.
fn pid(digits: &[u8]) -> Option<u32> {
    let pid: u32 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    (pid <= PID_MAX && !digits.starts_with(b"0")).then_some(pid)
}

fn is_lower_hex(byte: &u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NONE: [&str; 0] = [];
    const UUID: &str = "1b4e28ba-2fa1-4d3b-A3f5-ef19b5a7633b";
    const T_PID_UUID: Option<&str> = Some("<t>.<pid>.<uuid>.tmp");
    const T_UUID: Option<&str> = Some("<t>.<uuid>.tmp");
    const T_PID_N: Option<&str> = Some("<t>.<pid>.<n>.tmp");
    const T_PID: Option<&str> = Some("<t>.<pid>.tmp");
    const T: Option<&str> = Some("<t>.tmp");

    fn names(globs: &[&str], writers: &[&str]) -> Names {
        Names::allowing_broad(globs, writers).expect("a rule of these tests")
    }

    /// In each row `U` stands for a uuid, and `*` before a form for a shape that is known.
    #[test]
    fn names_of_one_writer_have_one_shape() {
        let names = names(&NONE, &["git", "claude-code"]);
        for (name, form, target, longer) in [
            ("s.json.U.tmp", "*s.json.<uuid>.tmp", Some("s.json"), None),
            (
                "s.json.47.U.tmp",
                "*s.json.<pid>.<uuid>.tmp",
                Some("s.json"),
                Some("s.json.47"),
            ),
            (
                "log.2024.U.tmp",
                "*log.2024.<uuid>.tmp",
                Some("log.2024"),
                Some("log.2024"),
            ),
            (
                "log.0123.U.tmp",
                "*log.0123.<uuid>.tmp",
                Some("log.0123"),
                None,
            ),
            (
                "log.20240131.U.tmp",
                "*log.20240131.<uuid>.tmp",
                Some("log.20240131"),
                None,
            ),
            (
                "log.240131.tmp",
                "log.240131.tmp",
                Some("log.240131"),
                Some("log.240131"),
            ),
            (
                "log.202413.tmp",
                "log.<pid>.tmp",
                Some("log"),
                Some("log.202413"),
            ),
            ("a.47.2.tmp", "a.<pid>.<n>.tmp", Some("a"), Some("a.47.2")),
            (
                "a.47.2024.tmp",
                "a.47.2024.tmp",
                Some("a.47.2024"),
                Some("a.47.2024"),
            ),
            ("a.tmp", "a.tmp", Some("a"), None),
            (
                "c.json.tmp.47.0123456789ab",
                "*c.json.tmp.<pid>.<hex:12>",
                Some("c.json"),
                None,
            ),
            ("tmp_obj_aB3dE6", "*tmp_obj_<alnum:6>", None, None),
            ("blob-U", "blob-<uuid>", None, None),
            ("blob-017", "blob-<n>", None, None),
            ("blob-01ab7f", "blob-<hex>", None, None),
            ("film1.part", "film1.part", None, None),
        ] {
            let shape = names.shape(OsStr::new(&name.replace('U', UUID)));
            let star = if shape.is_known { "*" } else { "" };
            let shown = format!("{star}{}", shape.form.to_str().unwrap());
            let text =
                |name: &Option<OsString>| name.as_ref().map(|n| n.to_str().unwrap().to_owned());
            assert_eq!(shown, form, "{name}");
            assert_eq!(text(&shape.target).as_deref(), target, "{name}");
            assert_eq!(text(&shape.numbered_target).as_deref(), longer, "{name}");
        }
    }

    type Row<'a> = (&'a str, Option<&'a str>, &'a [&'a str], Option<u32>, bool);

    fn patterns() -> impl Iterator<Item = &'static str> {
        let writers = writers().flat_map(|writer| writer.patterns);
        writers.chain(&BUILT_IN).copied()
    }

    /// In each row `U` stands for a uuid.
    fn check(writers: &[&str], rows: &[Row<'_>]) {
        let names = names(&NONE, writers);
        for (name, grammar, targets, pid, random) in rows {
            let name = name.replace('U', UUID);
            let read = names.parse(OsStr::new(&name));
            let expected = ParsedName {
                numbered_targets: read.numbered_targets.clone(),
                grammar: patterns().find(|pattern| Some(*pattern) == *grammar),
                targets: targets
                    .iter()
                    .map(|t| OsString::from(t.replace('U', UUID)))
                    .collect(),
                pid: *pid,
                is_random: *random,
            };
            assert_eq!(expected.grammar, *grammar, "a row names an unknown grammar");
            assert_eq!(read, expected, "{name:?}");
        }
    }

    /// Digits before a uuid: the target by the name alone, and with the digits if they may belong to it.
    #[test]
    fn digits_that_may_be_the_end_of_the_target() {
        let names = names(&NONE, &NONE);
        #[rustfmt::skip]
        let rows = [
            ("metrics.4711", "metrics", Some("metrics.4711")),
            ("metrics.1900", "metrics.1900", None),
            ("metrics.2024", "metrics.2024", None),
            ("metrics.2100", "metrics.2100", None),
            ("metrics.1899", "metrics", Some("metrics.1899")),
            ("metrics.2101", "metrics", Some("metrics.2101")),
            ("metrics.202411", "metrics.202411", None),
            ("metrics.202413", "metrics", Some("metrics.202413")),
            ("metrics.202400", "metrics", Some("metrics.202400")),
            ("metrics.241129", "metrics.241129", None),
            ("metrics.241132", "metrics", Some("metrics.241132")),
            ("metrics.241329", "metrics", Some("metrics.241329")),
            ("metrics.20241129", "metrics.20241129", None),
            ("metrics.007", "metrics.007", None),
            ("metrics", "metrics", None),
        ];
        for (stem, target, numbered) in rows {
            let read = names.parse(OsStr::new(&format!("{stem}.{UUID}.tmp")));
            let first = |names: &[OsString]| names.first().cloned();
            assert_eq!(first(&read.targets), Some(target.into()), "{stem}");
            assert_eq!(
                first(&read.numbered_targets),
                numbered.map(OsString::from),
                "{stem}"
            );
            if let Some(numbered) = numbered {
                let longer = read.with_numbered_targets();
                assert_eq!(first(&longer.targets), Some(numbered.into()), "{stem}");
                assert!(longer.pid.is_some() && longer.is_random, "{stem}");
            }
        }
    }

    #[test]
    fn what_stands_before_a_number() {
        for (name, want) in [
            ("metrics.2023", Some("metrics")),
            ("metrics.1", Some("metrics")),
            (&*format!("metrics.{UUID}"), Some("metrics")),
            ("metrics2023", None),
            ("metrics", None),
            (".2023", None),
            ("", None),
        ] {
            let found = strip_number(name.as_bytes()).map(|stem| str::from_utf8(stem).unwrap());
            assert_eq!(found, want, "{name}");
        }
    }

    #[test]
    #[rustfmt::skip] // one row a line
    fn built_in_grammars() {
        check(&NONE, &[
            ("sessions.json.4711.U.tmp", T_PID_UUID, &["sessions.json"], Some(4711), true),
            (".sessions.json.4711.U.tmp", T_PID_UUID, &[".sessions.json", "sessions.json"], Some(4711), true),
            ("a.4194304.U.tmp", T_PID_UUID, &["a"], Some(4_194_304), true),
            ("a.4194305.U.tmp", T_UUID, &["a.4194305"], None, true),
            ("a.0.U.tmp", T_UUID, &["a.0"], None, true),
            ("a.0123.U.tmp", T_UUID, &["a.0123"], None, true),
            ("a.+1.U.tmp", T_UUID, &["a.+1"], None, true),
            ("4711.U.tmp", T_UUID, &["4711"], None, true),
            ("sessions.json.U.tmp", T_UUID, &["sessions.json"], None, true),
            ("a.U.U.tmp", T_UUID, &["a.U"], None, true),
            ("U.tmp", T, &["U"], None, false),
            (".U.tmp", T, &[".U", "U"], None, false),
            ("a.12.3.tmp", T_PID_N, &["a.12.3"], Some(12), true),
            ("a.12.0003.tmp", T_PID_N, &["a.12.0003"], Some(12), true),
            ("a.012.3.tmp", T_PID, &["a.012.3"], Some(3), true),
            ("a.12..tmp", T, &["a.12."], None, false),
            ("report.2024.tmp", T_PID, &["report.2024"], Some(2024), true),
            (".report.2024.tmp", T_PID, &[".report.2024", "report.2024"], Some(2024), true),
            ("report.4194305.tmp", T, &["report.4194305"], None, false),
            ("report.02.tmp", T, &["report.02"], None, false),
            ("state.tmp", T, &["state"], None, false),
            (".state.tmp", T, &[".state", "state"], None, false),
            ("..x.tmp", T, &["..x", ".x"], None, false),
            ("...x.tmp", T, &["...x", "..x"], None, false),
            ("..tmp", T, &[], None, false),
            ("...tmp", T, &[], None, false),
            ("a/b.tmp", T, &[], None, false),
            (".tmp", None, &[], None, false),
            ("state.TMP", None, &[], None, false),
            ("state", None, &[], None, false),
            ("", None, &[], None, false),
        ]);
    }

    #[test]
    #[rustfmt::skip] // one row a line
    fn writers_grammars() {
        let long = |t: usize| format!("{}.tmp-1234567890abcdef", "x".repeat(t));
        let claude = Some("<t>.tmp.<pid>.<hex:12>");
        let atomically = Some("<t>.tmp-<digits:10><hex:6>");
        let rows: &[Row<'_>] = &[
            (".claude.json.tmp.618010.1da311f03c01", claude, &[".claude.json", "claude.json"], Some(618_010), true),
            ("2024.7.tmp.9.07ff79270095", claude, &["2024.7"], Some(9), true),
            ("a.tmp.0618010.1da311f03c01", None, &[], None, false),
            ("a.tmp.618010.1DA311F03C01", None, &[], None, false),
            ("a.tmp.618010.1da311f03c0", None, &[], None, false),
            ("config.json.tmp-8123456789a1b2c3", atomically, &["config.json"], None, true),
            (&long(106), atomically, &[&"x".repeat(106)], None, true),
            (&long(107), atomically, &[], None, true),
            ("config.json.tmp-812345678a1b2c3", None, &[], None, false),
            ("tmp_obj_Ab3dE6", Some("tmp_obj_<alnum:6>"), &[], None, true),
            ("tmp_pack_Ab3dE6", Some("tmp_pack_<alnum:6>"), &[], None, true),
            ("tmp_pack_Ab3dE", None, &[], None, false),
            ("tmp_pack_Ab3-E6", None, &[], None, false),
            ("xtmp_obj_Ab3dE6", None, &[], None, false),
            // The built-in grammars stay.
            ("a.12.U.tmp", T_PID_UUID, &["a"], Some(12), true),
        ];
        let all: Vec<&str> = writers().map(|w| w.name).collect();
        check(&all, rows);
        for pattern in writers().flat_map(|w| w.patterns) {
            assert!(rows.iter().any(|row| row.1 == Some(*pattern)), "no row for {pattern}");
        }
        check(&NONE, &[(".claude.json.tmp.618010.1da311f03c01", None, &[], None, false)]);
    }

    #[test]
    #[rustfmt::skip] // one row a line
    fn what_a_rule_takes() {
        type Row<'a> = (&'a [&'a str], &'a [&'a str], &'a [u8], bool);
        let rows: &[Row<'_>] = &[
            (&[], &[], b"a.tmp", true),
            (&[], &[], b".a.tmp", true),
            (&[], &[], b"a.TMP", false),
            (&[], &[], b"a.tmp~", false),
            (&[], &[], b"tmp", false),
            (&[], &[], b"", false),
            (&[], &[], b"\xff\n\x1b[31m.tmp", true),
            (&[], &[], &[b'x'; 255], false),
            (&[], &[], b".syncthing.a.json.tmp", false),
            (&[], &[], b".syncthing.tmp", true),
            (&[], &[], b"0.tmp", false),
            (&[], &[], b"0123456789.tmp", false),
            (&[], &[], b"0a.tmp", true),
            (&[], &[], b".tmp", false),
            (&[], &[], b".orphand.tmp", false),
            (&["*.tmp"], &[], b"a.tmp", true),
            (&["*.tmp"], &[], b"0.tmp", false),
            (&["*"], &[], b"a", true),
            (&["*"], &[], b"0.tmp", false),
            (&["*"], &[], b".syncthing.a.tmp", false),
            (&["*"], &[], b".orphand", false),
            (&["**"], &[], b"0.tmp", false),
            (&["?*.tmp"], &[], b"0.tmp", false),
            (&["*.*"], &[], b".tmp", false),
            (&["*.{tmp,part}"], &[], b"0.tmp", false),
            (&["*.{tmp,part}"], &[], b"0.part", true),
            (&[".*.tmp"], &[], b".syncthing.a.tmp", false),
            (&[".*.tmp"], &[], b".a.tmp", true),
            (&["[0-9]*.tmp"], &[], b"0.tmp", true),
            (&["?.tmp"], &[], b"0.tmp", true),
            (&["*.tmp", "0.tmp"], &[], b"0.tmp", true),
            (&["*.tmp", "0.tmp"], &[], b"1.tmp", false),
            (&[".tmp"], &[], b".tmp", true),
            (&[".syncthing.*.tmp"], &[], b".syncthing.a.tmp", true),
            (&[".orphand*"], &[], b".orphand-x.tmp", false),
            (&["*.part"], &[], b"a.tmp", false),
            (&["*.part"], &[], b"a\n\xff.part", true),
            (&["a?b.part"], &[], b"a\nb.part", true),
            (&["a?b.part"], &[], b"a\xffb.part", true),
            (&["a[*]b"], &[], b"a*b", true),
            (&["a\\*b"], &[], b"axb", false),
            (&["x*"], &[], &[b'x'; 255], true),
            (&[], &["claude-code"], b"a.tmp.7.1da311f03c01", true),
            (&[], &["claude-code"], b"a.tmp", true),
            (&[], &[], b"a.tmp.7.1da311f03c01", false),
            (&["*.part"], &["git"], b"tmp_obj_Ab3dE6", true),
            (&["*.part"], &["git"], b"a.tmp", false),
            (&[], &["claude-code"], b".orphand.tmp.7.1da311f03c01", false),
        ];
        for (globs, writers, name, expected) in rows {
            let taken = names(globs, writers).matches(name);
            assert_eq!(taken, *expected, "{globs:?} {writers:?} {}", name.escape_ascii());
        }
        for (_, _, name, expected) in rows.iter().filter(|row| row.0.is_empty() && row.1.is_empty()) {
            assert_eq!(Names::default().matches(name), *expected, "{}", name.escape_ascii());
        }
    }

    #[test]
    fn a_glob_needs_a_literal_character() {
        for (glob, broad) in [
            ("*", true),
            ("**", true),
            ("?*", true),
            ("*.*", true),
            ("*-*", true),
            ("*_~.*", true),
            ("[a-z]*", true),
            ("[a]", true),
            ("{*,a*}", true),
            ("{*.tmp,*.*}", true),
            ("*.tmp", false),
            ("a*", false),
            ("*.{tmp,part}", false),
            ("{a,b}*", false),
            (r"\**", false),
            ("*#", false),
            ("*é", false),
        ] {
            let refused = NameError::BroadGlob { glob: glob.into() };
            let want = broad.then_some(refused);
            assert_eq!(Names::new(&[glob], &NONE).err(), want, "{glob}");
            assert!(Names::allowing_broad(&[glob], &NONE).is_ok(), "{glob}");
        }
        let error = Names::new(&["*.tmp", "*"], &NONE).expect_err("one of them is broad");
        let error = error.to_string();
        assert!(error.contains("--allow-broad-name"), "{error}");
        let many = "{a,b}".repeat(12);
        let error = Names::new(&[many], &NONE).expect_err("too many");
        assert!(error.to_string().contains("alternatives"), "{error}");
    }

    #[test]
    #[rustfmt::skip] // one row a line
    fn names_that_are_reserved() {
        type Row<'a> = (&'a [&'a str], &'a [&'a str], &'a str, Option<&'a str>);
        let rows: &[Row<'_>] = &[
            (&[], &[], "a.tmp", None),
            (&[], &[], "CFNetworkDownload_x.tmp", Some("CFNetworkDownload_*.tmp")),
            (&["*.tmp"], &[], "CFNetworkDownload_x.tmp", Some("CFNetworkDownload_*.tmp")),
            (&["CFNetworkDownload_*.tmp"], &[], "CFNetworkDownload_x.tmp", Some("CFNetworkDownload_*.tmp")),
            (&["CFNetworkDownload_x.tmp"], &[], "CFNetworkDownload_x.tmp", None),
            (&[], &[], ".nfs0001.tmp", Some(".nfs*")),
            (&["*-journal"], &[], "app.db-journal", Some("*-journal")),
            (&["app.db-journal"], &[], "app.db-journal", None),
            (&["app.db-*"], &[], "app.db-journal", Some("*-journal")),
            (&["*.lock"], &[], "a.lock", Some("*.lock")),
            (&["*.LOCK"], &[], "a.LOCK", Some("*.lock")),
            (&["{a,b}.lock"], &[], "b.lock", None),
            (&[r"a\.lock"], &[], "a.lock", None),
            (&["?.lock"], &[], "a.lock", Some("*.lock")),
            (&["[a].lock"], &[], "a.lock", Some("*.lock")),
            (&["*"], &[], "a.lock", Some("*.lock")),
            (&["*.part"], &[], "a.part", None),
            (&["*.{part,tmp}"], &[], "a.part", None),
            (&["a*.part"], &[], "a.part", None),
            (&["a.part"], &[], "a.part", None),
            (&["a*"], &[], "a.part", Some("*.part")),
            (&["*part"], &[], "a.part", Some("*.part")),
            (&["*.par?"], &[], "a.part", Some("*.part")),
            (&["b*.part", "a*"], &[], "a.part", Some("*.part")),
            (&["*~"], &[], "a~", None),
            (&["*"], &[], "a~", Some("*~")),
            (&["*.bak"], &[], ".nfs1.bak", Some(".nfs*")),
            (&["*.bak~"], &[], "a.bak~", None),
            (&["*-partial-7"], &[], "a-partial-7", None),
            (&["*-partial-*"], &[], "a-partial-7", Some("*-partial-<n>")),
            (&["*.backup-*"], &[], "a.backup-1b4e28ba-2fa1-4d3b-A3f5-ef19b5a7633b", Some("*.backup-<uuid>")),
            // The list wins over a writer's grammar too.
            (&[], &["claude-code"], "~$a.tmp.7.1da311f03c01", Some("~$*")),
            (&[], &["claude-code"], "a.tmp.7.1da311f03c01", None),
            // Nothing for the star.
            (&["sessions.json*"], &[], "sessions.json", Some("sessions.json*")),
            (&["sessions.json**"], &[], "sessions.json", Some("sessions.json**")),
            (&["sessions.json*"], &[], "sessions.json.1.tmp", None),
            (&["{sessions,data}.json*"], &[], "data.json", Some("{sessions,data}.json*")),
            (&["s*.json*"], &[], "sessions.json", Some("s*.json*")),
            (&["sessions.json", "sessions.json*"], &[], "sessions.json", None),
            (&["sessions.json*", "*.json"], &[], "sessions.json", None),
            (&["sessions.json*", "*"], &[], "sessions.json", Some("sessions.json*")),
            (&["*.tmp", "a*"], &[], "a", Some("a*")),
            (&["*.tmp", "a.tmp*"], &[], "a.tmp", None),
            (&["a.tmp*"], &[], "a.tmp", Some("a.tmp*")),
        ];
        for (globs, writers, name, want) in rows {
            let names = names(globs, writers);
            assert!(names.matches(name.as_bytes()), "{globs:?} {name}");
            let reserved = match names.reserved(name.as_bytes()) {
                Some(Reserved::Listed(row)) => Some(row.pattern.to_owned()),
                Some(Reserved::EmptyStar(glob)) => Some(glob),
                Some(other) => panic!("{globs:?} {name}: {other:?}"),
                None => None,
            };
            assert_eq!(reserved.as_deref(), *want, "{globs:?} {writers:?} {name}");
        }
    }

    #[test]
    #[rustfmt::skip] // one row a line
    fn targets_among_the_names_of_a_directory() {
        type Row<'a> = (&'a [&'a str], &'a [&'a str], &'a [&'a str], &'a [&'a str]);
        let rows: &[Row<'_>] = &[
            (&[], &[], &["a", "a.tmp", "b.7.U.tmp"], &[]),
            (&[], &[], &["a.tmp.tmp"], &["a.tmp"]),
            (&[], &[], &["a.tmp.U.tmp"], &["a.tmp"]),
            (&[], &[], &["a.tmp.7.tmp"], &["a.tmp"]),
            (&[], &[], &[".a.tmp.tmp"], &[".a.tmp", "a.tmp"]),
            (&[], &[], &["a.tmp.tmp.tmp"], &["a.tmp.tmp"]),
            (&[], &[], &["a.tmp~"], &[]),
            (&["sessions.json*"], &[], &["sessions.json.U.tmp"], &["sessions.json", "sessions.json.U"]),
            (&["s*"], &[], &["s.2024.tmp"], &["s", "s.2024"]),
            (&["*.json", "*.tmp"], &[], &["a.json.tmp", "b.tmp"], &["a.json"]),
            (&["*.json"], &[], &["a.json.tmp"], &[]),
            (&["*.json"], &["claude-code"], &["a.json.tmp.7.1da311f03c01"], &["a.json"]),
        ];
        for (globs, writers, there, want) in rows {
            let there: Vec<OsString> = there.iter().map(|name| name.replace('U', UUID).into()).collect();
            let targets = names(globs, writers).targets_among(there.iter().map(AsRef::as_ref));
            let mut targets: Vec<OsString> = targets.into_keys().collect();
            targets.sort();
            let want: Vec<OsString> = want.iter().map(|name| name.replace('U', UUID).into()).collect();
            assert_eq!(targets, want, "{globs:?} {there:?}");
        }
    }

    #[test]
    fn globs_that_take_nothing() {
        let all = names(
            &[
                "*-journal",
                "*.{lock,pid}",
                "*.{lock,part}",
                "a.lock",
                "*.part",
                "a*",
                "*",
            ],
            &NONE,
        );
        let without: Vec<&str> = all.ineffective_globs().iter().map(|one| one.0).collect();
        assert_eq!(without, ["*-journal", "*.{lock,pid}"]);
    }

    #[test]
    fn a_narrower_glob_for_one_file() {
        let all = names(
            &["sessions.json*", "*.part", "a*b*", "x.tmp*", "a.*", "*"],
            &NONE,
        );
        let narrower = all.narrower();
        let instead: Vec<&str> = narrower.iter().map(|one| one.instead.as_str()).collect();
        assert_eq!(instead, ["sessions.json.*.tmp"]);
        let says = narrower.first().map(ToString::to_string);
        let says = says.unwrap_or_default();
        assert!(says.contains("also fits \"sessions.json\""), "{says}");
        assert_eq!(names(&NONE, &NONE).narrower(), []);
    }

    #[test]
    fn they_are_shown_as_given() {
        let all = names(&["*.part", "*.tmp"], &["git"]);
        let want = "*.tmp, *.part, tmp_obj_<alnum:6>, tmp_pack_<alnum:6>";
        assert_eq!(all.to_string(), want);
        assert_eq!(Names::default().to_string(), "*.tmp");
        assert_eq!(names(&["*.part"], &NONE).to_string(), "*.part");
    }

    #[test]
    #[rustfmt::skip] // one row a line
    fn errors_say_what_to_do() {
        let rows: &[(&str, &str, &[&str])] = &[
            ("", "", &["empty", "leave it out"]),
            ("cache/*.part", "", &["\"cache/*.part\"", "write \"*.part\""]),
            ("cache/", "", &["write \"*.tmp\""]),
            ("{a/[b,c}", "", &["write \"*.tmp\""]),
            ("[a", "", &["\"[a\"", "unclosed character class", "backslash"]),
            ("[b-\x1b]", "", &["'b' > '\\u{1b}'"]),
            ("*.tmp", "claude", &["\"claude\"", "did you mean \"claude-code\"", "--writer list"]),
            ("*.tmp", "Git", &["did you mean \"git\""]),
            ("*.tmp", "atomicaly", &["did you mean \"atomically\""]),
        ];
        for (glob, writer, says) in rows {
            let writers: &[&str] = if writer.is_empty() { &[] } else { &[writer] };
            let error = Names::new(&[glob], writers).expect_err("a mistake").to_string();
            for part in *says {
                assert!(error.contains(part), "{error:.300} does not say {part}");
            }
        }
        assert_eq!(Names::new(&[""], &NONE).err(), Some(NameError::EmptyGlob));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(
            start in prop::sample::select(&["", ".", "..", ".syncthing.", ".orphand"][..]),
            middle in prop::collection::vec(any::<u8>(), 0..300),
            end in prop::sample::select(&["", ".tmp", ".7.tmp", ".7.8.tmp", "-1b4e.tmp", ".tmp.7.0123456789ab"][..]),
        ) {
            let name = [start.as_bytes(), &middle, end.as_bytes()].concat();
            let names = names(&["*.tmp", "[!a]?*.{part,tmp}"], &["claude-code", "atomically", "git"]);
            prop_assert!(!(names.matches(&name) && name.starts_with(OURS)));
            for target in names.parse(OsStr::from_bytes(&name)).targets {
                prop_assert!(!matches!(target.as_bytes(), b"" | b"." | b".."));
                prop_assert!(target.len() < name.len() && !target.as_bytes().contains(&b'/'));
            }
        }

        #[test]
        fn a_name_reads_back_to_its_parts(
            target in prop::collection::vec(any::<u8>(), 1..100),
            pid in 1..=PID_MAX,
            number in any::<u64>(),
            uuid in "[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}",
            random in "[0-9a-f]{40}",
            digits in "[0-9]{40}",
        ) {
            for pattern in patterns() {
                let grammar = Grammar::new(pattern, None).expect("a pattern in the notation");
                let mut expected = NameParts::default();
                let mut name = Vec::new();
                for token in &grammar.tokens {
                    let part = match *token {
                        Token::Target => { expected.target = Some(&target[..]); target.clone() }
                        Token::Pid => { expected.pid = Some(pid); pid.to_string().into_bytes() }
                        Token::Number => number.to_string().into_bytes(),
                        Token::Uuid => uuid.clone().into_bytes(),
                        Token::Hex(len) | Token::Alnum(len) => random.as_bytes()[..len].to_vec(),
                        Token::Digits(len) => digits.as_bytes()[..len].to_vec(),
                        Token::Literal(literal) => literal.as_bytes().to_vec(),
                    };
                    name.extend(part);
                }
                prop_assert_eq!(grammar.parts(&name), Some(expected), "{}", name.escape_ascii());
            }
        }
    }
}
