//! The names of the files that form a set with a temp, by a rule.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::sync::Arc;

use super::names::Names;
use super::writer::Writer;
use crate::core::companions;

#[doc(hidden)]
impl Names {
    /// Returns the writers whose temps have companions that not every temp has.
    pub(super) fn find_writers_with_companions(&self) -> Vec<Arc<Writer>> {
        let has_more = |writer: &&Arc<Writer>| {
            let patterns = writer.companions().iter();
            let mut others =
                patterns.filter_map(|companion| companion.pattern().strip_prefix("<temp>"));
            others.any(|end| !companions::SUFFIXES.contains(&end))
        };
        self.active_writers()
            .filter(has_more)
            .map(Arc::clone)
            .collect()
    }

    /// Returns the names of the temps of which `name` is a companion, if files have these names. A companion of a row
    /// belongs only to the temps of that row. A name may be returned more than once.
    pub fn temps_of<'n>(&self, name: &'n OsStr) -> impl Iterator<Item = &'n OsStr> {
        let of_rows = self.with_companions.iter().flat_map(move |writer| {
            let companions = writer.companions().iter();
            let temps = companions.filter_map(move |companion| companion.temp_of(name.as_bytes()));
            temps.filter(move |temp| writer.matches(temp))
        });
        let of_any_row = companions::temp_of(name).into_iter();
        of_any_row.chain(of_rows.map(OsStr::from_bytes))
    }

    /// Returns the name of the temp of which `name` is a companion, if the rule matches that temp.
    #[must_use]
    pub fn temp_of<'n>(&self, name: &'n OsStr) -> Option<&'n OsStr> {
        self.temps_of(name)
            .find(|temp| self.matches(temp.as_bytes()))
    }

    /// Returns the names that companions of `temp` can have. `None` if a pattern has variable parts, so that there are
    /// too many.
    #[must_use]
    pub fn companion_names(&self, temp: &OsStr) -> Option<Vec<OsString>> {
        let mut names: Vec<OsString> = companions::of(temp).collect();
        for writer in &self.with_companions {
            if writer.matches(temp.as_bytes()) {
                for companion in writer.companions() {
                    let name = OsString::from_vec(companion.only_name(temp.as_bytes())?);
                    if !names.contains(&name) {
                        names.push(name);
                    }
                }
            }
        }
        Some(names)
    }
}
