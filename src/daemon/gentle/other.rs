//! Any other Unix: there is no such priority.

pub(super) type Priority = ();

pub(super) const IS_INHERITED: bool = true;

pub(super) fn lower() -> Option<Priority> {
    None
}

pub(super) fn restore((): Priority) {}
