//! The version of the kernel.

use std::sync::OnceLock;

/// Returns the first two numbers of a release as uname(2) returns it.
#[must_use]
pub fn parse(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    let mut next = || numbers.next()?.parse().ok();
    Some((next()?, next()?))
}

/// Reports whether this kernel has at least this version. If its version is unknown, it does not count as new.
#[must_use]
pub fn is_at_least(version: (u32, u32)) -> bool {
    static OURS: OnceLock<Option<(u32, u32)>> = OnceLock::new();
    let ours = OURS.get_or_init(|| {
        let system = rustix::system::uname();
        parse(system.release().to_str().ok()?)
    });
    ours.is_some_and(|ours| ours >= version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_has_a_version() {
        let check = |release: &str, want| assert_eq!(parse(release), want, "{release:?}");
        check("6.18.5", Some((6, 18)));
        check("5.17.0-rc3", Some((5, 17)));
        check("4.18.0-553.el8_10.x86_64", Some((4, 18)));
        check("6", None);
        check("", None);
        check("generic", None);
    }

    #[test]
    fn versions_are_compared_as_numbers() {
        assert!(is_at_least((2, 6)));
        assert!(!is_at_least((1_000, 0)));
        assert_eq!(parse("5.4").map(|version| version >= (5, 17)), Some(false));
    }
}
