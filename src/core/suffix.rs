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

/// Reports whether a name contains `.tmp`. Eight bytes at a time are searched for the dot.
pub(super) fn contains_tmp(name: &[u8]) -> bool {
    let has_dot = |part: &[u8]| match <[u8; 8]>::try_from(part) {
        Ok(word) => {
            // The lowest byte that is zero here has its highest bit set below. No byte has it if none is zero.
            let word = u64::from_le_bytes(word) ^ u64::from_le_bytes([b'.'; 8]);
            let ones = u64::from_le_bytes([1; 8]);
            word.wrapping_sub(ones) & !word & (ones << 7) != 0
        }
        Err(_) => true,
    };
    let begins = |at: usize| name.get(at..at + 4) == Some(b".tmp");
    let parts = name.chunks(8).enumerate();
    parts
        .filter(|(_, part)| has_dot(part))
        .any(|(n, _)| (8 * n..8 * n + 8).any(begins))
}

/// Reports whether a byte is a lower-case hex digit.
pub(super) fn is_lower_hex(byte: &u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn tmp_is_found_at_any_place(
            parts in prop::collection::vec(
                prop::sample::select(&["", ".", "t", ".tm", ".tmp", "mp", "\u{ae}tmp", "abcdefg"][..]),
                0..9,
            ),
        ) {
            let name = parts.concat();
            prop_assert_eq!(contains_tmp(name.as_bytes()), name.contains(".tmp"), "{:?}", name);
        }

        #[test]
        fn a_uuid_is_removed_only_from_the_end(
            before in "[a.]{0,3}",
            uuid in "[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}",
            place in 0..36_usize,
            other in "[-0g]",
        ) {
            let name = format!("{before}{uuid}");
            prop_assert_eq!(strip_uuid(name.as_bytes()), Some(before.as_bytes()));
            let mut changed = name.into_bytes();
            let byte = &mut changed[before.len() + place];
            let is_same_kind = (*byte == b'-') == (other == "-") && other != "g";
            *byte = other.as_bytes()[0];
            prop_assert_eq!(strip_uuid(&changed).is_some(), is_same_kind);
            prop_assert_eq!(strip_uuid(&changed[..changed.len() - 1]), None);
        }
    }
}
