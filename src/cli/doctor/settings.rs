//! The configuration file.

use std::path::Path;

use super::super::config_file::{Config, ConfigError};
use super::super::shell::{self, Suggestion};
use super::super::text;
use super::check::Check;

/// `usual`: where the file would be, `named`: whether directories were given.
pub(super) fn judge(
    read: &Result<Config, ConfigError>,
    usual: Option<&Path>,
    named: bool,
) -> Check {
    let check = "config";
    let config = match read {
        Ok(config) => config,
        Err(error) => {
            return Check::error(
                check,
                format!("{error}\nuntil that is mended nothing that it lists is watched"),
                format!(
                    "mend that line, then: {}",
                    Suggestion::new("config check").configured()
                ),
            );
        }
    };
    let Some(path) = &config.path else {
        let place = usual.map_or(
            "no place for one is known, as HOME is not set".to_owned(),
            |path| format!("{} would be read", text::escaped(path)),
        );
        let what = format!("there is none; {place}");
        return match named {
            true => Check::ok(check, what),
            false => Check::warning(
                check,
                format!(
                    "{what}: no directory is looked at, and watch without DIR has nothing to do"
                ),
                format!(
                    "orphand doctor DIR, or list directories: {}",
                    Suggestion::new("config init").configured()
                ),
            ),
        };
    };
    let roots = config.watch.len() as u64;
    let what = format!(
        "{}: right, {}",
        text::escaped(path),
        text::counted(roots, "directory", "directories")
    );
    match roots == 0 && !named {
        false => Check::ok(check, what),
        true => Check::warning(
            check,
            format!("{what}: watch without DIR has nothing to do"),
            format!("add a [[watch]] with a path to {}", shell::word(path)),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::CheckState;
    use super::*;

    #[test]
    fn the_configuration() {
        let path = Path::new("/etc/o.toml");
        let read = |text: &str| Config::parse(text, path, None);
        let one = "[[watch]]\npath = \"/srv/app\"\n";
        let wrong = "[[watch]]\npath = \"/srv/app\"\ngarce = \"10s\"\n";
        for (read, named, state, words) in [
            (
                read(one),
                false,
                CheckState::Ok,
                "/etc/o.toml: right, 1 directory",
            ),
            (read(""), false, CheckState::Warning, "0 directories"),
            (read(""), true, CheckState::Ok, "0 directories"),
            (read(wrong), true, CheckState::Error, "/etc/o.toml:3:1: "),
            (
                Ok(Config::default()),
                false,
                CheckState::Warning,
                "/usual would be read",
            ),
            (Ok(Config::default()), true, CheckState::Ok, "there is none"),
        ] {
            let check = judge(&read, Some(Path::new("/usual")), named);
            assert_eq!(check.state, state, "{check:?}");
            assert!(check.what.contains(words), "{check:?}");
        }
    }
}
