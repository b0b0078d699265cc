//! Functions for the ends of names: removes a fixed number of bytes, or a uuid.

/// Removes the last `len` bytes. Returns `None` if one of them is not `allowed`.
pub(super) fn strip_end(
    bytes: &[u8],
    len: usize,
    allowed: impl FnMut(&u8) -> bool,
) -> Option<&[u8]> {
    let (before, end) = bytes.split_at_checked(bytes.len().checked_sub(len)?)?;
    end.iter().all(allowed).then_some(before)
}

/// Removes a uuid from the end.
pub(super) fn strip_uuid(bytes: &[u8]) -> Option<&[u8]> {
    let first_group = [12, 4, 4, 4].iter().try_fold(bytes, |rest, len| {
        strip_end(rest, *len, u8::is_ascii_hexdigit)?.strip_suffix(b"-")
    });
    strip_end(first_group?, 8, u8::is_ascii_hexdigit)
}

/// Reports whether a byte is a lower-case hex digit.
pub(super) fn is_lower_hex(byte: &u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}
