//! The treatment of temps from before the start.

/// The treatment of temps that existed before the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Existing {
    /// They are removed as soon as this is proven to be safe.
    #[default]
    Take,
    /// They wait for a whole grace, whatever their dates are.
    Wait,
    /// They are ignored.
    Leave,
}
