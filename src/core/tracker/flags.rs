//! The small parts of the state of a temp: its origin, its flags, and the reasons that were reported.

use crate::core::judge::Reason;

/// The way in which a temp was discovered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// An event reported its creation, or a rename to its name.
    Created,
    /// A scan found it. Its own dates give it credit.
    Found,
    /// A scan found it. It waits for its whole grace, whatever its dates are.
    FoundWithoutCredit,
    /// A scan found it in a watched directory, in a hot one, which is scanned instead of watched, or in a root that was
    /// added after the start. Its own dates give it credit for at most half the grace, so its writer has as much time
    /// as with an event.
    FoundWithHalfCredit,
}

/// Boolean flags of one bit each, and the origin in two bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Flags(u8);

impl Flags {
    pub(super) const CLOSED: u8 = 1;
    pub(super) const CHECKED_OUT: u8 = 2;
    pub(super) const NEW_RULES: u8 = 4;
    pub(super) const AWAITING_PUT_BACK: u8 = 8;
    pub(super) const CLAIM_PENDING: u8 = 16;
    pub(super) const TARGET: u8 = 128;
    /// Mask of the two bits of the origin.
    const ORIGIN: u8 = 32 | 64;

    /// Returns the same flags with another origin.
    pub(super) fn with(self, origin: Origin) -> Flags {
        let origin = match origin {
            Origin::Created => 0,
            Origin::Found => 32,
            Origin::FoundWithoutCredit => 64,
            Origin::FoundWithHalfCredit => 32 | 64,
        };
        Flags(self.0 & !Flags::ORIGIN | origin)
    }

    pub(super) fn origin(self) -> Origin {
        match self.0 & Flags::ORIGIN {
            0 => Origin::Created,
            32 => Origin::Found,
            64 => Origin::FoundWithoutCredit,
            _ => Origin::FoundWithHalfCredit,
        }
    }

    pub(super) fn has(self, flag: u8) -> bool {
        self.0 & flag != 0
    }

    pub(super) fn set(&mut self, flag: u8, on: bool) {
        self.0 = if on { self.0 | flag } else { self.0 & !flag };
    }
}

/// The set of reasons that were already reported for this temp, one bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ReportedReasons([u8; 3]);

impl ReportedReasons {
    /// Adds a reason, and returns true if it was not in the set.
    pub(super) fn insert(&mut self, reason: Reason) -> bool {
        let bit = reason.bit();
        let [a, b, c] = self.0;
        let before = u32::from_le_bytes([a, b, c, 0]);
        let [a, b, c, _] = (before | bit).to_le_bytes();
        self.0 = [a, b, c];
        before & bit == 0
    }

    /// Reports whether the set contains a reason other than `reason`.
    pub(super) fn has_other(self, reason: Reason) -> bool {
        let [a, b, c] = self.0;
        u32::from_le_bytes([a, b, c, 0]) & !reason.bit() != 0
    }
}
