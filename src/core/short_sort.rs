//! A stable sort for short lists, such as the lines of a summary.
//!
//! The sort of the standard library is for lists of any length. Its code takes 5 kB in the program for each type and
//! order (measured with `nm -S`), and a release binary has a limit of 5 MB.

use std::cmp::Ordering;

/// Sorts a list of at most some thousand items by insertion. Equal items keep their order. The time grows with the
/// square of the length.
pub fn sort_short<T>(list: &mut [T], mut compare: impl FnMut(&T, &T) -> Ordering) {
    for end in 1..list.len() {
        for at in (1..=end).rev() {
            let Some([before, after]) = list.get_mut(at - 1..=at) else {
                break;
            };
            if compare(before, after) != Ordering::Greater {
                break;
            }
            std::mem::swap(before, after);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_list_is_sorted_as_by_the_standard_library(list: Vec<(u8, u16)>) {
            let (mut ours, mut theirs) = (list.clone(), list);
            sort_short(&mut ours, |(a, _), (b, _)| a.cmp(b));
            theirs.sort_by_key(|(key, _)| *key);
            prop_assert_eq!(ours, theirs);
        }
    }
}
