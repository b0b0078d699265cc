//! Builds the commands that messages suggest, quoted so that they can be pasted into a shell.
//!
//! The crate `shlex` does not suffice: it does not escape control characters and bytes that are not UTF-8, and they
//! would reach the terminal.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use orphand::fs::root::{Refused, absolute};

use super::text;

/// Returns `word` quoted for a shell, in printable characters only.
///
/// A word with characters that are not printable becomes `$'…'`. bash, zsh, ksh and POSIX since 2024 accept this form,
/// dash does not. The bytes in it are octal, because a hexadecimal escape would also include a hexadecimal digit that
/// follows it.
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
    // Plain quotes suffice if nothing but backslashes was escaped: a backslash in the name is printable.
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

/// The configuration file that an option or a variable names.
static CONFIG: OnceLock<PathBuf> = OnceLock::new();

/// Stores the configuration file that an option or a variable names, for [`Suggestion::configured`].
pub(crate) fn set_config(file: &Path) {
    // Options are parsed only once, so the value cannot be set already.
    let _ = CONFIG.set(absolute(file));
}

/// An `orphand` command for a message, quoted for a shell.
#[derive(Clone, Debug)]
pub(crate) struct Suggestion(String);

impl Suggestion {
    /// Returns the command `orphand` with these plain words.
    pub(crate) fn new(command: &str) -> Suggestion {
        Suggestion(format!("orphand {command}"))
    }

    /// Appends a flag like `-n`, if it is `given`.
    pub(crate) fn flag(mut self, flag: &str, given: bool) -> Suggestion {
        if given {
            self.0.push(' ');
            self.0.push_str(flag);
        }
        self
    }

    /// Appends an option with its value, if there is a value.
    pub(crate) fn option(mut self, name: &str, value: Option<impl AsRef<OsStr>>) -> Suggestion {
        let Some(value) = value else {
            return self;
        };
        let value = value.as_ref();
        // After a space, a value that begins with "-" would be parsed as an option.
        let between = match value.as_bytes().first() {
            Some(b'-') => '=',
            _ => ' ',
        };
        self.0.push_str(&format!(" {name}{between}{}", word(value)));
        self
    }

    /// Appends `--config` with the absolute path of the configuration file that was named when this program was
    /// started. For commands that read the configuration.
    pub(crate) fn configured(self) -> Suggestion {
        self.option("--config", CONFIG.get())
    }

    /// Appends a path or any other word.
    pub(crate) fn arg(mut self, arg: impl AsRef<OsStr>) -> Suggestion {
        self.0.push(' ');
        self.0.push_str(&word(arg));
        self
    }

    /// Appends several paths.
    pub(crate) fn args<A: AsRef<OsStr>>(self, args: impl IntoIterator<Item = A>) -> Suggestion {
        args.into_iter().fold(self, Suggestion::arg)
    }
}

impl fmt::Display for Suggestion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Returns the command that deletes all files in the quarantines of `roots`, and no others.
pub(crate) fn purge_command<A: AsRef<OsStr>>(roots: impl IntoIterator<Item = A>) -> Suggestion {
    Suggestion::new("quarantine purge").configured().args(roots)
}

/// Returns the message for a root that is refused. `explain` is the command that explains a file.
pub(crate) fn refused_text(refused: &Refused, explain: Suggestion) -> String {
    match refused {
        Refused::NotADirectory(path) => format!(
            "{refused}; to see the verdict for a file: {}",
            explain.arg(path)
        ),
        refused => refused.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_for_a_shell() {
        for (path, want) in [
            (&b"/srv/app-1"[..], "/srv/app-1"),
            (b"/srv/my app", "'/srv/my app'"),
            (b"/srv/$(reboot)", "'/srv/$(reboot)'"),
            (b"*.part", "'*.part'"),
            (b"~/x", "'~/x'"),
            (b"/it's", r"'/it'\''s'"),
            (br"/a\b", r"'/a\b'"),
            ("/größe".as_bytes(), "'/größe'"),
            // The "b" must not become part of the escape.
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
    fn options_and_paths_are_appended() {
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
