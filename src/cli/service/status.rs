//! `service status`: shows whether the service is installed, enabled, loaded and running, and its problems.

use std::io;
use std::path::PathBuf;

use orphand::store::json::{WirePath, field};
use serde::Serialize;

use super::context::ServiceContext;
use super::control::ServiceState;
use super::job::Scope;
use super::paths::ServicePaths;
use super::problems::{Problem, file_problems, outdated_problem};
use super::start;
use crate::cli::exit::{Exit, Failure};
use crate::cli::output::standard_streams::print;
use crate::cli::output::text::escaped;
use crate::cli::runtime::status_answer::WatchAnswer;

/// The state and the problems of a service.
#[derive(Debug, Default)]
struct ServiceReport {
    installed: bool,
    state: ServiceState,
    /// The answer of the watcher that the service runs.
    answer: Option<WatchAnswer>,
    program: Option<PathBuf>,
    problems: Vec<Problem>,
    /// The reason why the service manager could not be asked.
    error: Option<String>,
}

/// The document of `service status --json`.
#[derive(Debug, Serialize)]
struct ServiceDocument<'a> {
    service: &'static str,
    name: &'static str,
    scope: Scope,
    #[serde(flatten, with = "field::file")]
    file: WirePath<'a>,
    #[serde(flatten, with = "field::program")]
    program: WirePath<'a>,
    installed: bool,
    enabled: Option<bool>,
    loaded: Option<bool>,
    running: Option<bool>,
    pid: Option<u32>,
    version: Option<&'a str>,
    trouble: &'a [String],
    end: Option<&'a str>,
    problems: &'a [Problem],
    error: Option<&'a str>,
}

pub(super) fn run(context: &ServiceContext<'_>) -> Result<Exit, Failure> {
    let report = ServiceReport::of(context);
    let text = match (context.output.json, context.output.quiet) {
        (true, _) => {
            let document = serde_json::to_string(&report.document(context.service));
            document.map_err(io::Error::from)? + "\n"
        }
        (false, true) => String::new(),
        (false, false) => report.text(context.service),
    };
    print(text.as_bytes())?;
    match &report.error {
        Some(error) => Err(Failure::failed(error)),
        None => Ok(report.exit()),
    }
}

impl ServiceReport {
    fn of(context: &ServiceContext<'_>) -> ServiceReport {
        let service = context.service;
        let watcher = start::find_watcher(service);
        let mut problems = file_problems(service);
        problems.extend(
            watcher
                .as_ref()
                .and_then(|watcher| outdated_problem(watcher, service)),
        );
        let (state, error) = match context.control.full_state() {
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
            let at = match service.scope {
                Scope::User => "login",
                Scope::System => "boot",
            };
            problems.push(Problem {
                what: format!("the service is disabled and does not start at {at}"),
                fix: service.command("install"),
            });
        }
        ServiceReport {
            installed,
            program: service
                .installed_service()
                .map(|installed| installed.program),
            // Without an installed service, the watcher belongs to something else.
            answer: watcher.filter(|_| installed).map(|watcher| watcher.answer),
            state,
            problems,
            // Without an installed service, there is nothing to ask for.
            error: error.filter(|_| installed),
        }
    }

    fn runs(&self) -> bool {
        self.answer.is_some() || self.state.running == Some(true)
    }

    fn exit(&self) -> Exit {
        let is_healthy = self.problems_of_watcher().is_empty();
        match (self.installed, self.runs(), is_healthy) {
            (false, _, _) => Exit::NotInstalled,
            (true, false, _) => Exit::STOPPED,
            (true, true, false) => Exit::Degraded,
            (true, true, true) => Exit::Done,
        }
    }

    fn pid(&self) -> Option<u32> {
        self.answer
            .as_ref()
            .map(|answer| answer.pid)
            .or(self.state.pid)
    }

    fn problems_of_watcher(&self) -> &[String] {
        self.answer.as_ref().map_or(&[], |answer| &answer.problems)
    }

    fn text(&self, service: &ServicePaths) -> String {
        if !self.installed {
            return not_installed_text(service);
        }
        let mut lines = vec![self.headline(), self.state_line(service)];
        lines.extend(
            self.program
                .iter()
                .map(|program| format!("  program   {}", escaped(program))),
        );
        match &self.answer {
            Some(answer) if answer.problems.is_empty() => lines.push("  health    ok".to_owned()),
            Some(answer) => {
                let problems = answer.problems.iter();
                lines.extend(problems.map(|problem| format!("  health    {problem}")));
            }
            None if self.runs() => lines.push("  health    no answer yet".to_owned()),
            None if self.error.is_none() => {
                let start = || format!("to start it:   {}", service.command("start"));
                let end = self.state.last_run_error.clone();
                lines.push(format!("  {}", end.unwrap_or_else(start)));
            }
            None => {}
        }
        let problem = |one: &Problem| format!("  !! {}   fix:   {}", one.what, one.fix);
        lines.extend(self.problems.iter().map(problem));
        lines.join("\n") + "\n"
    }

    fn headline(&self) -> String {
        let version = self
            .answer
            .as_ref()
            .map(|answer| format!(" {}", answer.version));
        let pid = self.pid().map(|pid| format!(", pid {pid}"));
        let runs = match (self.runs(), &self.error) {
            (true, _) => "is running",
            (false, None) => "is not running",
            (false, Some(_)) => "may be running",
        };
        format!(
            "orphand{} {runs}{}",
            version.unwrap_or_default(),
            pid.unwrap_or_default()
        )
    }

    fn state_line(&self, service: &ServicePaths) -> String {
        let loaded = self.error.is_none().then_some(self.state.loaded);
        let word = |is: Option<bool>, yes, no| is.map(|is| if is { yes } else { no });
        let words = [
            Some("installed"),
            word(self.state.enabled, "enabled", "disabled"),
            word(loaded, "loaded", "not loaded"),
        ];
        let words: Vec<&str> = words.into_iter().flatten().collect();
        let kind = service.kind_name().to_lowercase();
        format!(
            "  {kind:<9} {}   {}",
            words.join(", "),
            escaped(&service.file())
        )
    }

    fn document(&self, service: &ServicePaths) -> ServiceDocument<'_> {
        let is_known = self.error.is_none();
        ServiceDocument {
            service: service.manager.name(),
            name: service.name(),
            scope: service.scope,
            file: Some(service.file().into()),
            program: self.program.as_deref().map(Into::into),
            installed: self.installed,
            enabled: self.state.enabled,
            loaded: is_known.then_some(self.state.loaded),
            running: (self.runs() || is_known).then_some(self.runs()),
            pid: self.pid(),
            version: self.answer.as_ref().map(|answer| answer.version.as_str()),
            trouble: self.problems_of_watcher(),
            end: self.state.last_run_error.as_deref(),
            problems: &self.problems,
            error: self.error.as_deref(),
        }
    }
}

fn not_installed_text(service: &ServicePaths) -> String {
    let mut text = format!(
        "orphand is not installed as a service\n  \
         install and start:   {}\n  \
         run without one:     orphand watch DIR\n",
        service.command("install")
    );
    if let Some(homebrew) = service.homebrew_file() {
        let homebrew = escaped(&homebrew);
        text +=
            &format!("  Homebrew manages the service ({homebrew}):   brew services info orphand\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::commands::status::client::RunningWatch;
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
            has_terminal: false,
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
                answer: watcher.map(|watcher| watcher.answer),
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
            answer: Some(watcher("0.0.9", false, &["/srv/app cannot be read"]).answer),
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
        let document = serde_json::to_value(report.document(&service())).unwrap();
        assert_eq!(document["version"], "0.0.9");
        assert_eq!(
            document["trouble"],
            serde_json::json!(["/srv/app cannot be read"])
        );
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
