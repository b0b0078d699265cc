//! Copies errors of the operating system, which are not `Clone`.

use std::io;

/// Returns a copy of `error` with the same error number, or, if it has none, of the same kind.
#[must_use]
pub fn copy(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(number) => io::Error::from_raw_os_error(number),
        None => error.kind().into(),
    }
}
