//! Parses base names: decides whether a rule matches a name, and finds the name of its target.
//!
//! Any process that may write to a watched directory can choose the names in it. So names are bytes, and no code here
//! indexes, unwraps or assumes UTF-8. This module reads no files and no clocks. Other modules find out whether a target
//! exists and whether a process is running.
//!
//! A grammar is a pattern such as `<t>.<pid>.<uuid>.tmp`. `<t>` is the name of the target, `<pid>` a process id,
//! `<uuid>` 8-4-4-4-12 hex digits, and `<n>` decimal digits. `<hex:12>`, `<digits:10>` and `<alnum:6>` are lower-case
//! hex digits, decimal digits, and ASCII letters or digits, each with a fixed number of characters. All other
//! characters are literal.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStrExt;

use super::glob::{self, Alternative};
use super::own_names::OWN_PREFIX;
use super::reserved::{self, IncludedBy, Reserved, ReservedName};
use super::suffix::{strip_end, strip_uuid};
use globset::{Candidate, Glob, GlobSet};

/// The pattern of a rule that sets none.
const DEFAULT: &str = "*.tmp";

/// The `PID_MAX_LIMIT` of Linux. No other system has a higher limit. A larger number is a time or a hash.
const PID_MAX: u32 = 4_194_304;

/// The grammar whose leading dot is a prefix: see [`ParsedName::dot_is_prefix`].
const HIDDEN_PATTERN: &str = "<t>.<pid>.<uuid>.tmp";

/// The grammars of every rule. They are tried in this order, and the first match is used.
const BUILT_IN: [&str; 5] = [
    HIDDEN_PATTERN,
    "<t>.<uuid>.tmp",
    "<t>.<pid>.<n>.tmp",
    "<t>.<pid>.tmp",
    "<t>.tmp",
];

/// The grammars that a rule can turn on. To add one, see CONTRIBUTING.md, *Add a writer*.
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
        // The last digits of the time in milliseconds, then a random number.
        patterns: &["<t>.tmp-<digits:10><hex:6>"],
        producer: "the npm package atomically, and conf, which uses it: src/utils/temp.ts in \
                   https://github.com/fabiospampinato/atomically, source/index.ts in \
                   https://github.com/sindresorhus/conf",
        // LIMIT_BASENAME_LENGTH, in UTF-16 code units. A name never has fewer bytes than code units.
        truncates_at: Some(128),
    },
    WriterGrammar {
        name: "git",
        // The final name is a hash of the data that is being written, and the name of the temp does not contain it.
        patterns: &["tmp_obj_<alnum:6>", "tmp_pack_<alnum:6>"],
        producer: "git: create_tmpfile in object-file.c, create_tmp_packfile in pack-write.c, \
                   builtin/index-pack.c; the random letters in wrapper.c; https://github.com/git/git",
        truncates_at: None,
    },
];

/// A program with known names of temps, which a rule can turn on by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriterGrammar {
    /// The name by which a rule turns it on.
    pub name: &'static str,
    /// The names of its temps, in the notation of this module.
    pub patterns: &'static [&'static str],
    /// The program that creates such names, and the source of this information: project, file or issue, URL.
    pub producer: &'static str,
    /// The length in bytes from which the writer may truncate the target in the name of a temp. No target is read from
    /// such a long name.
    pub truncates_at: Option<usize>,
}

/// Returns every writer that a rule can turn on.
pub fn writers() -> impl Iterator<Item = &'static WriterGrammar> {
    WRITERS.iter()
}

/// The parts that a grammar finds in the base name of a temp.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ParsedName {
    /// The pattern of the grammar that matches. `None` if none does.
    pub grammar: Option<&'static str>,
    /// The possible base names of the target, the most likely first. Empty if the name does not contain its target.
    ///
    /// A leading dot may belong to the target or be added by the writer, so `.t` is followed by `t`. Digits that may be
    /// a pid or the end of the target count as a part of the target: it is the longest possible one.
    pub targets: Vec<OsString>,
    /// The same names, with the digits before a uuid as their end. These digits are the pid unless a file in the
    /// directory shows that they belong to the target. Empty if there are no such digits.
    pub numbered_targets: Vec<OsString>,
    /// The pid of the writer, if the grammar has one.
    pub pid: Option<u32>,
    /// Each write creates another name, so temps accumulate. With a fixed name (`<t>.tmp`) they do not.
    pub is_random: bool,
}

impl ParsedName {
    /// Reports whether a leading dot is known to be added by the writer. Of the writers with this grammar, those whose
    /// temps begin with a dot add it to the target's name (pnpm, and older versions of openclaw).
    #[must_use]
    pub fn dot_is_prefix(&self) -> bool {
        self.grammar == Some(HIDDEN_PATTERN)
    }

    /// Returns the same name, with the digits before its uuid as the end of its target.
    #[must_use]
    pub fn with_numbered_targets(self) -> ParsedName {
        ParsedName {
            targets: self.numbered_targets,
            numbered_targets: Vec::new(),
            ..self
        }
    }
}

/// The reason for which names cannot be compiled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// An empty glob.
    #[error(
        "a name pattern is empty and would match nothing; leave it out (the default is \"*.tmp\")"
    )]
    EmptyGlob,
    /// A glob for paths.
    #[error(
        "the name pattern {glob:?} contains a \"/\", but only the last part of a path is compared; \
         write {instead:?}, and give the directory as DIR, or as path in the configuration file"
    )]
    PathGlob {
        /// The glob, as given.
        glob: String,
        /// The glob that was probably meant.
        instead: String,
    },
    /// A glob that does not parse.
    #[error(
        "invalid name pattern {glob:?}: {why}; to match a special character literally, put a backslash before it"
    )]
    BadGlob {
        /// The glob, as given.
        glob: String,
        /// The error in it.
        why: String,
    },
    /// A glob that matches names of every kind.
    #[error(
        "the name pattern {glob:?} is too broad: it matches names of every kind, because it contains no literal character other than \".\", \
         \"-\", \"_\" and \"~\"; write the part that the names of the temps have in common, like \"*.tmp\", or allow it: \
         --allow-broad-name, or broad_names = true in the configuration file"
    )]
    BroadGlob {
        /// The glob, as given.
        glob: String,
    },
    /// A writer that is not in the table.
    #[error(
        "unknown writer {name:?}; {} list the writers: orphand scan --writer list",
        nearest.map_or("to".to_owned(), |nearest| format!("did you mean {nearest:?}? To"))
    )]
    UnknownWriter {
        /// The name, as given.
        name: String,
        /// The writer with the most similar name, if one is similar.
        nearest: Option<&'static str>,
    },
}

/// The names that a rule matches: its compiled globs, and the grammars of the writers that it turns on.
///
/// Globs are compared as bytes, and the comparison is case-sensitive. `.syncthing.*.tmp`, `<digits>.tmp` and a bare
/// `.tmp` are ignored unless the grammar of a writer matches or a specific glob does. `[0-9]*.tmp` is specific to
/// `0.tmp`, while `*.tmp`, `*` and all other globs that match any temp are not.
#[derive(Clone, Debug)]
pub struct Names {
    /// The pattern `*.tmp`, which nearly every rule has. It is a comparison of four bytes instead of a glob.
    has_default: bool,
    globs: Vec<NameGlob>,
    writers: Vec<Grammar>,
    built_in: Vec<Grammar>,
}

#[derive(Clone, Debug)]
struct NameGlob {
    text: String,
    set: GlobSet,
    /// It matches any temp, so it does not include ignored names.
    is_generic: bool,
    /// The alternatives that are whole names, without any wildcard.
    whole_names: Vec<String>,
    /// The literal text at the end of each alternative.
    endings: Vec<String>,
    /// The alternatives that end in `*`, without that `*`. `None` if there are none.
    without_star: Option<GlobSet>,
    /// At least one alternative ends in `*`.
    has_open_end: bool,
    /// At least one alternative has no literal character that counts.
    is_broad: bool,
}

impl Default for Names {
    /// `*.tmp` and no writers.
    fn default() -> Names {
        let built_in = BUILT_IN
            .iter()
            .filter_map(|p| Grammar::new(p, None))
            .collect();
        Names {
            has_default: true,
            globs: Vec::new(),
            writers: Vec::new(),
            built_in,
        }
    }
}

impl Names {
    /// Compiles the globs of a rule (none means `*.tmp`) and the grammars of the writers that it turns on.
    ///
    /// A glob without a literal character other than `.`, `-`, `_` and `~` is refused, because it matches names of
    /// every kind. Wildcards and classes are not literal characters, and an escaped character is one. Each alternative
    /// in braces must have one.
    pub fn new<G: AsRef<str>, W: AsRef<str>>(
        globs: &[G],
        writers: &[W],
    ) -> Result<Names, NameError> {
        Names::compile(globs, writers, false)
    }

    /// Does the same as [`Names::new`], but accepts broad globs.
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
            has_default: globs.is_empty(),
            ..Names::default()
        };
        for glob in globs.iter().map(AsRef::as_ref) {
            if glob == DEFAULT {
                names.has_default = true;
            } else {
                let compiled = NameGlob::new(glob)?;
                if rule!("broad-names-are-refused", compiled.is_broad && !allow_broad) {
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

    /// Reports whether the rule matches this base name.
    ///
    /// This is called for every event of a watched directory. With the default names it does not allocate, and compares
    /// a few bytes. A glob may run a regular expression.
    #[must_use]
    pub fn matches(&self, name: &[u8]) -> bool {
        if name.starts_with(OWN_PREFIX.as_bytes()) {
            return false;
        }
        let is_match =
            self.default_matches(name) || self.writer_matches(name) || self.glob_matches(name);
        rule!("only-names-of-the-rule", is_match, without: true)
    }

    fn default_matches(&self, name: &[u8]) -> bool {
        self.has_default && name.ends_with(b".tmp") && !is_ignored(name)
    }

    fn writer_matches(&self, name: &[u8]) -> bool {
        let mut writers = self.writers.iter();
        writers.any(|writer| writer.split(name).is_some())
    }

    fn glob_matches(&self, name: &[u8]) -> bool {
        if self.globs.is_empty() {
            return false;
        }
        let candidate = Candidate::from_bytes(name);
        let is_ignored = is_ignored(name);
        self.globs
            .iter()
            .any(|glob| !(is_ignored && glob.is_generic) && glob.set.is_match_candidate(&candidate))
    }
}

#[doc(hidden)]
impl Names {
    /// Returns the reason for which a name that the rule matches is reserved, as far as it follows from the name and
    /// the rule alone.
    ///
    /// A name of the list is reserved even if the grammar of a writer matches it.
    #[must_use]
    pub fn reserved(&self, name: &[u8]) -> Option<Reserved> {
        if self.globs.iter().any(|glob| glob.is_whole(name)) {
            return None;
        }
        let includes = |row: &reserved::ReservedName, glob: &NameGlob| {
            let mut endings = glob.endings.iter();
            row.included_by == IncludedBy::Ending
                && endings.any(|ending| row.has_ending(ending.as_bytes()))
                && glob.set.is_match_candidate(&Candidate::from_bytes(name))
        };
        let is_included =
            |row: &reserved::ReservedName| self.globs.iter().any(|glob| includes(row, glob));
        let is_kept =
            |row: &&reserved::ReservedName| rule!("reserved-names-are-kept", !is_included(row));
        if let Some(row) = reserved::rows(name).find(is_kept) {
            return Some(Reserved::Listed(row));
        }
        let is_match = |set: &GlobSet| set.is_match_candidate(&Candidate::from_bytes(name));
        let has_empty_star = |glob: &&NameGlob| glob.without_star.as_ref().is_some_and(is_match);
        let glob = self.globs.iter().find(has_empty_star)?;
        let mut others = self.globs.iter().filter(|glob| !glob.has_open_end);
        let has_other_match = self.default_matches(name)
            || self.writer_matches(name)
            || others.any(|glob| is_match(&glob.set));
        rule!("empty-star-is-the-file", !has_other_match)
            .then(|| Reserved::EmptyStar(glob.text.clone()))
    }

    /// Returns the possible targets of `names`, each with the name of its temp. Both are names that the rule matches.
    ///
    /// Here every grammar that matches counts, not only the first, and every possible target.
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

    /// Reports whether the rule matches `name` and may match its target too. With the default names this is rare,
    /// because the target must end in `.tmp`.
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

    /// Calls `each` with every possible target of `name` that the rule matches, if it matches `name` too.
    fn each_target(&self, name: &[u8], each: &mut dyn FnMut(&[u8])) {
        if !self.may_have_target(name) {
            return;
        }
        for grammar in self.writers.iter().chain(&self.built_in) {
            let Some(parts) = grammar.split(name) else {
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

    /// Returns the patterns that match only reserved names, each with the row of the list.
    #[must_use]
    pub fn ineffective_globs(&self) -> Vec<(&str, &'static ReservedName)> {
        let row = |glob: &&NameGlob| {
            let needs_whole_name = |row: &&ReservedName| row.included_by == IncludedBy::WholeName;
            let row_of = |ending: &String| {
                let mut rows = reserved::LIST.iter().filter(needs_whole_name);
                rows.find(|row| row.has_ending(ending.as_bytes()))
            };
            let rows: Option<Vec<&ReservedName>> = glob.endings.iter().map(row_of).collect();
            rows?
                .first()
                .copied()
                .filter(|_| glob.whole_names.is_empty())
        };
        let globs = self.globs.iter();
        globs
            .filter_map(|glob| Some((glob.text.as_str(), row(&glob)?)))
            .collect()
    }

    /// Returns the patterns that end in `*` and also match the file for whose temps they were written, each with a
    /// narrower pattern.
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

    /// Parses a base name, first with the grammars of the rule's writers, then with the built-in ones.
    #[must_use]
    pub fn parse(&self, name: &OsStr) -> ParsedName {
        self.writers
            .iter()
            .chain(&self.built_in)
            .find_map(|grammar| grammar.parse(name.as_bytes()))
            .unwrap_or_default()
    }
}

/// A pattern that is broader than needed, and a narrower one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NarrowerGlob {
    /// The pattern, as given.
    pub glob: String,
    /// The file for whose temps it was written. The pattern matches it too.
    pub file: String,
    /// The narrower pattern.
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
            "the name pattern {glob:?} also matches {file:?}, which is kept as reserved; \
             if all its temps end in \".tmp\", {instead:?} is enough"
        )
    }
}

/// The form that the names of all temps of one writer have in common: `sessions.json.<uuid>.tmp`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// The name, with each random part replaced by its kind.
    pub form: OsString,
    /// The shortest possible target, without digits that may be a pid.
    pub target: Option<OsString>,
    /// The same target with those digits. `None` if there are none.
    pub numbered_target: Option<OsString>,
    /// The shape comes from a built-in grammar with a uuid, or from a writer that the rule turns on.
    pub is_known: bool,
}

#[doc(hidden)]
impl Names {
    /// Returns the shape of a base name, by the grammar that [`Names::parse`] uses.
    ///
    /// Digits that look like a date are kept in the form: `log.2024.<uuid>.tmp` is not a copy of `log.2025`.
    #[must_use]
    pub fn shape(&self, name: &OsStr) -> Shape {
        let writers = self.writers.iter().map(|grammar| (grammar, true));
        let built_in = self.built_in.iter().map(|grammar| (grammar, false));
        writers
            .chain(built_in)
            .find_map(|(grammar, is_of_writer)| grammar.shape(name.as_bytes(), is_of_writer))
            .unwrap_or_else(|| Shape {
                form: form_without_grammar(name.as_bytes()),
                target: None,
                numbered_target: None,
                is_known: false,
            })
    }
}

/// Replaces counters and random parts in a name that no grammar matches.
fn form_without_grammar(name: &[u8]) -> OsString {
    let mut form = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some((&first, others)) = rest.split_first() {
        // A uuid does not begin directly after a letter or digit.
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

/// Reports whether digits are probably a part of a name instead of a pid: a year from 1900 to 2100, alone or with a
/// month or a month and a day, a date of six digits, or digits that begin with 0.
fn is_like_date(digits: &[u8]) -> bool {
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
    /// Writes the globs and the patterns of the writers, as they were given.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let default = self.has_default.then_some(DEFAULT).into_iter();
        let globs = self.globs.iter().map(|glob| glob.text.as_str());
        let writers = self.writers.iter().map(|writer| writer.pattern);
        for (index, pattern) in default.chain(globs).chain(writers).enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{pattern}")?;
        }
        Ok(())
    }
}

/// Reports whether a name matches `*.tmp` but must be ignored. etcd keeps `0.tmp` and `1.tmp` for days as its next log
/// segments. syncthing resumes a transfer from `.syncthing.<t>.tmp`, and removes such files itself. A bare `.tmp` has
/// no target.
fn is_ignored(name: &[u8]) -> bool {
    name.strip_suffix(b".tmp").is_some_and(|stem| {
        let is_number = stem.iter().all(u8::is_ascii_digit);
        rule!(
            "ignored-names",
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
            let usable = NameGlob::new(last).is_ok_and(|last| !last.is_broad);
            let instead = if usable { last } else { DEFAULT }.to_owned();
            return Err(NameError::PathGlob {
                glob: glob.to_owned(),
                instead,
            });
        }
        // Each glob is a set of its own, so an error names its glob. It is a set because a single matcher panics on a
        // pattern that is too large, while a set returns an error.
        let set = Glob::new(glob).and_then(|parsed| GlobSet::new([parsed]));
        let set = set.map_err(|error| NameError::BadGlob {
            glob: glob.to_owned(),
            why: glob_error_text(&error),
        })?;
        // No file has these names, because they contain "/". A glob that matches one was not written for a specific
        // name.
        let is_generic = ["any/thing.tmp", ".any/thing.any/thing.tmp"]
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
            .map(|one| Glob::new(&one.glob_text()))
            .collect::<Result<_, _>>()
            .map_err(|error| bad(glob_error_text(&error)))?;
        let without_star = match starless.is_empty() {
            true => None,
            false => Some(GlobSet::new(starless).map_err(|error| bad(glob_error_text(&error)))?),
        };
        Ok(NameGlob {
            text: glob.to_owned(),
            set,
            is_generic,
            whole_names: all.iter().filter_map(Alternative::whole_name).collect(),
            endings: all.iter().map(Alternative::ending).collect(),
            without_star,
            has_open_end: all.iter().any(Alternative::has_open_end),
            is_broad: !all.iter().all(Alternative::has_literal),
        })
    }

    /// Reports whether an alternative is this name, without any wildcard.
    fn is_whole(&self, name: &[u8]) -> bool {
        self.whole_names
            .iter()
            .any(|whole| whole.as_bytes() == name)
    }
}

/// Returns the message of an error in a glob. A message about a range contains its two ends unchanged, so control
/// characters are escaped.
pub(super) fn glob_error_text(error: &globset::Error) -> String {
    let shown = |char: char| match char.is_control() {
        true => char.escape_default().to_string(),
        false => char.to_string(),
    };
    error.kind().to_string().chars().map(shown).collect()
}

fn unknown_writer(name: &str) -> NameError {
    let edits = |known: &&str| strsim::levenshtein(name, known);
    let nearest = WRITERS.iter().map(|w| w.name).min_by_key(edits);
    NameError::UnknownWriter {
        name: name.to_owned(),
        nearest: nearest.filter(|nearest| edits(nearest) * 2 <= nearest.len()),
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
    truncates_at: Option<usize>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct NameParts<'n> {
    target: Option<&'n [u8]>,
    pid: Option<u32>,
}

impl Grammar {
    /// Compiles a pattern. Returns `None` if it is not in the notation. A test ensures that all patterns here are.
    fn new(pattern: &'static str, truncates_at: Option<usize>) -> Option<Grammar> {
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
            truncates_at,
        })
    }

    /// Splits the name from its right end, where writers add their parts.
    fn split<'n>(&self, name: &'n [u8]) -> Option<NameParts<'n>> {
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
                    parts.pid = Some(parse_pid(digits)?);
                    before
                }
                Token::Number => split_digits(rest)?.0,
                Token::Uuid => strip_uuid(rest)?,
                Token::Hex(len) => strip_end(rest, len, is_lower_hex)?,
                Token::Digits(len) => strip_end(rest, len, u8::is_ascii_digit)?,
                Token::Alnum(len) => strip_end(rest, len, u8::is_ascii_alphanumeric)?,
            };
        }
        rest.is_empty().then_some(parts)
    }

    fn parse(&self, name: &[u8]) -> Option<ParsedName> {
        let NameParts { target, pid } = self.split(name)?;
        let is_truncated = self.truncates_at.is_some_and(|len| name.len() >= len);
        let target = match self.tokens.last() {
            _ if is_truncated => None,
            Some(Token::Literal(end)) if self.pid_may_belong_to_target() => {
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
        let is_date = is_like_date(pid.to_string().as_bytes());
        Some(match rule!("date-is-no-pid", is_date) {
            true => parsed.with_numbered_targets(),
            false => parsed,
        })
    }

    /// Returns the shape of a name that the grammar matches.
    fn shape(&self, name: &[u8], is_of_writer: bool) -> Option<Shape> {
        let NameParts { target, .. } = self.split(name)?;
        let is_truncated = self.truncates_at.is_some_and(|len| name.len() >= len);
        let target = target.filter(|_| !is_truncated);
        let pid_is_next = [Token::Target, Token::Literal("."), Token::Pid];
        // The pid follows the target and its dot, and a number may follow the pid.
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
        let has_date = |digits: &[u8]| digits.split(|b| *b == b'.').any(is_like_date);
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
            is_known: is_of_writer || self.tokens.contains(&Token::Uuid),
        })
    }

    /// Reports whether the digits of the pid may belong to the target. `report.2024.tmp` may have the target `report`
    /// and come from process 2024, or have the target `report.2024`. Before a uuid, digits that do not look like a date
    /// count as the pid, because openclaw writes `sessions.json.4711.<uuid>.tmp`.
    fn pid_may_belong_to_target(&self) -> bool {
        let pid_is_next = [Token::Target, Token::Literal("."), Token::Pid];
        self.tokens.starts_with(&pid_is_next) && !self.tokens.contains(&Token::Uuid)
    }
}

/// Removes a number or a uuid, and the dot before it, from the end of `name`: `metrics.2023` becomes `metrics`.
#[must_use]
pub fn strip_number(name: &[u8]) -> Option<&[u8]> {
    let digits = split_digits(name).and_then(|(before, _)| before.strip_suffix(b"."));
    let stem = digits.or_else(|| strip_uuid(name)?.strip_suffix(b"."))?;
    (!stem.is_empty()).then_some(stem)
}

/// Returns the possible names of `<t>`, without those that no file can have.
fn target_names(target: &[u8]) -> Vec<OsString> {
    [Some(target), target.strip_prefix(b".")]
        .into_iter()
        .flatten()
        .filter(|name| !matches!(*name, b"" | b"." | b"..") && !name.contains(&b'/'))
        .map(|name| OsStr::from_bytes(name).to_owned())
        .collect()
}

/// Splits off all decimal digits at the end, of which there must be at least one. Returns the rest and the digits.
fn split_digits(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let digits = bytes.iter().rev().take_while(|b| b.is_ascii_digit());
    let start = bytes.len().checked_sub(digits.count())?;
    let (before, digits) = bytes.split_at_checked(start)?;
    (!digits.is_empty()).then_some((before, digits))
}

/// Parses a pid. Leading zeros and numbers above the limit of the kernel are refused, because a wrong pid would look
/// like a writer that is gone.
fn parse_pid(digits: &[u8]) -> Option<u32> {
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
        Names::allowing_broad(globs, writers).expect("the rules of these tests are valid")
    }

    /// In each row `U` is replaced by a uuid, and `*` before a form means that the shape is known.
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

    /// Name, grammar, targets, pid, and whether the name is random.
    type ParseRow<'a> = (&'a str, Option<&'a str>, &'a [&'a str], Option<u32>, bool);

    fn patterns() -> impl Iterator<Item = &'static str> {
        let writers = writers().flat_map(|writer| writer.patterns);
        writers.chain(&BUILT_IN).copied()
    }

    /// In each row `U` is replaced by a uuid.
    fn check(writers: &[&str], rows: &[ParseRow<'_>]) {
        let names = names(&NONE, writers);
        for (name, grammar, targets, pid, random) in rows {
            let name = name.replace('U', UUID);
            let parsed = names.parse(OsStr::new(&name));
            let expected = ParsedName {
                numbered_targets: parsed.numbered_targets.clone(),
                grammar: patterns().find(|pattern| Some(*pattern) == *grammar),
                targets: targets
                    .iter()
                    .map(|t| OsString::from(t.replace('U', UUID)))
                    .collect(),
                pid: *pid,
                is_random: *random,
            };
            assert_eq!(expected.grammar, *grammar, "a row has an unknown grammar");
            assert_eq!(parsed, expected, "{name:?}");
        }
    }

    /// In each row: the name before the uuid, the target by the name alone, and the target with the digits.
    #[test]
    fn digits_before_a_uuid_may_belong_to_the_target() {
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
            let parsed = names.parse(OsStr::new(&format!("{stem}.{UUID}.tmp")));
            let first = |names: &[OsString]| names.first().cloned();
            assert_eq!(first(&parsed.targets), Some(target.into()), "{stem}");
            assert_eq!(
                first(&parsed.numbered_targets),
                numbered.map(OsString::from),
                "{stem}"
            );
            if let Some(numbered) = numbered {
                let longer = parsed.with_numbered_targets();
                assert_eq!(first(&longer.targets), Some(numbered.into()), "{stem}");
                assert!(longer.pid.is_some() && longer.is_random, "{stem}");
            }
        }
    }

    #[test]
    fn a_number_is_stripped_from_a_name() {
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
    fn built_in_grammars_parse_names() {
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
    fn grammars_of_writers_parse_names() {
        let long = |t: usize| format!("{}.tmp-1234567890abcdef", "x".repeat(t));
        let claude = Some("<t>.tmp.<pid>.<hex:12>");
        let atomically = Some("<t>.tmp-<digits:10><hex:6>");
        let rows: &[ParseRow<'_>] = &[
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
            // The built-in grammars still match.
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
    fn a_rule_matches_its_names_only() {
        /// Globs, writers, name, and whether the rule matches it.
        type MatchRow<'a> = (&'a [&'a str], &'a [&'a str], &'a [u8], bool);
        let rows: &[MatchRow<'_>] = &[
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
            let is_match = names(globs, writers).matches(name);
            assert_eq!(is_match, *expected, "{globs:?} {writers:?} {}", name.escape_ascii());
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
        let error = Names::new(&["*.tmp", "*"], &NONE).expect_err("one glob is broad");
        let error = error.to_string();
        assert!(error.contains("--allow-broad-name"), "{error}");
        let many = "{a,b}".repeat(12);
        let error = Names::new(&[many], &NONE).expect_err("too many alternatives");
        assert!(error.to_string().contains("alternatives"), "{error}");
    }

    #[test]
    #[rustfmt::skip] // one row a line
    fn reserved_names_are_recognized() {
        /// Globs, writers, name, and the pattern by which it is reserved.
        type ReservedRow<'a> = (&'a [&'a str], &'a [&'a str], &'a str, Option<&'a str>);
        let rows: &[ReservedRow<'_>] = &[
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
            // The list also has priority over the grammar of a writer.
            (&[], &["claude-code"], "~$a.tmp.7.1da311f03c01", Some("~$*")),
            (&[], &["claude-code"], "a.tmp.7.1da311f03c01", None),
            // The star matches an empty text.
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
    fn targets_are_found_among_the_names_of_a_directory() {
        /// Globs, writers, names in the directory, and targets.
        type TargetRow<'a> = (&'a [&'a str], &'a [&'a str], &'a [&'a str], &'a [&'a str]);
        let rows: &[TargetRow<'_>] = &[
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
        for (globs, writers, present, want) in rows {
            let present: Vec<OsString> = present.iter().map(|name| name.replace('U', UUID).into()).collect();
            let targets = names(globs, writers).targets_among(present.iter().map(AsRef::as_ref));
            let mut targets: Vec<OsString> = targets.into_keys().collect();
            targets.sort();
            let want: Vec<OsString> = want.iter().map(|name| name.replace('U', UUID).into()).collect();
            assert_eq!(targets, want, "{globs:?} {present:?}");
        }
    }

    #[test]
    fn ineffective_globs_are_found() {
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
    fn a_narrower_glob_is_proposed() {
        let all = names(
            &["sessions.json*", "*.part", "a*b*", "x.tmp*", "a.*", "*"],
            &NONE,
        );
        let narrower = all.narrower();
        let instead: Vec<&str> = narrower.iter().map(|one| one.instead.as_str()).collect();
        assert_eq!(instead, ["sessions.json.*.tmp"]);
        let message = narrower.first().map(ToString::to_string);
        let message = message.unwrap_or_default();
        assert!(
            message.contains("also matches \"sessions.json\""),
            "{message}"
        );
        assert_eq!(names(&NONE, &NONE).narrower(), []);
    }

    #[test]
    fn names_are_shown_as_given() {
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
        for (glob, writer, parts) in rows {
            let writers: &[&str] = if writer.is_empty() { &[] } else { &[writer] };
            let error = Names::new(&[glob], writers).expect_err("the rule is wrong").to_string();
            for part in *parts {
                assert!(error.contains(part), "{error:.300} does not contain {part}");
            }
        }
        assert_eq!(Names::new(&[""], &NONE).err(), Some(NameError::EmptyGlob));
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_without_a_panic(
            start in prop::sample::select(&["", ".", "..", ".syncthing.", ".orphand"][..]),
            middle in prop::collection::vec(any::<u8>(), 0..300),
            end in prop::sample::select(&["", ".tmp", ".7.tmp", ".7.8.tmp", "-1b4e.tmp", ".tmp.7.0123456789ab"][..]),
        ) {
            let name = [start.as_bytes(), &middle, end.as_bytes()].concat();
            let names = names(&["*.tmp", "[!a]?*.{part,tmp}"], &["claude-code", "atomically", "git"]);
            prop_assert!(!(names.matches(&name) && name.starts_with(OWN_PREFIX.as_bytes())));
            for target in names.parse(OsStr::from_bytes(&name)).targets {
                prop_assert!(!matches!(target.as_bytes(), b"" | b"." | b".."));
                prop_assert!(target.len() < name.len() && !target.as_bytes().contains(&b'/'));
            }
        }

        #[test]
        fn a_built_name_is_split_into_its_parts(
            target in prop::collection::vec(any::<u8>(), 1..100),
            pid in 1..=PID_MAX,
            number in any::<u64>(),
            uuid in "[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}",
            random in "[0-9a-f]{40}",
            digits in "[0-9]{40}",
        ) {
            for pattern in patterns() {
                let grammar = Grammar::new(pattern, None).expect("the pattern is in the notation");
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
                prop_assert_eq!(grammar.split(&name), Some(expected), "{}", name.escape_ascii());
            }
        }
    }
}
