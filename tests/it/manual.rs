//! The manual and the completions: generated from the definitions of the command line, and valid for the
//! programs that read them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::sandbox::Sandbox;

const SHELLS: [&str; 5] = ["bash", "zsh", "fish", "elvish", "powershell"];

/// Writes all pages, and returns their names and paths.
fn pages(sandbox: &Sandbox) -> Vec<(String, PathBuf)> {
    sandbox
        .run(["man", "--dir", "pages/man1"])
        .exit(0)
        .prints_nothing();
    let dir = fs::read_dir(sandbox.base().join("pages/man1")).unwrap();
    let mut pages: Vec<_> = dir
        .map(|entry| entry.unwrap().path())
        .map(|path| {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, path)
        })
        .collect();
    pages.sort();
    pages
}

pub(crate) fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let there = std::env::split_paths(&path).any(|dir| dir.join(program).is_file());
    if !there {
        eprintln!("SKIPPED: {program} is not installed");
    }
    there
}

#[test]
fn the_main_page_has_all_sections() {
    let sandbox = Sandbox::new();
    let page = sandbox.run(["man"]).exit(0).stdout;
    assert!(page.contains(".TH orphand 1"), "{page}");
    let mut rest = page.as_str();
    for section in [
        "NAME",
        "SYNOPSIS",
        "DESCRIPTION",
        "OPTIONS",
        "SUBCOMMANDS",
        "\"EXIT STATUS\"",
        "ENVIRONMENT",
        "FILES",
        "EXAMPLES",
        "\"SEE ALSO\"",
        "VERSION",
    ] {
        let at = rest.find(&format!(".SH {section}\n"));
        let at = at.unwrap_or_else(|| panic!("{section} is missing or not in order: {page}"));
        rest = &rest[at..];
    }
    let plain = page
        .replace("\\-", "-")
        .replace("\\fB", "")
        .replace("\\fR", "");
    for word in [
        "XDG_CONFIG_HOME",
        "XDG_STATE_HOME",
        "XDG_RUNTIME_DIR",
        "ORPHAND_LOG",
    ]
    .into_iter()
    .chain([
        "journal.jsonl",
        "config.toml",
        "DIR/.orphand/",
        "--exit-code",
        "75",
    ]) {
        assert!(plain.contains(word), "{word:?} is not in: {plain}");
    }
    // Every variable that the help of a command names.
    let mut variables = BTreeSet::new();
    for command in ["watch", "scan", "sweep", "explain", "restore", "doctor"] {
        let help = sandbox.run([command, "--help"]).exit(0).stdout;
        let words = help.split("[env: ").skip(1);
        variables.extend(words.map(|word| word.split('=').next().unwrap().to_owned()));
    }
    assert!(variables.len() >= 6, "{variables:?}");
    for variable in variables {
        assert!(plain.contains(&variable), "{variable} is not in: {plain}");
    }
}

#[test]
fn every_command_has_its_page() {
    let sandbox = Sandbox::new();
    let pages = pages(&sandbox);
    for command in [
        "",
        "-watch",
        "-scan",
        "-sweep",
        "-explain",
        "-history",
        "-restore",
        "-quarantine-list",
        "-quarantine-purge",
        "-status",
        "-service",
        "-config",
        "-doctor",
        "-completions",
        "-man",
    ] {
        let name = format!("orphand{command}.1");
        let found = pages.iter().find(|(page, _)| *page == name);
        let (_, path) = found.unwrap_or_else(|| panic!("{name} is not in {pages:?}"));
        let text = fs::read_to_string(path).unwrap();
        let title = format!(".TH orphand{command} 1");
        assert!(text.contains(&title), "{title} is not in: {text}");
    }
    let first = fs::read_to_string(sandbox.base().join("pages/man1/orphand.1")).unwrap();
    assert_eq!(
        first,
        sandbox.run(["man"]).exit(0).stdout,
        "`man` prints the same page"
    );
    // A failed write is reported with the path.
    fs::write(sandbox.base().join("file"), "").unwrap();
    sandbox
        .run(["man", "--dir", "file/x"])
        .exit(1)
        .stderr_has("file/x");
}

/// Uses every installed program that can check a page.
#[test]
fn the_pages_pass_their_checkers() {
    let sandbox = Sandbox::new().env("LC_ALL", "C.UTF-8");
    let pages = pages(&sandbox);
    let checkers: [&[&str]; 3] = [
        &["groff", "-ww", "-man", "-z"],
        &["mandoc", "-Tlint", "-Werror"],
        // The `man` of man-db; that of BSD has neither option.
        &["man", "--warnings", "-l"],
    ];
    for checker in checkers {
        let linux_only = checker[0] == "man" && !cfg!(target_os = "linux");
        if linux_only || !is_installed(checker[0]) {
            continue;
        }
        for (name, path) in &pages {
            let mut command = sandbox.program(checker[0]);
            command.args(&checker[1..]).arg(path);
            let ran = sandbox.finish(command).exit(0);
            assert_eq!(ran.stderr, "", "{checker:?} about {name}");
            if checker[0] != "man" {
                assert_eq!(ran.stdout, "", "{checker:?} about {name}");
            }
        }
    }
}

/// A closed pipe causes no message and no failure.
#[test]
fn a_closed_pipe_is_no_failure() {
    let sandbox = Sandbox::new();
    let mut commands: Vec<Vec<&str>> = vec![vec!["man"], vec!["doctor"], vec!["doctor", "--json"]];
    commands.extend(SHELLS.map(|shell| vec!["completions", shell]));
    for args in commands {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = sandbox.command(&args);
        command.stdout(writer);
        let ran = sandbox.finish(command).exit(0);
        assert_eq!(ran.stderr, "", "{args:?}");
    }
}

fn script(sandbox: &Sandbox, shell: &str) -> PathBuf {
    let script = sandbox.run(["completions", shell]).exit(0).stdout;
    let path = sandbox.base().join(format!("completion.{shell}"));
    crate::sandbox::write(&path, script);
    path
}

#[test]
fn every_shell_has_completions() {
    let sandbox = Sandbox::new();
    for shell in SHELLS {
        let script = fs::read_to_string(script(&sandbox, shell)).unwrap();
        for word in ["sweep", "quarantine", "purge", "doctor", "grace"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
    sandbox
        .run(["completions", "tcsh"])
        .exit(2)
        .stderr_has("tcsh");
}

/// Returns the completions of bash for these words, as the tab key produces them.
fn bash_completions(sandbox: &Sandbox, script: &Path, words: &[&str]) -> String {
    const TAB: &str = r#"
        source "$1" && shift || exit 9
        set -- orphand "$@"
        COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMP_LINE="$*" COMP_POINT=${#COMP_LINE}
        function=$(complete -p orphand | sed 's/.*-F \([^ ]*\).*/\1/')
        "$function" orphand "${@: -1}" "${@: -2:1}"
        printf '%s\n' "${COMPREPLY[@]}""#;
    let mut bash = sandbox.program("bash");
    bash.args(["--noprofile", "--norc", "-c", TAB, "bash"]);
    bash.arg(script).args(words);
    let ran = sandbox.finish(bash).exit(0);
    assert_eq!(ran.stderr, "", "{words:?}");
    ran.stdout
}

#[test]
fn bash_completes() {
    if !is_installed("bash") {
        return;
    }
    let sandbox = Sandbox::new();
    let script = script(&sandbox, "bash");
    assert_eq!(bash_completions(&sandbox, &script, &["sw"]), "sweep\n");
    assert_eq!(
        bash_completions(&sandbox, &script, &["quarantine", "pu"]),
        "purge\n"
    );
    assert_eq!(
        bash_completions(&sandbox, &script, &["watch", "--sole"]),
        "--sole-copy\n"
    );
    let values = bash_completions(&sandbox, &script, &["watch", "--open", ""]);
    assert_eq!(values, "keep\nquarantine\nreap\n");
}

#[test]
fn other_shells_accept_their_completions() {
    let sandbox = Sandbox::new();
    for shell in ["zsh", "fish"] {
        let script = script(&sandbox, shell);
        if is_installed(shell) {
            let mut command = sandbox.program(shell);
            command.arg("-n").arg(script);
            let ran = sandbox.finish(command).exit(0);
            assert_eq!(ran.stderr, "", "{shell}");
        }
    }
}
