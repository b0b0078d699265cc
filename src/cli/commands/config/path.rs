//! `config path`: prints the path of the file, and the places in which orphand looks for it.

use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use orphand::fs::root::absolute;
use orphand::store::json::{WirePath, field};
use serde::Serialize;

use super::sources::WithSources;
use crate::cli::config::Config;
use crate::cli::exit::{Exit, Failure};
use crate::cli::options::OutputOptions;
use crate::cli::output::event_printer::EventPrinter;
use crate::cli::output::standard_streams::print;
use crate::cli::output::text;

/// The option that names the file.
#[derive(Debug, clap::Args)]
pub(crate) struct CheckedFile {
    /// Use this configuration file instead of the default one
    #[arg(long, value_name = "FILE", env = "ORPHAND_CONFIG")]
    pub(super) config: Option<PathBuf>,
}

/// The JSON of the command.
#[derive(Serialize)]
struct FileState<'a> {
    #[serde(flatten, with = "field::path")]
    path: WirePath<'a>,
    exists: bool,
}

pub(super) fn run(
    named: &WithSources<CheckedFile>,
    output: &OutputOptions,
    printer: &mut EventPrinter,
) -> Result<Exit, Failure> {
    let path = file_path(&named.options)?;
    if output.json {
        printer.json(&FileState {
            exists: path.exists(),
            path: Some(path.into()),
        })?;
        return Ok(Exit::Done);
    }
    if !output.quiet {
        let named = named.sources.get("config").map(|source| {
            let line = format!("  {source}: {}", path_state(&path));
            (true, line)
        });
        let locations = named.into_iter().chain(default_locations());
        let mut found = false;
        for (is_set, line) in locations {
            let mark = match is_set && !found {
                true if path.exists() => "<- used",
                true => "<- would be used",
                false => "",
            };
            found |= is_set;
            let line = format!("{line}  {mark}");
            let _ = writeln!(anstream::stderr(), "{}", line.trim_end());
        }
    }
    // The bytes of the path are not escaped, so that a script can use it.
    Ok(print(&[path.as_os_str().as_bytes(), b"\n"].concat())?)
}

/// Returns the path of the file that is read if it exists.
pub(super) fn file_path(named: &CheckedFile) -> Result<PathBuf, Failure> {
    let named = named.config.as_deref().map(absolute);
    let path = named.or_else(Config::default_path);
    path.ok_or_else(|| {
        Failure::failed(
            "cannot find the folder of the configuration file: neither XDG_CONFIG_HOME nor HOME \
             is set to an absolute path; name the file: --config FILE",
        )
    })
}

/// Returns a line for each default path of the file, and whether the variable that it depends on is set.
pub(super) fn default_locations() -> Vec<(bool, String)> {
    let line = |(written, path): (&str, Option<PathBuf>)| match path {
        Some(path) => (true, format!("  {written}: {}", path_state(&path))),
        None => (
            false,
            format!(
                "  {written}: {} is not set to an absolute path",
                match written.starts_with('~') {
                    true => "HOME",
                    false => "XDG_CONFIG_HOME",
                }
            ),
        ),
    };
    Config::default_paths().into_iter().map(line).collect()
}

fn path_state(path: &Path) -> String {
    let state = match path.try_exists() {
        Ok(true) => "exists".to_owned(),
        Ok(false) => "does not exist".to_owned(),
        Err(error) => format!("cannot be read: {error}"),
    };
    format!("{} {state}", text::escaped(path))
}
