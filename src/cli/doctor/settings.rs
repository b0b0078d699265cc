//! Judges the configuration file.

use std::path::Path;

use super::check::Check;
use crate::cli::config::{Config, ConfigError};
use crate::cli::output::shell;
use crate::cli::output::shell::Suggestion;
use crate::cli::output::text;

/// Judges the configuration that was read. `default` is the default path of the file. `named` is `true` if directories
/// were given.
pub(super) fn judge(
    read: &Result<Config, ConfigError>,
    default: Option<&Path>,
    named: bool,
) -> Check {
    let check = "config";
    let config = match read {
        Ok(config) => config,
        Err(error) => {
            return Check::error(
                check,
                format!(
                    "{error}\nuntil that is fixed, the directories in the file are not watched"
                ),
                format!(
                    "correct that line, then: {}",
                    Suggestion::new("config check").configured()
                ),
            );
        }
    };
    let Some(path) = &config.path else {
        let default_path = default.map_or(
            "its path is not known, because HOME is not set".to_owned(),
            |path| format!("{} would be read", text::escaped(path)),
        );
        let what = format!("no configuration file; {default_path}");
        return match named {
            true => Check::ok(check, what),
            false => Check::warning(
                check,
                format!("{what}: no directory is checked, and watch without DIR has nothing to do"),
                format!(
                    "orphand doctor DIR, or list directories: {}",
                    Suggestion::new("config init").configured()
                ),
            ),
        };
    };
    let roots = config.watch.len() as u64;
    let what = match roots {
        0 => format!("{}: valid, but lists no directory", text::escaped(path)),
        roots => format!(
            "{}: valid, {}",
            text::escaped(path),
            text::counted(roots, "directory", "directories")
        ),
    };
    match roots == 0 && !named {
        false => Check::ok(check, what),
        true => Check::warning(
            check,
            format!("{what}: watch without DIR has nothing to do"),
            format!(
                "add to {} a [[watch]] section with a path",
                shell::word(path)
            ),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::CheckState;
    use super::*;

    #[test]
    fn a_wrong_configuration_is_an_error_and_an_empty_one_a_warning() {
        let path = Path::new("/etc/o.toml");
        let read = |text: &str| Config::parse(text, path, None);
        let one = "[[watch]]\npath = \"/srv/app\"\n";
        let wrong = "[[watch]]\npath = \"/srv/app\"\ngarce = \"10s\"\n";
        for (read, named, state, words) in [
            (
                read(one),
                false,
                CheckState::Ok,
                "/etc/o.toml: valid, 1 directory",
            ),
            (read(""), false, CheckState::Warning, "lists no directory"),
            (read(""), true, CheckState::Ok, "lists no directory"),
            (read(wrong), true, CheckState::Error, "/etc/o.toml:3:1: "),
            (
                Ok(Config::default()),
                false,
                CheckState::Warning,
                "/default would be read",
            ),
            (
                Ok(Config::default()),
                true,
                CheckState::Ok,
                "no configuration file",
            ),
        ] {
            let check = judge(&read, Some(Path::new("/default")), named);
            assert_eq!(check.state, state, "{check:?}");
            assert!(check.what.contains(words), "{check:?}");
        }
    }
}
