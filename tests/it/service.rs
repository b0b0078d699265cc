//! `orphand service`, against a launchctl and a systemctl of the test's own: no supervisor of the
//! machine is ever asked. What they answer is ordered, and every call is compared.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use crate::sandbox::{Begin, DEADLINE, Ran, Sandbox, is_root, mode, raw, signal};

const LAUNCHCTL: &str = include_str!("service/launchctl.sh");
const SYSTEMCTL: &str = include_str!("service/systemctl.sh");

/// What `systemctl show` is asked for.
const SHOW: &str = "show --property=LoadState,ActiveState,SubState,UnitFileState,MainPID,\
                    NeedDaemonReload,Result,ExecMainStatus orphand.service";

/// A sandbox with a supervisor in it.
struct Fixture {
    // First: it is looked for in the sandbox.
    _started: InstalledUnit,
    sandbox: Sandbox,
    /// Where the supervisor keeps its state.
    at: PathBuf,
    /// `--launchd` or `--systemd`.
    which: &'static str,
}

/// The file with the pid of what a supervisor has started for us, unless it has ended it itself.
struct InstalledUnit(PathBuf);

impl Drop for InstalledUnit {
    fn drop(&mut self) {
        if let Ok(pid) = fs::read_to_string(&self.0) {
            signal(pid.trim().parse().unwrap(), libc::SIGKILL);
        }
    }
}

impl Fixture {
    fn launchd() -> Fixture {
        Fixture::new(Sandbox::ordinary(), "--launchd")
    }

    fn systemd() -> Fixture {
        Fixture::new(Sandbox::ordinary(), "--systemd")
    }

    fn new(sandbox: Sandbox, which: &'static str) -> Fixture {
        let base = sandbox.base().to_owned();
        for (name, script) in [
            ("launchctl", LAUNCHCTL),
            ("systemctl", SYSTEMCTL),
            // These only say how they were called.
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
            sandbox.give(&folder);
        }
        let sandbox = sandbox
            .env("ORPHAND_LAUNCHCTL", base.join("launchctl"))
            .env("ORPHAND_SYSTEMCTL", base.join("systemctl"))
            .env("ORPHAND_JOURNALCTL", base.join("journalctl"))
            .env("ORPHAND_TAIL", base.join("tail"))
            // Nobody answers here but in the test that says so.
            .env("ORPHAND_SERVICE_WAIT", "0s");
        let fixture = Fixture {
            sandbox,
            which,
            _started: InstalledUnit(at.join("pid")),
            at,
        };
        fixture.put("unit", fixture.file().to_str().unwrap());
        fixture
    }

    fn env(mut self, name: &'static str, value: impl Into<OsString>) -> Fixture {
        self.sandbox = self.sandbox.env(name, value);
        self
    }

    /// Gives the supervisor a piece of state.
    fn put(&self, name: &str, content: &str) {
        let path = self.at.join(name);
        crate::sandbox::write(&path, content);
        self.sandbox.give(&path);
    }

    /// Orders the next answers to a verb.
    fn order(&self, verb: &str, answers: &[&str]) {
        self.put(
            &format!("answers/{verb}"),
            &format!("{}\n", answers.join("\n")),
        );
    }

    /// Writes the configuration file.
    fn config(&self, content: &str) {
        self.sandbox.write("../config/orphand/config.toml", content);
    }

    #[track_caller]
    fn run(&self, verb: &str, args: &[&str]) -> Ran {
        let all = ["service", verb, self.which]
            .into_iter()
            .chain(args.iter().copied());
        self.sandbox.run(all)
    }

    /// Where the service file of an ordinary user belongs.
    fn file(&self) -> PathBuf {
        self.sandbox.base().join(match self.which {
            "--launchd" => "home/Library/LaunchAgents/io.github.orphand.plist",
            _ => "config/systemd/user/orphand.service",
        })
    }

    /// Puts a service file there.
    fn put_file(&self, content: &str) {
        let below = self.file();
        let below = below.strip_prefix(self.sandbox.base()).unwrap();
        self.sandbox.write(Path::new("..").join(below), content);
    }

    fn uid(&self) -> u32 {
        self.sandbox.base().metadata().unwrap().uid()
    }

    /// The calls since this was asked last. `{gui}`, `{user}` and `{file}` stand for themselves.
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

    /// Installs it, and forgets how.
    #[track_caller]
    fn installed(self) -> Fixture {
        self.run("install", &[]).exit(0);
        self.calls();
        self
    }
}

/// orphand, by another path.
fn put_program(sandbox: &Sandbox, path: &Path) {
    // It is large; a second name will do where both lie on one disk.
    fs::hard_link(sandbox.binary(), path)
        .or_else(|_| fs::copy(sandbox.binary(), path).map(drop))
        .unwrap();
}

#[track_caller]
fn contains(all: &str, words: &[&str]) {
    for word in words {
        assert!(all.contains(word), "{word:?} is not in: {all}");
    }
}

// ---- The files.

/// Python's reader of property lists: the strictest that is to be had without a Mac.
#[track_caller]
fn plist(file: &str) -> serde_json::Value {
    let script = "import json, plistlib, sys; json.dump(plistlib.loads(sys.stdin.buffer.read()), sys.stdout)";
    let sandbox = Sandbox::new();
    sandbox.write("x.plist", file);
    // The system's own starts faster than what a version switcher puts before it.
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
fn the_agent_as_a_property_list() {
    let fixture = Fixture::launchd();
    let printed = fixture.run("print", &[]).exit(0);
    let agent = plist(&printed.stdout);
    let program = fixture.sandbox.binary().to_str().unwrap();
    let base = fixture.sandbox.base().to_str().unwrap().to_owned();
    assert_eq!(
        agent,
        serde_json::json!({
            "Label": "io.github.orphand",
            "ProgramArguments": [program, "watch"],
            // The sandbox's; where the shell has none, the key is absent.
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
fn the_daemon_as_a_property_list() {
    let fixture = Fixture::launchd();
    let daemon = plist(&fixture.run("print", &["--system"]).exit(0).stdout);
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

/// A configuration that is named is what the service reads, by its whole path.
#[test]
fn the_named_configuration_is_read_by_the_service_too() {
    let fixture = Fixture::launchd();
    let base = fixture.sandbox.base().to_str().unwrap().to_owned();
    let arguments = |printed: Ran| plist(&printed.exit(0).stdout)["ProgramArguments"].clone();
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
        .says(&format!(" watch --config \"{config}\"\n"));
}

#[test]
fn print_changes_nothing_with_and_without_a_configuration() {
    let fixture = Fixture::launchd();
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
    assert_eq!(fixture.calls(), [""; 0], "launchctl was asked");
}

#[test]
fn print_refuses_what_means_nothing() {
    let fixture = Fixture::launchd();
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
        fixture.sandbox.run(all).exit(2).complains(words).silent();
    }
}

/// The program, put where its path holds what means something to XML, to systemd and to shells.
#[track_caller]
fn printed_from(folder: &str, args: &[&str]) -> (PathBuf, String) {
    let sandbox = Sandbox::new();
    let folder = sandbox.path(folder);
    fs::create_dir_all(&folder).unwrap();
    let program = folder.join("orphand");
    put_program(&sandbox, &program);
    let mut command = sandbox.program(&program);
    command.args(["service", "print"]).args(args);
    let ran = sandbox.finish(command).exit(0);
    #[cfg(target_os = "linux")]
    if args == ["--systemd"] && !folder.to_str().unwrap().contains(['"', '\\', '\'']) {
        // While the program is there.
        verify("orphand.service", &ran.stdout);
    }
    (program, ran.stdout)
}

#[test]
fn strange_paths_in_a_property_list() {
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
        let arguments = &plist(&file)["ProgramArguments"];
        assert_eq!(
            *arguments,
            serde_json::json!([program, "watch"]),
            "{folder}"
        );
    }
}

/// systemd itself says whether it finds the program.
#[test]
fn strange_paths_in_a_unit() {
    for (folder, want) in [
        ("a b", "a b"),
        ("100%n", "100%%n"),
        // In the program systemd expands no variable, and takes two of them for two.
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
fn paths_that_no_service_file_can_hold() {
    let sandbox = Sandbox::new();
    let folder = sandbox.path("a\nb");
    fs::create_dir(&folder).unwrap();
    let program = folder.join("orphand");
    put_program(&sandbox, &program);
    for which in ["--launchd", "--systemd"] {
        let mut command = sandbox.program(&program);
        command.args(["service", "print", which]);
        let ran = sandbox.finish(command).exit(1).silent();
        ran.complains("control character").complains("a\\nb");
    }
}

/// Runs systemd-analyze on a unit; it starts nothing. None where there is none.
#[cfg(target_os = "linux")]
fn analyze(name: &str, unit: &str, args: &[&str]) -> Option<(i32, String)> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    crate::sandbox::write(&path, unit);
    let mut command = Command::new("systemd-analyze");
    command
        .args(args)
        .arg(&path)
        .env("XDG_RUNTIME_DIR", dir.path());
    let Ok(out) = command.collect_output() else {
        eprintln!("no systemd-analyze: {args:?} is not tried");
        return None;
    };
    let said = [out.stdout, out.stderr].concat();
    Some((out.status.code().unwrap(), String::from_utf8(said).unwrap()))
}

/// systemd understands every line. Of a key that it does not know it only prints a line.
#[cfg(target_os = "linux")]
#[track_caller]
fn verify(name: &str, unit: &str) {
    if let Some(answer) = analyze(name, unit, &["verify"]) {
        assert_eq!(answer, (0, String::new()), "{unit}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn systemd_understands_the_units() {
    let fixture = Fixture::systemd();
    for args in [&[][..], &["--system"], &["--system", "--run-as", "daemon"]] {
        let unit = fixture.run("print", args).exit(0).stdout;
        verify("orphand.service", &unit);
        if let Some((_, said)) = analyze(
            "x.service",
            &format!("{unit}\n[Service]\nGarce=1\n"),
            &["verify"],
        ) {
            assert!(
                said.contains("Garce"),
                "an unknown key would be seen: {said}"
            );
        }
    }
}

/// Exposure, ten times what `systemd-analyze security` prints: what systemd 252 finds. The score is
/// not the goal: the options that would better it most would blind orphand.
#[cfg(target_os = "linux")]
const USER_EXPOSURE: u32 = 60;
#[cfg(target_os = "linux")]
const ROOT_EXPOSURE: u32 = 19;
#[cfg(target_os = "linux")]
const OWNER_EXPOSURE: u32 = 11;

/// Another version of systemd may weigh a little otherwise.
#[cfg(target_os = "linux")]
const TOLERANCE: u32 = 5;

#[cfg(target_os = "linux")]
#[test]
fn how_exposed_the_units_are() {
    let fixture = Fixture::systemd();
    for (args, most) in [
        (&[][..], USER_EXPOSURE),
        (&["--system"], ROOT_EXPOSURE),
        (&["--system", "--run-as", "daemon"], OWNER_EXPOSURE),
    ] {
        let unit = fixture.run("print", args).exit(0).stdout;
        let threshold = format!("--threshold={}", most + TOLERANCE);
        let args = ["security", "--offline=true", &threshold];
        if let Some((code, said)) = analyze("orphand.service", &unit, &args) {
            assert_eq!(code, 0, "{said}");
        }
        let nothing = "[Service]\nExecStart=/bin/true\n";
        if let Some((code, _)) = analyze("orphand.service", nothing, &args) {
            assert_ne!(code, 0, "a unit without all that would be let through");
        }
    }
}

/// With any of these a walk over the processes finds nobody, without an error. A user unit may have
/// nothing that mounts, either.
#[test]
fn nothing_blinds_it() {
    const BLIND: [&str; 7] = [
        "ProtectProc=",
        "ProcSubset=",
        "PrivatePIDs=",
        "PrivateUsers=",
        "PrivateTmp=",
        "DynamicUser=",
        "RootDirectory=",
    ];
    // Those of systemd.exec(5) that imply PrivateUsers in a user unit begin with one of these.
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
    let fixture = Fixture::systemd();
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
fn installing_an_agent() {
    let fixture = Fixture::launchd();
    fixture.config("[[watch]]\npath = \"/srv/app\"\n");
    // Whatever the umask, launchd refuses what others may write, and others must be able to read.
    let mut command = fixture.sandbox.program("sh");
    command.args(["-c", "umask 077; exec \"$0\" service install --launchd"]);
    command.arg(fixture.sandbox.binary());
    let ran = fixture.sandbox.finish(command).exit(0);
    let file = fixture.file();
    contains(
        &ran.stdout,
        &[
            "(1 directory)",
            &format!("Agent      {}  written", file.display()),
            &format!("Program    {}  (", fixture.sandbox.binary().display()),
            "orphand.log",
            "Background Items Added",
            "pid 4711; it has not answered yet",
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
        "no litter"
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
fn installing_twice_changes_nothing() {
    let fixture = Fixture::launchd().installed();
    let file = |fixture: &Fixture| {
        let meta = fixture.file().metadata().unwrap();
        (meta.ino(), meta.mtime_nsec())
    };
    let before = file(&fixture);
    fixture
        .run("install", &[])
        .exit(0)
        .says("Already up to date (pid 4711)");
    assert_eq!(file(&fixture), before);
    assert_eq!(fixture.calls(), ["print {gui}/-"]);
}

#[test]
fn installing_over_another_file_waits_until_the_old_job_is_gone() {
    let fixture = Fixture::launchd().installed();
    fixture.order("bootout", &["drain"]);
    fixture.config("[[watch]]\npath = \"/srv/app\"\n");
    let config = fixture.sandbox.base().join("config/orphand/config.toml");
    fixture
        .run("install", &["--config", config.to_str().unwrap()])
        .exit(0)
        .says("written");
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

/// What is up to date and has ended is not left so.
#[test]
fn installing_starts_what_has_ended() {
    let fixture = Fixture::launchd().installed();
    fixture.put("end", "0");
    fixture.order("bootstrap", &["0"]);
    let ran = fixture.run("install", &[]).exit(1).says("unchanged");
    ran.complains("it was started but is not running");
    contains(
        &fixture.calls().join("\n"),
        &["bootout {gui}/-", "bootstrap {gui} {file}"],
    );
}

#[test]
fn what_bootstrap_may_answer() {
    let check = |answers: &[&str], exit: i32, calls: &[&str], words: &[&str]| {
        let fixture = Fixture::launchd();
        fixture.order("bootstrap", answers);
        let ran = fixture.run("install", &[]).exit(exit);
        contains(&(ran.stdout + &ran.stderr), words);
        assert_eq!(fixture.calls()[3..], *calls, "{answers:?}");
    };
    let (bootstrap, print) = ("bootstrap {gui} {file}", "print {gui}/-");
    let kickstart = "kickstart -k {gui}/-";
    // Still draining, or whatever: again.
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
    // It is loaded after all, perhaps with another program. Here it is not, so that fails.
    check(
        &["37"],
        1,
        &[bootstrap, kickstart],
        &["not loaded (113)", "orphand service start"],
    );
    // Never: with what may be the cause, as far as it can be seen.
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
fn an_agent_that_somebody_else_has_loaded_meanwhile() {
    let fixture = Fixture::launchd();
    // Not loaded at the first look, loaded at the second.
    fixture.put("loaded", &format!("gui/{}", fixture.uid()));
    fixture.order("print", &["113", "113"]);
    fixture.run("install", &[]).exit(0);
    let want = [&FRESH[..], &["kickstart -k {gui}/-", "print {gui}/-"]].concat();
    assert_eq!(fixture.calls(), want);
}

#[test]
fn what_bootout_may_answer() {
    let check = |answers: &[&str], exit: i32, calls: &[&str], words: &str| {
        let fixture = Fixture::launchd().installed();
        fixture.order("bootout", answers);
        let ran = fixture.run("stop", &[]).exit(exit);
        contains(&(ran.stdout + &ran.stderr), &[words]);
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
fn a_job_that_does_not_end() {
    let fixture = Fixture::launchd()
        .installed()
        .env("ORPHAND_SERVICE_LIMIT", "1s");
    // It says that it drains, and stays.
    fixture.order("bootout", &["36"]);
    let ran = fixture.run("stop", &[]).exit(1);
    ran.complains("launchctl kill SIGKILL gui/");
}

#[test]
fn a_launchctl_that_never_answers() {
    let fixture = Fixture::launchd().env("ORPHAND_SERVICE_LIMIT", "200ms");
    fixture.order("print", &["hang"]);
    let ran = fixture.run("install", &[]).exit(1);
    ran.complains("has not ended within")
        .complains("launchctl print gui/");
    assert!(!fixture.file().exists());
}

#[test]
fn a_system_without_launchd() {
    let fixture = Fixture::launchd().env("ORPHAND_LAUNCHCTL", "/nowhere/launchctl");
    let ran = fixture.run("install", &[]).exit(1);
    ran.complains("/nowhere/launchctl").complains("--systemd");
    assert!(!fixture.file().exists());
}

#[test]
fn a_job_that_fails_at_once() {
    for (code, words) in [
        ("78", "config check"),
        ("127", "orphand service install"),
        ("126", "orphand doctor"),
        ("75", "another orphand"),
        ("1", "orphand service logs"),
    ] {
        let fixture = Fixture::launchd();
        fixture.put("end", code);
        let ran = fixture.run("install", &[]).exit(1);
        ran.complains("it was started but is not running")
            .complains(words);
    }
}

#[test]
fn starting_stopping_and_starting_again() {
    let fixture = Fixture::launchd().installed();
    let print = "print {gui}/-";
    let check = |verb: &str, words: &str, calls: &[&str]| {
        fixture.run(verb, &[]).exit(0).says(words);
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
    fixture.put("end", "0");
    // Loaded, and ended by itself.
    check("start", "Started", &[print, "kickstart {gui}/-", print]);
}

#[test]
fn nothing_is_installed() {
    let fixture = Fixture::launchd();
    for verb in ["start", "stop", "restart", "logs"] {
        let ran = fixture.run(verb, &[]).exit(4).silent();
        let ran = ran
            .complains("not installed")
            .complains("orphand service install");
        ran.complains("orphand watch DIR");
    }
    let ran = fixture.run("status", &[]).exit(4);
    contains(
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
        .says("Not installed")
        .says("Nothing was changed");
}

#[test]
fn uninstalling_says_what_stays() {
    let fixture = Fixture::launchd();
    fixture.config("[[watch]]\npath = \"/srv/app\"\n");
    let fixture = fixture.installed();
    let base = fixture.sandbox.base().to_str().unwrap().to_owned();
    let config = format!("rm {base}/config/orphand/config.toml");
    let logs = format!("rm -r {base}/home/Library/Logs/orphand");
    let journal = format!("rm -r {base}/state/orphand");
    fixture
        .run("uninstall", &[])
        .exit(0)
        .says("Removed")
        .says(&config);
    assert_eq!(
        fixture.calls(),
        ["print {gui}/-", "bootout {gui}/-", "print {gui}/-"]
    );
    assert!(!fixture.file().exists());
    // Only what exists is named.
    let fixture = fixture.installed();
    fixture.sandbox.write("../state/orphand/journal.jsonl", "");
    let ran = fixture
        .run("uninstall", &[])
        .exit(0)
        .says(&journal)
        .says(&logs);
    assert!(!ran.stdout.contains("quarantine"), "{}", ran.stdout);
    fixture.run("uninstall", &[]).exit(0).says("Not installed");
    let fixture = fixture.installed();
    let held = fixture.sandbox.path(".orphand");
    fs::create_dir(&held).unwrap();
    fs::set_permissions(&held, fs::Permissions::from_mode(0o700)).unwrap();
    fixture.sandbox.give(&held);
    fixture
        .sandbox
        .write(".orphand/q62905a5/a.tmp", "the only copy");
    let folder = fixture.sandbox.path(".orphand/q62905a5");
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
    fixture.config(&format!("[[watch]]\npath = \"{base}/root\"\n"));
    fixture
        .run("uninstall", &[])
        .exit(0)
        .says("orphand quarantine purge")
        .says("1 file");
    assert!(fixture.sandbox.has(".orphand/q62905a5/a.tmp"));
    assert!(fixture.sandbox.has("../config/orphand/config.toml"));
}

/// Somebody has removed the file, and launchd still runs the job.
#[test]
fn a_job_without_a_file_is_ended_all_the_same() {
    for verb in ["stop", "uninstall"] {
        let fixture = Fixture::launchd().installed();
        fs::remove_file(fixture.file()).unwrap();
        fixture.run(verb, &[]).exit(0);
        assert_eq!(
            fixture.calls(),
            ["print {gui}/-", "bootout {gui}/-", "print {gui}/-"]
        );
    }
}

#[test]
fn a_wrong_configuration_stops_before_anything_is_done() {
    let fixture = Fixture::launchd();
    fixture.config("[[watch]]\npath = \"/srv/app\"\ngarce = \"10s\"\n");
    let ran = fixture.run("install", &[]).exit(78).silent();
    ran.complains("config.toml:3:1: ").complains("grace");
    assert_eq!(fixture.calls(), [""; 0]);
    assert!(!fixture.file().exists());
    let ran = fixture
        .run("install", &["--config", "nowhere.toml"])
        .exit(78);
    ran.complains("nowhere.toml");
}

#[test]
fn without_a_configuration_it_says_that_it_watches_nothing() {
    let fixture = Fixture::launchd();
    let ran = fixture.run("install", &[]).exit(0);
    contains(
        &ran.stdout,
        &["nothing is watched yet", "orphand config init"],
    );
    fixture.config("[defaults]\nrecursive = true\n");
    fixture
        .run("install", &[])
        .exit(0)
        .says("lists no directory");
}

#[test]
fn homebrew_runs_it_already() {
    let fixture = Fixture::launchd();
    fixture.sandbox.write(
        "../home/Library/LaunchAgents/homebrew.mxcl.orphand.plist",
        "<plist/>",
    );
    let ran = fixture.run("install", &[]).exit(75).silent();
    let ran = ran
        .complains("homebrew.mxcl.orphand")
        .complains("brew services restart orphand");
    ran.complains("brew services stop orphand && orphand service install");
    assert!(!fixture.file().exists());
    assert_eq!(fixture.calls(), [""; 0]);
    fixture
        .run("status", &[])
        .exit(4)
        .says("brew services info orphand");
    fixture
        .run("start", &[])
        .exit(4)
        .complains("brew services info orphand");
    let fixture = Fixture::systemd();
    fixture
        .sandbox
        .write("../config/systemd/user/homebrew.orphand.service", "");
    fixture
        .run("install", &[])
        .exit(75)
        .complains("homebrew.orphand.service");
}

/// Who keeps service files in a repository wants to change them there.
#[test]
fn a_link_is_not_replaced() {
    let fixture = Fixture::launchd();
    fixture.put_file("");
    let elsewhere = fixture.sandbox.base().join("dotfiles.plist");
    fs::rename(fixture.file(), &elsewhere).unwrap();
    symlink(&elsewhere, fixture.file()).unwrap();
    let ran = fixture.run("install", &[]).exit(1);
    ran.complains("is a symlink to")
        .complains("orphand service print");
    assert_eq!(fs::read_to_string(&elsewhere).unwrap(), "");
    fs::write(&elsewhere, fixture.run("print", &[]).exit(0).stdout).unwrap();
    fixture.run("install", &[]).exit(0).says("unchanged");
    assert!(fixture.file().is_symlink());
}

#[test]
fn a_home_of_somebody_else() {
    if !is_root() {
        eprintln!("not root: not tried, every file here is this user's");
        return;
    }
    let fixture = Fixture::new(Sandbox::new(), "--launchd");
    std::os::unix::fs::chown(fixture.sandbox.base().join("home"), Some(65_534), None).unwrap();
    let ran = fixture.run("install", &[]).exit(1);
    ran.complains("without sudo")
        .complains("sudo orphand service install --system");
    assert_eq!(fixture.calls(), [""; 0]);
}

#[test]
fn root_is_told_whose_agent_this_is() {
    if !is_root() {
        eprintln!("not root: not tried");
        return;
    }
    let fixture = Fixture::new(Sandbox::new(), "--launchd");
    let ran = fixture.run("install", &[]).exit(0);
    ran.complains("user service of root")
        .complains("orphand service install --system");
}

#[test]
fn a_build_folder_is_no_place_to_stay() {
    let fixture = Fixture::launchd();
    let program = fixture.sandbox.base().join("target/release/orphand");
    fixture.sandbox.write("../target/release/nothing", "");
    put_program(&fixture.sandbox, &program);
    let mut command = fixture.sandbox.program(&program);
    command.args(["service", "install", "--launchd"]);
    let ran = fixture.sandbox.finish(command).exit(0);
    ran.complains("a build folder");
}

/// The kernel calls a program that an upgrade has replaced `… (deleted)`.
#[cfg(target_os = "linux")]
#[test]
fn homebrew_upgrades_the_program_that_runs() {
    let fixture = Fixture::launchd();
    let old = fixture
        .sandbox
        .base()
        .join("Cellar/orphand/0.1.0/bin/orphand");
    let opt = fixture.sandbox.base().join("opt/orphand/bin/orphand");
    for path in [&old, &opt] {
        let beside = path.with_file_name("nothing");
        let beside = beside.strip_prefix(fixture.sandbox.base()).unwrap();
        fixture.sandbox.write(Path::new("..").join(beside), "");
        put_program(&fixture.sandbox, path);
    }
    let program = |ran: Ran| plist(&ran.exit(0).stdout)["ProgramArguments"][0].clone();
    let print = |program: &Path| {
        let mut command = fixture.sandbox.program(program);
        command.args(["service", "print", "--launchd"]);
        command
    };
    assert_eq!(
        program(fixture.sandbox.finish(print(&old))),
        opt.to_str().unwrap()
    );
    // Removed between its start and its question: the shell that becomes it is another name of it.
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
fn status_in_each_state() {
    let fixture = Fixture::launchd();
    let check = |exit: i32, words: &[&str], fields: serde_json::Value| {
        let ran = fixture.run("status", &[]).exit(exit);
        contains(&ran.stdout, words);
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
    fixture.put("end", "78");
    check(
        3,
        &["is not running", "(78)", "config check"],
        serde_json::json!({"installed": true, "loaded": true, "running": false, "pid": null}),
    );
    fs::remove_file(fixture.at.join("end")).unwrap();
    fixture.run("stop", &[]).exit(0);
    fixture.put("disabled", "");
    check(
        3,
        &["installed, disabled, not loaded", "orphand service start"],
        serde_json::json!({"installed": true, "enabled": false, "loaded": false}),
    );
}

#[test]
fn status_prints_one_object_whatever_fails() {
    let fixture = Fixture::launchd()
        .installed()
        .env("ORPHAND_SERVICE_LIMIT", "200ms");
    fixture.order("print", &["hang"]);
    let ran = fixture
        .run("status", &["--json"])
        .exit(1)
        .complains("has not ended within");
    let document = ran.stdout_json();
    contains(document["error"].as_str().unwrap(), &["has not ended within"]);
    assert_eq!(document["installed"], true);
    assert!(
        document["running"].is_null() && document["loaded"].is_null(),
        "{document}"
    );
    // Other verbs say words elsewhere, and end with the same object.
    let ran = fixture
        .run("stop", &["--json"])
        .exit(0)
        .complains("Stopped");
    assert_eq!(ran.stdout_json()["loaded"], false);
    let ran = fixture
        .run("uninstall", &["--json"])
        .exit(0)
        .complains("Removed");
    assert_eq!(ran.stdout_json()["installed"], false);
}

/// What is wrong with the file, and the command that mends it.
#[test]
fn status_of_a_file_that_is_not_as_it_should_be() {
    let check = |change: &dyn Fn(&str) -> String, what: &str, fix: &str| {
        for fixture in [Fixture::launchd(), Fixture::systemd()] {
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
                .says("!! ")
                .says(what)
                .says(fix);
            assert_eq!(ran.stderr, "");
            let document = fixture.run("status", &["--json"]).exit(0).stdout_json();
            let problems = document["problems"].as_array().unwrap();
            assert_eq!(problems.len(), 1, "{document}");
            contains(problems[0]["what"].as_str().unwrap(), &[what]);
            contains(problems[0]["cure"].as_str().unwrap(), &[fix]);
            // The fix works.
            let ran = fixture.run("install", &[]).exit(0).says("written");
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
fn a_named_configuration_is_kept_in_mind() {
    let fixture = Fixture::launchd();
    fixture.config("[[watch]]\npath = \"/srv/app\"\n");
    let config = fixture.sandbox.base().join("config/orphand/config.toml");
    let config = config.to_str().unwrap();
    fixture.run("install", &["--config", config]).exit(0);
    let document = fixture.run("status", &["--json"]).exit(0).stdout_json();
    assert_eq!(
        document["problems"],
        serde_json::json!([]),
        "it is as it was installed"
    );
    let file = fs::read_to_string(fixture.file()).unwrap();
    fixture.put_file(&format!("{file}\n"));
    fixture.run("status", &[]).exit(0).says(
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
fn installing_a_unit() {
    let fixture = Fixture::systemd();
    let ran = fixture.run("install", &[]).exit(0);
    contains(
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
        .says("Already up to date (pid 4711)");
    assert_eq!(fixture.calls(), ["--user show"]);
    // What was switched off by hand is switched on again.
    fs::remove_file(fixture.at.join("enabled")).unwrap();
    fixture.run("install", &[]).exit(0).says("unchanged");
    contains(&fixture.calls().join("\n"), &["enable orphand.service"]);
}

#[test]
fn a_unit_from_start_to_end() {
    let fixture = Fixture::systemd().installed();
    let check = |verb: &str, words: &str, calls: &[&str]| {
        fixture.run(verb, &[]).exit(0).says(words);
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
        .says("installed, enabled, loaded")
        .says("is not running");
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
fn a_systemctl_that_complains() {
    for (verb, says, words) in [
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
        let fixture = Fixture::systemd();
        fixture.put("says", says);
        fixture.order(verb, &["1"]);
        let ran = fixture.run("install", &[]).exit(1).complains(says);
        ran.complains(words).complains(&format!(
            "systemctl --user {verb} orphand.service failed (1)"
        ));
        assert_eq!(
            fixture.file().exists(),
            verb != "show",
            "nothing is written where nothing can run"
        );
    }
}

/// A first scan may take longer than anybody waits: that is no failure.
#[test]
fn a_unit_that_takes_long_to_be_ready() {
    let fixture = Fixture::systemd().env("ORPHAND_SERVICE_LIMIT", "300ms");
    fixture.put("active", "");
    fixture.order("restart", &["hang"]);
    fixture
        .run("install", &[])
        .exit(0)
        .says("it has not answered yet")
        .says("orphand service status");
}

#[test]
fn a_unit_that_fails() {
    let fixture = Fixture::systemd().installed();
    fs::remove_file(fixture.at.join("active")).unwrap();
    fixture.put("end", "78");
    fixture
        .run("restart", &[])
        .exit(1)
        .complains("is not running")
        .complains("config check");
    fixture.run("status", &[]).exit(3).says("(78)");
}

#[test]
fn a_system_without_systemd() {
    let fixture = Fixture::systemd().env("ORPHAND_SYSTEMCTL", "/nowhere/systemctl");
    fixture
        .run("install", &[])
        .exit(1)
        .complains("/nowhere/systemctl")
        .complains("orphand watch");
    assert!(!fixture.file().exists());
    fixture.run("status", &[]).exit(4).says("not installed");
    fixture.run("uninstall", &[]).exit(0).says("Not installed");
}

#[test]
fn a_program_that_systemd_would_not_start() {
    let fixture = Fixture::systemd();
    let program = fixture.sandbox.base().join("q\"q");
    put_program(&fixture.sandbox, &program);
    let mut command = fixture.sandbox.program(&program);
    command.args(["service", "install", "--systemd"]);
    fixture
        .sandbox
        .finish(command)
        .exit(1)
        .complains("a quote or a backslash");
    assert_eq!(fixture.calls(), [""; 0]);
}

#[test]
fn logs_are_shown_by_who_keeps_them() {
    let fixture = Fixture::systemd();
    for (args, said) in [
        (&[][..], "journalctl --user-unit orphand.service -n 50\n"),
        (&["-f"], "journalctl --user-unit orphand.service -n 50 -f\n"),
        (
            &["-n", "7", "--system"],
            "journalctl --unit orphand.service -n 7\n",
        ),
    ] {
        assert_eq!(fixture.run("logs", args).exit(0).stdout, said);
    }
    let fixture = Fixture::launchd().installed();
    fixture
        .run("logs", &[])
        .exit(1)
        .complains("there is no log yet")
        .complains("service status");
    let log = match cfg!(target_os = "macos") {
        true => "home/Library/Logs/orphand/orphand.log",
        false => "state/orphand/orphand.log",
    };
    fixture.sandbox.write(Path::new("..").join(log), "");
    let log = fixture.sandbox.base().join(log);
    for (args, said) in [
        (&[][..], format!("tail -n 50 {}\n", log.display())),
        (
            &["-f", "-n", "7"],
            format!("tail -n 7 -F {}\n", log.display()),
        ),
    ] {
        assert_eq!(fixture.run("logs", args).exit(0).stdout, said);
    }
    fixture
        .sandbox
        .write("../home/Library/Logs/orphand/crash.log", "panicked");
    fixture.run("logs", &[]).exit(0).complains("crash.log");
}

// ---- The whole machine.

#[test]
fn the_whole_machine_is_roots() {
    for which in ["--launchd", "--systemd"] {
        let fixture = Fixture::new(Sandbox::ordinary(), which);
        for verb in ["install", "uninstall"] {
            let ran = fixture.run(verb, &["--system"]).exit(1);
            ran.complains("sudo orphand service").complains("--system");
        }
        assert_eq!(fixture.calls(), [""; 0]);
    }
}

#[test]
fn a_service_of_the_whole_machine() {
    if !is_root() {
        eprintln!("not root: not tried");
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
        let fixture = Fixture::new(Sandbox::new(), which);
        let machine = fixture.sandbox.base().join("machine");
        let fixture = fixture.env("ORPHAND_SERVICE_ROOT", &machine);
        let file = machine.join(file);
        fixture.put("unit", file.to_str().unwrap());
        // Not what root's shell reads, but what the service will.
        fixture.config("wrong");
        let ran = fixture.run("install", &["--system"]).exit(0);
        contains(&ran.stdout, &["ORPHAND_CONFIG=", "orphand config init"]);
        let seen: Vec<String> = fixture.calls();
        let seen = seen
            .iter()
            .map(|call| call.replace(machine.to_str().unwrap(), "{machine}"));
        assert_eq!(seen.collect::<Vec<_>>(), calls);
        let printed = fixture.run("print", &["--system"]).exit(0).stdout;
        assert_eq!(fs::read_to_string(&file).unwrap(), printed);
        assert!(
            !printed.contains("machine"),
            "the prefix ends with the image: {printed}"
        );
        fixture.sandbox.write(format!("../{config}"), "wrong");
        fixture
            .run("install", &["--system"])
            .exit(78)
            .complains("config.toml:1:");
        fixture
            .run("status", &["--system"])
            .exit(0)
            .says("enabled, loaded");
        fixture
            .run("uninstall", &["--system"])
            .exit(0)
            .says("Removed");
        assert!(!file.exists());
    }
}

// ---- End to end.

fn until(what: &str, holds: impl Fn() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < end, "in vain: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Installed with one command, by the environment of the agent alone, the program removes an
/// orphan; restarted it does so again; uninstalled it ends.
#[test]
fn an_agent_that_really_runs() {
    let fixture = Fixture::launchd().env("ORPHAND_SERVICE_WAIT", "100ms");
    fixture.put("real", "");
    let root = fixture.sandbox.root();
    fixture.config(&format!(
        "[[watch]]\npath = \"{}\"\ngrace = \"100ms\"\n",
        String::from_utf8_lossy(raw(&root))
    ));
    let orphan = |fixture: &Fixture, name: &str| {
        fixture.sandbox.write("a", "whole, to the last byte of it");
        fixture.sandbox.write(name, "");
        until(name, || !fixture.sandbox.has(name));
    };
    fixture.run("install", &[]).exit(0).says("Started    pid ");
    let pid = fs::read_to_string(fixture.at.join("pid")).unwrap();
    orphan(&fixture, "a.tmp");
    fixture
        .run("install", &[])
        .exit(0)
        .says("Already up to date");
    fixture.run("restart", &[]).exit(0).says("Started    pid ");
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
        .says("Removed")
        .says("Journal");
    until("it ends", || locks() == 0);
    assert!(!fixture.at.join("pid").exists());
}
