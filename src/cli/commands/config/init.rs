//! Writes a configuration file with every setting, its description and its default.
//!
//! The defaults are generated from the settings in the code, so the file cannot name a wrong one.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use orphand::core::retention::Limits;
use serde_json::Value;

use super::value;
use crate::cli::config::{JournalSettings, LogSettings, MetricsSettings};
use crate::cli::exit::{Exit, Failure};

const HEAD: &str = "\
# The configuration of orphand. As it is, this file does not list any directory to watch.
#
# Lines that begin with \"#\" and a word are settings with their defaults, or with an example if
# there is no default: remove the \"#\" to change one. Options override ORPHAND_* variables, and these
# override this file.
#
#   orphand config check   checks this file
#   orphand config show    shows the settings in force, and where each value comes from
#   orphand watch          watches the directories that this file lists
";

/// A section with its description, and the description of each of its keys.
struct SectionText {
    title: &'static str,
    description: &'static str,
    keys: &'static [(&'static str, &'static str)],
}

#[rustfmt::skip] // one key a line
const SECTIONS: &[SectionText] = &[
    SectionText {
        title: "[defaults]",
        description: "The values for all rules that do not set them, and for directories without a rule.",
        keys: &[
            ("names", "The names of temps: globs for the last part of a path."),
            ("writers", "Programs whose temps are processed too; to list them: orphand scan --writer list"),
            ("exclude", "Globs of files and folders to leave alone: \"cache\" at any depth, or a path below the directory like \"a/cache\"."),
            ("recursive", "Include subfolders."),
            ("grace", "The time for which a temp must be unused before it is removed, at least 100ms. Set alone, it also holds for fixed names."),
            ("fixed_name_grace", "The same for names without a random part: scripts append to such files from time to time."),
            ("closed", "Treat a closed temp that was never renamed as \"orphan\", or stop tracking it at the close: \"settled\"."),
            ("open", "The action for a temp that a running process has open: \"keep\", \"quarantine\", or \"reap\" without any proof."),
            ("sole_copy", "The action for a temp that may be the only copy of its data: \"quarantine\", \"keep\" or \"reap\"."),
            ("action", "The action for an orphan: \"delete\", \"quarantine\" or \"report\"."),
            ("hot", "The mode for a directory with thousands of new temps a second: \"scan\" it (faster) or \"watch\" it."),
            ("network", "More file systems on which the proof is trusted, by the kernel's names for them, like \"nfs\"."),
            ("broad", "Allow broad directories, such as /, home directories and system directories."),
            ("broad_names", "Allow names without a literal character other than \".\", \"-\", \"_\" and \"~\", such as \"*\"."),
        ],
    },
    SectionText {
        title: "[[watch]]",
        description: "A directory to watch, one section for each. It may have every key of [defaults] too.",
        keys: &[("path", "The directory: an absolute path, or one that begins with ~/. It need not exist yet.")],
    },
    SectionText {
        title: "[quarantine]",
        description: "Temps that may be the only copy of their data are moved to the quarantine: the folder .orphand in their directory.",
        keys: &[
            ("keep", "The time for which a file stays in quarantine; a file that may be the only copy stays longer; 0s: no limit."),
            ("percent", "The part of the file system that the quarantine may use, in percent; 0: no limit."),
            ("min_free", "The part of the bytes and of the inodes that should be free; if less is free, copies are dropped; 0: no limit."),
        ],
    },
    SectionText {
        title: "[journal]",
        description: "The journal of all actions, which orphand history shows.",
        keys: &[("max_size", "The size at which the journal is rotated, in kB, MB or GB.")],
    },
    SectionText {
        title: "[log]",
        description: "The log of the watcher in the background.",
        keys: &[
            ("file", "The log file: a path, or \"none\". If it is not set: the default file, unless stderr is a terminal or systemd's journal."),
            ("max_size", "The size at which the log is rotated."),
            ("level", "The least important messages that are logged: \"error\", \"warn\", \"info\" or \"debug\"."),
            ("leaks", "The interval at which the log sums up which programs leave temps behind, at least 1s."),
        ],
    },
    SectionText {
        title: "[metrics]",
        description: "Metrics for Prometheus, for the textfile collector of node_exporter.",
        keys: &[
            ("textfile", "The file, whose name ends in .prom. If it is not set, no metrics are written."),
            ("every", "The shortest interval at which the metrics are written, at least 1s."),
        ],
    },
];

/// Returns the content of the file.
fn default_file() -> String {
    let mut text = HEAD.to_owned();
    for section in SECTIONS {
        // A rule without a path is an error, so the title of this section is a comment too.
        let off = if section.title == "[[watch]]" {
            "#"
        } else {
            ""
        };
        text.push_str(&format!(
            "\n# {}\n{off}{}\n",
            section.description, section.title
        ));
        for (key, description) in section.keys {
            let value = value::toml(&default_value(section.title, key));
            text.push_str(&format!("\n# {description}\n#{key} = {value}\n"));
        }
    }
    text
}

/// Returns the default of a key, or an example if it has none.
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
    use crate::cli::config;
    use crate::cli::config::{Config, LogFile, RuleSettings};

    fn parse(text: &str) -> Config {
        let home = Some(Path::new("/home/ann"));
        let config = Config::parse(text, Path::new("c.toml"), home);
        config
            .map_err(|error| format!("{error}\n{text}"))
            .expect("a valid file")
    }

    #[test]
    fn the_file_changes_no_setting() {
        let config = parse(&default_file());
        assert_eq!(config.watch, []);
        assert_eq!(config.defaults, RuleSettings::default());
        let default = Config::default();
        assert_eq!(config.quarantine, default.quarantine);
        assert_eq!(config.journal, default.journal);
        assert_eq!(config.log, default.log);
        assert_eq!(config.metrics, default.metrics);
    }

    #[test]
    fn every_setting_is_valid_and_has_its_default() {
        let uncommented = |line: &str| match line.strip_prefix('#') {
            Some(setting) if !setting.is_empty() && !setting.starts_with(' ') => setting.to_owned(),
            _ => line.to_owned(),
        };
        let all: Vec<String> = default_file().lines().map(uncommented).collect();
        let config = parse(&all.join("\n"));
        assert_eq!(config.defaults, value::built_in());
        assert_eq!(config.watch.len(), 1);
        let default = Config::default();
        assert_eq!(config.quarantine, default.quarantine);
        assert_eq!(config.journal, default.journal);
        assert_eq!(config.metrics.every, default.metrics.every);
        assert!(config.metrics.textfile.is_some());
        let log = LogSettings {
            file: LogFile::Off,
            ..default.log
        };
        assert_eq!(config.log, log);
        for section in config::SECTIONS.iter() {
            let lines = match section.title {
                "[[watch]]" => &config.watch[0].lines,
                title => &config.lines[title],
            };
            for key in section.keys {
                let is_inherited = section.title == "[[watch]]" && *key != "path";
                assert!(
                    lines.contains_key(key) != is_inherited,
                    "{key} of {}",
                    section.title
                );
            }
        }
    }

    /// A file that a crash cut off does not enable anything.
    #[test]
    fn a_truncated_file_lists_no_directory() {
        let text = default_file();
        for end in (0..text.len()).filter(|end| text.is_char_boundary(*end)) {
            let config = Config::parse(&text[..end], Path::new("c.toml"), None);
            assert!(config.is_err() || config.is_ok_and(|config| config.watch.is_empty()));
        }
    }
}
