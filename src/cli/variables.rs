//! The `ORPHAND_*` variables. An empty variable counts as not set. The error for a wrong value names the variable
//! that the value comes from. A variable that looks like one of an option and has no effect is reported.

use std::env;
use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgMatches, Command, CommandFactory, Error, FromArgMatches};

use crate::cli::output::shell;

/// Parses the command line and the variables.
pub(super) fn parse<C: CommandFactory + FromArgMatches>() -> Result<C, Error> {
    let args: Vec<OsString> = env::args_os().collect();
    let is_empty = |arg: &Arg| value(arg).is_some_and(|value| value.is_empty());
    let command = without(C::command(), &is_empty);
    for message in ignored(&C::command(), env::vars_os().map(|(name, _)| name)) {
        let _ = writeln!(io::stderr(), "warning: {message}");
    }
    command
        .clone()
        .try_get_matches_from(&args)
        .and_then(|matches| {
            if let Some(file) = config(&matches) {
                shell::set_config(file);
            }
            C::from_arg_matches(&matches)
        })
        .map_err(|error| attribute(error, command, &args))
}

/// Returns the configuration file that the options of the command, or of its subcommand, name.
fn config(matches: &ArgMatches) -> Option<&PathBuf> {
    let here = matches.try_get_one("config").ok().flatten();
    here.or_else(|| config(matches.subcommand()?.1))
}

/// Returns the value of a variable if it is set and not empty.
pub(super) fn value_of(name: &str) -> Option<OsString> {
    env::var_os(name).filter(|value| !value.is_empty())
}

/// Returns the value of the variable that can set `arg`.
fn value(arg: &Arg) -> Option<OsString> {
    env::var_os(arg.get_env()?)
}

/// Returns `command` without the variables of the options for which `unset` returns true, including those of
/// subcommands.
fn without(command: Command, unset: &impl Fn(&Arg) -> bool) -> Command {
    let leave_out = |arg: Arg| match unset(&arg) {
        true => arg.env(None::<&str>),
        false => arg,
    };
    let command = command.mut_args(leave_out);
    command.mut_subcommands(|command| without(command, unset))
}

/// Adds the name of the variable that caused `error`, if a variable caused it. It is the variable without which the
/// error disappears or becomes another one.
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

/// Collects the names of the variables that options can come from and that are set, each once.
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

/// Returns a message for each of the variables `set` that has no effect, but is meant for an option: it has the name of an
/// option that has no variable, or nearly that of a variable.
fn ignored(command: &Command, set: impl Iterator<Item = OsString>) -> Vec<String> {
    let (mut known, mut flags) = (Vec::new(), Vec::new());
    options(command, &mut known, &mut flags);
    let mut messages = Vec::new();
    for name in set {
        let Some(name) = name.to_str().filter(|name| name.starts_with(PREFIX)) else {
            continue;
        };
        if known.iter().any(|one| one == name) {
            continue;
        }
        let is_similar = |one: &&String| strsim::levenshtein(one, name) <= 2;
        if let Some(flag) = flags.iter().find(|flag| variable_of(flag) == name) {
            messages.push(format!("{name} has no effect; use --{flag}"));
        } else if let Some(meant) = known.iter().find(is_similar) {
            messages.push(format!("{name} has no effect; did you mean {meant}?"));
        }
    }
    messages
}

const PREFIX: &str = "ORPHAND_";

/// Returns the name that the variable of an option would have.
fn variable_of(flag: &str) -> String {
    PREFIX.to_owned() + &flag.to_ascii_uppercase().replace('-', "_")
}

/// Collects the variables of all options, and the names of the options that have none.
fn options(command: &Command, known: &mut Vec<String>, flags: &mut Vec<String>) {
    for arg in command.get_arguments() {
        match (arg.get_env().and_then(|name| name.to_str()), arg.get_long()) {
            (Some(name), _) => known.push(name.to_owned()),
            (None, Some(flag)) => flags.push(flag.to_owned()),
            (None, None) => {}
        }
    }
    for command in command.get_subcommands() {
        options(command, known, flags);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_without_effect_are_reported() {
        let command = crate::cli::Cli::command();
        for (name, want) in [
            ("ORPHAND_GRACE", None),
            ("ORPHAND_DRY_RUN", None),
            ("ORPHAND_EXISTING", None),
            ("ORPHAND_LOG", None),
            ("ORPHAND_VERSION_OF_THE_FLEET", None),
            ("GRACE", None),
            ("ORPHAND_GRCE", Some("did you mean ORPHAND_GRACE?")),
            ("ORPHAND_NAME", Some("use --name")),
            ("ORPHAND_ALLOW_BROAD_ROOT", Some("use --allow-broad-root")),
        ] {
            let found = ignored(&command, std::iter::once(name.into()));
            let want = want.map(|hint| format!("{name} has no effect; {hint}"));
            assert_eq!(found, Vec::from_iter(want), "{name}");
        }
    }
}
