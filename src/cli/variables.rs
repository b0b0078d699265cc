//! The `ORPHAND_*` variables: an empty one counts as not set, and an error over a wrong value names the
//! variable that it came from.

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgMatches, Command, CommandFactory as _, Error, FromArgMatches as _};

use super::args::Cli;
use super::shell;

/// Parses the command line and the variables.
pub(super) fn parse() -> Result<Cli, Error> {
    let args: Vec<OsString> = env::args_os().collect();
    let is_empty = |arg: &Arg| value(arg).is_some_and(|value| value.is_empty());
    let command = without(Cli::command(), &is_empty);
    command
        .clone()
        .try_get_matches_from(&args)
        .and_then(|matches| {
            if let Some(file) = config(&matches) {
                shell::set_config(file);
            }
            Cli::from_arg_matches(&matches)
        })
        .map_err(|error| attribute(error, command, &args))
}

/// Returns the configuration file that was named, by whichever command.
fn config(matches: &ArgMatches) -> Option<&PathBuf> {
    let here = matches.try_get_one("config").ok().flatten();
    here.or_else(|| config(matches.subcommand()?.1))
}

/// Returns the value of a variable, unless it is empty.
pub(super) fn value_of(name: &str) -> Option<OsString> {
    env::var_os(name).filter(|value| !value.is_empty())
}

/// Returns the value of the variable that `arg` reads.
fn value(arg: &Arg) -> Option<OsString> {
    env::var_os(arg.get_env()?)
}

/// Returns `command` without the variables of the options that `unset` names, at any depth.
fn without(command: Command, unset: &impl Fn(&Arg) -> bool) -> Command {
    let leave_out = |arg: Arg| match unset(&arg) {
        true => arg.env(None::<&str>),
        false => arg,
    };
    let command = command.mut_args(leave_out);
    command.mut_subcommands(|command| without(command, unset))
}

/// Returns `error` with the variable that it came from, if it came from one: the variable without which the
/// error is gone, or is another one.
fn attribute(mut error: Error, mut command: Command, args: &[OsString]) -> Error {
    let about = |error: &Error| {
        let context = |kind| error.get(kind).map(ToString::to_string);
        let (arg, value) = (
            context(ContextKind::InvalidArg),
            context(ContextKind::InvalidValue),
        );
        (error.kind(), arg, value)
    };
    let mut names = Vec::new();
    variables(&command, &mut names);
    let blamed = names.into_iter().find(|name| {
        let other = without(command.clone(), &|arg: &Arg| {
            arg.get_env() == Some(name.as_os_str())
        });
        let again = other.try_get_matches_from(args);
        again
            .err()
            .is_none_or(|again| about(&again) != about(&error))
    });
    match (blamed, error.kind()) {
        (None, _) => error,
        (Some(name), ErrorKind::InvalidUtf8) => {
            let what = format!("the value of {} is not UTF-8", name.to_string_lossy());
            command.error(ErrorKind::InvalidUtf8, what)
        }
        (Some(name), _) => {
            let name = ContextValue::String(name.to_string_lossy().into_owned());
            error.insert(ContextKind::InvalidArg, name);
            error
        }
    }
}

/// Collects the names of the variables that are read and set, each once.
fn variables(command: &Command, names: &mut Vec<OsString>) {
    let args = command.get_arguments();
    let read = args.filter(|arg| value(arg).is_some());
    for name in read.filter_map(Arg::get_env) {
        if !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
    }
    for command in command.get_subcommands() {
        variables(command, names);
    }
}
