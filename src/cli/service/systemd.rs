//! Renders and parses the systemd units. No I/O.

use super::job::{InstalledService, Job, Scope, UnsupportedPath, path_text};
use super::template::filled;

/// The name of the unit, and of its file.
pub(super) const UNIT: &str = "orphand.service";

const USER: &str = include_str!("templates/user.service");
const SYSTEM: &str = include_str!("templates/system.service");

const AS_ROOT: &str = "\
# The service runs as root, for files of many users, but with only these capabilities: to see which
# process has a file open (PTRACE), to take a lease on another user's file (LEASE), to enter other
# users' directories (DAC), and to remove files from directories with a sticky bit (FOWNER).
CapabilityBoundingSet=CAP_SYS_PTRACE CAP_LEASE CAP_DAC_READ_SEARCH CAP_DAC_OVERRIDE CAP_FOWNER";

const AS_OWNER: &str = "\
# The user whose programs leave the temps. The owner of a file may take a lease on it, which proves
# that no process has it open. So the service needs no capabilities, and processes only that user's
# files.
User={{USER}}
CapabilityBoundingSet=";

/// Returns the unit file for `job`.
pub(super) fn render(job: &Job) -> Result<String, UnsupportedPath> {
    // systemd expands no variables in the path of the program, and reads `$$` there as two characters.
    let mut command = quoted(path_text(&job.program)?);
    for argument in job.arguments() {
        command.push(' ');
        command.push_str(&word(&path_text(argument)?.replace('$', "$$")));
    }
    let mut environment = String::new();
    if job.scope == Scope::User && !job.environment.is_empty() {
        environment.push_str(
            "# The folders of the shell that installed it; systemd reads no shell startup files.\n",
        );
    }
    for (name, value) in &job.environment {
        let pair = word(&format!("{name}={}", path_text(value)?));
        environment.push_str(&format!("Environment={pair}\n"));
    }
    let identity = match &job.run_as {
        Some(user) => filled(AS_OWNER, &[("USER", user)]),
        None => AS_ROOT.to_owned(),
    };
    let config = job.config.as_deref().map(path_text).transpose()?;
    let template = match job.scope {
        Scope::User => USER,
        Scope::System => SYSTEM,
    };
    Ok(filled(
        template,
        &[
            ("COMMAND", &command),
            ("ENVIRONMENT", &environment),
            ("IDENTITY", &identity),
            ("CONFIG", config.unwrap_or("/etc/orphand/config.toml")),
        ],
    ))
}

/// Returns the word, in quotes if it needs them.
fn word(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:,@$".contains(c);
    match text.chars().all(is_plain) {
        true => text.to_owned(),
        false => quoted(text),
    }
}

fn quoted(text: &str) -> String {
    let text = text
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('%', "%%");
    format!("\"{text}\"")
}

/// Returns the command of a unit file, or `None` if orphand did not write the file.
pub(super) fn read(file: &str) -> Option<InstalledService> {
    let command = file
        .lines()
        .find_map(|line| line.strip_prefix("ExecStart="))?;
    let mut words = words(command);
    for argument in words.iter_mut().skip(1) {
        *argument = argument.replace("$$", "$");
    }
    InstalledService::of(&words)
}

/// Splits a command line into words, and removes quotes, escapes and doubled `%`.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut in_quotes = false;
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' => {
                in_quotes = !in_quotes;
                word.get_or_insert_default();
            }
            ' ' if !in_quotes => words.extend(word.take()),
            '\\' => word.get_or_insert_default().extend(chars.next()),
            '%' => {
                chars.next_if_eq(&'%');
                word.get_or_insert_default().push('%');
            }
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// Returns whether systemd would start this program. It refuses paths with quotes and backslashes, even if they are
/// escaped.
pub(super) fn is_startable(program: &str) -> bool {
    !program.contains(['"', '\'', '\\'])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::{Path, PathBuf};

    fn job(scope: Scope) -> Job {
        let system = [
            ("XDG_CONFIG_HOME", "/etc"),
            ("XDG_STATE_HOME", "/var/lib"),
            ("XDG_RUNTIME_DIR", "/run"),
        ];
        let environment = system.map(|(name, value)| (name, value.into()));
        Job {
            scope,
            program: "/usr/bin/orphand".into(),
            config: None,
            environment: match scope {
                Scope::User => Vec::new(),
                Scope::System => environment.into(),
            },
            crash_log: PathBuf::new(),
            run_as: None,
        }
    }

    #[test]
    fn units_match_the_snapshots() {
        let owner = Job {
            run_as: Some("app".into()),
            ..job(Scope::System)
        };
        for (job, want) in [
            (job(Scope::User), include_str!("snapshots/user.service")),
            (job(Scope::System), include_str!("snapshots/system.service")),
            (owner, include_str!("snapshots/owner.service")),
        ] {
            assert_eq!(render(&job).unwrap(), want);
        }
    }

    #[test]
    fn words_are_quoted_as_systemd_reads_them() {
        for (program, config, want) in [
            ("/usr/bin/orphand", None, r#""/usr/bin/orphand" watch"#),
            ("/a b/100%/$x", None, r#""/a b/100%%/$x" watch"#),
            (r#"/a"b\c"#, None, r#""/a\"b\\c" watch"#),
            ("/o", Some("/c.toml"), r#""/o" watch --config /c.toml"#),
            (
                "/o",
                Some("/a $b/{{USER}}%h"),
                r#""/o" watch --config "/a $$b/{{USER}}%%h""#,
            ),
        ] {
            let job = Job {
                program: program.into(),
                config: config.map(PathBuf::from),
                ..job(Scope::User)
            };
            let file = render(&job).unwrap();
            let line = format!("\nExecStart={want}\n");
            assert!(file.contains(&line), "{line:?} in {file}");
            let started = read(&file).unwrap();
            assert_eq!(started.program, Path::new(program));
            assert_eq!(started.config.as_deref(), config.map(Path::new));
        }
        assert_eq!(read("[Service]\nType=oneshot\n"), None);
    }

    #[test]
    fn folders_of_the_installing_shell_are_set() {
        let job = Job {
            environment: vec![("XDG_STATE_HOME", "/a b/100%".into())],
            ..job(Scope::User)
        };
        let file = render(&job).unwrap();
        assert!(
            file.contains("\nEnvironment=\"XDG_STATE_HOME=/a b/100%%\"\n"),
            "{file}"
        );
    }
}
