//! Tests of the tracker. Time is an argument, so the tests need no sleep and no file.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::core::judge::{Dates, Reason};
use crate::core::observation::{Fingerprint, Kind, UseState};
use crate::core::policy::{Open, min_observation_gap};
use crate::core::time::{ClockJumpDetector, Mono, Now, Wall};

const MS: u64 = 1_000_000;
const GRACE: Duration = Duration::from_secs(10);
/// The uptime of the machine when a simulation begins, in milliseconds.
const UPTIME: u64 = 24 * 3600 * 1000;
/// The date when a simulation begins, in seconds since 1970.
const START: i64 = 2_000_000_000;
const HOUR: i64 = 3600 * 1000;
const YEAR: i64 = 365 * 24 * HOUR;

/// One change on the machine that orphand does not make.
#[derive(Clone, Copy, Debug)]
enum Change {
    /// A process writes.
    Write,
    /// A process replaces the content by one of the same length, and closes the file.
    Rewrite,
    /// A process writes and sets `mtime` to an earlier date, as rsync and tar do.
    WriteWithOldMtime,
    /// Another file replaces it under the same name.
    Replace,
    /// A process opens it and keeps it open.
    OpenFile,
    /// The process closes it.
    CloseFile,
    /// The wall clock is changed by this number of milliseconds.
    SetClock(i64),
    /// The machine sleeps for this number of milliseconds.
    Sleep(i64),
    /// It is renamed or removed.
    Remove,
    /// New rules come into force, with this grace in milliseconds and this action for open temps.
    NewRule(u64, Open),
}
use Change::*;

/// Changes with their times, in milliseconds by the monotonic clock.
type Script<'a> = &'a [(u64, Change)];

/// A machine with two clocks and one temp, and the tracker's state for this temp.
struct Simulation {
    /// Milliseconds since the beginning, by the monotonic clock.
    at: u64,
    /// The uptime at the beginning, in milliseconds.
    up: u64,
    /// The difference between the wall clock and the monotonic one, in milliseconds.
    clock_offset: i64,
    clocks: ClockJumpDetector,
    file: Fingerprint,
    in_use: bool,
    /// The duration of each look, in milliseconds.
    slow: u64,
    removed: bool,
    /// The file system stores dates of whole seconds.
    whole_seconds: bool,
    grace: Duration,
    open: Open,
    temp: Tracked,
    /// The times of the looks, in milliseconds since the beginning.
    looks: Vec<u64>,
}

impl Simulation {
    /// Begins a simulation in which the temp is `age` milliseconds old when it is discovered.
    fn new(origin: Origin, age: i64, up: u64, grace: Duration) -> Simulation {
        let born = wall(-age);
        let seen = Mono(up * MS);
        let mut clocks = ClockJumpDetector::default();
        clocks.read(Now {
            mono: seen,
            wall: wall(0),
        });
        Simulation {
            at: 0,
            up,
            clock_offset: 0,
            clocks,
            file: Fingerprint {
                dev: 1,
                ino: 7,
                kind: Kind::File,
                size: 0,
                mtime: born,
                ctime: born,
                btime: Some(born),
                links: 1,
                uid: 0,
            },
            in_use: false,
            slow: 0,
            removed: false,
            whole_seconds: false,
            grace,
            open: Open::Keep,
            temp: match origin {
                Origin::Created => Tracked::created(seen, grace),
                found => Tracked::found(seen, found),
            },
            looks: Vec::new(),
        }
    }

    fn mono(&self) -> Mono {
        Mono((self.up + self.at) * MS)
    }

    fn wall(&self) -> Wall {
        wall(self.at as i64 + self.clock_offset)
    }

    fn now(&self) -> Now {
        Now {
            mono: self.mono(),
            wall: self.wall(),
        }
    }

    fn apply(&mut self, change: Change) {
        let now = self.wall();
        match change {
            Write | WriteWithOldMtime => {
                self.file.size += 1;
                self.file.ctime = now;
                self.file.mtime = match change {
                    Write => now,
                    _ => wall(-YEAR),
                };
            }
            Rewrite => {
                self.file.mtime = now;
                self.file.ctime = now;
            }
            Replace => {
                self.file.ino += 1;
                self.file.size = 0;
                self.file.mtime = now;
                self.file.ctime = now;
                self.file.btime = Some(now);
            }
            OpenFile => self.in_use = true,
            CloseFile => self.in_use = false,
            SetClock(by) | Sleep(by) => self.clock_offset += by,
            Remove => self.removed = true,
            NewRule(grace, open) => {
                self.grace = Duration::from_millis(grace);
                self.open = open;
                self.temp.mark_rules_changed(self.mono());
            }
        }
    }

    /// Returns the result of a look now.
    fn observe(&mut self) -> Look {
        let began = self.now();
        self.at += self.slow;
        let ended = self.now();
        let stored = |date: Wall| match self.whole_seconds {
            true => Wall { nsec: 0, ..date },
            false => date,
        };
        let file = Fingerprint {
            mtime: stored(self.file.mtime),
            ctime: stored(self.file.ctime),
            btime: self.file.btime.filter(|_| !self.whole_seconds),
            ..self.file
        };
        Look {
            began,
            ended,
            last_jump: self.clocks.read(ended),
            fingerprint: file,
            lag: match self.whole_seconds {
                true => Dates::FineIfBorn.lag(&file),
                false => Duration::ZERO,
            },
            use_state: match self.in_use {
                true => UseState::InUse,
                false => UseState::Unused,
            },
        }
    }

    fn look(&mut self) -> Next {
        self.looks.push(self.at);
        let look = self.observe();
        self.temp.look(&look, self.grace, self.open)
    }

    /// Applies the changes in `script`, and looks when the temp is due. Returns the time at which the temp is judged
    /// and not kept for its holder; `None` if that does not happen.
    fn run(&mut self, script: Script<'_>) -> Option<u64> {
        let mut script = script.iter().peekable();
        let end = 100 * self.grace.as_millis() as u64;
        while self.at < end {
            let mut due = (self.temp.due().0 / MS)
                .saturating_sub(self.up)
                .max(self.at);
            while let Some((at, change)) = script.next_if(|(at, _)| *at <= due) {
                self.at = *at;
                self.apply(*change);
                if matches!(change, NewRule(..)) {
                    due = self.at;
                }
            }
            self.at = due;
            if self.removed {
                return None;
            }
            match self.look() {
                Next::Judge(_) if self.in_use && self.open == Open::Keep => {
                    let now = self.mono();
                    _ = self.temp.keep(Reason::InUse, self.grace, now);
                }
                Next::Judge(_) => return Some(self.at),
                Next::LookAt(at) => assert!(at > self.mono(), "{at:?} is not in the future"),
            }
        }
        None
    }
}

/// Returns the date `ms` after the beginning of the simulation.
fn wall(ms: i64) -> Wall {
    Wall {
        sec: START + ms.div_euclid(1000),
        nsec: ms.rem_euclid(1000) as u32 * 1_000_000,
    }
}

/// The time of the verdict for each script of changes. The grace is 10 s; all times are in milliseconds.
#[test]
fn a_temp_is_judged_after_its_grace() {
    use Origin::*;
    let open = |from, to| [(from, OpenFile), (to, CloseFile)];
    #[rustfmt::skip]
    let rows: &[(&str, Origin, i64, Script<'_>, Option<u64>)] = &[
        // Without changes.
        ("created, then untouched", Created, 0, &[], Some(10_000)),
        ("found long after", Found, YEAR, &[], Some(1_000)),
        ("found right after", Found, 0, &[], Some(10_000)),
        ("found at 4 s", Found, 4_000, &[], Some(6_000)),
        ("found at 9 s: the next look is a whole observation gap later", Found, 9_000, &[], Some(1_000)),
        ("found at 9.5 s: the same", Found, 9_500, &[], Some(1_000)),
        ("found, without credit", FoundWithoutCredit, YEAR, &[], Some(10_000)),
        ("found, with half credit", FoundWithHalfCredit, 4_000, &[], Some(6_000)),
        ("found by a late scan, with half credit", FoundWithHalfCredit, 9_000, &[], Some(5_000)),
        // An old file that is renamed into the directory gets credit only since that event.
        ("moved in, a year old", Created, YEAR, &[], Some(10_000)),
        // A change starts the grace again.
        ("written before the first look", Created, 0, &[(4_000, Write)], Some(14_000)),
        ("written between the looks", Created, 0, &[(6_000, Write)], Some(16_000)),
        ("written just before the second look", Created, 0, &[(10_000, Write)], Some(20_000)),
        ("found, then written between the looks", Found, YEAR, &[(500, Write)], Some(10_500)),
        ("mtime set to an earlier date", Found, YEAR, &[(500, WriteWithOldMtime)], Some(10_500)),
        ("replaced by another file", Created, 0, &[(6_000, Replace)], Some(16_000)),
        ("written several times", Created, 0, &[(4_000, Write), (13_000, Write), (22_000, Write)], Some(32_000)),
        // Open: the grace starts at the first look that finds no holder.
        ("open at the first look", Created, 0, &open(0, 5_001), Some(20_000)),
        ("open for 0.85 of the grace", Created, 0, &open(0, 8_500), Some(20_000)),
        ("open at the second look", Created, 0, &open(6_000, 10_500), Some(30_000)),
        ("open when found", Found, YEAR, &open(0, 500), Some(11_000)),
        ("open for a long time", Created, 0, &open(0, 95_000), Some(110_000)),
        ("always open", Created, 0, &[(0, OpenFile)], None),
        ("written, opened, closed", Created, 0,
            &[(7_000, Write), (7_000, OpenFile), (12_000, CloseFile)], Some(30_000)),
        ("opened and closed between the looks", Created, 0, &open(1_000, 4_000), Some(10_000)),
        // Renamed by its writer.
        ("renamed in time", Created, 0, &[(9_999, Remove)], None),
        ("open for 0.85, renamed at 1.15 of the grace", Created, 0,
            &[(0, OpenFile), (8_500, CloseFile), (11_500, Remove)], None),
        // The wall clock changes. The grace is measured by the monotonic clock.
        ("created, then clock set forward", Created, 0, &[(1_000, SetClock(HOUR))], Some(15_000)),
        ("created, then clock set back", Created, 0, &[(1_000, SetClock(-YEAR))], Some(15_000)),
        ("clock set forward, then found", Found, 3_000, &[(0, SetClock(HOUR))], Some(10_000)),
        ("clock set back, then found", Found, 3_000, &[(0, SetClock(-YEAR))], Some(10_000)),
        ("clock set forward between two looks", Found, 3_000, &[(1, SetClock(HOUR))], Some(7_000)),
        ("clock set back between two looks", Found, 3_000, &[(1, SetClock(-YEAR))], Some(7_000)),
        ("slept, then found", Found, 3_000, &[(0, Sleep(8 * HOUR))], Some(10_000)),
        ("slept before the first look", Created, 0, &[(1_000, Sleep(8 * HOUR))], Some(15_000)),
        // The jump is dated to the look that detects it.
        ("written, then clock set forward", Created, 0, &[(6_000, Write), (7_000, SetClock(HOUR))], Some(20_000)),
        ("a date in the future", Created, 0, &[(0, SetClock(HOUR)), (0, Write), (0, SetClock(-HOUR))], Some(15_000)),
    ];
    for (name, origin, age, script, want) in rows {
        let mut sim = Simulation::new(*origin, *age, UPTIME, GRACE);
        assert_eq!(sim.run(script), *want, "{name}; looked at {:?}", sim.looks);
    }
}

/// The bounds of the credit of the first look. In every row only one of them is effective.
#[test]
fn each_bound_limits_the_credit() {
    use Origin::*;
    let s = Duration::from_secs;
    let no_jump: Script<'_> = &[];
    #[rustfmt::skip]
    let rows: [(&str, Origin, i64, u64, Script<'_>, Duration, u64); 9] = [
        ("its age", Found, 4_000, UPTIME, no_jump, s(10), 6_000),
        ("grace - gap", Found, YEAR, UPTIME, no_jump, s(10), 1_000),
        ("grace - gap, short", Found, YEAR, UPTIME, no_jump, Duration::from_millis(200), 100),
        ("time since boot", Found, YEAR, 3_000, no_jump, s(10), 7_000),
        ("time since its creation was reported", Created, YEAR, UPTIME, no_jump, s(10), 10_000),
        ("time since it was found, without credit", FoundWithoutCredit, YEAR, UPTIME, no_jump, s(10), 10_000),
        ("half a grace", FoundWithHalfCredit, YEAR, UPTIME, no_jump, s(10), 5_000),
        ("time since the clock jump", Found, YEAR, UPTIME, &[(0, SetClock(HOUR))], s(10), 10_000),
        ("never below zero", Found, -YEAR, UPTIME, no_jump, s(10), 10_000),
    ];
    for (name, origin, age, up, script, grace, want) in rows {
        let mut sim = Simulation::new(origin, age, up, grace);
        assert_eq!(sim.run(script), Some(want), "{name}");
    }
}

/// Returns the readings of the clocks `ms` milliseconds after the start of a simulation.
fn moment(ms: u64) -> Now {
    Now {
        mono: Mono((UPTIME + ms) * MS),
        wall: wall(ms as i64),
    }
}

/// A look may take long, because another program delays the open. The file may change, and its writer may close it, until
/// the look ends.
#[test]
fn the_quiet_time_counts_from_the_end_of_a_look() {
    let gap = min_observation_gap(GRACE, Duration::ZERO).as_millis() as u64;
    let grace = GRACE.as_millis() as u64;
    // The last change, the use at an earlier look, the begin and the end of the look, and the time of the next one.
    for (changed, earlier, began, ended, next) in [
        (-(YEAR), None, 0, 0, gap),
        (-(YEAR), None, 0, 3_000, 3_000 + gap),
        (2_000, None, 0, 3_000, 2_000 + grace),
        (-(YEAR), Some(UseState::InUse), 5_000, 8_000, 8_000 + grace),
        (-(YEAR), Some(UseState::Unused), gap - 1, gap + 5_000, gap),
    ] {
        let mut sim = Simulation::new(Origin::Found, YEAR, UPTIME, GRACE);
        sim.file.mtime = wall(changed);
        sim.file.ctime = wall(changed);
        let look = |began, ended, use_state| Look {
            began: moment(began),
            ended: moment(ended),
            last_jump: None,
            fingerprint: sim.file,
            lag: Duration::ZERO,
            use_state,
        };
        if let Some(use_state) = earlier {
            _ = sim.temp.look(&look(0, 0, use_state), GRACE, Open::Keep);
        }
        let found = sim
            .temp
            .look(&look(began, ended, UseState::Unused), GRACE, Open::Keep);
        let want = Next::LookAt(moment(next).mono);
        assert_eq!(
            found, want,
            "changed {changed}, look from {began} to {ended}"
        );
    }
}

/// After a clock jump, the time since the jump remains as credit.
#[test]
fn a_clock_jump_limits_the_credit() {
    for (ago, want) in [(0, 10_000), (3_000, 7_000), (8_999, 1_001), (60_000, 1_000)] {
        let mut sim = Simulation::new(Origin::Found, YEAR, UPTIME, GRACE);
        let now = sim.now();
        let look = Look {
            began: now,
            ended: now,
            last_jump: Some(now.mono.before(Duration::from_millis(ago))),
            fingerprint: sim.file,
            lag: Duration::ZERO,
            use_state: UseState::Unused,
        };
        let want = Next::LookAt(now.mono.after(Duration::from_millis(want)));
        assert_eq!(
            sim.temp.look(&look, GRACE, Open::Keep),
            want,
            "{ago} ms ago"
        );
    }
}

/// A look may be late, because a disk hangs or orphand was stopped. The writer may have closed the temp just before.
#[test]
fn a_late_look_leaves_half_a_grace() {
    for origin in [
        Origin::Created,
        Origin::FoundWithoutCredit,
        Origin::FoundWithHalfCredit,
    ] {
        for delay in [5_000, 9_000, 9_999, 10_000, 30_000, YEAR as u64] {
            let mut sim = Simulation::new(origin, 0, UPTIME, GRACE);
            let now = Now {
                mono: sim.mono().after(Duration::from_millis(delay)),
                wall: wall(delay as i64),
            };
            let look = Look {
                began: now,
                ended: now,
                last_jump: None,
                fingerprint: sim.file,
                lag: Duration::ZERO,
                use_state: UseState::Unused,
            };
            let half = Next::LookAt(now.mono.after(GRACE / 2));
            assert_eq!(
                sim.temp.look(&look, GRACE, Open::Keep),
                half,
                "{origin:?} {delay} ms"
            );
        }
    }
}

#[test]
fn looks_are_at_the_documented_times() {
    let looks = |origin, age| {
        let mut sim = Simulation::new(origin, age, UPTIME, GRACE);
        sim.run(&[]);
        sim.looks
    };
    assert_eq!(
        looks(Origin::Created, 0),
        [5_000, 10_000],
        "grace/2 and grace"
    );
    assert_eq!(
        looks(Origin::Found, YEAR),
        [0, 1_000],
        "at once and after the observation gap"
    );
    assert_eq!(looks(Origin::FoundWithoutCredit, YEAR), [0, 10_000]);
}

/// A writer may keep its temp open for any time if it renames the temp within half the grace after the close. This
/// holds for a temp whose creation was reported, and where scans replace events, however late the scans are.
#[test]
fn a_writer_that_closes_and_renames_in_time_loses_nothing() {
    let ages = [0, 4_000, 5_000, 9_000, YEAR].map(|age| (Origin::FoundWithHalfCredit, age));
    for (origin, age) in [(Origin::Created, 0)].into_iter().chain(ages) {
        for close in (0..=40_000).step_by(50) {
            let rename = close + 4_999;
            for write in [None, Some(0), Some(close / 2), Some(close)] {
                let mut script = vec![(0, OpenFile), (close, CloseFile), (rename, Remove)];
                script.extend(write.map(|at| (at, Write)));
                script.sort_by_key(|(at, _)| *at);
                let mut sim = Simulation::new(origin, age, UPTIME, GRACE);
                let judged = sim.run(&script);
                assert_eq!(
                    judged, None,
                    "{origin:?} at {age}, closed at {close}, written at {write:?}, renamed at {rename}"
                );
            }
        }
    }
}

/// The same is true if a shorter grace comes into force: then half of the shorter grace counts.
#[test]
fn a_writer_that_renames_in_time_loses_nothing_to_new_rules() {
    for grace in [200, 2_000, 8_000] {
        for close in (0..=21_000).step_by(300) {
            let rename = close + grace / 2 - 1;
            for rule in (0..=rename).step_by(100) {
                let mut script = vec![
                    (0, OpenFile),
                    (close, CloseFile),
                    (rename, Remove),
                    (rule, NewRule(grace, Open::Keep)),
                ];
                script.sort_by_key(|(at, _)| *at);
                for origin in [Origin::Created, Origin::FoundWithHalfCredit] {
                    let mut sim = Simulation::new(origin, 0, UPTIME, GRACE);
                    let judged = sim.run(&script);
                    assert_eq!(judged, None, "{origin:?}: {script:?}; {:?}", sim.looks);
                }
            }
        }
    }
}

/// A temp that was found by the scan at the start has less time: the observation gap.
#[test]
fn a_writer_found_by_a_scan_has_the_observation_gap() {
    for close in (0..=40_000).step_by(50) {
        let script = [(0, OpenFile), (close, CloseFile), (close + 999, Remove)];
        let mut sim = Simulation::new(Origin::Found, YEAR, UPTIME, GRACE);
        assert_eq!(sim.run(&script), None, "closed at {close}");
    }
    // Closed just before the scan, and renamed just before the second look.
    let mut sim = Simulation::new(Origin::Found, YEAR, UPTIME, GRACE);
    assert_eq!(sim.run(&[(999, Remove)]), None);
}

#[test]
fn open_temps_are_judged_if_the_rule_takes_them() {
    for open in [Open::Reap, Open::Quarantine] {
        let mut sim = Simulation::new(Origin::Created, 0, UPTIME, GRACE);
        sim.open = open;
        assert_eq!(sim.run(&[(0, OpenFile)]), Some(10_000), "{open:?}");
    }
}

/// It may be moved while it is open. But a write shows that the writer is not finished, so the grace starts again.
#[test]
fn an_open_temp_that_is_written_is_not_quiet() {
    let writes = [
        (0, OpenFile),
        (4_000, Write),
        (9_000, Write),
        (18_000, Write),
    ];
    for (open, want) in [(Open::Reap, 28_000), (Open::Quarantine, 34_000)] {
        let mut sim = Simulation::new(Origin::Created, 0, UPTIME, GRACE);
        sim.open = open;
        assert_eq!(sim.run(&writes), Some(want), "{open:?}: {:?}", sim.looks);
    }
}

/// An early look does not change the time of the verdict, and repeated looks do not shorten the gap between the two
/// looks that count.
#[test]
fn early_looks_do_not_hasten_the_verdict() {
    let mut sim = Simulation::new(Origin::Found, YEAR, UPTIME, GRACE);
    let due = sim.mono().after(Duration::from_secs(1));
    for at in 0..1_000 {
        sim.at = at;
        assert_eq!(sim.look(), Next::LookAt(due), "at {at}");
    }
    sim.at = 1_000;
    assert!(matches!(sim.look(), Next::Judge(_)));
}

/// A file system with dates of whole seconds does not show a second write within one second. The writer loses nothing
/// if it renames the temp within half the grace after its last write, or within 1.5 s if a scan found the temp.
#[test]
fn dates_of_whole_seconds_hide_no_writer() {
    let grace = Duration::from_secs(3);
    for (origin, pause) in [(Origin::Created, 1_499), (Origin::Found, 1_499)] {
        for phase in (0..1_000).step_by(97) {
            for first in (0..1_500).step_by(53) {
                for again in [1, 250, 600, 950] {
                    let (one, two) = (phase + first, phase + first + again);
                    let script = [(one, Rewrite), (two, Rewrite), (two + pause, Remove)];
                    let mut sim = Simulation::new(origin, 0, UPTIME, grace);
                    sim.whole_seconds = true;
                    sim.at = phase;
                    sim.temp = match origin {
                        Origin::Created => Tracked::created(sim.mono(), grace),
                        found => Tracked::found(sim.mono(), found),
                    };
                    let judged = sim.run(&script);
                    assert_eq!(judged, None, "{origin:?} {script:?}: {:?}", sim.looks);
                }
            }
        }
    }
}

/// Such a temp is still judged, later by the second that its dates do not show.
#[test]
fn dates_of_whole_seconds_give_less_credit() {
    let grace = Duration::from_secs(3);
    #[rustfmt::skip]
    let rows = [
        (Origin::Found, 0, Some(4_000)),
        (Origin::Found, 2_000, Some(2_000)),
        (Origin::Found, YEAR, Some(1_500)),
        (Origin::Created, 0, Some(4_000)),
    ];
    for (origin, age, want) in rows {
        let mut sim = Simulation::new(origin, age, UPTIME, grace);
        sim.whole_seconds = true;
        let judged = sim.run(&[]);
        assert_eq!(judged, want, "{origin:?} {age}: {:?}", sim.looks);
    }
}

/// A temp with an unknown use state is judged, so that a gate keeps it and reports that.
#[test]
fn an_unknown_use_state_is_judged() {
    let mut sim = Simulation::new(Origin::Found, YEAR, UPTIME, GRACE);
    let now = sim.now();
    let mut look = Look {
        began: now,
        ended: now,
        last_jump: None,
        fingerprint: sim.file,
        lag: Duration::ZERO,
        use_state: UseState::Unknown,
    };
    _ = sim.temp.look(&look, GRACE, Open::Keep);
    let later = now.mono.after(Duration::from_secs(1));
    (look.began.mono, look.ended.mono) = (later, later);
    let judged = sim.temp.look(&look, GRACE, Open::Keep);
    assert!(matches!(judged, Next::Judge(_)), "{judged:?}");
}

#[test]
fn a_lock_counts_as_a_holder() {
    let mut sim = Simulation::new(Origin::Found, YEAR, UPTIME, GRACE);
    let at = |ms, use_state| Look {
        began: moment(ms),
        ended: moment(ms),
        last_jump: None,
        fingerprint: sim.file,
        lag: Duration::ZERO,
        use_state,
    };
    let temp = &mut sim.temp;
    _ = temp.look(&at(0, UseState::Locked), GRACE, Open::Keep);
    let next = temp.look(&at(1_000, UseState::Unused), GRACE, Open::Keep);
    assert_eq!(next, Next::LookAt(Mono((UPTIME + 11_000) * MS)));
}

/// The quiet time by the dates, and the part of it that counts towards the grace.
#[test]
fn the_grace_does_not_limit_the_unused_time() {
    let quiet = |origin, age| {
        let mut sim = Simulation::new(origin, age, UPTIME, GRACE);
        loop {
            sim.at = (sim.temp.due().0 / MS).saturating_sub(UPTIME);
            if let Next::Judge(quiet) = sim.look() {
                return (
                    quiet.quiet.as_millis(),
                    quiet.unused.as_millis(),
                    quiet.fingerprint,
                );
            }
        }
    };
    let file = |age| Simulation::new(Origin::Found, age, UPTIME, GRACE).file;
    assert_eq!(
        quiet(Origin::Found, 3 * HOUR),
        (10_000, 3 * HOUR as u128 + 1_000, file(3 * HOUR))
    );
    let since_boot = u128::from(UPTIME) + 1_000;
    assert_eq!(
        quiet(Origin::Found, YEAR),
        (10_000, since_boot, file(YEAR)),
        "at most the uptime"
    );
    assert_eq!(
        quiet(Origin::Created, YEAR),
        (10_000, 10_000, file(YEAR)),
        "since it was discovered"
    );
}

#[test]
fn a_holder_resets_the_unused_time() {
    let mut sim = Simulation::new(Origin::Found, 3 * HOUR, UPTIME, GRACE);
    sim.in_use = true;
    sim.look();
    sim.at = 1_000;
    sim.in_use = false;
    assert_eq!(sim.look(), Next::LookAt(Mono((UPTIME + 11_000) * MS)));
    sim.at = 11_000;
    match sim.look() {
        Next::Judge(quiet) => assert_eq!(quiet.unused, GRACE),
        next => panic!("{next:?}"),
    }
}

/// One map serves several rules. The shortest grace of all decides when a new temp is due; its own grace decides when
/// it is looked at.
#[test]
fn a_longer_own_grace_postpones_the_first_look() {
    let (seen, own) = (Mono(UPTIME * MS), Duration::from_secs(60));
    let mut temp = Tracked::created(seen, GRACE);
    assert_eq!(temp.due(), seen.after(GRACE / 2));
    assert!(temp.postpone_first_look(own, temp.due()));
    assert_eq!(temp.due(), seen.after(own / 2));
    assert!(
        !temp.postpone_first_look(own, temp.due()),
        "half of its own grace has passed"
    );
    for origin in [Origin::Found, Origin::FoundWithoutCredit] {
        assert!(
            !Tracked::found(seen, origin).postpone_first_look(own, seen),
            "{origin:?}: no delay"
        );
    }
    let mut sim = Simulation::new(Origin::Created, 0, UPTIME, GRACE);
    sim.at = 5_000;
    sim.look();
    let due = sim.temp.due();
    assert!(
        !sim.temp.postpone_first_look(own, sim.mono()),
        "it was looked at before"
    );
    assert_eq!(sim.temp.due(), due);
}

/// Returns a temp that is ready to be judged, after two looks, and the time.
fn ready() -> (Tracked, Mono) {
    let mut sim = Simulation::new(Origin::Found, YEAR, UPTIME, GRACE);
    sim.look();
    sim.at = 1_000;
    assert!(matches!(sim.look(), Next::Judge(_)));
    let now = sim.mono();
    (sim.temp, now)
}

#[test]
fn a_kept_temp_is_retried() {
    let s = Duration::from_secs;
    let (without_event, other) = (Reason::InUse, Reason::HardLinked);
    for (grace, reason, want) in [
        (s(10), without_event, [10, 10, 10, 10, 10]),
        (s(300), without_event, [60, 60, 60, 60, 60]),
        (s(10), Reason::Locked, [10, 10, 10, 10, 10]),
        (s(10), Reason::WriterAlive, [10, 10, 10, 10, 10]),
        (s(10), other, [10, 20, 40, 80, 160]),
        (s(1_000), other, [1_000, 2_000, 3_600, 3_600, 3_600]),
        (s(7_200), other, [7_200, 7_200, 7_200, 7_200, 7_200]),
    ] {
        let (mut temp, now) = ready();
        for (time, want) in want.into_iter().enumerate() {
            let kept = temp.keep(reason, grace, now);
            assert_eq!(
                kept.retry,
                s(want),
                "{reason}, grace {grace:?}, time {time}"
            );
            assert_eq!(temp.due(), now.after(s(want)), "{reason}");
        }
    }
}

#[test]
fn a_reason_is_new_once() {
    let (mut temp, now) = ready();
    for reason in Reason::ALL {
        assert!(temp.keep(reason, GRACE, now).is_new, "{reason}");
    }
    for reason in Reason::ALL {
        assert!(!temp.keep(reason, GRACE, now).is_new, "{reason}, again");
    }
    assert!(temp.is_kept());
}

#[test]
fn a_reason_is_repeated_only_for_another_file() {
    let mut sim = Simulation::new(Origin::Found, YEAR, UPTIME, GRACE);
    let is_new = |sim: &mut Simulation, reason| {
        sim.look();
        let now = sim.mono();
        sim.temp.keep(reason, GRACE, now).is_new
    };
    sim.in_use = true;
    assert!(is_new(&mut sim, Reason::InUse));
    sim.at = 10_000;
    sim.apply(Write);
    assert!(!is_new(&mut sim, Reason::InUse), "written by its holder");
    sim.at = 20_000;
    sim.in_use = false;
    sim.look();
    sim.in_use = true;
    assert!(!is_new(&mut sim, Reason::InUse), "closed, and opened again");
    sim.at = 30_000;
    sim.in_use = false;
    sim.look();
    sim.apply(Write);
    assert!(is_new(&mut sim, Reason::HardLinked));
    sim.at = 40_000;
    sim.apply(Write);
    assert!(
        !is_new(&mut sim, Reason::HardLinked),
        "written by a process that closed it"
    );
    sim.at = 50_000;
    sim.apply(Replace);
    assert!(
        is_new(&mut sim, Reason::HardLinked),
        "another file with that name"
    );
}

/// A temp for which an operation failed is retried like one that is kept, and is not judged in between.
#[test]
fn a_failed_temp_is_retried_later() {
    let (mut temp, now) = ready();
    let _ = temp.check_out();
    let kept = temp.retry_later(GRACE, now);
    assert!(kept.is_new && !temp.is_checked_out());
    assert_eq!(temp.due(), now.after(GRACE));
    assert!(!temp.retry_later(GRACE, now).is_new);
    assert_eq!(
        temp.due(),
        now.after(GRACE * 2),
        "the second time is longer"
    );

    // A temp that cannot be looked at is retried in the same way.
    let mut unseen = Tracked::found(now, Origin::Found);
    assert!(unseen.retry_later(GRACE, now).is_new);
    assert_eq!(unseen.due(), now.after(GRACE));
}

#[test]
fn events_and_sizes_are_remembered() {
    let seen = Mono(UPTIME * MS);
    let mut temp = Tracked::created(seen, GRACE);
    assert_eq!(
        (temp.discovered(), temp.origin(), temp.bytes()),
        (seen, Origin::Created, None)
    );
    assert!(!temp.is_closed() && !temp.is_checked_out() && !temp.is_kept());
    // A file may be closed by several writers, one after the other.
    for _ in 0..2 {
        temp.close();
        let _ = temp.check_out();
        assert!(temp.is_closed() && temp.is_checked_out());
    }
    assert!(!temp.clone().check_in().is_checked_out());
    let mut sim = Simulation::new(Origin::Found, YEAR, UPTIME, GRACE);
    for size in 0..2 {
        sim.look();
        assert_eq!(sim.temp.bytes(), Some(size));
        sim.apply(Write);
    }
}

/// Between two looks that are more than half the grace apart, a writer may open the temp again, write, and close it
/// just before the second look. That look gives credit for at most half the grace.
#[test]
fn a_change_between_looks_leaves_half_a_grace() {
    for origin in [Origin::Created, Origin::Found] {
        let script = [
            (9_990, Write),
            (10_100, OpenFile),
            (10_100, Write),
            (19_900, CloseFile),
            (19_900 + 4_900, Remove),
        ];
        let mut sim = Simulation::new(origin, 0, UPTIME, GRACE);
        assert_eq!(sim.run(&script), None, "{origin:?}: {:?}", sim.looks);
    }
}

/// A process that started after the last change to this file cannot be its writer, even if it has the same pid.
#[test]
fn later_processes_did_not_write_it() {
    let written = |origin, age: i64, script: Script<'_>| {
        let mut sim = Simulation::new(origin, age, UPTIME, GRACE);
        for &(at, what) in script {
            sim.at = at;
            sim.apply(what);
        }
        sim.at = 20_000;
        let look = sim.observe();
        let Mono(written) = sim.temp.written_by(&look)?;
        Some(written / MS - UPTIME)
    };
    let created = |script: Script<'_>| written(Origin::Created, 0, script);
    assert_eq!(created(&[]), Some(2_000), "the clocks may differ by 2 s");
    assert_eq!(created(&[(9_000, Write)]), Some(11_000));
    assert_eq!(created(&[(9_000, WriteWithOldMtime)]), Some(11_000));
    assert_eq!(
        created(&[(9_000, Replace)]),
        Some(11_000),
        "without an event"
    );
    assert_eq!(created(&[(19_500, Write)]), Some(20_000), "at most now");
    let aged = written(Origin::Created, YEAR, &[]);
    assert_eq!(aged, Some(0), "at least the time of its discovery");
    for jump in [Sleep(HOUR), SetClock(HOUR), SetClock(-HOUR)] {
        let script = [(9_000, Write), (9_500, jump)];
        assert_eq!(created(&script), None, "{jump:?}");
    }
    for origin in [
        Origin::Found,
        Origin::FoundWithoutCredit,
        Origin::FoundWithHalfCredit,
    ] {
        assert_eq!(written(origin, 0, &[]), None, "{origin:?}");
    }
}

/// A temp that was touched while it was processed is in use. The earlier looks no longer count, but a reason is not
/// reported twice.
#[test]
fn a_touched_temp_starts_again() {
    let (mut temp, now) = ready();
    temp.close();
    let _ = temp.check_out();
    assert!(temp.keep(Reason::Changed, GRACE, now).is_new);
    let _ = temp.check_out();
    temp.reset(now, GRACE);
    assert!(
        temp.is_closed() && temp.is_checked_out(),
        "its flags remain"
    );
    assert_eq!(
        (temp.discovered(), temp.bytes(), temp.is_kept()),
        (now, None, false)
    );
    assert_eq!(temp.due(), now.after(GRACE / 2));
    assert!(!temp.keep(Reason::Changed, GRACE, now).is_new);

    let mut sim = Simulation::new(Origin::Found, YEAR, UPTIME, GRACE);
    sim.temp.reset(sim.mono(), GRACE);
    assert_eq!(sim.run(&[]), Some(10_000), "its dates give no credit");
}

/// New rules come into force between two looks, or before the first. From then on the writer has the time that the new
/// grace gives, whatever the old grace was.
#[test]
fn new_rules_leave_half_of_the_new_grace() {
    use Origin::*;
    let (keep, reap) = (Open::Keep, Open::Reap);
    let closed =
        |at, script: &[(u64, Change)]| [&[(0, OpenFile), (at, CloseFile)], script].concat();
    #[rustfmt::skip]
    let rows: &[(&str, Origin, i64, Script<'_>, Option<u64>)] = &[
        // Closed just before the first look, which gave credit for half of the old grace.
        ("shorter", Created, 0, &closed(4_900, &[(5_100, NewRule(2_000, keep))]), Some(6_100)),
        ("shorter, renamed within half of it", Created, 0,
            &closed(4_900, &[(5_100, NewRule(2_000, keep)), (5_800, Remove)]), None),
        ("shorter, found", Found, YEAR, &[(500, NewRule(200, keep))], Some(600)),
        ("shorter, then the same again", Created, 0,
            &closed(4_900, &[(5_100, NewRule(2_000, keep)), (5_600, NewRule(2_000, keep))]), Some(6_600)),
        ("shorter before the first look", Created, 0, &[(3_000, NewRule(2_000, keep))], Some(4_000)),
        ("shorter, long before the first look", Created, 0, &[(500, NewRule(2_000, keep))], Some(2_000)),
        ("shorter, while open", Created, 0,
            &[(0, OpenFile), (5_100, NewRule(2_000, keep)), (5_200, CloseFile)], Some(8_100)),
        ("shorter, and written", Created, 0, &[(5_100, Write), (5_100, NewRule(2_000, keep))], Some(7_100)),
        ("longer", Created, 0, &closed(4_900, &[(5_100, NewRule(30_000, keep))]), Some(30_000)),
        ("longer, late", Created, 0, &[(8_000, NewRule(12_000, keep))], Some(14_000)),
        // It was open at a look when holders did not count. With the new rules they do.
        ("keep instead of reap", Created, 0,
            &[(0, NewRule(10_000, reap)), (0, OpenFile), (5_500, CloseFile), (5_600, NewRule(10_000, keep))],
            Some(15_600)),
        ("keep instead of reap, open at the second look", Created, 0,
            &[(0, NewRule(10_000, reap)), (5_100, OpenFile), (5_200, NewRule(10_000, reap)), (5_500, CloseFile),
              (5_600, NewRule(10_000, keep))], Some(15_600)),
        ("reap instead of keep", Created, 0,
            &[(0, OpenFile), (5_500, CloseFile), (5_600, NewRule(10_000, reap))], Some(10_600)),
    ];
    for (name, origin, age, script, want) in rows {
        let mut sim = Simulation::new(*origin, *age, UPTIME, GRACE);
        let judged = sim.run(script);
        assert_eq!(judged, *want, "{name}; looked at {:?}", sim.looks);
    }
}

/// New rules do not restart the 24 hours after which a pid no longer counts.
#[test]
fn new_rules_do_not_reset_the_unused_time() {
    let mut sim = Simulation::new(Origin::Found, YEAR, UPTIME, GRACE);
    let unused = |next| match next {
        Next::Judge(quiet) => quiet.unused,
        Next::LookAt(at) => panic!("{at:?}"),
    };
    sim.look();
    sim.at = 1_000;
    let before = unused(sim.look());
    sim.apply(NewRule(8_000, Open::Keep));
    assert_eq!(sim.look(), Next::LookAt(sim.mono().after(GRACE * 2 / 5)));
    sim.at = 5_000;
    assert_eq!(unused(sim.look()), before + Duration::from_secs(4));
}

/// A temp that a worker has checked out when the rules change may be looked at by the old rules.
#[test]
fn new_rules_reach_a_checked_out_temp() {
    let (mut temp, now) = ready();
    temp.mark_rules_changed(now);
    assert!(temp.check_out().has_new_rules() && temp.is_checked_out());
    assert!(
        !temp.has_new_rules(),
        "the copy is looked at by the new rules"
    );
    temp.mark_rules_changed(now);
    assert!(temp.has_new_rules());
}

/// A look with an unknown use state does not start the grace. It starts at the first look that proves it unused.
#[test]
fn an_unknown_use_state_starts_no_grace() {
    let mut sim = Simulation::new(Origin::Found, YEAR, UPTIME, GRACE);
    let mut look = |at, use_state| {
        sim.at = at;
        let now = sim.now();
        let look = Look {
            began: now,
            ended: now,
            last_jump: None,
            fingerprint: sim.file,
            lag: Duration::ZERO,
            use_state,
        };
        sim.temp.look(&look, GRACE, Open::Keep)
    };
    assert!(matches!(look(0, UseState::Unknown), Next::LookAt(_)));
    assert!(
        matches!(look(1_000, UseState::Unknown), Next::Judge(_)),
        "so that the reason is reported"
    );
    let free = look(2_000, UseState::Unused);
    assert_eq!(free, Next::LookAt(Mono((UPTIME + 12_000) * MS)));
    assert!(matches!(look(12_000, UseState::Unused), Next::Judge(_)));
}

#[test]
fn an_ignored_temp_is_never_due() {
    let now = Mono(UPTIME * MS);
    let mut temp = Tracked::ignored(now);
    temp.mark_rules_changed(now);
    assert_eq!(temp.due(), Mono(u64::MAX), "with any rules");
    assert!(temp.is_ignored());
    assert!(!Tracked::found(now, Origin::Found).is_ignored());
}

#[test]
fn new_rules_make_a_temp_due_at_once() {
    let (mut temp, now) = ready();
    _ = temp.keep(Reason::HardLinked, GRACE, now);
    temp.mark_rules_changed(now);
    assert_eq!(temp.due(), now);
    temp.mark_rules_changed(now.after(GRACE));
    assert_eq!(temp.due(), now, "an earlier look is not delayed");
}

/// `orphand status` shows the reason of the last verdict.
#[test]
fn the_last_reason_is_remembered() {
    let now = Mono(UPTIME * MS);
    let mut unseen = Tracked::found(now, Origin::Found);
    _ = unseen.retry_later(GRACE, now);
    assert_eq!((unseen.is_kept(), unseen.kept_for()), (false, None));

    let (mut temp, now) = ready();
    assert_eq!((temp.is_kept(), temp.kept_for()), (false, None));
    assert!(!temp.keep(Reason::InUse, GRACE, now).reported_before);
    assert_eq!(temp.kept_for(), Some(Reason::InUse));
    assert!(temp.keep(Reason::HardLinked, GRACE, now).reported_before);
    assert_eq!(temp.kept_for(), Some(Reason::HardLinked));
}

/// A holder that only the removal protocol finds counts like one that a look finds.
#[test]
fn a_holder_found_after_the_look_counts() {
    let mut sim = Simulation::new(Origin::Found, YEAR, UPTIME, GRACE);
    sim.temp.mark_held();
    sim.look();
    sim.at = 1_000;
    assert!(
        matches!(sim.look(), Next::Judge(_)),
        "there was no look before the mark"
    );
    sim.temp.mark_held();
    assert_eq!(sim.look(), Next::LookAt(Mono((UPTIME + 11_000) * MS)));
}

/// There may be a million tracked temps.
#[test]
fn a_tracked_temp_is_small() {
    assert!(size_of::<Tracked>() <= 104, "{}", size_of::<Tracked>());
}

/// One look of a random history.
#[derive(Clone, Copy, Debug)]
struct ModelStep {
    /// Milliseconds since the previous look.
    delay: u64,
    /// Index of the file that exists then.
    file: usize,
    in_use: bool,
    /// Change of the wall clock before the look, in milliseconds.
    jump: i64,
    /// The duration of the look, in milliseconds.
    slow: u64,
}

/// A model that stores the whole history and computes the result from it at every look.
struct Model {
    seen: Mono,
    origin: Origin,
    grace: Duration,
    history: Vec<Look>,
}

impl Model {
    /// Returns when the temp may be judged, by the whole history. The last look in it is now.
    fn may_be_judged(&self) -> Mono {
        let history = &self.history;
        let last = history.len() - 1;
        // The looks before this one that saw the same file and no holder.
        let same = |i: &usize| history[*i].fingerprint == history[last].fingerprint;
        let unused = |i: &usize| !history[*i].use_state.is_held();
        let first = (0..=last)
            .rev()
            .take_while(|i| same(i) && unused(i))
            .last()
            .unwrap_or(last);
        let was_in_use = first > 0 && history[first - 1].use_state.is_held();
        let look = &history[first];
        let credit = match was_in_use {
            true => Duration::ZERO,
            // It has changed since an earlier look.
            false if first > 0 => self.credit(look).min(self.grace / 2),
            false => self.credit(look),
        };
        let ended = look.ended.mono;
        let quiet = ended.before(credit).after(self.grace);
        quiet.max(ended.after(min_observation_gap(self.grace, Duration::ZERO)))
    }

    fn credit(&self, look: &Look) -> Duration {
        let file = &look.fingerprint;
        let dates = [Some(file.mtime), Some(file.ctime), file.btime];
        let age = dates
            .into_iter()
            .flatten()
            .map(|date| look.ended.wall.since(date))
            .min();
        let since = |moment: Mono| look.ended.mono.since(moment);
        let mut bounds = vec![
            age.unwrap(),
            match self.origin {
                Origin::Found => self.grace - min_observation_gap(self.grace, Duration::ZERO),
                _ => self.grace / 2,
            },
            since(Mono(0)),
        ];
        bounds.extend(look.last_jump.map(since));
        if matches!(self.origin, Origin::Created | Origin::FoundWithoutCredit) {
            bounds.push(since(self.seen));
        }
        bounds.into_iter().min().unwrap()
    }
}

fn origins() -> impl Strategy<Value = Origin> {
    prop::sample::select(vec![
        Origin::Created,
        Origin::Found,
        Origin::FoundWithoutCredit,
        Origin::FoundWithHalfCredit,
    ])
}

fn graces() -> impl Strategy<Value = Duration> {
    prop::sample::select(vec![100, 400, 2_000, 10_000, 300_000]).prop_map(Duration::from_millis)
}

/// Delays at every boundary of a rule, and some in between.
fn delays(grace: Duration) -> impl Strategy<Value = u64> {
    let (grace, gap) = (
        grace.as_millis() as u64,
        min_observation_gap(grace, Duration::ZERO).as_millis() as u64,
    );
    let boundaries = vec![0, 1, gap - 1, gap, grace / 2, grace - gap, grace - 1, grace];
    prop_oneof![prop::sample::select(boundaries), 0..2 * grace]
}

fn steps(grace: Duration) -> impl Strategy<Value = Vec<ModelStep>> {
    let jumps = prop_oneof![
        6 => Just(0),
        1 => -1_999..=1_999i64,
        1 => prop::sample::select(vec![2_001, -2_001, HOUR, -HOUR, YEAR, -YEAR]),
    ];
    let step = (
        delays(grace),
        prop_oneof![5 => Just(0usize), 1 => 1..4usize],
        0..5u8,
        jumps,
        prop_oneof![5 => Just(0), 1 => 1..5_000u64],
    );
    let step = step.prop_map(|(delay, file, in_use, jump, slow)| ModelStep {
        delay,
        file,
        in_use: in_use == 0,
        jump,
        slow,
    });
    prop::collection::vec(step, 1..40)
}

fn files() -> impl Strategy<Value = Vec<Fingerprint>> {
    let age = prop_oneof![-HOUR..HOUR, Just(0), 0..20_000i64, Just(YEAR)];
    let file = (age.clone(), age.clone(), age, any::<bool>(), 0..2u64);
    let file = file.prop_map(|(mtime, ctime, btime, has_btime, ino)| Fingerprint {
        mtime: wall(-mtime),
        ctime: wall(-ctime),
        btime: has_btime.then(|| wall(-btime)),
        ino,
        ..Simulation::new(Origin::Found, 0, UPTIME, GRACE).file
    });
    prop::collection::vec(file, 4).prop_map(|mut files| {
        for (size, file) in files.iter_mut().enumerate() {
            file.size = size as u64;
        }
        files
    })
}

fn histories() -> impl Strategy<Value = (Origin, Duration, u64, Vec<Fingerprint>, Vec<ModelStep>)> {
    let up = prop_oneof![Just(UPTIME), 0..20_000u64];
    (origins(), graces(), up, files()).prop_flat_map(|(origin, grace, up, files)| {
        (
            Just(origin),
            Just(grace),
            Just(up),
            Just(files),
            steps(grace),
        )
    })
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 2_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// The tracker judges a temp exactly when the model permits it, and otherwise returns the moment at which the model
    /// permits it.
    #[test]
    fn the_tracker_agrees_with_a_naive_model((origin, grace, up, files, steps) in histories()) {
        let mut sim = Simulation::new(origin, 0, up, grace);
        let seen = sim.mono();
        let mut model = Model { seen, origin, grace, history: Vec::new() };
        for step in steps {
            sim.at += step.delay;
            sim.apply(SetClock(step.jump));
            sim.file = files[step.file];
            sim.in_use = step.in_use;
            sim.slow = step.slow;
            let now = sim.now();
            let ended = Now { mono: now.mono.after(Duration::from_millis(step.slow)), wall: wall(sim.at as i64 + sim.clock_offset + step.slow as i64) };
            // A copy of the detector, so that the model and the tracker get the same result.
            let last_jump = sim.clocks.clone().read(ended);
            let use_state = if step.in_use { UseState::InUse } else { UseState::Unused };
            model.history.push(Look { began: now, ended, last_jump, fingerprint: sim.file, lag: Duration::ZERO, use_state });
            let next = sim.look();
            if step.in_use {
                // It may be judged early, so that its holder is reported. A gate keeps it.
                continue;
            }
            let when = model.may_be_judged();
            match next {
                Next::Judge(quiet) => {
                    prop_assert!(now.mono >= when, "{:?} too early", when.since(now.mono));
                    prop_assert_eq!(quiet.fingerprint, sim.file);
                    prop_assert!(quiet.quiet >= grace);
                }
                Next::LookAt(at) => {
                    prop_assert!(now.mono < when, "{:?} late", now.mono.since(when));
                    prop_assert_eq!(at, when);
                    prop_assert_eq!(sim.temp.due(), when);
                }
            }
        }
    }

    /// An untouched temp without holders is judged at its second look. That look is due at most one grace after the
    /// first one, whatever the clocks do and however late the looks are.
    #[test]
    fn an_untouched_temp_is_judged(
        origin in origins(),
        grace in graces(),
        up in prop_oneof![Just(UPTIME), 0..20_000u64],
        age in prop_oneof![0..YEAR, -YEAR..0],
        jumps in prop::collection::vec(prop_oneof![Just(0), -YEAR..YEAR], 2),
        lateness in prop::collection::vec(0..5_000u64, 2),
    ) {
        let mut sim = Simulation::new(origin, age, up, grace);
        let mut first = None;
        for (jump, late) in jumps.into_iter().zip(lateness) {
            sim.apply(SetClock(jump));
            sim.at = (sim.temp.due().0 / MS).saturating_sub(up) + late;
            match (sim.look(), first) {
                (Next::LookAt(at), None) => {
                    let now = sim.mono();
                    prop_assert!(at >= now.after(min_observation_gap(grace, Duration::ZERO)) && at <= now.after(grace));
                    first = Some(at);
                }
                (Next::Judge(_), Some(due)) => prop_assert!(sim.mono() >= due),
                (next, _) => prop_assert!(false, "{:?} at look {}", next, sim.looks.len()),
            }
        }
    }

    /// A writer that keeps its temp open, and renames it less than half the grace after the close, loses nothing. The
    /// times of its writes and the clocks do not matter. (Looks are on time.)
    #[test]
    fn a_running_writer_loses_nothing(
        grace in graces(),
        close in 0..60u64,
        pause in 0..50u64,
        writes in prop::collection::vec(0..60u64, 0..4),
        jumps in prop::collection::vec((0..80u64, prop_oneof![-3_000..3_000i64, -YEAR..YEAR]), 0..3),
    ) {
        // `pause` is in hundredths of the grace, all other times are in twentieths.
        let part = |twentieths: u64| twentieths * grace.as_millis() as u64 / 20;
        let close = part(close);
        let rename = close + pause * grace.as_millis() as u64 / 100;
        let mut script = vec![(0, OpenFile), (close, CloseFile), (rename, Remove)];
        script.extend(writes.into_iter().map(part).filter(|at| *at <= close).map(|at| (at, Write)));
        script.extend(jumps.into_iter().map(|(at, by)| (part(at), SetClock(by))));
        script.sort_by_key(|(at, _)| *at);
        let mut sim = Simulation::new(Origin::Created, 0, UPTIME, grace);
        prop_assert_eq!(sim.run(&script), None, "{:?}", script);
    }
}
