//! Random numbers for names that no other process must choose.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};

/// Returns a random number; never fails and never waits.
///
/// Linux is asked by getrandom(2). If it gives no answer (on other systems, early in the boot, or in a sandbox), the
/// number is derived from the random keys of the standard library's hash maps.
#[must_use]
pub fn random_u64() -> u64 {
    from_kernel().unwrap_or_else(from_hash_keys)
}

#[cfg(target_os = "linux")]
fn from_kernel() -> Option<u64> {
    use rustix::rand::{GetRandomFlags, getrandom};
    let mut bytes = [0; 8];
    let length = getrandom(&mut bytes, GetRandomFlags::NONBLOCK).ok()?;
    (length == bytes.len()).then(|| u64::from_ne_bytes(bytes))
}

#[cfg(not(target_os = "linux"))]
fn from_kernel() -> Option<u64> {
    None
}

fn from_hash_keys() -> u64 {
    RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_differ() {
        for number in [random_u64, from_hash_keys] {
            assert_ne!(number(), number());
        }
    }
}
