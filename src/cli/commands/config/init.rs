//! `config init`: writes a file with every setting, its description and its default.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use orphand::store::json::{WirePath, field};
use serde::Serialize;

use super::path::{CheckedFile, file_path};
use crate::cli::config::TEMPLATE;
use crate::cli::exit::{Exit, Failure};
use crate::cli::options::OutputOptions;
use crate::cli::output::event_printer::EventPrinter;
use crate::cli::output::shell::Suggestion;
use crate::cli::output::text;

/// The JSON of the command.
#[derive(Serialize)]
struct WrittenFile<'a> {
    #[serde(flatten, with = "field::path")]
    path: WirePath<'a>,
}

pub(super) fn run(
    named: &CheckedFile,
    output: &OutputOptions,
    printer: &mut EventPrinter,
) -> Result<Exit, Failure> {
    let path = file_path(named)?;
    write(&path)?;
    if output.json {
        let path = Some(path.into());
        printer.json(&WrittenFile { path })?;
    } else if !output.quiet {
        let path = text::escaped(&path);
        printer.line(&format!(
            "Wrote {path}. It lists no directory yet.\n\
             Next: add a [[watch]] section with a path, then run: {}",
            Suggestion::new("config check").configured()
        ))?;
    }
    Ok(Exit::Done)
}

/// Creates the file at `path` and the folders that it needs. An existing file is never changed.
fn write(path: &Path) -> Result<(), Failure> {
    let failed = |what: String| Failure::failed(what);
    // The file decides which files are deleted, so no other user may change it.
    let folder = path.parent().unwrap_or(Path::new("/"));
    if !folder.is_dir() {
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder.create(folder).map_err(|error| {
            failed(format!(
                "cannot create {folder:?}: {error}; name another file: --config FILE"
            ))
        })?;
    }
    let mut options = OpenOptions::new();
    let file = options.write(true).create_new(true).mode(0o600).open(path);
    // Written directly, without a temp that a crash would leave behind: a file that is cut off at any point does not
    // enable anything.
    let written = file.and_then(|mut file| {
        let written = file.write_all(TEMPLATE.as_bytes());
        if written.is_err() {
            let _ = fs::remove_file(path);
        }
        written
    });
    written.map_err(|error| {
        failed(match error.kind() {
            io::ErrorKind::AlreadyExists => format!(
                "{path:?} already exists and was not changed; to check it: {}; to write a new one, move it away first, \
                 or name another file: --config FILE",
                Suggestion::new("config check").configured()
            ),
            _ => format!("cannot write {path:?}: {error}; name another file: --config FILE"),
        })
    })
}
