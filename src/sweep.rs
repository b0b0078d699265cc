//! One pass over what is there: look, wait a moment, look again, act, end.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::clock;
use crate::decide::judge::Reason;
use crate::decide::policy::confirm;
use crate::decide::time::ClockWatch;
use crate::decide::tracker::{Origin, Tracked};
use crate::event::{Event, Subject};
use crate::evidence::Asker;
use crate::look::{RootError, RootId};
use crate::pass::{self, Due, Ground, Pass, Tools};
use crate::reap;
use crate::reap::quarantine::Room;
use crate::root::Root;
use crate::scan::{self, Met};

/// Sweeps `root`: takes what is older than its grace, and does not wait for what is younger.
///
/// `tell` is called with what happens, and says whether it could be told: what cannot is not done,
/// and the sweep ends. `progress` is called now and then with how many temps were looked at
/// and how many there are.
pub fn sweep(
    root: &Root,
    tools: &Tools,
    tell: &mut dyn FnMut(Event) -> bool,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<(), RootError> {
    let asker = Asker::new();
    let mut clocks = ClockWatch::default();
    clocks.read(clock::now());
    // What stands at the root's path may be swapped while this goes on.
    let id = Some(RootId::of(&root.path)?);
    if !root.policy.is_dry_run() {
        put_in_order(root, id, tools, &asker, &mut |event| _ = tell(event))?;
    }
    let mut denied = |path: &Path, error: &std::io::Error| {
        tell(Event::Failed {
            subject: Subject {
                path: path.to_owned(),
                root: root.path.clone(),
                bytes: None,
            },
            error: format!("cannot read this directory: {error}"),
            errno: error.raw_os_error(),
        });
    };
    let found = scan::temps(root, &mut denied, &|count| progress(0, count))?;
    let total = found.iter().map(|(_, names)| names.len()).sum();
    let mut dirs: Vec<(PathBuf, Vec<Due>)> = Vec::with_capacity(found.len());
    for (below, names) in found {
        let now = clock::mono();
        let temp = || Some(Tracked::found(now, Origin::Found));
        let due = |name| Due { name, temp: temp() };
        dirs.push((below, names.into_iter().map(due).collect()));
    }
    let listening = Cell::new(true);
    let mut tell = |event| {
        let told = tell(event);
        listening.set(listening.get() && told);
    };
    let mut tell = |event| match event {
        // Nobody looks again.
        Event::Kept {
            subject,
            reason,
            holders,
            again,
            ..
        } => tell(Event::Kept {
            subject,
            reason,
            holders,
            retry: None,
            again,
        }),
        event => tell(event),
    };
    for look in [Looking::First, Looking::Again] {
        if look == Looking::Again {
            wait_for(&dirs, root);
        }
        let mut done = 0;
        for (below, due) in &mut dirs {
            let ground = Ground { root, id, below };
            for part in due.chunks_mut(reap::BATCH) {
                if !listening.get() {
                    return Ok(());
                }
                Pass::new(tools, ground, &asker, &mut tell).run(&mut clocks, part);
                done += part.len();
                progress(done, total);
            }
            due.retain(|one| one.temp.is_some());
        }
    }
    for (below, due) in &dirs {
        for one in due
            .iter()
            .filter(|one| one.temp.as_ref().is_some_and(|t| !t.is_kept()))
        {
            let path = root.path.join(below).join(&one.name);
            let bytes = one.temp.as_ref().and_then(Tracked::bytes);
            let root = root.path.clone();
            tell(Event::Kept {
                subject: Subject { path, root, bytes },
                reason: Reason::Young,
                holders: Vec::new(),
                retry: None,
                again: false,
            });
        }
    }
    Ok(())
}

#[derive(PartialEq, Eq, Clone, Copy)]
enum Looking {
    First,
    Again,
}

/// Sleeps until the second look is due for everything that it can be due for.
fn wait_for(dirs: &[(PathBuf, Vec<Due>)], root: &Root) {
    let longest = root.policy.grace.random.max(root.policy.grace.fixed);
    let now = clock::mono();
    let soon = now.after(confirm(longest));
    let temps = dirs
        .iter()
        .flat_map(|(_, due)| due)
        .filter_map(|one| one.temp.as_ref());
    let last = temps.map(Tracked::due).filter(|due| *due <= soon).max();
    if let Some(last) = last {
        // A millisecond more, because a sleep may end a little early by another clock.
        std::thread::sleep(last.since(now) + Duration::from_millis(1));
    }
}

/// Gives the claims that a crash left their names back.
fn put_in_order(
    root: &Root,
    id: Option<RootId>,
    tools: &Tools,
    asker: &Asker,
    tell: &mut dyn FnMut(Event),
) -> Result<(), RootError> {
    if let Ok(Some(room)) = Room::find(&root.path, id) {
        room.tidy();
    }
    let claims = std::sync::Mutex::new(Vec::new());
    scan::scan(root, id, Path::new(""), &|met| {
        if let Met::Claim(dir, name) = met {
            let mut claims = claims
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            claims.push((dir.below().to_owned(), name.to_owned()));
        }
    })?;
    let claims = claims
        .into_inner()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    for (below, claim) in claims {
        let below = &below;
        let ground = Ground { root, id, below };
        pass::recover(tools, ground, asker, &claim, tell);
    }
    Ok(())
}
