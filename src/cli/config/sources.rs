//! Options, and who gave each its value: a flag of the command line, or a variable.

use std::collections::BTreeMap;

use clap::parser::ValueSource;
use clap::{ArgMatches, Args, Command, Error, FromArgMatches, Id};

/// What `T` reads, and from where.
#[derive(Clone, Debug)]
pub(crate) struct WithSources<T> {
    pub(crate) options: T,
    pub(crate) sources: ValueSources,
}

/// By the name of an option's field: `--grace` or `ORPHAND_GRACE`. What nobody gave is not in it.
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
        // First, as reading a value takes it out.
        let givers = sources(&T::augment_args(Command::new("")), matches);
        let options = T::from_arg_matches_mut(matches)?;
        Ok(WithSources {
            options,
            sources: givers,
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = WithSources::from_arg_matches(matches)?;
        Ok(())
    }
}

fn sources(command: &Command, matches: &ArgMatches) -> ValueSources {
    let giver = |arg: &clap::Arg| {
        let id = arg.get_id().as_str();
        let giver = match matches.value_source(id)? {
            ValueSource::CommandLine => format!("--{}", arg.get_long()?),
            ValueSource::EnvVariable => arg.get_env()?.to_string_lossy().into_owned(),
            _ => return None,
        };
        Some((id.to_owned(), giver))
    };
    command.get_arguments().filter_map(giver).collect()
}
