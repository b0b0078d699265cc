//! Writes a configuration file with every setting, its description and its default.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use crate::cli::config::TEMPLATE;
use crate::cli::exit::{Exit, Failure};

/// Creates the file at `path` and the folders that it needs. An existing file is never changed.
pub(super) fn write(path: &Path) -> Result<(), Failure> {
    let failed = |error: &io::Error| {
        let what = match error.kind() {
            io::ErrorKind::AlreadyExists => {
                return Failure::new(
                    Exit::Failed,
                    format!(
                        "{path:?} already exists and was not changed; to check it: orphand config \
                         check; to write a new one, move it away first, or name another file: \
                         --config FILE"
                    ),
                );
            }
            _ => format!("cannot write {path:?}: {error}; name another file: --config FILE"),
        };
        Failure::new(Exit::Failed, what)
    };
    // The file decides which files are deleted, so no other user may change it.
    let folder = path.parent().unwrap_or(Path::new("/"));
    if !folder.is_dir() {
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder.create(folder).map_err(|error| {
            let what =
                format!("cannot create {folder:?}: {error}; name another file: --config FILE");
            Failure::new(Exit::Failed, what)
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
    written.map_err(|error| failed(&error))
}
