//! The file that is made: every setting, what it is for, and its default.
//!
//! Generated from the settings themselves, so that it says no other default than the one that holds.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use orphand::decide::retention::Limits;
use serde_json::Value;

use super::value;
use crate::cli::config_file::{JournalSettings, LogSettings, MetricsSettings};
use crate::cli::{Exit, Failure};

const HEAD: &str = "\
# What orphand watches, and by which rules. As it stands, nothing is watched.
#
# Lines that begin with \"#\" and a word are settings at their defaults: take the \"#\" away to change
# one. Flags win over ORPHAND_* variables, and these over this file.
#
#   orphand config check   whether it is right
#   orphand config show    what is in force, and where each value comes from
#   orphand watch          watches what is listed here
";

/// A section, what it is for, and a line for each of its keys.
struct SectionText {
    title: &'static str,
    description: &'static str,
    keys: &'static [(&'static str, &'static str)],
}

#[rustfmt::skip] // one key a line
const SECTIONS: &[SectionText] = &[
    SectionText {
        title: "[defaults]",
        description: "What holds for every directory whose own rule does not say otherwise.",
        keys: &[
            ("names", "Which names are temps: globs on the last part of a path."),
            ("writers", "The temps of these writers too; they are shown by: orphand scan --writer list"),
            ("exclude", "Left alone: \"cache\" is any file or folder below of that name, \"a/cache\" the way from the directory."),
            ("recursive", "Whether what is below the directory is watched too."),
            ("grace", "How long nobody may have used a temp, at least 100ms. Set alone, it holds for fixed names too."),
            ("fixed_name_grace", "The same for names without a random part: scripts append to such files now and then."),
            ("closed", "What a close means: \"orphan\" (a closed temp that nobody renamed is one) or \"settled\" (no more is done)."),
            ("open", "What happens to a temp that a live process holds: \"keep\", \"quarantine\", or \"reap\" without any proof."),
            ("sole_copy", "What happens to a temp that may be the only copy: \"quarantine\", \"keep\" or \"reap\"."),
            ("action", "What happens to an orphan: \"delete\", \"quarantine\" or \"report\"."),
            ("hot", "How a directory is followed in which thousands of temps are made a second: \"scan\" (faster) or \"watch\"."),
            ("network", "Further file systems on which the proof is trusted, by the kernel's name for them."),
            ("broad", "Whether a directory that holds more than one program's files is taken."),
            ("broad_names", "Whether names may be patterns without any letter or digit of their own, like \"*\"."),
        ],
    },
    SectionText {
        title: "[[watch]]",
        description: "A directory to watch; one such part for each. Every key of [defaults] can stand here too.",
        keys: &[("path", "Absolute, or below ~/. It need not be there yet.")],
    },
    SectionText {
        title: "[quarantine]",
        description: "What was moved aside instead of deleted lies in .orphand in its directory.",
        keys: &[
            ("keep", "How long; 0s is for ever."),
            ("percent", "How much of the file system it may take; 0 is no limit."),
            ("min_free", "The part of the bytes and of the inodes that is to be free; with less, copies are dropped; 0% is no limit."),
        ],
    },
    SectionText {
        title: "[journal]",
        description: "What was done, for: orphand history",
        keys: &[("max_size", "The size at which a new one is begun: kB, MB or GB.")],
    },
    SectionText {
        title: "[log]",
        description: "What a watcher says.",
        keys: &[
            ("file", "Where to: a path, or \"none\". Not set: the usual place, where there is no journal of the system's."),
            ("max_size", "The size at which a new one is begun."),
            ("level", "How much: \"error\", \"warn\", \"info\" or \"debug\"."),
            ("leaks", "How often it is summed up who leaks, at least 1s."),
        ],
    },
    SectionText {
        title: "[metrics]",
        description: "Figures for Prometheus, by the textfile collector of its node exporter.",
        keys: &[
            ("textfile", "The file that they are written to, a *.prom. Not set: none."),
            ("every", "How often, at least 1s."),
        ],
    },
];

/// The whole file.
fn default_file() -> String {
    let mut text = HEAD.to_owned();
    for section in SECTIONS {
        // A rule without a path is a mistake, so that one is switched off altogether.
        let off = if section.title == "[[watch]]" {
            "#"
        } else {
            ""
        };
        text.push_str(&format!(
            "\n# {}\n{off}{}\n",
            section.description, section.title
        ));
        for (key, what) in section.keys {
            let value = value::toml(&default_value(section.title, key));
            text.push_str(&format!("\n# {what}\n#{key} = {value}\n"));
        }
    }
    text
}

/// The default of a key, or an example where it has none.
fn default_value(title: &str, key: &str) -> Value {
    let default = match title {
        "[defaults]" => value::rule(&value::built_in(), key),
        "[quarantine]" => value::quarantine(&Limits::default(), key),
        "[journal]" => value::journal(&JournalSettings::default(), key),
        "[log]" => value::log(&LogSettings::default(), key),
        "[metrics]" => value::metrics(&MetricsSettings::default(), key),
        _ => None,
    };
    default.unwrap_or_else(|| match key {
        "path" => "~/.app/sessions".into(),
        "textfile" => "/var/lib/prometheus/node-exporter/orphand.prom".into(),
        _ => "none".into(),
    })
}

/// Makes the file at `path` and the folders that it needs. What is there is never touched.
pub(super) fn write(path: &Path) -> Result<(), Failure> {
    let failed = |error: &io::Error| {
        let what = match error.kind() {
            io::ErrorKind::AlreadyExists => {
                return Failure::new(
                    Exit::Failed,
                    format!(
                        "{path:?} is there already, and stays as it is; to look at it: orphand \
                         config check; to begin anew, move it away first, or name another: \
                         --config FILE"
                    ),
                );
            }
            _ => format!("cannot write {path:?}: {error}; name another place: --config FILE"),
        };
        Failure::new(Exit::Failed, what)
    };
    // It says what may be deleted: nobody else is to change that.
    let folder = path.parent().unwrap_or(Path::new("/"));
    if !folder.is_dir() {
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder.create(folder).map_err(|error| {
            let what =
                format!("cannot make {folder:?}: {error}; name another place: --config FILE");
            Failure::new(Exit::Failed, what)
        })?;
    }
    let mut options = OpenOptions::new();
    let file = options.write(true).create_new(true).mode(0o600).open(path);
    // By its own name at once, not as a temp that a crash would leave: cut off at any place it
    // switches nothing on.
    let written = file.and_then(|mut file| {
        let written = file.write_all(default_file().as_bytes());
        if written.is_err() {
            let _ = fs::remove_file(path);
        }
        written
    });
    written.map_err(|error| failed(&error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::config_file::{self, Config, LogFile, RuleSettings};

    fn parse(text: &str) -> Config {
        let home = Some(Path::new("/home/ann"));
        let config = Config::parse(text, Path::new("c.toml"), home);
        config
            .map_err(|error| format!("{error}\n{text}"))
            .expect("right")
    }

    #[test]
    fn as_it_is_it_changes_nothing() {
        let config = parse(&default_file());
        assert_eq!(config.watch, []);
        assert_eq!(config.defaults, RuleSettings::default());
        let usual = Config::default();
        assert_eq!(config.quarantine, usual.quarantine);
        assert_eq!(config.journal, usual.journal);
        assert_eq!(config.log, usual.log);
        assert_eq!(config.metrics, usual.metrics);
    }

    #[test]
    fn every_line_is_right_and_at_its_default() {
        let on = |line: &str| match line.strip_prefix('#') {
            Some(setting) if !setting.is_empty() && !setting.starts_with(' ') => setting.to_owned(),
            _ => line.to_owned(),
        };
        let all: Vec<String> = default_file().lines().map(on).collect();
        let config = parse(&all.join("\n"));
        assert_eq!(config.defaults, value::built_in());
        assert_eq!(config.watch.len(), 1);
        let usual = Config::default();
        assert_eq!(config.quarantine, usual.quarantine);
        assert_eq!(config.journal, usual.journal);
        assert_eq!(config.metrics.every, usual.metrics.every);
        assert!(config.metrics.textfile.is_some());
        let log = LogSettings {
            file: LogFile::Off,
            ..usual.log
        };
        assert_eq!(config.log, log);
        for section in config_file::SECTIONS.iter() {
            let lines = match section.title {
                "[[watch]]" => &config.watch[0].lines,
                title => &config.lines[title],
            };
            for key in section.keys {
                let below = section.title == "[[watch]]" && *key != "path";
                assert!(
                    lines.contains_key(key) != below,
                    "{key} of {}",
                    section.title
                );
            }
        }
    }

    /// Cut off by a crash, it is still a file in which nothing is switched on.
    #[test]
    fn the_start_of_it_changes_nothing_either() {
        let text = default_file();
        for end in (0..text.len()).filter(|end| text.is_char_boundary(*end)) {
            let config = Config::parse(&text[..end], Path::new("c.toml"), None);
            assert!(config.is_err() || config.is_ok_and(|config| config.watch.is_empty()));
        }
    }
}
