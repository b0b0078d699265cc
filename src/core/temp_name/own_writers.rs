//! The writers that a user adds to the catalog.

use std::sync::Arc;

use super::catalog;
use super::row::WriterGrammar;
use super::writer::{Writer, WriterError};

/// A user's own writers. Each is on only where a rule names it.
#[derive(Clone, Debug, Default)]
pub struct OwnWriters {
    writers: Arc<[Arc<Writer>]>,
}

impl OwnWriters {
    /// Checks rows and compiles their patterns. The error has the index of the wrong row.
    pub fn new(rows: Vec<WriterGrammar>) -> Result<OwnWriters, (usize, WriterError)> {
        let mut own: Vec<Arc<Writer>> = Vec::new();
        for (index, row) in rows.into_iter().enumerate() {
            let error = |key, message: String| {
                let key = Some(key);
                Err((
                    index,
                    WriterError {
                        key,
                        index: 0,
                        message,
                    },
                ))
            };
            let name = row.name.clone();
            let has_name = |other: &Arc<Writer>| other.row().name == name;
            if catalog::rows().iter().any(has_name) {
                return error(
                    "name",
                    format!(
                        "the writer {name:?} is in the catalog already; give yours another name. To show the \
                     catalog: orphand scan --writer list"
                    ),
                );
            }
            if own.iter().any(has_name) {
                return error(
                    "name",
                    format!("two writers have the name {name:?}; give one another name"),
                );
            }
            if row.default {
                return error(
                    "default",
                    format!(
                        "default = true is only for the catalog; name the writer in [defaults] instead: \
                     writers = [{name:?}]"
                    ),
                );
            }
            own.push(Arc::new(Writer::new(row).map_err(|error| (index, error))?));
        }
        Ok(OwnWriters {
            writers: own.into(),
        })
    }

    /// Reports whether the user has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.writers.is_empty()
    }

    /// Returns the user's own writers.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Writer>> {
        self.writers.iter()
    }

    /// Returns the writer with this name, of the user or of the catalog.
    pub(super) fn find(&self, name: &str) -> Option<&Arc<Writer>> {
        self.all().find(|writer| writer.row().name == name)
    }

    /// Returns the names of the user's writers and of the catalog.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.all().map(|writer| writer.row().name.as_str())
    }

    fn all(&self) -> impl Iterator<Item = &Arc<Writer>> {
        self.writers.iter().chain(catalog::rows())
    }
}

/// Two lists with the same rows are equal.
impl PartialEq for OwnWriters {
    fn eq(&self, other: &OwnWriters) -> bool {
        self.iter()
            .map(|one| one.row())
            .eq(other.iter().map(|one| one.row()))
    }
}
