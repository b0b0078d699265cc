//! The reports of `doctor` about machines and roots. It changes nothing there.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use serde_json::Value;

use crate::sandbox::{CommandResult, Sandbox, StartChild};

/// Returns the checks of a run with `--json`, after checking that each is complete.
#[track_caller]
fn checks(ran: &CommandResult) -> Vec<Value> {
    let document = ran.stdout_json();
    let checks = document["checks"].as_array().unwrap().clone();
    for check in &checks {
        let keys: Vec<&str> = check
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        assert_eq!(keys, ["check", "root", "state", "what", "cure"], "{check}");
        let is_ok = match check["state"].as_str().unwrap() {
            "ok" => true,
            "warning" | "trouble" => false,
            other => panic!("{other:?} is not a state"),
        };
        assert_eq!(check["cure"].is_null(), is_ok, "{check}");
        assert!(
            check["what"].as_str().is_some_and(|what| !what.is_empty()),
            "{check}"
        );
    }
    checks
}

/// Returns the check of this name, of the machine or of the only root.
#[track_caller]
fn about<'a>(checks: &'a [Value], name: &str) -> &'a Value {
    let mut found = checks.iter().filter(|check| check["check"] == name);
    let first = found
        .next()
        .unwrap_or_else(|| panic!("{name} is not in {checks:#?}"));
    assert!(found.next().is_none(), "{name} is twice in {checks:#?}");
    first
}

/// Asserts the state of a check, and that its text or its fix contains these words.
#[track_caller]
fn assert_check(checks: &[Value], name: &str, state: &str, words: &str) {
    let check = about(checks, name);
    assert_eq!(check["state"], state, "{check}");
    let text = format!("{} {}", check["what"], check["cure"]);
    assert!(text.contains(words), "{words:?} is not in {text}");
}

/// Returns everything but the date of the root itself, in which a file was created and removed.
fn snapshot(sandbox: &Sandbox) -> Vec<String> {
    let root = format!("{:?} ", sandbox.root());
    let mut all = sandbox.snapshot();
    for line in &mut all {
        if line.starts_with(&root) {
            line.truncate(line.rfind(' ').unwrap());
        }
    }
    all
}

#[test]
fn a_healthy_root_has_no_problems() {
    Sandbox::for_each_user(|sandbox| {
        let sandbox = sandbox
            .file("a", "whole, to the last byte of it")
            .file("a.tmp", "x")
            .dir("below");
        let before = snapshot(&sandbox);
        let human = sandbox.run(["doctor", "root"]).exit(0);
        let human = human.stdout_has("no problems found");
        for check in [
            "root",
            "file-system",
            "proof",
            "disk",
            "inodes",
            "clock",
            "state",
        ] {
            let line = human
                .stdout
                .lines()
                .find(|line| line.contains(&format!("  {check} ")));
            let line = line.unwrap_or_else(|| panic!("{check}: {}", human.stdout));
            assert!(!line.contains("error"), "{line}");
        }
        let checks = checks(&sandbox.run(["doctor", "--json", "root"]).exit(0));
        assert_check(&checks, "root", "ok", "listed and removed");
        assert_eq!(
            about(&checks, "root")["root"],
            sandbox.root().to_str().unwrap()
        );
        assert!(about(&checks, "clock")["root"].is_null());
        assert_check(&checks, "dates", "ok", "this machine's clock");
        assert_check(&checks, "config", "ok", "no configuration file");
        #[cfg(target_os = "linux")]
        {
            assert_check(
                &checks,
                "proof",
                "ok",
                "refused while the test file was open",
            );
            assert_check(&checks, "inotify-watches", "ok", "the directories need 1");
            assert_check(&checks, "lease-break", "ok", " s");
        }
        let quiet = sandbox.run(["doctor", "-q", "root"]).exit(0).stdout;
        assert!(!quiet.contains("  ok "), "{quiet}");
        assert_eq!(
            snapshot(&sandbox),
            before,
            "doctor changed something or left a file"
        );
    });
}

/// A running watcher and a scan ignore the temporary files of doctor.
#[test]
fn doctor_does_not_disturb_a_watcher() {
    let sandbox = Sandbox::new();
    let mut watching = sandbox
        .watch(["--grace", "200ms", "--name", "*", "--allow-broad-name"])
        .ready();
    let checks = checks(&sandbox.run(["doctor", "--json", "root"]).exit(0));
    assert_check(&checks, "root", "ok", "listed and removed");
    #[cfg(target_os = "linux")]
    {
        let pid = watching.pid().to_string();
        // Other tests may have running watchers.
        let text = about(&checks, "orphands")["what"]
            .as_str()
            .unwrap()
            .to_owned();
        assert!(text.contains(&pid), "{pid}: {text}");
    }
    sandbox.write("sentinel.4194304.tmp", "");
    watching.wait_for(crate::sandbox::is("reaped", "sentinel.4194304.tmp"));
    let stopped = watching.stop().exit(0);
    let other = stopped.events.0.iter().find(|event| {
        event["path"]
            .as_str()
            .is_some_and(|path| path.contains("orphand-doctor"))
    });
    assert!(other.is_none(), "{other:?}");
}

#[test]
fn an_unwritable_root_is_reported() {
    let sandbox = Sandbox::ordinary().file("a.tmp", "x");
    let mode = |mode| {
        fs::set_permissions(sandbox.root(), fs::Permissions::from_mode(mode)).unwrap();
    };
    for (bits, words) in [
        (0o555, "cannot be removed"),
        (0o300, "denies you access"),
        (0o600, "be listed"),
    ] {
        mode(bits);
        let before = sandbox.snapshot();
        let checks = checks(&sandbox.run(["doctor", "--json", "root"]).exit(3));
        assert_check(&checks, "root", "trouble", words);
        let human = sandbox.run(["doctor", "-q", "root"]).exit(3).stdout;
        assert!(human.contains("error    root"), "{human}");
        assert_check(&checks, "root", "trouble", "chmod u+rwx ");
        if bits == 0o555 {
            assert_check(&checks, "proof", "warning", "could not be tested");
        }
        assert_eq!(sandbox.snapshot(), before, "{bits:o}");
    }
    mode(0o700);
}

#[test]
fn unsuitable_roots_are_reported() {
    let sandbox = Sandbox::new().file("a.tmp", "x");
    symlink(sandbox.root(), sandbox.base().join("link")).unwrap();
    for (dir, words) in [
        ("missing", "mkdir -p "),
        ("link", "name its target"),
        ("root/a.tmp", "orphand explain "),
        ("/", "too broad"),
        ("home", "a home directory"),
    ] {
        let checks = checks(&sandbox.run(["doctor", "--json", dir]).exit(3));
        assert_check(&checks, "root", "trouble", words);
        sandbox
            .run(["doctor", dir])
            .exit(3)
            .stdout_has("1 problem found");
    }
    // A directory may have the name of a command.
    let named = checks(&sandbox.run(["doctor", "--json", "watch"]).exit(3));
    assert_check(&named, "root", "trouble", "does not exist");
    // A healthy root does not hide the other's problem, and is checked too.
    let both = sandbox.run(["doctor", "missing", "root"]).exit(3);
    both.stdout_has("it does not exist")
        .stdout_has("listed and removed");
    assert!(!sandbox.base().join("missing").exists());
}

#[test]
fn the_configuration_file_is_checked() {
    let sandbox = Sandbox::new().dir("below/deeper").dir("../other");
    let config = |text: &str| {
        let text = text.replace("{base}", sandbox.base().to_str().unwrap());
        sandbox.write("../config/orphand/config.toml", text);
    };
    let run = |args: &[&str], exit| {
        checks(
            &sandbox
                .run([&["doctor", "--json"], args].concat())
                .exit(exit),
        )
    };
    assert_check(&run(&[], 0), "config", "warning", "orphand doctor DIR");

    config(
        "[[watch]]\npath = \"{base}/root\"\nrecursive = true\n\n[[watch]]\npath = \"{base}/other\"\n",
    );
    let both = run(&[], 0);
    assert_check(&both, "config", "ok", "2 directories");
    let roots = both.iter().filter(|check| check["check"] == "root").count();
    assert_eq!(roots, 2, "{both:#?}");
    #[cfg(target_os = "linux")]
    assert_check(&both, "inotify-watches", "ok", "the directories need 4");

    config("[[watch]]\npath = \"{base}/root\"\ngarce = \"10s\"\n");
    let wrong = run(&[], 3);
    assert_check(&wrong, "config", "trouble", "config.toml:3:1: ");
    // The given directory is checked nevertheless.
    assert_check(&run(&["root"], 3), "root", "ok", "listed and removed");
    let elsewhere = run(&["--config", "nowhere.toml", "root"], 3);
    assert_check(&elsewhere, "config", "trouble", "nowhere.toml");
}

#[test]
fn names_are_escaped_for_the_terminal() {
    let name = "a\u{1b}[2J\nb";
    let sandbox = Sandbox::new().dir(Path::new("..").join(name));
    let human = sandbox.run(["doctor", name]).exit(0).stdout;
    assert!(human.contains(r"a\u{1b}[2J\nb"), "{human}");
    assert!(!human.contains('\u{1b}'), "{human:?}");
    let missing = format!("{name}/missing");
    let fixed = sandbox.run(["doctor", "-q", &missing]).exit(3).stdout;
    assert!(fixed.contains(r"a\033[2J\012b/missing'"), "{fixed}");
}

#[test]
fn state_and_lock_folders_are_checked() {
    let sandbox = Sandbox::new().file("../file", "");
    let blocked = sandbox.base().join("file/state");
    let sandbox = sandbox.env("XDG_STATE_HOME", blocked);
    let checks = checks(&sandbox.run(["doctor", "--json", "root"]).exit(0));
    assert_check(&checks, "state", "warning", "XDG_STATE_HOME");
    assert_check(&checks, "locks", "ok", "will be created when needed");
}

#[cfg(target_os = "linux")]
mod linux {
    use std::io::Write;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::sandbox::{BlockedOpens, is_root};

    fn report_skipped(why: &str) {
        eprintln!("SKIPPED: {why}");
    }

    /// Runs doctor in namespaces of unshare(1). Returns `None` if this user may not create them.
    fn run_in_namespaces(
        sandbox: &Sandbox,
        namespaces: &[&str],
        first: &str,
        exit: i32,
    ) -> Option<Vec<Value>> {
        let script = format!("{first}; exec \"$@\"");
        let unshare = |rest: &[&str]| {
            let mut command = sandbox.program("unshare");
            command.args(namespaces).args(rest);
            command
        };
        if !unshare(&["true"])
            .run_to_end()
            .is_ok_and(|status| status.success())
        {
            report_skipped(&format!("unshare {namespaces:?} does not work here"));
            return None;
        }
        let mut command = unshare(&["sh", "-c", &script, "sh"]);
        command.arg(sandbox.binary()).args(["doctor", "--json"]);
        Some(checks(&sandbox.finish(command).exit(exit)))
    }

    fn with_config(sandbox: Sandbox) -> Sandbox {
        let root = sandbox.root();
        let rule = format!("[[watch]]\npath = {root:?}\nrecursive = true\n");
        sandbox
            .dir("1/2/3/4/5/6")
            .file("../config/orphand/config.toml", rule)
    }

    /// A user namespace has its own limits: those of the machine do not change.
    #[test]
    fn low_inotify_limits_are_reported() {
        Sandbox::for_each_user(|sandbox| {
            let sandbox = with_config(sandbox);
            let namespace = ["--user", "--map-root-user"];
            let lower = |limit: &str, to| format!("echo {to} > /proc/sys/user/max_inotify_{limit}");
            let Some(few) = run_in_namespaces(&sandbox, &namespace, &lower("watches", 5), 0) else {
                return;
            };
            assert_check(
                &few,
                "inotify-watches",
                "warning",
                "this user may have 5 watches, but the directories need 7",
            );
            assert_check(
                &few,
                "inotify-watches",
                "warning",
                "sysctl user.max_inotify_watches=524288",
            );
            assert_check(&few, "sight", "warning", "user namespace");
            assert_check(&few, "proof", "ok", "refused while");
            let none = run_in_namespaces(&sandbox, &namespace, &lower("watches", 0), 0).unwrap();
            assert_check(
                &none,
                "inotify-watches",
                "warning",
                "all 0 inotify watches of this user are in use",
            );
            let none = run_in_namespaces(&sandbox, &namespace, &lower("instances", 0), 0).unwrap();
            assert_check(
                &none,
                "inotify-instances",
                "warning",
                "sysctl user.max_inotify_instances=1024",
            );
            let enough = run_in_namespaces(&sandbox, &namespace, &lower("watches", 7), 0).unwrap();
            assert_check(
                &enough,
                "inotify-watches",
                "ok",
                "this user may have 7 watches",
            );
        });
    }

    #[test]
    fn a_private_pid_namespace_is_reported() {
        Sandbox::for_each_user(|sandbox| {
            let sandbox = with_config(sandbox);
            let blind = [
                "--user",
                "--map-root-user",
                "--pid",
                "--fork",
                "--mount-proc",
            ];
            if let Some(checks) = run_in_namespaces(&sandbox, &blind, ":", 0) {
                assert_check(&checks, "sight", "warning", "private pid namespace");
                assert_check(&checks, "proof", "ok", "refused while");
            }
        });
    }

    #[test]
    fn a_missing_proc_is_reported() {
        let sandbox = with_config(Sandbox::new());
        let mounts = ["--user", "--map-root-user", "--mount"];
        if let Some(checks) = run_in_namespaces(&sandbox, &mounts, "mount -t tmpfs none /proc", 0) {
            assert_check(
                &checks,
                "sight",
                "warning",
                "there is no /proc of this pid namespace",
            );
            assert_check(&checks, "proof", "ok", "refused while");
        }
    }

    #[test]
    fn overlayfs_is_reported() {
        let mount = "mkdir layers && mount -t tmpfs none layers && mkdir layers/l layers/u layers/w \
                     && mount -t overlay -o lowerdir=layers/l,upperdir=layers/u,workdir=layers/w \
                     none \"$1\"";
        match Sandbox::on_disk(mount) {
            Err(why) => report_skipped(&why),
            Ok(sandbox) => {
                let checks = checks(&sandbox.run(["doctor", "--json", "disk/root"]).exit(0));
                assert_check(
                    &checks,
                    "file-system",
                    "warning",
                    "overlay (for rules: overlayfs)",
                );
                assert_check(&checks, "file-system", "warning", "quarantine");
                assert_check(&checks, "proof", "ok", "refused while");
            }
        }
    }

    /// An untested file system: leases work on it, but prove nothing.
    #[test]
    fn an_untested_file_system_is_reported() {
        match Sandbox::on_disk("mount -t ramfs none \"$1\"") {
            Err(why) => report_skipped(&why),
            Ok(sandbox) => {
                let doctor = |config: &str, exit| {
                    let at = sandbox.base().join("disk/root");
                    let text = format!("[[watch]]\npath = {at:?}\n{config}\n");
                    sandbox.write("../config/orphand/config.toml", text);
                    checks(&sandbox.run(["doctor", "--json"]).exit(exit))
                };
                let kept = doctor("", 3);
                assert_check(&kept, "file-system", "trouble", "network = ");
                assert_check(&kept, "proof", "ok", "refused while");
                let trusted = doctor("network = [\"ramfs\"]", 0);
                assert_check(&trusted, "file-system", "warning", "your rule trusts it");
            }
        }
    }

    #[test]
    fn a_full_disk_is_reported() {
        let mount = "mount -t tmpfs -o size=1m,nr_inodes=64,mode=755 none \"$1\"";
        let sandbox = match Sandbox::on_disk(mount) {
            Ok(sandbox) => sandbox,
            Err(why) => return report_skipped(&why),
        };
        let mut filler = fs::File::create(sandbox.disk_path("filler")).unwrap();
        while filler.write_all(&[b'x'; 4096]).is_ok() {}
        let doctor = || checks(&sandbox.run(["doctor", "--json", "disk/root"]).exit(0));
        let full = doctor();
        assert_check(&full, "disk", "warning", "100 % full, 0 B left");
        assert_check(&full, "disk", "warning", "orphand scan ");
        // No inodes are left either: not even an empty file can be created.
        for n in 0.. {
            if fs::File::create(sandbox.disk_path(&format!("filler-{n}"))).is_err() {
                break;
            }
        }
        let full = doctor();
        assert_check(
            &full,
            "inodes",
            "warning",
            "100 % of the maximum number of files",
        );
        assert_check(&full, "proof", "warning", "could not be tested");
        assert_check(&full, "root", "ok", "listed and removed");
    }

    #[test]
    fn a_read_only_mount_is_reported() {
        let mount = "mount -t tmpfs -o mode=755 none \"$1\" && mkdir -p root \
                     && mount -t tmpfs -o ro none root";
        match Sandbox::on_disk(mount) {
            Err(why) => report_skipped(&why),
            Ok(sandbox) => {
                let checks = checks(&sandbox.run(["doctor", "--json", "root"]).exit(3));
                assert_check(&checks, "root", "trouble", "read-only");
                assert_check(&checks, "root", "trouble", "remount,rw");
            }
        }
    }

    #[test]
    fn a_root_that_does_not_answer_is_reported() {
        if !is_root() {
            return report_skipped("fanotify needs root");
        }
        let sandbox = Sandbox::new().dir("../alive");
        let dead = match BlockedOpens::new(&sandbox.root()) {
            Ok(dead) => dead,
            Err(error) => return report_skipped(&format!("fanotify: {error}")),
        };
        let began = Instant::now();
        let ran = sandbox.run(["doctor", "--json", "root", "alive"]).exit(3);
        assert!(
            began.elapsed() >= Duration::from_secs(3),
            "doctor did not wait for the root"
        );
        drop(dead);
        let checks = checks(&ran);
        let of = |dir: &str| -> Vec<Value> {
            let dir = sandbox.base().join(dir);
            let of = |check: &&Value| check["root"] == dir.to_str().unwrap();
            checks.iter().filter(of).cloned().collect()
        };
        assert_check(&of("root"), "root", "trouble", "does not answer");
        assert_check(&of("root"), "root", "trouble", "findmnt -T ");
        assert_check(&of("alive"), "root", "ok", "listed and removed");
    }

    #[test]
    fn a_configuration_that_does_not_answer_is_reported() {
        if !is_root() {
            return report_skipped("fanotify needs root");
        }
        let sandbox = with_config(Sandbox::new());
        let dead = match BlockedOpens::new(&sandbox.base().join("config/orphand")) {
            Ok(dead) => dead,
            Err(error) => return report_skipped(&format!("fanotify: {error}")),
        };
        let ran = sandbox.run(["doctor", "--json", "root"]).exit(3);
        drop(dead);
        let checks = checks(&ran);
        assert_check(&checks, "config", "trouble", "does not answer");
        assert_check(&checks, "root", "ok", "listed and removed");
    }

    #[test]
    fn case_insensitive_names_are_reported() {
        let mount = "truncate -s 8M image && mkfs.ext4 -q -O casefold image \
                     && mount -o loop image \"$1\"";
        let sandbox = match Sandbox::on_disk(mount) {
            Ok(sandbox) => sandbox,
            Err(why) => return report_skipped(&why),
        };
        let doctor = || checks(&sandbox.run(["doctor", "--json", "disk/root"]).exit(0));
        assert_check(&doctor(), "names", "ok", "upper and lower case differ");
        let mut chattr = std::process::Command::new("chattr");
        chattr.arg("+F").arg(sandbox.disk_path("root"));
        if !chattr.run_to_end().is_ok_and(|status| status.success()) {
            return report_skipped("chattr +F");
        }
        assert_check(&doctor(), "names", "ok", "*.tmp does not match X.TMP");
        // This is visible without creating a file.
        fs::set_permissions(sandbox.disk_path("root"), fs::Permissions::from_mode(0o500)).unwrap();
        let closed = checks(&sandbox.run(["doctor", "--json", "disk/root"]).exit(3));
        assert_check(&closed, "names", "ok", "*.tmp does not match X.TMP");
    }
}
