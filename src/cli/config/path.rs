//! Reads the paths in the file.

use std::path::{Path, PathBuf};

/// Returns `text` as a path that does not depend on the working directory: absolute, or below `~/`.
pub(super) fn parse(text: &str) -> Result<PathBuf, String> {
    if !text.starts_with('/') && !text.starts_with("~/") {
        return Err(not_absolute_error(text));
    }
    // The meaning of ".." depends on symlinks in the path, and paths are compared as text.
    if text.split('/').any(|part| part == "..") {
        return Err(format!(
            "the path {text:?} contains \"..\"; write the path without it"
        ));
    }
    // Roots are compared without a slash at the end.
    Ok(Path::new(text).components().collect())
}

/// Returns `text` as such a path of a file, which need not exist.
pub(super) fn parse_file(text: &str) -> Result<PathBuf, String> {
    match text.ends_with('/') {
        true => Err(format!("{text:?} is a directory; name a file in it")),
        false => parse(text),
    }
}

/// Returns `text` as the path of a guard file: absolute, below `~/`, or relative to the directory of the temp.
///
/// A path at which there can be no file is an error: with it, every temp would be kept.
pub(super) fn parse_guard(text: &str) -> Result<PathBuf, String> {
    if text.contains('\0') {
        return Err(format!("the path {text:?} contains a NUL character"));
    }
    match text.chars().next() {
        None => Err("the path is empty; name a file, like \"LOCK\", or leave the key out".into()),
        Some('/' | '~' | '$') => parse_file(text),
        Some(_) if text.ends_with('/') => parse_file(text),
        Some(_) => match Path::new(text).file_name() {
            // A ".." at its end is no file. Elsewhere it begins at an open directory, so its meaning is clear.
            None => Err(format!("{text:?} is a directory; name a file in it")),
            Some(_) => Ok(Path::new(text).components().collect()),
        },
    }
}

/// Replaces a `~` at the beginning of a parsed path by the home directory.
pub(super) fn expand(path: &mut PathBuf, home: Option<&Path>) -> Result<(), String> {
    if let Ok(below) = path.strip_prefix("~") {
        let home =
            home.ok_or_else(|| format!("{path:?} needs the variable HOME, which is not set"))?;
        *path = home.join(below).components().collect();
    }
    Ok(())
}

/// Returns the error for a path that is neither absolute nor below `~/`. It proposes a path below `~/` unless the path
/// begins with another variable or another user's home directory.
fn not_absolute_error(text: &str) -> String {
    let first = text.split('/').next().unwrap_or_default();
    let rest = text.get(first.len()..).unwrap_or_default();
    let only_a_shell = |what: &str| {
        format!(
            "{text:?} begins with {what}, which only a shell expands; write the absolute path instead"
        )
    };
    let below_home = match first {
        "~" | "$HOME" | "${HOME}" => rest,
        user if user.starts_with('~') => return only_a_shell("another user's home directory"),
        variable if variable.starts_with('$') => return only_a_shell("a variable"),
        _ => text,
    };
    let strange = |part: &&str| matches!(*part, "" | "." | "..");
    let parts: Vec<&str> = below_home
        .split('/')
        .filter(|part| !strange(part))
        .collect();
    // The home directory itself is never proposed.
    let below_home = match parts.is_empty() {
        true => "DIR".to_owned(),
        false => parts.join("/"),
    };
    let meant = format!("~/{below_home}");
    format!("the path {text:?} must be absolute or begin with ~/; did you mean {meant:?}?")
}
