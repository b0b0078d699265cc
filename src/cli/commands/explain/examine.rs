//! Gathers the facts about one file for `orphand explain`.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use orphand::core::learn::KnownShape;
use orphand::core::observation::Holder;
use orphand::core::policy::Learn;
use orphand::core::sort::sort_by;
use orphand::engine::groups::{self, Prediction};
use orphand::engine::{self, DirContext, Examined, ScannedDir, SharedChecks};
use orphand::evidence::siblings::Siblings;
use orphand::evidence::{self, FileId};
use orphand::fs::dir::{Buffer, Dir, RootError};
use orphand::fs::root::Root;
use orphand::reap::quarantine::{self, Quarantine};
use orphand::store::folders::Folders;

use super::{ExaminedTemp, Facts};
use crate::cli::config::RuleLocation;
use crate::cli::exit::Failure;
use crate::cli::output::learned::LearnedFields;
use crate::cli::output::text;
use crate::cli::runtime::engine::{engine, known_shapes};
use crate::cli::runtime::plan::missing;

/// Returns the facts about the file `name` in `root`, by `rule`; `None` if it is not a regular file.
pub(super) fn examine(
    root: &Root,
    rule: Option<&RuleLocation>,
    name: &OsStr,
) -> Result<Option<Facts>, Failure> {
    let folders = Folders::from_env();
    let engine = engine(&folders, false);
    let failed = |error: &dyn std::fmt::Display| {
        let (name, root) = (text::escaped(Path::new(name)), &root.path);
        let what = format!("cannot examine \"{name}\" in {root:?}: {error}");
        Failure::failed(what)
    };
    let dir = Dir::open_root(&root.path, None).map_err(|error| match error {
        RootError::Missing => missing(&root.path.join(name)),
        error => failed(&error),
    })?;
    let root = &*engine.shapes.root_in(root, &dir);
    let dir_context = DirContext {
        root,
        id: None,
        below: Path::new(""),
    };
    // A watcher has one quarantine for each rule, in the root of that rule.
    let has_quarantine = match rule {
        Some(rule) => {
            Dir::open_root(&rule.root, None).is_ok_and(|dir| quarantine::is_possible(&dir))
        }
        None => quarantine::is_possible(&dir),
    };
    let checks = SharedChecks::default();
    let siblings = Siblings::of_dir(&dir, &root.policy.names).map_err(|error| failed(&error))?;
    let scanned = ScannedDir::new(&engine, &dir, dir_context, siblings, has_quarantine);
    let judge = |name: &OsStr| engine::judge_now(&engine, &scanned, &checks, name);
    let examined = judge(name);
    let Some(examined) = examined.map_err(|error| failed(&error))? else {
        return Ok(None);
    };
    let uid = examined.evidence.observation.fingerprint.uid;
    let mut members = vec![examined];
    let others = names_of_group(&dir, root, name, uid).map_err(|error| failed(&error))?;
    // A file that disappears is no copy.
    members.extend(
        others
            .iter()
            .filter_map(|other| judge(other).ok().flatten()),
    );
    let group = predict_group(root, rule, &dir, &mut members);
    let examined = members.swap_remove(0);
    let holders = holders_of(&dir, &examined);
    let file = &examined.evidence.observation.fingerprint;
    let pid = examined.temp_info.parsed.pid;
    if let Some(pid) = pid {
        engine.writers.learn(pid, uid);
    }
    let holder = engine.writers.holder_of(FileId::from(file), &holders);
    let process = holder.or_else(|| engine.writers.process_of(FileId::from(file), pid));
    let known = known_shapes(&folders);
    let known = known.fitting(dir.id().into(), name.as_bytes());
    let is_used =
        |known: &&KnownShape| known.shape.place.owner == uid && root.policy.learn != Learn::Off;
    let known = known.filter(is_used);
    let temp = ExaminedTemp {
        examined,
        holders,
        process,
        group,
        learned: known.map(|known| LearnedFields::new(&root.policy, known)),
    };
    Ok(Some(Facts::Regular(Box::new(temp))))
}

/// Returns the names of the other temps in `dir` that belong to the group of `name`, whose owner is `uid`.
fn names_of_group(dir: &Dir, root: &Root, name: &OsStr, uid: u32) -> io::Result<Vec<OsString>> {
    let mut others = Vec::new();
    let group_of = |name: &OsStr| root.policy.names.group_of(name, uid);
    let Some(group) = group_of(name) else {
        return Ok(others);
    };
    dir.read_while(&mut Buffer::default(), &mut |other, _| {
        if other != name && group_of(other).as_ref() == Some(&group) {
            others.push(other.to_owned());
        }
        true
    })?;
    Ok(others)
}

/// Predicts the verdicts of the temps of one group in `dir`, with their copies in the quarantine. Returns the group of
/// the first of `members`.
fn predict_group(
    root: &Root,
    rule: Option<&RuleLocation>,
    dir: &Dir,
    members: &mut [Examined],
) -> Option<Prediction> {
    // The copies are in the quarantine of the rule's root.
    let mut owner = root.clone();
    let below = rule.and_then(|rule| root.path.strip_prefix(&rule.root).ok());
    if let (Some(rule), Some(_)) = (rule, below) {
        owner.path.clone_from(&rule.root);
    }
    let dir_context = DirContext {
        root: &owner,
        id: None,
        below: below.unwrap_or(Path::new("")),
    };
    let quarantine = Quarantine::open_existing(&owner.path, None).ok().flatten();
    // The quarantine records which directory below the root a copy comes from.
    let below_owner = Dir::open_below(&owner.path, None, dir_context.below);
    let below_owner = below_owner.as_ref().unwrap_or(dir);
    groups::judge_groups(dir_context, below_owner, quarantine.as_ref(), members)
}

/// Returns the processes that use a temp or its companions.
fn holders_of(dir: &Dir, examined: &Examined) -> Vec<Holder> {
    let companions = examined.companions.iter().map(|member| &member.evidence);
    let all = std::iter::once(&examined.evidence).chain(companions);
    let held = all.filter(|evidence| evidence.use_state.is_held());
    let held: Vec<FileId> = held
        .map(|evidence| FileId::from(&evidence.observation.fingerprint))
        .collect();
    if held.is_empty() {
        return Vec::new();
    }
    let scan = evidence::scan_processes(&held, dir.lease_coverage());
    let mut holders: Vec<Holder> = held
        .iter()
        .flat_map(|file| scan.holders_of(*file))
        .collect();
    sort_by(&mut holders, Ord::cmp);
    holders.dedup();
    holders
}
