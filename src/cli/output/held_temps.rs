//! The processes that hold temps, as the events about kept temps named them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use orphand::core::event::Event;
use orphand::core::observation::Holder;
use orphand::core::sort::{map_of, sort_by};

/// The kept temps whose holders are known. The events name the holders once for each temp and reason.
#[derive(Debug, Default)]
pub(crate) struct HeldTemps {
    temps: BTreeMap<PathBuf, HeldTemp>,
}

#[derive(Debug)]
struct HeldTemp {
    root: PathBuf,
    holders: Vec<Holder>,
}

/// The largest number of temps whose holders are remembered.
const MAX_TEMPS: usize = 1024;

impl HeldTemps {
    /// Remembers or forgets the holders that `event` is about. `is_held` reports whether a temp is still kept because
    /// of a holder.
    pub(crate) fn note(&mut self, event: &Event, is_held: impl Fn(&Path) -> bool) {
        match event {
            Event::Kept {
                subject,
                reason,
                holders,
                ..
            } if reason.is_held() => {
                self.temps.remove(&subject.path);
                if self.temps.len() >= MAX_TEMPS {
                    self.temps.retain(|path, _| is_held(path));
                }
                if !holders.is_empty() && self.temps.len() < MAX_TEMPS {
                    let held = HeldTemp {
                        root: subject.root.clone(),
                        holders: holders.clone(),
                    };
                    self.temps.insert(subject.path.clone(), held);
                }
            }
            Event::Reaped(disposed) | Event::Quarantined { disposed, .. } => {
                self.temps.remove(&disposed.subject.path);
            }
            _ => {}
        }
    }

    /// Returns the holders of temps of each root, with the numbers of their temps, the largest first. `is_held` reports
    /// whether a temp is still kept because of a holder, and `is_running` whether a process still exists.
    pub(crate) fn by_root(
        &self,
        is_held: impl Fn(&Path) -> bool,
        is_running: impl Fn(u32) -> bool,
    ) -> BTreeMap<PathBuf, Vec<(Holder, u64)>> {
        let mut roots = BTreeMap::<&Path, BTreeMap<&Holder, u64>>::new();
        for held in self.temps.iter().filter(|(path, _)| is_held(path)) {
            let counts = roots.entry(&held.1.root).or_default();
            for holder in &held.1.holders {
                *counts.entry(holder).or_default() += 1;
            }
        }
        let sorted = |(root, counts): (&Path, BTreeMap<&Holder, u64>)| {
            let running = counts
                .into_iter()
                .filter(|(holder, _)| is_running(holder.pid));
            let mut counts: Vec<(Holder, u64)> =
                running.map(|(holder, n)| (holder.clone(), n)).collect();
            sort_by(&mut counts, |(_, a), (_, b)| b.cmp(a));
            (root.to_owned(), counts)
        };
        map_of(roots.into_iter().map(sorted))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use orphand::core::event::{Details, Subject};
    use orphand::core::judge::Reason;

    use super::*;

    fn kept(path: &str, reason: Reason, holders: &[(u32, &str)]) -> Event {
        let holder = |(pid, name): &(u32, &str)| Holder {
            pid: *pid,
            name: (*name).to_owned(),
        };
        Event::Kept {
            subject: Subject {
                path: path.into(),
                root: "/r".into(),
                size: None,
            },
            reason,
            holders: holders.iter().map(holder).collect(),
            retry: Some(Duration::from_secs(1)),
            reported_before: false,
            details: Details::default(),
        }
    }

    #[track_caller]
    fn check(held: &HeldTemps, gone: &[&str], ended: &[u32], wanted: &[(u32, u64)]) {
        let is_held = |path: &Path| !gone.iter().any(|one| path == Path::new(one));
        let roots = held.by_root(is_held, |pid| !ended.contains(&pid));
        let found = roots.get(Path::new("/r")).into_iter().flatten();
        let found: Vec<(u32, u64)> = found.map(|(holder, n)| (holder.pid, *n)).collect();
        assert_eq!(found, wanted, "without {gone:?} and {ended:?}");
    }

    #[test]
    fn only_present_holders_of_held_temps_are_counted() {
        let mut held = HeldTemps::default();
        held.note(&kept("/r/a.tmp", Reason::InUse, &[(1, "one")]), |_| true);
        let two: &[(u32, &str)] = &[(1, "one"), (2, "two")];
        held.note(&kept("/r/b.tmp", Reason::Locked, two), |_| true);
        held.note(&kept("/r/b.tmp", Reason::Young, &[]), |_| true);
        held.note(&kept("/r/c.tmp", Reason::HardLinked, two), |_| true);
        check(&held, &[], &[], &[(1, 2), (2, 1)]);
        check(&held, &["/r/a.tmp"], &[], &[(1, 1), (2, 1)]);
        check(&held, &["/r/a.tmp", "/r/b.tmp"], &[], &[]);
        check(&held, &[], &[1], &[(2, 1)]);
        // The last event about a temp counts.
        held.note(&kept("/r/b.tmp", Reason::InUse, &[]), |_| true);
        check(&held, &[], &[], &[(1, 1)]);
    }

    #[test]
    fn the_number_of_temps_is_limited() {
        let mut held = HeldTemps::default();
        let name = |n: usize| format!("/r/{n}.tmp");
        for n in 0..MAX_TEMPS + 10 {
            held.note(&kept(&name(n), Reason::InUse, &[(7, "x")]), |_| true);
        }
        check(&held, &[], &[], &[(7, MAX_TEMPS as u64)]);
        // Those that are no longer held make room.
        held.note(&kept("/r/new.tmp", Reason::InUse, &[(8, "y")]), |_| false);
        check(&held, &[], &[], &[(8, 1)]);
    }
}
