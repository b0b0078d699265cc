//! Limits the lines about similar temps: in a burst of results, one line replaces many.
//!
//! Up to ten results of a group within a second have a line each. If there are more, the others have one line with
//! their number. While the burst goes on, the group has only such lines, less and less often.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use orphand::core::sort::sort_by;
use orphand::core::sums::{SumKey, Summand, TempSum};

/// The largest number of results of one group that have a line each within [`WINDOW`].
const MAX_SINGLE: usize = 10;

/// The largest number of results of all groups that have a line each at once within [`WINDOW`].
const MAX_LINES: usize = 100;

/// The largest number of open windows.
const MAX_WINDOWS: usize = 1024;

/// The time in which results are counted. A burst also ends when there was no result for this time.
const WINDOW: Duration = Duration::from_secs(1);

/// The longest window of a burst that goes on.
const LONGEST_WINDOW: Duration = Duration::from_secs(60);

/// Decides which results have a line of type `L`. Time is an argument.
#[derive(Debug)]
pub(crate) struct Bursts<L> {
    windows: HashMap<SumKey, Window<L>>,
    /// The start of the current second, and the number of single lines since.
    lines: Option<(Instant, usize)>,
    /// The earliest time at which a window ends.
    next_end: Option<Instant>,
}

/// The results of one group within some time.
#[derive(Debug)]
struct Window<L> {
    began: Instant,
    length: Duration,
    last: Instant,
    /// The number of lines that were printed at once.
    shown: usize,
    /// The first of the other lines.
    held: Vec<L>,
    /// The results without a line so far.
    sum: TempSum,
    /// The last window was a burst, so no line is printed at once.
    is_burst: bool,
}

/// The results of one group in a window that have no line yet.
#[derive(Debug, PartialEq)]
pub(crate) struct WindowEnd<L> {
    /// The group.
    pub(crate) key: SumKey,
    /// The sum of the results.
    pub(crate) sum: TempSum,
    /// The lines of the first of them.
    pub(crate) lines: Vec<L>,
    /// The number of earlier results in the window, whose lines were printed at once.
    pub(crate) shown: usize,
}

impl<L> WindowEnd<L> {
    /// Reports whether each result gets a line of its own: they are few, or a line about their sum would not be
    /// shorter.
    pub(crate) fn has_single_lines(&self) -> bool {
        let all_held = self.lines.len() == to_usize(self.sum.temps);
        all_held && (self.shown == 0 || self.lines.len() == 1)
    }
}

impl<L> Default for Bursts<L> {
    fn default() -> Bursts<L> {
        Bursts {
            windows: HashMap::new(),
            lines: None,
            next_end: None,
        }
    }
}

impl<L> Window<L> {
    fn new(now: Instant, length: Duration, is_burst: bool) -> Window<L> {
        Window {
            began: now,
            length,
            last: now,
            shown: 0,
            held: Vec::new(),
            sum: TempSum::default(),
            is_burst,
        }
    }

    /// Returns the time at which the window ends if there is no further result.
    fn end(&self) -> Instant {
        (self.began + self.length).min(self.last + WINDOW)
    }
}

impl<L> Bursts<L> {
    /// Adds a result, and returns its line if it is to be printed at once. `line` is called only if the line may be
    /// printed. The windows that have ended before `now` must have been taken.
    pub(crate) fn add(
        &mut self,
        now: Instant,
        key: SumKey,
        one: Summand<'_>,
        line: impl FnOnce() -> L,
    ) -> Option<L> {
        let lines = match self.lines {
            Some((began, lines)) if now < began + WINDOW => lines,
            _ => {
                self.lines = Some((now, 0));
                0
            }
        };
        let window = self.windows.entry(key);
        let window = window.or_insert_with(|| Window::new(now, WINDOW, false));
        window.last = now;
        let end = window.end();
        self.next_end = Some(self.next_end.map_or(end, |next| next.min(end)));
        if !window.is_burst
            && window.sum.temps == 0
            && window.shown < MAX_SINGLE
            && lines < MAX_LINES
        {
            window.shown += 1;
            if let Some((_, lines)) = &mut self.lines {
                *lines += 1;
            }
            return Some(line());
        }
        window.sum.add(one);
        if window.held.len() < MAX_SINGLE {
            window.held.push(line());
        }
        None
    }

    /// Reports whether windows must be ended before more groups are added.
    pub(crate) fn is_full(&self) -> bool {
        self.windows.len() >= MAX_WINDOWS
    }

    /// Returns the time at which [`Bursts::ended`] will return output, if there is a result without a line.
    pub(crate) fn due(&self) -> Option<Instant> {
        let waiting = self.windows.values().filter(|window| window.sum.temps > 0);
        waiting.map(Window::end).min()
    }

    /// Returns the output of the windows that have ended at `now`. The group with the most bytes is first.
    pub(crate) fn ended(&mut self, now: Instant) -> Vec<WindowEnd<L>> {
        if self.next_end.is_none_or(|end| now < end) {
            return Vec::new();
        }
        let ended: Vec<SumKey> = self
            .windows
            .iter()
            .filter(|(_, window)| window.end() <= now)
            .map(|(key, _)| key.clone())
            .collect();
        let mut output = Vec::new();
        for key in ended {
            let Some(window) = self.windows.remove(&key) else {
                continue;
            };
            let goes_on = now < window.last + WINDOW;
            let is_burst = window.shown + to_usize(window.sum.temps) > MAX_SINGLE;
            if goes_on && is_burst {
                let length = (window.length * 2).min(LONGEST_WINDOW);
                self.windows
                    .insert(key.clone(), Window::new(now, length, true));
            }
            output.extend(output_of(key, window));
        }
        self.next_end = self.windows.values().map(Window::end).min();
        sorted(output)
    }

    /// Ends all windows, and returns their output.
    pub(crate) fn end_all(&mut self) -> Vec<WindowEnd<L>> {
        self.next_end = None;
        let windows = std::mem::take(&mut self.windows).into_iter();
        let output = windows.filter_map(|(key, window)| output_of(key, window));
        sorted(output.collect())
    }
}

fn to_usize(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// Returns the output about a window, if there are results without a line.
fn output_of<L>(key: SumKey, window: Window<L>) -> Option<WindowEnd<L>> {
    (window.sum.temps > 0).then_some(WindowEnd {
        key,
        sum: window.sum,
        lines: window.held,
        shown: window.shown,
    })
}

/// Sorts the group with the most bytes to the front.
fn sorted<L>(mut ends: Vec<WindowEnd<L>>) -> Vec<WindowEnd<L>> {
    sort_by(&mut ends, |a, b| {
        let bytes = b.sum.size.bytes.cmp(&a.sum.size.bytes);
        bytes.then_with(|| a.key.cmp(&b.key))
    });
    ends
}

#[cfg(test)]
mod tests {
    use super::*;
    use orphand::core::judge::Verdict;
    use orphand::core::sums::Outcome;

    struct Run {
        bursts: Bursts<String>,
        start: Instant,
        output: Vec<String>,
    }

    fn key(shape: &str) -> SumKey {
        SumKey {
            root: std::sync::Arc::new("/r".into()),
            dir: "/r".into(),
            shape: shape.into(),
            outcome: Outcome::Judged(Verdict::Reap),
        }
    }

    impl Run {
        fn new() -> Run {
            Run {
                bursts: Bursts::default(),
                start: Instant::now(),
                output: Vec::new(),
            }
        }

        fn print(&mut self, ended: Vec<WindowEnd<String>>) {
            for end in ended {
                if end.has_single_lines() {
                    self.output.extend(end.lines);
                } else {
                    let shape = end.key.shape.to_str().expect("text");
                    let line = format!("{shape}: {} after {}", end.sum.temps, end.shown);
                    self.output.push(line);
                }
            }
        }

        /// Adds `count` results at `ms`.
        fn add(&mut self, ms: u64, shape: &str, count: usize) {
            let now = self.start + Duration::from_millis(ms);
            let ended = self.bursts.ended(now);
            self.print(ended);
            for _ in 0..count {
                let line = format!("{shape} at {ms}");
                let line = self
                    .bursts
                    .add(now, key(shape), Summand::default(), || line);
                self.output.extend(line);
            }
        }

        /// Returns the number of lines after `ms`, and the last line.
        fn end(&mut self, ms: u64) -> (usize, Option<&str>) {
            let now = self.start + Duration::from_millis(ms);
            let ended = self.bursts.ended(now);
            self.print(ended);
            (self.output.len(), self.output.last().map(String::as_str))
        }
    }

    #[test]
    fn few_results_have_a_line_each_at_once() {
        let mut run = Run::new();
        for second in 0..5 {
            run.add(second * 1001, "a", 10);
            run.add(second * 1001, "b", 10);
            assert_eq!(run.bursts.due(), None, "nothing waits");
        }
        assert_eq!(run.output.len(), 100);
    }

    #[test]
    fn many_results_have_one_line_more() {
        let mut run = Run::new();
        run.add(0, "a", 8662);
        run.add(0, "b", 11);
        assert_eq!(run.output.len(), 20);
        assert_eq!(run.bursts.due(), Some(run.start + WINDOW));
        assert_eq!(run.end(999).0, 20);
        // The eleventh line of b is no longer than a sum.
        let mut lines = run.output.clone();
        lines.extend(["a: 8652 after 10".to_owned(), "b at 0".to_owned()]);
        run.end(1000);
        assert_eq!(run.output, lines);
        assert_eq!(run.bursts.due(), None);
        // The burst is over.
        run.add(1000, "a", 1);
        assert_eq!(run.output.last().map(String::as_str), Some("a at 1000"));
    }

    #[test]
    fn a_burst_that_goes_on_has_fewer_and_fewer_lines() {
        let mut run = Run::new();
        // Twenty leaks each second, for ten minutes.
        for step in 0..12_000 {
            run.add(step * 50, "a", 1);
        }
        assert!(run.output.len() < 30, "{} lines", run.output.len());
        let (before, _) = run.end(600_000 + 1000);
        assert_eq!(
            run.bursts.due(),
            None,
            "the rest is printed a second after the last result"
        );
        // Later results are few again.
        run.add(700_000, "a", 3);
        assert_eq!(run.output.len(), before + 3);
    }

    #[test]
    fn no_result_is_lost() {
        for counts in [
            [5, 7, 2, 40, 3],
            [11, 1, 1, 1, 1],
            [10, 10, 10, 10, 10],
            [12, 9, 0, 9, 0],
        ] {
            let mut run = Run::new();
            for (step, count) in (0..).zip(counts) {
                run.add(step * 700, "a", count);
            }
            run.end(100_000);
            let shown: usize = run
                .output
                .iter()
                .map(|line| {
                    let sum = line
                        .strip_prefix("a: ")
                        .and_then(|line| line.split(' ').next());
                    sum.map_or(1, |sum| sum.parse().expect("a number"))
                })
                .sum();
            assert_eq!(shown, counts.iter().sum::<usize>(), "{:?}", run.output);
        }
    }

    #[test]
    fn many_groups_have_few_lines_at_once() {
        let mut run = Run::new();
        for n in 0..500 {
            run.add(0, &format!("{n}"), 1);
        }
        assert_eq!(run.output.len(), MAX_LINES);
        assert_eq!(run.end(1000).0, 500);
        let mut run = Run::new();
        run.add(0, "a", 1);
        assert_eq!(run.bursts.end_all(), Vec::new());
    }
}
