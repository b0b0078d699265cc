//! The grammars of names: splits a name into the parts that a pattern names.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Arc, LazyLock};

use super::pattern::Pattern;
use super::row::{Uncommitted, WriterGrammar};
use super::token::{Token, parse_pid, split_digits};
use crate::core::random::{self, Randomness, is_like_any_date, is_like_time};

use crate::core::learn::TargetShape;
use crate::core::suffix::{strip_tmp, strip_uuid};

/// The grammar whose leading dot is a prefix: see [`ParsedName::dot_is_prefix`].
const HIDDEN_PATTERN: &str = "<t>.<pid>.<uuid>.tmp";

/// The patterns of every rule. They are tried in this order, and the first match is used.
pub(super) const BUILT_IN: [&str; 5] = [
    HIDDEN_PATTERN,
    "<t>.<uuid>.tmp",
    "<t>.<pid>.<n>.tmp",
    "<t>.<pid>.tmp",
    "<t>.tmp",
];

/// Returns the compiled patterns of every rule.
pub(super) fn built_in() -> &'static [Grammar] {
    static GRAMMARS: LazyLock<Vec<Grammar>> = LazyLock::new(|| {
        let compiled = BUILT_IN.iter().map(|text| Grammar::new(text, None));
        // A test ensures that all of them are valid.
        compiled.filter_map(Result::ok).collect()
    });
    &GRAMMARS
}

/// The parts that a grammar finds in the base name of a temp.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ParsedName {
    /// The pattern of the grammar that matches. `None` if none does.
    pub grammar: Option<Arc<str>>,
    /// The writer that has the grammar. `None` for the grammars of every rule.
    pub writer: Option<Arc<WriterGrammar>>,
    /// The possible base names of the target, the most likely first. Empty if the name does not contain its target.
    ///
    /// A leading dot may belong to the target or be added by the writer, so `.t` is followed by `t`. Digits that may be
    /// a pid or the end of the target count as a part of the target: it is the longest possible one.
    pub targets: Vec<OsString>,
    /// The same names, with the digits before a uuid as their end. These digits are the pid unless a file in the
    /// directory shows that they belong to the target. Empty if there are no such digits.
    pub numbered_targets: Vec<OsString>,
    /// Another file in the directory shows that the target has a longer name than the grammar tells.
    pub is_longest: bool,
    /// The longer targets that are meant if such files exist. The grammar of a writer may take a part of the target for its
    /// own: the target of `x.repair.<pid>.<uuid>.tmp` is `x` by the grammar of openclaw, and else `x.repair`.
    pub longer_targets: Vec<OsString>,
    /// The owner that the target must have, because a learned shape tells it. `None`: no shape does, and a target of the
    /// temp's owner or root counts.
    pub owner: Option<u32>,
    /// The pid of the writer, if the grammar has one.
    pub pid: Option<u32>,
    /// Each write creates another name, so temps accumulate. With a fixed name (`<t>.tmp`) they do not.
    pub is_random: bool,
    /// The writer never removes a target before it has replaced it, so the temp is not needed where the target is
    /// missing, or where its name does not contain the target.
    pub is_discarded: bool,
    /// Its random part may be a name that a person chose: it does not mix digits and letters of both cases enough.
    pub may_be_word: bool,
}

impl ParsedName {
    /// Returns the same name, with the target that a learned shape tells. All else that the grammar tells stays: the
    /// pid, and whether the name counts as random.
    #[must_use]
    pub fn told_by(self, shape: &TargetShape) -> ParsedName {
        ParsedName {
            grammar: Some(String::from_utf8_lossy(&shape.form.text()).into()),
            targets: vec![OsStr::from_bytes(&shape.target).to_owned()],
            numbered_targets: Vec::new(),
            is_longest: false,
            owner: Some(shape.owner),
            ..self
        }
    }

    /// Reports whether a leading dot is known to be added by the writer. Of the writers with this grammar, those whose
    /// temps begin with a dot add it to the target's name (pnpm, and older versions of openclaw).
    #[must_use]
    pub fn dot_is_prefix(&self) -> bool {
        self.grammar.as_deref() == Some(HIDDEN_PATTERN)
    }

    /// Reports whether several targets may have temps of this name, so that all of [`ParsedName::targets`] must count.
    #[must_use]
    pub fn shares_name(&self) -> bool {
        let is_shared = self.writer.as_ref().is_some_and(|row| row.shared_name);
        is_shared || (self.is_longest && self.targets.len() > 1)
    }

    /// Reports whether its writer may have truncated the target in `name`, the name that was parsed.
    #[must_use]
    pub fn is_truncated(&self, name: &OsStr) -> bool {
        let mut writer = self.writer.iter();
        writer.any(|row| row.may_truncate(name.len()))
    }

    /// Reports whether the writer may pause for long between the last write and the rename.
    #[must_use]
    pub fn is_slow(&self) -> bool {
        self.writer.as_ref().is_some_and(|row| row.slow)
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

    /// Returns the same name, of which another file shows that its target may be `target`. That file and the target by the
    /// grammar must both count; if the targets by the grammar share the name, all of them must.
    #[must_use]
    pub fn with_longer_target(self, target: OsString) -> ParsedName {
        let most = if self.shares_name() { usize::MAX } else { 1 };
        let by_grammar = self.targets.into_iter().take(most);
        ParsedName {
            targets: std::iter::once(target).chain(by_grammar).collect(),
            numbered_targets: Vec::new(),
            is_longest: true,
            longer_targets: Vec::new(),
            is_discarded: false,
            ..self
        }
    }

    /// Reports whether a temp in the directory `dir` is one that its writer discards. A name whose random part may be a
    /// word is only in the writer's own directory or below.
    #[must_use]
    pub fn is_discarded_in(&self, dir: &Path) -> bool {
        let own_dir = self
            .writer
            .as_ref()
            .and_then(|row| row.discard_in.as_deref());
        let is_below = |own: &str| dir.iter().any(|part| part == own);
        let is_elsewhere = self.may_be_word && own_dir.is_some_and(|own| !is_below(own));
        self.is_discarded && !rule!("word-is-discarded-only-in-its-directory", is_elsewhere)
    }
}

/// A compiled pattern and its writer.
#[derive(Clone, Debug)]
pub(super) struct Grammar {
    pub(super) text: Arc<str>,
    pub(super) pattern: Pattern,
    /// The writer that has the pattern. `None` for the patterns of every rule.
    pub(super) writer: Option<Arc<WriterGrammar>>,
    /// The index of a random part from which the end of the target cannot be told: nothing but separators is between
    /// them. The part counts as random only by its own characters.
    after_target: Option<usize>,
    /// The first byte of the names that the pattern matches. `None` if there are several.
    first_byte: Option<u8>,
    /// The last bytes of these names, as a set of ASCII characters. `None` if there are others.
    last_bytes: Option<u128>,
    /// The parts before a uuid and `.tmp`, if the pattern ends in these.
    before_uuid: Option<BeforeUuid>,
}

/// The last parts of a pattern before a uuid and `.tmp`.
#[derive(Clone, Debug)]
struct BeforeUuid {
    literal: Box<str>,
    /// The literal text follows a pid.
    has_pid: bool,
}

impl BeforeUuid {
    /// Reports whether the last byte but one before the uuid is that of a pid.
    fn ends_in_pid(&self) -> bool {
        self.has_pid && self.literal.len() == 1
    }
}

/// The end of a name. Most patterns end in a uuid and `.tmp`, which are compared with a name once for all of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct NameEnd<'n> {
    /// The name without a uuid and `.tmp` at its end. `None` if it has none.
    before_uuid: Option<&'n [u8]>,
}

impl<'n> NameEnd<'n> {
    /// Returns the end of `name`.
    pub(super) fn of(name: &'n [u8]) -> NameEnd<'n> {
        NameEnd {
            before_uuid: strip_tmp(name).and_then(strip_uuid),
        }
    }
}

/// Some grammars, by the ends of the names that they may match.
pub(super) struct GrammarIndex {
    /// For names that end in a uuid and `.tmp`, after a pid.
    with_uuid_and_pid: Vec<&'static Grammar>,
    /// For other names that end in these.
    with_uuid: Vec<&'static Grammar>,
    /// For each last byte of other names.
    by_last: Vec<Vec<&'static Grammar>>,
}

impl GrammarIndex {
    /// Returns the index of these grammars. Each list has their order.
    pub(super) fn new(grammars: &[&'static Grammar]) -> GrammarIndex {
        let list = |is_wanted: &dyn Fn(&Grammar) -> bool| {
            let wanted = grammars.iter().filter(|grammar| is_wanted(grammar));
            wanted.copied().collect()
        };
        let needs_uuid = |grammar: &Grammar| grammar.needs_uuid();
        let with_uuid = |grammar: &Grammar| needs_uuid(grammar) || grammar.may_end_in_tmp();
        let needs_pid = |grammar: &Grammar| {
            grammar
                .before_uuid
                .as_ref()
                .is_some_and(BeforeUuid::ends_in_pid)
        };
        GrammarIndex {
            with_uuid_and_pid: list(&with_uuid),
            with_uuid: list(&|grammar| with_uuid(grammar) && !needs_pid(grammar)),
            by_last: (0..=u8::MAX)
                .map(|last| list(&|grammar| !needs_uuid(grammar) && grammar.may_end_with(last)))
                .collect(),
        }
    }

    /// Returns the grammars that the end of `name` allows.
    pub(super) fn of_end(&self, name: &[u8], end: NameEnd<'_>) -> &[&'static Grammar] {
        let by_last = || self.by_last.get(usize::from(*name.last()?));
        let allowed = match end.before_uuid {
            Some([.., before, _]) if before.is_ascii_digit() => Some(&self.with_uuid_and_pid),
            Some(_) => Some(&self.with_uuid),
            None => by_last(),
        };
        allowed.map_or(&[], Vec::as_slice)
    }
}

/// The parts of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NameParts<'n> {
    pub(super) target: Option<&'n [u8]>,
    pub(super) pid: Option<u32>,
    /// The random parts were certainly not chosen by a person.
    pub(super) is_random: bool,
    /// A random part may be a name that a person chose, because it does not mix digits and letters of both cases enough.
    pub(super) may_be_word: bool,
    /// The end of the target is certain. Otherwise the target may be longer.
    pub(super) is_certain: bool,
}

impl Grammar {
    /// Compiles a pattern.
    pub(super) fn new(text: &str, writer: Option<Arc<WriterGrammar>>) -> Result<Grammar, String> {
        let pattern = Pattern::new(text)?;
        Ok(Grammar {
            text: text.into(),
            after_target: after_target(&pattern),
            first_byte: pattern.prefix.bytes().next(),
            last_bytes: pattern.tokens.last().and_then(Token::last_bytes),
            before_uuid: before_uuid(&pattern),
            pattern,
            writer,
        })
    }

    /// Returns false if `name`, which has this end, shows that [`Grammar::split`] returns nothing for it.
    pub(super) fn may_match(&self, name: &[u8], end: NameEnd<'_>) -> bool {
        let Some(wanted) = &self.before_uuid else {
            return self.may_match_outer_bytes(name);
        };
        let before = end.before_uuid;
        let before = before.and_then(|name| name.strip_suffix(wanted.literal.as_bytes()));
        before.is_some_and(|name| !wanted.has_pid || name.last().is_some_and(u8::is_ascii_digit))
    }

    /// Reports whether the pattern ends in a uuid and `.tmp`.
    pub(super) fn needs_uuid(&self) -> bool {
        self.before_uuid.is_some()
    }

    /// Reports whether the end of the target can always be told.
    pub(super) fn is_unambiguous(&self) -> bool {
        self.after_target.is_none()
    }

    /// Splits the name: removes the literal text at its start, and then the parts from the right end, where writers add
    /// them.
    pub(super) fn split<'n>(&self, name: &'n [u8]) -> Option<NameParts<'n>> {
        match self.may_match_outer_bytes(name) {
            true => self.split_tokens(name, &self.pattern.tokens),
            false => None,
        }
    }

    /// Does the same as [`Grammar::split`] for a name with this end.
    pub(super) fn split_by_end<'n>(
        &self,
        name: &'n [u8],
        end: NameEnd<'n>,
    ) -> Option<NameParts<'n>> {
        match (&self.before_uuid, self.pattern.tokens.as_slice()) {
            (Some(_), [tokens @ .., _, _]) => self.split_tokens(end.before_uuid?, tokens),
            _ => self.split(name),
        }
    }

    /// Returns false if the first or the last byte of `name` shows that the pattern does not match. This is so for nearly
    /// all names and patterns.
    #[inline(always)]
    pub(super) fn may_match_outer_bytes(&self, name: &[u8]) -> bool {
        let (Some(first), Some(last)) = (name.first(), name.last()) else {
            return false;
        };
        self.first_byte.is_none_or(|wanted| wanted == *first) && self.may_end_with(*last)
    }

    /// Reports whether a name that the pattern matches may end with this byte.
    #[inline(always)]
    pub(super) fn may_end_with(&self, last: u8) -> bool {
        self.last_bytes
            .is_none_or(|set| last < 128 && set & (1 << last) != 0)
    }

    /// Returns false if no name that the pattern matches ends in `.tmp`.
    fn may_end_in_tmp(&self) -> bool {
        let end = ".tmp";
        match self.pattern.tokens.last() {
            Some(Token::Literal(text)) => text.ends_with(end) || end.ends_with(&**text),
            // The fourth last byte of the name is a dot, which is not one of these characters.
            Some(Token::Hex(len) | Token::Digits(len) | Token::Alnum(len)) if *len >= end.len() => {
                false
            }
            _ => self.may_end_with(b'p'),
        }
    }

    /// Splits a name, or its start, into the parts of these tokens.
    fn split_tokens<'n>(&self, name: &'n [u8], tokens: &[Token]) -> Option<NameParts<'n>> {
        let mut parts = NameParts {
            target: None,
            pid: None,
            is_random: true,
            may_be_word: false,
            is_certain: true,
        };
        let mut rest = name.strip_prefix(self.pattern.prefix.as_bytes())?;
        let mut has_strong_part = self.pattern.tokens.contains(&Token::Uuid);
        for (index, token) in tokens.iter().enumerate().rev() {
            if *token == Token::Target {
                if rest.is_empty() || !self.may_be_target(rest) {
                    return None;
                }
                parts.target = Some(rest);
                rest = &[];
                continue;
            }
            let removed = token.strip(rest)?;
            rest = removed.before;
            match token {
                Token::Pid => parts.pid = parse_pid(removed.part),
                Token::Alnum(_) | Token::Class(_) => {
                    let is_mixed = removed.randomness >= Randomness::Mixed;
                    parts.is_random &= is_mixed;
                    parts.is_certain &=
                        rule!("word-makes-the-end-uncertain", is_mixed, without: true);
                    parts.may_be_word |= !random::has_all_kinds_mixed(removed.part);
                }
                _ => {}
            }
            has_strong_part |= random::of(removed.part) == Randomness::Strong;
            if self.after_target == Some(index) {
                let is_digits = matches!(token, Token::Digits(_) | Token::Number | Token::Pid);
                // Without a separator, a number can be longer than the part.
                let is_cut = rest.last().is_some_and(u8::is_ascii_digit);
                let is_time = rule!(
                    "date-is-no-random-part",
                    is_cut || is_like_time(removed.part)
                );
                if is_digits && is_time {
                    return None;
                }
                let is_pid = *token == Token::Pid && !self.pattern.tokens.contains(&Token::Uuid);
                parts.is_certain &= removed.randomness == Randomness::Strong && !is_pid;
            }
        }
        let after = parts.target.and_then(|target| {
            let at = self.pattern.prefix.len() + target.len();
            name.get(at..)
        });
        // The built-in grammars have a rule of their own for dates.
        if let Some(after) = after
            && self.writer.is_some()
            && !has_strong_part
            && rule!("dated-name-is-not-random", has_date(after))
        {
            parts.is_random = false;
            parts.is_certain = false;
        }
        rest.is_empty().then_some(parts)
    }

    /// Reports whether the name has the literal texts of the pattern, and between them as many characters of the right
    /// kinds. [`Grammar::split`] also refuses parts that may be words or dates.
    pub(super) fn fits(&self, name: &[u8]) -> bool {
        let Some(mut rest) = name.strip_prefix(self.pattern.prefix.as_bytes()) else {
            return false;
        };
        for token in self.pattern.tokens.iter().rev() {
            if *token == Token::Target {
                return !rest.is_empty();
            }
            match token.before(rest) {
                Some(before) => rest = before,
                None => return false,
            }
        }
        rest.is_empty()
    }

    pub(super) fn parse(&self, name: &[u8], end: NameEnd<'_>) -> Option<ParsedName> {
        let parts = self.split_by_end(name, end)?;
        let target = self.target(name, &parts);
        let row = self.writer.as_deref();
        let parsed = ParsedName {
            grammar: Some(Arc::clone(&self.text)),
            writer: self.writer.clone(),
            targets: target
                .map(|target| self.target_names(target))
                .unwrap_or_default(),
            numbered_targets: Vec::new(),
            is_longest: false,
            longer_targets: Vec::new(),
            owner: None,
            pid: parts.pid,
            may_be_word: parts.may_be_word,
            is_random: self.pattern.tokens.iter().any(Token::is_random),
            is_discarded: row.is_some_and(|row| row.uncommitted == Uncommitted::Discard)
                && !self.may_truncate(name)
                && rule!("only-random-names-are-discarded", parts.is_random && parts.is_certain, without: true),
        };
        // If the targets are known, the digits are not part of one.
        let may_be_numbered =
            self.pattern.tokens.contains(&Token::Uuid) && self.only_targets().is_none();
        // Only directly after the target can the digits be a part of it.
        let (Some(target), Some(pid), true) =
            (target, parts.pid, may_be_numbered && self.pid_is_next())
        else {
            return Some(parsed);
        };
        let longest = [target, b".", pid.to_string().as_bytes()].concat();
        let parsed = ParsedName {
            numbered_targets: self.target_names(&longest),
            ..parsed
        };
        let is_date = is_like_any_date(pid.to_string().as_bytes());
        Some(match rule!("date-is-no-pid", is_date) {
            true => parsed.with_numbered_targets(),
            false => parsed,
        })
    }

    /// Returns the target of a name that the grammar matches. It is the longest one that can be meant.
    pub(super) fn target<'n>(&self, name: &'n [u8], parts: &NameParts<'n>) -> Option<&'n [u8]> {
        parts.target?;
        if self.may_truncate(name) {
            return None;
        }
        let is_certain = rule!("longest-target-unless-random", parts.is_certain, without: true);
        match !is_certain || self.pid_may_belong_to_target() {
            true => self.longest_target(name),
            false => parts.target,
        }
    }

    /// Returns the longest target that a name can have: everything but the literal text at both ends. Returns `None` if
    /// no text is at the end.
    pub(super) fn longest_target<'n>(&self, name: &'n [u8]) -> Option<&'n [u8]> {
        let suffix = self.pattern.suffix();
        if suffix.is_empty() || !self.pattern.has_target() {
            return None;
        }
        let rest = name.strip_prefix(self.pattern.prefix.as_bytes())?;
        rest.strip_suffix(suffix.as_bytes())
    }

    /// Returns the possible base names of `target`.
    ///
    /// Where the pattern has literal text before the target, the writer has added a leading dot.
    fn target_names(&self, target: &[u8]) -> Vec<OsString> {
        let is_shared = self.writer.as_ref().is_some_and(|row| row.shared_name);
        let other = match (self.pattern.prefix.is_empty(), is_shared) {
            (true, _) => target.strip_prefix(b".").map(<[u8]>::to_vec),
            (false, true) => Some([b".", target].concat()),
            (false, false) => None,
        };
        let mut names = Vec::with_capacity(1 + usize::from(other.is_some()));
        for name in [Some(target), other.as_deref()].into_iter().flatten() {
            if !matches!(name, b"" | b"." | b"..") && !name.contains(&b'/') {
                names.push(OsStr::from_bytes(name).to_owned());
            }
        }
        names
    }

    /// Reports whether a temp of the writer can have this target.
    fn may_be_target(&self, target: &[u8]) -> bool {
        self.only_targets()
            .is_none_or(|only| only.iter().any(|one| one.as_bytes() == target))
    }

    /// Returns the names of all targets of the writer, if they are known.
    pub(super) fn only_targets(&self) -> Option<&[String]> {
        let targets = self.writer.as_ref().map(|row| row.targets.as_slice());
        targets.filter(|targets| !targets.is_empty())
    }

    /// Reports whether the writer may have truncated the target in this name.
    pub(super) fn may_truncate(&self, name: &[u8]) -> bool {
        let mut writer = self.writer.iter();
        writer.any(|row| row.may_truncate(name.len()))
    }

    /// Reports whether the pid follows the target and a dot.
    pub(super) fn pid_is_next(&self) -> bool {
        self.pattern.has_target()
            && is_after_dot(&self.pattern)
            && self.pattern.tokens.get(2) == Some(&Token::Pid)
    }

    /// Reports whether the digits of the pid may belong to the target. `report.2024.tmp` may have the target `report`
    /// and come from process 2024, or have the target `report.2024`. Before a uuid, digits that do not look like a date
    /// count as the pid, because openclaw writes `sessions.json.4711.<uuid>.tmp`.
    fn pid_may_belong_to_target(&self) -> bool {
        self.pid_is_next() && !self.pattern.tokens.contains(&Token::Uuid)
    }
}

/// Returns the index of a random part that directly follows the target, or only separators.
fn after_target(pattern: &Pattern) -> Option<usize> {
    if !pattern.has_target() {
        return None;
    }
    let is_separator = |text: &str| !text.contains(|c: char| c.is_alphanumeric());
    let after = match pattern.tokens.get(1)? {
        Token::Literal(text) if is_separator(text) => 2,
        Token::Literal(_) => return None,
        _ => 1,
    };
    let token = pattern.tokens.get(after)?;
    // A uuid is certain, and a pid after a dot has its own rule.
    let is_pid_after_dot = *token == Token::Pid && is_after_dot(pattern);
    let has_rule =
        rule!("pid-after-another-separator", is_pid_after_dot, without: *token == Token::Pid);
    (!has_rule && !matches!(token, Token::Uuid | Token::Literal(_))).then_some(after)
}

/// Reports whether the second part of a pattern follows the target and a dot.
fn is_after_dot(pattern: &Pattern) -> bool {
    matches!(pattern.tokens.get(1), Some(Token::Literal(dot)) if **dot == *".")
}

/// Reports whether the text after a target may be a date or a time that a person has chosen. A number that counts from an
/// epoch is one only if the text has no other number: many writers append such a number to their pid. Many random texts have
/// digits that begin with 0.
fn has_date(after: &[u8]) -> bool {
    /// The length of a date with a time of day.
    const DATE_AND_TIME: usize = 14;
    let words = after.split(|byte| !byte.is_ascii_alphanumeric());
    let is_number = |word: &&[u8]| !word.is_empty() && word.iter().all(u8::is_ascii_digit);
    let numbers: Vec<&[u8]> = words.filter(is_number).collect();
    let is_time = |digits: &[u8]| {
        let with_fraction = digits
            .get(..DATE_AND_TIME)
            .filter(|start| start.len() < digits.len());
        numbers.len() == 1 && (is_like_time(digits) || with_fraction.is_some_and(is_like_time))
    };
    let is_date =
        |digits: &&[u8]| !digits.starts_with(b"0") && (is_like_any_date(digits) || is_time(digits));
    numbers.iter().any(is_date)
}

fn before_uuid(pattern: &Pattern) -> Option<BeforeUuid> {
    match pattern.tokens.as_slice() {
        [
            before @ ..,
            Token::Literal(literal),
            Token::Uuid,
            Token::Literal(end),
        ] if **end == *".tmp" => Some(BeforeUuid {
            literal: literal.clone(),
            has_pid: before.last() == Some(&Token::Pid),
        }),
        _ => None,
    }
}

/// Removes a number or a uuid, and the dot before it, from the end of `name`: `metrics.2023` becomes `metrics`.
#[must_use]
pub fn strip_number(name: &[u8]) -> Option<&[u8]> {
    // Both end in a hex digit. Most names do not.
    if !name.last()?.is_ascii_hexdigit() {
        return None;
    }
    let digits = split_digits(name).and_then(|(before, _)| before.strip_suffix(b"."));
    let stem = digits.or_else(|| strip_uuid(name)?.strip_suffix(b"."))?;
    (!stem.is_empty()).then_some(stem)
}

/// Reports whether `name` ends in a uuid.
#[must_use]
pub fn ends_in_uuid(name: &[u8]) -> bool {
    strip_uuid(name).is_some()
}

#[cfg(test)]
impl Grammar {
    /// Reports whether random digits may look like a date.
    pub(super) fn may_refuse(&self) -> bool {
        let part = self.after_target.and_then(|at| self.pattern.tokens.get(at));
        matches!(part, Some(Token::Digits(_) | Token::Number | Token::Pid))
    }
}
