//! Parses base names: decides whether a rule matches a name, and finds the name of its target.
//!
//! Any process that may write to a watched directory can choose the names in it. So names are bytes, and no code here
//! indexes, unwraps or assumes UTF-8. This module reads no files and no clocks. Other modules find out whether a target
//! exists and whether a process is running.
//!
//! A grammar is a pattern such as `<t>.<pid>.<uuid>.tmp`. `<t>` is the name of the target, `<pid>` a process id,
//! `<uuid>` 8-4-4-4-12 hex digits, and `<n>` decimal digits. `<hex:12>`, `<digits:10>` and `<alnum:6>` are lower-case
//! hex digits, decimal digits, and ASCII letters or digits, each with a fixed number of characters. `<[a-z0-9_]:8>` is
//! a class with a fixed number of characters that must mix letters and digits. All other characters are literal.
//!
//! `catalog.toml` lists the known writers. docs/writers.md describes it for users and contributors.

mod advice;
mod catalog;
mod companion;
mod error;
mod grammar;
mod lookalikes;
mod name_glob;
mod names;
mod own_writers;
mod pattern;
mod row;
mod set_names;
mod shape;
mod token;
mod writer;

#[cfg(test)]
mod catalog_tests;
#[cfg(test)]
mod tests;

pub use advice::NarrowerGlob;
pub use catalog::{unambiguous_writers, writers};
pub use companion::Companion;
pub use error::NameError;
pub use grammar::{ParsedName, ends_in_uuid, strip_number};
pub use lookalikes::Lookalikes;
pub use names::Names;
pub use own_writers::OwnWriters;
pub use row::{Uncommitted, WriterGrammar};
pub use shape::Shape;
pub use writer::{Writer, WriterError};
