//! `orphand man`: the manual, out of the same definitions as the command line.
//!
//! Names, options and their words come from clap's definitions, and so do the `ORPHAND_*`
//! variables. What no option says (exit codes, files, other variables, examples) stands here, once.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::PathBuf;

use clap::{Command, CommandFactory as _};
use clap_mangen::Man as Page;
use clap_mangen::roff::{Inline, Roff, bold, italic, roman};

use super::args::Cli;
use super::{Exit, Failure, print};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  orphand man | man -l -              read it
  orphand man --dir /usr/local/share/man/man1")]
pub(crate) struct Man {
    /// Write orphand.1 and a page for each command to this folder; without it the first is printed
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

pub(super) fn run(command: &Man) -> Result<Exit, Failure> {
    let pages = pages()?;
    let Some(dir) = &command.dir else {
        let main = pages.get(MAIN).map_or(&[][..], Vec::as_slice);
        return Ok(print(main)?);
    };
    let failed = |path: &PathBuf, error: io::Error| {
        Failure::new(
            Exit::Failed,
            format!("cannot write {path:?}: {error}; name a folder that is yours"),
        )
    };
    fs::create_dir_all(dir).map_err(|error| failed(dir, error))?;
    for (name, page) in pages {
        let path = dir.join(name);
        fs::write(&path, page).map_err(|error| failed(&path, error))?;
    }
    Ok(Exit::Done)
}

/// The page that names all the others.
const MAIN: &str = "orphand.1";

/// The pages by their file names.
fn pages() -> io::Result<BTreeMap<String, Vec<u8>>> {
    // `help` would double every command.
    let mut cli = Cli::command().disable_help_subcommand(true);
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
    if let Some(words) = command.get_after_help() {
        // Not EXTRA, as clap calls it, nor filled: it has columns.
        let mut roff = Roff::new();
        roff.control("SH", ["NOTES"]);
        roff.control("nf", []);
        roff.text([roman(words.to_string())]);
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

/// What every page begins with.
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
    for (what, command) in EXAMPLES {
        roff.text([roman(what)]);
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

/// A name, and what it is about.
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

/// The variables of options: which stand in for which.
fn options_variables(cli: &Command) -> Vec<(String, String)> {
    let mut found = BTreeMap::new();
    collect_variables(cli, &mut found);
    let words = |(name, option): (String, String)| {
        let text = format!("In place of {option}, which wins where it is given.");
        (name, text)
    };
    found.into_iter().map(words).collect()
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
    ("0", "Done, also where temps were kept."),
    ("1", "Failed: a directory that is not there, or a restore onto something that exists."),
    ("2", "Wrong usage, or a directory that is refused."),
    ("3", "Something could not be read, removed or told, or was kept because nothing could be \
           proven; with doctor: orphand would not work, or would keep everything."),
    ("4", "The service is not installed."),
    ("5", "The service runs, but something keeps it from its work (service status)."),
    ("10", "With scan --exit-code: orphans were found."),
    ("75", "Another orphand works there, or on a directory that overlaps with it; its pid is named."),
    ("78", "The configuration is wrong."),
    ("129", "SIGHUP ended a sweep in order."),
    ("130", "SIGINT ended a sweep in order, or a second signal ended a watch at once."),
    ("143", "SIGTERM ended a sweep in order."),
];

#[rustfmt::skip]
const VARIABLES: [ManEntry<'static>; 7] = [
    ("ORPHAND_LOG", "What is logged to stderr: error, warn, info or debug, also for single modules."),
    ("XDG_CONFIG_HOME", "Where the configuration file is looked for, in orphand/; else ~/.config."),
    ("XDG_STATE_HOME", "Where the journal is kept, in orphand/; else ~/.local/state, on macOS \
                        ~/Library/Application Support."),
    ("XDG_RUNTIME_DIR", "Where locks are made, in orphand/; else where the journal is."),
    ("HOME", "What ~ stands for. Folders in variables that are not absolute are ignored."),
    ("NO_COLOR", "Not empty: no colours, unless --color says so."),
    ("CLICOLOR_FORCE", "Not 0: colours also where no terminal is written to."),
];

#[rustfmt::skip]
const FILES: [ManEntry<'static>; 5] = [
    ("$XDG_CONFIG_HOME/orphand/config.toml", "The configuration. Not needed for commands that name their directories."),
    ("$XDG_STATE_HOME/orphand/journal.jsonl", "What was done, one JSON object a line; rotated at 16 MiB."),
    ("$XDG_RUNTIME_DIR/orphand/root-*.lock", "One for each directory that is worked on; gone with its process."),
    ("DIR/.orphand/", "The quarantine of a directory: what may not be destroyed, until it is restored or purged."),
    ("DIR/.orphand-*", "A temp that is being removed at this moment, or was when orphand was killed; the next \
                        start puts it in order."),
];

#[rustfmt::skip]
const EXAMPLES: [ManEntry<'static>; 5] = [
    ("See what is there, and what would go; nothing is changed:", "orphand scan ~/.app/sessions"),
    ("Watch a directory, and say what happens and why:", "orphand watch --grace 10s ~/.app/sessions"),
    ("Make one pass, without asking:", "orphand sweep --yes ~/.app/sessions"),
    ("Learn why a file is kept:", "orphand explain ~/.app/sessions/x.json.tmp"),
    ("Look for what is in orphand's way:", "orphand doctor ~/.app/sessions"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_codes_are_those_of_the_help() {
        let help = Cli::command().get_after_help().unwrap().to_string();
        let exits = help.split("Exit:").nth(1).unwrap();
        let exits = exits
            .split('·')
            .map(|exit| exit.split_whitespace().next().unwrap());
        let ours = EXIT_STATUS.iter().map(|(code, _)| *code);
        assert!(exits.clone().eq(ours), "{:?}", exits.collect::<Vec<_>>());
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
        let pages = pages().unwrap();
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
