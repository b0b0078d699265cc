//! The words that the command line and the configuration file choose from.

use clap::ValueEnum;
use orphand::daemon::Existing;
use orphand::decide::policy::{Action, Closed, Hot, Open, SoleCopy};

macro_rules! choice {
    ($name:ident for $of:ident { $($value:ident $help:literal),+ $(,)? }) => {
        #[derive(Clone, Copy, Debug, ValueEnum)]
        pub(crate) enum $name { $(#[doc = $help] $value),+ }
        impl From<$name> for $of {
            fn from(arg: $name) -> $of {
                match arg { $($name::$value => $of::$value),+ }
            }
        }
    };
}

choice!(ClosedArg for Closed {
    Orphan "a closed temp that nobody renamed is an orphan",
    Settled "a close ends the tracking",
});
choice!(OpenArg for Open {
    Keep "it stays, and its holder is named",
    Quarantine "it is moved to the quarantine",
    Reap "it is removed, without any proof that nobody needs it",
});
choice!(SoleCopyArg for SoleCopy {
    Quarantine "it is moved to the quarantine",
    Keep "it stays",
    Reap "it is removed like any other",
});
choice!(ActionArg for Action {
    Delete "it is deleted",
    Quarantine "it is moved to the quarantine",
    Report "it is only reported",
});
choice!(HotArg for Hot {
    Scan "it is scanned twice in each grace, until it is calm again",
    Watch "it is watched like any other",
});
choice!(ExistingArg for Existing {
    Take "they go as soon as it is proven that they may",
    Wait "they wait for a whole grace",
    Leave "they are left alone",
});
