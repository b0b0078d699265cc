//! The names that orphand itself creates in a root: the quarantine `.orphand`, and claims `.orphand-<16 hex>-<name>`.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use super::suffix::is_lower_hex;
use super::time::Wall;

/// The name of a quarantine, and the prefix of all names that orphand creates. Scans and watches skip them, and no rule
/// matches them.
pub const OWN_PREFIX: &str = ".orphand";

/// The prefix of a claim.
pub(crate) const CLAIM_PREFIX: &[u8] = b".orphand-";

/// The number of hexadecimal digits of a claim.
pub(crate) const CLAIM_HEX: usize = 16;

/// The maximum length of a file name (`NAME_MAX`) on each file system where leases are trusted.
pub(crate) const NAME_MAX: usize = 255;

/// Reports whether `name` is one of orphand's own: the quarantine, or a claim.
#[must_use]
pub fn is_own(name: &OsStr) -> bool {
    // Eight bytes are compared as one number.
    const PREFIX: Option<&[u8; OWN_PREFIX.len()]> = OWN_PREFIX.as_bytes().first_chunk();
    name.as_bytes().first_chunk() == PREFIX
}

/// A parsed claim name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The original name of the file; `None` if the name may have been cut.
    pub original: Option<OsString>,
    /// The digits that the claims of all members of a set have in common. `None` if it is the claim of a single file.
    pub set: Option<String>,
}

/// The bit of the second number in a claim's name that the claims of a set have.
pub(crate) const SET_BIT: u32 = 1 << 31;

/// The lowest bits of the digits of a set, except [`SET_BIT`], which are random. The others are the time of the claim in
/// microseconds since 1970.
const SET_RANDOM_BITS: u32 = 11;

/// Returns the digits of the claims of a set that is claimed `micros` microseconds after 1970. `random` distinguishes
/// processes.
#[must_use]
pub(crate) fn set_digits(micros: u64, random: u32) -> u64 {
    let number = (micros << SET_RANDOM_BITS) | u64::from(random) & ((1 << SET_RANDOM_BITS) - 1);
    let low = number & u64::from(SET_BIT - 1);
    (number >> SET_BIT.trailing_zeros() << 32) | u64::from(SET_BIT) | low
}

/// Returns the time at which a set with these digits was claimed. `None` if no orphand made them.
#[must_use]
pub(crate) fn set_time(set: &str) -> Option<Wall> {
    let digits = u64::from_str_radix(set, 16).ok()?;
    let low = digits & u64::from(SET_BIT - 1);
    let micros = ((digits >> 32 << SET_BIT.trailing_zeros()) | low) >> SET_RANDOM_BITS;
    let at = Wall {
        sec: i64::try_from(micros / 1_000_000).ok()?,
        nsec: u32::try_from(micros % 1_000_000 * 1_000).ok()?,
    };
    (at >= FIRST_CLAIM).then_some(at)
}

/// No orphand existed before this time: 2025-01-01.
const FIRST_CLAIM: Wall = Wall {
    sec: 1_735_689_600,
    nsec: 0,
};

/// Reports whether the claim of a file with this name contains the whole name.
#[must_use]
pub fn fits_in_claim(name: &OsStr) -> bool {
    CLAIM_PREFIX.len() + CLAIM_HEX + 1 + name.len() < NAME_MAX
}

/// Returns the name of the claim of the file `name` that has the digits of `claim`. `None` if `name` is too long.
#[must_use]
pub(crate) fn claim_beside(claim: &OsStr, name: &OsStr) -> Option<OsString> {
    let digits = claim.as_bytes().get(..CLAIM_PREFIX.len() + CLAIM_HEX)?;
    let beside = [digits, b"-", name.as_bytes()].concat();
    fits_in_claim(name).then(|| OsString::from_vec(beside))
}

/// Reports whether the file at `path` is named like a claim.
#[must_use]
pub fn is_claim(path: &Path) -> bool {
    path.file_name()
        .is_some_and(|name| parse_claim(name).is_some())
}

/// Parses a claim name. Returns `None` for any other name.
#[must_use]
pub fn parse_claim(name: &OsStr) -> Option<Claim> {
    let name = name.as_bytes();
    let rest = name.strip_prefix(CLAIM_PREFIX)?;
    let (hex, rest) = rest.split_at_checked(CLAIM_HEX)?;
    let is_hex = hex.iter().all(is_lower_hex);
    let original = rest.strip_prefix(b"-")?;
    if !is_hex || original.is_empty() || original == b"." || original == b".." {
        return None;
    }
    let original = (name.len() < NAME_MAX).then(|| OsString::from_vec(original.to_vec()));
    let is_set = matches!(hex.get(CLAIM_HEX / 2), Some(b'8'..=b'9' | b'a'..=b'f'));
    Some(Claim {
        set: (is_set && original.is_some()).then(|| String::from_utf8_lossy(hex).into_owned()),
        original,
    })
}
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_claims_of_a_set_have_the_same_digits() {
        let set = |name: &str| parse_claim(OsStr::new(name)).and_then(|claim| claim.set);
        for (digit, is_set) in [('0', false), ('7', false), ('8', true), ('f', true)] {
            let digits = format!("01234567{digit}9abcdef");
            let name = format!(".orphand-{digits}-a.tmp");
            assert_eq!(set(&name), is_set.then_some(digits), "{name}");
        }
        let longest = "x".repeat(NAME_MAX - CLAIM_PREFIX.len() - CLAIM_HEX - 2);
        assert!(fits_in_claim(OsStr::new(&longest)));
        assert!(!fits_in_claim(OsStr::new(&(longest.clone() + "x"))));
        let claim = OsStr::new(".orphand-0123456789abcdef-a.tmp");
        let beside = |name: &str| claim_beside(claim, OsStr::new(name));
        let expected = OsString::from(".orphand-0123456789abcdef-a.tmp-wal");
        assert_eq!(beside("a.tmp-wal"), Some(expected));
        assert!(beside(&longest).is_some() && beside(&(longest + "x")).is_none());
    }

    #[test]
    fn the_digits_of_a_set_show_its_time() {
        for micros in [
            1_735_689_600_000_000,
            1_764_612_345_123_456,
            4_102_444_800_999_999,
        ] {
            for random in [0, 7, u32::MAX] {
                let digits = format!("{:016x}", set_digits(micros, random));
                let claim = parse_claim(OsStr::new(&format!(".orphand-{digits}-a.tmp")));
                let set = claim.and_then(|claim| claim.set).unwrap();
                let at = set_time(&set).unwrap();
                assert_eq!(
                    (at.sec * 1_000_000, at.nsec / 1_000),
                    (
                        micros as i64 / 1_000_000 * 1_000_000,
                        (micros % 1_000_000) as u32
                    )
                );
            }
        }
        assert_eq!(set_time("0123456789abcdef"), None);
    }

    #[test]
    fn other_names_are_no_claims() {
        for name in [
            ".orphand",
            ".orphand-",
            ".orphand-0123456789abcdef",
            ".orphand-0123456789abcdef-",
            ".orphand-0123456789abcdef-..",
            ".orphand-0123456789ABCDEF-a.tmp",
            ".orphand-0123456789abcdeg-a.tmp",
            ".orphand-0123456789abcde-a.tmp",
            "orphand-0123456789abcdef-a.tmp",
        ] {
            assert_eq!(parse_claim(OsStr::new(name)), None, "{name}");
        }
    }
}
