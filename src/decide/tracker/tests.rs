//! Time is an argument, so the tests move it: no sleep, no file.

use proptest::prelude::*;

use super::*;
use crate::decide::judge::Dates;
use crate::decide::observation::Kind;
use crate::decide::time::{ClockJumpDetector, Wall};

const MS: u64 = 1_000_000;
const GRACE: Duration = Duration::from_secs(10);
/// How long the machine has been up when a story begins, in milliseconds.
const UP: u64 = 24 * 3600 * 1000;
/// The date when a story begins, in seconds.
const DATE: i64 = 2_000_000_000;
const HOUR: i64 = 3600 * 1000;
const YEAR: i64 = 365 * 24 * HOUR;

/// What happens on the machine, apart from orphand.
#[derive(Clone, Copy, Debug)]
enum Do {
    /// Somebody writes.
    Write,
    /// A process writes the file anew, with the same length, and closes it.
    Rewrite,
    /// Somebody writes and sets `mtime` back, as rsync and tar do.
    WriteAndDateBack,
    /// Another file takes the name.
    Replace,
    /// Somebody opens it, and does not let go.
    Grab,
    /// They let go.
    LetGo,
    /// The wall clock is set, by so many milliseconds.
    SetClock(i64),
    /// The machine sleeps for so many milliseconds.
    Sleep(i64),
    /// It is renamed or removed.
    Gone,
    /// The rules are read again: this is the grace now, in milliseconds, and this befalls what is open.
    Rule(u64, Open),
}
use Do::*;

/// What happens when, in milliseconds by the monotonic clock.
type Script<'a> = &'a [(u64, Do)];

/// A machine with two clocks and one temp on it, and what orphand knows of that.
struct Story {
    /// Milliseconds since it began, by the monotonic clock.
    at: u64,
    up: u64,
    /// How far the wall clock has parted from the monotonic one, in milliseconds.
    parted_by: i64,
    clocks: ClockJumpDetector,
    file: Fingerprint,
    held: bool,
    gone: bool,
    /// Its file system keeps dates of whole seconds.
    whole_seconds: bool,
    grace: Duration,
    open: Open,
    temp: Tracked,
    /// When it was looked at.
    looks: Vec<u64>,
}

impl Story {
    /// The temp is `age` milliseconds old when it comes to be known.
    fn new(origin: Origin, age: i64, up: u64, grace: Duration) -> Story {
        let born = wall(-age);
        let seen = Mono(up * MS);
        let mut clocks = ClockJumpDetector::default();
        clocks.read(Now {
            mono: seen,
            wall: wall(0),
        });
        Story {
            at: 0,
            up,
            parted_by: 0,
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
            held: false,
            gone: false,
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
        wall(self.at as i64 + self.parted_by)
    }

    fn happen(&mut self, what: Do) {
        let now = self.wall();
        match what {
            Write | WriteAndDateBack => {
                self.file.size += 1;
                self.file.ctime = now;
                self.file.mtime = match what {
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
            Grab => self.held = true,
            LetGo => self.held = false,
            SetClock(by) | Sleep(by) => self.parted_by += by,
            Gone => self.gone = true,
            Rule(grace, open) => {
                self.grace = Duration::from_millis(grace);
                self.open = open;
                self.temp.mark_rules_changed(self.mono());
            }
        }
    }

    /// What a look sees now.
    fn see(&mut self) -> Look {
        let now = Now {
            mono: self.mono(),
            wall: self.wall(),
        };
        let kept = |date: Wall| match self.whole_seconds {
            true => Wall { nsec: 0, ..date },
            false => date,
        };
        let file = Fingerprint {
            mtime: kept(self.file.mtime),
            ctime: kept(self.file.ctime),
            btime: self.file.btime.filter(|_| !self.whole_seconds),
            ..self.file
        };
        Look {
            now,
            last_jump: self.clocks.read(now),
            fingerprint: file,
            lag: match self.whole_seconds {
                true => Dates::FineIfBorn.lag(&file),
                false => Duration::ZERO,
            },
            use_state: match self.held {
                true => UseState::InUse,
                false => UseState::Unused,
            },
        }
    }

    fn look(&mut self) -> Next {
        self.looks.push(self.at);
        let look = self.see();
        self.temp.look(&look, self.grace, self.open)
    }

    /// Lets `script` happen, and looks when it is time to. When the temp is judged and nobody holds
    /// it; `None` if that does not come.
    fn judged(&mut self, script: Script<'_>) -> Option<u64> {
        let mut script = script.iter().peekable();
        let the_end = 100 * self.grace.as_millis() as u64;
        while self.at < the_end {
            let mut due = (self.temp.due().0 / MS)
                .saturating_sub(self.up)
                .max(self.at);
            while let Some((at, what)) = script.next_if(|(at, _)| *at <= due) {
                self.at = *at;
                self.happen(*what);
                if matches!(what, Rule(..)) {
                    due = self.at;
                }
            }
            self.at = due;
            if self.gone {
                return None;
            }
            match self.look() {
                Next::Judge(_) if self.held && self.open == Open::Keep => {
                    let now = self.mono();
                    _ = self.temp.keep(Reason::InUse, self.grace, now);
                }
                Next::Judge(_) => return Some(self.at),
                Next::LookAt(at) => assert!(at > self.mono(), "{at:?} is now or over"),
            }
        }
        None
    }
}

/// The date `ms` after the story began.
fn wall(ms: i64) -> Wall {
    Wall {
        sec: DATE + ms.div_euclid(1000),
        nsec: ms.rem_euclid(1000) as u32 * 1_000_000,
    }
}

/// When a temp is judged, by what happens to it. The grace is 10 s; all times are milliseconds.
#[test]
fn when_it_is_judged() {
    use Origin::*;
    let held = |from, to| [(from, Grab), (to, LetGo)];
    #[rustfmt::skip]
    let rows: &[(&str, Origin, i64, Script<'_>, Option<u64>)] = &[
        // Looked at twice.
        ("created, then left alone", Created, 0, &[], Some(10_000)),
        ("found long after", Found, YEAR, &[], Some(1_000)),
        ("found right after", Found, 0, &[], Some(10_000)),
        ("found at 4 s", Found, 4_000, &[], Some(6_000)),
        ("found at 9 s: looked at a whole confirm later", Found, 9_000, &[], Some(1_000)),
        ("found at 9.5 s: the same", Found, 9_500, &[], Some(1_000)),
        ("found, and to wait", FoundWithoutCredit, YEAR, &[], Some(10_000)),
        ("found in time", FoundWithHalfCredit, 4_000, &[], Some(6_000)),
        ("found by a scan that came late", FoundWithHalfCredit, 9_000, &[], Some(5_000)),
        // What is old and renamed into the directory was still seen coming only now.
        ("moved in, a year old", Created, YEAR, &[], Some(10_000)),
        // Touched: the grace starts there.
        ("before the first look", Created, 0, &[(4_000, Write)], Some(14_000)),
        ("between the looks", Created, 0, &[(6_000, Write)], Some(16_000)),
        ("just before the second", Created, 0, &[(10_000, Write)], Some(20_000)),
        ("between the looks of a found one", Found, YEAR, &[(500, Write)], Some(10_500)),
        ("mtime set back", Found, YEAR, &[(500, WriteAndDateBack)], Some(10_500)),
        ("another file by that name", Created, 0, &[(6_000, Replace)], Some(16_000)),
        ("again and again", Created, 0, &[(4_000, Write), (13_000, Write), (22_000, Write)], Some(32_000)),
        // Held: the grace starts at the first look that finds it free.
        ("held at the first look", Created, 0, &held(0, 5_001), Some(20_000)),
        ("held for 0.85 of the grace", Created, 0, &held(0, 8_500), Some(20_000)),
        ("held at the second look", Created, 0, &held(6_000, 10_500), Some(30_000)),
        ("held when found", Found, YEAR, &held(0, 500), Some(11_000)),
        ("held for long", Created, 0, &held(0, 95_000), Some(110_000)),
        ("held for ever", Created, 0, &[(0, Grab)], None),
        ("written, held, let go", Created, 0, &[(7_000, Write), (7_000, Grab), (12_000, LetGo)], Some(30_000)),
        ("a holder that nobody saw", Created, 0, &held(1_000, 4_000), Some(10_000)),
        // Settled.
        ("renamed in time", Created, 0, &[(9_999, Gone)], None),
        ("held for 0.85, renamed at 1.15", Created, 0, &[(0, Grab), (8_500, LetGo), (11_500, Gone)], None),
        // The wall clock. Whatever it is set to, the grace is served by the other one.
        ("set forward, created", Created, 0, &[(1_000, SetClock(HOUR))], Some(15_000)),
        ("set back, created", Created, 0, &[(1_000, SetClock(-YEAR))], Some(15_000)),
        ("set forward, then found", Found, 3_000, &[(0, SetClock(HOUR))], Some(10_000)),
        ("set back, then found", Found, 3_000, &[(0, SetClock(-YEAR))], Some(10_000)),
        ("set forward between two looks", Found, 3_000, &[(1, SetClock(HOUR))], Some(7_000)),
        ("set back between two looks", Found, 3_000, &[(1, SetClock(-YEAR))], Some(7_000)),
        ("slept, then found", Found, 3_000, &[(0, Sleep(8 * HOUR))], Some(10_000)),
        ("slept before the first look", Created, 0, &[(1_000, Sleep(8 * HOUR))], Some(15_000)),
        // The jump may be as young as the look that shows it.
        ("written, then set forward", Created, 0, &[(6_000, Write), (7_000, SetClock(HOUR))], Some(20_000)),
        ("dated ahead", Created, 0, &[(0, SetClock(HOUR)), (0, Write), (0, SetClock(-HOUR))], Some(15_000)),
    ];
    for (name, origin, age, script, want) in rows {
        let mut story = Story::new(*origin, *age, UP, GRACE);
        assert_eq!(
            story.judged(script),
            *want,
            "{name}; looked at {:?}",
            story.looks
        );
    }
}

/// The credit of the first look is at most each of these. Every row is bounded by one of them alone.
#[test]
fn what_bounds_the_credit() {
    use Origin::*;
    let s = Duration::from_secs;
    let no_jump: Script<'_> = &[];
    #[rustfmt::skip]
    let rows: [(&str, Origin, i64, u64, Script<'_>, Duration, u64); 9] = [
        ("its age", Found, 4_000, UP, no_jump, s(10), 6_000),
        ("grace - confirm", Found, YEAR, UP, no_jump, s(10), 1_000),
        ("grace - confirm, short", Found, YEAR, UP, no_jump, Duration::from_millis(200), 100),
        ("since boot", Found, YEAR, 3_000, no_jump, s(10), 7_000),
        ("since its creation was seen", Created, YEAR, UP, no_jump, s(10), 10_000),
        ("since it is to wait", FoundWithoutCredit, YEAR, UP, no_jump, s(10), 10_000),
        ("half a grace", FoundWithHalfCredit, YEAR, UP, no_jump, s(10), 5_000),
        ("since the clocks parted", Found, YEAR, UP, &[(0, SetClock(HOUR))], s(10), 10_000),
        ("never below zero", Found, -YEAR, UP, no_jump, s(10), 10_000),
    ];
    for (name, origin, age, up, script, grace, want) in rows {
        let mut story = Story::new(origin, age, up, grace);
        assert_eq!(story.judged(script), Some(want), "{name}");
    }
}

/// A jump that lies back by a known span leaves that span as credit.
#[test]
fn the_clocks_parted_some_time_ago() {
    for (ago, want) in [(0, 10_000), (3_000, 7_000), (8_999, 1_001), (60_000, 1_000)] {
        let mut story = Story::new(Origin::Found, YEAR, UP, GRACE);
        let now = Now {
            mono: story.mono(),
            wall: story.wall(),
        };
        let look = Look {
            now,
            last_jump: Some(now.mono.before(Duration::from_millis(ago))),
            fingerprint: story.file,
            lag: Duration::ZERO,
            use_state: UseState::Unused,
        };
        let want = Next::LookAt(now.mono.after(Duration::from_millis(want)));
        assert_eq!(
            story.temp.look(&look, GRACE, Open::Keep),
            want,
            "{ago} ms ago"
        );
    }
}

/// A look may come late: a disk hangs, or orphand is stopped. Its writer may have closed it just then.
#[test]
fn a_late_look_leaves_half_a_grace() {
    for origin in [
        Origin::Created,
        Origin::FoundWithoutCredit,
        Origin::FoundWithHalfCredit,
    ] {
        for late in [5_000, 9_000, 9_999, 10_000, 30_000, YEAR as u64] {
            let mut story = Story::new(origin, 0, UP, GRACE);
            let now = Now {
                mono: story.mono().after(Duration::from_millis(late)),
                wall: wall(late as i64),
            };
            let look = Look {
                now,
                last_jump: None,
                fingerprint: story.file,
                lag: Duration::ZERO,
                use_state: UseState::Unused,
            };
            let half = Next::LookAt(now.mono.after(GRACE / 2));
            assert_eq!(
                story.temp.look(&look, GRACE, Open::Keep),
                half,
                "{origin:?} {late} ms"
            );
        }
    }
}

#[test]
fn when_it_is_looked_at() {
    let looks = |origin, age| {
        let mut story = Story::new(origin, age, UP, GRACE);
        story.judged(&[]);
        story.looks
    };
    assert_eq!(
        looks(Origin::Created, 0),
        [5_000, 10_000],
        "grace/2 and grace"
    );
    assert_eq!(
        looks(Origin::Found, YEAR),
        [0, 1_000],
        "at once and after confirm"
    );
    assert_eq!(looks(Origin::FoundWithoutCredit, YEAR), [0, 10_000]);
}

/// For how long its writer may hold it, and how much later rename it: the promise is less than half
/// a grace from close to rename, for one whose creation was seen, and where scans come in the place
/// of events, however late they are.
#[test]
fn a_writer_that_closes_and_renames_in_time_loses_nothing() {
    let ages = [0, 4_000, 5_000, 9_000, YEAR].map(|age| (Origin::FoundWithHalfCredit, age));
    for (origin, age) in [(Origin::Created, 0)].into_iter().chain(ages) {
        for close in (0..=40_000).step_by(50) {
            let rename = close + 4_999;
            for write in [None, Some(0), Some(close / 2), Some(close)] {
                let mut script = vec![(0, Grab), (close, LetGo), (rename, Gone)];
                script.extend(write.map(|at| (at, Write)));
                script.sort_by_key(|(at, _)| *at);
                let mut story = Story::new(origin, age, UP, GRACE);
                let judged = story.judged(&script);
                assert_eq!(
                    judged, None,
                    "{origin:?} at {age}, closed at {close}, written at {write:?}, renamed at {rename}"
                );
            }
        }
    }
}

/// Nor where a shorter grace comes into force meanwhile: the promise is half of that.
#[test]
fn a_writer_that_renames_in_time_loses_nothing_to_other_rules() {
    for grace in [200, 2_000, 8_000] {
        for close in (0..=21_000).step_by(300) {
            let rename = close + grace / 2 - 1;
            for rule in (0..=rename).step_by(100) {
                let mut script = vec![
                    (0, Grab),
                    (close, LetGo),
                    (rename, Gone),
                    (rule, Rule(grace, Open::Keep)),
                ];
                script.sort_by_key(|(at, _)| *at);
                for origin in [Origin::Created, Origin::FoundWithHalfCredit] {
                    let mut story = Story::new(origin, 0, UP, GRACE);
                    let judged = story.judged(&script);
                    assert_eq!(judged, None, "{origin:?}: {script:?}; {:?}", story.looks);
                }
            }
        }
    }
}

/// A scan promises less: confirm.
#[test]
fn a_writer_that_a_scan_meets_has_confirm() {
    for close in (0..=40_000).step_by(50) {
        let script = [(0, Grab), (close, LetGo), (close + 999, Gone)];
        let mut story = Story::new(Origin::Found, YEAR, UP, GRACE);
        assert_eq!(story.judged(&script), None, "closed at {close}");
    }
    // Closed just before the scan, and renamed just before the second look.
    let mut story = Story::new(Origin::Found, YEAR, UP, GRACE);
    assert_eq!(story.judged(&[(999, Gone)]), None);
}

#[test]
fn who_may_take_what_is_open_does_not_wait_for_its_holder() {
    for open in [Open::Reap, Open::Quarantine] {
        let mut story = Story::new(Origin::Created, 0, UP, GRACE);
        story.open = open;
        assert_eq!(story.judged(&[(0, Grab)]), Some(10_000), "{open:?}");
    }
}

/// Though it may be moved while it is held: whoever writes is not done, and its grace begins again.
#[test]
fn what_is_held_and_written_to_is_not_quiet() {
    let writes = [(0, Grab), (4_000, Write), (9_000, Write), (18_000, Write)];
    for (open, want) in [(Open::Reap, 28_000), (Open::Quarantine, 34_000)] {
        let mut story = Story::new(Origin::Created, 0, UP, GRACE);
        story.open = open;
        assert_eq!(
            story.judged(&writes),
            Some(want),
            "{open:?}: {:?}",
            story.looks
        );
    }
}

/// A look that comes too soon changes nothing: neither the moment nor, by looking again and again,
/// the proof that two looks lie confirm apart.
#[test]
fn looking_early_does_not_hurry_it() {
    let mut story = Story::new(Origin::Found, YEAR, UP, GRACE);
    let due = story.mono().after(Duration::from_secs(1));
    for at in 0..1_000 {
        story.at = at;
        assert_eq!(story.look(), Next::LookAt(due), "at {at}");
    }
    story.at = 1_000;
    assert!(matches!(story.look(), Next::Judge(_)));
}

/// A file system with dates of whole seconds does not show a second write within one second. Its writer loses nothing
/// as long as it renames within half a grace of its last write; within a second and a half, where a scan found it.
#[test]
fn dates_of_whole_seconds_hide_no_writer() {
    let grace = Duration::from_secs(3);
    for (origin, pause) in [(Origin::Created, 1_499), (Origin::Found, 1_499)] {
        for phase in (0..1_000).step_by(97) {
            for first in (0..1_500).step_by(53) {
                for again in [1, 250, 600, 950] {
                    let (one, two) = (phase + first, phase + first + again);
                    let script = [(one, Rewrite), (two, Rewrite), (two + pause, Gone)];
                    let mut story = Story::new(origin, 0, UP, grace);
                    story.whole_seconds = true;
                    story.at = phase;
                    story.temp = match origin {
                        Origin::Created => Tracked::created(story.mono(), grace),
                        found => Tracked::found(story.mono(), found),
                    };
                    let judged = story.judged(&script);
                    assert_eq!(judged, None, "{origin:?} {script:?}: {:?}", story.looks);
                }
            }
        }
    }
}

/// It is still removed, later by the second that its dates do not tell.
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
        let mut story = Story::new(origin, age, UP, grace);
        story.whole_seconds = true;
        let judged = story.judged(&[]);
        assert_eq!(judged, want, "{origin:?} {age}: {:?}", story.looks);
    }
}

/// It is judged, so that a gate keeps it and says so.
#[test]
fn a_doubt_is_judged() {
    let mut story = Story::new(Origin::Found, YEAR, UP, GRACE);
    let mut look = Look {
        now: Now {
            mono: story.mono(),
            wall: story.wall(),
        },
        last_jump: None,
        fingerprint: story.file,
        lag: Duration::ZERO,
        use_state: UseState::Unknown,
    };
    _ = story.temp.look(&look, GRACE, Open::Keep);
    look.now.mono = look.now.mono.after(Duration::from_secs(1));
    let judged = story.temp.look(&look, GRACE, Open::Keep);
    assert!(matches!(judged, Next::Judge(_)), "{judged:?}");
}

#[test]
fn a_lock_counts_as_a_holder() {
    let mut story = Story::new(Origin::Found, YEAR, UP, GRACE);
    let at = |ms, hold| Look {
        now: Now {
            mono: Mono((UP + ms) * MS),
            wall: wall(ms as i64),
        },
        last_jump: None,
        fingerprint: story.file,
        lag: Duration::ZERO,
        use_state: hold,
    };
    let temp = &mut story.temp;
    _ = temp.look(&at(0, UseState::Locked), GRACE, Open::Keep);
    let next = temp.look(&at(1_000, UseState::Unused), GRACE, Open::Keep);
    assert_eq!(next, Next::LookAt(Mono((UP + 11_000) * MS)));
}

/// What it was quiet for by its dates, and what of that counts towards the grace.
#[test]
fn quiet_and_unused() {
    let quiet = |origin, age| {
        let mut story = Story::new(origin, age, UP, GRACE);
        loop {
            story.at = (story.temp.due().0 / MS).saturating_sub(UP);
            if let Next::Judge(quiet) = story.look() {
                return (
                    quiet.quiet.as_millis(),
                    quiet.unused.as_millis(),
                    quiet.fingerprint,
                );
            }
        }
    };
    let file = |age| Story::new(Origin::Found, age, UP, GRACE).file;
    assert_eq!(
        quiet(Origin::Found, 3 * HOUR),
        (10_000, 3 * HOUR as u128 + 1_000, file(3 * HOUR))
    );
    let since_boot = u128::from(UP) + 1_000;
    assert_eq!(
        quiet(Origin::Found, YEAR),
        (10_000, since_boot, file(YEAR)),
        "no longer than up"
    );
    assert_eq!(
        quiet(Origin::Created, YEAR),
        (10_000, 10_000, file(YEAR)),
        "since it was seen"
    );
}

#[test]
fn a_hold_counts_against_the_24_hours_too() {
    let mut story = Story::new(Origin::Found, 3 * HOUR, UP, GRACE);
    story.held = true;
    story.look();
    story.at = 1_000;
    story.held = false;
    assert_eq!(story.look(), Next::LookAt(Mono((UP + 11_000) * MS)));
    story.at = 11_000;
    match story.look() {
        Next::Judge(quiet) => assert_eq!(quiet.unused, GRACE),
        next => panic!("{next:?}"),
    }
}

/// One map serves several rules: the shortest grace decides when a temp is first thought of, its
/// own when it is looked at.
#[test]
fn a_longer_grace_of_its_own_puts_the_first_look_off() {
    let (seen, own) = (Mono(UP * MS), Duration::from_secs(60));
    let mut temp = Tracked::created(seen, GRACE);
    assert_eq!(temp.due(), seen.after(GRACE / 2));
    assert!(temp.postpone(own, temp.due()));
    assert_eq!(temp.due(), seen.after(own / 2));
    assert!(!temp.postpone(own, temp.due()), "now it is time");
    for origin in [Origin::Found, Origin::FoundWithoutCredit] {
        assert!(
            !Tracked::found(seen, origin).postpone(own, seen),
            "{origin:?} is looked at at once"
        );
    }
    let mut story = Story::new(Origin::Created, 0, UP, GRACE);
    story.at = 5_000;
    story.look();
    let due = story.temp.due();
    assert!(!story.temp.postpone(own, story.mono()), "it was looked at");
    assert_eq!(story.temp.due(), due);
}

/// A temp that was looked at twice, and so may be judged.
fn ready() -> (Tracked, Mono) {
    let mut story = Story::new(Origin::Found, YEAR, UP, GRACE);
    story.look();
    story.at = 1_000;
    assert!(matches!(story.look(), Next::Judge(_)));
    let now = story.mono();
    (story.temp, now)
}

#[test]
fn when_a_kept_one_is_looked_at_again() {
    let s = Duration::from_secs;
    let (silent, other) = (Reason::InUse, Reason::HardLinked);
    for (grace, reason, want) in [
        (s(10), silent, [10, 10, 10, 10, 10]),
        (s(300), silent, [60, 60, 60, 60, 60]),
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
fn a_reason_is_news_once() {
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
fn what_was_said_is_said_again_only_of_another_file() {
    let mut story = Story::new(Origin::Found, YEAR, UP, GRACE);
    let says = |story: &mut Story, reason| {
        story.look();
        let now = story.mono();
        story.temp.keep(reason, GRACE, now).is_new
    };
    story.held = true;
    assert!(says(&mut story, Reason::InUse));
    story.at = 10_000;
    story.happen(Write);
    assert!(!says(&mut story, Reason::InUse), "written to by its holder");
    story.at = 20_000;
    story.held = false;
    story.look();
    story.held = true;
    assert!(!says(&mut story, Reason::InUse), "free, and held again");
    story.at = 30_000;
    story.held = false;
    story.look();
    story.happen(Write);
    assert!(says(&mut story, Reason::HardLinked));
    story.at = 40_000;
    story.happen(Write);
    assert!(
        !says(&mut story, Reason::HardLinked),
        "written to while it was free"
    );
    story.at = 50_000;
    story.happen(Replace);
    assert!(
        says(&mut story, Reason::HardLinked),
        "another file by that name"
    );
}

/// What could not be done is put aside like what is kept, and is not judged in between.
#[test]
fn put_aside() {
    let (mut temp, now) = ready();
    let _ = temp.check_out();
    let kept = temp.retry_later(GRACE, now);
    assert!(kept.is_new && !temp.is_reaping());
    assert_eq!(temp.due(), now.after(GRACE));
    assert!(!temp.retry_later(GRACE, now).is_new);
    assert_eq!(
        temp.due(),
        now.after(GRACE * 2),
        "the second time waits longer"
    );

    // What cannot even be looked at is put aside in the same way.
    let mut unseen = Tracked::found(now, Origin::Found);
    assert!(unseen.retry_later(GRACE, now).is_new);
    assert_eq!(unseen.due(), now.after(GRACE));
}

#[test]
fn what_it_remembers() {
    let seen = Mono(UP * MS);
    let mut temp = Tracked::created(seen, GRACE);
    assert_eq!(
        (temp.seen(), temp.origin(), temp.bytes()),
        (seen, Origin::Created, None)
    );
    assert!(!temp.is_closed() && !temp.is_reaping() && !temp.is_kept());
    // A file may be closed by several writers, one after the other.
    for _ in 0..2 {
        temp.close();
        let _ = temp.check_out();
        assert!(temp.is_closed() && temp.is_reaping());
    }
    assert!(!temp.clone().check_in().is_reaping());
    let mut story = Story::new(Origin::Found, YEAR, UP, GRACE);
    for size in 0..2 {
        story.look();
        assert_eq!(story.temp.bytes(), Some(size));
        story.happen(Write);
    }
}

/// Between two looks that are further apart than half a grace its writer may open it again, write, and
/// hold it until just before the second one: that look takes no more than half a grace for granted.
#[test]
fn what_has_changed_since_a_look_gets_half_a_grace() {
    for origin in [Origin::Created, Origin::Found] {
        let script = [
            (9_990, Write),
            (10_100, Grab),
            (10_100, Write),
            (19_900, LetGo),
            (19_900 + 4_900, Gone),
        ];
        let mut story = Story::new(origin, 0, UP, GRACE);
        assert_eq!(story.judged(&script), None, "{origin:?}: {:?}", story.looks);
    }
}

/// A pid counts as another's only where its process started after the last change to this very file.
#[test]
fn who_can_have_written_it() {
    let written = |origin, age: i64, script: Script<'_>| {
        let mut story = Story::new(origin, age, UP, GRACE);
        for &(at, what) in script {
            story.at = at;
            story.happen(what);
        }
        story.at = 20_000;
        let look = story.see();
        let Mono(written) = story.temp.written_by(&look)?;
        Some(written / MS - UP)
    };
    let created = |script: Script<'_>| written(Origin::Created, 0, script);
    assert_eq!(created(&[]), Some(2_000), "the clocks may differ by that");
    assert_eq!(created(&[(9_000, Write)]), Some(11_000));
    assert_eq!(created(&[(9_000, WriteAndDateBack)]), Some(11_000));
    assert_eq!(created(&[(9_000, Replace)]), Some(11_000), "unheard");
    assert_eq!(
        created(&[(19_500, Write)]),
        Some(20_000),
        "not later than now"
    );
    let aged = written(Origin::Created, YEAR, &[]);
    assert_eq!(aged, Some(0), "not before it was seen");
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

/// What was touched while it was being disposed of is somebody's: nothing of the looks before
/// counts, and nothing is said twice.
#[test]
fn it_starts_over() {
    let (mut temp, now) = ready();
    temp.close();
    let _ = temp.check_out();
    assert!(temp.keep(Reason::Changed, GRACE, now).is_new);
    let _ = temp.check_out();
    temp.reset(now, GRACE);
    assert!(
        temp.is_closed() && temp.is_reaping(),
        "what was heard of it stands"
    );
    assert_eq!(
        (temp.seen(), temp.bytes(), temp.is_kept()),
        (now, None, false)
    );
    assert_eq!(temp.due(), now.after(GRACE / 2));
    assert!(!temp.keep(Reason::Changed, GRACE, now).is_new);

    let mut story = Story::new(Origin::Found, YEAR, UP, GRACE);
    story.temp.reset(story.mono(), GRACE);
    assert_eq!(story.judged(&[]), Some(10_000), "whatever its dates say");
}

/// The rules are read again between two looks, or before the first. Its writer has as long from then on
/// as the new grace gives it, whatever the old one gave.
#[test]
fn when_it_is_judged_by_other_rules() {
    use Origin::*;
    let (keep, reap) = (Open::Keep, Open::Reap);
    let closed = |at, script: &[(u64, Do)]| [&[(0, Grab), (at, LetGo)], script].concat();
    #[rustfmt::skip]
    let rows: &[(&str, Origin, i64, Script<'_>, Option<u64>)] = &[
        // Closed just before the first look, which took half of the old grace for granted.
        ("shorter", Created, 0, &closed(4_900, &[(5_100, Rule(2_000, keep))]), Some(6_100)),
        ("shorter, renamed within half of it", Created, 0,
            &closed(4_900, &[(5_100, Rule(2_000, keep)), (5_800, Gone)]), None),
        ("shorter, found", Found, YEAR, &[(500, Rule(200, keep))], Some(600)),
        ("shorter, then the same once more", Created, 0,
            &closed(4_900, &[(5_100, Rule(2_000, keep)), (5_600, Rule(2_000, keep))]), Some(6_600)),
        ("shorter before the first look", Created, 0, &[(3_000, Rule(2_000, keep))], Some(4_000)),
        ("shorter before the first look, and that is ahead", Created, 0, &[(500, Rule(2_000, keep))], Some(2_000)),
        ("shorter, and held", Created, 0,
            &[(0, Grab), (5_100, Rule(2_000, keep)), (5_200, LetGo)], Some(8_100)),
        ("shorter, and written to", Created, 0, &[(5_100, Write), (5_100, Rule(2_000, keep))], Some(7_100)),
        ("longer", Created, 0, &closed(4_900, &[(5_100, Rule(30_000, keep))]), Some(30_000)),
        ("longer, late", Created, 0, &[(8_000, Rule(12_000, keep))], Some(14_000)),
        // Held when it was looked at, while that counted for nothing: it counts now.
        ("keep instead of reap", Created, 0,
            &[(0, Rule(10_000, reap)), (0, Grab), (5_500, LetGo), (5_600, Rule(10_000, keep))], Some(15_600)),
        ("keep instead of reap, held by the second look", Created, 0,
            &[(0, Rule(10_000, reap)), (5_100, Grab), (5_200, Rule(10_000, reap)), (5_500, LetGo),
              (5_600, Rule(10_000, keep))], Some(15_600)),
        ("reap instead of keep", Created, 0,
            &[(0, Grab), (5_500, LetGo), (5_600, Rule(10_000, reap))], Some(10_600)),
    ];
    for (name, origin, age, script, want) in rows {
        let mut story = Story::new(*origin, *age, UP, GRACE);
        let judged = story.judged(script);
        assert_eq!(judged, *want, "{name}; looked at {:?}", story.looks);
    }
}

/// The hours after which a pid counts no more are not begun again by other rules.
#[test]
fn other_rules_do_not_make_it_used() {
    let mut story = Story::new(Origin::Found, YEAR, UP, GRACE);
    let unused = |next| match next {
        Next::Judge(quiet) => quiet.unused,
        Next::LookAt(at) => panic!("{at:?}"),
    };
    story.look();
    story.at = 1_000;
    let before = unused(story.look());
    story.happen(Rule(8_000, Open::Keep));
    assert_eq!(
        story.look(),
        Next::LookAt(story.mono().after(GRACE * 2 / 5))
    );
    story.at = 5_000;
    assert_eq!(unused(story.look()), before + Duration::from_secs(4));
}

/// What is in a hand when the rules change may be looked at there by the old ones.
#[test]
fn other_rules_hold_for_what_is_in_a_hand() {
    let (mut temp, now) = ready();
    temp.mark_rules_changed(now);
    assert!(temp.check_out().has_new_rules() && temp.is_reaping());
    assert!(
        !temp.has_new_rules(),
        "it is the copy that is looked at by them"
    );
    temp.mark_rules_changed(now);
    assert!(temp.has_new_rules());
}

/// A look at which nobody could tell who holds it says nothing: its grace begins when one can.
#[test]
fn who_cannot_tell_has_not_seen_nobody() {
    let mut story = Story::new(Origin::Found, YEAR, UP, GRACE);
    let mut look = |at, hold| {
        story.at = at;
        let now = Now {
            mono: story.mono(),
            wall: story.wall(),
        };
        let look = Look {
            now,
            last_jump: None,
            fingerprint: story.file,
            lag: Duration::ZERO,
            use_state: hold,
        };
        story.temp.look(&look, GRACE, Open::Keep)
    };
    assert!(matches!(look(0, UseState::Unknown), Next::LookAt(_)));
    assert!(
        matches!(look(1_000, UseState::Unknown), Next::Judge(_)),
        "so that it is said"
    );
    let free = look(2_000, UseState::Unused);
    assert_eq!(free, Next::LookAt(Mono((UP + 12_000) * MS)));
    assert!(matches!(look(12_000, UseState::Unused), Next::Judge(_)));
}

#[test]
fn what_is_left_alone_is_never_due() {
    let now = Mono(UP * MS);
    let mut temp = Tracked::ignored(now);
    temp.mark_rules_changed(now);
    assert_eq!(temp.due(), Mono(u64::MAX), "whatever the rules say now");
    assert!(temp.is_ignored());
    assert!(!Tracked::found(now, Origin::Found).is_ignored());
}

#[test]
fn a_new_rule_is_asked_at_once() {
    let (mut temp, now) = ready();
    _ = temp.keep(Reason::HardLinked, GRACE, now);
    temp.mark_rules_changed(now);
    assert_eq!(temp.due(), now);
    temp.mark_rules_changed(now.after(GRACE));
    assert_eq!(temp.due(), now, "what is due before that stays due");
}

/// `orphand status` says why a temp stays for as long as it was judged last for that.
#[test]
fn why_it_was_kept() {
    let now = Mono(UP * MS);
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

/// Whoever was met only by the protocol is a holder like one that a look has met.
#[test]
fn a_holder_that_comes_after_the_look_counts_too() {
    let mut story = Story::new(Origin::Found, YEAR, UP, GRACE);
    story.temp.mark_held();
    story.look();
    story.at = 1_000;
    assert!(
        matches!(story.look(), Next::Judge(_)),
        "there was no look yet"
    );
    story.temp.mark_held();
    assert_eq!(story.look(), Next::LookAt(Mono((UP + 11_000) * MS)));
}

/// There may be a million of them.
#[test]
fn it_is_small() {
    assert!(size_of::<Tracked>() <= 104, "{}", size_of::<Tracked>());
}

/// One look of a random history.
#[derive(Clone, Copy, Debug)]
struct ModelStep {
    /// Milliseconds since the look before.
    delay: u64,
    /// Which of the files stood there.
    file: usize,
    held: bool,
    /// By how much the wall clock was set before it, in milliseconds.
    jump: i64,
}

/// The model: it remembers everything and thinks it all through anew at every look.
struct Model {
    seen: Mono,
    origin: Origin,
    grace: Duration,
    history: Vec<Look>,
}

impl Model {
    /// When the temp may be judged, going by the whole history: the last look of it is now.
    fn may_be_judged(&self) -> Mono {
        let history = &self.history;
        let last = history.len() - 1;
        // The looks before this one that saw the same file, and nobody holding it.
        let same = |i: &usize| history[*i].fingerprint == history[last].fingerprint;
        let free = |i: &usize| !history[*i].use_state.is_held();
        let first = (0..=last)
            .rev()
            .take_while(|i| same(i) && free(i))
            .last()
            .unwrap_or(last);
        let was_held = first > 0 && history[first - 1].use_state.is_held();
        let look = &history[first];
        let credit = match was_held {
            true => Duration::ZERO,
            // It has changed since a look before.
            false if first > 0 => self.credit(look).min(self.grace / 2),
            false => self.credit(look),
        };
        let quiet = look.now.mono.before(credit).after(self.grace);
        quiet.max(
            look.now
                .mono
                .after(min_observation_gap(self.grace, Duration::ZERO)),
        )
    }

    fn credit(&self, look: &Look) -> Duration {
        let file = &look.fingerprint;
        let dates = [Some(file.mtime), Some(file.ctime), file.btime];
        let age = dates
            .into_iter()
            .flatten()
            .map(|date| look.now.wall.since(date))
            .min();
        let since = |moment: Mono| look.now.mono.since(moment);
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

/// Delays that meet every boundary of a rule, and some between.
fn delays(grace: Duration) -> impl Strategy<Value = u64> {
    let (grace, confirm) = (
        grace.as_millis() as u64,
        min_observation_gap(grace, Duration::ZERO).as_millis() as u64,
    );
    let marks = vec![
        0,
        1,
        confirm - 1,
        confirm,
        grace / 2,
        grace - confirm,
        grace - 1,
        grace,
    ];
    prop_oneof![prop::sample::select(marks), 0..2 * grace]
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
    );
    let step = step.prop_map(|(delay, file, held, jump)| ModelStep {
        delay,
        file,
        held: held == 0,
        jump,
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
        ..Story::new(Origin::Found, 0, UP, GRACE).file
    });
    prop::collection::vec(file, 4).prop_map(|mut files| {
        for (size, file) in files.iter_mut().enumerate() {
            file.size = size as u64;
        }
        files
    })
}

fn histories() -> impl Strategy<Value = (Origin, Duration, u64, Vec<Fingerprint>, Vec<ModelStep>)> {
    let up = prop_oneof![Just(UP), 0..20_000u64];
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

    /// The tracker says *judge* exactly when the model, which thinks the whole history through,
    /// allows it; and otherwise names the very moment.
    #[test]
    fn it_agrees_with_a_naive_model((origin, grace, up, files, steps) in histories()) {
        let mut story = Story::new(origin, 0, up, grace);
        let seen = story.mono();
        let mut model = Model { seen, origin, grace, history: Vec::new() };
        for step in steps {
            story.at += step.delay;
            story.happen(SetClock(step.jump));
            story.file = files[step.file];
            story.held = step.held;
            let now = Now { mono: story.mono(), wall: story.wall() };
            // A copy of the watch, so that both hear the same of the clocks.
            let last_jump = story.clocks.clone().read(now);
            let use_state = if step.held { UseState::InUse } else { UseState::Unused };
            model.history.push(Look { now, last_jump, fingerprint: story.file, lag: Duration::ZERO, use_state });
            let next = story.look();
            if step.held {
                // It is judged early at the most for its holder to be named: the gates keep it.
                continue;
            }
            let when = model.may_be_judged();
            match next {
                Next::Judge(quiet) => {
                    prop_assert!(now.mono >= when, "{:?} too early", when.since(now.mono));
                    prop_assert_eq!(quiet.fingerprint, story.file);
                    prop_assert!(quiet.quiet >= grace);
                }
                Next::LookAt(at) => {
                    prop_assert!(now.mono < when, "{:?} late", now.mono.since(when));
                    prop_assert_eq!(at, when);
                    prop_assert_eq!(story.temp.due(), when);
                }
            }
        }
    }

    /// What nobody touches or holds is judged at its second look, and that comes no later than a
    /// grace after the first, whatever the clocks do and however late the looks are.
    #[test]
    fn what_is_left_alone_goes(
        origin in origins(),
        grace in graces(),
        up in prop_oneof![Just(UP), 0..20_000u64],
        age in prop_oneof![0..YEAR, -YEAR..0],
        jumps in prop::collection::vec(prop_oneof![Just(0), -YEAR..YEAR], 2),
        lateness in prop::collection::vec(0..5_000u64, 2),
    ) {
        let mut story = Story::new(origin, age, up, grace);
        let mut first = None;
        for (jump, late) in jumps.into_iter().zip(lateness) {
            story.happen(SetClock(jump));
            story.at = (story.temp.due().0 / MS).saturating_sub(up) + late;
            match (story.look(), first) {
                (Next::LookAt(at), None) => {
                    let now = story.mono();
                    prop_assert!(at >= now.after(min_observation_gap(grace, Duration::ZERO)) && at <= now.after(grace));
                    first = Some(at);
                }
                (Next::Judge(_), Some(due)) => prop_assert!(story.mono() >= due),
                (next, _) => prop_assert!(false, "{:?} at look {}", next, story.looks.len()),
            }
        }
    }

    /// A writer that holds its temp until it closes it, and renames it less than half a grace
    /// later, loses nothing: whenever it writes, and whatever the clocks do. (Looks are on time.)
    #[test]
    fn a_live_writer_loses_nothing(
        grace in graces(),
        close in 0..60u64,
        pause in 0..50u64,
        writes in prop::collection::vec(0..60u64, 0..4),
        jumps in prop::collection::vec((0..80u64, prop_oneof![-3_000..3_000i64, -YEAR..YEAR]), 0..3),
    ) {
        // All of these are in hundredths and twentieths of a grace.
        let part = |twentieths: u64| twentieths * grace.as_millis() as u64 / 20;
        let close = part(close);
        let rename = close + pause * grace.as_millis() as u64 / 100;
        let mut script = vec![(0, Grab), (close, LetGo), (rename, Gone)];
        script.extend(writes.into_iter().map(part).filter(|at| *at <= close).map(|at| (at, Write)));
        script.extend(jumps.into_iter().map(|(at, by)| (part(at), SetClock(by))));
        script.sort_by_key(|(at, _)| *at);
        let mut story = Story::new(Origin::Created, 0, UP, grace);
        prop_assert_eq!(story.judged(&script), None, "{:?}", script);
    }
}
