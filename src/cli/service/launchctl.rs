//! Controls the service through launchctl(1), and explains its exit codes.
//!
//! `bootout` returns before the job has ended, `bootstrap` refuses a job that is still loaded, and both exit with 5 for
//! almost any error. So the state is checked after each call, and a call that exits with 5 is repeated. By its manual,
//! the output of `print` is not an interface: only its exit code decides anything, and its text is only shown to
//! people.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::geteuid;

use super::control::{Control, ServiceState, call_failure, exit_error};
use super::job::Scope;
use super::paths::ServicePaths;
use super::tool::{Tool, ToolOutput};
use super::{launchd, timeouts};
use crate::cli::exit::Failure;
use crate::cli::output::shell;
use crate::cli::output::text::{escaped, span};

/// The pauses between a call that exited with 5 and the next attempts.
const BACK_OFF: [Duration; 3] = [
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
];

/// The pause between two checks whether a job is still loaded.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

mod code {
    pub(super) const NO_PROCESS: i32 = 3;
    /// The code for a job that is loaded, is ending, is disabled, or has a file that launchd refuses.
    pub(super) const IO: i32 = 5;
    pub(super) const IN_PROGRESS: i32 = 36;
    pub(super) const ALREADY: i32 = 37;
    pub(super) const NOT_LOADED: i32 = 113;
    pub(super) const DISABLED: i32 = 119;
    pub(super) const NO_DOMAIN: i32 = 125;
}

pub(super) struct Launchctl<'p> {
    tool: Tool,
    service: &'p ServicePaths,
    uid: u32,
}

impl<'p> Launchctl<'p> {
    pub(super) fn new(service: &'p ServicePaths) -> Launchctl<'p> {
        Launchctl {
            tool: Tool::find("launchctl", "ORPHAND_LAUNCHCTL", &["/bin/launchctl"]),
            service,
            uid: geteuid().as_raw(),
        }
    }

    /// Returns the domain into which the job is loaded.
    fn domain(&self) -> String {
        match self.service.scope {
            Scope::User => format!("gui/{}", self.uid),
            Scope::System => "system".to_owned(),
        }
    }

    /// Returns the domains in which the job can be. A user without a login at the screen may have loaded it into the
    /// second one.
    fn domains(&self) -> Vec<String> {
        let second = (self.service.scope == Scope::User).then(|| format!("user/{}", self.uid));
        [self.domain()].into_iter().chain(second).collect()
    }

    fn call(&self, args: &[&str]) -> Result<ToolOutput, Failure> {
        self.tool.call(args).map_err(|error| {
            call_failure(
                &error,
                "only macOS has launchd; on other systems: orphand service VERB --systemd",
                "try again; if that does not help, log out and in",
            )
        })
    }

    fn is_loaded(&self, domain: &str) -> Result<bool, Failure> {
        Ok(self.call(&["print", &target(domain)])?.code == 0)
    }

    /// Unloads the job, and waits until it has ended.
    fn bootout(&self, domain: &str) -> Result<(), Failure> {
        let target = target(domain);
        let mut pauses = BACK_OFF.iter();
        loop {
            let answer = self.call(&["bootout", &target])?;
            match answer.code {
                0 | code::IN_PROGRESS | code::ALREADY => return self.wait_until_gone(domain),
                code::NO_PROCESS | code::NOT_LOADED => return Ok(()),
                code::IO if !self.is_loaded(domain)? => return Ok(()),
                code::IO => match pauses.next() {
                    Some(pause) => thread::sleep(*pause),
                    None => return Err(self.failure("bootout", &answer)),
                },
                _ => return Err(self.failure("bootout", &answer)),
            }
        }
    }

    fn wait_until_gone(&self, domain: &str) -> Result<(), Failure> {
        let limit = timeouts::call_limit();
        let end = Instant::now() + limit;
        while self.is_loaded(domain)? {
            if Instant::now() >= end {
                return Err(Failure::failed(format!(
                    "orphand has not ended within {}\n  kill it:   launchctl kill SIGKILL {}",
                    span(limit),
                    target(domain)
                )));
            }
            thread::sleep(POLL_INTERVAL);
        }
        Ok(())
    }

    /// Loads the job, which starts it.
    fn bootstrap(&self) -> Result<(), Failure> {
        let domain = self.domain();
        let file = self.service.file();
        let file = file.to_str().unwrap_or_default();
        // A disabled job cannot be loaded; `bootstrap` would exit with 5.
        self.call(&["enable", &target(&domain)])?;
        let mut pauses = BACK_OFF.iter();
        loop {
            let answer = self.call(&["bootstrap", &domain, file])?;
            match answer.code {
                0 => return Ok(()),
                // Another process has loaded the job first, perhaps with another program, which must be replaced.
                code::ALREADY => return self.kickstart(&domain, true),
                code::IO | code::IN_PROGRESS => match pauses.next() {
                    Some(pause) => thread::sleep(*pause),
                    None if self.is_loaded(&domain)? => return self.kickstart(&domain, true),
                    None => return Err(self.failure("bootstrap", &answer)),
                },
                _ => return Err(self.failure("bootstrap", &answer)),
            }
        }
    }

    /// Starts a job that is loaded. With `again`, a running job is restarted.
    fn kickstart(&self, domain: &str, again: bool) -> Result<(), Failure> {
        let again = again.then_some("-k");
        let target = target(domain);
        let args: Vec<&str> = ["kickstart"]
            .into_iter()
            .chain(again)
            .chain([&*target])
            .collect();
        let answer = self.call(&args)?;
        match answer.code {
            0 | code::ALREADY => Ok(()),
            _ => Err(self.failure("kickstart", &answer)),
        }
    }

    /// Returns whether the job is enabled. It can be disabled in System Settings, or by `launchctl disable`.
    fn is_enabled(&self) -> Result<Option<bool>, Failure> {
        let answer = self.call(&["print-disabled", &self.domain()])?;
        Ok((answer.code == 0).then(|| !lists_as_disabled(&answer.stdout)))
    }

    fn failure(&self, verb: &str, answer: &ToolOutput) -> Failure {
        let mut text = exit_code_text(verb, answer.code, self.service, self.uid);
        if (verb, answer.code) == ("bootstrap", code::IO) {
            for cause in self.causes() {
                text.push_str(&format!("\n  {cause}"));
            }
        }
        let stderr = answer.stderr.trim();
        if !stderr.is_empty() {
            let stderr = escaped(stderr.as_ref());
            text.push_str(&format!("\n  launchctl printed: {stderr}"));
        }
        Failure::failed(text)
    }

    /// Returns the possible causes of exit code 5, each with its fix.
    fn causes(&self) -> Vec<String> {
        let mut causes = Vec::new();
        let file = self.service.file();
        let word = shell::word(&file);
        if let Ok(meta) = fs::metadata(&file) {
            let (owner, uid) = (meta.uid(), self.uid);
            if owner != uid {
                causes.push(format!(
                    "{file:?} belongs to uid {owner}, but must belong to you:   sudo chown {uid} {word}"
                ));
            }
            if meta.mode() & 0o022 != 0 {
                causes.push(format!(
                    "other users may write {file:?}, so launchd refuses it:   chmod 644 {word}"
                ));
            }
        }
        if let Some(installed) = self.service.installed_service()
            && !installed.program.exists()
        {
            causes.push(format!(
                "{:?}, which it starts, does not exist:   {}",
                installed.program,
                self.service.command("install")
            ));
        }
        if let Ok(Some(false)) = self.is_enabled() {
            causes.push(LOGIN_ITEMS_HINT.to_owned());
        }
        if causes.is_empty() {
            causes.push(format!("it may be disabled: {LOGIN_ITEMS_HINT}"));
            causes.push(format!(
                "or see what launchd reports:   launchctl print {}",
                target(&self.domain())
            ));
        }
        causes
    }
}

const LOGIN_ITEMS_HINT: &str =
    "turn orphand on in System Settings > General > Login Items & Extensions, then try again";

fn target(domain: &str) -> String {
    format!("{domain}/{}", launchd::LABEL)
}

/// Returns the meaning of an exit code of `launchctl VERB`, and the fix.
fn exit_code_text(verb: &str, code: i32, service: &ServicePaths, uid: u32) -> String {
    let noun = service.kind_name().to_lowercase();
    let command = |verb| service.command(verb);
    match code {
        code::IO if verb == "bootstrap" => {
            format!("launchd refuses the {noun} (5) and gives no reason")
        }
        code::IO => format!(
            "launchd cannot stop the {noun} now (5); try again:   {}",
            command("stop")
        ),
        code::IN_PROGRESS | code::ALREADY => {
            let start = command("start");
            format!("launchd is still busy with the {noun} ({code}); try again:   {start}")
        }
        code::NO_PROCESS | code::NOT_LOADED => {
            let start = command("start");
            format!("the {noun} is not loaded ({code}); load and start it:   {start}")
        }
        code::DISABLED => format!("the {noun} is disabled ({code})\n  {LOGIN_ITEMS_HINT}"),
        code::NO_DOMAIN => format!(
            "uid {uid} is not logged in at the screen, so launchd has no session for the {noun} ({code})\n  \
             it will start at the next login there; to start it now, until you log out or in:\n  \
             launchctl bootstrap user/{uid} {}",
            shell::word(service.file())
        ),
        1 if service.scope == Scope::System => {
            format!("launchd does not let this user {verb} a system daemon; use sudo")
        }
        code => {
            format!("launchctl {verb} failed ({code}); for the meaning:   launchctl error {code}")
        }
    }
}

/// Returns the error with which the job ended, by the exit code that launchd keeps; `None` if it ended without one.
fn last_run_error(code: i32, service: &ServicePaths) -> Option<String> {
    Some(match code {
        0 => return None,
        // orphand exits with 78 and logs the error; launchd reports 78 if it cannot open a log file.
        78 => format!(
            "the configuration is wrong, or launchd cannot write {:?} (78); check both:   orphand config check",
            service.crash_log()
        ),
        126 => "macOS does not let launchd start the program (126); to find the cause:   orphand doctor".to_owned(),
        127 => format!("the program does not exist (127); fix:   {}", service.command("install")),
        code => exit_error(code, service),
    })
}

/// Parses the output of `launchctl print`, which is only shown to people.
fn parse_print(printed: &str, service: &ServicePaths) -> ServiceState {
    // The first match counts: nested sections have fields of the same names.
    let field = |name: &str| {
        let mut fields = printed
            .lines()
            .filter_map(|line| line.trim().split_once(" = "));
        Some(fields.find(|(key, _)| *key == name)?.1)
    };
    let running = match field("state") {
        Some("running") => Some(true),
        Some("not running" | "waiting") => Some(false),
        // The job is starting or ending.
        _ => None,
    };
    let last = field("last exit code").and_then(|code| {
        let digits = code.split(|c: char| !c.is_ascii_digit()).next()?;
        digits.parse().ok()
    });
    ServiceState {
        loaded: true,
        running,
        pid: field("pid").and_then(|pid| pid.parse().ok()),
        // Between two attempts it is neither "running" nor "not running".
        last_run_error: last
            .filter(|_| running != Some(true))
            .and_then(|code| last_run_error(code, service)),
        ..ServiceState::default()
    }
}

/// Returns whether the output of `launchctl print-disabled` lists the job as disabled. Older systems print `true`.
fn lists_as_disabled(list: &str) -> bool {
    let name = format!("\"{}\"", launchd::LABEL);
    let mut lines = list
        .lines()
        .filter(|line| line.trim_start().starts_with(&name));
    let word = lines.next().and_then(|line| line.split_once("=>"));
    word.is_some_and(|(_, word)| matches!(word.trim(), "disabled" | "true"))
}

impl Control for Launchctl<'_> {
    fn state(&self) -> Result<ServiceState, Failure> {
        for domain in self.domains() {
            let answer = self.call(&["print", &target(&domain)])?;
            if answer.code == 0 {
                return Ok(ServiceState {
                    domain: Some(domain),
                    ..parse_print(&answer.stdout, self.service)
                });
            }
        }
        Ok(ServiceState {
            running: Some(false),
            ..ServiceState::default()
        })
    }

    fn full_state(&self) -> Result<ServiceState, Failure> {
        let state = self.state()?;
        Ok(ServiceState {
            enabled: self.is_enabled()?,
            ..state
        })
    }

    fn load(&self, found: &ServiceState) -> Result<(), Failure> {
        self.stop(found)?;
        self.bootstrap()
    }

    fn start(&self, found: &ServiceState, again: bool) -> Result<(), Failure> {
        match &found.domain {
            Some(domain) => self.kickstart(domain, again),
            None => self.bootstrap(),
        }
    }

    fn stop(&self, found: &ServiceState) -> Result<(), Failure> {
        found
            .domain
            .iter()
            .try_for_each(|domain| self.bootout(domain))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::service::paths::ServiceManager;

    fn service() -> ServicePaths {
        ServicePaths::new(ServiceManager::Launchd, Scope::System).unwrap()
    }

    #[test]
    fn every_exit_code_comes_with_a_fix() {
        for (verb, code, words) in [
            ("bootstrap", 5, "refuses the daemon"),
            ("bootout", 5, "service stop"),
            ("bootout", 36, "service start"),
            ("bootstrap", 37, "service start"),
            ("kickstart", 3, "service start"),
            ("kickstart", 113, "service start"),
            ("bootstrap", 119, "Login Items"),
            ("bootstrap", 125, "launchctl bootstrap user/501 "),
            ("bootstrap", 125, "next login"),
            ("bootstrap", 1, "sudo"),
            ("bootstrap", 99, "launchctl error 99"),
        ] {
            let text = exit_code_text(verb, code, &service(), 501);
            assert!(text.contains(words), "{words:?} in {text}");
        }
        for (code, words) in [
            (75, "another orphand"),
            (78, "config check"),
            (126, "orphand doctor"),
            (127, "service install"),
            (9, "service logs"),
        ] {
            let text = last_run_error(code, &service()).unwrap();
            assert!(text.contains(words), "{words:?} in {text}");
        }
        assert_eq!(last_run_error(0, &service()), None);
    }

    #[test]
    fn the_output_of_print_is_parsed() {
        let running = "io.github.orphand = {\n\tactive count = 1\n\tstate = running\n\n\tpid = 4711\n\
                       \tlast exit code = 78: EX_CONFIG\n\tendpoints = {\n\t\tstate = active\n\t}\n}\n";
        let state = parse_print(running, &service());
        assert_eq!(
            (state.running, state.pid, state.last_run_error),
            (Some(true), Some(4711), None)
        );
        let ended = running
            .replace("= running", "= not running")
            .replace("\tpid = 4711\n", "");
        let state = parse_print(&ended, &service());
        assert_eq!((state.running, state.pid), (Some(false), None));
        assert!(state.last_run_error.unwrap().contains("(78)"));
        let again = ended.replace("= not running", "= spawn scheduled");
        let state = parse_print(&again, &service());
        assert_eq!(
            (state.running, state.last_run_error.is_some()),
            (None, true)
        );
        let never = "\tstate = waiting\n\tlast exit code = (never exited)\n";
        assert_eq!(parse_print(never, &service()).last_run_error, None);
        assert_eq!(parse_print("anything else", &service()).running, None);
    }

    #[test]
    fn the_list_of_disabled_jobs_is_parsed() {
        for (list, off) in [
            (
                "disabled services = {\n\t\"io.github.orphand\" => disabled\n}",
                true,
            ),
            (
                "disabled services = {\n\t\"io.github.orphand\" => true\n}",
                true,
            ),
            (
                "disabled services = {\n\t\"io.github.orphand\" => enabled\n}",
                false,
            ),
            (
                "disabled services = {\n\t\"io.github.orphand.other\" => disabled\n}",
                false,
            ),
            ("disabled services = {\n}", false),
        ] {
            assert_eq!(lists_as_disabled(list), off, "{list}");
        }
    }
}
