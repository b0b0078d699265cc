//! Records the source of each option's value: a flag of the command line, or a variable.

use std::collections::BTreeMap;

use clap::parser::ValueSource;
use clap::{ArgMatches, Args, Command, Error, FromArgMatches, Id};
use orphand::core::sort::map_of;

/// The options `T`, and the sources of their values.
#[derive(Clone, Debug)]
pub(crate) struct WithSources<T> {
    pub(crate) options: T,
    pub(crate) sources: ValueSources,
}

/// The source of each option, such as `--grace` or `ORPHAND_GRACE`, by the name of its field. Options without a value
/// are missing.
pub(crate) type ValueSources = BTreeMap<String, String>;

impl<T: Args> Args for WithSources<T> {
    fn group_id() -> Option<Id> {
        T::group_id()
    }

    fn augment_args(command: Command) -> Command {
        T::augment_args(command)
    }

    fn augment_args_for_update(command: Command) -> Command {
        T::augment_args_for_update(command)
    }
}

impl<T: Args> FromArgMatches for WithSources<T> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<WithSources<T>, Error> {
        WithSources::from_arg_matches_mut(&mut matches.clone())
    }

    fn from_arg_matches_mut(matches: &mut ArgMatches) -> Result<WithSources<T>, Error> {
        // The sources are read first, because reading a value removes it.
        let sources = sources(&T::augment_args(Command::new("")), matches);
        let options = T::from_arg_matches_mut(matches)?;
        Ok(WithSources { options, sources })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = WithSources::from_arg_matches(matches)?;
        Ok(())
    }
}

fn sources(command: &Command, matches: &ArgMatches) -> ValueSources {
    let entry = |arg: &clap::Arg| {
        let id = arg.get_id().as_str();
        let source = match matches.value_source(id)? {
            ValueSource::CommandLine => format!("--{}", arg.get_long()?),
            ValueSource::EnvVariable => arg.get_env()?.to_string_lossy().into_owned(),
            _ => return None,
        };
        Some((id.to_owned(), source))
    };
    map_of(command.get_arguments().filter_map(entry))
}
