//! Judges the release of Linux: older releases lack system calls that orphand uses.

use super::check::Check;

/// Judges a release as uname(2) returns it.
pub(super) fn judge(release: &str) -> Check {
    let fix = "update the kernel when possible";
    match version(release) {
        Some(version) if version < (5, 6) => Check::warning(
            "kernel",
            format!(
                "Linux {release}, older than 5.6: a path below a root is opened one component at a time, and mounts \
                 have no ids, so a bind mount of the same file system below a root cannot be distinguished from a \
                 directory"
            ),
            fix,
        ),
        Some(version) if version < (5, 8) => Check::warning(
            "kernel",
            format!(
                "Linux {release}, older than 5.8: mounts have no ids; devices are compared instead"
            ),
            fix,
        ),
        Some(_) => Check::ok("kernel", format!("Linux {release}")),
        None => Check::ok("kernel", format!("Linux {release:?}, an unknown version")),
    }
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    let mut next = || numbers.next()?.parse().ok();
    Some((next()?, next()?))
}

#[cfg(test)]
mod tests {
    use super::super::check::CheckState;
    use super::*;

    #[test]
    fn releases_before_5_8_are_a_warning() {
        for (release, state) in [
            ("6.18.44-fc-v782", CheckState::Ok),
            ("5.8.0", CheckState::Ok),
            ("5.7.19-arch1", CheckState::Warning),
            ("5.6", CheckState::Warning),
            ("5.5.99", CheckState::Warning),
            ("4.18.0-553.el8", CheckState::Warning),
            ("10.0.1", CheckState::Ok),
            ("", CheckState::Ok),
            ("x.y", CheckState::Ok),
        ] {
            assert_eq!(judge(release).state, state, "{release}");
        }
    }
}
