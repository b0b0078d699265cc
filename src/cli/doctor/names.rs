//! Folders in which names that differ in their capitals are one.

use super::check::Check;

/// `folds`: whether they are, where it is known.
pub(super) fn judge(folds: Option<bool>) -> Option<Check> {
    let what = match folds? {
        false => "capitals matter in names, as they do in rules",
        true => {
            "names that differ only in their capitals are one here, but rules compare them: \
             *.tmp does not take X.TMP (where a program writes those: --name '*.TMP'). \
             Targets are found by the folder's own way"
        }
    };
    Some(Check::ok("names", what))
}

#[cfg(test)]
mod tests {
    use super::*;
    use orphand::decide::temp_name::Names;

    #[test]
    fn what_is_said_of_capitals_is_so() {
        let names = Names::default();
        assert!(names.matches(b"x.tmp") && !names.matches(b"X.TMP"));
        let named = Names::new(&["*.TMP"], &[] as &[&str]).unwrap();
        assert!(named.matches(b"X.TMP") && !named.matches(b"x.tmp"));
        assert_eq!(judge(None), None);
        assert!(judge(Some(true)).is_some_and(|check| check.what.contains("X.TMP")));
        assert!(judge(Some(false)).is_some_and(|check| !check.what.contains("X.TMP")));
    }
}
