//! `orphand service` with a launchctl and a systemctl of the test: the real service manager is never called.
//! The test sets their responses and compares every call.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use crate::sandbox::{
    CommandResult, DEADLINE, Sandbox, StartChild, is_root, mode, path_bytes, signal,
};

const LAUNCHCTL: &str = include_str!("service/launchctl.sh");
const SYSTEMCTL: &str = include_str!("service/systemctl.sh");

/// The expected arguments of `systemctl show`.
const SHOW: &str = "show --property=LoadState,ActiveState,SubState,UnitFileState,MainPID,\
                    NeedDaemonReload,Result,ExecMainStatus orphand.service";

/// A sandbox with a simulated service manager.
struct ServiceFixture {
    // The first field, so that it is dropped before the sandbox, in which its file is.
    _kill_started: KillStarted,
    sandbox: Sandbox,
    /// The folder for the state of the service manager.
    at: PathBuf,
    /// `--launchd` or `--systemd`.
    which: &'static str,
}

/// The file with the pid of the process that a service manager has started. Kills the process if the manager
/// has not ended it.
struct KillStarted(PathBuf);

impl Drop for KillStarted {
    fn drop(&mut self) {
        if let Ok(pid) = fs::read_to_string(&self.0) {
            signal(pid.trim().parse().unwrap(), libc::SIGKILL);
        }
    }
}

impl ServiceFixture {
    fn launchd() -> ServiceFixture {
        ServiceFixture::new(Sandbox::ordinary(), "--launchd")
    }

    fn systemd() -> ServiceFixture {
        ServiceFixture::new(Sandbox::ordinary(), "--systemd")
    }

    fn new(sandbox: Sandbox, which: &'static str) -> ServiceFixture {
        let base = sandbox.base().to_owned();
        for (name, script) in [
            ("launchctl", LAUNCHCTL),
            ("systemctl", SYSTEMCTL),
            // These only print their arguments.
            ("journalctl", "#!/bin/sh\necho \"journalctl $*\"\n"),
            ("tail", "#!/bin/sh\necho \"tail $*\"\n"),
        ] {
            let path = base.join(name);
            crate::sandbox::write(&path, script);
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let at = base.join(which.trim_start_matches('-'));
        for folder in [at.clone(), at.join("answers")] {
            fs::create_dir(&folder).unwrap();
            sandbox.chown_to_user(&folder);
        }
        let sandbox = sandbox
            .env("ORPHAND_LAUNCHCTL", base.join("launchctl"))
            .env("ORPHAND_SYSTEMCTL", base.join("systemctl"))
            .env("ORPHAND_JOURNALCTL", base.join("journalctl"))
            .env("ORPHAND_TAIL", base.join("tail"))
            // No watcher answers, except in one test.
            .env("ORPHAND_SERVICE_WAIT", "0s");
        let fixture = ServiceFixture {
            sandbox,
            which,
            _kill_started: KillStarted(at.join("pid")),
            at,
        };
        fixture.put_state("unit", fixture.file().to_str().unwrap());
        fixture
    }

    fn env(mut self, name: &'static str, value: impl Into<OsString>) -> ServiceFixture {
        self.sandbox = self.sandbox.env(name, value);
        self
    }

    /// Writes a state file of the service manager.
    fn put_state(&self, name: &str, content: &str) {
        let path = self.at.join(name);
        crate::sandbox::write(&path, content);
        self.sandbox.chown_to_user(&path);
    }

    /// Sets the next responses to a verb.
    fn set_responses(&self, verb: &str, answers: &[&str]) {
        self.put_state(
            &format!("answers/{verb}"),
            &format!("{}\n", answers.join("\n")),
        );
    }

    /// Writes the configuration file.
    fn config(&self, content: &str) {
        self.sandbox.write("../config/orphand/config.toml", content);
    }

    #[track_caller]
    fn run(&self, verb: &str, args: &[&str]) -> CommandResult {
        let all = ["service", verb, self.which]
            .into_iter()
            .chain(args.iter().copied());
        self.sandbox.run(all)
    }

    /// Returns the path of the service file of an ordinary user.
    fn file(&self) -> PathBuf {
        self.sandbox.base().join(match self.which {
            "--launchd" => "home/Library/LaunchAgents/io.github.orphand.plist",
            _ => "config/systemd/user/orphand.service",
        })
    }

    /// Writes the service file.
    fn put_file(&self, content: &str) {
        let below = self.file();
        let below = below.strip_prefix(self.sandbox.base()).unwrap();
        self.sandbox.write(Path::new("..").join(below), content);
    }

    fn uid(&self) -> u32 {
        self.sandbox.base().metadata().unwrap().uid()
    }

    /// Returns the calls since the last query. `{gui}`, `{user}` and `{file}` replace the real values.
    fn calls(&self) -> Vec<String> {
        let path = self.at.join("calls");
        let calls = fs::read_to_string(&path).unwrap_or_default();
        let _ = fs::remove_file(path);
        let uid = self.uid();
        let short = |call: &str| {
            call.replace(self.file().to_str().unwrap(), "{file}")
                .replace(&format!("gui/{uid}"), "{gui}")
                .replace(&format!("user/{uid}"), "{user}")
                .replace("/io.github.orphand", "/-")
                .replace(SHOW, "show")
        };
        calls.lines().map(short).collect()
    }

    /// Installs the service, and clears the list of calls.
    #[track_caller]
    fn installed(self) -> ServiceFixture {
        self.run("install", &[]).exit(0);
        self.calls();
        self
    }
}

/// Creates another path to orphand.
fn link_program(sandbox: &Sandbox, path: &Path) {
    // It is large; a hard link is enough on one disk.
    fs::hard_link(sandbox.binary(), path)
        .or_else(|_| fs::copy(sandbox.binary(), path).map(drop))
        .unwrap();
}

#[track_caller]
fn assert_contains(all: &str, words: &[&str]) {
    for word in words {
        assert!(all.contains(word), "{word:?} is not in: {all}");
    }
}

// ---- The files.

/// Parses a property list with Python's reader, the strictest one that is available without a Mac.
#[track_caller]
fn parse_plist(file: &str) -> serde_json::Value {
    let script = "import json, plistlib, sys; json.dump(plistlib.loads(sys.stdin.buffer.read()), sys.stdout)";
    let sandbox = Sandbox::new();
    sandbox.write("x.plist", file);
    // The system's Python starts faster than a wrapper of a version manager.
    let system = Path::new("/usr/bin/python3");
    let mut command = Command::new(if system.exists() {
        system
    } else {
        Path::new("python3")
    });
    command
        .args(["-c", script])
        .stdin(fs::File::open(sandbox.path("x.plist")).unwrap());
    let out = command.collect_output().expect("python3");
    let why = String::from_utf8_lossy(&out.stderr);
    serde_json::from_slice(&out.stdout).unwrap_or_else(|_| panic!("{why}\n{file}"))
}

#[test]
fn the_agent_is_a_valid_property_list() {
    let fixture = ServiceFixture::launchd();
    let printed = fixture.run("print", &[]).exit(0);
    let agent = parse_plist(&printed.stdout);
    let program = fixture.sandbox.binary().to_str().unwrap();
    let base = fixture.sandbox.base().to_str().unwrap().to_owned();
    assert_eq!(
        agent,
        serde_json::json!({
            "Label": "io.github.orphand",
            "ProgramArguments": [program, "watch"],
            // The values of the sandbox; a variable that is not set has no key.
            "EnvironmentVariables": {
                "XDG_CONFIG_HOME": format!("{base}/config"),
                "XDG_STATE_HOME": format!("{base}/state"),
                "XDG_RUNTIME_DIR": format!("{base}/runtime"),
            },
            "RunAtLoad": true,
            "KeepAlive": {"SuccessfulExit": false},
            "ThrottleInterval": 30,
            "ProcessType": "Background",
            "LowPriorityBackgroundIO": true,
            "Nice": 10,
            "ExitTimeOut": 20,
            "MaterializeDatalessFiles": false,
            "Umask": "077",
            "LimitLoadToSessionType": ["Aqua", "Background"],
            "StandardOutPath": "/dev/null",
            "StandardErrorPath": format!("{base}/home/Library/Logs/orphand/crash.log"),
        })
    );
}

#[test]
fn the_daemon_is_a_valid_property_list() {
    let fixture = ServiceFixture::launchd();
    let daemon = parse_plist(&fixture.run("print", &["--system"]).exit(0).stdout);
    assert_eq!(
        daemon["EnvironmentVariables"],
        serde_json::json!({
            "HOME": "/var/root",
            "XDG_CONFIG_HOME": "/etc",
            "XDG_STATE_HOME": "/Library/Application Support",
        })
    );
    assert_eq!(
        daemon["StandardErrorPath"],
        "/var/root/Library/Logs/orphand/crash.log"
    );
    assert!(
        daemon.get("LimitLoadToSessionType").is_none(),
        "a daemon has no session"
    );
}

/// The service reads the named configuration, by its absolute path.
#[test]
fn the_named_configuration_is_read_by_the_service_too() {
    let fixture = ServiceFixture::launchd();
    let base = fixture.sandbox.base().to_str().unwrap().to_owned();
    let arguments =
        |printed: CommandResult| parse_plist(&printed.exit(0).stdout)["ProgramArguments"].clone();
    let typed = arguments(fixture.run("print", &["--config", "a b.toml"]));
    let program = fixture.sandbox.binary().to_str().unwrap();
    let config = format!("{base}/a b.toml");
    assert_eq!(
        typed,
        serde_json::json!([program, "watch", "--config", config])
    );
    let fixture = fixture.env("ORPHAND_CONFIG", "a b.toml");
    assert_eq!(arguments(fixture.run("print", &[])), typed);
    fixture
        .sandbox
        .run(["service", "print", "--systemd"])
        .exit(0)
        .stdout_has(&format!(" watch --config \"{config}\"\n"));
}

#[test]
fn print_changes_nothing_with_and_without_a_configuration() {
    let fixture = ServiceFixture::launchd();
    for config in [
        None,
        Some("[[watch]]\npath = \"/srv/app\"\n"),
        Some("wrong"),
    ] {
        if let Some(config) = config {
            fixture.config(config);
        }
        for args in [
            &["--launchd"][..],
            &["--launchd", "--system"],
            &["--systemd"],
            &["--systemd", "--system"],
            &["--systemd", "--system", "--run-as", "app"],
            &[],
        ] {
            let before = fixture.sandbox.snapshot();
            let all = ["service", "print"].iter().chain(args);
            let ran = fixture.sandbox.run(all).exit(0);
            assert_eq!(ran.stderr, "", "{args:?}");
            assert!(ran.stdout.ends_with('\n'), "{args:?}");
            assert_eq!(fixture.sandbox.snapshot(), before, "{args:?}");
        }
    }
    assert_eq!(fixture.calls(), [""; 0], "launchctl was called");
}

#[test]
fn print_refuses_conflicting_options() {
    let fixture = ServiceFixture::launchd();
    for (args, words) in [
        (&["--launchd", "--systemd"][..], "cannot be used with"),
        (&["--systemd", "--run-as", "app"], "--system"),
        (
            &["--launchd", "--system", "--run-as", "app"],
            "cannot be used with",
        ),
        (
            &["--systemd", "--system", "--run-as", "a b\nUser=root"],
            "not a valid user name",
        ),
        (
            &["--systemd", "--system", "--run-as", ""],
            "not a valid user name",
        ),
    ] {
        let all = ["service", "print"].iter().chain(args);
        fixture
            .sandbox
            .run(all)
            .exit(2)
            .stderr_has(words)
            .prints_nothing();
    }
}

/// Prints a service file for a program whose path has characters that are special in XML, in units or in
/// shells.
#[track_caller]
fn printed_from(folder: &str, args: &[&str]) -> (PathBuf, String) {
    let sandbox = Sandbox::new();
    let folder = sandbox.path(folder);
    fs::create_dir_all(&folder).unwrap();
    let program = folder.join("orphand");
    link_program(&sandbox, &program);
    let mut command = sandbox.program(&program);
    command.args(["service", "print"]).args(args);
    let ran = sandbox.finish(command).exit(0);
    #[cfg(target_os = "linux")]
    if args == ["--systemd"] && !folder.to_str().unwrap().contains(['"', '\\', '\'']) {
        // While the program exists.
        verify("orphand.service", &ran.stdout);
    }
    (program, ran.stdout)
}

#[test]
fn a_property_list_escapes_paths() {
    for folder in [
        "a b",
        "a&b",
        "<key>",
        "q\"q'q",
        "größe",
        "100%$HOME\\x",
        "&amp;",
        "--",
    ] {
        let (program, file) = printed_from(folder, &["--launchd"]);
        let arguments = &parse_plist(&file)["ProgramArguments"];
        assert_eq!(
            *arguments,
            serde_json::json!([program, "watch"]),
            "{folder}"
        );
    }
}

/// systemd checks whether it finds the program.
#[test]
fn a_unit_escapes_paths() {
    for (folder, want) in [
        ("a b", "a b"),
        ("100%n", "100%%n"),
        // systemd expands no variable in the program path, and keeps `$$` as it is.
        ("$HOME ${x}", "$HOME ${x}"),
        ("a;b#c", "a;b#c"),
        ("größe", "größe"),
        ("q\"q", "q\\\"q"),
        ("b\\s", "b\\\\s"),
    ] {
        let (program, file) = printed_from(folder, &["--systemd"]);
        let root = program
            .parent()
            .unwrap()
            .parent()
            .unwrap()
            .to_str()
            .unwrap();
        let line = format!("\nExecStart=\"{root}/{want}/orphand\" watch\n");
        assert!(file.contains(&line), "{line:?} is not in {file}");
    }
}

#[test]
fn control_characters_in_paths_are_refused() {
    let sandbox = Sandbox::new();
    let folder = sandbox.path("a\nb");
    fs::create_dir(&folder).unwrap();
    let program = folder.join("orphand");
    link_program(&sandbox, &program);
    for which in ["--launchd", "--systemd"] {
        let mut command = sandbox.program(&program);
        command.args(["service", "print", which]);
        let ran = sandbox.finish(command).exit(1).prints_nothing();
        ran.stderr_has("control character").stderr_has("a\\nb");
    }
}

/// Runs systemd-analyze on a unit, which starts nothing. Returns `None` if it is not installed.
#[cfg(target_os = "linux")]
fn systemd_analyze(name: &str, unit: &str, args: &[&str]) -> Option<(i32, String)> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    crate::sandbox::write(&path, unit);
    let mut command = Command::new("systemd-analyze");
    command
        .args(args)
        .arg(&path)
        .env("XDG_RUNTIME_DIR", dir.path());
    let Ok(out) = command.collect_output() else {
        eprintln!("no systemd-analyze: {args:?} skipped");
        return None;
    };
    let output = [out.stdout, out.stderr].concat();
    Some((
        out.status.code().unwrap(),
        String::from_utf8(output).unwrap(),
    ))
}

/// Asserts that systemd accepts every line. For an unknown key it only prints a line.
#[cfg(target_os = "linux")]
#[track_caller]
fn verify(name: &str, unit: &str) {
    if let Some(answer) = systemd_analyze(name, unit, &["verify"]) {
        assert_eq!(answer, (0, String::new()), "{unit}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn systemd_understands_the_units() {
    let fixture = ServiceFixture::systemd();
    for args in [&[][..], &["--system"], &["--system", "--run-as", "daemon"]] {
        let unit = fixture.run("print", args).exit(0).stdout;
        verify("orphand.service", &unit);
        if let Some((_, output)) = systemd_analyze(
            "x.service",
            &format!("{unit}\n[Service]\nGarce=1\n"),
            &["verify"],
        ) {
            assert!(
                output.contains("Garce"),
                "an unknown key is not reported: {output}"
            );
        }
    }
}

/// The exposure, ten times the value that `systemd-analyze security` of systemd 252 prints. A low value is
/// not the goal: the options that would lower it most would blind orphand.
#[cfg(target_os = "linux")]
const USER_EXPOSURE: u32 = 60;
#[cfg(target_os = "linux")]
const ROOT_EXPOSURE: u32 = 19;
#[cfg(target_os = "linux")]
const OWNER_EXPOSURE: u32 = 11;

/// Other versions of systemd weight the options slightly differently.
#[cfg(target_os = "linux")]
const TOLERANCE: u32 = 5;

#[cfg(target_os = "linux")]
#[test]
fn the_exposure_of_the_units_is_bounded() {
    let fixture = ServiceFixture::systemd();
    for (args, most) in [
        (&[][..], USER_EXPOSURE),
        (&["--system"], ROOT_EXPOSURE),
        (&["--system", "--run-as", "daemon"], OWNER_EXPOSURE),
    ] {
        let unit = fixture.run("print", args).exit(0).stdout;
        let threshold = format!("--threshold={}", most + TOLERANCE);
        let args = ["security", "--offline=true", &threshold];
        if let Some((code, output)) = systemd_analyze("orphand.service", &unit, &args) {
            assert_eq!(code, 0, "{output}");
        }
        let nothing = "[Service]\nExecStart=/bin/true\n";
        if let Some((code, _)) = systemd_analyze("orphand.service", nothing, &args) {
            assert_ne!(code, 0, "the threshold accepts a unit without protection");
        }
    }
}

/// With any of these options a process scan finds no process, without an error. A user unit must not have an
/// option that mounts anything, either.
#[test]
fn no_unit_option_hides_processes() {
    const BLIND: [&str; 7] = [
        "ProtectProc=",
        "ProcSubset=",
        "PrivatePIDs=",
        "PrivateUsers=",
        "PrivateTmp=",
        "DynamicUser=",
        "RootDirectory=",
    ];
    // The options of systemd.exec(5) that imply PrivateUsers in a user unit begin with one of these.
    const MOUNT: [&str; 12] = [
        "Protect",
        "Private",
        "ReadWritePaths",
        "ReadOnlyPaths",
        "InaccessiblePaths",
        "ExecPaths",
        "NoExecPaths",
        "Bind",
        "TemporaryFileSystem",
        "Root",
        "Mount",
        "Device",
    ];
    let fixture = ServiceFixture::systemd();
    for (args, never) in [
        (&[][..], [&BLIND[..], &MOUNT].concat()),
        (&["--system"], BLIND.to_vec()),
        (&["--system", "--run-as", "app"], BLIND.to_vec()),
    ] {
        let unit = fixture.run("print", args).exit(0).stdout;
        let keys = unit
            .lines()
            .filter(|line| !line.starts_with('#') && line.contains('='));
        let keys: Vec<&str> = keys.collect();
        assert!(keys.contains(&"Type=notify"), "{unit}");
        assert!(keys.contains(&"WatchdogSec=120"), "{unit}");
        assert!(keys.contains(&"Restart=on-failure"), "{unit}");
        assert!(keys.contains(&"RestartPreventExitStatus=78"), "{unit}");
        for word in never {
            let found = keys.iter().find(|key| key.starts_with(word));
            assert_eq!(found, None, "{args:?}");
        }
    }
}

// ---- launchd.

const FRESH: [&str; 4] = [
    "print {gui}/-",
    "print {user}/-",
    "enable {gui}/-",
    "bootstrap {gui} {file}",
];

#[test]
fn install_writes_and_loads_an_agent() {
    let fixture = ServiceFixture::launchd();
    fixture.config("[[watch]]\npath = \"/srv/app\"\n");
    // Independent of the umask: launchd refuses a file that other users may write, and other users must be
    // able to read it.
    let mut command = fixture.sandbox.program("sh");
    command.args(["-c", "umask 077; exec \"$0\" service install --launchd"]);
    command.arg(fixture.sandbox.binary());
    let ran = fixture.sandbox.finish(command).exit(0);
    let file = fixture.file();
    assert_contains(
        &ran.stdout,
        &[
            "(1 directory)",
            &format!("Agent      {}  written", file.display()),
            &format!("Program    {}  (", fixture.sandbox.binary().display()),
            "orphand.log",
            "Background Items Added",
            "pid 4711; orphand has not answered yet",
            "orphand service stop",
            "orphand service uninstall",
        ],
    );
    assert_eq!(fixture.calls(), [&FRESH[..], &["print {gui}/-"]].concat());
    let printed = fixture.run("print", &[]).exit(0).stdout;
    assert_eq!(fs::read_to_string(&file).unwrap(), printed);
    assert_eq!(mode(&file), 0o644);
    assert_eq!(
        fs::read_dir(file.parent().unwrap()).unwrap().count(),
        1,
        "a temporary file is left"
    );
    assert!(
        fixture
            .sandbox
            .base()
            .join("home/Library/Logs/orphand")
            .is_dir()
    );
}

#[test]
fn a_second_install_changes_nothing() {
    let fixture = ServiceFixture::launchd().installed();
    let file = |fixture: &ServiceFixture| {
        let meta = fixture.file().metadata().unwrap();
        (meta.ino(), meta.mtime_nsec())
    };
    let before = file(&fixture);
    fixture
        .run("install", &[])
        .exit(0)
        .stdout_has("Already up to date (pid 4711)");
    assert_eq!(file(&fixture), before);
    assert_eq!(fixture.calls(), ["print {gui}/-"]);
}

#[test]
fn install_waits_until_the_old_job_has_ended() {
    let fixture = ServiceFixture::launchd().installed();
    fixture.set_responses("bootout", &["drain"]);
    fixture.config("[[watch]]\npath = \"/srv/app\"\n");
    let config = fixture.sandbox.base().join("config/orphand/config.toml");
    fixture
        .run("install", &["--config", config.to_str().unwrap()])
        .exit(0)
        .stdout_has("written");
    assert_eq!(
        fixture.calls(),
        [
            "print {gui}/-",
            "bootout {gui}/-",
            "print {gui}/-",
            "print {gui}/-",
            "print {gui}/-",
            "enable {gui}/-",
            "bootstrap {gui} {file}",
            "print {gui}/-",
        ]
    );
}

/// A job that is up to date but has ended is started.
#[test]
fn install_starts_a_job_that_has_ended() {
    let fixture = ServiceFixture::launchd().installed();
    fixture.put_state("end", "0");
    fixture.set_responses("bootstrap", &["0"]);
    let ran = fixture.run("install", &[]).exit(1).stdout_has("unchanged");
    ran.stderr_has("it was started but is not running");
    assert_contains(
        &fixture.calls().join("\n"),
        &["bootout {gui}/-", "bootstrap {gui} {file}"],
    );
}

#[test]
fn install_handles_bootstrap_errors() {
    let check = |answers: &[&str], exit: i32, calls: &[&str], words: &[&str]| {
        let fixture = ServiceFixture::launchd();
        fixture.set_responses("bootstrap", answers);
        let ran = fixture.run("install", &[]).exit(exit);
        assert_contains(&(ran.stdout + &ran.stderr), words);
        assert_eq!(fixture.calls()[3..], *calls, "{answers:?}");
    };
    let (bootstrap, print) = ("bootstrap {gui} {file}", "print {gui}/-");
    let kickstart = "kickstart -k {gui}/-";
    // Still ending, or another temporary error: try again.
    check(
        &["5", "5", "0"],
        0,
        &[bootstrap, bootstrap, bootstrap, print],
        &["Started"],
    );
    check(
        &["36", "0"],
        0,
        &[bootstrap, bootstrap, print],
        &["Started"],
    );
    // Already loaded, perhaps with another program. Here it is not loaded, so the restart fails.
    check(
        &["37"],
        1,
        &[bootstrap, kickstart],
        &["not loaded (113)", "orphand service start"],
    );
    // It never succeeds: the message names the possible causes.
    check(
        &["5", "5", "5", "5"],
        1,
        &[
            bootstrap,
            bootstrap,
            bootstrap,
            bootstrap,
            print,
            "print-disabled {gui}",
        ],
        &[
            "refuses the agent (5)",
            "Login Items",
            "launchctl print gui/",
            "as ordered",
        ],
    );
    let words = [
        "at the next login",
        "launchctl bootstrap user/",
        "logged in at the screen",
    ];
    check(&["125"], 1, &[bootstrap], &words);
    check(&["119"], 1, &[bootstrap], &["is disabled", "Login Items"]);
    check(&["64"], 1, &[bootstrap], &["launchctl error 64"]);
}

#[test]
fn install_restarts_an_agent_loaded_by_another_process() {
    let fixture = ServiceFixture::launchd();
    // Not loaded at the first check, loaded at the second.
    fixture.put_state("loaded", &format!("gui/{}", fixture.uid()));
    fixture.set_responses("print", &["113", "113"]);
    fixture.run("install", &[]).exit(0);
    let want = [&FRESH[..], &["kickstart -k {gui}/-", "print {gui}/-"]].concat();
    assert_eq!(fixture.calls(), want);
}

#[test]
fn stop_handles_bootout_errors() {
    let check = |answers: &[&str], exit: i32, calls: &[&str], words: &str| {
        let fixture = ServiceFixture::launchd().installed();
        fixture.set_responses("bootout", answers);
        let ran = fixture.run("stop", &[]).exit(exit);
        assert_contains(&(ran.stdout + &ran.stderr), &[words]);
        assert_eq!(fixture.calls()[1..], *calls, "{answers:?}");
    };
    let (bootout, print) = ("bootout {gui}/-", "print {gui}/-");
    check(&["0"], 0, &[bootout, print], "Stopped");
    check(&["drain"], 0, &[bootout, print, print, print], "Stopped");
    check(&["113"], 0, &[bootout], "Stopped");
    check(&["3"], 0, &[bootout], "Stopped");
    check(
        &["5", "5", "0"],
        0,
        &[bootout, print, bootout, print, bootout, print],
        "Stopped",
    );
    check(&["1"], 1, &[bootout], "launchctl error 1");
    check(
        &["5", "5", "5", "5"],
        1,
        &[
            bootout, print, bootout, print, bootout, print, bootout, print,
        ],
        "cannot stop the agent now (5)",
    );
}

#[test]
fn stop_reports_a_job_that_does_not_end() {
    let fixture = ServiceFixture::launchd()
        .installed()
        .env("ORPHAND_SERVICE_LIMIT", "1s");
    // It reports that the job is ending, but the job stays.
    fixture.set_responses("bootout", &["36"]);
    let ran = fixture.run("stop", &[]).exit(1);
    ran.stderr_has("launchctl kill SIGKILL gui/");
}

#[test]
fn install_reports_a_launchctl_that_hangs() {
    let fixture = ServiceFixture::launchd().env("ORPHAND_SERVICE_LIMIT", "200ms");
    fixture.set_responses("print", &["hang"]);
    let ran = fixture.run("install", &[]).exit(1);
    ran.stderr_has("has not ended within")
        .stderr_has("launchctl print gui/");
    assert!(!fixture.file().exists());
}

#[test]
fn install_reports_a_missing_launchctl() {
    let fixture = ServiceFixture::launchd().env("ORPHAND_LAUNCHCTL", "/nowhere/launchctl");
    let ran = fixture.run("install", &[]).exit(1);
    ran.stderr_has("/nowhere/launchctl").stderr_has("--systemd");
    assert!(!fixture.file().exists());
}

#[test]
fn install_reports_a_job_that_fails_at_once() {
    for (code, words) in [
        ("78", "config check"),
        ("127", "orphand service install"),
        ("126", "orphand doctor"),
        ("75", "another orphand"),
        ("1", "orphand service logs"),
    ] {
        let fixture = ServiceFixture::launchd();
        fixture.put_state("end", code);
        let ran = fixture.run("install", &[]).exit(1);
        ran.stderr_has("it was started but is not running")
            .stderr_has(words);
    }
}

#[test]
fn start_stop_and_restart_call_launchctl() {
    let fixture = ServiceFixture::launchd().installed();
    let print = "print {gui}/-";
    let check = |verb: &str, words: &str, calls: &[&str]| {
        fixture.run(verb, &[]).exit(0).stdout_has(words);
        assert_eq!(fixture.calls(), calls, "{verb}");
    };
    check("start", "Already running (pid 4711)", &[print]);
    check(
        "restart",
        "Started",
        &[print, "kickstart -k {gui}/-", print],
    );
    check("stop", "Stopped", &[print, "bootout {gui}/-", print]);
    check("stop", "Not running", &[print, "print {user}/-"]);
    check("start", "Started", &[&FRESH[..], &[print]].concat());
    fixture.put_state("end", "0");
    // Loaded, but the job has ended by itself.
    check("start", "Started", &[print, "kickstart {gui}/-", print]);
}

#[test]
fn commands_report_that_nothing_is_installed() {
    let fixture = ServiceFixture::launchd();
    for verb in ["start", "stop", "restart", "logs"] {
        let ran = fixture.run(verb, &[]).exit(4).prints_nothing();
        let ran = ran
            .stderr_has("not installed")
            .stderr_has("orphand service install");
        ran.stderr_has("orphand watch DIR");
    }
    let ran = fixture.run("status", &[]).exit(4);
    assert_contains(
        &ran.stdout,
        &[
            "not installed",
            "orphand service install",
            "orphand watch DIR",
        ],
    );
    fixture
        .run("uninstall", &[])
        .exit(0)
        .stdout_has("Not installed")
        .stdout_has("Nothing was changed");
}

#[test]
fn uninstall_lists_the_remaining_files() {
    let fixture = ServiceFixture::launchd();
    fixture.config("[[watch]]\npath = \"/srv/app\"\n");
    let fixture = fixture.installed();
    let base = fixture.sandbox.base().to_str().unwrap().to_owned();
    let config = format!("rm {base}/config/orphand/config.toml");
    let logs = format!("rm -r {base}/home/Library/Logs/orphand");
    let journal = format!("rm -r {base}/state/orphand");
    fixture
        .run("uninstall", &[])
        .exit(0)
        .stdout_has("Removed")
        .stdout_has(&config);
    assert_eq!(
        fixture.calls(),
        ["print {gui}/-", "bootout {gui}/-", "print {gui}/-"]
    );
    assert!(!fixture.file().exists());
    // Only existing files are named.
    let fixture = fixture.installed();
    fixture.sandbox.write("../state/orphand/journal.jsonl", "");
    let ran = fixture
        .run("uninstall", &[])
        .exit(0)
        .stdout_has(&journal)
        .stdout_has(&logs);
    assert!(!ran.stdout.contains("quarantine"), "{}", ran.stdout);
    fixture
        .run("uninstall", &[])
        .exit(0)
        .stdout_has("Not installed");
    let fixture = fixture.installed();
    let held = fixture.sandbox.path(".orphand");
    fs::create_dir(&held).unwrap();
    fs::set_permissions(&held, fs::Permissions::from_mode(0o700)).unwrap();
    fixture.sandbox.chown_to_user(&held);
    fixture
        .sandbox
        .write(".orphand/q62905a5/a.tmp", "the only copy");
    let folder = fixture.sandbox.path(".orphand/q62905a5");
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
    fixture.config(&format!("[[watch]]\npath = \"{base}/root\"\n"));
    fixture
        .run("uninstall", &[])
        .exit(0)
        .stdout_has("orphand quarantine purge")
        .stdout_has("1 file");
    assert!(fixture.sandbox.has(".orphand/q62905a5/a.tmp"));
    assert!(fixture.sandbox.has("../config/orphand/config.toml"));
}

/// The file was removed, but launchd still runs the job.
#[test]
fn a_job_without_a_file_is_stopped() {
    for verb in ["stop", "uninstall"] {
        let fixture = ServiceFixture::launchd().installed();
        fs::remove_file(fixture.file()).unwrap();
        fixture.run(verb, &[]).exit(0);
        assert_eq!(
            fixture.calls(),
            ["print {gui}/-", "bootout {gui}/-", "print {gui}/-"]
        );
    }
}

#[test]
fn install_refuses_an_invalid_configuration() {
    let fixture = ServiceFixture::launchd();
    fixture.config("[[watch]]\npath = \"/srv/app\"\ngarce = \"10s\"\n");
    let ran = fixture.run("install", &[]).exit(78).prints_nothing();
    ran.stderr_has("config.toml:3:1: ").stderr_has("grace");
    assert_eq!(fixture.calls(), [""; 0]);
    assert!(!fixture.file().exists());
    let ran = fixture
        .run("install", &["--config", "nowhere.toml"])
        .exit(78);
    ran.stderr_has("nowhere.toml");
}

#[test]
fn install_without_a_configuration_says_so() {
    let fixture = ServiceFixture::launchd();
    let ran = fixture.run("install", &[]).exit(0);
    assert_contains(
        &ran.stdout,
        &["nothing is watched yet", "orphand config init"],
    );
    fixture.config("[defaults]\nrecursive = true\n");
    fixture
        .run("install", &[])
        .exit(0)
        .stdout_has("lists no directory");
}

#[test]
fn install_refuses_beside_a_homebrew_service() {
    let fixture = ServiceFixture::launchd();
    fixture.sandbox.write(
        "../home/Library/LaunchAgents/homebrew.mxcl.orphand.plist",
        "<plist/>",
    );
    let ran = fixture.run("install", &[]).exit(75).prints_nothing();
    let ran = ran
        .stderr_has("homebrew.mxcl.orphand")
        .stderr_has("brew services restart orphand");
    ran.stderr_has("brew services stop orphand && orphand service install");
    assert!(!fixture.file().exists());
    assert_eq!(fixture.calls(), [""; 0]);
    fixture
        .run("status", &[])
        .exit(4)
        .stdout_has("brew services info orphand");
    fixture
        .run("start", &[])
        .exit(4)
        .stderr_has("brew services info orphand");
    let fixture = ServiceFixture::systemd();
    fixture
        .sandbox
        .write("../config/systemd/user/homebrew.orphand.service", "");
    fixture
        .run("install", &[])
        .exit(75)
        .stderr_has("homebrew.orphand.service");
}

/// A user who keeps service files in a repository wants to change them there.
#[test]
fn install_does_not_replace_a_symlink() {
    let fixture = ServiceFixture::launchd();
    fixture.put_file("");
    let elsewhere = fixture.sandbox.base().join("dotfiles.plist");
    fs::rename(fixture.file(), &elsewhere).unwrap();
    symlink(&elsewhere, fixture.file()).unwrap();
    let ran = fixture.run("install", &[]).exit(1);
    ran.stderr_has("is a symlink to")
        .stderr_has("orphand service print");
    assert_eq!(fs::read_to_string(&elsewhere).unwrap(), "");
    fs::write(&elsewhere, fixture.run("print", &[]).exit(0).stdout).unwrap();
    fixture.run("install", &[]).exit(0).stdout_has("unchanged");
    assert!(fixture.file().is_symlink());
}

#[test]
fn install_refuses_a_home_of_another_user() {
    if !is_root() {
        eprintln!("not root: skipped, every file here belongs to this user");
        return;
    }
    let fixture = ServiceFixture::new(Sandbox::new(), "--launchd");
    std::os::unix::fs::chown(fixture.sandbox.base().join("home"), Some(65_534), None).unwrap();
    let ran = fixture.run("install", &[]).exit(1);
    ran.stderr_has("without sudo")
        .stderr_has("sudo orphand service install --system");
    assert_eq!(fixture.calls(), [""; 0]);
}

#[test]
fn root_is_warned_about_its_own_agent() {
    if !is_root() {
        eprintln!("not root: skipped");
        return;
    }
    let fixture = ServiceFixture::new(Sandbox::new(), "--launchd");
    let ran = fixture.run("install", &[]).exit(0);
    ran.stderr_has("user service of root")
        .stderr_has("orphand service install --system");
}

#[test]
fn install_warns_of_a_program_in_a_build_folder() {
    let fixture = ServiceFixture::launchd();
    let program = fixture.sandbox.base().join("target/release/orphand");
    fixture.sandbox.write("../target/release/nothing", "");
    link_program(&fixture.sandbox, &program);
    let mut command = fixture.sandbox.program(&program);
    command.args(["service", "install", "--launchd"]);
    let ran = fixture.sandbox.finish(command).exit(0);
    ran.stderr_has("a build folder");
}

/// The kernel shows the path of a program that an upgrade has replaced as `… (deleted)`.
#[cfg(target_os = "linux")]
#[test]
fn print_uses_the_stable_homebrew_path() {
    let fixture = ServiceFixture::launchd();
    let old = fixture
        .sandbox
        .base()
        .join("Cellar/orphand/0.1.0/bin/orphand");
    let opt = fixture.sandbox.base().join("opt/orphand/bin/orphand");
    for path in [&old, &opt] {
        let beside = path.with_file_name("nothing");
        let beside = beside.strip_prefix(fixture.sandbox.base()).unwrap();
        fixture.sandbox.write(Path::new("..").join(beside), "");
        link_program(&fixture.sandbox, path);
    }
    let program =
        |ran: CommandResult| parse_plist(&ran.exit(0).stdout)["ProgramArguments"][0].clone();
    let print = |program: &Path| {
        let mut command = fixture.sandbox.program(program);
        command.args(["service", "print", "--launchd"]);
        command
    };
    assert_eq!(
        program(fixture.sandbox.finish(print(&old))),
        opt.to_str().unwrap()
    );
    // Removed between its start and the query of its path: the shell opens it before it removes the path.
    let mut command = fixture.sandbox.program("sh");
    let script = "exec 3< \"$0\" && rm \"$0\" && exec /proc/self/fd/3 service print --launchd";
    command.args(["-c", script]).arg(&old);
    assert_eq!(
        program(fixture.sandbox.finish(command)),
        opt.to_str().unwrap()
    );
}

// ---- Status.

#[test]
fn status_reports_each_state() {
    let fixture = ServiceFixture::launchd();
    let check = |exit: i32, words: &[&str], fields: serde_json::Value| {
        let ran = fixture.run("status", &[]).exit(exit);
        assert_contains(&ran.stdout, words);
        let document = fixture.run("status", &["--json"]).exit(exit).stdout_json();
        for (key, value) in fields.as_object().unwrap() {
            assert_eq!(document[key], *value, "{key} in {document}");
        }
        assert_eq!(document["service"], "launchd");
        assert_eq!(document["file"], fixture.file().to_str().unwrap());
        assert!(document["error"].is_null(), "{document}");
    };
    check(
        4,
        &["not installed"],
        serde_json::json!({"installed": false, "loaded": false, "running": false, "program": null}),
    );
    fixture.run("install", &[]).exit(0);
    fixture.calls();
    check(
        0,
        &["orphand is running, pid 4711", "installed, enabled, loaded"],
        serde_json::json!({
            "installed": true, "enabled": true, "loaded": true, "running": true, "pid": 4711,
            "problems": [], "program": fixture.sandbox.binary(),
        }),
    );
    assert_eq!(
        fixture.calls(),
        ["print {gui}/-", "print-disabled {gui}"].repeat(2)
    );
    fixture.put_state("end", "78");
    check(
        3,
        &["is not running", "(78)", "config check"],
        serde_json::json!({"installed": true, "loaded": true, "running": false, "pid": null}),
    );
    fs::remove_file(fixture.at.join("end")).unwrap();
    fixture.run("stop", &[]).exit(0);
    fixture.put_state("disabled", "");
    check(
        3,
        &["installed, disabled, not loaded", "orphand service start"],
        serde_json::json!({"installed": true, "enabled": false, "loaded": false}),
    );
}

#[test]
fn status_prints_one_object_whatever_fails() {
    let fixture = ServiceFixture::launchd()
        .installed()
        .env("ORPHAND_SERVICE_LIMIT", "200ms");
    fixture.set_responses("print", &["hang"]);
    let ran = fixture
        .run("status", &["--json"])
        .exit(1)
        .stderr_has("has not ended within");
    let document = ran.stdout_json();
    assert_contains(
        document["error"].as_str().unwrap(),
        &["has not ended within"],
    );
    assert_eq!(document["installed"], true);
    assert!(
        document["running"].is_null() && document["loaded"].is_null(),
        "{document}"
    );
    // Other verbs print their messages on stderr, and the same object on stdout.
    let ran = fixture
        .run("stop", &["--json"])
        .exit(0)
        .stderr_has("Stopped");
    assert_eq!(ran.stdout_json()["loaded"], false);
    let ran = fixture
        .run("uninstall", &["--json"])
        .exit(0)
        .stderr_has("Removed");
    assert_eq!(ran.stdout_json()["installed"], false);
}

/// `status` reports the problem of the file, and the command that fixes it.
#[test]
fn status_reports_problems_of_the_file() {
    let check = |change: &dyn Fn(&str) -> String, what: &str, fix: &str| {
        for fixture in [ServiceFixture::launchd(), ServiceFixture::systemd()] {
            let fixture = fixture.installed();
            let file = fs::read_to_string(fixture.file()).unwrap();
            let changed =
                change(&file.replace(fixture.sandbox.binary().to_str().unwrap(), "{program}"));
            let changed = changed.replace("{program}", fixture.sandbox.binary().to_str().unwrap());
            assert_ne!(file, changed);
            fixture.put_file(&changed);
            let ran = fixture
                .run("status", &[])
                .exit(0)
                .stdout_has("!! ")
                .stdout_has(what)
                .stdout_has(fix);
            assert_eq!(ran.stderr, "");
            let document = fixture.run("status", &["--json"]).exit(0).stdout_json();
            let problems = document["problems"].as_array().unwrap();
            assert_eq!(problems.len(), 1, "{document}");
            assert_contains(problems[0]["what"].as_str().unwrap(), &[what]);
            assert_contains(problems[0]["cure"].as_str().unwrap(), &[fix]);
            // That command fixes the problem.
            let ran = fixture.run("install", &[]).exit(0).stdout_has("written");
            let other = changed.contains("/gone/orphand");
            assert_eq!(
                ran.stdout.contains("the old file started /gone/orphand"),
                other
            );
            let document = fixture.run("status", &["--json"]).exit(0).stdout_json();
            assert_eq!(document["problems"], serde_json::json!([]));
        }
    };
    let install = "orphand service install";
    check(
        &|file| file.replace("{program}", "/gone/orphand"),
        "which does not exist",
        install,
    );
    check(
        &|file| file.replace("{program}", "/bin/sh"),
        "starts \"/bin/sh\", but this is",
        install,
    );
    check(
        &|file| format!("{file}\n"),
        "differs from the file that would be installed now",
        install,
    );
    check(
        &|_| "[Unit]\n".to_owned(),
        "was not written by orphand",
        install,
    );
}

#[test]
fn install_remembers_the_named_configuration() {
    let fixture = ServiceFixture::launchd();
    fixture.config("[[watch]]\npath = \"/srv/app\"\n");
    let config = fixture.sandbox.base().join("config/orphand/config.toml");
    let config = config.to_str().unwrap();
    fixture.run("install", &["--config", config]).exit(0);
    let document = fixture.run("status", &["--json"]).exit(0).stdout_json();
    assert_eq!(
        document["problems"],
        serde_json::json!([]),
        "the installed file has a problem"
    );
    let file = fs::read_to_string(fixture.file()).unwrap();
    fixture.put_file(&format!("{file}\n"));
    fixture.run("status", &[]).exit(0).stdout_has(
        &format!("install --launchd --config {config}").replace(
            "--launchd ",
            if cfg!(target_os = "macos") {
                ""
            } else {
                "--launchd "
            },
        ),
    );
}

// ---- systemd.

#[test]
fn install_writes_and_starts_a_unit() {
    let fixture = ServiceFixture::systemd();
    let ran = fixture.run("install", &[]).exit(0);
    assert_contains(
        &ran.stdout,
        &[
            "Unit       ",
            "written",
            "Started    pid 4711",
            "loginctl enable-linger",
        ],
    );
    assert_eq!(
        fixture.calls(),
        [
            "--user show",
            "--user daemon-reload",
            "--user enable orphand.service",
            "--user restart orphand.service",
            "--user show",
        ]
    );
    let printed = fixture.run("print", &[]).exit(0).stdout;
    assert_eq!(fs::read_to_string(fixture.file()).unwrap(), printed);
    assert_eq!(mode(&fixture.file()), 0o644);
    fixture
        .run("install", &[])
        .exit(0)
        .stdout_has("Already up to date (pid 4711)");
    assert_eq!(fixture.calls(), ["--user show"]);
    // A unit that was disabled by hand is enabled again.
    fs::remove_file(fixture.at.join("enabled")).unwrap();
    fixture.run("install", &[]).exit(0).stdout_has("unchanged");
    assert_contains(&fixture.calls().join("\n"), &["enable orphand.service"]);
}

#[test]
fn start_stop_and_restart_call_systemctl() {
    let fixture = ServiceFixture::systemd().installed();
    let check = |verb: &str, words: &str, calls: &[&str]| {
        fixture.run(verb, &[]).exit(0).stdout_has(words);
        assert_eq!(fixture.calls(), calls, "{verb}");
    };
    let show = "--user show";
    check("status", "installed, enabled, loaded", &[show]);
    check("start", "Already running", &[show]);
    check(
        "restart",
        "Started",
        &[show, "--user restart orphand.service", show],
    );
    check(
        "stop",
        "Stopped; it starts again at the next login",
        &[show, "--user stop orphand.service"],
    );
    fixture
        .run("status", &[])
        .exit(3)
        .stdout_has("installed, enabled, loaded")
        .stdout_has("is not running");
    fixture.calls();
    check(
        "start",
        "Started",
        &[show, "--user start orphand.service", show],
    );
    check(
        "uninstall",
        "Removed",
        &[
            show,
            "--user disable --now orphand.service",
            "--user daemon-reload",
        ],
    );
    assert!(!fixture.file().exists());
    check("uninstall", "Not installed", &[show]);
}

#[test]
fn install_explains_systemctl_errors() {
    for (verb, stderr, words) in [
        (
            "show",
            "Failed to connect to bus: No medium found",
            "enable-linger",
        ),
        (
            "show",
            "System has not been booted with systemd as init system",
            "orphand watch",
        ),
        (
            "enable",
            "Failed to enable unit: Unit file orphand.service does not exist.",
            "import-environment",
        ),
        (
            "enable",
            "Failed to enable unit: Unit orphand.service is masked.",
            "--user unmask",
        ),
        (
            "restart",
            "Job for orphand.service failed because",
            "orphand service logs",
        ),
    ] {
        let fixture = ServiceFixture::systemd();
        fixture.put_state("says", stderr);
        fixture.set_responses(verb, &["1"]);
        let ran = fixture.run("install", &[]).exit(1).stderr_has(stderr);
        ran.stderr_has(words).stderr_has(&format!(
            "systemctl --user {verb} orphand.service failed (1)"
        ));
        assert_eq!(
            fixture.file().exists(),
            verb != "show",
            "the file was written although nothing can run"
        );
    }
}

/// The first scan may take longer than the wait of `install`: that is no failure.
#[test]
fn a_slow_start_is_no_failure() {
    let fixture = ServiceFixture::systemd().env("ORPHAND_SERVICE_LIMIT", "300ms");
    fixture.put_state("active", "");
    fixture.set_responses("restart", &["hang"]);
    fixture
        .run("install", &[])
        .exit(0)
        .stdout_has("orphand has not answered yet")
        .stdout_has("orphand service status");
}

#[test]
fn restart_reports_a_unit_that_fails() {
    let fixture = ServiceFixture::systemd().installed();
    fs::remove_file(fixture.at.join("active")).unwrap();
    fixture.put_state("end", "78");
    fixture
        .run("restart", &[])
        .exit(1)
        .stderr_has("is not running")
        .stderr_has("config check");
    fixture.run("status", &[]).exit(3).stdout_has("(78)");
}

#[test]
fn commands_report_a_missing_systemctl() {
    let fixture = ServiceFixture::systemd().env("ORPHAND_SYSTEMCTL", "/nowhere/systemctl");
    fixture
        .run("install", &[])
        .exit(1)
        .stderr_has("/nowhere/systemctl")
        .stderr_has("orphand watch");
    assert!(!fixture.file().exists());
    fixture
        .run("status", &[])
        .exit(4)
        .stdout_has("not installed");
    fixture
        .run("uninstall", &[])
        .exit(0)
        .stdout_has("Not installed");
}

#[test]
fn install_refuses_a_path_that_systemd_cannot_start() {
    let fixture = ServiceFixture::systemd();
    let program = fixture.sandbox.base().join("q\"q");
    link_program(&fixture.sandbox, &program);
    let mut command = fixture.sandbox.program(&program);
    command.args(["service", "install", "--systemd"]);
    fixture
        .sandbox
        .finish(command)
        .exit(1)
        .stderr_has("a quote or a backslash");
    assert_eq!(fixture.calls(), [""; 0]);
}

#[test]
fn logs_come_from_the_service_manager() {
    let fixture = ServiceFixture::systemd();
    for (args, output) in [
        (&[][..], "journalctl --user-unit orphand.service -n 50\n"),
        (&["-f"], "journalctl --user-unit orphand.service -n 50 -f\n"),
        (
            &["-n", "7", "--system"],
            "journalctl --unit orphand.service -n 7\n",
        ),
    ] {
        assert_eq!(fixture.run("logs", args).exit(0).stdout, output);
    }
    let fixture = ServiceFixture::launchd().installed();
    fixture
        .run("logs", &[])
        .exit(1)
        .stderr_has("there is no log yet")
        .stderr_has("service status");
    let log = match cfg!(target_os = "macos") {
        true => "home/Library/Logs/orphand/orphand.log",
        false => "state/orphand/orphand.log",
    };
    fixture.sandbox.write(Path::new("..").join(log), "");
    let log = fixture.sandbox.base().join(log);
    for (args, output) in [
        (&[][..], format!("tail -n 50 {}\n", log.display())),
        (
            &["-f", "-n", "7"],
            format!("tail -n 7 -F {}\n", log.display()),
        ),
    ] {
        assert_eq!(fixture.run("logs", args).exit(0).stdout, output);
    }
    fixture
        .sandbox
        .write("../home/Library/Logs/orphand/crash.log", "panicked");
    fixture.run("logs", &[]).exit(0).stderr_has("crash.log");
}

// ---- The whole machine.

#[test]
fn a_system_service_needs_root() {
    for which in ["--launchd", "--systemd"] {
        let fixture = ServiceFixture::new(Sandbox::ordinary(), which);
        for verb in ["install", "uninstall"] {
            let ran = fixture.run(verb, &["--system"]).exit(1);
            ran.stderr_has("sudo orphand service")
                .stderr_has("--system");
        }
        assert_eq!(fixture.calls(), [""; 0]);
    }
}

#[test]
fn root_installs_a_system_service() {
    if !is_root() {
        eprintln!("not root: skipped");
        return;
    }
    for (which, file, config, calls) in [
        (
            "--launchd",
            "Library/LaunchDaemons/io.github.orphand.plist",
            "machine/etc/orphand/config.toml",
            &[
                "print system/-",
                "enable system/-",
                "bootstrap system {machine}/Library/LaunchDaemons/-.plist",
                "print system/-",
            ][..],
        ),
        (
            "--systemd",
            "etc/systemd/system/orphand.service",
            "machine/etc/orphand/config.toml",
            &[
                "show",
                "daemon-reload",
                "enable orphand.service",
                "restart orphand.service",
                "show",
            ],
        ),
    ] {
        let fixture = ServiceFixture::new(Sandbox::new(), which);
        let machine = fixture.sandbox.base().join("machine");
        let fixture = fixture.env("ORPHAND_SERVICE_ROOT", &machine);
        let file = machine.join(file);
        fixture.put_state("unit", file.to_str().unwrap());
        // The service reads its own file, not the one of root's shell.
        fixture.config("wrong");
        let ran = fixture.run("install", &["--system"]).exit(0);
        assert_contains(&ran.stdout, &["ORPHAND_CONFIG=", "orphand config init"]);
        let seen: Vec<String> = fixture.calls();
        let seen = seen
            .iter()
            .map(|call| call.replace(machine.to_str().unwrap(), "{machine}"));
        assert_eq!(seen.collect::<Vec<_>>(), calls);
        let printed = fixture.run("print", &["--system"]).exit(0).stdout;
        assert_eq!(fs::read_to_string(&file).unwrap(), printed);
        assert!(
            !printed.contains("machine"),
            "the prefix is in the file: {printed}"
        );
        fixture.sandbox.write(format!("../{config}"), "wrong");
        fixture
            .run("install", &["--system"])
            .exit(78)
            .stderr_has("config.toml:1:");
        fixture
            .run("status", &["--system"])
            .exit(0)
            .stdout_has("enabled, loaded");
        fixture
            .run("uninstall", &["--system"])
            .exit(0)
            .stdout_has("Removed");
        assert!(!file.exists());
    }
}

// ---- End to end.

fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < end, "timed out waiting for {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// With only the environment of the agent, the installed program removes an orphan, does so again after a
/// restart, and ends when it is uninstalled.
#[test]
fn an_installed_agent_removes_orphans() {
    let fixture = ServiceFixture::launchd().env("ORPHAND_SERVICE_WAIT", "100ms");
    fixture.put_state("real", "");
    let root = fixture.sandbox.root();
    fixture.config(&format!(
        "[[watch]]\npath = \"{}\"\ngrace = \"100ms\"\n",
        String::from_utf8_lossy(path_bytes(&root))
    ));
    let orphan = |fixture: &ServiceFixture, name: &str| {
        fixture.sandbox.write("a", "whole, to the last byte of it");
        fixture.sandbox.write(name, "");
        wait_until(name, || !fixture.sandbox.has(name));
    };
    fixture
        .run("install", &[])
        .exit(0)
        .stdout_has("Started    pid ");
    let pid = fs::read_to_string(fixture.at.join("pid")).unwrap();
    orphan(&fixture, "a.tmp");
    fixture
        .run("install", &[])
        .exit(0)
        .stdout_has("Already up to date");
    fixture
        .run("restart", &[])
        .exit(0)
        .stdout_has("Started    pid ");
    assert_ne!(fs::read_to_string(fixture.at.join("pid")).unwrap(), pid);
    orphan(&fixture, "a.tmp");
    let locks = || {
        let names = fs::read_dir(fixture.sandbox.base().join("runtime/orphand"));
        names.map_or(0, |names| {
            names
                .flatten()
                .filter(|name| name.path().extension() == Some("lock".as_ref()))
                .count()
        })
    };
    assert!(locks() > 0);
    fixture
        .run("uninstall", &[])
        .exit(0)
        .stdout_has("Removed")
        .stdout_has("Journal");
    wait_until("the end of the watcher", || locks() == 0);
    assert!(!fixture.at.join("pid").exists());
}
