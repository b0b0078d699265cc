//! A macro that marks each safety rule in the code with an id, so that a test build can disable it.
//!
//! `rule!("id", condition)` evaluates to `condition`, and `rule!("id", value, without: other)` to `value`. In a build
//! with `--cfg without_rules`, the environment variable `WITHOUT_RULE=id` disables one rule: then the first form
//! evaluates to `false` and the second one to `other`. In every other build the macro expands to its second argument.
//!
//! For each id, `tests/rules` names a test that fails without the rule; `tests/without-each-rule` runs these tests.

#[cfg(not(without_rules))]
#[allow(unused_macros)]
macro_rules! rule {
    ($id:expr, $value:expr $(,)?) => {
        $value
    };
    ($id:expr, $value:expr, without: $other:expr $(,)?) => {
        $value
    };
}

#[cfg(without_rules)]
#[allow(unused_macros)]
macro_rules! rule {
    ($id:expr, $value:expr $(,)?) => {
        !$crate::rule::is_off($id) && $value
    };
    ($id:expr, $value:expr, without: $other:expr $(,)?) => {
        if $crate::rule::is_off($id) {
            $other
        } else {
            $value
        }
    };
}

/// Reports whether the rule `id` is disabled in this run.
#[cfg(without_rules)]
pub(crate) fn is_off(id: &str) -> bool {
    use std::ffi::OsString;
    use std::sync::OnceLock;

    static OFF: OnceLock<Option<OsString>> = OnceLock::new();
    OFF.get_or_init(|| std::env::var_os("WITHOUT_RULE"))
        .as_deref()
        .is_some_and(|off| off == id)
}
