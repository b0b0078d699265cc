//! `service status`: installed, enabled, loaded and running, and what is wrong with it.

use std::path::PathBuf;

use orphand::json::Object;
use orphand::state::Folders;
use serde_json::{Value, json};

use super::control::{self, UnitState};
use super::paths::ServicePaths;
use super::{Problem, job::Scope, outdated_problem, file_problems, start};
use crate::cli::args::OutputOptions;
use crate::cli::status::client::RunningWatch;
use crate::cli::text::escaped;
use crate::cli::{Exit, Failure};

/// All that can be told of a service.
#[derive(Debug, Default)]
struct ServiceReport {
    installed: bool,
    state: UnitState,
    watcher: Option<RunningWatch>,
    program: Option<PathBuf>,
    problems: Vec<Problem>,
    /// Why the supervisor could not be asked.
    error: Option<String>,
}

pub(super) fn run(
    place: &ServicePaths,
    folders: &Folders,
    look: &OutputOptions,
) -> Result<Exit, Failure> {
    let report = ServiceReport::of(place, folders);
    let text = match look.json {
        true => format!("{}\n", report.json(place)),
        false if look.quiet => String::new(),
        false => report.text(place),
    };
    crate::cli::print(text.as_bytes())?;
    match &report.error {
        // Where nothing is installed there was nothing to ask.
        Some(error) if report.installed => Err(Failure::new(Exit::Failed, error)),
        _ => Ok(report.exit()),
    }
}

impl ServiceReport {
    fn of(place: &ServicePaths, folders: &Folders) -> ServiceReport {
        let watcher = start::find_watcher(place, folders);
        let mut problems = file_problems(place);
        problems.extend(
            watcher
                .as_ref()
                .and_then(|watcher| outdated_problem(watcher, place)),
        );
        let (state, error) = match control::of(place).full_state() {
            Ok(state) => (state, None),
            Err(failure) => (UnitState::default(), Some(failure.text)),
        };
        let installed = place.file().exists();
        if installed && state.is_stale {
            problems.push(Problem {
                what: format!(
                    "{} does not know the unit as it is now",
                    place.manager.name()
                ),
                fix: place.command("restart"),
            });
        }
        if installed && state.loaded && state.enabled == Some(false) {
            problems.push(Problem {
                what: "it is switched off, and does not start by itself".to_owned(),
                fix: place.command("install"),
            });
        }
        ServiceReport {
            installed,
            program: super::installed_unit(place).map(|started| started.program),
            // Where nothing is installed it is somebody else's.
            watcher: watcher.filter(|_| installed),
            state,
            problems,
            // Where no file is there is nothing to ask for.
            error: error.filter(|_| installed),
        }
    }

    fn runs(&self) -> bool {
        self.watcher.is_some() || self.state.running == Some(true)
    }

    fn exit(&self) -> Exit {
        let blind = self
            .watcher
            .as_ref()
            .is_some_and(|watcher| !watcher.problems.is_empty());
        match (self.installed, self.runs()) {
            (false, _) => Exit::NotInstalled,
            (true, false) => Exit::STOPPED,
            (true, true) if blind => Exit::Degraded,
            (true, true) => Exit::Done,
        }
    }

    fn pid(&self) -> Option<u32> {
        let watcher = self.watcher.as_ref().map(|watcher| watcher.pid);
        watcher.or(self.state.pid)
    }

    fn text(&self, place: &ServicePaths) -> String {
        let mut out = String::new();
        if !self.installed {
            out.push_str("orphand is not installed as a service\n");
            out.push_str(&format!(
                "  install and start:   {}\n",
                place.command("install")
            ));
            out.push_str("  just run it here:    orphand watch DIR\n");
            if let Some(theirs) = place.homebrew_file() {
                let theirs = escaped(&theirs);
                out.push_str(&format!(
                    "  it is Homebrew's here ({theirs}):   brew services info orphand\n"
                ));
            }
            return out;
        }
        let version = self
            .watcher
            .as_ref()
            .map(|watcher| format!(" {}", watcher.version));
        let runs = match (self.runs(), &self.error) {
            (true, _) => "runs",
            (false, None) => "does not run",
            (false, Some(_)) => "may run or not",
        };
        let pid = self
            .pid()
            .map(|pid| format!(", pid {pid}"))
            .unwrap_or_default();
        out.push_str(&format!(
            "orphand{} {runs}{pid}\n",
            version.unwrap_or_default()
        ));
        let mut states = vec!["installed"];
        let word = |is: Option<bool>, yes, no| is.map(|is| if is { yes } else { no });
        states.extend(word(self.state.enabled, "enabled", "switched off"));
        if self.error.is_none() {
            states.push(if self.state.loaded {
                "loaded"
            } else {
                "not loaded"
            });
        }
        let file = escaped(&place.file());
        out.push_str(&format!(
            "  {:<9} {}   {file}\n",
            place.kind_name(),
            states.join(", ")
        ));
        if let Some(program) = &self.program {
            out.push_str(&format!("  program   {}\n", escaped(program)));
        }
        match &self.watcher {
            Some(watcher) if watcher.problems.is_empty() => out.push_str("  health    ok\n"),
            Some(watcher) => {
                for trouble in &watcher.problems {
                    out.push_str(&format!("  health    {trouble}\n"));
                }
            }
            None if self.runs() => out.push_str("  health    it does not answer (yet)\n"),
            None => {}
        }
        if !self.runs() && self.error.is_none() {
            let end = self.state.last_run_error.clone();
            let start = || format!("start it:   {}", place.command("start"));
            out.push_str(&format!("  {}\n", end.unwrap_or_else(start)));
        }
        for problem in &self.problems {
            out.push_str(&format!(
                "  !! {}   mend it:   {}\n",
                problem.what, problem.fix
            ));
        }
        out
    }

    fn json(&self, place: &ServicePaths) -> Value {
        let problem = |problem: &Problem| json!({"what": problem.what, "cure": problem.fix});
        let watcher = self.watcher.as_ref();
        Object::default()
            .with("service", place.manager.name())
            .with("name", place.name())
            .with(
                "scope",
                if place.scope == Scope::User {
                    "user"
                } else {
                    "system"
                },
            )
            .with_path("file", Some(&place.file()))
            .with_path("program", self.program.as_deref())
            .with("installed", self.installed)
            .with("enabled", self.state.enabled)
            .with("loaded", self.error.is_none().then_some(self.state.loaded))
            .with(
                "running",
                (self.runs() || self.error.is_none()).then_some(self.runs()),
            )
            .with("pid", self.pid())
            .with("version", watcher.map(|watcher| watcher.version.as_str()))
            .with(
                "trouble",
                watcher
                    .map(|watcher| watcher.problems.clone())
                    .unwrap_or_default(),
            )
            .with("end", self.state.last_run_error.as_deref())
            .with(
                "problems",
                self.problems.iter().map(problem).collect::<Vec<_>>(),
            )
            .with("error", self.error.as_deref())
            .into_value()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::service::paths::ServiceManager;

    fn place() -> ServicePaths {
        ServicePaths::new(ServiceManager::OURS, Scope::System).unwrap()
    }

    fn watcher(version: &str, is_outdated: bool, trouble: &[&str]) -> RunningWatch {
        RunningWatch {
            pid: 7,
            version: version.to_owned(),
            is_outdated,
            is_background: true,
            problems: trouble.iter().map(ToString::to_string).collect(),
            answer: Value::Null,
        }
    }

    #[test]
    fn what_the_exit_code_says() {
        let ours = env!("CARGO_PKG_VERSION");
        let state = |running| UnitState {
            loaded: true,
            running,
            ..UnitState::default()
        };
        for (installed, watcher, running, want) in [
            (false, None, Some(false), Exit::NotInstalled),
            (true, None, Some(false), Exit::STOPPED),
            (true, None, None, Exit::STOPPED),
            (true, None, Some(true), Exit::Done),
            (true, Some(watcher(ours, false, &[])), None, Exit::Done),
            (
                true,
                Some(watcher(ours, false, &["blind"])),
                Some(true),
                Exit::Degraded,
            ),
        ] {
            let report = ServiceReport {
                installed,
                watcher,
                state: state(running),
                ..ServiceReport::default()
            };
            assert_eq!(report.exit(), want, "{report:?}");
        }
    }

    #[test]
    fn what_the_watcher_says_is_shown() {
        let report = ServiceReport {
            installed: true,
            watcher: Some(watcher("0.0.9", false, &["/srv/app cannot be read"])),
            ..ServiceReport::default()
        };
        let text = report.text(&place());
        assert!(text.starts_with("orphand 0.0.9 runs, pid 7\n"), "{text}");
        assert!(
            text.contains("  health    /srv/app cannot be read\n"),
            "{text}"
        );
        let document = report.json(&place());
        assert_eq!(document["version"], "0.0.9");
        assert_eq!(document["trouble"], json!(["/srv/app cannot be read"]));
    }

    #[test]
    fn an_upgrade_that_does_not_run_yet() {
        let ours = env!("CARGO_PKG_VERSION");
        for (watcher, words) in [
            (watcher(ours, false, &[]), None),
            (
                watcher(ours, true, &[]),
                Some("newer than the one that runs"),
            ),
            (
                watcher("0.0.9", false, &[]),
                Some("0.0.9 runs, and this is"),
            ),
            (watcher("0.0.9", true, &[]), Some("0.0.9 runs, and this is")),
        ] {
            let problem = outdated_problem(&watcher, &place());
            assert_eq!(problem.is_some(), words.is_some(), "{watcher:?}");
            let Some((problem, words)) = problem.zip(words) else {
                continue;
            };
            assert!(problem.what.contains(words), "{problem:?}");
            assert_eq!(problem.fix, place().command("restart"));
        }
    }
}
