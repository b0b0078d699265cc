//! The values of options that have a fixed list of words, for the command line and for the configuration file.

use clap::ValueEnum;
use log::LevelFilter;
use orphand::core::policy::{Action, Closed, Hot, Learn, Open, SoleCopy};
use orphand::daemon::Existing;
use serde::{Deserialize, Serialize};

macro_rules! choice {
    ($name:ident for $of:ident { $($value:ident $help:literal),+ $(,)? }) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize, Serialize)]
        #[serde(rename_all = "kebab-case")]
        pub(crate) enum $name { $(#[doc = $help] $value),+ }
        impl From<$name> for $of {
            fn from(arg: $name) -> $of {
                match arg { $($name::$value => $of::$value),+ }
            }
        }
    };
}

choice!(ClosedArg for Closed {
    Orphan "a closed temp that was not renamed is an orphan",
    Settled "a closed temp is left alone",
});
choice!(OpenArg for Open {
    Keep "it is kept, and the process is named",
    Quarantine "it is moved to the quarantine",
    Reap "it is removed without proof that it is unused",
});
choice!(SoleCopyArg for SoleCopy {
    Quarantine "it is moved to the quarantine",
    Keep "it is kept",
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
choice!(LearnArg for Learn {
    Off "nothing is learned",
    Report "shapes are shown, and tell the targets of temps",
    Take "a watch also moves temps to the quarantine that only a shape matches",
});
choice!(ExistingArg for Existing {
    Take "they are removed as soon as they are proven unused",
    Wait "they are removed after a whole grace at the earliest",
    Leave "they are left alone",
});
choice!(LogLevel for LevelFilter {
    Error "only errors",
    Warn "also warnings",
    Info "also what the watcher does",
    Debug "also details for the search for an error",
});
