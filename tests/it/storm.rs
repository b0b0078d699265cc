//! Many atomic writers, killed and stopped at random, under a watcher with a short grace.
//!
//! The tests last a few seconds, the ignored one an hour; `ORPHAND_STORM_SECONDS` sets another duration:
//!
//! ```text
//! ORPHAND_STORM_SECONDS=900 cargo test --release --test it storm:: -- --ignored --nocapture
//! ```
//!
//! Each writer is a separate process that writes one target. Before and after each rename it records the
//! write in shared memory that outlives it, so the required content of its target is known however it ends.
//! It also measures its real time from close to rename: on a loaded machine a pause is longer than requested,
//! and only a write that kept to the rule must not fail.

use std::collections::HashSet;
use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::fixture::test_command;
use crate::sandbox::{DEADLINE, Sandbox, signal, start_with_plain_pid};

const SECONDS: &str = "ORPHAND_STORM_SECONDS";
/// The grace of most tests: a test lasts many of them.
const SHORT: Duration = Duration::from_millis(400);
/// A grace that is long enough for a directory to be scanned instead of being watched.
const LONG: Duration = Duration::from_secs(2);

/// The longest time from close to rename for which a live writer loses nothing.
fn longest_pause(grace: Duration) -> Duration {
    grace / 2
}

/// The longest time after the end until every orphan is removed. An orphan that events report is removed
/// after its grace. If the kernel had to drop events, a scan finds it, which an overloaded watcher delays by
/// up to 30 seconds.
const LONGEST: Duration = Duration::from_secs(90);

/// The behavior of a writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Behavior {
    /// Writes as fast as it can.
    Fast,
    /// Writes as fast as it can, with its pid in the name.
    FastWithPid,
    /// Pauses between close and rename, for up to four fifths of the allowed time.
    Pauses,
    /// Pauses for several graces, with its pid in the name: its process is running, so that is allowed.
    PausesWithPid,
    /// Keeps its temp open for up to four graces.
    Holds,
    /// Keeps its temp open, closes it, and then pauses: the close itself changes no date of the file.
    HoldsThenPauses,
    /// Always uses the same name: a killed writer leaves it to its successor.
    FixedName,
}

const WRITERS: [Behavior; 12] = [
    Behavior::Fast,
    Behavior::FastWithPid,
    Behavior::Fast,
    Behavior::FastWithPid,
    Behavior::Pauses,
    Behavior::Pauses,
    Behavior::PausesWithPid,
    Behavior::Holds,
    Behavior::Holds,
    Behavior::HoldsThenPauses,
    Behavior::HoldsThenPauses,
    Behavior::FixedName,
];

/// A counter of a writer; its successor continues it.
#[derive(Clone, Copy, Debug)]
enum Counter {
    /// Writes whose rename succeeded.
    Renamed,
    /// The number of the last write whose rename succeeded.
    Last,
    /// The number of the write in progress.
    Trying,
    /// Temps that were open for longer than the grace, and renamed.
    HeldPastGrace,
    /// Renames that failed although the writer kept to the rule.
    Lost,
    /// Renames that failed after a pause that the rule does not cover.
    TooLate,
    /// The error number of the last failure.
    Errno,
    Pause,
    /// Set to 1 to make the writer end after its next write.
    Stop,
}

/// The counters of all writers, in a shared mapping of a file.
struct SharedCounters {
    at: *mut AtomicU64,
    count: usize,
}

/// The number of 8-byte words for each writer: one or two cache lines.
const COUNTERS: usize = 16;

impl SharedCounters {
    fn open(file: &Path, count: usize) -> SharedCounters {
        use std::os::fd::AsRawFd;
        let file = fs::File::options()
            .read(true)
            .write(true)
            .open(file)
            .unwrap();
        let length = count * COUNTERS * 8;
        // SAFETY: a new shared mapping of an open file of that length, which no process truncates.
        let at = unsafe {
            let protection = libc::PROT_READ | libc::PROT_WRITE;
            let (none, fd) = (std::ptr::null_mut(), file.as_raw_fd());
            libc::mmap(none, length, protection, libc::MAP_SHARED, fd, 0)
        };
        assert_ne!(at, libc::MAP_FAILED, "{}", std::io::Error::last_os_error());
        SharedCounters {
            at: at.cast(),
            count,
        }
    }

    fn of(&self, writer: usize, count: Counter) -> &AtomicU64 {
        assert!(writer < self.count);
        // SAFETY: within the mapping, which is never unmapped; 8-byte numbers are atomic.
        unsafe { &*self.at.add(writer * COUNTERS + count as usize) }
    }

    fn get(&self, writer: usize, count: Counter) -> u64 {
        self.of(writer, count).load(Ordering::SeqCst)
    }

    fn sum(&self, count: Counter) -> u64 {
        (0..self.count).map(|writer| self.get(writer, count)).sum()
    }
}

/// Pseudo-random numbers: the same sequence in each run, apart from the influence of the scheduler.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }

    fn up_to(&mut self, longest: Duration) -> Duration {
        Duration::from_micros(self.below(longest.as_micros() as u64 + 1))
    }
}

const ROOT: &str = "ORPHAND_TEST_ROOT";
const COUNTER_FILE: &str = "ORPHAND_TEST_SLATES";
const WRITER: &str = "ORPHAND_TEST_WRITER";
/// In milliseconds.
const GRACE: &str = "ORPHAND_TEST_GRACE";

/// The process of a writer, which the tests start. It does nothing when run as a test.
#[test]
fn writer_process() {
    let (Some(root), Some(counters)) = (std::env::var_os(ROOT), std::env::var_os(COUNTER_FILE))
    else {
        return;
    };
    let number = |name| std::env::var(name).unwrap().parse::<u64>().unwrap();
    let grace = Duration::from_millis(number(GRACE));
    let number = number(WRITER) as usize;
    let counters = SharedCounters::open(Path::new(&counters), WRITERS.len());
    let count = |count| counters.of(number, count);
    let kind = WRITERS[number];
    let mut random = Random(u64::from(std::process::id()) << 20 | 0x9E37_79B9);
    let target = c_path(&PathBuf::from(&root).join(target(number)));
    let mut content = Vec::new();
    while count(Counter::Stop).load(Ordering::SeqCst) == 0 {
        let turn = count(Counter::Trying).load(Ordering::SeqCst) + 1;
        let temp = c_path(&PathBuf::from(&root).join(temp(kind, number, turn)));
        fill(&mut content, number, turn, random.below(600) as usize);
        let opened = Instant::now();
        // SAFETY: plain system calls on a path and bytes that outlive them.
        let file = unsafe {
            libc::open(
                temp.as_ptr(),
                libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC,
                0o600,
            )
        };
        assert!(file >= 0, "{temp:?}: {}", std::io::Error::last_os_error());
        // SAFETY: as above.
        let wrote = unsafe { libc::write(file, content.as_ptr().cast(), content.len()) };
        assert_eq!(wrote, content.len() as isize);
        if matches!(kind, Behavior::Holds | Behavior::HoldsThenPauses) {
            thread::sleep(random.up_to(4 * grace));
        }
        let closed = Instant::now();
        // SAFETY: it was opened above, and nothing else closes it.
        unsafe { libc::close(file) };
        match kind {
            Behavior::Pauses | Behavior::HoldsThenPauses => {
                thread::sleep(random.up_to(longest_pause(grace) * 4 / 5))
            }
            Behavior::PausesWithPid => thread::sleep(random.up_to(3 * grace)),
            Behavior::FixedName => thread::sleep(random.up_to(longest_pause(grace) / 40)),
            Behavior::Fast | Behavior::FastWithPid | Behavior::Holds => {}
        }
        count(Counter::Trying).store(turn, Ordering::SeqCst);
        // SAFETY: both paths end in NUL and outlive the call.
        let renamed = unsafe { libc::rename(temp.as_ptr(), target.as_ptr()) };
        let pause = closed.elapsed();
        if renamed == 0 {
            count(Counter::Last).store(turn, Ordering::SeqCst);
            count(Counter::Renamed).fetch_add(1, Ordering::SeqCst);
            let held = closed - opened > grace;
            count(Counter::HeldPastGrace).fetch_add(u64::from(held), Ordering::SeqCst);
            continue;
        }
        let errno = std::io::Error::last_os_error().raw_os_error().unwrap_or(0);
        let covered = pause < longest_pause(grace)
            || matches!(kind, Behavior::FastWithPid | Behavior::PausesWithPid);
        let which = if covered {
            Counter::Lost
        } else {
            Counter::TooLate
        };
        count(which).fetch_add(1, Ordering::SeqCst);
        count(Counter::Errno).store(errno as u64, Ordering::SeqCst);
        count(Counter::Pause).store(pause.as_nanos() as u64, Ordering::SeqCst);
    }
    std::process::exit(0);
}

fn c_path(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).unwrap()
}

fn target(writer: usize) -> String {
    format!("state-{writer}.json")
}

fn temp(kind: Behavior, writer: usize, turn: u64) -> String {
    let (target, pid) = (target(writer), std::process::id());
    match kind {
        Behavior::FixedName => format!("{target}.tmp"),
        Behavior::FastWithPid => format!("{target}.{pid}.{turn}.tmp"),
        Behavior::PausesWithPid => {
            format!("{target}.{pid}.{turn:08x}-2fa1-41d2-883f-0016d3cca427.tmp")
        }
        _ => format!("{target}.{pid:08x}-2fa1-41d2-883f-{turn:012x}.tmp"),
    }
}

/// The content of a target names its writer and the number of the write, and shows whether it is complete.
fn fill(content: &mut Vec<u8>, writer: usize, turn: u64, length: usize) {
    use std::io::Write;
    content.clear();
    write!(content, "{writer} {turn} {length} ").unwrap();
    content.resize(content.len() + length, b'0' + (turn % 10) as u8);
}

#[track_caller]
fn read_target(file: &Path, writer: usize) -> u64 {
    let content = fs::read_to_string(file).unwrap();
    let mut parts = content.split(' ');
    let mut number = || parts.next().and_then(|part| part.parse::<u64>().ok());
    let (Some(owner), Some(turn), Some(length)) = (number(), number(), number()) else {
        panic!("{file:?}: {content:?}");
    };
    let mut whole = Vec::new();
    fill(&mut whole, writer, turn, length as usize);
    assert!(
        owner == writer as u64 && whole == content.as_bytes(),
        "{file:?}: {content:?}"
    );
    turn
}

/// A running writer, and the end of its current stop.
struct Writer {
    child: Child,
    stopped_until: Option<Instant>,
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Storm {
    sandbox: Sandbox,
    counters: PathBuf,
    grace: Duration,
}

impl Storm {
    fn writer(&self, number: usize) -> Writer {
        let mut command = test_command("storm::writer_process");
        command
            .env(ROOT, self.sandbox.root())
            .env(COUNTER_FILE, &self.counters);
        command
            .env(WRITER, number.to_string())
            .env(GRACE, self.grace.as_millis().to_string());
        command.stdin(Stdio::null()).stdout(Stdio::null());
        if let Some(uid) = self.sandbox.user() {
            command.uid(uid).gid(uid);
        }
        // SAFETY: one system call on a number.
        unsafe {
            command.pre_exec(|| {
                // Other processes on this machine have priority.
                libc::nice(5);
                Ok(())
            });
        }
        Writer {
            child: start_with_plain_pid(&mut command),
            stopped_until: None,
        }
    }

    /// Returns the temps of one writer, or of all.
    fn temps(&self, writer: Option<usize>) -> Vec<String> {
        let prefix = writer.map_or("state-".to_owned(), |writer| target(writer) + ".");
        let mut names = self.sandbox.listing();
        names.retain(|name| name.starts_with(&prefix) && name.ends_with(".tmp"));
        names
    }
}

/// With a [`LONG`] grace the test proves something only if the directory became hot.
fn run_storm(sandbox: Sandbox, grace: Duration, length: Duration) {
    // `info` reports hot directories. `-v` would report each write too, and this process keeps all output: 24
    // GB in eight minutes.
    let sandbox = sandbox.env("ORPHAND_LOG", "info");
    let counters = sandbox.base().join("counters");
    fs::write(&counters, vec![0; WRITERS.len() * COUNTERS * 8]).unwrap();
    sandbox.chown_to_user(&counters);
    let mut content = Vec::new();
    for number in 0..WRITERS.len() {
        fill(&mut content, number, 0, 0);
        sandbox.write(target(number), &content);
    }
    let storm = Storm {
        sandbox,
        counters,
        grace,
    };
    let seen = SharedCounters::open(&storm.counters, WRITERS.len());
    let text = format!("{}ms", grace.as_millis());
    let watching = storm.sandbox.watch(["--grace", &text]).ready();
    let mut writers: Vec<Writer> = (0..WRITERS.len())
        .map(|number| storm.writer(number))
        .collect();
    let mut random = Random(0x2545_F491_4F6C_DD1D);
    let (mut kills, mut stops) = (0, 0);
    let mut leaked = HashSet::new();
    let began = Instant::now();
    // On a loaded machine it continues until it proves something.
    let was_hot = || grace < LONG || watching.stderr().contains(" is hot: ");
    let proves = |leaks: usize| {
        let wrote = |number| seen.get(number, Counter::Renamed) > 0;
        let all_wrote = (0..WRITERS.len()).all(wrote);
        leaks > 0 && seen.sum(Counter::HeldPastGrace) > 0 && all_wrote && was_hot()
    };
    while began.elapsed() < length || (!proves(leaked.len()) && began.elapsed() < length + DEADLINE)
    {
        // Often, but not so often that no writer runs for longer than a grace.
        thread::sleep(random.up_to(grace * 3 / 20));
        let now = Instant::now();
        for (number, writer) in writers.iter_mut().enumerate() {
            if writer.stopped_until.is_some_and(|until| until <= now) {
                writer.stopped_until = None;
                signal(writer.child.id(), libc::SIGCONT);
            }
            let ended = writer.child.try_wait().unwrap();
            assert!(
                ended.is_none(),
                "writer {number}, {:?}: {ended:?}",
                WRITERS[number]
            );
        }
        let number = random.below(WRITERS.len() as u64) as usize;
        if random.below(3) == 0 {
            stops += 1;
            signal(writers[number].child.id(), libc::SIGSTOP);
            writers[number].stopped_until = Some(now + random.up_to(4 * grace));
            continue;
        }
        kills += 1;
        writers[number].child.kill().unwrap();
        writers[number].child.wait().unwrap();
        // No process will rename it; a temp with a fixed name is used by the successor.
        if WRITERS[number] != Behavior::FixedName {
            leaked.extend(storm.temps(Some(number)));
        }
        writers[number] = storm.writer(number);
    }
    // Every second writer ends by itself; the others are killed.
    for (number, writer) in writers.iter_mut().enumerate() {
        signal(writer.child.id(), libc::SIGCONT);
        match number % 2 {
            0 => seen.of(number, Counter::Stop).store(1, Ordering::SeqCst),
            _ => writer.child.kill().unwrap(),
        }
    }
    for writer in &mut writers {
        writer.child.wait().unwrap();
    }
    let leaks = leaked.len() as u64;
    let over = Instant::now();
    while !storm.temps(None).is_empty() {
        let left = storm.temps(None);
        assert!(
            over.elapsed() < LONGEST,
            "left: {left:?}\n{}",
            watching.stderr()
        );
        thread::sleep(Duration::from_millis(5));
    }
    let gone = over.elapsed();
    let was_hot = was_hot();
    let stopped = watching.stop().exit(0);
    let [reaped, quarantined, _, failed] = stopped.events.sums();
    let (writes, held) = (seen.sum(Counter::Renamed), seen.sum(Counter::HeldPastGrace));
    println!(
        "{writes} writes in {:.0?}; {kills} writers killed, {leaks} of them with a temp, {stops} stopped; \
         {held} live writers held a temp past the grace; {reaped} removed, {quarantined} moved, \
         the last {gone:.0?} after the end; {} renames too late by the rule, {} lost; {} rescans",
        began.elapsed(),
        seen.sum(Counter::TooLate),
        seen.sum(Counter::Lost),
        stopped.events.of("rescan").len(),
    );
    for (number, kind) in WRITERS.iter().enumerate() {
        let get = |count| seen.get(number, count);
        assert_eq!(
            get(Counter::Lost),
            0,
            "{kind:?} lost a write: errno {} after {:?}",
            get(Counter::Errno),
            Duration::from_nanos(get(Counter::Pause))
        );
        assert!(get(Counter::Renamed) > 0, "{kind:?} wrote nothing");
        let last = read_target(&storm.sandbox.path(target(number)), number);
        // A writer may have been killed after the rename and before recording it.
        let allowed = get(Counter::Last)..=get(Counter::Trying);
        assert!(
            allowed.contains(&last),
            "{kind:?}: {last}, not in {allowed:?}"
        );
    }
    assert!(
        was_hot,
        "the directory never became hot: this proves nothing"
    );
    assert!(
        held > 0,
        "no live writer held a temp past the grace: this proves nothing"
    );
    assert!(
        leaks > 0,
        "no writer was killed with a temp: this proves nothing"
    );
    assert!(
        reaped + quarantined >= leaks,
        "{leaks} leaked, {reaped} removed"
    );
    assert_eq!(failed, 0, "{}", stopped.stderr);
    let targets = storm
        .sandbox
        .listing()
        .into_iter()
        .filter(|name| name.starts_with("state-"));
    assert_eq!(targets.count(), WRITERS.len());
}

fn storm_length(otherwise: u64) -> Duration {
    let asked = std::env::var(SECONDS).map(|asked| asked.parse().expect(SECONDS));
    Duration::from_secs(asked.unwrap_or(otherwise))
}

#[test]
fn writers_lose_nothing_and_orphans_are_removed() {
    run_storm(Sandbox::in_memory(), SHORT, storm_length(5));
}

/// On a disk, where writes are slow and a rename may wait for its data.
#[test]
fn writers_on_a_disk_lose_nothing() {
    run_storm(Sandbox::ordinary(), SHORT, storm_length(3));
}

#[test]
fn writers_in_a_hot_directory_lose_nothing() {
    run_storm(Sandbox::in_memory(), LONG, storm_length(10));
}

#[test]
#[ignore = "takes an hour, or ORPHAND_STORM_SECONDS"]
fn writers_lose_nothing_for_an_hour() {
    for grace in [SHORT, LONG] {
        run_storm(Sandbox::in_memory(), grace, storm_length(60 * 60) / 2);
    }
}
