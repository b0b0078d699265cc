//! `orphand man`: prints the manual, generated from the definitions of the command line.
//!
//! Commands, options, their texts and the `ORPHAND_*` variables come from clap's definitions. This file adds what
//! no option describes: exit codes, files, other variables and examples.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::PathBuf;

use clap::Command;
use clap_mangen::Man as Page;
use clap_mangen::roff::{Inline, Roff, bold, italic, roman};

use crate::cli::exit::{Exit, Failure};
use crate::cli::output::standard_streams::{print, write_fix};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  orphand man | man -l -              show the manual
  orphand man --dir /usr/local/share/man/man1")]
pub(crate) struct Man {
    /// Write orphand.1 and a page for each command to this folder; without it, print orphand.1
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

pub(crate) fn run(command: &Man, cli: Command) -> Result<Exit, Failure> {
    let pages = pages(cli)?;
    let Some(dir) = &command.dir else {
        let main = pages.get(MAIN).map_or(&[][..], Vec::as_slice);
        return Ok(print(main)?);
    };
    let failed = |path: &PathBuf, error: io::Error| {
        let fix = write_fix(&error, "a folder");
        Failure::failed(format!("cannot write {path:?}: {error}; {fix}"))
    };
    fs::create_dir_all(dir).map_err(|error| {
        let what = format!(
            "cannot create the folder {dir:?}: {error}; name a folder that you may write to"
        );
        Failure::failed(what)
    })?;
    for (name, page) in pages {
        let path = dir.join(name);
        fs::write(&path, page).map_err(|error| failed(&path, error))?;
    }
    Ok(Exit::Done)
}

/// The main page, which refers to all others.
const MAIN: &str = "orphand.1";

/// Returns the pages by their file names.
fn pages(cli: Command) -> io::Result<BTreeMap<String, Vec<u8>>> {
    // The subcommand `help` would repeat every command.
    let mut cli = cli.disable_help_subcommand(true);
    cli.build();
    let mut pages = BTreeMap::new();
    add(&cli, &mut pages)?;
    pages.insert(MAIN.to_owned(), main_page(&cli)?);
    Ok(pages)
}

fn add(command: &Command, pages: &mut BTreeMap<String, Vec<u8>>) -> io::Result<()> {
    for command in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        add(command, pages)?;
    }
    let page = page(command);
    let mut out = common_sections(&page, command)?;
    if let Some(notes) = command.get_after_help() {
        // Titled NOTES, where clap writes EXTRA; and not filled, because the text has columns.
        let mut roff = Roff::new();
        roff.control("SH", ["NOTES"]);
        roff.control("nf", []);
        roff.text([roman(notes.to_string())]);
        roff.control("fi", []);
        roff.to_writer(&mut out)?;
    }
    pages.insert(page.get_filename(), out);
    Ok(())
}

fn page(command: &Command) -> Page {
    Page::new(command.clone())
        .source(concat!("orphand ", env!("CARGO_PKG_VERSION")))
        .manual("orphand")
}

/// Returns the sections with which every page begins.
fn common_sections(page: &Page, command: &Command) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    page.render_title(&mut out)?;
    page.render_name_section(&mut out)?;
    page.render_synopsis_section(&mut out)?;
    page.render_description_section(&mut out)?;
    page.render_options_section(&mut out)?;
    if command.has_subcommands() {
        page.render_subcommands_section(&mut out)?;
    }
    Ok(out)
}

fn main_page(cli: &Command) -> io::Result<Vec<u8>> {
    let page = page(cli);
    let mut out = common_sections(&page, cli)?;
    let mut roff = Roff::new();
    section(&mut roff, "EXIT STATUS", &EXIT_STATUS);
    section(&mut roff, "ENVIRONMENT", &options_variables(cli));
    entries(&mut roff, &VARIABLES);
    section(&mut roff, "FILES", &FILES);
    roff.control("SH", ["EXAMPLES"]);
    for (description, command) in EXAMPLES {
        roff.text([roman(description)]);
        roff.control("PP", []);
        roff.control("RS", ["4"]);
        roff.text([bold(command)]);
        roff.control("RE", []);
        roff.control("PP", []);
    }
    roff.control("SH", ["SEE ALSO"]);
    roff.text(see_also(cli));
    roff.to_writer(&mut out)?;
    page.render_version_section(&mut out)?;
    Ok(out)
}

/// A name and its description.
type ManEntry<'a> = (&'a str, &'a str);

fn section<N: AsRef<str>, T: AsRef<str>>(roff: &mut Roff, title: &str, list: &[(N, T)]) {
    roff.control("SH", [title]);
    entries(roff, list);
}

fn entries<N: AsRef<str>, T: AsRef<str>>(roff: &mut Roff, list: &[(N, T)]) {
    for (name, text) in list {
        roff.control("TP", []);
        roff.text([bold(name.as_ref())]);
        roff.text([roman(text.as_ref())]);
    }
}

/// Returns the variables that set options, with the name of the option.
fn options_variables(cli: &Command) -> Vec<(String, String)> {
    let mut found = BTreeMap::new();
    collect_variables(cli, &mut found);
    let entry = |(name, option): (String, String)| {
        let text = format!("The value of {option}, if the option is not given.");
        (name, text)
    };
    found.into_iter().map(entry).collect()
}

fn collect_variables(command: &Command, found: &mut BTreeMap<String, String>) {
    for arg in command.get_arguments() {
        if let (Some(name), Some(option)) = (arg.get_env(), arg.get_long()) {
            found.insert(name.to_string_lossy().into_owned(), format!("--{option}"));
        }
    }
    for command in command.get_subcommands() {
        collect_variables(command, found);
    }
}

fn see_also(cli: &Command) -> Vec<Inline> {
    let mut list = Vec::new();
    for command in cli.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        if !list.is_empty() {
            list.push(roman(", "));
        }
        list.push(italic(format!("orphand-{}", command.get_name())));
        list.push(roman("(1)"));
    }
    list
}

#[rustfmt::skip]
const EXIT_STATUS: [ManEntry<'static>; 12] = [
    ("0", "The command succeeded, even if temps were kept."),
    ("1", "The command failed, for example because a directory does not exist, or because restore would overwrite a \
           file. With status: no watcher is running."),
    ("2", "The usage is wrong, or a directory was refused."),
    ("3", "Something could not be read or removed, or a temp was kept because orphand could not determine whether it \
           is in use. With doctor: orphand would not work, or would keep everything. With restore and quarantine purge: \
           some of the files were not processed. With service status: the service is installed, but not running."),
    ("4", "The service is not installed."),
    ("5", "The service is running, but a problem keeps it from doing its work (service status)."),
    ("10", "With scan --exit-code: there are orphans."),
    ("75", "Another orphand process works on the directory, or on one that overlaps with it. The message names its pid."),
    ("78", "The configuration file is invalid."),
    ("129", "SIGHUP ended a sweep in order."),
    ("130", "SIGINT ended a sweep in order, or a second signal ended a watch that had not ended a second later."),
    ("143", "SIGTERM ended a sweep in order."),
];

#[rustfmt::skip]
const VARIABLES: [ManEntry<'static>; 7] = [
    ("ORPHAND_LOG", "The level of the log on stderr: off, error, warn, info, debug or trace, also for single modules."),
    ("XDG_CONFIG_HOME", "The folder with orphand/config.toml; without it, ~/.config."),
    ("XDG_STATE_HOME", "The folder with orphand/journal.jsonl; without it, ~/.local/state, on macOS \
                        ~/Library/Application Support."),
    ("XDG_RUNTIME_DIR", "The folder with orphand/, which holds the locks; without it, they are beside the journal."),
    ("HOME", "The home directory, for which ~ is an abbreviation. orphand ignores a variable whose value is not an absolute path."),
    ("NO_COLOR", "If it is not empty, output has no colors, unless --color is given."),
    ("CLICOLOR_FORCE", "If it is not 0, output has colors even if it does not go to a terminal."),
];

#[rustfmt::skip]
const FILES: [ManEntry<'static>; 5] = [
    ("$XDG_CONFIG_HOME/orphand/config.toml", "The configuration. Commands with a directory do not need it."),
    ("$XDG_STATE_HOME/orphand/journal.jsonl", "The journal of all actions, one JSON object a line; rotated at 16 MB by default."),
    ("$XDG_RUNTIME_DIR/orphand/root-*.lock", "The lock of a directory that is in use; it disappears with its process."),
    ("DIR/.orphand/", "The quarantine of a directory: temps that may be the only copy of their data, until they are restored or purged."),
    ("DIR/.orphand-*", "A temp during its removal. If orphand was killed, the next sweep or watch of the directory \
                        gives such a file its name back."),
];

#[rustfmt::skip]
const EXAMPLES: [ManEntry<'static>; 5] = [
    ("List the temps, and show what would be removed; changes nothing:", "orphand scan ~/.app/sessions"),
    ("Watch a directory, and print each action with its reason:", "orphand watch --grace 10s ~/.app/sessions"),
    ("Make one pass, without asking for confirmation:", "orphand sweep --yes ~/.app/sessions"),
    ("Show why a file is kept:", "orphand explain ~/.app/sessions/x.json.tmp"),
    ("Find problems that prevent orphand from working:", "orphand doctor ~/.app/sessions"),
];

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::cli::args::Cli;

    #[test]
    fn the_exit_codes_are_those_of_the_help() {
        let help = Cli::command().get_after_help().unwrap().to_string();
        let exits = help.split("Exit:").nth(1).unwrap();
        let exits = exits
            .split(';')
            .map(|exit| exit.split_whitespace().next().unwrap());
        let listed = EXIT_STATUS.iter().map(|(code, _)| *code);
        assert!(exits.clone().eq(listed), "{:?}", exits.collect::<Vec<_>>());
    }

    #[test]
    fn the_examples_are_commands() {
        for (_, command) in EXAMPLES {
            let args = command.split_whitespace();
            let parsed = Cli::command().try_get_matches_from(args);
            assert!(parsed.is_ok(), "{command}");
        }
    }

    #[test]
    fn every_command_has_a_page() {
        let pages = pages(Cli::command()).unwrap();
        let mut commands = vec![Cli::command().disable_help_subcommand(true)];
        commands[0].build();
        let mut count = 0;
        while let Some(command) = commands.pop() {
            count += 1;
            let name = command.get_display_name().unwrap_or(command.get_name());
            assert!(
                pages.contains_key(&format!("{name}.1")),
                "{name}: {:?}",
                pages.keys()
            );
            commands.extend(command.get_subcommands().cloned());
        }
        assert_eq!(pages.len(), count);
    }
}
