//! Reports when a file system is mounted or unmounted. A watch on a directory does not report that another file system
//! was mounted over the directory.

use std::path::PathBuf;

#[cfg_attr(target_os = "linux", path = "linux.rs")]
#[cfg_attr(target_os = "macos", path = "macos.rs")]
mod system;

/// Function that receives the paths at which file systems were mounted or unmounted.
pub type MountCallback = Box<dyn FnMut(Vec<PathBuf>) + Send>;

/// Reports mounts until it is dropped.
#[derive(Debug)]
pub struct MountListener {
    _system: system::Listener,
}

/// Calls `on_change` for every mount and unmount after this function has returned. Returns `None` where mounts cannot
/// be reported, or are reported by the file system events themselves.
#[must_use]
pub fn listen(on_change: MountCallback) -> Option<MountListener> {
    let system = system::listen(on_change)?;
    Some(MountListener { _system: system })
}
