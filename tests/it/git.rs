//! git is killed before each of its renames, so that each of its temps is left behind once. Removing them loses
//! nothing.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::fixture::report_skipped;
use crate::intercept::{self, Call, CallResponse, PendingCall};
use crate::killed_programs::is_clearly_random;
use crate::sandbox::Sandbox;

const SWEEP: [&str; 5] = ["-r", "--grace", "100ms", "--writer", "git-info"];

/// Returns a git command for the repository `root`. It renames objects instead of linking them.
fn git(sandbox: &Sandbox, args: &[&str]) -> Command {
    let mut command = sandbox.program("git");
    command.current_dir(sandbox.root());
    command.envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
    command.args([
        "-c",
        "core.createObject=rename",
        "-c",
        "user.name=a",
        "-c",
        "user.email=a@b.c",
    ]);
    command
        .args(["-c", "safe.directory=*", "-c", "gc.auto=0"])
        .args(args);
    command
}

fn has_git() -> bool {
    let version = Command::new("git").arg("--version").output();
    version.is_ok_and(|output| output.status.success())
}

/// Creates a repository with two commits.
fn repository() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.finish(git(&sandbox, &["init", "-q"])).exit(0);
    for n in 0..2 {
        sandbox.write("file", format!("{n} {}", "content ".repeat(n * 100)));
        sandbox.finish(git(&sandbox, &["add", "file"])).exit(0);
        sandbox
            .finish(git(&sandbox, &["commit", "-q", "-m", "a commit"]))
            .exit(0);
    }
    sandbox
}

/// Runs git, and kills the process that makes the `last`-th rename of an object. Returns the name that was to be
/// renamed, if there was such a rename.
fn kill_at(sandbox: &Sandbox, args: &[&str], last: usize) -> Option<String> {
    let killed_at: Arc<Mutex<Option<String>>> = Arc::default();
    let shared = Arc::clone(&killed_at);
    let renames = AtomicUsize::new(0);
    let mut command = git(sandbox, args);
    intercept::process(&mut command, move |asked: &PendingCall| {
        let path = asked.path();
        let is_folder = |part: &OsStr| part == "objects" || part == "info";
        let is_object = path.components().any(|part| is_folder(part.as_os_str()));
        if asked.call != Call::Rename
            || !is_object
            || renames.fetch_add(1, Ordering::SeqCst) + 1 != last
        {
            return CallResponse::Allow;
        }
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        *shared.lock().unwrap() = Some(name);
        CallResponse::Kill
    });
    sandbox.finish(command);
    killed_at.lock().unwrap().take()
}

/// Does this in a new repository, again and again until the names of all temps are clearly random. Others are not taken.
fn killed(args: &[&str], last: usize) -> Option<(Sandbox, String)> {
    loop {
        let sandbox = repository();
        sandbox.write("new", "a new object");
        let name = kill_at(&sandbox, args, last)?;
        let files = sandbox.snapshot();
        let mut temps = files.iter().filter(|file| is_temp(file));
        let is_clear = |name: &str| {
            let random = name.rsplit_once('_');
            random.is_none_or(|(_, random)| is_clearly_random(random))
        };
        if temps.all(|temp| is_clear(&name_of(temp))) {
            return Some((sandbox, name));
        }
    }
}

/// Returns the name without its random part.
fn kind(name: &str) -> String {
    let name = name.split_once("-pack-").map_or(name, |(_, end)| end);
    match name.rsplit_once(['_', '.']) {
        Some((start, _)) if name.contains('_') => start.to_owned(),
        Some((_, ending)) => ending.to_owned(),
        None => name.to_owned(),
    }
}

#[test]
fn temps_of_a_killed_git_are_removed_and_nothing_is_lost() {
    if !intercept::is_possible() {
        return report_skipped("seccomp");
    }
    if !has_git() {
        return report_skipped("git");
    }
    let mut kinds = BTreeSet::new();
    for args in [
        &["repack", "-a", "-d", "-b", "-q"][..],
        &["hash-object", "-w", "new"],
    ] {
        for last in 1.. {
            let Some((sandbox, name)) = killed(args, last) else {
                break;
            };
            kinds.insert(kind(&name));
            assert!(last < 40, "{name}");
            std::thread::sleep(Duration::from_millis(120));
            let events = sandbox.sweep(SWEEP).exit(0).events();
            let mut done: Vec<&str> = events.names("reaped");
            // A name that may be a word is moved.
            done.extend(events.names("quarantined"));
            assert!(done.contains(&&*name), "{name}: {done:?}");
            assert_eq!(events.names("kept"), [""; 0], "{name}");
            let files = sandbox.snapshot();
            let left: Vec<&String> = files.iter().filter(|file| is_temp(file)).collect();
            assert!(left.is_empty(), "{name}: {left:?}");
            sandbox
                .finish(git(&sandbox, &["fsck", "--full", "--strict"]))
                .exit(0);
            let again = sandbox.finish(git(&sandbox, &["repack", "-a", "-d", "-b", "-q"]));
            again.exit(0);
            let log = sandbox.finish(git(&sandbox, &["log", "--oneline"])).exit(0);
            assert_eq!(log.stdout.lines().count(), 2, "{name}");
        }
    }
    for known in [
        "tmp_obj",
        "tmp_pack",
        "tmp_idx",
        "tmp_bitmap",
        "pack",
        "idx",
    ] {
        assert!(kinds.contains(known), "{known} is not in {kinds:?}");
    }
}

/// Returns the base name in a line of a snapshot.
fn name_of(line: &str) -> String {
    let path = line
        .trim_start_matches('"')
        .split('"')
        .next()
        .unwrap_or_default();
    let name = Path::new(path).file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

/// Reports whether a line of a snapshot is a temp of git outside of the quarantine.
fn is_temp(line: &str) -> bool {
    let name = name_of(line);
    !line.contains(".orphand")
        && ["tmp_", ".tmp-", "refs_", "packs_"]
            .iter()
            .any(|start| name.starts_with(start))
}
