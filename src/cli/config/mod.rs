//! Reads the configuration file: parses TOML and returns plain values.
//!
//! `schema` has the settings, as types that serde reads and writes. `template.toml` describes each of them with its
//! default; `config init` writes it, and a test compares it with the types. `reader` is the part of serde that gives
//! each error the position of the wrong key or value, and proposes the value that was probably meant.
//!
//! Reading the file does not access the paths in it, because a root may be created later; [`Config::roots`] checks
//! them. The options of the command line are not part of this module: the caller applies them with
//! [`RuleSettings::over`].

pub(crate) use error::{ConfigError, RootsError};
pub(crate) use keys::{Section, TEMPLATE, sections};
pub(crate) use load::built_in;
pub(crate) use rule_set::{CoveredDir, RuleLocation};
pub(crate) use schema::{AlertSettings, Config, Lines, LogSettings, RuleSettings};
pub(crate) use value::LogFile;

mod check;
mod error;
mod keys;
mod load;
mod overlap;
mod path;
mod reader;
mod roots;
mod rule_set;
mod schema;
mod suggestion;
mod value;

#[cfg(test)]
mod tests;
