//! The engine of a command that runs without a watcher.

use std::sync::OnceLock;

use orphand::core::learn::KnownShapes;
use orphand::engine::{Engine, TrackedSets};
use orphand::evidence::container_pids::ContainerPids;
use orphand::evidence::learned::LearnedShapes;
use orphand::evidence::locks::Locks;
use orphand::evidence::restore_marks::RestoreMarks;
use orphand::evidence::siblings::Listings;
use orphand::evidence::writer_names::WriterNames;
use orphand::reap::Reaper;
use orphand::store::folders::Folders;
use orphand::store::journal::Journal;
use orphand::store::shapes;
use orphand::sys::clock;

use crate::cli::exit::Failure;

/// Returns the shapes of temps that watches have learned. A file that cannot be used is reported, and ignored.
pub(crate) fn known_shapes(folders: &Folders) -> &'static KnownShapes {
    static KNOWN: OnceLock<KnownShapes> = OnceLock::new();
    KNOWN.get_or_init(|| {
        let Some(state) = folders.state.as_deref() else {
            return KnownShapes::default();
        };
        shapes::read(state, clock::wall()).map_or_else(
            |error| {
                log::warn!("the learned shapes of temps in {state:?} are ignored: {error}");
                KnownShapes::default()
            },
            |stored| stored.into_iter().flatten().collect(),
        )
    })
}

/// Returns the engine of a command that runs without a watcher.
pub(crate) fn engine(folders: &Folders, verbose: bool) -> Result<Engine, Failure> {
    let state = folders.state.as_deref();
    Ok(Engine {
        reaper: Reaper::new(),
        journal: Journal::new(state),
        marks: RestoreMarks::new(state),
        writers: WriterNames::default(),
        container_pids: ContainerPids::default(),
        locks: Locks::default(),
        listings: Listings::default(),
        shapes: LearnedShapes::new(known_shapes(folders).iter()),
        sets: TrackedSets::default(),
        verbose,
    })
}
