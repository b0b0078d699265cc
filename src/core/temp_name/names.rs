//! The names that a rule matches.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::sync::{Arc, LazyLock};

use super::catalog::default_rows;
use super::companion::Companion;
use super::error::{NameError, unknown_writer};
use super::grammar::{Grammar, GrammarIndex, NameEnd, ParsedName, built_in};
use super::name_glob::{DEFAULT, NameGlob};
use super::own_writers::OwnWriters;
use super::shape::{Shape, form_of_fixed_name, form_without_grammar};
use super::writer::Writer;
use crate::core::learn::{self, TargetShape};
use crate::core::own_names::is_own;
use crate::core::reserved::{self, IncludedBy, Reserved};
use crate::core::suffix::{contains_tmp, strip_tmp};

/// The names that a rule matches: its compiled globs, and the grammars of the writers that it turns on.
///
/// Globs are compared as bytes, and the comparison is case-sensitive. `.syncthing.*.tmp`, `<digits>.tmp` and a bare
/// `.tmp` are ignored unless the grammar of a writer matches or a specific glob does. `[0-9]*.tmp` is specific to
/// `0.tmp`, while `*.tmp`, `*` and all other globs that match any temp are not.
#[derive(Clone, Debug)]
pub struct Names {
    /// The pattern `*.tmp`, which nearly every rule has. It is a comparison of four bytes instead of a glob.
    has_default: bool,
    pub(super) globs: Vec<NameGlob>,
    /// The writers that the rule names.
    writers: Vec<Arc<Writer>>,
    /// The writers that are on by default are on.
    has_default_writers: bool,
    /// The writers among these whose temps have companions that not every temp has.
    pub(super) with_companions: Vec<Arc<Writer>>,
    /// The writers among these that have a guard file.
    with_guards: Vec<Arc<Writer>>,
    /// The learned shapes of the directory whose names are parsed, if they are set. They match no names.
    shapes: Arc<[TargetShape]>,
}

impl Default for Names {
    /// `*.tmp`, and the writers that are on by default.
    fn default() -> Names {
        Names::without_writers().with_default_writers()
    }
}

impl Names {
    /// Returns `*.tmp` and no writers.
    fn without_writers() -> Names {
        Names {
            has_default: true,
            globs: Vec::new(),
            writers: Vec::new(),
            has_default_writers: false,
            with_companions: Vec::new(),
            with_guards: Vec::new(),
            shapes: Arc::default(),
        }
    }

    /// Turns on the writers that are on by default, if `*.tmp` is the only pattern. To name one of them changes
    /// nothing.
    #[must_use]
    pub fn with_default_writers(mut self) -> Names {
        self.has_default_writers = self.has_default && self.globs.is_empty();
        if self.has_default_writers {
            self.writers.retain(|writer| !writer.row().default);
        }
        self.list_writers();
        self
    }

    /// Lists the writers with companions and with guard files.
    fn list_writers(&mut self) {
        self.with_companions = self.find_writers_with_companions();
        let has_guard = |writer: &&Arc<Writer>| writer.row().unless_open.is_some();
        self.with_guards = self.active_writers().filter(has_guard).cloned().collect();
    }

    /// Returns the same names for a directory with these learned shapes.
    #[doc(hidden)]
    #[must_use]
    pub fn with_shapes(&self, shapes: Arc<[TargetShape]>) -> Names {
        Names {
            shapes,
            ..self.clone()
        }
    }

    /// Returns the names of the writers that are on by default.
    pub fn default_writers(&self) -> impl Iterator<Item = &'static str> {
        let rows = default_rows()
            .rows
            .iter()
            .map(|writer| writer.row().name.as_str());
        rows.filter(|_| self.has_default_writers)
    }

    /// Compiles the globs of a rule (none means `*.tmp`) and the grammars of the writers that it turns on.
    ///
    /// A glob without a literal character other than `.`, `-`, `_` and `~` is refused, because it matches names of
    /// every kind. Wildcards and classes are not literal characters, and an escaped character is one. Each alternative
    /// in braces must have one.
    pub fn new<G: AsRef<str>, W: AsRef<str>>(
        globs: &[G],
        writers: &[W],
    ) -> Result<Names, NameError> {
        Names::with_own_writers(globs, writers, &OwnWriters::default(), false)
    }

    /// Does the same as [`Names::new`], but accepts broad globs.
    pub fn allowing_broad<G: AsRef<str>, W: AsRef<str>>(
        globs: &[G],
        writers: &[W],
    ) -> Result<Names, NameError> {
        Names::with_own_writers(globs, writers, &OwnWriters::default(), true)
    }

    /// Does the same as [`Names::new`], with a user's own writers. With `allow_broad` it accepts broad globs.
    #[doc(hidden)]
    pub fn with_own_writers<G: AsRef<str>, W: AsRef<str>>(
        globs: &[G],
        writers: &[W],
        own: &OwnWriters,
        allow_broad: bool,
    ) -> Result<Names, NameError> {
        let mut names = Names {
            has_default: globs.is_empty(),
            ..Names::without_writers()
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
            let Some(writer) = own.find(name) else {
                return Err(unknown_writer(name, own.names()));
            };
            names.writers.push(Arc::clone(writer));
        }
        names.list_writers();
        Ok(names)
    }

    /// Reports whether the rule matches this base name.
    ///
    /// This is called for every event of a watched directory. With the default names it does not allocate, and compares
    /// a few bytes. A glob takes longer.
    #[must_use]
    pub fn matches(&self, name: &[u8]) -> bool {
        if is_own(OsStr::from_bytes(name)) {
            return false;
        }
        let is_match =
            self.default_matches(name) || self.writer_matches(name) || self.glob_matches(name);
        rule!("only-names-of-the-rule", is_match, without: true)
    }

    fn default_matches(&self, name: &[u8]) -> bool {
        self.has_default && strip_tmp(name).is_some_and(|stem| !is_ignored_stem(stem))
    }

    fn writer_matches(&self, name: &[u8]) -> bool {
        (self.has_default_writers && default_rows().matches(name))
            || self.writers.iter().any(|writer| writer.matches(name))
    }

    fn glob_matches(&self, name: &[u8]) -> bool {
        if self.globs.is_empty() {
            return false;
        }
        let is_ignored = is_ignored(name);
        self.globs
            .iter()
            .any(|glob| !(is_ignored && glob.is_generic) && glob.compiled.matches(name))
    }
}

/// Returns the target of a name with a uuid by the built-in grammars, without digits that may be a pid. `None` if it is
/// among `targets`.
fn longer_target(name: &[u8], end: NameEnd<'_>, targets: &[OsString]) -> Option<OsString> {
    let mut with_uuid = built_in().iter().filter(|grammar| grammar.needs_uuid());
    let parts = with_uuid.find_map(|grammar| grammar.split_by_end(name, end))?;
    let target = OsStr::from_bytes(parts.target?);
    let is_known = targets.iter().any(|known| known == target);
    (!is_known).then(|| target.to_owned())
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
                && glob.compiled.matches(name)
        };
        let is_included =
            |row: &reserved::ReservedName| self.globs.iter().any(|glob| includes(row, glob));
        let is_kept =
            |row: &&reserved::ReservedName| rule!("reserved-names-are-kept", !is_included(row));
        if let Some(row) = reserved::rows(name).find(is_kept) {
            return Some(Reserved::Listed(row));
        }
        let has_empty_star = |glob: &&NameGlob| glob.without_star.matches(name);
        let glob = self.globs.iter().find(has_empty_star)?;
        let mut others = self.globs.iter().filter(|glob| !glob.has_open_end);
        let has_other_match = self.default_matches(name)
            || self.writer_matches(name)
            || others.any(|glob| glob.compiled.matches(name));
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
    /// because the target must be the name of a temp as well.
    #[must_use]
    pub fn may_have_target(&self, name: &[u8]) -> bool {
        let is_default = self.globs.is_empty() && self.writers.is_empty();
        let Some(stem) = strip_tmp(name).filter(|_| is_default) else {
            return self.matches(name);
        };
        let is_like_default = || {
            let without_dot = stem.strip_prefix(b".").unwrap_or(stem);
            self.has_default_writers
                && (default_rows().may_begin(stem) || default_rows().may_begin(without_dot))
        };
        (!self.shapes.is_empty() || contains_tmp(stem) || is_like_default()) && self.matches(name)
    }

    /// Reports whether the rule, or a learned shape, may take a file with this name.
    fn may_take(&self, name: &[u8]) -> bool {
        let mut shapes = self.shapes.iter();
        self.matches(name)
            || rule!(
                "target-of-a-temp-is-not-learned",
                shapes.any(|shape| shape.form.matches(name))
            )
    }

    /// Calls `each` with every possible target of `name` that the rule matches, if it matches `name` too.
    fn each_target(&self, name: &[u8], each: &mut dyn FnMut(&[u8])) {
        if !self.may_have_target(name) {
            return;
        }
        // Whatever the owner is.
        for shape in self.shapes.iter().filter(|shape| shape.form.matches(name)) {
            if self.may_take(&shape.target) {
                each(&shape.target);
            }
        }
        let end = NameEnd::of(name);
        for grammar in self.grammars_for(name, end) {
            let Some(parts) = grammar.split_by_end(name, end) else {
                continue;
            };
            let longest = grammar.longest_target(name);
            for target in [parts.target, longest].into_iter().flatten() {
                let without_dot = target.strip_prefix(b".").unwrap_or_default();
                for target in [target, without_dot] {
                    if self.may_take(target) {
                        each(target);
                    }
                }
            }
        }
    }

    /// Returns the learned shape that tells the target of the file `name` of `owner`. The grammars of the rule's writers
    /// are tried before, and the built-in ones afterwards.
    #[must_use]
    pub fn telling_shape(&self, name: &[u8], owner: u32) -> Option<&TargetShape> {
        let shape = learn::telling(&self.shapes, name, owner)?;
        let is_match = self.writer_of(name).is_some();
        (!rule!("writers-are-read-before-shapes", is_match)).then_some(shape)
    }

    /// Returns the learned shapes for which the file `name`, which is not a temp, shows that their names may be temps of
    /// longer targets.
    pub fn shapes_with_longer_target(&self, name: &[u8]) -> impl Iterator<Item = &TargetShape> {
        self.shapes
            .iter()
            .filter(|shape| shape.is_longer_target(name))
    }

    /// Parses a base name, first with the grammars of the rule's writers, then with the built-in ones.
    #[must_use]
    pub fn parse(&self, name: &OsStr) -> ParsedName {
        let (name, end) = (name.as_bytes(), NameEnd::of(name.as_bytes()));
        let mut parsed = self
            .grammars_for(name, end)
            .find_map(|grammar| grammar.parse(name, end))
            .unwrap_or_default();
        if parsed.writer.is_some() && !parsed.targets.is_empty() {
            let longer = longer_target(name, end, &parsed.targets);
            parsed.longer_targets.extend(longer);
        }
        parsed
    }

    /// Reports whether a base name is that of an intermediate file: a temp of a writer that is on by default and that is
    /// not needed before its last rename. The source of such a writer was read, and no other known program uses its
    /// names.
    #[must_use]
    pub fn is_intermediate(&self, name: &OsStr) -> bool {
        let parsed = self.parse(name);
        let of_default = parsed.writer.is_some_and(|row| row.default);
        self.has_default_writers && of_default && parsed.is_discarded
    }

    /// Returns the shape of a base name, by the grammar that [`Names::parse`] uses.
    ///
    /// Digits that look like a date are kept in the form: `log.2024.<uuid>.tmp` is not a copy of `log.2025`.
    #[must_use]
    pub fn shape(&self, name: &OsStr) -> Shape {
        let (name, end) = (name.as_bytes(), NameEnd::of(name.as_bytes()));
        self.grammars_for(name, end)
            .find_map(|grammar| grammar.shape(name, end))
            .unwrap_or_else(|| Shape::without_grammar(name))
    }

    /// Returns the form of the shape of a base name, without the rest of the shape.
    #[must_use]
    pub fn form(&self, name: &OsStr) -> OsString {
        let (name, end) = (name.as_bytes(), NameEnd::of(name.as_bytes()));
        self.grammars_for(name, end)
            .find_map(|grammar| grammar.form(name, end))
            .unwrap_or_else(|| form_without_grammar(name))
    }

    /// Returns the target by whose name the file `name` of `owner` forms a group with others of its directory. `None` if
    /// it forms none.
    #[must_use]
    pub fn group_of(&self, name: &OsStr, owner: u32) -> Option<OsString> {
        let bytes = name.as_bytes();
        let told = || {
            Some(OsString::from_vec(
                self.telling_shape(bytes, owner)?.target.clone(),
            ))
        };
        self.group_by_grammar(bytes).or_else(told)
    }

    /// Returns the group of the shape of a name, without the rest of the shape.
    fn group_by_grammar(&self, name: &[u8]) -> Option<OsString> {
        let end = NameEnd::of(name);
        let mut grammars = self.grammars_for(name, end);
        grammars.find_map(|grammar| grammar.group(name, end))?
    }

    /// Reports whether a file `name` may form a group, depending on its owner.
    #[must_use]
    pub fn may_form_group(&self, name: &OsStr) -> bool {
        let is_told = |shape: &TargetShape| shape.tells(name.as_bytes());
        self.shapes.iter().any(is_told) || self.group_by_grammar(name.as_bytes()).is_some()
    }

    /// Returns the form of a base name for output: the form of its shape. If that contains no random part, counters
    /// and random parts are replaced that no grammar knows.
    #[must_use]
    pub fn display_form(&self, name: &OsStr) -> OsString {
        let form = self.form(name);
        match form == name {
            true => form_of_fixed_name(name),
            false => form,
        }
    }

    /// Returns the literal texts at the end of the names that the rule's patterns match.
    pub(super) fn endings(&self) -> impl Iterator<Item = &str> {
        let default = DEFAULT.trim_start_matches('*');
        let default = self.has_default.then_some(default).into_iter();
        let globs = self.globs.iter().flat_map(|glob| &glob.endings);
        default.chain(globs.map(String::as_str))
    }

    /// Returns the writer whose grammar matches the name, if the rule has it on.
    #[must_use]
    pub fn writer_of(&self, name: &[u8]) -> Option<&Arc<Writer>> {
        self.active_writers().find(|writer| writer.matches(name))
    }

    /// Reports whether the grammar of a writer that the rule has on, or a learned shape, matches the name.
    #[must_use]
    pub fn is_by_program(&self, name: &[u8]) -> bool {
        self.writer_of(name).is_some() || self.shapes.iter().any(|shape| shape.tells(name))
    }

    /// Returns the companions that the rows of the rule's writers list for the temp `name`.
    pub fn companions_of(&self, name: &[u8]) -> &[Companion] {
        self.writer_of(name)
            .map_or(&[], |writer| writer.companions())
    }

    /// Returns the guard files of the writers that may have written a temp with this name, whichever grammar parses it. A
    /// random part that looks like a word counts too.
    pub fn guards_of(&self, name: &[u8]) -> impl Iterator<Item = &str> {
        let writers = self.with_guards.iter();
        let may_be = move |writer: &&Arc<Writer>| {
            let may_be = writer.may_have_written(name);
            rule!("guard-of-each-writer", may_be, without: writer.matches(name))
        };
        let guards = writers.filter(may_be);
        guards.filter_map(|writer| writer.row().unless_open.as_deref())
    }

    /// Returns the pids that other grammars than that of [`Names::parse`] read in this name, if the rule names writers:
    /// the patterns of two of them may fit the same name.
    #[must_use]
    pub fn other_pids(&self, name: &OsStr, pid: Option<u32>) -> Vec<u32> {
        if self.writers.is_empty() {
            return Vec::new();
        }
        let (name, end) = (name.as_bytes(), NameEnd::of(name.as_bytes()));
        let grammars = self.grammars_for(name, end);
        let pids = grammars.filter_map(|grammar| grammar.split_by_end(name, end)?.pid);
        pids.filter(|other| Some(*other) != pid).collect()
    }

    /// Returns those grammars that may match `name`, which has this end. They have the order in which they are tried: of
    /// the writers that the rule names, of those that are on by default, and the built-in ones.
    fn grammars_for(&self, name: &[u8], end: NameEnd<'_>) -> impl Iterator<Item = &Grammar> {
        static BUILT_IN: LazyLock<GrammarIndex> =
            LazyLock::new(|| GrammarIndex::new(&built_in().iter().collect::<Vec<_>>()));
        static WITH_DEFAULTS: LazyLock<GrammarIndex> = LazyLock::new(|| {
            let of_writers = default_rows().rows.iter();
            let of_writers = of_writers.flat_map(|writer| &writer.grammars);
            GrammarIndex::new(&of_writers.chain(built_in()).collect::<Vec<_>>())
        });
        let index: &GrammarIndex = match self.has_default_writers {
            true => &WITH_DEFAULTS,
            false => &BUILT_IN,
        };
        let of_writers = self.writers.iter().flat_map(|writer| &writer.grammars);
        of_writers
            .chain(index.of_end(name, end).iter().copied())
            .filter(move |grammar| grammar.may_match(name, end))
    }

    pub(super) fn active_writers(&self) -> impl Iterator<Item = &Arc<Writer>> {
        let defaults = self.has_default_writers.then(|| &default_rows().rows);
        self.writers.iter().chain(defaults.into_iter().flatten())
    }
}

impl fmt::Display for Names {
    /// Writes the globs and the patterns of the writers, as they were given. Of a writer with more than two patterns,
    /// it writes the first one and the name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let default = self.has_default.then_some(DEFAULT).into_iter();
        let globs = self.globs.iter().map(|glob| glob.text.as_str());
        let globs = default.chain(globs).map(str::to_owned);
        let writers = self.writers.iter().map(|writer| writer.row());
        let writers = writers.map(|row| match row.patterns.as_slice() {
            [first, _, more @ ..] if !more.is_empty() => {
                format!("{first} and {} more of {}", more.len() + 1, row.name)
            }
            patterns => patterns.join(", "),
        });
        let all: Vec<String> = globs.chain(writers).collect();
        f.write_str(&all.join(", "))
    }
}

/// Reports whether a name matches `*.tmp` but must be ignored. etcd keeps `0.tmp` and `1.tmp` for days as its next log
/// segments. syncthing resumes a transfer from `.syncthing.<t>.tmp`, and removes such files itself. A bare `.tmp` has
/// no target.
fn is_ignored(name: &[u8]) -> bool {
    strip_tmp(name).is_some_and(is_ignored_stem)
}

/// Reports whether a name must be ignored that is `stem` and `.tmp`.
fn is_ignored_stem(stem: &[u8]) -> bool {
    let is_number = stem.iter().all(u8::is_ascii_digit);
    rule!(
        "ignored-names",
        is_number || stem.starts_with(b".syncthing.")
    )
}
