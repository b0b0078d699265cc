//! Random numbers, for names that two processes must not share.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};

/// Returns a random number; never fails and never waits. It is derived from the keys of the standard library's hash
/// maps, which the operating system draws at random for each thread and which differ from one map to the next.
#[must_use]
pub fn random_u64() -> u64 {
    RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_differ() {
        assert_ne!(random_u64(), random_u64());
    }
}
