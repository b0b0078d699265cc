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
    let (before, uuid) = bytes.split_at_checked(bytes.len().checked_sub(36)?)?;
    let is_dash = |at: &usize| uuid.get(*at) == Some(&b'-');
    let is_hex = |(from, to): &(usize, usize)| {
        let part = uuid.get(*from..*to);
        part.is_some_and(|part| part.iter().all(u8::is_ascii_hexdigit))
    };
    let has_dashes = [23, 18, 13, 8].iter().all(is_dash);
    let parts = [(24, 36), (19, 23), (14, 18), (9, 13), (0, 8)];
    (has_dashes && parts.iter().all(is_hex)).then_some(before)
}

/// Reports whether a byte is a lower-case hex digit.
pub(super) fn is_lower_hex(byte: &u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}
