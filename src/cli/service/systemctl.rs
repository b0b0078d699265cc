//! Controls the service through systemctl(1). `systemctl show` is its interface for programs.

use super::control::{Control, ServiceState, call_failure, exit_error};
use super::job::Scope;
use super::paths::ServicePaths;
use super::systemd::UNIT;
use super::tool::{Tool, ToolError, ToolOutput};
use crate::cli::exit::Failure;
use crate::cli::output::text::escaped;
use crate::cli::variables;

const PROPERTIES: &str = "--property=LoadState,ActiveState,SubState,UnitFileState,MainPID,\
                          NeedDaemonReload,Result,ExecMainStatus";

pub(super) struct Systemctl<'p> {
    tool: Tool,
    service: &'p ServicePaths,
}

impl<'p> Systemctl<'p> {
    pub(super) fn new(service: &'p ServicePaths) -> Systemctl<'p> {
        let paths = [
            "/usr/bin/systemctl",
            "/bin/systemctl",
            "/run/current-system/sw/bin/systemctl",
        ];
        Systemctl {
            tool: Tool::find("systemctl", "ORPHAND_SYSTEMCTL", &paths),
            service,
        }
    }

    fn args<'a>(&self, args: &[&'a str]) -> Vec<&'a str> {
        let user = (self.service.scope == Scope::User).then_some("--user");
        user.into_iter().chain(args.iter().copied()).collect()
    }

    fn call(&self, args: &[&str]) -> Result<ToolOutput, ToolError> {
        self.tool.call(&self.args(args))
    }

    /// Calls systemctl, and fails unless it exits with 0.
    fn checked_call(&self, args: &[&str]) -> Result<ToolOutput, Failure> {
        self.checked(args, self.call(args))
    }

    fn checked(
        &self,
        args: &[&str],
        answer: Result<ToolOutput, ToolError>,
    ) -> Result<ToolOutput, Failure> {
        match answer {
            Ok(answer) if answer.code == 0 => Ok(answer),
            Ok(answer) => Err(self.failure(args, &answer)),
            Err(error) => Err(call_failure(
                &error,
                "this system does not seem to run systemd. Let its own service manager start:   orphand watch",
                "see which job it waits for:   systemctl list-jobs",
            )),
        }
    }

    /// Starts or restarts the service, and waits until it is ready. A first scan that takes longer than the time limit
    /// of the call is not a failure.
    fn start_and_wait(&self, verb: &str) -> Result<(), Failure> {
        match self.call(&[verb, UNIT]) {
            Err(ToolError::TimedOut { .. }) => Ok(()),
            answer => self.checked(&[verb, UNIT], answer).map(drop),
        }
    }

    fn failure(&self, args: &[&str], answer: &ToolOutput) -> Failure {
        let stderr = answer.stderr.trim();
        // The list of properties would only make the message longer.
        let args: Vec<&str> = args
            .iter()
            .copied()
            .filter(|arg| *arg != PROPERTIES)
            .collect();
        Failure::failed(format!(
            "{} failed ({}): {}\n  {}",
            self.tool.command_line(&self.args(&args)),
            answer.code,
            escaped(stderr.as_ref()).replace("\\n", " "),
            advice(stderr, self.service)
        ))
    }
}

/// Returns the fix for an error message of systemctl.
fn advice(stderr: &str, service: &ServicePaths) -> String {
    let has = |words: &[&str]| words.iter().any(|words| stderr.contains(words));
    let is_user = service.scope == Scope::User;
    if has(&["Failed to connect to bus", "No medium found"]) && is_user {
        "no systemd runs for this user; su and sudo start none. Log in as that user, or keep one running:   \
         sudo loginctl enable-linger USER"
            .to_owned()
    } else if has(&[
        "Failed to connect to bus",
        "No medium found",
        "not been booted with systemd",
    ]) {
        "systemd does not run here, as in most containers. If this system has another service manager, configure it \
         to run:   orphand watch"
            .to_owned()
    } else if has(&["does not exist", "not found"]) {
        match is_user && variables::value_of("XDG_CONFIG_HOME").is_some() {
            true => "systemd reads another folder, because it does not know this shell's XDG_CONFIG_HOME. Import the \
                     variable, then install again:   systemctl --user import-environment XDG_CONFIG_HOME"
                .to_owned(),
            false => format!("install it again:   {}", service.command("install")),
        }
    } else if has(&["is masked"]) {
        let user = if is_user { "--user " } else { "" };
        format!("the unit is masked; to unmask it:   systemctl {user}unmask {UNIT}")
    } else if has(&[
        "ccess denied",
        "authentication required",
        "ermission denied",
    ]) {
        "only root may do this; use sudo".to_owned()
    } else {
        format!("to find the cause:   {}", service.command("logs"))
    }
}

/// Returns the error with which the last run ended, for people; `None` if it ended without one.
fn last_run_error(result: &str, status: &str, service: &ServicePaths) -> Option<String> {
    let logs = format!("to find the cause:   {}", service.command("logs"));
    Some(match (result, status) {
        ("success" | "", _) => return None,
        ("exit-code", "78") => {
            "the configuration is wrong (78); to see the error:   orphand config check".to_owned()
        }
        // systemd's own number for a program that it cannot start.
        ("exit-code", "203") => {
            let install = service.command("install");
            format!("systemd cannot start the program (203); fix:   {install}")
        }
        ("exit-code", status) => exit_error(status, service),
        ("watchdog", _) => format!("it did not answer for 120 s and was killed; {logs}"),
        ("timeout", _) => format!("it was not ready in time; {logs}"),
        ("oom-kill", _) => {
            let logs = service.command("logs");
            format!("the kernel killed it because memory ran out; when:   {logs}")
        }
        (result, _) => format!("systemd reports {result:?}; {logs}"),
    })
}

/// Parses the output of `systemctl show`.
fn parse_show(shown: &str, service: &ServicePaths) -> ServiceState {
    let field = |name: &str| {
        let mut fields = shown.lines().filter_map(|line| line.split_once('='));
        fields
            .find(|(key, _)| *key == name)
            .map_or("", |(_, value)| value)
    };
    let pid = field("MainPID").parse().ok().filter(|pid| *pid != 0);
    let running = match field("ActiveState") {
        "active" | "reloading" => Some(true),
        // Between two attempts there is no process.
        "activating" => Some(pid.is_some()),
        "" => None,
        _ => Some(false),
    };
    let enabled = match field("UnitFileState") {
        "enabled" | "enabled-runtime" | "linked" | "linked-runtime" | "static" | "alias" => {
            Some(true)
        }
        "" => None,
        _ => Some(false),
    };
    ServiceState {
        loaded: field("LoadState") == "loaded",
        enabled,
        running,
        pid,
        last_run_error: last_run_error(field("Result"), field("ExecMainStatus"), service)
            .filter(|_| running != Some(true)),
        is_stale: field("NeedDaemonReload") == "yes",
        domain: None,
    }
}

impl Control for Systemctl<'_> {
    fn state(&self) -> Result<ServiceState, Failure> {
        let answer = self.checked_call(&["show", PROPERTIES, UNIT])?;
        Ok(parse_show(&answer.stdout, self.service))
    }

    fn load(&self, _found: &ServiceState) -> Result<(), Failure> {
        self.checked_call(&["daemon-reload"])?;
        self.checked_call(&["enable", UNIT])?;
        self.start_and_wait("restart")
    }

    fn start(&self, found: &ServiceState, again: bool) -> Result<(), Failure> {
        if found.is_stale || !found.loaded {
            self.checked_call(&["daemon-reload"])?;
        }
        self.start_and_wait(if again { "restart" } else { "start" })
    }

    fn stop(&self, found: &ServiceState) -> Result<(), Failure> {
        match found.loaded {
            true => self.checked_call(&["stop", UNIT]).map(drop),
            false => Ok(()),
        }
    }

    fn disable(&self, found: &ServiceState) -> Result<(), Failure> {
        match found.loaded {
            true => self.checked_call(&["disable", "--now", UNIT]).map(drop),
            false => Ok(()),
        }
    }

    fn file_removed(&self) -> Result<(), Failure> {
        self.checked_call(&["daemon-reload"]).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::service::paths::ServiceManager;

    fn service(scope: Scope) -> ServicePaths {
        // Only the scope changes the messages; the folders do not.
        let mut service = ServicePaths::new(ServiceManager::Systemd, Scope::System).unwrap();
        service.scope = scope;
        service
    }

    #[test]
    fn every_error_comes_with_a_fix() {
        for (scope, stderr, words) in [
            (
                Scope::User,
                "Failed to connect to bus: No medium found",
                "enable-linger",
            ),
            (
                Scope::System,
                "Failed to connect to bus: Host is down",
                "orphand watch",
            ),
            (
                Scope::System,
                "System has not been booted with systemd as init system (PID 1). Can't operate.",
                "orphand watch",
            ),
            (
                Scope::System,
                "Failed to enable unit: Unit file orphand.service does not exist.",
                "service install",
            ),
            (
                Scope::User,
                "Failed to start: Unit orphand.service is masked.",
                "--user unmask",
            ),
            (Scope::System, "Failed to stop: Access denied", "sudo"),
            (
                Scope::User,
                "Job for orphand.service failed because the control process exited",
                "service logs",
            ),
        ] {
            let text = advice(stderr, &service(scope));
            assert!(text.contains(words), "{words:?} in {text}");
        }
    }

    #[test]
    fn the_end_of_a_run_is_explained() {
        for (result, status, words) in [
            ("success", "0", None),
            ("", "", None),
            ("exit-code", "78", Some("config check")),
            ("exit-code", "75", Some("another orphand")),
            ("exit-code", "203", Some("service install")),
            ("exit-code", "1", Some("exit code 1")),
            ("watchdog", "6", Some("120 s")),
            ("timeout", "0", Some("in time")),
            ("oom-kill", "9", Some("memory")),
            ("signal", "11", Some("\"signal\"")),
        ] {
            let text = last_run_error(result, status, &service(Scope::User));
            assert_eq!(text.is_some(), words.is_some(), "{result}");
            let text = text.unwrap_or_default();
            assert!(
                text.contains(words.unwrap_or_default()),
                "{words:?} in {text}"
            );
        }
    }

    #[test]
    fn the_output_of_show_is_parsed() {
        let show = |active: &str, pid: u32| {
            format!(
                "MainPID={pid}\nLoadState=loaded\nActiveState={active}\nSubState=x\n\
                 UnitFileState=enabled\nNeedDaemonReload=no\nResult=exit-code\nExecMainStatus=78\n"
            )
        };
        for (active, pid, running) in [
            ("active", 7, true),
            ("activating", 7, true),
            ("activating", 0, false),
            ("failed", 0, false),
            ("inactive", 0, false),
            ("deactivating", 7, false),
        ] {
            let state = parse_show(&show(active, pid), &service(Scope::User));
            assert_eq!(state.running, Some(running), "{active}");
            assert_eq!(state.last_run_error.is_some(), !running, "{active}");
            assert_eq!(state.enabled, Some(true));
            assert!(state.loaded && !state.is_stale);
        }
        let absent = parse_show(
            "MainPID=0\nLoadState=not-found\nActiveState=inactive\n",
            &service(Scope::User),
        );
        assert_eq!(
            (absent.loaded, absent.enabled, absent.running),
            (false, None, Some(false))
        );
        let changed = parse_show(
            "LoadState=loaded\nNeedDaemonReload=yes\n",
            &service(Scope::User),
        );
        assert!(changed.is_stale);
    }
}
