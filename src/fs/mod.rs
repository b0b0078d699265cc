//! Directory handles, path resolution, roots, and the walk over their directories.
//!
//! - [`dir`]: opens directories and observes files
//! - `dir_queue`: directories to read, for several threads, with results in the order of paths
//! - [`lookalikes`]: counts the files whose names look like temps
//! - [`response`]: asks a file system whether it answers, in a thread
//! - [`root`]: the directories that the user listed
//! - `broad`: directories that are too broad for a root
//! - [`tree`]: counts the files in a directory tree
//! - [`walk`]: finds temps in directories

pub(crate) mod broad;
pub mod dir;
mod dir_queue;
pub mod lookalikes;
pub mod response;
pub mod root;
pub mod tree;
pub mod walk;
