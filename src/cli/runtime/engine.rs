//! The engine of a command that runs without a watcher.

use std::sync::OnceLock;

use orphand::core::learn::KnownShapes;
use orphand::engine::Engine;
use orphand::evidence::learned::LearnedShapes;
use orphand::store::folders::Folders;
use orphand::store::shapes;
use orphand::sys::clock;

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
pub(crate) fn engine(folders: &Folders, verbose: bool) -> Engine {
    Engine {
        shapes: LearnedShapes::new(known_shapes(folders).iter()),
        verbose,
        ..Engine::new(folders.state.as_deref())
    }
}
