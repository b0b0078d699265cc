//! Nothing is taken while a process uses the file that `unless_open` names.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use orphand::core::event::Event;
use orphand::core::judge::{Reason, Verdict};
use orphand::core::policy::{Graces, Policy};
use orphand::reap::{Hook, Outcome, Reaper, Step};

use crate::fixture::*;
use crate::holders::{HoldKind, Holding};
use crate::sandbox::{self, Sandbox, is, kept};

const GUARD: &str = "LOCK";

fn guarded_by(path: impl Into<PathBuf>) -> Policy {
    Policy {
        unless_open: Some(path.into()),
        ..Fixture::policy()
    }
}

/// Returns a fixture with the guard file `LOCK` beside the temp.
fn guarded() -> Fixture {
    let fixture = Fixture::new().with_policy(guarded_by(GUARD));
    fs::write(guard(&fixture), "pid 4711").unwrap();
    fixture
}

fn guard(fixture: &Fixture) -> PathBuf {
    fixture.dir.join(GUARD)
}

#[track_caller]
fn check_kept(fixture: &Fixture, want: Reason, what: &str) {
    let event = fixture.judge(TEMP);
    let Event::Kept {
        reason, details, ..
    } = &event
    else {
        panic!("{what}: {event:?}");
    };
    assert_eq!(*reason, want, "{what}");
    assert_eq!(details.guard, fixture.root.policy.unless_open, "{what}");
    fixture.assert_only_at(TEMP_CONTENT, &fixture.temp, what);
}

#[track_caller]
fn check_reaped(fixture: &Fixture, what: &str) {
    let event = fixture.judge(TEMP);
    assert!(matches!(event, Event::Reaped(_)), "{what}: {event:?}");
}

/// Whether the program has its guard file open, mapped or locked. The temp itself is closed.
#[test]
fn a_program_that_uses_the_guard_file_keeps_all_temps() {
    in_own_process(ALL_USERS, || {
        for how in HoldKind::ALL {
            let fixture = guarded();
            let holding = Holding::new(*how, &guard(&fixture));
            // Neither of these has the file open.
            let is_free = matches!(how, HoldKind::Path | HoldKind::Directory);
            if !is_free {
                check_kept(&fixture, Reason::InUse, &format!("{how:?}"));
            }
            drop(holding);
            check_reaped(&fixture, &format!("{how:?}, released"));
        }
        // The holder of the guard file is named.
        let fixture = guarded();
        let holding = Holding::new(HoldKind::Posix, &guard(&fixture));
        match fixture.judge(TEMP) {
            Event::Kept { holders, .. } => {
                let pids: Vec<u32> = holders.iter().map(|holder| holder.pid).collect();
                assert_eq!(pids, [holding.pid]);
            }
            event => panic!("{event:?}"),
        }
    });
}

/// Returns the path of the guard file for a fixture.
type Make = fn(&Fixture) -> PathBuf;

/// Absolute paths, and paths relative to the directory of the temp.
#[test]
fn the_path_of_a_guard_file_may_be_absolute_or_relative() {
    in_own_process(ALL_USERS, || {
        let paths: [(&str, Make); 4] = [
            ("LOCK", |_| "LOCK".into()),
            ("../state/LOCK", |_| "../state/LOCK".into()),
            ("absolute", |fixture| fixture.outside.join(GUARD)),
            // A directory on the way may be a symlink of our own or of root.
            ("absolute", |fixture| {
                let link = fixture.home().join("link");
                if !link.exists() {
                    symlink(&fixture.outside, &link).unwrap();
                }
                link.join(GUARD)
            }),
        ];
        for (what, path) in paths {
            let fixture = Fixture::new();
            fs::create_dir(fixture.dir.join("../state")).unwrap();
            let path = path(&fixture);
            let fixture = fixture.with_policy(guarded_by(&path));
            let file = fixture.dir.join(&path);
            fs::write(&file, "").unwrap();
            let holding = Holding::new(HoldKind::Write, &file);
            check_kept(&fixture, Reason::InUse, what);
            drop(holding);
            check_reaped(&fixture, what);
            // A file that is missing is not open, as long as its directory exists.
            fs::remove_file(&file).unwrap();
            fs::write(&fixture.temp, TEMP_CONTENT).unwrap();
            check_reaped(&fixture, &format!("{what}, missing"));
        }
    });
}

#[test]
fn a_guard_file_of_which_nothing_can_be_told_keeps_all_temps() {
    in_own_process(ALL_USERS, || {
        let rows: [(&str, Make); 9] = [
            ("its directory is missing", |_| "no-such-dir/LOCK".into()),
            ("its directory is missing", |fixture| {
                fixture.outside.join("no-such-dir/LOCK")
            }),
            ("its directory is a file", |_| {
                format!("{TARGET}/LOCK").into()
            }),
            ("its directory is a symlink", |fixture| {
                fs::create_dir(fixture.outside.join("dir")).unwrap();
                symlink(fixture.outside.join("dir"), fixture.dir.join("dir")).unwrap();
                "dir/LOCK".into()
            }),
            ("a symlink", |fixture| {
                let file = fixture.outside.join("unused");
                fs::write(&file, "").unwrap();
                symlink(file, fixture.dir.join("link")).unwrap();
                "link".into()
            }),
            ("a dangling symlink, which is a lock by itself", |fixture| {
                symlink("host-4711", fixture.dir.join("SingletonLock")).unwrap();
                "SingletonLock".into()
            }),
            ("a FIFO", |fixture| {
                sandbox::fifo(&fixture.dir.join("fifo"));
                "fifo".into()
            }),
            ("a directory", |fixture| {
                fs::create_dir(fixture.dir.join("dir")).unwrap();
                "dir".into()
            }),
            ("on a file system without a proof", |_| {
                "/proc/version".into()
            }),
        ];
        for (what, make) in rows {
            let fixture = Fixture::new();
            let path = make(&fixture);
            let fixture = fixture.with_policy(guarded_by(path));
            check_kept(&fixture, Reason::CannotTell, what);
        }
        // A missing file tells nothing, either, where another machine may just have created it.
        let fixture = Fixture::new().with_policy(guarded_by("/proc/no-such-file"));
        check_kept(&fixture, Reason::CannotTell, "missing on proc");
    });
}

/// The kernel grants a lease only to the owner of a file and to root.
#[test]
fn a_guard_file_of_another_user_keeps_all_temps() {
    if !sandbox::is_root() {
        return report_skipped("changing the owner of a file needs root");
    }
    let sandbox = Sandbox::ordinary()
        .file("a", "whole, to the last byte of it")
        .file("a.tmp", "half")
        .file(GUARD, "");
    std::os::unix::fs::lchown(sandbox.path(GUARD), Some(0), Some(0)).unwrap();
    let options = configure(&sandbox, GUARD);
    sandbox.age(Duration::from_millis(150));
    let sweep = |code| {
        let ran = sandbox.sweep(&options).exit(code);
        ran.events().about("a.tmp")
    };
    assert_eq!(sweep(3), ["kept cannot-tell"]);
    // A lock in the table of the kernel proves the use.
    let file = File::open(sandbox.path(GUARD)).unwrap();
    rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive).unwrap();
    assert_eq!(sweep(0), ["kept in-use"]);
    drop(file);
    sandbox.chown_to_user(&sandbox.path(GUARD));
    assert_eq!(sweep(0), ["reaped"]);
}

/// Writes a rule for the root of the sandbox, and returns the options for it.
fn configure(sandbox: &Sandbox, guard: &str) -> [String; 4] {
    let config = sandbox.base().join("guard.toml");
    let root = sandbox.root();
    let text = format!(
        "[[watch]]\npath = {root:?}\ngrace = '100ms'\nunless_open = '{guard}'\nopen = 'reap'\n"
    );
    fs::write(&config, text).unwrap();
    let config = config.to_str().unwrap().to_owned();
    ["--config".into(), config, "--grace".into(), "100ms".into()]
}

/// A program that starts at any moment keeps the temp, or no longer finds its name.
#[test]
fn a_program_that_starts_during_the_removal_gets_its_temp_back() {
    in_own_process(ALL_USERS, || {
        for (step, exists, has_target) in Step::ALL.into_iter().flat_map(|step| {
            [(true, true), (true, false), (false, true)]
                .map(|(exists, target)| (step, exists, target))
        }) {
            let fixture = match has_target {
                true => guarded(),
                false => guarded().with_sole_copy(),
            };
            let path = guard(&fixture);
            if !exists {
                fs::remove_file(&path).unwrap();
            }
            let program: Arc<Mutex<Option<(File, bool)>>> = Arc::default();
            let (started, temp) = (Arc::clone(&program), fixture.temp.clone());
            let at_step = AtStep::new(step, move || {
                let file = File::options()
                    .write(true)
                    .create(true)
                    .truncate(false)
                    .open(path);
                *started.lock().unwrap() = Some((file.unwrap(), temp.exists()));
            });
            let outcome = fixture.reap_by(&Reaper::new().with_hook(Some(at_step.hook.clone())));
            let what = format!("{step:?} {exists} {has_target}");
            let found = program.lock().unwrap().as_ref().map(|(_, found)| *found);
            match (&outcome, step) {
                (Outcome::Reaped { .. } | Outcome::Quarantined { .. }, Step::Unlink) => {
                    assert_eq!(found, Some(false), "{what}: it found the name");
                }
                (Outcome::Kept(Reason::InUse), _) => {
                    fixture.assert_only_at(TEMP_CONTENT, &fixture.temp, &what);
                }
                _ => panic!("{what}: {outcome:?}"),
            }
            fixture.assert_no_leftovers(&what);
        }
    });
}

/// All temps of a batch are claimed before the last check, so one check is enough for them.
#[test]
fn the_guard_file_is_checked_once_for_a_batch() {
    in_own_process(ALL_USERS, || {
        let fixture = guarded();
        let names: Vec<String> = (0..20).map(|n| format!("{TARGET}.{n}.tmp")).collect();
        for name in &names {
            fs::copy(&fixture.temp, fixture.dir.join(name)).unwrap();
        }
        let candidates = || {
            let each = names.iter();
            each.map(|name| {
                fixture.candidate_named(name, Verdict::Quarantine(Some(Reason::SoleCopy)))
            })
            .collect()
        };
        for name in &names {
            _ = fs::remove_file(fixture.dir.join(name.trim_end_matches(".tmp")));
        }
        let opens = count_opens(&guard(&fixture));
        let outcomes = fixture.reap_batch(&Reaper::new(), candidates());
        let is_moved = |outcome: &Outcome| matches!(outcome, Outcome::Quarantined { .. });
        assert!(outcomes.iter().all(is_moved), "{outcomes:?}");
        // Once before the first verdict, and once after the claims.
        assert_eq!(opens(), 2);
    });
}

/// Returns a function that returns the number of times that `file` has been opened from now on.
fn count_opens(file: &Path) -> impl Fn() -> usize + use<> {
    use rustix::fs::inotify;
    let flags = inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC;
    let watch = inotify::init(flags).unwrap();
    // Without the closes between them, the kernel would merge the opens.
    let flags = inotify::WatchFlags::OPEN | inotify::WatchFlags::CLOSE;
    inotify::add_watch(&watch, file, flags).unwrap();
    move || {
        let mut buffer = [std::mem::MaybeUninit::uninit(); 65_536];
        let mut events = inotify::Reader::new(&watch, &mut buffer);
        let mut count = 0;
        while let Ok(event) = events.next() {
            count += usize::from(event.events().contains(inotify::ReadFlags::OPEN));
        }
        count
    }
}

/// Every temp of a batch is put back, also those whose other checks have passed.
#[test]
fn a_program_that_starts_after_the_claims_gets_the_whole_batch_back() {
    in_own_process(ALL_USERS, || {
        let fixture = guarded();
        let names: Vec<String> = (0..5)
            .map(|n| TEMP.replace("4f1c2d3e", &format!("0000000{n}")))
            .collect();
        for name in &names {
            fs::copy(&fixture.temp, fixture.dir.join(name)).unwrap();
        }
        let path = guard(&fixture);
        let program = Mutex::new(None);
        let hook = Hook::new(move |step, _| {
            if step == Step::Wait {
                *program.lock().unwrap() = Some(File::open(&path).unwrap());
            }
        });
        let each = names.iter();
        let batch = each.map(|name| fixture.candidate_named(name, Verdict::Reap));
        let outcomes = fixture.reap_batch(&Reaper::new().with_hook(Some(hook)), batch.collect());
        for (name, outcome) in names.iter().zip(&outcomes) {
            assert!(
                matches!(outcome, Outcome::Kept(Reason::InUse)),
                "{name}: {outcome:?}"
            );
            assert!(fixture.dir.join(name).exists(), "{name}");
        }
        fixture.assert_no_leftovers("");
    });
}

/// The check itself is no use of the file: neither by two threads nor by the same one.
#[test]
fn checks_at_the_same_time_do_not_find_each_other() {
    in_own_process(ALL_USERS, || {
        let fixture = guarded();
        let path = guard(&fixture);
        let others: Vec<Fixture> = (0..4)
            .map(|_| Fixture::new().with_policy(guarded_by(&path)))
            .collect();
        std::thread::scope(|scope| {
            for other in &others {
                scope.spawn(|| {
                    for _ in 0..20 {
                        fs::write(&other.temp, TEMP_CONTENT).unwrap();
                        check_reaped(other, "at the same time");
                    }
                });
            }
        });
    });
}

#[test]
fn all_commands_respect_the_guard_file() {
    Sandbox::for_each_user(|sandbox| {
        let sandbox = sandbox
            .file("a", "whole, to the last byte of it")
            .file("a.tmp", "half")
            .file("b.tmp", "the only copy")
            .file(GUARD, "");
        sandbox.age(Duration::from_millis(150));
        let options = configure(&sandbox, GUARD);
        let program = Holding::new(HoldKind::Flock, &sandbox.path(GUARD));
        let scan = sandbox.scan(&options).exit(0).stdout_json();
        for temp in scan["temps"].as_array().unwrap() {
            assert_eq!(
                (&temp["verdict"], &temp["reason"]),
                (&"keep".into(), &"in-use".into())
            );
        }
        let explain = |more: &[&str]| {
            let words = ["explain"]
                .into_iter()
                .chain(options.iter().map(String::as_str));
            sandbox.run(words.chain(more.iter().copied()))
        };
        let explained = explain(&["root/a.tmp"]).exit(0);
        let explained = explained
            .stdout_has("unless_open file unused")
            .stdout_has("a process has \"LOCK\" open or locked");
        explained.stdout_has("keep: in-use (the unless_open file \"LOCK\" is open");
        let gates = explain(&["--json", "root/a.tmp"]).exit(0).stdout_json();
        let gates = gates["temps"][0]["gates"].as_array().unwrap();
        let failed: Vec<_> = gates
            .iter()
            .filter(|gate| gate["passes"] == false)
            .collect();
        assert_eq!(failed.len(), 1, "{failed:?}");
        assert_eq!(failed[0]["gate"], "unless_open file unused");
        for dry_run in [&["-n".to_owned()][..], &[]] {
            let events = sandbox
                .sweep(options.iter().chain(dry_run))
                .exit(0)
                .events();
            for temp in ["a.tmp", "b.tmp"] {
                assert_eq!(events.about(temp), ["kept in-use"], "{dry_run:?}");
            }
        }
        // The watcher removes them as soon as the program has ended.
        let config = &options[..2];
        let command = ["watch", "--json"]
            .into_iter()
            .chain(config.iter().map(String::as_str));
        let mut watching = sandbox::WatchProcess::start(sandbox.command(command)).ready();
        let event = watching.wait_for(kept("a.tmp", "in-use"));
        // An ordinary user does not see the processes of root.
        if sandbox.user().is_none() {
            assert_eq!(event["holders"][0]["pid"], program.pid, "{event}");
        }
        drop(program);
        watching.wait_for(is("reaped", "a.tmp"));
        watching.wait_for(is("quarantined", "b.tmp"));
        watching.stop().exit(0);
    });
}

/// The guard file of a writer is for its temps alone.
#[test]
fn a_writer_may_have_a_guard_file() {
    let sandbox = Sandbox::new()
        .file("CURRENT", "MANIFEST-000002, to the last byte of it")
        .file("000002.dbtmp", "MANIFEST-000002")
        .file("a", "whole, to the last byte of it")
        .file("a.tmp", "half")
        .file(GUARD, "")
        .aged(Duration::from_millis(150));
    let config = sandbox.base().join("guard.toml");
    let root = sandbox.root();
    let text = format!(
        "[[writer]]\nname = 'db'\npatterns = ['<n>.dbtmp']\nunless_open = '{GUARD}'\n\
         [[watch]]\npath = {root:?}\nwriters = ['db']\n"
    );
    fs::write(&config, text).unwrap();
    let options = ["--config", config.to_str().unwrap(), "--grace", "100ms"];
    let program = Holding::new(HoldKind::Posix, &sandbox.path(GUARD));
    let events = sandbox.sweep(options).exit(0).events();
    assert_eq!(events.about("000002.dbtmp"), ["kept in-use"]);
    assert_eq!(events.about("a.tmp"), ["reaped"]);
    drop(program);
    let events = sandbox.sweep(options).exit(0).events();
    assert_eq!(events.about("000002.dbtmp"), ["quarantined"]);
}

/// The shortest grace does not matter, nor the number of temps.
#[test]
fn a_sweep_checks_the_guard_file_once_for_many_temps() {
    in_own_process(&[RunAs::CurrentUser], || {
        const TEMPS: usize = 1_000;
        let fixture = guarded();
        let policy = Policy {
            grace: Graces::both(GRACE),
            ..guarded_by(GUARD)
        };
        let fixture = fixture.with_policy(policy);
        for n in 0..TEMPS {
            let name = TEMP.replace("4f1c2d3e", &format!("{n:08x}"));
            fs::write(fixture.dir.join(name), "").unwrap();
        }
        let opens = count_opens(&guard(&fixture));
        let events = fixture.sweep();
        let reaped = events
            .iter()
            .filter(|event| matches!(event, Event::Reaped(_)));
        assert_eq!(reaped.count(), TEMPS + 1);
        let opens = opens();
        assert!((2..=TEMPS / 20).contains(&opens), "{opens} checks");
        println!("{opens} checks of the guard file for {TEMPS} temps");
    });
}

/// The guard file of each writer that may have written a temp counts: if another writer's pattern reads the name first, if
/// a longer target makes the name doubtful, and if the random part looks like a word.
#[test]
fn the_guard_file_of_each_possible_writer_counts() {
    let uuid = "1b4e28ba-2fa1-4d3b-a3f5-ef19b5a7633b";
    let other = "0f8fad5b-d9cb-469f-a165-70867728950e";
    let longer = format!("x.{uuid}.tmp");
    for (patterns, temp, beside) in [
        (
            ["<t>.dbtmp", "<t>.<digits:6>.dbtmp"],
            "x.000005.dbtmp",
            "x.000005".to_owned(),
        ),
        (
            ["<t>.first-<n>", "<t>.<uuid>.tmp"],
            longer.as_str(),
            format!("x.{other}"),
        ),
        (
            ["<t>.first-<n>", "<t>.<[a-z0-9_]:8>.tmp"],
            "x.abcdefgh.tmp",
            "x.abcdefgh".to_owned(),
        ),
    ] {
        let [first, second] = patterns;
        let config = format!(
            "[[writer]]\nname = \"first\"\npatterns = [\"{first}\"]\n[[writer]]\nname = \"second\"\n\
             patterns = [\"{second}\"]\nunless_open = \"LOCK\"\n\
             [defaults]\ngrace = \"100ms\"\nwriters = [\"first\", \"second\"]\n"
        );
        let sandbox = Sandbox::new().file("../c.toml", config);
        let longest = temp.trim_end_matches(".tmp").trim_end_matches(".dbtmp");
        let sandbox = sandbox.file("x", "whole and long").file(temp, "half");
        let sandbox = sandbox
            .file(longest, "whole too, and long")
            .file(&beside, "a sibling");
        sandbox.write("LOCK", "");
        sandbox.age(Duration::from_secs(1));
        let held = File::open(sandbox.path("LOCK")).unwrap();
        let sweep = || sandbox.sweep(["--config", "c.toml"]).exit(0).events();
        assert_eq!(sweep().about(temp), ["kept in-use"], "{temp}");
        drop(held);
        assert_eq!(sweep().about(temp), ["reaped"], "{temp}");
    }
}
