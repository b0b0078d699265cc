//! `service status`: shows whether the service is installed, enabled, loaded and running, and its problems.

use std::path::PathBuf;

use orphand::store::folders::Folders;
use orphand::store::json::Object;
use serde_json::{Value, json};

use super::control::ServiceState;
use super::manager::control_of;
use super::paths::ServicePaths;
use super::{Problem, file_problems, job::Scope, outdated_problem, start};
use crate::cli::commands::status::client::RunningWatch;
use crate::cli::exit::{Exit, Failure};
use crate::cli::options::OutputOptions;
use crate::cli::output::standard_streams::print;
use crate::cli::output::text::escaped;

/// The state and the problems of a service.
#[derive(Debug, Default)]
struct ServiceReport {
    installed: bool,
    state: ServiceState,
    watcher: Option<RunningWatch>,
    program: Option<PathBuf>,
    problems: Vec<Problem>,
    /// The reason why the service manager could not be asked.
    error: Option<String>,
}

pub(super) fn run(
    service: &ServicePaths,
    folders: &Folders,
    output: &OutputOptions,
) -> Result<Exit, Failure> {
    let report = ServiceReport::of(service, folders);
    let text = match output.json {
        true => format!("{}\n", report.json(service)),
        false if output.quiet => String::new(),
        false => report.text(service),
    };
    print(text.as_bytes())?;
    match &report.error {
        // Without an installed service, an error of the service manager does not matter.
        Some(error) if report.installed => Err(Failure::new(Exit::Failed, error)),
        _ => Ok(report.exit()),
    }
}

impl ServiceReport {
    fn of(service: &ServicePaths, folders: &Folders) -> ServiceReport {
        let watcher = start::find_watcher(service, folders);
        let mut problems = file_problems(service);
        problems.extend(
            watcher
                .as_ref()
                .and_then(|watcher| outdated_problem(watcher, service)),
        );
        let (state, error) = match control_of(service).full_state() {
            Ok(state) => (state, None),
            Err(failure) => (ServiceState::default(), Some(failure.text)),
        };
        let installed = service.file().exists();
        if installed && state.is_stale {
            problems.push(Problem {
                what: format!(
                    "{} has not read the current unit file",
                    service.manager.name()
                ),
                fix: service.command("restart"),
            });
        }
        if installed && state.loaded && state.enabled == Some(false) {
            problems.push(Problem {
                what: format!(
                    "the service is disabled and does not start at {}",
                    match service.scope {
                        Scope::User => "login",
                        Scope::System => "boot",
                    }
                ),
                fix: service.command("install"),
            });
        }
        ServiceReport {
            installed,
            program: super::installed_service(service).map(|started| started.program),
            // Without an installed service, the watcher belongs to something else.
            watcher: watcher.filter(|_| installed),
            state,
            problems,
            // Without an installed service, there is nothing to ask for.
            error: error.filter(|_| installed),
        }
    }

    fn runs(&self) -> bool {
        self.watcher.is_some() || self.state.running == Some(true)
    }

    fn exit(&self) -> Exit {
        let is_degraded = self
            .watcher
            .as_ref()
            .is_some_and(|watcher| !watcher.answer.problems.is_empty());
        match (self.installed, self.runs()) {
            (false, _) => Exit::NotInstalled,
            (true, false) => Exit::STOPPED,
            (true, true) if is_degraded => Exit::Degraded,
            (true, true) => Exit::Done,
        }
    }

    fn pid(&self) -> Option<u32> {
        let watcher = self.watcher.as_ref().map(|watcher| watcher.answer.pid);
        watcher.or(self.state.pid)
    }

    fn text(&self, service: &ServicePaths) -> String {
        let mut out = String::new();
        if !self.installed {
            out.push_str("orphand is not installed as a service\n");
            out.push_str(&format!(
                "  install and start:   {}\n",
                service.command("install")
            ));
            out.push_str("  run without one:     orphand watch DIR\n");
            if let Some(homebrew) = service.homebrew_file() {
                let homebrew = escaped(&homebrew);
                out.push_str(&format!(
                    "  Homebrew manages the service ({homebrew}):   brew services info orphand\n"
                ));
            }
            return out;
        }
        let version = self
            .watcher
            .as_ref()
            .map(|watcher| format!(" {}", watcher.answer.version));
        let runs = match (self.runs(), &self.error) {
            (true, _) => "is running",
            (false, None) => "is not running",
            (false, Some(_)) => "may be running",
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
        states.extend(word(self.state.enabled, "enabled", "disabled"));
        if self.error.is_none() {
            states.push(if self.state.loaded {
                "loaded"
            } else {
                "not loaded"
            });
        }
        let file = escaped(&service.file());
        out.push_str(&format!(
            "  {:<9} {}   {file}\n",
            service.kind_name(),
            states.join(", ")
        ));
        if let Some(program) = &self.program {
            out.push_str(&format!("  program   {}\n", escaped(program)));
        }
        match &self.watcher {
            Some(watcher) if watcher.answer.problems.is_empty() => out.push_str("  health    ok\n"),
            Some(watcher) => {
                for problem in &watcher.answer.problems {
                    out.push_str(&format!("  health    {problem}\n"));
                }
            }
            None if self.runs() => out.push_str("  health    no answer yet\n"),
            None => {}
        }
        if !self.runs() && self.error.is_none() {
            let end = self.state.last_run_error.clone();
            let start = || format!("to start it:   {}", service.command("start"));
            out.push_str(&format!("  {}\n", end.unwrap_or_else(start)));
        }
        for problem in &self.problems {
            out.push_str(&format!("  !! {}   fix:   {}\n", problem.what, problem.fix));
        }
        out
    }

    fn json(&self, service: &ServicePaths) -> Value {
        let problem = |problem: &Problem| json!({"what": problem.what, "cure": problem.fix});
        let watcher = self.watcher.as_ref();
        Object::default()
            .with("service", service.manager.name())
            .with("name", service.name())
            .with(
                "scope",
                if service.scope == Scope::User {
                    "user"
                } else {
                    "system"
                },
            )
            .with_path("file", Some(&service.file()))
            .with_path("program", self.program.as_deref())
            .with("installed", self.installed)
            .with("enabled", self.state.enabled)
            .with("loaded", self.error.is_none().then_some(self.state.loaded))
            .with(
                "running",
                (self.runs() || self.error.is_none()).then_some(self.runs()),
            )
            .with("pid", self.pid())
            .with(
                "version",
                watcher.map(|watcher| watcher.answer.version.as_str()),
            )
            .with(
                "trouble",
                watcher
                    .map(|watcher| watcher.answer.problems.clone())
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
    use crate::cli::runtime::status_answer::WatchAnswer;
    use crate::cli::service::paths::ServiceManager;

    fn service() -> ServicePaths {
        ServicePaths::new(ServiceManager::OURS, Scope::System).unwrap()
    }

    fn watcher(version: &str, is_outdated: bool, trouble: &[&str]) -> RunningWatch {
        let answer = WatchAnswer {
            pid: 7,
            version: version.to_owned(),
            is_background: true,
            problems: trouble.iter().map(ToString::to_string).collect(),
            ..WatchAnswer::default()
        };
        RunningWatch {
            answer,
            is_outdated,
        }
    }

    #[test]
    fn the_exit_code_has_the_state() {
        let ours = env!("CARGO_PKG_VERSION");
        let state = |running| ServiceState {
            loaded: true,
            running,
            ..ServiceState::default()
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
    fn the_problems_of_the_watcher_are_shown() {
        let report = ServiceReport {
            installed: true,
            watcher: Some(watcher("0.0.9", false, &["/srv/app cannot be read"])),
            ..ServiceReport::default()
        };
        let text = report.text(&service());
        assert!(
            text.starts_with("orphand 0.0.9 is running, pid 7\n"),
            "{text}"
        );
        assert!(
            text.contains("  health    /srv/app cannot be read\n"),
            "{text}"
        );
        let document = report.json(&service());
        assert_eq!(document["version"], "0.0.9");
        assert_eq!(document["trouble"], json!(["/srv/app cannot be read"]));
    }

    #[test]
    fn an_upgrade_that_is_not_running_yet_is_a_problem() {
        let ours = env!("CARGO_PKG_VERSION");
        for (watcher, words) in [
            (watcher(ours, false, &[]), None),
            (watcher(ours, true, &[]), Some("newer than the running one")),
            (
                watcher("0.0.9", false, &[]),
                Some("0.0.9 is running, but this is"),
            ),
            (
                watcher("0.0.9", true, &[]),
                Some("0.0.9 is running, but this is"),
            ),
        ] {
            let problem = outdated_problem(&watcher, &service());
            assert_eq!(problem.is_some(), words.is_some(), "{watcher:?}");
            let Some((problem, words)) = problem.zip(words) else {
                continue;
            };
            assert!(problem.what.contains(words), "{problem:?}");
            assert_eq!(problem.fix, service().command("restart"));
        }
    }
}
