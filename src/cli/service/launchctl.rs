//! The sequences of launchctl(1): what it answers, and what that means.
//!
//! `bootout` returns before the job has ended, `bootstrap` refuses a job that is still there, and
//! both answer 5 for almost anything. So each is followed by a look, and 5 is tried again. What
//! `print` says is no interface by its own manual: only its exit code decides anything, its text is
//! read for people.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::thread;
use std::time::{Duration, Instant};

use orphand::state::read_regular;
use rustix::process::geteuid;

use super::control::{Control, UnitState};
use super::job::Scope;
use super::paths::ServicePaths;
use super::tool::{Tool, ToolError, ToolOutput};
use super::{launchd, waits};
use crate::cli::text::{escaped, span};
use crate::cli::{Exit, Failure, shell};

/// Between a call that answered 5 and the next try.
const BACK_OFF: [Duration; 3] = [
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
];

/// Between two looks whether a job is gone.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

mod code {
    pub(super) const NO_PROCESS: i32 = 3;
    /// It says this of a job that is loaded, ends, is switched off, or has a file it does not like.
    pub(super) const IO: i32 = 5;
    pub(super) const IN_PROGRESS: i32 = 36;
    pub(super) const ALREADY: i32 = 37;
    pub(super) const NOT_LOADED: i32 = 113;
    pub(super) const DISABLED: i32 = 119;
    pub(super) const NO_DOMAIN: i32 = 125;
}

pub(super) struct Launchctl<'p> {
    tool: Tool,
    place: &'p ServicePaths,
    uid: u32,
}

impl<'p> Launchctl<'p> {
    pub(super) fn new(place: &'p ServicePaths) -> Launchctl<'p> {
        Launchctl {
            tool: Tool::find("launchctl", "ORPHAND_LAUNCHCTL", &["/bin/launchctl"]),
            place,
            uid: geteuid().as_raw(),
        }
    }

    /// Where the job belongs.
    fn domain(&self) -> String {
        match self.place.scope {
            Scope::User => format!("gui/{}", self.uid),
            Scope::System => "system".to_owned(),
        }
    }

    /// Where it can be: somebody without a login at the screen may have put it into the second.
    fn domains(&self) -> Vec<String> {
        let mut domains = vec![self.domain()];
        if self.place.scope == Scope::User {
            domains.push(format!("user/{}", self.uid));
        }
        domains
    }

    fn call(&self, args: &[&str]) -> Result<ToolOutput, Failure> {
        let args: Vec<OsString> = args.iter().map(OsString::from).collect();
        self.tool.call(&args).map_err(|error| {
            let what = match &error {
                ToolError::Start { .. } if self.tool.is_missing() => {
                    "launchd is macOS's; elsewhere: orphand service VERB --systemd"
                }
                ToolError::Start { .. } => "check that this user may start it",
                ToolError::TimedOut { .. } => "try again; if it stays so, log out and in",
            };
            Failure::new(Exit::Failed, format!("{error}\n  {what}"))
        })
    }

    fn is_loaded(&self, domain: &str) -> Result<bool, Failure> {
        Ok(self.call(&["print", &target(domain)])?.code == 0)
    }

    /// Unloads the job, and returns when it is gone.
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
        let limit = waits::call_limit();
        let end = Instant::now() + limit;
        while self.is_loaded(domain)? {
            if Instant::now() >= end {
                let text = format!(
                    "orphand was told to end and has not done so for {}\n  \
                     end it at once:   launchctl kill SIGKILL {}",
                    span(limit),
                    target(domain)
                );
                return Err(Failure::new(Exit::Failed, text));
            }
            thread::sleep(POLL_INTERVAL);
        }
        Ok(())
    }

    /// Loads the job, which starts it.
    fn bootstrap(&self) -> Result<(), Failure> {
        let domain = self.domain();
        let file = self.place.file();
        let file = file.to_str().unwrap_or_default();
        // One that was switched off cannot be loaded, and the answer to that would be 5.
        self.call(&["enable", &target(&domain)])?;
        let mut pauses = BACK_OFF.iter();
        loop {
            let answer = self.call(&["bootstrap", &domain, file])?;
            match answer.code {
                0 => return Ok(()),
                // Somebody was faster, perhaps with another program: that one has to go.
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

    /// Starts a job that is loaded.
    fn kickstart(&self, domain: &str, again: bool) -> Result<(), Failure> {
        let target = target(domain);
        let mut args = vec!["kickstart"];
        if again {
            args.push("-k");
        }
        args.push(&target);
        let answer = self.call(&args)?;
        match answer.code {
            0 | code::ALREADY => Ok(()),
            _ => Err(self.failure("kickstart", &answer)),
        }
    }

    /// Whether nobody switched it off: in System Settings, or by `launchctl disable`.
    fn is_enabled(&self) -> Result<Option<bool>, Failure> {
        let answer = self.call(&["print-disabled", &self.domain()])?;
        Ok((answer.code == 0).then(|| !lists_as_disabled(&answer.stdout)))
    }

    fn failure(&self, verb: &str, answer: &ToolOutput) -> Failure {
        let causes = match (verb, answer.code) {
            ("bootstrap", code::IO) => self.causes(),
            _ => Vec::new(),
        };
        let mut text = exit_code_text(verb, answer.code, self.place, self.uid);
        for cause in causes {
            text.push_str(&format!("\n  {cause}"));
        }
        let said = answer.stderr.trim();
        if !said.is_empty() {
            text.push_str(&format!("\n  launchctl said: {}", escaped(said.as_ref())));
        }
        Failure::new(Exit::Failed, text)
    }

    /// What makes launchd answer 5, as far as it can be seen from here.
    fn causes(&self) -> Vec<String> {
        let mut causes = Vec::new();
        let file = self.place.file();
        if let Ok(meta) = fs::metadata(&file) {
            if meta.uid() != self.uid {
                causes.push(format!(
                    "{file:?} belongs to uid {}; it must be yours:   sudo chown {} {}",
                    meta.uid(),
                    self.uid,
                    shell::word(&file)
                ));
            }
            if meta.mode() & 0o022 != 0 {
                causes.push(format!(
                    "others may write {file:?}, so launchd does not take it:   chmod 644 {}",
                    shell::word(&file)
                ));
            }
        }
        let started = read_regular(&file, super::paths::LARGEST)
            .ok()
            .and_then(|bytes| String::from_utf8(bytes).ok())
            .and_then(|file| launchd::read(&file));
        if let Some(started) = started.filter(|started| !started.program.exists()) {
            causes.push(format!(
                "there is no {:?}, which it is to start:   {}",
                started.program,
                self.place.command("install")
            ));
        }
        if let Ok(Some(false)) = self.is_enabled() {
            causes.push(LOGIN_ITEMS_HINT.to_owned());
        }
        if causes.is_empty() {
            causes.push(format!("it may be switched off: {LOGIN_ITEMS_HINT}"));
            causes.push(format!(
                "or ask launchd itself:   launchctl print {}",
                target(&self.domain())
            ));
        }
        causes
    }
}

const LOGIN_ITEMS_HINT: &str =
    "switch orphand on in System Settings > General > Login Items & Extensions, then try again";

fn target(domain: &str) -> String {
    format!("{domain}/{}", launchd::LABEL)
}

/// What an exit code of launchctl's means for who wanted `verb`, and what to do about it.
fn exit_code_text(verb: &str, code: i32, place: &ServicePaths, uid: u32) -> String {
    let noun = place.kind_name();
    match code {
        code::IO if verb == "bootstrap" => {
            format!("launchd does not take the {noun} (5), and does not say why")
        }
        code::IO => format!(
            "launchd cannot end the {noun} now (5); try again:   {}",
            place.command("stop")
        ),
        code::IN_PROGRESS | code::ALREADY => format!(
            "launchd is still busy with the {noun} ({code}); try again:   {}",
            place.command("start")
        ),
        code::NO_PROCESS | code::NOT_LOADED => format!(
            "the {noun} is not loaded ({code}); load and start it:   {}",
            place.command("start")
        ),
        code::DISABLED => format!("the {noun} is switched off ({code})\n  {LOGIN_ITEMS_HINT}"),
        code::NO_DOMAIN => format!(
            "nobody is logged in at the screen as uid {uid}, so launchd has nowhere to start the \
             {noun} ({code})\n  \
             it starts by itself at the next login there. Now, until you log out or in:\n  \
             launchctl bootstrap user/{uid} {}",
            shell::word(place.file())
        ),
        1 if place.scope == Scope::System => {
            format!("launchd does not let this user {verb} a daemon of the whole machine; use sudo")
        }
        code => format!(
            "launchctl {verb} has failed ({code}); what that means:   launchctl error {code}"
        ),
    }
}

/// How a job ended, by the exit code that launchd keeps.
fn last_run_error(code: i32, place: &ServicePaths) -> Option<String> {
    let what = match code {
        0 => return None,
        75 => "another orphand watches one of its directories (75); end that one".to_owned(),
        // Ours says so in its log; launchd says it of a file that it cannot open.
        78 => format!(
            "the configuration is wrong, or launchd cannot write {:?} (78); check both:   orphand \
             config check",
            place.crash_log()
        ),
        126 => {
            "macOS does not let launchd start the program (126); why:   orphand doctor".to_owned()
        }
        127 => format!(
            "there is no such program (127); mend it:   {}",
            place.command("install")
        ),
        code => format!(
            "it ended with exit code {code}; why:   {}",
            place.command("logs")
        ),
    };
    Some(what)
}

/// What `launchctl print` says, for people.
fn parse_print(printed: &str, place: &ServicePaths) -> UnitState {
    // The first of each: deeper down there are others of the same name.
    let field = |name: &str| {
        let lines = printed.lines().map(str::trim);
        lines
            .filter_map(|line| line.split_once(" = "))
            .find(|(key, _)| *key == name)
    };
    let running = field("state").and_then(|(_, state)| match state {
        "running" => Some(true),
        "not running" | "waiting" => Some(false),
        // On the way up or down.
        _ => None,
    });
    let pid = field("pid").and_then(|(_, pid)| pid.parse().ok());
    let last = field("last exit code").and_then(|(_, code)| {
        let digits = code.split(|c: char| !c.is_ascii_digit()).next()?;
        digits.parse().ok()
    });
    UnitState {
        loaded: true,
        running,
        pid,
        // Between two tries it is neither running nor not running.
        last_run_error: last
            .filter(|_| running != Some(true))
            .and_then(|code| last_run_error(code, place)),
        ..UnitState::default()
    }
}

/// Whether the list of what is switched off names our job. Older systems say `true` for it.
fn lists_as_disabled(list: &str) -> bool {
    let name = format!("\"{}\"", launchd::LABEL);
    let line = list
        .lines()
        .find(|line| line.trim_start().starts_with(&name));
    line.and_then(|line| line.split_once("=>"))
        .is_some_and(|(_, word)| matches!(word.trim(), "disabled" | "true"))
}

impl Control for Launchctl<'_> {
    fn state(&self) -> Result<UnitState, Failure> {
        for domain in self.domains() {
            let answer = self.call(&["print", &target(&domain)])?;
            if answer.code == 0 {
                return Ok(UnitState {
                    domain: Some(domain),
                    ..parse_print(&answer.stdout, self.place)
                });
            }
        }
        Ok(UnitState {
            running: Some(false),
            ..UnitState::default()
        })
    }

    fn full_state(&self) -> Result<UnitState, Failure> {
        let state = self.state()?;
        Ok(UnitState {
            enabled: self.is_enabled()?,
            ..state
        })
    }

    fn load(&self, found: &UnitState) -> Result<(), Failure> {
        if let Some(domain) = &found.domain {
            self.bootout(domain)?;
        }
        self.bootstrap()
    }

    fn start(&self, found: &UnitState) -> Result<(), Failure> {
        match &found.domain {
            Some(domain) => self.kickstart(domain, false),
            None => self.bootstrap(),
        }
    }

    fn restart(&self, found: &UnitState) -> Result<(), Failure> {
        match &found.domain {
            Some(domain) => self.kickstart(domain, true),
            None => self.bootstrap(),
        }
    }

    fn stop(&self, found: &UnitState) -> Result<(), Failure> {
        match &found.domain {
            Some(domain) => self.bootout(domain),
            None => Ok(()),
        }
    }

    fn disable(&self, found: &UnitState) -> Result<(), Failure> {
        self.stop(found)
    }

    fn file_removed(&self) -> Result<(), Failure> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::service::paths::ServiceManager;

    fn place() -> ServicePaths {
        ServicePaths::new(ServiceManager::Launchd, Scope::System).unwrap()
    }

    #[test]
    fn every_code_comes_with_a_way_on() {
        for (verb, code, words) in [
            ("bootstrap", 5, "does not take the daemon"),
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
            let text = exit_code_text(verb, code, &place(), 501);
            assert!(text.contains(words), "{words:?} in {text}");
        }
        for (code, words) in [
            (75, "another orphand"),
            (78, "config check"),
            (126, "orphand doctor"),
            (127, "service install"),
            (9, "service logs"),
        ] {
            let text = last_run_error(code, &place()).unwrap();
            assert!(text.contains(words), "{words:?} in {text}");
        }
        assert_eq!(last_run_error(0, &place()), None);
    }

    #[test]
    fn what_print_tells_people() {
        let running = "io.github.orphand = {\n\tactive count = 1\n\tstate = running\n\n\tpid = 4711\n\
                       \tlast exit code = 78: EX_CONFIG\n\tendpoints = {\n\t\tstate = active\n\t}\n}\n";
        let state = parse_print(running, &place());
        assert_eq!(
            (state.running, state.pid, state.last_run_error),
            (Some(true), Some(4711), None)
        );
        let ended = running
            .replace("= running", "= not running")
            .replace("\tpid = 4711\n", "");
        let state = parse_print(&ended, &place());
        assert_eq!((state.running, state.pid), (Some(false), None));
        assert!(state.last_run_error.unwrap().contains("(78)"));
        let again = ended.replace("= not running", "= spawn scheduled");
        let state = parse_print(&again, &place());
        assert_eq!((state.running, state.last_run_error.is_some()), (None, true));
        let never = "\tstate = waiting\n\tlast exit code = (never exited)\n";
        assert_eq!(parse_print(never, &place()).last_run_error, None);
        assert_eq!(parse_print("anything else", &place()).running, None);
    }

    #[test]
    fn who_is_switched_off() {
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
