//! What doctor says of machines and roots, and that it changes nothing there.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use serde_json::Value;

use crate::sandbox::{Begin, Ran, Sandbox};

/// The checks of a run with `--json`, each of them whole.
#[track_caller]
fn checks(ran: &Ran) -> Vec<Value> {
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
            other => panic!("{other:?} is no state"),
        };
        assert_eq!(check["cure"].is_null(), is_ok, "{check}");
        assert!(
            check["what"].as_str().is_some_and(|what| !what.is_empty()),
            "{check}"
        );
    }
    checks
}

/// The check of this name; of the machine, or of the only root.
#[track_caller]
fn about<'a>(checks: &'a [Value], name: &str) -> &'a Value {
    let mut found = checks.iter().filter(|check| check["check"] == name);
    let first = found
        .next()
        .unwrap_or_else(|| panic!("{name} is not in {checks:#?}"));
    assert!(found.next().is_none(), "{name} twice in {checks:#?}");
    first
}

/// `check` stands so, and says this, or its cure does.
#[track_caller]
fn stands(checks: &[Value], name: &str, state: &str, words: &str) {
    let check = about(checks, name);
    assert_eq!(check["state"], state, "{check}");
    let said = format!("{} {}", check["what"], check["cure"]);
    assert!(said.contains(words), "{words:?} is not in {said}");
}

/// Everything but the date of the root itself, where a file was made and removed.
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
fn a_root_where_all_is_well() {
    Sandbox::each(|sandbox| {
        let sandbox = sandbox
            .file("a", "whole, to the last byte of it")
            .file("a.tmp", "x")
            .dir("below");
        let before = snapshot(&sandbox);
        let people = sandbox.run(["doctor", "root"]).exit(0);
        let people = people.says("no problems found");
        for check in [
            "root",
            "file-system",
            "proof",
            "disk",
            "inodes",
            "clock",
            "state",
        ] {
            let line = people
                .stdout
                .lines()
                .find(|line| line.contains(&format!("  {check} ")));
            let line = line.unwrap_or_else(|| panic!("{check}: {}", people.stdout));
            assert!(!line.contains("error"), "{line}");
        }
        let checks = checks(&sandbox.run(["doctor", "--json", "root"]).exit(0));
        stands(&checks, "root", "ok", "listed and removed");
        assert_eq!(
            about(&checks, "root")["root"],
            sandbox.root().to_str().unwrap()
        );
        assert!(about(&checks, "clock")["root"].is_null());
        stands(&checks, "dates", "ok", "this machine's clock");
        stands(&checks, "config", "ok", "no configuration file");
        #[cfg(target_os = "linux")]
        {
            stands(
                &checks,
                "proof",
                "ok",
                "refused while doctor's test file was open",
            );
            stands(&checks, "inotify-watches", "ok", "the roots need 1");
            stands(&checks, "lease-break", "ok", " s");
        }
        let quiet = sandbox.run(["doctor", "-q", "root"]).exit(0).stdout;
        assert!(!quiet.contains("  ok "), "{quiet}");
        assert_eq!(
            snapshot(&sandbox),
            before,
            "nothing was changed or left behind"
        );
    });
}

/// What it makes for a moment is passed over by a watcher at work, and by a scan.
#[test]
fn beside_a_watcher() {
    let sandbox = Sandbox::new();
    let mut watching = sandbox
        .watch(["--grace", "200ms", "--name", "*", "--allow-broad-name"])
        .ready();
    let checks = checks(&sandbox.run(["doctor", "--json", "root"]).exit(0));
    stands(&checks, "root", "ok", "listed and removed");
    #[cfg(target_os = "linux")]
    {
        let pid = watching.pid().to_string();
        // Other tests have watchers of their own.
        let said = about(&checks, "orphands")["what"]
            .as_str()
            .unwrap()
            .to_owned();
        assert!(said.contains(&pid), "{pid}: {said}");
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
fn a_root_that_may_not_be_written() {
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
        stands(&checks, "root", "trouble", words);
        let people = sandbox.run(["doctor", "-q", "root"]).exit(3).stdout;
        assert!(people.contains("error    root"), "{people}");
        stands(&checks, "root", "trouble", "chmod u+rwx ");
        if bits == 0o555 {
            stands(&checks, "proof", "warning", "could not be tested");
        }
        assert_eq!(sandbox.snapshot(), before, "{bits:o}");
    }
    mode(0o700);
}

#[test]
fn roots_that_orphand_does_not_work_on() {
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
        stands(&checks, "root", "trouble", words);
        sandbox.run(["doctor", dir]).exit(3).says("1 problem found");
    }
    // A directory may have the name of a command.
    let named = checks(&sandbox.run(["doctor", "--json", "watch"]).exit(3));
    stands(&named, "root", "trouble", "does not exist");
    // One that is well does not make up for it, and is looked at all the same.
    let both = sandbox.run(["doctor", "missing", "root"]).exit(3);
    both.says("it does not exist").says("listed and removed");
    assert!(!sandbox.base().join("missing").exists());
}

#[test]
fn the_configuration_file() {
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
    stands(&run(&[], 0), "config", "warning", "orphand doctor DIR");

    config(
        "[[watch]]\npath = \"{base}/root\"\nrecursive = true\n\n[[watch]]\npath = \"{base}/other\"\n",
    );
    let both = run(&[], 0);
    stands(&both, "config", "ok", "2 directories");
    let roots = both.iter().filter(|check| check["check"] == "root").count();
    assert_eq!(roots, 2, "{both:#?}");
    #[cfg(target_os = "linux")]
    stands(&both, "inotify-watches", "ok", "the roots need 4");

    config("[[watch]]\npath = \"{base}/root\"\ngarce = \"10s\"\n");
    let wrong = run(&[], 3);
    stands(&wrong, "config", "trouble", "config.toml:3:1: ");
    // What was named is looked at all the same.
    stands(&run(&["root"], 3), "root", "ok", "listed and removed");
    let elsewhere = run(&["--config", "nowhere.toml", "root"], 3);
    stands(&elsewhere, "config", "trouble", "nowhere.toml");
}

#[test]
fn names_that_would_do_something_to_a_terminal() {
    let name = "a\u{1b}[2J\nb";
    let sandbox = Sandbox::new().dir(Path::new("..").join(name));
    let people = sandbox.run(["doctor", name]).exit(0).stdout;
    assert!(people.contains(r"a\u{1b}[2J\nb"), "{people}");
    assert!(!people.contains('\u{1b}'), "{people:?}");
    let missing = format!("{name}/missing");
    let cured = sandbox.run(["doctor", "-q", &missing]).exit(3).stdout;
    assert!(cured.contains(r"a\033[2J\012b/missing'"), "{cured}");
}

#[test]
fn folders_of_orphands_own() {
    let sandbox = Sandbox::new().file("../file", "");
    let blocked = sandbox.base().join("file/state");
    let sandbox = sandbox.env("XDG_STATE_HOME", blocked);
    let checks = checks(&sandbox.run(["doctor", "--json", "root"]).exit(0));
    stands(&checks, "state", "warning", "XDG_STATE_HOME");
    stands(&checks, "locks", "ok", "will be created when needed");
}

#[cfg(target_os = "linux")]
mod linux {
    use std::io::Write;
    use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
    use std::time::{Duration, Instant};

    use super::*;
    use crate::sandbox::{is_root, raw};

    fn skipped(why: &str) {
        eprintln!("SKIPPED: {why}");
    }

    /// Runs doctor by way of unshare(1); `None` where this user may have no such namespaces.
    fn apart(sandbox: &Sandbox, namespaces: &[&str], first: &str, exit: i32) -> Option<Vec<Value>> {
        let script = format!("{first}; exec \"$@\"");
        let unshare = |rest: &[&str]| {
            let mut command = sandbox.program("unshare");
            command.args(namespaces).args(rest);
            command
        };
        if !unshare(&["true"])
            .ended()
            .is_ok_and(|status| status.success())
        {
            skipped(&format!("unshare {namespaces:?} does not work here"));
            return None;
        }
        let mut command = unshare(&["sh", "-c", &script, "sh"]);
        command.arg(sandbox.binary()).args(["doctor", "--json"]);
        Some(checks(&sandbox.finish(command).exit(exit)))
    }

    fn configured(sandbox: Sandbox) -> Sandbox {
        let root = sandbox.root();
        let rule = format!("[[watch]]\npath = {root:?}\nrecursive = true\n");
        sandbox
            .dir("1/2/3/4/5/6")
            .file("../config/orphand/config.toml", rule)
    }

    /// The limits of a user namespace are its own: those of the machine are left alone.
    #[test]
    fn few_inotify_watches() {
        Sandbox::each(|sandbox| {
            let sandbox = configured(sandbox);
            let namespace = ["--user", "--map-root-user"];
            let lower = |limit: &str, to| format!("echo {to} > /proc/sys/user/max_inotify_{limit}");
            let Some(few) = apart(&sandbox, &namespace, &lower("watches", 5), 0) else {
                return;
            };
            stands(
                &few,
                "inotify-watches",
                "warning",
                "5 for this user, but the roots need 7",
            );
            stands(
                &few,
                "inotify-watches",
                "warning",
                "sysctl user.max_inotify_watches=524288",
            );
            stands(&few, "sight", "warning", "user namespace");
            stands(&few, "proof", "ok", "refused while");
            let none = apart(&sandbox, &namespace, &lower("watches", 0), 0).unwrap();
            stands(
                &none,
                "inotify-watches",
                "warning",
                "all 0 of this user are in use",
            );
            let none = apart(&sandbox, &namespace, &lower("instances", 0), 0).unwrap();
            stands(
                &none,
                "inotify-instances",
                "warning",
                "sysctl user.max_inotify_instances=1024",
            );
            let enough = apart(&sandbox, &namespace, &lower("watches", 7), 0).unwrap();
            stands(&enough, "inotify-watches", "ok", "7 for this user");
        });
    }

    #[test]
    fn in_a_pid_namespace() {
        Sandbox::each(|sandbox| {
            let sandbox = configured(sandbox);
            let blind = [
                "--user",
                "--map-root-user",
                "--pid",
                "--fork",
                "--mount-proc",
            ];
            if let Some(checks) = apart(&sandbox, &blind, ":", 0) {
                stands(&checks, "sight", "warning", "private pid namespace");
                stands(&checks, "proof", "ok", "refused while");
            }
        });
    }

    #[test]
    fn without_a_proc() {
        let sandbox = configured(Sandbox::new());
        let mounts = ["--user", "--map-root-user", "--mount"];
        if let Some(checks) = apart(&sandbox, &mounts, "mount -t tmpfs none /proc", 0) {
            stands(
                &checks,
                "sight",
                "warning",
                "there is no /proc of this pid namespace",
            );
            stands(&checks, "proof", "ok", "refused while");
        }
    }

    #[test]
    fn on_overlayfs() {
        let mount = "mkdir layers && mount -t tmpfs none layers && mkdir layers/l layers/u layers/w \
                     && mount -t overlay -o lowerdir=layers/l,upperdir=layers/u,workdir=layers/w \
                     none \"$1\"";
        match Sandbox::on_disk(mount) {
            Err(why) => skipped(&why),
            Ok(sandbox) => {
                let checks = checks(&sandbox.run(["doctor", "--json", "disk/root"]).exit(0));
                stands(
                    &checks,
                    "file-system",
                    "warning",
                    "overlay (for rules: overlayfs)",
                );
                stands(&checks, "file-system", "warning", "quarantine");
                stands(&checks, "proof", "ok", "refused while");
            }
        }
    }

    /// A file system that nobody has measured: leases work on it, and prove nothing that is known.
    #[test]
    fn where_no_proof_is_known() {
        match Sandbox::on_disk("mount -t ramfs none \"$1\"") {
            Err(why) => skipped(&why),
            Ok(sandbox) => {
                let doctor = |config: &str, exit| {
                    let at = sandbox.base().join("disk/root");
                    let text = format!("[[watch]]\npath = {at:?}\n{config}\n");
                    sandbox.write("../config/orphand/config.toml", text);
                    checks(&sandbox.run(["doctor", "--json"]).exit(exit))
                };
                let kept = doctor("", 3);
                stands(&kept, "file-system", "trouble", "network = ");
                stands(&kept, "proof", "ok", "refused while");
                let trusted = doctor("network = [\"ramfs\"]", 0);
                stands(&trusted, "file-system", "warning", "your rule trusts it");
            }
        }
    }

    #[test]
    fn on_a_full_disk() {
        let mount = "mount -t tmpfs -o size=1m,nr_inodes=64,mode=755 none \"$1\"";
        let sandbox = match Sandbox::on_disk(mount) {
            Ok(sandbox) => sandbox,
            Err(why) => return skipped(&why),
        };
        let mut filler = fs::File::create(sandbox.on_it("filler")).unwrap();
        while filler.write_all(&[b'x'; 4096]).is_ok() {}
        let doctor = || checks(&sandbox.run(["doctor", "--json", "disk/root"]).exit(0));
        let full = doctor();
        stands(&full, "disk", "warning", "100 % full, 0 B left");
        stands(&full, "disk", "warning", "orphand scan ");
        // No names are left either: not even an empty file can be made.
        for n in 0.. {
            if fs::File::create(sandbox.on_it(&format!("filler-{n}"))).is_err() {
                break;
            }
        }
        let full = doctor();
        stands(
            &full,
            "inodes",
            "warning",
            "100 % of the maximum number of files",
        );
        stands(&full, "proof", "warning", "could not be tested");
        stands(&full, "root", "ok", "listed and removed");
    }

    #[test]
    fn mounted_read_only() {
        let mount = "mount -t tmpfs -o mode=755 none \"$1\" && mkdir -p root \
                     && mount -t tmpfs -o ro none root";
        match Sandbox::on_disk(mount) {
            Err(why) => skipped(&why),
            Ok(sandbox) => {
                let checks = checks(&sandbox.run(["doctor", "--json", "root"]).exit(3));
                stands(&checks, "root", "trouble", "read-only");
                stands(&checks, "root", "trouble", "remount,rw");
            }
        }
    }

    /// Every opening of a directory, and of what is in it, waits, until this is dropped, for an answer that nobody gives:
    /// as on a mount whose server is away.
    struct Dead(#[allow(dead_code)] OwnedFd);

    impl Dead {
        fn new(dir: &Path) -> std::io::Result<Dead> {
            let path = std::ffi::CString::new(raw(dir)).unwrap();
            let (class, add) = (
                libc::FAN_CLASS_CONTENT | libc::FAN_CLOEXEC,
                libc::FAN_MARK_ADD,
            );
            let mask = libc::FAN_OPEN_PERM | libc::FAN_ONDIR | libc::FAN_EVENT_ON_CHILD;
            // SAFETY: plain system calls; the path outlives them, and the descriptor is ours.
            unsafe {
                let fd = libc::fanotify_init(class, libc::O_RDONLY as u32);
                if fd < 0 {
                    return Err(std::io::Error::last_os_error());
                }
                let fd = OwnedFd::from_raw_fd(fd);
                let at = libc::AT_FDCWD;
                match libc::fanotify_mark(fd.as_raw_fd(), add, mask, at, path.as_ptr()) {
                    0 => Ok(Dead(fd)),
                    _ => Err(std::io::Error::last_os_error()),
                }
            }
        }
    }

    #[test]
    fn a_root_that_does_not_answer() {
        if !is_root() {
            return skipped("fanotify needs root");
        }
        let sandbox = Sandbox::new().dir("../alive");
        let dead = match Dead::new(&sandbox.root()) {
            Ok(dead) => dead,
            Err(error) => return skipped(&format!("fanotify: {error}")),
        };
        let began = Instant::now();
        let ran = sandbox.run(["doctor", "--json", "root", "alive"]).exit(3);
        assert!(
            began.elapsed() >= Duration::from_secs(3),
            "it was waited for"
        );
        drop(dead);
        let checks = checks(&ran);
        let of = |dir: &str| -> Vec<Value> {
            let dir = sandbox.base().join(dir);
            let of = |check: &&Value| check["root"] == dir.to_str().unwrap();
            checks.iter().filter(of).cloned().collect()
        };
        stands(&of("root"), "root", "trouble", "does not answer");
        stands(&of("root"), "root", "trouble", "findmnt -T ");
        stands(&of("alive"), "root", "ok", "listed and removed");
    }

    #[test]
    fn a_configuration_that_does_not_answer() {
        if !is_root() {
            return skipped("fanotify needs root");
        }
        let sandbox = configured(Sandbox::new());
        let dead = match Dead::new(&sandbox.base().join("config/orphand")) {
            Ok(dead) => dead,
            Err(error) => return skipped(&format!("fanotify: {error}")),
        };
        let ran = sandbox.run(["doctor", "--json", "root"]).exit(3);
        drop(dead);
        let checks = checks(&ran);
        stands(&checks, "config", "trouble", "does not answer");
        stands(&checks, "root", "ok", "listed and removed");
    }

    #[test]
    fn where_capitals_do_not_matter() {
        let mount = "truncate -s 8M image && mkfs.ext4 -q -O casefold image \
                     && mount -o loop image \"$1\"";
        let sandbox = match Sandbox::on_disk(mount) {
            Ok(sandbox) => sandbox,
            Err(why) => return skipped(&why),
        };
        let doctor = || checks(&sandbox.run(["doctor", "--json", "disk/root"]).exit(0));
        stands(&doctor(), "names", "ok", "upper and lower case differ");
        let mut chattr = std::process::Command::new("chattr");
        chattr.arg("+F").arg(sandbox.on_it("root"));
        if !chattr.ended().is_ok_and(|status| status.success()) {
            return skipped("chattr +F");
        }
        stands(&doctor(), "names", "ok", "*.tmp does not match X.TMP");
        // What is seen without making a file.
        fs::set_permissions(sandbox.on_it("root"), fs::Permissions::from_mode(0o500)).unwrap();
        let closed = checks(&sandbox.run(["doctor", "--json", "disk/root"]).exit(3));
        stands(&closed, "names", "ok", "*.tmp does not match X.TMP");
    }
}
