//! Notes on patterns that match reserved names.

use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicBool, Ordering};

use orphand::core::temp_name::Names;
use orphand::engine::Examined;
use orphand::fs::root::Root;

/// The patterns of a root that have a narrower pattern without reserved names.
pub(super) struct Narrower(Vec<NarrowerPattern>);

struct NarrowerPattern {
    note: String,
    glob: Names,
    instead: Names,
    /// A reserved name that the pattern matches was found.
    has_reserved: AtomicBool,
    /// The narrower pattern does not match all the other temps.
    misses_temps: AtomicBool,
}

impl Narrower {
    pub(super) fn new(root: &Root) -> Narrower {
        let names = |glob: &str| Names::allowing_broad(&[glob], &[] as &[&str]).ok();
        let of_glob = root.policy.names.narrower();
        let pattern = of_glob.iter().filter_map(|one| {
            Some(NarrowerPattern {
                note: one.to_string(),
                glob: names(&one.glob)?,
                instead: names(&one.instead)?,
                has_reserved: AtomicBool::default(),
                misses_temps: AtomicBool::default(),
            })
        });
        Narrower(pattern.collect())
    }

    /// Compares a temp of the root with the patterns.
    pub(super) fn add(&self, examined: &Examined) {
        let name = examined.temp_info.name.as_bytes();
        for pattern in self.0.iter().filter(|pattern| pattern.glob.matches(name)) {
            match examined.evidence.reserved {
                Some(_) => pattern.has_reserved.store(true, Ordering::Relaxed),
                None if pattern.instead.matches(name) => {}
                None => pattern.misses_temps.store(true, Ordering::Relaxed),
            }
        }
    }
}

/// Returns the notes. Each names a narrower pattern that still matches all the other temps that were found.
pub(super) fn notes(roots: &[Narrower]) -> Vec<&str> {
    let mut notes: Vec<&str> = Vec::new();
    for pattern in roots.iter().flat_map(|root| &root.0) {
        let is_enough = !pattern.misses_temps.load(Ordering::Relaxed);
        let has_reserved = pattern.has_reserved.load(Ordering::Relaxed);
        if has_reserved && is_enough && !notes.contains(&pattern.note.as_str()) {
            notes.push(&pattern.note);
        }
    }
    notes
}
