//! Renders and parses the property list for launchd. No I/O.

use super::job::{InstalledService, Job, Scope, UnsupportedPath, path_text};
use super::template::filled;

/// The label of the job, and the name of its file without `.plist`.
pub(super) const LABEL: &str = "io.github.orphand";

const TEMPLATE: &str = include_str!("templates/launchd.plist");

const SESSION_TYPES: &str = "
\t<!-- For users who are logged in at the screen, and for users who are only logged in over the network. -->
\t<key>LimitLoadToSessionType</key>
\t<array>
\t\t<string>Aqua</string>
\t\t<string>Background</string>
\t</array>
";

/// Returns the property list for `job`.
pub(super) fn render(job: &Job) -> Result<String, UnsupportedPath> {
    let mut arguments = vec![string(path_text(&job.program)?)];
    for argument in job.arguments() {
        arguments.push(string(path_text(argument)?));
    }
    let crashes = escaped(path_text(&job.crash_log)?);
    let (start, sessions) = match job.scope {
        Scope::User => ("login", SESSION_TYPES),
        Scope::System => ("boot", ""),
    };
    Ok(filled(
        TEMPLATE,
        &[
            ("LABEL", LABEL),
            ("ARGUMENTS", &arguments.join("\n")),
            ("ENVIRONMENT", &environment(job)?),
            ("START", start),
            ("SESSIONS", sessions),
            ("CRASHES", &crashes),
        ],
    ))
}

fn environment(job: &Job) -> Result<String, UnsupportedPath> {
    if job.environment.is_empty() {
        return Ok(String::new());
    }
    let why = match job.scope {
        Scope::User => {
            "The folders of the shell that installed it; launchd reads no shell startup files."
        }
        Scope::System => {
            "A job without a login has no folders; these lead to its configuration and state."
        }
    };
    let mut out = format!("\n\t<!-- {why} -->\n\t<key>EnvironmentVariables</key>\n\t<dict>\n");
    for (name, value) in &job.environment {
        let value = string(path_text(value)?);
        out.push_str(&format!("\t\t<key>{name}</key>\n{value}\n"));
    }
    out.push_str("\t</dict>\n");
    Ok(out)
}

fn string(text: &str) -> String {
    format!("\t\t<string>{}</string>", escaped(text))
}

/// Escapes text for XML. `&` is replaced first, because the other entities contain it.
fn escaped(text: &str) -> String {
    ENTITIES
        .iter()
        .fold(text.to_owned(), |text, (plain, entity)| {
            text.replace(plain, entity)
        })
}

fn unescaped(text: &str) -> String {
    ENTITIES
        .iter()
        .rev()
        .fold(text.to_owned(), |text, (plain, entity)| {
            text.replace(entity, plain)
        })
}

const ENTITIES: [(&str, &str); 5] = [
    ("&", "&amp;"),
    ("<", "&lt;"),
    (">", "&gt;"),
    ("\"", "&quot;"),
    ("'", "&apos;"),
];

/// Returns the command of a property list, or `None` if orphand did not write the file, or if it was converted to
/// binary.
pub(super) fn read(file: &str) -> Option<InstalledService> {
    let (_, rest) = file.split_once("<key>ProgramArguments</key>")?;
    let (list, _) = rest.split_once("</array>")?;
    let words = list.split("<string>").skip(1);
    let words = words.filter_map(|word| Some(unescaped(word.split_once("</string>")?.0)));
    InstalledService::of(&words.collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::{Path, PathBuf};

    fn job(scope: Scope) -> Job {
        Job {
            scope,
            program: "/opt/homebrew/opt/orphand/bin/orphand".into(),
            config: None,
            environment: Vec::new(),
            crash_log: "/Users/me/Library/Logs/orphand/crash.log".into(),
            run_as: None,
        }
    }

    #[test]
    fn the_agent_matches_the_snapshot() {
        let want = include_str!("snapshots/agent.plist");
        assert_eq!(render(&job(Scope::User)).unwrap(), want);
    }

    #[test]
    fn the_daemon_matches_the_snapshot() {
        let daemon = Job {
            environment: vec![
                ("HOME", "/var/root".into()),
                ("XDG_CONFIG_HOME", "/etc".into()),
            ],
            ..job(Scope::System)
        };
        let want = include_str!("snapshots/daemon.plist");
        assert_eq!(render(&daemon).unwrap(), want);
    }

    #[test]
    fn a_rendered_file_is_parsed_again() {
        for path in [
            "/a b/orphand",
            "/a&b/<o>\"r'p/{{LABEL}}",
            "/ü/&amp;/&lt;",
            "/--/x",
        ] {
            let written = Job {
                program: path.into(),
                config: Some(PathBuf::from(path).join("c.toml")),
                crash_log: path.into(),
                ..job(Scope::User)
            };
            let file = render(&written).unwrap();
            let read = read(&file).unwrap();
            assert_eq!(read.program, Path::new(path));
            assert_eq!(read.config, written.config);
        }
        assert_eq!(read("bplist00"), None);
    }

    #[test]
    fn a_path_that_xml_cannot_contain_is_refused() {
        for path in ["/a\nb", "/a\u{1b}b", "/a\u{ffff}b"] {
            let job = Job {
                program: path.into(),
                ..job(Scope::User)
            };
            let error = render(&job).unwrap_err().to_string();
            assert!(error.contains("control character"), "{error}");
        }
    }
}
