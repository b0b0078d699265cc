//! Base names, as any bytes. Whoever reads a target wrongly takes the wrong file for the temp's
//! content, and whoever reads a pid wrongly takes a live writer for a dead one.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::LazyLock;

use orphand::core::temp_name::{self, Names, ParsedName};

const NONE: [&str; 0] = [];

/// Linux' `PID_MAX_LIMIT`.
const PID_MAX: u32 = 4_194_304;

static WITH_WRITERS: LazyLock<Names> = LazyLock::new(|| {
    let writers: Vec<_> = temp_name::writers()
        .map(|writer| writer.name.as_str())
        .collect();
    Names::new(&NONE, &writers).expect("writers of the table")
});

static DEFAULT: LazyLock<Names> = LazyLock::new(Names::default);

pub(crate) fn check(name: &[u8]) {
    // No file has such a name.
    if name.iter().any(|byte| matches!(byte, 0 | b'/')) {
        return;
    }
    taken(name);
    for names in [&DEFAULT, &WITH_WRITERS] {
        possible(name, &names.parse(OsStr::from_bytes(name)));
    }
    target_is_what_stands_before(name);
}

/// A rule takes no name that it cannot read, none of ours, and with more writers not fewer.
fn taken(name: &[u8]) {
    let read = |names: &Names| names.parse(OsStr::from_bytes(name)).grammar.is_some();
    for names in [&DEFAULT, &WITH_WRITERS] {
        assert!(read(names) || !names.matches(name), "taken, not read");
    }
    let is_default = name.ends_with(b".tmp") || DEFAULT.writer_of(name).is_some();
    assert!(!DEFAULT.matches(name) || is_default);
    assert!(!DEFAULT.matches(name) || WITH_WRITERS.matches(name));
    assert!(!WITH_WRITERS.matches(name) || !name.starts_with(b".orphand"));
}

/// All that is read stands in the name.
fn possible(name: &[u8], parsed: &ParsedName) {
    let Some(grammar) = parsed.grammar.as_deref() else {
        assert_eq!(*parsed, ParsedName::default());
        return;
    };
    let is_built_in = parsed.writer.is_none();
    assert!(
        !is_built_in || parsed.is_random == (grammar != "<t>.tmp"),
        "{grammar}"
    );
    assert_eq!(parsed.pid.is_some(), grammar.contains("<pid>"), "{grammar}");
    if let Some(pid) = parsed.pid {
        assert!((1..=PID_MAX).contains(&pid));
        let digits = pid.to_string();
        let stands = name
            .windows(digits.len())
            .any(|part| part == digits.as_bytes());
        assert!(stands, "{pid} is not a part of the name");
    }
    let bare = name.strip_prefix(b".").unwrap_or(name);
    for target in parsed.targets.iter().map(|target| target.as_bytes()) {
        assert!(!matches!(target, b"" | b"." | b".."));
        assert!(target.len() < name.len());
        let is_start = name.starts_with(target) || bare.starts_with(target);
        let stem = target.strip_prefix(b".").unwrap_or(target);
        let is_part = name.windows(stem.len().max(1)).any(|part| part == stem);
        assert!(is_start || (!is_built_in && (is_part || stem.is_empty())));
    }
    if let [best, other] = &parsed.targets[..] {
        let (shorter, longer) = match parsed.shares_name() {
            true => (best, other),
            false => (other, best),
        };
        assert_eq!(
            longer.as_bytes().strip_prefix(b"."),
            Some(shorter.as_bytes())
        );
    }
    assert!(parsed.targets.len() <= 2);
}

/// What was written for a target is read as for that target.
fn target_is_what_stands_before(target: &[u8]) {
    if matches!(target, b"" | b"." | b"..") {
        return;
    }
    let best = |end: &str| {
        let name = [target, end.as_bytes()].concat();
        let parsed = DEFAULT.parse(OsStr::from_bytes(&name));
        assert!(DEFAULT.matches(&name) || target.starts_with(b".") || target[0].is_ascii_digit());
        let best = parsed
            .targets
            .first()
            .map(|best| best.as_bytes().to_owned());
        (parsed.grammar.unwrap_or_default(), parsed.pid, best)
    };
    // Unless the target's own end reads as a writer's random part.
    let (grammar, _, read) = best(".tmp");
    assert!(
        grammar.contains("<uuid>") || read.as_deref() == Some(target),
        "{grammar}"
    );
    // Beside a uuid digits count as the pid, and the text between the target and the pid may be that of a writer.
    let (grammar, pid, read) = best(".01234567-89ab-cdef-0123-456789abcdef.tmp");
    let digits = pid.map(|pid| format!(".{pid}")).unwrap_or_default();
    let added = grammar.strip_prefix("<t>").unwrap_or_default();
    let added = added.strip_suffix(".<uuid>.tmp").unwrap_or_default();
    let added = added.replace(".<pid>", &digits);
    // The temps of some writers do not have the target in their names.
    if !grammar.contains("<t>") {
        assert!(!grammar.is_empty() && read.is_none(), "{grammar}");
        return;
    }
    // Digits that look like a date are a part of the target already.
    let is_read = read.as_deref() == Some(target);
    let whole = read.map(|read| [&read, added.as_bytes()].concat());
    let nameless = [b".".as_slice(), b".."]
        .iter()
        .any(|dots| target == [dots, added.as_bytes()].concat());
    assert!(
        nameless || is_read || whole.as_deref() == Some(target),
        "{grammar}"
    );
}
