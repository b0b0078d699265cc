//! Marks each safety rule in the code with its id, so that a test build can switch it off.
//!
//! `rule!("id", condition)` is `condition`. `rule!("id", value, without: other)` is `value`. A build with
//! `--cfg without_rules` can leave one rule out: there, with `WITHOUT_RULE=id` in the environment, the first form is
//! `false` and the second one is `other`. In every other build the macro leaves nothing behind but its second argument.
//!
//! `tests/rules` names for each id a test that fails without the rule; `tests/without-each-rule` runs them.

#[cfg(not(without_rules))]
#[allow(unused_macros)]
macro_rules! rule {
    ($id:expr, $kept:expr $(,)?) => {
        $kept
    };
    ($id:expr, $kept:expr, without: $other:expr $(,)?) => {
        $kept
    };
}

#[cfg(without_rules)]
#[allow(unused_macros)]
macro_rules! rule {
    ($id:expr, $kept:expr $(,)?) => {
        !$crate::rule::is_off($id) && $kept
    };
    ($id:expr, $kept:expr, without: $other:expr $(,)?) => {
        if $crate::rule::is_off($id) {
            $other
        } else {
            $kept
        }
    };
}

/// Whether this run leaves out the rule `id`.
#[cfg(without_rules)]
pub(crate) fn is_off(id: &str) -> bool {
    use std::ffi::OsString;
    use std::sync::OnceLock;

    static OFF: OnceLock<Option<OsString>> = OnceLock::new();
    OFF.get_or_init(|| std::env::var_os("WITHOUT_RULE"))
        .as_deref()
        .is_some_and(|off| off == id)
}
