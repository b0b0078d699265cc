//! Commands that a person can paste into a shell: every one that is printed is put together here.
//!
//! The crate `shlex` is no help: it leaves control characters and bytes that are not UTF-8 as they are, and
//! the terminal would get them.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use orphand::root::{Refused, absolute};

use super::text;

/// Returns `word` as a shell reads it, in printable characters.
///
/// A word that cannot be printed as it is becomes `$'…'`, which bash, zsh, ksh and POSIX since 2024 know.
/// dash does not. Its bytes are octal, because the end of a hexadecimal one depends on what comes next.
pub(crate) fn word(word: impl AsRef<OsStr>) -> String {
    let word = word.as_ref();
    let bytes = word.as_bytes();
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/._-+,:@%".contains(byte);
    if let (false, true, Ok(plain)) = (
        bytes.is_empty(),
        bytes.iter().all(plain),
        std::str::from_utf8(bytes),
    ) {
        return plain.to_owned();
    }
    let escaped = text::escaped(Path::new(word));
    // Only what needed no escape may stay as it is: a backslash of its own is one of those.
    if escaped.replace(r"\\", r"\").as_bytes() == bytes {
        let printable = String::from_utf8_lossy(bytes);
        return format!("'{}'", printable.replace('\'', r"'\''"));
    }
    let mut out = String::from("$'");
    for byte in bytes {
        match byte {
            b'\'' | b'\\' => out.extend(['\\', char::from(*byte)]),
            b' '..=b'~' => out.push(char::from(*byte)),
            byte => out.push_str(&format!("\\{byte:03o}")),
        }
    }
    out.push('\'');
    out
}

/// The configuration file that was named, by an option or a variable.
static CONFIG: OnceLock<PathBuf> = OnceLock::new();

/// Remembers the configuration file that was named.
pub(super) fn set_config(file: &Path) {
    // Options are parsed once.
    let _ = CONFIG.set(absolute(file));
}

/// A command of orphand, quoted for a shell.
#[derive(Clone, Debug)]
pub(crate) struct Suggestion(String);

impl Suggestion {
    /// `orphand` and these plain words.
    pub(crate) fn new(command: &str) -> Suggestion {
        Suggestion(format!("orphand {command}"))
    }

    /// With a flag, like `-n`.
    pub(crate) fn flag(mut self, flag: &str, given: bool) -> Suggestion {
        if given {
            self.0.push(' ');
            self.0.push_str(flag);
        }
        self
    }

    /// With an option and its value, if it has one.
    pub(crate) fn option(mut self, name: &str, value: Option<impl AsRef<OsStr>>) -> Suggestion {
        let Some(value) = value else {
            return self;
        };
        let value = value.as_ref();
        // After a space it would be read as an option.
        let between = match value.as_bytes().first() {
            Some(b'-') => '=',
            _ => ' ',
        };
        self.0.push_str(&format!(" {name}{between}{}", word(value)));
        self
    }

    /// With the configuration file that was named when this program was started, by its absolute path. For a
    /// command that reads it.
    pub(crate) fn configured(self) -> Suggestion {
        self.option("--config", CONFIG.get())
    }

    /// With a path, or any other word.
    pub(crate) fn arg(mut self, arg: impl AsRef<OsStr>) -> Suggestion {
        self.0.push(' ');
        self.0.push_str(&word(arg));
        self
    }

    /// With these paths.
    pub(crate) fn args<A: AsRef<OsStr>>(self, args: impl IntoIterator<Item = A>) -> Suggestion {
        args.into_iter().fold(self, Suggestion::arg)
    }
}

impl fmt::Display for Suggestion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Returns the error for a root that is refused. `explain`: the command to explain a file with.
pub(crate) fn refused_text(refused: &Refused, explain: Suggestion) -> String {
    match refused {
        Refused::NotADirectory(path) => format!(
            "{refused}; to see what orphand thinks of a file: {}",
            explain.arg(path)
        ),
        refused => refused.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_a_shell_reads() {
        for (path, want) in [
            (&b"/srv/app-1"[..], "/srv/app-1"),
            (b"/srv/my app", "'/srv/my app'"),
            (b"/srv/$(reboot)", "'/srv/$(reboot)'"),
            (b"*.part", "'*.part'"),
            (b"~/x", "'~/x'"),
            (b"/it's", r"'/it'\''s'"),
            (br"/a\b", r"'/a\b'"),
            ("/größe".as_bytes(), "'/größe'"),
            // The "b" is no part of the number.
            (b"/a\nb c", r"$'/a\012b c'"),
            (b"/\xff'", r"$'/\377\''"),
            (b"/\\\n", r"$'/\\\012'"),
            ("/a\u{202e}b".as_bytes(), r"$'/a\342\200\256b'"),
            (b"", "''"),
        ] {
            assert_eq!(word(OsStr::from_bytes(path)), want, "{path:?}");
        }
    }

    #[test]
    fn commands_are_put_together() {
        let command = Suggestion::new("sweep")
            .flag("-r", true)
            .flag("-n", false)
            .option("--name", Some("-x*"))
            .option("--name", Some("*.part"))
            .option("--grace", None::<&str>)
            .option("--config", Some("/my c.toml"))
            .args(["/a b", "/c"]);
        assert_eq!(
            command.to_string(),
            "orphand sweep -r --name='-x*' --name '*.part' --config '/my c.toml' '/a b' /c"
        );
    }
}
