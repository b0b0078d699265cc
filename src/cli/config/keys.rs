//! The sections of the file and their keys, as the template lists them. Other sections and keys are errors.

use std::sync::LazyLock;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::reader::{Entry, SpannedError, entries};
use super::suggestion::did_you_mean;

/// A file with a comment and the default for each setting. A setting is turned off by a `#` directly before it.
pub(crate) const TEMPLATE: &str = include_str!("template.toml");

/// A section of the file.
pub(crate) struct Section {
    /// The title with its brackets.
    pub(crate) title: &'static str,
    pub(crate) keys: Vec<&'static str>,
}

impl Section {
    /// Returns the title without its brackets.
    pub(crate) fn name(&self) -> &'static str {
        self.title.trim_matches(['[', ']'])
    }

    /// Returns the tables of this section, or the position of a value that is not one.
    fn tables<'t>(&self, entry: &Entry<'t>) -> Result<Vec<&'t DeTable<'t>>, usize> {
        match entry.value.get_ref() {
            DeValue::Table(table) if !self.title.starts_with("[[") => Ok(vec![table]),
            DeValue::Array(list) if self.title.starts_with("[[") => {
                let table = |value: &'t Spanned<DeValue<'t>>| value.get_ref().as_table();
                let each = list
                    .iter()
                    .map(|value| table(value).ok_or(value.span().start));
                each.collect()
            }
            _ => Err(entry.at),
        }
    }
}

/// Returns all sections. `[defaults]` is first: if a key is valid in two sections, messages propose this one.
pub(crate) fn sections() -> &'static [Section] {
    static SECTIONS: LazyLock<Vec<Section>> = LazyLock::new(sections_of_template);
    &SECTIONS
}

fn sections_of_template() -> Vec<Section> {
    let mut sections: Vec<Section> = Vec::new();
    for line in template_lines() {
        if line.starts_with('[') {
            let (title, keys) = (line, Vec::new());
            sections.push(Section { title, keys });
        } else if let (Some((key, _)), Some(section)) =
            (line.split_once(" = "), sections.last_mut())
            && !key.starts_with('#')
        {
            section.keys.push(key);
        }
    }
    if let [defaults, watch, ..] = &mut sections[..] {
        watch.keys.extend(&defaults.keys);
    }
    sections
}

/// Returns the lines of the template with all settings turned on.
pub(crate) fn template_lines() -> impl Iterator<Item = &'static str> {
    let setting = |line: &&str| !line.is_empty() && !line.starts_with(' ');
    TEMPLATE
        .lines()
        .map(move |line| line.strip_prefix('#').filter(setting).unwrap_or(line))
}

/// Returns an error if the file has a section or a key that does not exist.
pub(super) fn check_keys(document: &DeTable<'_>) -> Result<(), SpannedError> {
    for entry in entries(document) {
        let no_section = |at| match entry.value.get_ref() {
            DeValue::Table(_) => unknown_section(entry.key, at),
            _ => unknown(entry.key, at, None),
        };
        let mut all = sections().iter();
        let section = all.find(|section| section.name() == entry.key);
        let section = section.ok_or_else(|| no_section(entry.at))?;
        for table in section.tables(&entry).map_err(no_section)? {
            let is_known = |key: &str| section.keys.contains(&key);
            let mut keys = entries(table).into_iter();
            let wrong = keys.find(|one| rule!("unknown-key-is-an-error", !is_known(one.key)));
            if let Some(wrong) = wrong {
                return Err(unknown(wrong.key, wrong.at, Some(section)));
            }
        }
    }
    Ok(())
}

/// Returns the error for a key in `section`, or for one outside of every section.
fn unknown(key: &str, at: usize, section: Option<&Section>) -> SpannedError {
    let right_section = sections()
        .iter()
        .find(|section| section.keys.contains(&key));
    // A typing error is more likely than the wrong section.
    let is_misspelled = section.is_some_and(|section| {
        let mut own = section.keys.iter();
        own.any(|own| strsim::levenshtein(key, own) == 1)
    });
    let right_section = right_section.filter(|_| !is_misspelled);
    let what = match (right_section, section) {
        (Some(Section { title, .. }), _) => {
            format!("the key {key:?} is not valid here; did you mean to put it in {title}?")
        }
        (None, Some(Section { title, keys })) => {
            let meant = did_you_mean(key, keys.iter().map(|key| format!("{key:?}")));
            format!("unknown key {key:?} in {title}; {meant}")
        }
        (None, None) => return unknown_section(key, at),
    };
    SpannedError::new(at, what)
}

fn unknown_section(key: &str, at: usize) -> SpannedError {
    let titles = sections().iter().map(|section| section.title.to_owned());
    let what = format!("unknown section {key:?}; {}", did_you_mean(key, titles));
    SpannedError::new(at, what)
}
