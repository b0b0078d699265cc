//! Judges whether a directory ignores upper and lower case in names.

use super::check::Check;

/// Judges `folds`: whether the directory ignores case, or `None` if that is unknown.
pub(super) fn judge(folds: Option<bool>) -> Option<Check> {
    let what = match folds? {
        false => "names are case-sensitive, as in rules",
        true => {
            "this directory ignores upper and lower case in names, but rules do not: *.tmp does not match X.TMP (if a \
             program writes such names: --name '*.TMP'). Targets are found with the directory's own rule"
        }
    };
    Some(Check::ok("names", what))
}

#[cfg(test)]
mod tests {
    use super::*;
    use orphand::core::temp_name::Names;

    #[test]
    fn rules_distinguish_case_as_the_check_states() {
        let names = Names::default();
        assert!(names.matches(b"x.tmp") && !names.matches(b"X.TMP"));
        let named = Names::new(&["*.TMP"], &[] as &[&str]).unwrap();
        assert!(named.matches(b"X.TMP") && !named.matches(b"x.tmp"));
        assert_eq!(judge(None), None);
        assert!(judge(Some(true)).is_some_and(|check| check.what.contains("X.TMP")));
        assert!(judge(Some(false)).is_some_and(|check| !check.what.contains("X.TMP")));
    }
}
