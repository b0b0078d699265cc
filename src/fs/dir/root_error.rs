//! The errors of opening a root.

use std::io;
use std::path::PathBuf;

/// Returns the message for a directory that cannot be read: the cause, and the fix if it is known.
#[must_use]
pub fn unreadable_message(error: &io::Error) -> String {
    format!("cannot read this directory: {}", with_fix(error))
}

/// Returns the text of an error of a directory, with the fix if it is known.
#[must_use]
pub fn with_fix(error: &io::Error) -> String {
    let fix = match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "; run orphand as the owner of the directory, or let your user read it"
        }
        _ => "",
    };
    format!("{error}{fix}")
}

/// The reason for which a root cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    /// The root or one of its ancestors does not exist.
    #[error("it does not exist")]
    Missing,
    /// The root is a symlink, whose target may change at any time.
    #[error("it is a symlink")]
    Symlink {
        /// The current target.
        leads_to: Option<PathBuf>,
    },
    /// A symlink in the path of the root belongs neither to root nor to this user. Its owner could replace it at any
    /// time, and redirect every operation in the root.
    #[error(
        "its path contains {link:?}, a symlink of uid {owner}, who can change its target at any time; \
         give the directory that it points to"
    )]
    ForeignLink {
        /// The symlink.
        link: PathBuf,
        /// Uid of the symlink's owner.
        owner: u32,
    },
    /// The root is not a directory.
    #[error("it is not a directory")]
    NotADirectory,
    /// The path leads to a different directory than before.
    #[error("it has been replaced by another directory")]
    Replaced,
    /// The system reported an error.
    #[error("{}", with_fix(.0))]
    Io(#[from] io::Error),
}

impl RootError {
    /// Reports whether the error means that the root's directory no longer exists at its path: the path is missing, or
    /// leads to a file, a symlink, another mount or another directory.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        match self {
            RootError::Io(error) => RootError::is_missing_error(error),
            _ => true,
        }
    }

    /// Reports whether an error of the system means that the directory no longer exists at its path.
    #[must_use]
    pub fn is_missing_error(error: &io::Error) -> bool {
        matches!(
            error.raw_os_error(),
            Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP | libc::EXDEV)
        )
    }
}
