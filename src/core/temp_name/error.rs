//! Errors in the names of a rule.

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
        "the name pattern {glob:?} is too broad: it matches names of every kind, because it contains no literal \
         character other than \".\", \"-\", \"_\" and \"~\"; write the part that the names of the temps have in \
         common, like \"*.tmp\", or allow it: --allow-broad-name, or broad_names = true in the configuration file"
    )]
    BroadGlob {
        /// The glob, as given.
        glob: String,
    },
    /// A writer that is not in the table.
    #[error(
        "unknown writer {name:?}; {} list the writers: orphand scan --writer list",
        nearest.as_ref().map_or("to".to_owned(), |nearest| format!("did you mean {nearest:?}? To"))
    )]
    UnknownWriter {
        /// The name, as given.
        name: String,
        /// The writer with the most similar name, if one is similar.
        nearest: Option<String>,
    },
}

/// Returns the error for a writer that is not among `known`.
pub(super) fn unknown_writer<'k>(name: &str, known: impl Iterator<Item = &'k str>) -> NameError {
    let edits = |known: &&str| strsim::levenshtein(name, known);
    let known: Vec<&str> = known.collect();
    let longer = known
        .iter()
        .find(|known| name.len() > 2 && known.starts_with(name));
    let nearest = known.iter().min_by_key(|known| edits(known));
    let nearest = nearest.filter(|nearest| edits(nearest) * 2 <= nearest.len());
    let nearest = longer.or(nearest).copied();
    NameError::UnknownWriter {
        name: name.to_owned(),
        nearest: nearest.map(str::to_owned),
    }
}
