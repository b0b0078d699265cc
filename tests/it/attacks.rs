//! Attacks by another user of the directory, while orphand runs as root or as the owner.
//!
//! Whatever somebody who may write to a root does there, nothing outside of it changes, and orphand
//! neither hangs nor falls. Inside the root they can destroy what the system lets them destroy by
//! themselves; orphand must not do more for them.

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use orphand::daemon::Watcher;
use orphand::event::Event;
use orphand::reap::Step;
use rustix::fs::{Mode, OFlags};

use crate::fixture::{
    self, AtStep, Fixture, GRACE, SUBDIR, TARGET_CONTENT, TEMP, TEMP_CONTENT, TIMEOUT,
    in_own_process, wait_until,
};
use crate::sandbox::{self, CommandResult, NOBODY, Sandbox, StartChild, is_root};

/// Who attacks an orphand of root's, and who attacks one of that user's.
const ATTACKERS: [u32; 2] = [NOBODY, NOBODY - 1];

const SHORT: [&str; 3] = ["-r", "--grace", "100ms"];

/// Set in the attacker's process: where it plays, and what.
const ARENA: &str = "ORPHAND_TEST_ARENA";
const PLAY: &str = "ORPHAND_TEST_PLAY";

/// Made in the arena when enough was removed: the attacker need not go on.
const ENOUGH: &str = "enough";

/// A root that somebody else may write to, and what lies beside it.
struct Arena {
    sandbox: Sandbox,
    attacker: u32,
    /// What no attack may change, with everything a change would show in.
    before: Vec<String>,
}

impl Arena {
    /// `mode` is that of the root. The victims belong to orphand's user, and have the very names
    /// that the attacks use, so that whoever is led astray finds something to destroy.
    fn new(sandbox: Sandbox, attacker: u32, mode: u32) -> Arena {
        let at = |name: &str| sandbox.base().join(name);
        fs::set_permissions(sandbox.root(), fs::Permissions::from_mode(mode)).unwrap();
        fs::set_permissions(sandbox.base(), fs::Permissions::from_mode(0o755)).unwrap();
        for dir in [
            "victims",
            "victims/root",
            "victims/q0000000",
            "victims/q1111111",
            "theirs",
            "other-locks",
        ] {
            fs::create_dir(at(dir)).unwrap();
            sandbox.chown_to_user(&at(dir));
        }
        let theirs = at("theirs");
        std::os::unix::fs::lchown(&theirs, Some(attacker), Some(attacker)).unwrap();
        for dir in ["victims", "victims/root", "victims/q1111111"] {
            let names = (0..NAMES).flat_map(|n| [temp(n), target(n)]);
            for name in names.chain(["sole.tmp".into(), "passwd".into()]) {
                let file = at(dir).join(name);
                fs::write(&file, "not in this root").unwrap();
                sandbox.chown_to_user(&file);
            }
        }
        let before = sealed(&at("victims"));
        Arena {
            sandbox,
            attacker,
            before,
        }
    }

    /// The same for root and for an ordinary user, in a directory open to all and in a sticky one.
    fn each(test: impl Fn(&Arena)) {
        if !is_root() {
            return eprintln!("skipped: to be somebody else needs root");
        }
        for mode in [0o777, 0o1777] {
            for attacker in ATTACKERS {
                let sandbox = match attacker {
                    NOBODY => Sandbox::new(),
                    _ => Sandbox::ordinary(),
                };
                test(&Arena::new(sandbox, attacker, mode));
            }
        }
    }

    fn attack(&self, play: &str) -> Attack {
        let mut command = fixture::test_command("attacks::the_attacker");
        command.env(ARENA, self.sandbox.base()).env(PLAY, play);
        command.uid(self.attacker).gid(self.attacker);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        Attack(command.start_child().unwrap())
    }

    /// A sweep beside a watcher: with a folder for locks of its own, so that nothing tells the two
    /// of each other.
    fn sweep(&self, root: &str) -> CommandResult {
        // Others may write to it: that is what is tried.
        let args = ["sweep", "--yes", "--json", "--allow-broad-root"];
        let args = args.iter().chain(&SHORT);
        let mut command = self.sandbox.command(args.chain([&root]));
        command.env("XDG_RUNTIME_DIR", self.sandbox.base().join("other-locks"));
        self.sandbox.finish(command)
    }

    /// Watches `root` and sweeps it for as long as `play` lasts: until orphans that were made
    /// meanwhile have been removed meanwhile, however slow the machine is. Otherwise nobody was at
    /// work, and nothing was attacked.
    fn under(&self, play: &str, root: &str) {
        let args = SHORT.iter().chain([&"--allow-broad-root", &root]);
        let mut watching = self.sandbox.watch_dirs(args).ready();
        let folder = self.sandbox.base().join(root);
        let folder = rustix::fs::open(folder, OFlags::PATH | OFlags::DIRECTORY, Mode::empty());
        let folder = folder.unwrap();
        let mut attack = self.attack(play);
        let end = Instant::now() + 5 * sandbox::DEADLINE;
        let (mut leaked, mut rounds) = (0, 0);
        while attack.lasts() {
            // A name is there once, so that all but the last of each have been removed.
            leaked += usize::from(self.leak(&folder, rounds % NAMES));
            rounds += 1;
            let removed = leaked.saturating_sub(NAMES);
            if removed >= NAMES {
                fs::write(self.sandbox.base().join(ENOUGH), "").unwrap();
            }
            assert!(Instant::now() < end, "{removed} removed, {rounds} sweeps");
            let ran = self.sweep(root);
            // 1: the root was away. 3: something could not be done, or told.
            let code = ran.code().expect("ended by itself");
            assert!([0, 1, 3].contains(&code), "{ran:?}");
        }
        self.is_unharmed(play);
        // Still at work, and whatever was found before the end of the attack has been judged.
        let last = self.sandbox.base().join(root).join("the-last.4194304.tmp");
        fs::write(&last, "").unwrap();
        self.sandbox.chown_to_user(&last);
        watching.wait_for(sandbox::is("reaped", "the-last.4194304.tmp"));
        self.is_unharmed(play);
        let stopped = watching.stop();
        assert!(matches!(stopped.status.code(), Some(0 | 3)), "{stopped:#?}");
    }

    /// An orphan of orphand's own user, whose claim the attacker meets: whether there was none of
    /// this number.
    fn leak(&self, root: &OwnedFd, n: usize) -> bool {
        let make = |name: String, content: &str| {
            let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::EXCL | OFlags::NOFOLLOW;
            let Ok(file) = rustix::fs::openat(root, name, flags, Mode::RUSR | Mode::WUSR) else {
                return false;
            };
            let owner = self.sandbox.user().map(rustix::process::Uid::from_raw);
            rustix::fs::fchown(&file, owner, None).unwrap();
            rustix::io::write(&file, content.as_bytes()).unwrap();
            true
        };
        make(format!("own{n}"), "whole, to the last byte of it");
        make(format!("own{n}.tmp"), "an orphan")
    }

    #[track_caller]
    fn is_unharmed(&self, what: &str) {
        let now = sealed(&self.sandbox.base().join("victims"));
        for (now, before) in now.iter().zip(&self.before) {
            assert_eq!(now, before, "outside of the root, by {what}");
        }
        assert_eq!(
            now.len(),
            self.before.len(),
            "outside of the root, by {what}"
        );
    }
}

/// Everything below `dir`, itself included, with its content and all that a change shows in.
fn sealed(dir: &Path) -> Vec<String> {
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

/// A process of somebody else's. It is killed with the test.
struct Attack(Child);

impl Attack {
    /// Whether it goes on. It ends by itself, and well.
    fn lasts(&mut self) -> bool {
        match self.0.try_wait().unwrap() {
            None => true,
            Some(status) => {
                let mut says = String::new();
                let _ = self
                    .0
                    .stderr
                    .take()
                    .map(|mut from| from.read_to_string(&mut says));
                assert!(status.success(), "{status}: {says}");
                false
            }
        }
    }
}

impl Drop for Attack {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// How many names each stunt plays with.
const NAMES: usize = 12;

fn temp(n: usize) -> String {
    format!("t{n}.tmp")
}

fn target(n: usize) -> String {
    format!("t{n}")
}

/// Where an attacker plays.
struct DirContext {
    root: PathBuf,
    victims: PathBuf,
    theirs: PathBuf,
}

/// One thing that an attacker does again and again; the number says with which of the names. What
/// the system does not let it do, it does not do.
type Play = fn(&DirContext, usize) -> Option<()>;

/// What is done inside a root, all of it at once. Each has a folder of its own, and the root.
const INSIDE: &[Play] = &[
    a_link_for_a_name,
    a_fifo_for_a_name,
    another_file_for_a_name,
    another_name_for_a_file,
    a_link_for_a_parent,
    a_parent_goes_out,
    a_quarantine_before_ours,
    claims_are_stolen,
    targets_come_and_go,
    names_that_look_like_something,
];

/// The attacker's part: not a test, but the process that the tests start. Alone it does nothing.
#[test]
fn the_attacker() {
    let (Some(base), Ok(play)) = (std::env::var_os(ARENA), std::env::var(PLAY)) else {
        return;
    };
    let base = PathBuf::from(base);
    let dir_context = DirContext {
        root: base.join("root"),
        victims: base.join("victims"),
        theirs: base.join("theirs"),
    };
    // Not in step with the grace: each name is touched now before, now after it would be judged.
    let pause =
        |play: usize, round: usize| Duration::from_millis(((round * 7 + play * 5) % 19) as u64);
    let lasts = |rounds: &usize, least: usize| *rounds < least || !base.join(ENOUGH).exists();
    match play.as_str() {
        "inside" => std::thread::scope(|scope| {
            for (number, play) in INSIDE.iter().enumerate() {
                let (dir_context, lasts) = (&dir_context, &lasts);
                scope.spawn(move || {
                    for round in (0..).take_while(|round| lasts(round, 200)) {
                        let _ = play(dir_context, (round * 5) % NAMES);
                        std::thread::sleep(pause(number, round));
                    }
                });
            }
        }),
        "above" => {
            for round in (0..).take_while(|round| lasts(round, 12)) {
                let _ = a_link_above_the_root(&dir_context);
                // Too short for anything to be done, and long enough for it.
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

/// The file at `path`, made in no other way than a writer would.
fn anew(dir_context: &DirContext, path: &Path) -> Option<()> {
    let other = dir_context
        .theirs
        .join(format!("new-{:?}", std::thread::current().id()));
    put(&other, "of somebody else's")?;
    fs::rename(other, path).ok()
}

fn a_link_for_a_name(dir_context: &DirContext, n: usize) -> Option<()> {
    let path = dir_context.root.join(temp(n));
    let link = dir_context.theirs.join("link");
    symlink(dir_context.victims.join(temp(n)), &link).ok()?;
    fs::rename(&link, &path).ok()?;
    std::thread::sleep(Duration::from_millis(n as u64 / 4));
    anew(dir_context, &path)
}

fn a_fifo_for_a_name(dir_context: &DirContext, n: usize) -> Option<()> {
    let path = dir_context.root.join(format!("fifo{n}.tmp"));
    let fifo = dir_context.theirs.join("fifo");
    sandbox::fifo(&fifo);
    fs::rename(&fifo, &path).ok()?;
    anew(dir_context, &path)
}

fn another_file_for_a_name(dir_context: &DirContext, n: usize) -> Option<()> {
    anew(dir_context, &dir_context.root.join(format!("f{n}.tmp")))?;
    put(
        &dir_context.root.join(format!("f{n}")),
        "whole, to the last byte of it",
    )
}

fn another_name_for_a_file(dir_context: &DirContext, n: usize) -> Option<()> {
    let own = dir_context.theirs.join("own");
    put(&own, "linked from the root")?;
    let path = dir_context.root.join(format!("linked{n}.tmp"));
    let _ = fs::remove_file(&path);
    // The system may not let it link what is not its own; then it links its own.
    let victim = dir_context.victims.join("passwd");
    fs::hard_link(victim, &path)
        .or_else(|_| fs::hard_link(&own, &path))
        .ok()
}

fn a_link_for_a_parent(dir_context: &DirContext, n: usize) -> Option<()> {
    let dir = dir_context.root.join(format!("d{}", n % 3));
    let away = dir_context.theirs.join(format!("d{}", n % 3));
    let _ = fs::create_dir(&dir);
    put(&dir.join(temp(n)), "of somebody else's");
    put(&dir.join(target(n)), "whole, to the last byte of it");
    fs::rename(&dir, &away).ok()?;
    symlink(&dir_context.victims, &dir).ok()?;
    std::thread::sleep(Duration::from_millis(n as u64));
    fs::remove_file(&dir).ok()?;
    fs::rename(away, dir).ok()
}

fn a_parent_goes_out(dir_context: &DirContext, n: usize) -> Option<()> {
    let dir = dir_context.root.join(format!("out{}", n % 3));
    let away = dir_context.theirs.join(format!("out{}", n % 3));
    let _ = fs::create_dir(&dir);
    put(&dir.join(temp(n)), "of somebody else's");
    put(&dir.join(target(n)), "whole, to the last byte of it");
    std::thread::sleep(Duration::from_millis(n as u64 * 3));
    fs::rename(&dir, &away).ok()?;
    fs::rename(away, dir).ok()
}

fn a_quarantine_before_ours(dir_context: &DirContext, n: usize) -> Option<()> {
    let room = dir_context.root.join(".orphand");
    let sole = format!("{n}-sole-{}.tmp", std::process::id());
    put(&dir_context.root.join(sole), "the only copy");
    let _ = fs::rename(&room, dir_context.root.join(format!("taken-{n}")));
    let _ = fs::remove_file(&room);
    let _ = fs::remove_dir(&room);
    match n % 4 {
        0 => symlink(&dir_context.victims, &room).ok(),
        1 => fs::create_dir(&room).ok(),
        2 => put(&room, "a file"),
        _ => None,
    }
}

fn claims_are_stolen(dir_context: &DirContext, n: usize) -> Option<()> {
    for _ in 0..8 {
        for entry in fs::read_dir(&dir_context.root).ok()?.flatten() {
            let (name, path) = (entry.file_name(), entry.path());
            if !name.as_bytes().starts_with(b".orphand-") {
                continue;
            }
            let _ = match n % 4 {
                0 => fs::rename(&path, dir_context.theirs.join("stolen")),
                1 => fs::remove_file(&path)
                    .and_then(|()| symlink(dir_context.victims.join("passwd"), &path)),
                2 => fs::remove_file(&path)
                    .and_then(|()| fs::hard_link(dir_context.theirs.join("own"), &path)),
                _ => fs::write(&path, "of somebody else's"),
            };
        }
    }
    // And one that no crash has left.
    let claim = format!(".orphand-0123456789abcdef-{}", temp(n));
    put(&dir_context.root.join(claim), "no claim")
}

fn targets_come_and_go(dir_context: &DirContext, n: usize) -> Option<()> {
    let (target, temp) = (format!("g{n}"), format!("g{n}.tmp"));
    put(&dir_context.root.join(temp), "of somebody else's")?;
    match n % 2 {
        0 => put(
            &dir_context.root.join(target),
            "whole, to the last byte of it",
        ),
        _ => fs::remove_file(dir_context.root.join(target)).ok(),
    }
}

fn names_that_look_like_something(dir_context: &DirContext, n: usize) -> Option<()> {
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
    put(
        &dir_context.root.join(std::ffi::OsStr::from_bytes(names[n])),
        "",
    )
}

/// `theirs/way/root` is watched; the attacker owns `theirs`.
fn a_link_above_the_root(dir_context: &DirContext) -> Option<()> {
    let (way, away) = (
        dir_context.theirs.join("way"),
        dir_context.theirs.join("away"),
    );
    fs::rename(&way, &away).ok()?;
    symlink(&dir_context.victims, &way).ok()?;
    // Long enough for a watcher to come back to it and to judge.
    std::thread::sleep(Duration::from_millis(250));
    fs::remove_file(&way).ok()?;
    fs::rename(&away, &way).ok()
}

#[test]
fn inside_the_root() {
    Arena::each(|arena| {
        arena.under("inside", "root");
    });
}

/// The way to the root leads through a directory of somebody else's.
#[test]
fn above_the_root() {
    Arena::each(|arena| {
        let root = arena.sandbox.base().join("theirs/way/root");
        fs::create_dir_all(&root).unwrap();
        arena.sandbox.chown_to_user(&root);
        for n in 0..NAMES {
            for (name, content) in [
                (temp(n), "an orphan"),
                (target(n), "whole, to the last byte of it"),
            ] {
                fs::write(root.join(&name), content).unwrap();
                arena.sandbox.chown_to_user(&root.join(&name));
            }
        }
        let way = arena.sandbox.base().join("theirs/way");
        std::os::unix::fs::lchown(way, Some(arena.attacker), Some(arena.attacker)).unwrap();
        arena.under("above", "theirs/way/root");
    });
}

/// Whoever may make names in a directory, but may not touch what is another's (it is sticky), must
/// not be able to have that destroyed by a target of their own making.
#[test]
fn a_target_of_somebody_elses() {
    if !is_root() {
        return eprintln!("skipped: to be somebody else needs root");
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

/// Root's orphand may be started in somebody else's environment, `sudo` or not. What it keeps there
/// is written to no file of another name, and through no symlink.
#[test]
fn a_state_folder_of_somebody_elses() {
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
        let ran = sandbox.sweep(SHORT).exit(0).stderr_has("cannot be");
        assert_eq!(ran.events().sums(), [1, 1, 0, 0], "{what}");
        sandbox
            .run(["restore", "--to", "{base}/root/back", "root/sole.tmp"])
            .exit(0);
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious", "{what}");
        assert_eq!(sandbox.content("back"), "the only copy", "{what}");
    }
}

/// Before each step of the protocol, with something outside of the root at the other end.
#[test]
fn a_temp_replaced_in_every_window() {
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
                    // Where a swapped directory or root would lead to: the very same names.
                    let victims = fixture.outside.join("victims").join(SUBDIR);
                    fs::create_dir_all(&victims).unwrap();
                    for name in [TEMP, "sessions.json"] {
                        fs::write(victims.join(name), "not in this root").unwrap();
                    }
                    let victim = victims.join(TEMP);
                    let ino = fs::metadata(&victim).unwrap().ino();
                    let there = Fixture::at(fixture.home().to_owned());
                    let stunt = AtStep::new(step, move || act(&there, &victim));
                    let outcome = fixture.reap(stunt.hook);
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

/// As many names as somebody cares to make, few of them temps.
#[test]
fn two_hundred_thousand_entries() {
    const ENTRIES: usize = 200_000;
    let sandbox = Sandbox::ordinary();
    let mut temps = 0;
    for n in 0..ENTRIES {
        if n % 200 == 0 {
            temps += 1;
            sandbox.write(format!("f.{n:08x}-2fa1-11d2-883f-0016d3cca427.tmp"), "");
            continue;
        }
        // Names, and few files: that is much faster, and a file has no more than 65,000 of them.
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

/// As deep as somebody cares to make it: what has no path that the system takes is said to be out
/// of reach, and everything above it is dealt with.
#[test]
fn six_thousand_levels() {
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
    clear(&sandbox);
}

/// A chain of directories below the root, with a temp at each of these levels.
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
            let (write, mode) = (OFlags::CREATE | OFlags::WRONLY, Mode::RUSR | Mode::WUSR);
            rustix::fs::openat(&at, "a.4194304.tmp", write, mode).unwrap();
            give(&at, "a.4194304.tmp");
        }
        rustix::fs::mkdirat(&at, "d", Mode::RWXU).unwrap();
        give(&at, "d");
        at = open(&at);
    }
}

/// What the standard library would take too deep a stack for, and too many descriptors.
pub(crate) fn clear(sandbox: &Sandbox) {
    let done = Command::new("rm")
        .arg("-rf")
        .arg(sandbox.path("d"))
        .run_to_end()
        .unwrap();
    assert!(done.success());
}

/// With as few descriptors as somebody may have set: batches are smaller, nothing else changes.
#[test]
fn sixty_four_descriptors() {
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
        // On a slow machine one may be looked at while it is being written, and is kept for a grace.
        let [reaped, quarantined, _, failed] = stopped.events.sums();
        let sums = (reaped, quarantined, failed);
        assert_eq!(sums, (600, 100, 0), "{}", stopped.stderr);
        let kept = stopped.events.of("kept");
        let is_held = |event: &&serde_json::Value| event["reason"] == "in-use";
        assert!(kept.iter().all(is_held), "{kept:?}");
    });
}

/// Nothing is left of a watcher that has ended: no thread, no descriptor, no lock.
#[test]
fn started_and_stopped_two_hundred_times() {
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
                .root(&fixture.root.path, Fixture::policy())
                .allow_broad_roots(true)
                .start()
                .unwrap();
            // At once, after it stands, and after it has done something.
            let until: Option<fn(&Event) -> bool> = match round % 20 {
                0 => Some(|event| matches!(event, Event::Reaped(_))),
                n if n % 2 == 0 => Some(|event| matches!(event, Event::Ready { .. })),
                _ => None,
            };
            let end = Instant::now() + TIMEOUT;
            while until.is_some_and(|until| !until(&watcher.events().recv_deadline(end).unwrap())) {
            }
            drop(watcher);
            // What is freed in a thread of its own is freed in a moment.
            wait_until(&format!("{before:?} is open, not {:?}", size()), || {
                size() == before
            });
            fixture.assert_no_leftovers("");
        }
        fixture.assert_only_at(TARGET_CONTENT, &fixture.target, "");
        println!("200 times: {:?}", started.elapsed());
    });
}
