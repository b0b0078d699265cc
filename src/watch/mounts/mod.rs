//! Hears when something is mounted or unmounted: no watch on a directory tells that another one
//! has been put over it.

use std::path::PathBuf;

#[cfg_attr(target_os = "linux", path = "linux.rs")]
#[cfg_attr(target_os = "macos", path = "macos.rs")]
mod system;

/// What is called with the places where something was mounted or unmounted.
pub type MountCallback = Box<dyn FnMut(Vec<PathBuf>) + Send>;

/// Listens until it is dropped.
#[derive(Debug)]
pub struct MountListener {
    _system: system::Listener,
}

/// Begins to listen: what is mounted after this has returned is told. `None`: here it cannot be
/// heard, or by other means only.
#[must_use]
pub fn listen(tell: MountCallback) -> Option<MountListener> {
    let system = system::listen(tell)?;
    Some(MountListener { _system: system })
}
