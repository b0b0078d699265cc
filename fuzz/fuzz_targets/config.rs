//! The configuration file, as any bytes. It is a part of the binary, so its source is built in
//! here, as it is.

#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;

use cli::config_file::Config;

#[allow(dead_code, unused_imports)] // all but the reading
#[path = "../../src/cli"]
mod cli {
    pub(crate) mod config_file;
    mod duration;
    mod size;
    mod text;

    /// The words of the command line that the file has too. The rest of it has no part in
    /// reading. A word that is new there is not tried here before it stands here too.
    mod args {
        use clap::ValueEnum;
        use orphand::decide::policy::{Action, Closed, Open, SoleCopy};

        macro_rules! choice {
            ($name:ident for $of:ident { $($value:ident),+ }) => {
                #[derive(Clone, Copy, Debug, ValueEnum)]
                pub(crate) enum $name { $($value),+ }
                impl From<$name> for $of {
                    fn from(arg: $name) -> $of {
                        match arg { $($name::$value => $of::$value),+ }
                    }
                }
            };
        }

        choice!(ClosedArg for Closed { Orphan, Settled });
        choice!(OpenArg for Open { Keep, Quarantine, Reap });
        choice!(SoleCopyArg for SoleCopy { Quarantine, Keep, Reap });
        choice!(ActionArg for Action { Delete, Quarantine, Report });
    }
}

fuzz_target!(|text: &[u8]| {
    let Ok(text) = std::str::from_utf8(text) else {
        return;
    };
    match Config::parse(text, Path::new("c.toml"), Some(Path::new("/home/ann"))) {
        Ok(config) => {
            for rule in &config.watch {
                assert!(rule.path.is_absolute(), "{:?}", rule.path);
                // What is read without a mistake makes a rule.
                let settings = rule.settings.clone().over(&config.defaults);
                settings.policy().expect("a rule");
            }
        }
        Err(error) => {
            let (line, column) = error.place.expect("a place");
            let length = text
                .split('\n')
                .nth(line - 1)
                .map(|line| line.chars().count());
            assert!(
                length.is_some_and(|length| (1..=length + 1).contains(&column)),
                "{error}"
            );
            assert!(!error.what.is_empty());
        }
    }
});
