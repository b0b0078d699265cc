//! Attacks by another user of the directory, while orphand runs as root or as the directory's owner.
//!
//! Whatever a user with write access to a root does there, nothing outside the root changes, and orphand neither hangs
//! nor crashes. Inside the root such a user can destroy what the system allows; orphand must not destroy more on the
//! user's behalf.

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use orphand::core::event::Event;
use orphand::daemon::Watcher;
use orphand::reap::Step;
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use crate::fixture::{
    self, AtStep, Fixture, GRACE, SUBDIR, TARGET_CONTENT, TEMP, TEMP_CONTENT, TIMEOUT,
    in_own_process, in_parallel, wait_until,
};
use crate::sandbox::{self, CommandResult, NOBODY, Sandbox, StartChild, is_root, without_starts};

/// The user who attacks an orphand of root, and the user who attacks an orphand of that user.
const ATTACKERS: [u32; 2] = [NOBODY, NOBODY - 1];

const SHORT: [&str; 3] = ["-r", "--grace", "100ms"];

/// Environment variables of the attacker's process: its base directory and its attack.
const BASE_VAR: &str = "ORPHAND_TEST_BASE";
const ATTACK_VAR: &str = "ORPHAND_TEST_ATTACK";

/// Created in the base directory when enough temps were removed, so that the attacker stops.
const ENOUGH: &str = "enough";

/// A root that another user may write to, and the files beside it.
struct AttackFixture {
    sandbox: Sandbox,
    attacker: u32,
    /// The files that no attack may change, with all their metadata.
    before: Vec<String>,
}

impl AttackFixture {
    /// Creates the fixture; `mode` is the mode of the root. The victims belong to orphand's user and have the names
    /// that the attacks use. So if orphand is misled, it finds something to destroy.
    fn new(sandbox: Sandbox, attacker: u32, mode: u32) -> AttackFixture {
        let at = |name: &str| sandbox.base().join(name);
        fs::set_permissions(sandbox.root(), fs::Permissions::from_mode(mode)).unwrap();
        fs::set_permissions(sandbox.base(), fs::Permissions::from_mode(0o755)).unwrap();
        for dir in [
            "victims",
            "victims/root",
            "victims/q0000000",
            "victims/q1111111",
            "attacker",
            "other-locks",
        ] {
            fs::create_dir(at(dir)).unwrap();
            sandbox.chown_to_user(&at(dir));
        }
        let attacker_dir = at("attacker");
        std::os::unix::fs::lchown(&attacker_dir, Some(attacker), Some(attacker)).unwrap();
        for dir in ["victims", "victims/root", "victims/q1111111"] {
            let names = (0..NAMES).flat_map(|n| [temp(n), target(n)]);
            for name in names.chain(["sole.tmp".into(), "passwd".into()]) {
                let file = at(dir).join(name);
                fs::write(&file, "not in this root").unwrap();
                sandbox.chown_to_user(&file);
            }
        }
        let before = snapshot(&at("victims"));
        AttackFixture {
            sandbox,
            attacker,
            before,
        }
    }

    /// Runs `test` as root and as an ordinary user, in a world-writable directory and in a sticky one.
    fn each(test: impl Fn(&AttackFixture) + Sync) {
        if !is_root() {
            return eprintln!("skipped: changing the user needs root");
        }
        let modes = [0o777, 0o1777].into_iter();
        let cases = modes.flat_map(|mode| ATTACKERS.map(|attacker| (mode, attacker)));
        in_parallel(cases, |(mode, attacker)| {
            let sandbox = match attacker {
                NOBODY => Sandbox::in_memory_for(None),
                _ => Sandbox::in_memory(),
            };
            test(&AttackFixture::new(sandbox, attacker, mode));
        });
    }

    fn attack(&self, attack_name: &str) -> AttackProcess {
        let mut command = fixture::test_command("attacks::the_attacker");
        command
            .env(BASE_VAR, self.sandbox.base())
            .env(ATTACK_VAR, attack_name);
        command.uid(self.attacker).gid(self.attacker);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        AttackProcess(command.start_child().unwrap())
    }

    /// Runs a sweep beside a watcher. It has its own folder for locks, so that the two do not detect each other.
    fn sweep(&self, root: &str) -> CommandResult {
        // Other users may write to the root: that is under test.
        let args = ["sweep", "--yes", "--json", "--allow-broad-root"];
        let args = args.iter().chain(&SHORT);
        let mut command = self.sandbox.command(args.chain([&root]));
        command.env("XDG_RUNTIME_DIR", self.sandbox.base().join("other-locks"));
        self.sandbox.finish(command)
    }

    /// Watches `root` and sweeps it during the attack, until orphans that were created during the attack have been
    /// removed, however slow the machine is. Otherwise orphand did nothing and was not under attack.
    fn run_during(&self, attack_name: &str, root: &str) {
        let args = SHORT.iter().chain([&"--allow-broad-root", &root]);
        let mut watching = self.sandbox.watch_dirs(args).ready();
        let folder = self.sandbox.base().join(root);
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = rustix::fs::open(folder, flags, Mode::empty()).unwrap();
        let mut process = self.attack(attack_name);
        let end = Instant::now() + 5 * sandbox::DEADLINE;
        let mut rounds = 0;
        while process.is_running() {
            self.leak(&folder, rounds);
            rounds += 1;
            let removed = (0..rounds).filter(|n| is_removed(&folder, *n)).count();
            if removed >= NAMES {
                fs::write(self.sandbox.base().join(ENOUGH), "").unwrap();
            }
            assert!(Instant::now() < end, "{removed} removed, {rounds} sweeps");
            let ran = self.sweep(root);
            // 1: the root was missing. 3: something failed or was unknown.
            let code = ran.code().expect("an exit code");
            assert!([0, 1, 3].contains(&code), "{ran:?}");
        }
        self.check_victims(attack_name);
        // The watcher still works, and has judged all files that it found before the end of the attack.
        let last = self.sandbox.base().join(root).join("the-last.4194304.tmp");
        fs::write(&last, "").unwrap();
        self.sandbox.chown_to_user(&last);
        watching.wait_for(sandbox::is("reaped", "the-last.4194304.tmp"));
        self.check_victims(attack_name);
        let stopped = watching.stop();
        assert!(matches!(stopped.status.code(), Some(0 | 3)), "{stopped:#?}");
    }

    /// Creates an orphan of orphand's own user, whose claim the attacker can reach. Each has a name of its own, because
    /// a claim that the attacker replaced by a symlink or by a hard link gets its name back and stays.
    fn leak(&self, root: &OwnedFd, n: usize) {
        let make = |name: String, content: &str| {
            let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::EXCL | OFlags::NOFOLLOW;
            let flags = flags | OFlags::CLOEXEC;
            let file = rustix::fs::openat(root, name, flags, Mode::RUSR | Mode::WUSR).unwrap();
            let owner = self.sandbox.user().map(rustix::process::Uid::from_raw);
            rustix::fs::fchown(&file, owner, None).unwrap();
            rustix::io::write(&file, content.as_bytes()).unwrap();
        };
        make(own_target(n), "whole, to the last byte of it");
        make(own_temp(n), "an orphan");
    }

    #[track_caller]
    fn check_victims(&self, what: &str) {
        let now = snapshot(&self.sandbox.base().join("victims"));
        for (now, before) in now.iter().zip(&self.before) {
            assert_eq!(now, before, "outside the root, by {what}");
        }
        assert_eq!(now.len(), self.before.len(), "outside the root, by {what}");
    }
}

/// Returns all files below `dir`, and `dir` itself, with content and metadata.
fn snapshot(dir: &Path) -> Vec<String> {
    let mut all = Vec::new();
    let mut todo = vec![dir.to_owned()];
    while let Some(path) = todo.pop() {
        let meta = path.symlink_metadata().unwrap();
        let mut content = String::new();
        if meta.is_dir() {
            todo.extend(
                fs::read_dir(&path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
        } else {
            content = fs::read_to_string(&path).unwrap();
        }
        let (mtime, ctime) = (
            (meta.mtime(), meta.mtime_nsec()),
            (meta.ctime(), meta.ctime_nsec()),
        );
        let numbers = (
            meta.ino(),
            meta.mode(),
            meta.uid(),
            meta.nlink(),
            meta.len(),
        );
        all.push(format!(
            "{path:?} {numbers:?} {mtime:?} {ctime:?} {content}"
        ));
    }
    all.sort();
    all
}

/// A process of another user. It is killed when this value is dropped.
struct AttackProcess(Child);

impl AttackProcess {
    /// Reports whether the process still runs. It must end by itself, with success.
    fn is_running(&mut self) -> bool {
        match self.0.try_wait().unwrap() {
            None => true,
            Some(status) => {
                let mut stderr = String::new();
                let _ = self
                    .0
                    .stderr
                    .take()
                    .map(|mut from| from.read_to_string(&mut stderr));
                assert!(status.success(), "{status}: {stderr}");
                false
            }
        }
    }
}

impl Drop for AttackProcess {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The number of names that each attack uses.
const NAMES: usize = 12;

fn temp(n: usize) -> String {
    format!("t{n}.tmp")
}

fn target(n: usize) -> String {
    format!("t{n}")
}

/// The names of an orphan of orphand's own user, and of its target.
fn own_temp(n: usize) -> String {
    format!("own{n}.tmp")
}

fn own_target(n: usize) -> String {
    format!("own{n}")
}

/// Reports whether nothing has the name of the orphan any more.
fn is_removed(root: &OwnedFd, n: usize) -> bool {
    let found = rustix::fs::statat(root, own_temp(n), AtFlags::SYMLINK_NOFOLLOW);
    found.is_err_and(|error| error == Errno::NOENT)
}

/// The directories of an attack.
struct AttackDirs {
    root: PathBuf,
    victims: PathBuf,
    attacker_dir: PathBuf,
}

/// One attack, which is repeated. The number selects one of the names. If the system refuses a call, the attack stops
/// early.
type AttackStep = fn(&AttackDirs, usize) -> Option<()>;

/// The attacks inside a root, all at the same time. They use the root and separate folders in it.
const INSIDE: &[AttackStep] = &[
    replace_temp_by_symlink,
    replace_temp_by_fifo,
    replace_temp_by_file,
    replace_temp_by_hard_link,
    replace_parent_by_symlink,
    move_parent_out_and_back,
    create_quarantine_first,
    replace_claims,
    create_and_remove_target,
    create_misleading_name,
];

/// The code of the attacker's process: the tests start it as a separate process. As a test of its own it does nothing.
#[test]
fn the_attacker() {
    let (Some(base), Ok(attack_name)) = (std::env::var_os(BASE_VAR), std::env::var(ATTACK_VAR))
    else {
        return;
    };
    let base = PathBuf::from(base);
    let dirs = AttackDirs {
        root: base.join("root"),
        victims: base.join("victims"),
        attacker_dir: base.join("attacker"),
    };
    // Independent of the grace: each name is changed sometimes before and sometimes after its verdict.
    let pause =
        |attack: usize, round: usize| Duration::from_millis(((round * 7 + attack * 5) % 19) as u64);
    let continues = |rounds: &usize, least: usize| *rounds < least || !base.join(ENOUGH).exists();
    match attack_name.as_str() {
        "inside" => std::thread::scope(|scope| {
            for (number, attack) in INSIDE.iter().enumerate() {
                let (dirs, continues) = (&dirs, &continues);
                scope.spawn(move || {
                    for round in (0..).take_while(|round| continues(round, 200)) {
                        let _ = attack(dirs, (round * 5) % NAMES);
                        std::thread::sleep(pause(number, round));
                    }
                });
            }
        }),
        "above" => {
            for round in (0..).take_while(|round| continues(round, 12)) {
                let _ = replace_ancestor_by_symlink(&dirs);
                // Alternates between a pause that is too short for any work and one that is long enough.
                let settled = round % 2 * 250;
                std::thread::sleep(3 * pause(1, round) + Duration::from_millis(settled as u64));
            }
        }
        other => panic!("{other}"),
    }
}

fn put(path: &Path, content: &str) -> Option<()> {
    fs::write(path, content).ok()
}

/// Creates the file at `path` by a rename, as a writer does.
fn create_by_rename(dirs: &AttackDirs, path: &Path) -> Option<()> {
    let other = dirs
        .attacker_dir
        .join(format!("new-{:?}", std::thread::current().id()));
    put(&other, "of another user")?;
    fs::rename(other, path).ok()
}

fn replace_temp_by_symlink(dirs: &AttackDirs, n: usize) -> Option<()> {
    let path = dirs.root.join(temp(n));
    let link = dirs.attacker_dir.join("link");
    symlink(dirs.victims.join(temp(n)), &link).ok()?;
    fs::rename(&link, &path).ok()?;
    std::thread::sleep(Duration::from_millis(n as u64 / 4));
    create_by_rename(dirs, &path)
}

fn replace_temp_by_fifo(dirs: &AttackDirs, n: usize) -> Option<()> {
    let path = dirs.root.join(format!("fifo{n}.tmp"));
    let fifo = dirs.attacker_dir.join("fifo");
    sandbox::fifo(&fifo);
    fs::rename(&fifo, &path).ok()?;
    create_by_rename(dirs, &path)
}

fn replace_temp_by_file(dirs: &AttackDirs, n: usize) -> Option<()> {
    create_by_rename(dirs, &dirs.root.join(format!("f{n}.tmp")))?;
    put(
        &dirs.root.join(format!("f{n}")),
        "whole, to the last byte of it",
    )
}

fn replace_temp_by_hard_link(dirs: &AttackDirs, n: usize) -> Option<()> {
    let own = dirs.attacker_dir.join("own");
    put(&own, "linked from the root")?;
    let path = dirs.root.join(format!("linked{n}.tmp"));
    let _ = fs::remove_file(&path);
    // The system may refuse a link to another user's file; then the attacker links its own file.
    let victim = dirs.victims.join("passwd");
    fs::hard_link(victim, &path)
        .or_else(|_| fs::hard_link(&own, &path))
        .ok()
}

fn replace_parent_by_symlink(dirs: &AttackDirs, n: usize) -> Option<()> {
    let dir = dirs.root.join(format!("d{}", n % 3));
    let away = dirs.attacker_dir.join(format!("d{}", n % 3));
    let _ = fs::create_dir(&dir);
    put(&dir.join(temp(n)), "of another user");
    put(&dir.join(target(n)), "whole, to the last byte of it");
    fs::rename(&dir, &away).ok()?;
    symlink(&dirs.victims, &dir).ok()?;
    std::thread::sleep(Duration::from_millis(n as u64));
    fs::remove_file(&dir).ok()?;
    fs::rename(away, dir).ok()
}

fn move_parent_out_and_back(dirs: &AttackDirs, n: usize) -> Option<()> {
    let dir = dirs.root.join(format!("out{}", n % 3));
    let away = dirs.attacker_dir.join(format!("out{}", n % 3));
    let _ = fs::create_dir(&dir);
    put(&dir.join(temp(n)), "of another user");
    put(&dir.join(target(n)), "whole, to the last byte of it");
    std::thread::sleep(Duration::from_millis(n as u64 * 3));
    fs::rename(&dir, &away).ok()?;
    fs::rename(away, dir).ok()
}

fn create_quarantine_first(dirs: &AttackDirs, n: usize) -> Option<()> {
    let quarantine = dirs.root.join(".orphand");
    let sole = format!("{n}-sole-{}.tmp", crate::sandbox::live_pid());
    put(&dirs.root.join(sole), "the only copy");
    let _ = fs::rename(&quarantine, dirs.root.join(format!("taken-{n}")));
    let _ = fs::remove_file(&quarantine);
    let _ = fs::remove_dir(&quarantine);
    match n % 4 {
        0 => symlink(&dirs.victims, &quarantine).ok(),
        1 => fs::create_dir(&quarantine).ok(),
        2 => put(&quarantine, "a file"),
        _ => None,
    }
}

fn replace_claims(dirs: &AttackDirs, n: usize) -> Option<()> {
    for _ in 0..8 {
        for entry in fs::read_dir(&dirs.root).ok()?.flatten() {
            let (name, path) = (entry.file_name(), entry.path());
            if !name.as_bytes().starts_with(b".orphand-") {
                continue;
            }
            let _ = match n % 4 {
                0 => fs::rename(&path, dirs.attacker_dir.join("stolen")),
                1 => fs::remove_file(&path)
                    .and_then(|()| symlink(dirs.victims.join("passwd"), &path)),
                2 => fs::remove_file(&path)
                    .and_then(|()| fs::hard_link(dirs.attacker_dir.join("own"), &path)),
                _ => fs::write(&path, "of another user"),
            };
        }
    }
    // A claim that no crash has left.
    let claim = format!(".orphand-0123456789abcdef-{}", temp(n));
    put(&dirs.root.join(claim), "no claim")
}

fn create_and_remove_target(dirs: &AttackDirs, n: usize) -> Option<()> {
    let (target, temp) = (format!("g{n}"), format!("g{n}.tmp"));
    put(&dirs.root.join(temp), "of another user")?;
    match n % 2 {
        0 => put(&dirs.root.join(target), "whole, to the last byte of it"),
        _ => fs::remove_file(dirs.root.join(target)).ok(),
    }
}

fn create_misleading_name(dirs: &AttackDirs, n: usize) -> Option<()> {
    let names: [&[u8]; NAMES] = [
        b"--help.tmp",
        b"-rf.tmp",
        b"-n.tmp",
        b"--.tmp",
        b"..tmp",
        b"...tmp",
        b"$(touch victims).tmp",
        b";reboot;.tmp",
        b"a\nreaped b.tmp",
        b"\x1b[2J\x1b]0;x\x07.tmp",
        b"\xff\xfe.tmp",
        b"..\\..\\victims\\passwd.tmp",
    ];
    put(&dirs.root.join(std::ffi::OsStr::from_bytes(names[n])), "")
}

/// The watched root is `attacker/parent/root`, and the attacker owns `attacker`.
fn replace_ancestor_by_symlink(dirs: &AttackDirs) -> Option<()> {
    let (parent, away) = (
        dirs.attacker_dir.join("parent"),
        dirs.attacker_dir.join("away"),
    );
    fs::rename(&parent, &away).ok()?;
    symlink(&dirs.victims, &parent).ok()?;
    // Long enough for a watcher to attach the root again and judge its files.
    std::thread::sleep(Duration::from_millis(250));
    fs::remove_file(&parent).ok()?;
    fs::rename(&away, &parent).ok()
}

#[test]
fn attacks_inside_the_root_change_nothing_outside() {
    AttackFixture::each(|fixture| {
        fixture.run_during("inside", "root");
    });
}

/// The path of the root leads through a directory of another user.
#[test]
fn attacks_above_the_root_change_nothing_outside() {
    AttackFixture::each(|fixture| {
        let root = fixture.sandbox.base().join("attacker/parent/root");
        fs::create_dir_all(&root).unwrap();
        fixture.sandbox.chown_to_user(&root);
        for n in 0..NAMES {
            for (name, content) in [
                (temp(n), "an orphan"),
                (target(n), "whole, to the last byte of it"),
            ] {
                fs::write(root.join(&name), content).unwrap();
                fixture.sandbox.chown_to_user(&root.join(&name));
            }
        }
        let parent = fixture.sandbox.base().join("attacker/parent");
        std::os::unix::fs::lchown(parent, Some(fixture.attacker), Some(fixture.attacker)).unwrap();
        fixture.run_during("above", "attacker/parent/root");
    });
}

/// In a sticky directory, a user may create names but not touch files of others. Such a user must not be able to have a
/// temp of another user destroyed by creating its target.
#[test]
fn another_users_target_does_not_count() {
    if !is_root() {
        return eprintln!("skipped: changing the user needs root");
    }
    for attacker in ATTACKERS {
        let sandbox = match attacker {
            NOBODY => Sandbox::new(),
            _ => Sandbox::ordinary(),
        };
        let sandbox = sandbox
            .file("sole.tmp", "the only copy")
            .file("sole", "not by its writer");
        let sandbox = sandbox
            .file("by-root.tmp", "x")
            .file("by-root", "whole, to the last byte of it");
        sandbox.age(GRACE + GRACE / 2);
        let whose = |name: &str, uid| {
            std::os::unix::fs::lchown(sandbox.path(name), Some(uid), Some(uid)).unwrap();
        };
        whose("sole", attacker);
        whose("by-root", 0);
        let events = sandbox.sweep(SHORT).exit(0).events();
        assert_eq!(events.about("sole.tmp"), ["quarantined"]);
        assert_eq!(events.about("by-root.tmp"), ["reaped"]);
    }
}

/// Root's orphand may run in the environment of another user, with or without `sudo`. Its state files are not written
/// to a file with a second hard link, and not through a symlink.
#[test]
fn planted_state_files_are_not_written() {
    type Plant = fn(&Path, &Path);
    let plants: [(&str, Plant); 3] = [
        ("a symlink", |at, victim| symlink(victim, at).unwrap()),
        ("another name", |at, victim| {
            fs::hard_link(victim, at).unwrap()
        }),
        ("a fifo", |at, _| sandbox::fifo(at)),
    ];
    for (what, plant) in plants {
        let sandbox = Sandbox::new()
            .file("a.4194304.tmp", "")
            .file("sole.tmp", "the only copy");
        let victim = sandbox.base().join("victim");
        fs::write(&victim, "precious").unwrap();
        let meta = fs::metadata(sandbox.root()).unwrap();
        let lock = format!(
            "runtime/orphand/root-{:x}-{:x}.lock",
            meta.dev(),
            meta.ino()
        );
        for file in [
            "state/orphand/journal.jsonl",
            "state/orphand/restored",
            &lock,
        ] {
            let at = sandbox.base().join(file);
            fs::create_dir_all(at.parent().unwrap()).unwrap();
            plant(&at, &victim);
        }
        sandbox.age(GRACE + GRACE / 2);
        let ran = sandbox
            .sweep(SHORT)
            .exit(0)
            .stderr_has("cannot write the journal");
        assert_eq!(ran.events().sums(), [1, 1, 0, 0], "{what}");
        sandbox
            .run(["restore", "--to", "{base}/root/back", "root/sole.tmp"])
            .exit(0);
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious", "{what}");
        assert_eq!(sandbox.content("back"), "the only copy", "{what}");
    }
}

/// Before each step of the protocol, the attacker makes a name lead outside the root.
#[test]
fn a_replacement_at_any_step_is_not_followed() {
    type Act = fn(&Fixture, &Path);
    let acts: [(&str, Act); 9] = [
        ("a symlink", |fixture, victim| {
            symlink(victim, fixture.outside.join("other")).unwrap();
            let _ = fs::rename(fixture.outside.join("other"), &fixture.temp);
        }),
        ("another name of a file elsewhere", |fixture, victim| {
            fs::hard_link(victim, fixture.outside.join("other")).unwrap();
            let _ = fs::rename(fixture.outside.join("other"), &fixture.temp);
        }),
        ("a fifo", |fixture, _| {
            sandbox::fifo(&fixture.outside.join("other"));
            let _ = fs::rename(fixture.outside.join("other"), &fixture.temp);
        }),
        ("a directory", |fixture, _| {
            let _ = fs::remove_file(&fixture.temp);
            let _ = fs::create_dir(&fixture.temp);
        }),
        ("its directory is a symlink", |fixture, victim| {
            fs::rename(&fixture.dir, fixture.outside.join("moved")).unwrap();
            symlink(victim.parent().unwrap(), &fixture.dir).unwrap();
        }),
        ("its root is a symlink", |fixture, victim| {
            fs::rename(&fixture.root.path, fixture.outside.join("moved")).unwrap();
            symlink(victim.ancestors().nth(2).unwrap(), &fixture.root.path).unwrap();
        }),
        ("the quarantine is a symlink", |fixture, victim| {
            let _ = fs::rename(fixture.quarantine(), fixture.outside.join("moved"));
            symlink(victim.parent().unwrap(), fixture.quarantine()).unwrap();
        }),
        ("its claim is a symlink", |fixture, victim| {
            for claim in claims(fixture) {
                fs::remove_file(&claim).unwrap();
                symlink(victim, claim).unwrap();
            }
        }),
        (
            "its claim is another name of a file elsewhere",
            |fixture, victim| {
                for claim in claims(fixture) {
                    fs::remove_file(&claim).unwrap();
                    fs::hard_link(victim, claim).unwrap();
                }
            },
        ),
    ];
    in_own_process(fixture::ALL_USERS, || {
        for (what, act) in acts {
            for step in Step::ALL {
                for sole in [false, true] {
                    let what = format!("{what}, before {step:?}, sole copy: {sole}");
                    let fixture = match sole {
                        false => Fixture::new(),
                        true => Fixture::new().with_sole_copy(),
                    };
                    // A replaced directory or root would lead to these files, which have the same names.
                    let victims = fixture.outside.join("victims").join(SUBDIR);
                    fs::create_dir_all(&victims).unwrap();
                    for name in [TEMP, "sessions.json"] {
                        fs::write(victims.join(name), "not in this root").unwrap();
                    }
                    let victim = victims.join(TEMP);
                    let ino = fs::metadata(&victim).unwrap().ino();
                    let there = Fixture::at(fixture.home().to_owned());
                    let at_step = AtStep::new(step, move || act(&there, &victim));
                    let outcome = fixture.reap(at_step.hook);
                    let victim = victims.join(TEMP);
                    let left = fs::symlink_metadata(&victim).map(|meta| (meta.ino(), meta.mode()));
                    assert_eq!(left.ok(), Some((ino, 0o100_644)), "{what}: {outcome:?}");
                    let content = fs::read_to_string(&victim).unwrap();
                    assert_eq!(content, "not in this root", "{what}: {outcome:?}");
                    let names = fs::read_dir(&victims).unwrap().count();
                    assert_eq!(names, 2, "{what}: {outcome:?}");
                }
            }
        }
    });
}

fn claims(fixture: &Fixture) -> Vec<PathBuf> {
    let entries = fs::read_dir(&fixture.dir).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    let is_claim = |path: &PathBuf| {
        path.file_name()
            .unwrap()
            .as_bytes()
            .starts_with(b".orphand-")
    };
    paths.filter(is_claim).collect()
}

/// A user may create this many names, few of them temps.
#[test]
fn two_hundred_thousand_entries_are_swept() {
    const ENTRIES: usize = 200_000;
    let sandbox = Sandbox::in_memory();
    let mut temps = 0;
    for n in 0..ENTRIES {
        if n % 200 == 0 {
            temps += 1;
            sandbox.write(format!("f.{n:08x}-2fa1-11d2-883f-0016d3cca427.tmp"), "");
            continue;
        }
        // Hard links to few files: this is much faster, and a file can have at most 65,000 of them.
        let file = sandbox.path(format!("file-{}", n / 50_000));
        let made = fs::hard_link(&file, sandbox.path(n.to_string()));
        made.unwrap_or_else(|_| _ = File::create(file).unwrap());
    }
    let entries = || fs::read_dir(sandbox.root()).unwrap().count();
    let before = entries();
    assert!(before >= ENTRIES - 10, "{before}");
    sandbox.age(GRACE + GRACE / 2);
    let ran = sandbox.sweep(SHORT).exit(0);
    assert_eq!(ran.events().sums(), [temps, 0, 0, 0]);
    assert_eq!(
        fs::read_dir(sandbox.root()).unwrap().count(),
        ENTRIES - temps as usize
    );
}

/// A user may create a tree this deep. Temps whose path is too long for the system are reported as unreachable, and all
/// temps above them are processed.
#[test]
fn six_thousand_levels_are_reported() {
    const LEVELS: usize = 6_000;
    let sandbox = Sandbox::ordinary();
    deep(&sandbox, LEVELS, &[0, 1_000, 1_900, LEVELS]);
    std::thread::sleep(GRACE + GRACE / 2);
    let started = Instant::now();
    let ran = sandbox.sweep(SHORT).exit(3);
    assert_eq!(ran.events().sums()[..3], [3, 0, 0], "{}", ran.stderr);
    let mut watching = sandbox.watch(SHORT).ready();
    watching.wait_for_sentinel(&sandbox);
    watching.stop().exit(3);
    println!("{LEVELS} levels: {:?}", started.elapsed());
    remove_deep(&sandbox);
}

/// Creates a chain of directories below the root, with a temp at each of these levels.
pub(crate) fn deep(sandbox: &Sandbox, levels: usize, temps: &[usize]) {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let open = |at: &OwnedFd| rustix::fs::openat(at, "d", flags, Mode::empty()).unwrap();
    let owner = sandbox.user().map(rustix::process::Uid::from_raw);
    let give = |at: &OwnedFd, name: &str| {
        rustix::fs::chownat(at, name, owner, None, rustix::fs::AtFlags::empty()).unwrap();
    };
    let mut at = rustix::fs::open(sandbox.root(), flags, Mode::empty()).unwrap();
    for level in 0..=levels {
        if temps.contains(&level) {
            let write = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
            let mode = Mode::RUSR | Mode::WUSR;
            let create = || rustix::fs::openat(&at, "a.4194304.tmp", write, mode).map(drop);
            without_starts(create).unwrap();
            give(&at, "a.4194304.tmp");
        }
        rustix::fs::mkdirat(&at, "d", Mode::RWXU).unwrap();
        give(&at, "d");
        at = open(&at);
    }
}

/// Removes such a chain, for which the standard library needs too much stack and too many descriptors.
pub(crate) fn remove_deep(sandbox: &Sandbox) {
    let done = Command::new("rm")
        .arg("-rf")
        .arg(sandbox.path("d"))
        .run_to_end()
        .unwrap();
    assert!(done.success());
}

/// With this few descriptors, batches are smaller; nothing else changes.
#[test]
fn sixty_four_descriptors_are_enough() {
    Sandbox::for_each_user(|sandbox| {
        let sandbox = sandbox
            .with_descriptor_limit(64)
            .file("whole", "whole, to the last byte of it");
        let fill = || {
            for n in 0..300 {
                let uuid = format!("{n:08x}-2fa1-11d2-883f-0016d3cca427");
                sandbox.write(format!("whole.{uuid}.tmp"), "an orphan");
                sandbox.write(
                    format!("{}/{}/empty.{}.tmp", n % 7, n % 5, 4_194_304 - n),
                    "",
                );
                if n % 3 == 0 {
                    sandbox.write(format!("sole.{uuid}.tmp"), "the only copy");
                }
            }
        };
        fill();
        sandbox.age(GRACE + GRACE / 2);
        let ran = sandbox.sweep(SHORT).exit(0);
        assert_eq!(ran.events().sums(), [600, 100, 0, 0], "{}", ran.stderr);
        let mut watching = sandbox.watch(SHORT).ready();
        fill();
        watching.wait_for_nth(600, |event| event["event"] == "reaped");
        watching.wait_for_nth(100, |event| event["event"] == "quarantined");
        let stopped = watching.stop().exit(0);
        // On a slow machine a temp may be looked at while it is being written. It is then kept for a grace.
        let [reaped, quarantined, _, failed] = stopped.events.sums();
        let sums = (reaped, quarantined, failed);
        assert_eq!(sums, (600, 100, 0), "{}", stopped.stderr);
        let kept = stopped.events.of("kept");
        let is_held = |event: &&serde_json::Value| event["reason"] == "in-use";
        assert!(kept.iter().all(is_held), "{kept:?}");
    });
}

/// A watcher that has ended leaves nothing: no thread, no descriptor, no lock.
#[test]
fn a_dropped_watcher_leaves_nothing_open() {
    in_own_process(&[fixture::RunAs::CurrentUser], || {
        let fixture = Fixture::new();
        let size = || {
            let count = |what: &str| fs::read_dir(what).map_or(0, Iterator::count);
            (count("/proc/self/fd"), count("/proc/self/task"))
        };
        let before = size();
        let started = Instant::now();
        for round in 0..200 {
            fs::write(&fixture.temp, TEMP_CONTENT).unwrap();
            let watcher = Watcher::builder()
                .roots(vec![fixture.root.clone()])
                .start()
                .unwrap();
            // Stopped at once, when ready, and after a removal.
            let until: Option<fn(&Event) -> bool> = match round % 20 {
                0 => Some(|event| matches!(event, Event::Reaped(_))),
                n if n % 2 == 0 => Some(|event| matches!(event, Event::Ready { .. })),
                _ => None,
            };
            let end = Instant::now() + TIMEOUT;
            while until.is_some_and(|until| !until(&watcher.events().recv_deadline(end).unwrap())) {
            }
            drop(watcher);
            // A separate thread frees its resources a moment later.
            wait_until(&format!("{before:?} is open, not {:?}", size()), || {
                size() == before
            });
            fixture.assert_no_leftovers("");
        }
        fixture.assert_only_at(TARGET_CONTENT, &fixture.target, "");
        println!("200 times: {:?}", started.elapsed());
    });
}
