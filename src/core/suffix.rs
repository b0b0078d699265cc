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

/// Removes `.tmp` from the end. The four bytes are compared as one number.
pub(super) fn strip_tmp(name: &[u8]) -> Option<&[u8]> {
    let (stem, end) = name.split_last_chunk()?;
    (end == b".tmp").then_some(stem)
}

/// Removes a uuid from the end.
pub(super) fn strip_uuid(bytes: &[u8]) -> Option<&[u8]> {
    let (before, uuid) = bytes.split_last_chunk::<36>()?;
    // The dashes become digits, and digits fill the last word.
    let mut digits = [b'0'; 40];
    *digits.first_chunk_mut()? = *uuid;
    for at in [23, 18, 13, 8] {
        let dash = digits.get_mut(at).filter(|byte| **byte == b'-')?;
        *dash = b'0';
    }
    let (words, _) = digits.as_chunks();
    words.iter().all(are_hex).then_some(before)
}

/// Returns a word of eight equal bytes.
const fn repeated(byte: u8) -> u64 {
    u64::from_le_bytes([byte; 8])
}

/// Reports whether all of these bytes are hex digits. They are compared at the same time, as one number.
fn are_hex(bytes: &[u8; 8]) -> bool {
    const HIGHEST_BITS: u64 = repeated(1 << 7);
    let word = u64::from_le_bytes(*bytes);
    // Sets the highest bit of each byte that is at least `least`. The sum of two bytes below 128 and at most 128 fits in
    // a byte.
    let at_least = |word: u64, least: u8| word.wrapping_add(repeated((1 << 7) - least));
    let lower = word | repeated(b'a' - b'A');
    let digits = at_least(word, b'0') & !at_least(word, b'9' + 1);
    let letters = at_least(lower, b'a') & !at_least(lower, b'f' + 1);
    (digits | letters) & !word & HIGHEST_BITS == HIGHEST_BITS
}

/// Reports whether a name contains `.tmp`. Eight bytes at a time are searched for the dot.
pub(super) fn contains_tmp(name: &[u8]) -> bool {
    let mut rest = name;
    while let Some((word, after)) = rest.split_first_chunk() {
        // The lowest byte that is zero here has its highest bit set below. No byte has it if none is zero.
        let word = u64::from_le_bytes(*word) ^ repeated(b'.');
        let mut dots = word.wrapping_sub(repeated(1)) & !word & repeated(1 << 7);
        while dots != 0 {
            let at = dots.trailing_zeros() / u8::BITS;
            if begins_with_tmp(rest, at as usize) {
                return true;
            }
            dots &= dots - 1;
        }
        rest = after;
    }
    (0..rest.len()).any(|at| begins_with_tmp(rest, at))
}

/// Reports whether `.tmp` is in a name at this place.
fn begins_with_tmp(name: &[u8], at: usize) -> bool {
    name.get(at..).and_then(<[u8]>::first_chunk) == Some(b".tmp")
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
