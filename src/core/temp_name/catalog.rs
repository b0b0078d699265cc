//! The catalog of known writers, which is compiled into the program. `catalog.toml` contains it.

use std::sync::{Arc, LazyLock};

use serde::Deserialize;

use super::grammar::Grammar;
use super::row::WriterGrammar;
use super::writer::Writer;

/// The text of the catalog.
const TEXT: &str = include_str!("catalog.toml");

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Catalog {
    writer: Vec<WriterGrammar>,
}

/// Parses and checks a catalog.
pub(super) fn parse(text: &str) -> Result<Vec<Arc<Writer>>, String> {
    let catalog: Catalog = toml::from_str(text).map_err(|error| error.to_string())?;
    let mut rows: Vec<Arc<Writer>> = Vec::new();
    for row in catalog.writer {
        let name = row.name.clone();
        let writer = Writer::new(row).map_err(|error| format!("{name}: {error}"))?;
        if rows.iter().any(|other| other.row().name == name) {
            return Err(format!("two rows have the name {name:?}"));
        }
        rows.push(Arc::new(writer));
    }
    Ok(rows)
}

/// Returns the rows of the catalog.
pub(super) fn rows() -> &'static [Arc<Writer>] {
    // A test ensures that the text is valid, so the list is never empty.
    static ROWS: LazyLock<Vec<Arc<Writer>>> = LazyLock::new(|| parse(TEXT).unwrap_or_default());
    &ROWS
}

/// Returns every writer that a rule can turn on.
pub fn writers() -> impl Iterator<Item = &'static WriterGrammar> {
    rows().iter().map(|writer| &**writer.row())
}

/// Returns the names of the writers whose temps show the whole name of their target: no part of it can be taken for a
/// random part, and no other target has temps of the same name.
pub fn unambiguous_writers() -> impl Iterator<Item = &'static str> {
    let is_certain = |writer: &&Arc<Writer>| {
        !writer.row().shared_name && writer.grammars.iter().all(Grammar::is_unambiguous)
    };
    rows()
        .iter()
        .filter(is_certain)
        .map(|writer| writer.row().name.as_str())
}

/// The rows that are on by default, prepared so that a name that none of them matches costs only a few instructions.
#[derive(Debug)]
pub(super) struct DefaultRows {
    pub(super) rows: Vec<Arc<Writer>>,
    /// For each first byte of a name, whether a pattern with literal text at its start begins with it.
    first_bytes: Box<[bool; 256]>,
    /// The patterns with literal text at their start, except those that end in `.tmp`, which `*.tmp` matches.
    prefixed: Vec<Grammar>,
    /// For each last byte of a name, whether one of the other patterns may end with it.
    last_bytes: Box<[bool; 256]>,
    /// The other patterns that do not end in `.tmp`.
    others: Vec<Grammar>,
}

impl DefaultRows {
    fn new(all: &[Arc<Writer>]) -> DefaultRows {
        let rows: Vec<_> = all
            .iter()
            .filter(|writer| writer.row().default)
            .cloned()
            .collect();
        let grammars = rows.iter().flat_map(|writer| &writer.grammars);
        let grammars = grammars.filter(|grammar| !grammar.pattern.suffix().ends_with(".tmp"));
        let (others, prefixed): (Vec<Grammar>, Vec<Grammar>) = grammars
            .cloned()
            .partition(|grammar| grammar.pattern.prefix.is_empty());
        let mut first_bytes = Box::new([false; 256]);
        for grammar in &prefixed {
            let first = grammar.pattern.prefix.bytes().next();
            if let Some(slot) = first.and_then(|first| first_bytes.get_mut(usize::from(first))) {
                *slot = true;
            }
        }
        let mut last_bytes = Box::new([false; 256]);
        for (last, slot) in (0..=u8::MAX).zip(last_bytes.iter_mut()) {
            *slot = others.iter().any(|grammar| grammar.may_end_with(last));
        }
        DefaultRows {
            rows,
            first_bytes,
            prefixed,
            last_bytes,
            others,
        }
    }

    /// Reports whether one of the patterns that do not end in `.tmp` matches `name`.
    pub(super) fn matches(&self, name: &[u8]) -> bool {
        let is_match = |grammar: &Grammar| {
            grammar.may_match_outer_bytes(name) && grammar.split(name).is_some()
        };
        (self.may_begin(name) && self.prefixed.iter().any(is_match))
            || (contains(&self.last_bytes, name.last()) && self.others.iter().any(is_match))
    }

    /// Returns false if the first byte shows that no pattern with literal text at its start matches.
    pub(super) fn may_begin(&self, name: &[u8]) -> bool {
        contains(&self.first_bytes, name.first())
    }
}

/// Reports whether a set of bytes contains `byte`. Each byte is an index.
fn contains(set: &[bool; 256], byte: Option<&u8>) -> bool {
    byte.is_some_and(|byte| set.get(usize::from(*byte)) == Some(&true))
}

/// Returns the rows that are on by default.
pub(super) fn default_rows() -> &'static DefaultRows {
    static ROWS: LazyLock<DefaultRows> = LazyLock::new(|| DefaultRows::new(rows()));
    &ROWS
}
