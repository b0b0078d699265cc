//! Errors of the system, where one must be told twice.

use std::io;

/// The same error once more: its number, or at least its kind.
#[must_use]
pub fn copy(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(number) => io::Error::from_raw_os_error(number),
        None => error.kind().into(),
    }
}
