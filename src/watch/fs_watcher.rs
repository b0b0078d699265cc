//! All notify watchers of this process.

use std::path::Path;
use std::sync::Arc;

use notify::event::EventKindMask;
use notify::{RecursiveMode, WatchPathConfig, Watcher as _};

use super::ancestors::{AncestorWatches, Coverage};
use super::callback::{CallbackContext, WatcherContext, callback};
use super::error::WatchError;
use super::rate_probe::RateProbe;
use super::watcher_handle::{NAME_EVENTS, WatcherHandle};
use crate::core::rate::Threshold;
use crate::fs::root::Root;
use crate::sys::kernel_events::RECURSIVE;

/// All notify watchers of this process: those of the roots' directories, and one for the roots' ancestors.
pub struct FsWatcher {
    callback_context: CallbackContext,
    /// Watches directories without reports of closes.
    without_closes: Option<WatcherHandle>,
    /// Watches directories with reports of closes.
    with_closes: Option<WatcherHandle>,
    ancestors: AncestorWatches,
    generation: u32,
}

impl std::fmt::Debug for FsWatcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FsWatcher")
    }
}

impl FsWatcher {
    /// Creates the set without any watch.
    #[must_use]
    pub fn new(callback_context: CallbackContext) -> FsWatcher {
        FsWatcher {
            callback_context,
            without_closes: None,
            with_closes: None,
            ancestors: AncestorWatches::default(),
            generation: 0,
        }
    }

    /// Watches the directory `dir` (on macOS, with everything below it). With `closes`, closes by writers are reported
    /// too. Such directories have a separate watcher, because notify has one event mask for each watcher.
    pub fn watch(&mut self, dir: &Path, closes: bool) -> Result<(), WatchError> {
        let context = WatcherContext {
            callback: &self.callback_context,
            generation: self.generation,
        };
        let watcher_handle = match closes {
            true => get_or_start(
                &mut self.with_closes,
                context,
                NAME_EVENTS | EventKindMask::ACCESS_CLOSE,
            )?,
            false => get_or_start(&mut self.without_closes, context, NAME_EVENTS)?,
        };
        let mode = match RECURSIVE {
            true => RecursiveMode::Recursive,
            false => RecursiveMode::NonRecursive,
        };
        let config = WatchPathConfig::new(mode).with_dereference_symlinks(false);
        let watched = watcher_handle.request(|watcher| watcher.watch_with(dir, config));
        if RECURSIVE && watched.is_err() {
            // notify stops the stream of all directories before it starts the one with `dir`. Without `dir` it can
            // start again.
            let _ = watcher_handle.request(|watcher| watcher.unwatch(dir));
        }
        Ok(watched?)
    }

    /// Removes the watch on `dir`, if there is one. Returns `false` if a thread could not read events as fast as they
    /// arrived, and has ended with all its watches. [`Notification::Overrun`] reports that too.
    pub fn unwatch(&mut self, dir: &Path) -> bool {
        let handles = [&mut self.without_closes, &mut self.with_closes]
            .into_iter()
            .flatten();
        handles.fold(true, |are_running, watcher_handle| {
            let _ = watcher_handle.request(|watcher| watcher.unwatch(dir));
            are_running && !watcher_handle.has_ended()
        })
    }

    /// Begins to count the temps that are created in the directory `dir`, whether it is watched or not. The events are
    /// used for nothing else.
    pub fn probe_rate(&self, dir: &Path) -> Result<RateProbe, WatchError> {
        let context = WatcherContext {
            callback: &self.callback_context,
            // Not the current generation: the end of the probe's thread is ignored.
            generation: self.generation.wrapping_sub(1),
        };
        RateProbe::begin(context, dir)
    }

    /// Returns the rate of creations from which a directory is hot.
    #[must_use]
    pub fn hot_threshold(&self) -> Threshold {
        self.callback_context.hot_threshold
    }

    /// Watches the ancestors of `root` that exist. They report when the root or one of them is created or removed, and
    /// when its permissions change.
    pub fn watch_ancestors(&mut self, root: &Path) -> Coverage {
        let context = WatcherContext {
            callback: &self.callback_context,
            generation: self.generation,
        };
        self.ancestors.watch(context, root)
    }

    /// Forgets the watches on `path` and on the ancestors of roots below it, so that the next call of
    /// [`FsWatcher::watch_ancestors`] re-establishes them. `None`: all watches on ancestors.
    pub fn forget_ancestors(&mut self, path: Option<&Path>) {
        self.ancestors.forget(path);
    }

    /// Returns the generation of the current watchers. Watchers of older generations may end later; their end is
    /// ignored.
    #[must_use]
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// Drops every watch. New watches are for `roots`.
    pub fn set_roots(&mut self, roots: Arc<[Root]>) {
        self.clear();
        self.callback_context.roots = roots;
    }

    /// Drops every watch.
    pub fn clear(&mut self) {
        self.generation = self.generation.wrapping_add(1);
        self.without_closes = None;
        self.with_closes = None;
        self.ancestors = AncestorWatches::default();
    }
}

fn get_or_start<'a>(
    slot: &'a mut Option<WatcherHandle>,
    context: WatcherContext<'_>,
    mask: EventKindMask,
) -> Result<&'a mut WatcherHandle, WatchError> {
    match slot {
        Some(watcher_handle) => Ok(watcher_handle),
        None => {
            let watcher_handle = WatcherHandle::new(context, mask, |guard| {
                let mut handle = callback(context.callback.clone());
                move |event| {
                    let _guard = &guard;
                    handle(event);
                }
            })?;
            Ok(slot.insert(watcher_handle))
        }
    }
}
