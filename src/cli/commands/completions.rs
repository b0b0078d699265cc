//! `orphand completions`: prints completions for a shell, generated from the definitions of the command line.

use clap::Command;

use crate::cli::exit::{Exit, Failure};
use crate::cli::output::standard_streams::print;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  orphand completions bash \\
    > ~/.local/share/bash-completion/completions/orphand
  orphand completions zsh > ~/.zfunc/_orphand      # with ~/.zfunc in fpath
  orphand completions fish > ~/.config/fish/completions/orphand.fish")]
pub(crate) struct Completions {
    /// The shell
    shell: clap_complete::Shell,
}

pub(crate) fn run(command: &Completions, mut cli: Command) -> Result<Exit, Failure> {
    // Not directly to stdout: clap panics if the reader has closed the pipe.
    let mut script = Vec::new();
    clap_complete::generate(command.shell, &mut cli, "orphand", &mut script);
    let script = String::from_utf8_lossy(&script);
    Ok(print(with_ids(command.shell, &script).as_bytes())?)
}

/// Returns `script` with completions for the ids of files in quarantine, for the shells in which they are short.
fn with_ids(shell: clap_complete::Shell, script: &str) -> String {
    match shell {
        clap_complete::Shell::Zsh => zsh_with_ids(script),
        _ => format!("{script}{}", ids_script(shell)),
    }
}

/// Returns the part of a script that completes the ids, for the shells in which it is at the end.
fn ids_script(shell: clap_complete::Shell) -> &'static str {
    match shell {
        clap_complete::Shell::Bash => BASH_IDS,
        clap_complete::Shell::Fish => FISH_IDS,
        _ => "",
    }
}

/// Returns the script for zsh with ids where arguments are ids or files. zsh runs the script itself at the first
/// completion, so nothing may follow its last lines, and the function for the ids is after the first line.
fn zsh_with_ids(script: &str) -> String {
    let with_action = |line: &str| {
        let is_id = ZSH_ID_ARGS.iter().any(|arg| line.starts_with(arg));
        match line.strip_suffix(":_files' \\") {
            Some(spec) if is_id => format!("{spec}:_orphand_ids' \\\n"),
            _ => format!("{line}\n"),
        }
    };
    let mut lines = script.lines().map(with_action);
    let first = lines.next().unwrap_or_default();
    format!("{first}{ZSH_IDS}{}", lines.collect::<String>())
}

/// The beginnings of the lines about arguments that are ids or files.
const ZSH_ID_ARGS: [&str; 2] = ["'*::which -- ", "'*::ids -- "];

const ZSH_IDS: &str = r#"
(( $+functions[_orphand_ids] )) ||
_orphand_ids() {
    local -a ids
    local ret=1
    ids=(${(f)"$(orphand quarantine list --json 2>/dev/null | sed -n 's/^{"id":"\([^"]*\)".*/\1/p')"})
    compadd -a ids && ret=0
    _files && ret=0
    return ret
}
"#;

const BASH_IDS: &str = r#"
_orphand_with_ids() {
    _orphand "$@"
    case " ${COMP_WORDS[*]:1:COMP_CWORD-1} " in
    *" restore "* | *" purge "*)
        local ids
        ids=$(orphand quarantine list --json 2>/dev/null | sed -n 's/^{"id":"\([^"]*\)".*/\1/p')
        COMPREPLY+=($(compgen -W "$ids" -- "${COMP_WORDS[COMP_CWORD]}"))
        ;;
    esac
}
complete -F _orphand_with_ids -o bashdefault -o default orphand
"#;

const FISH_IDS: &str = r#"
complete -c orphand -n "__fish_seen_subcommand_from restore purge" -a "(orphand quarantine list --json 2>/dev/null | string replace -rf '^\{\"id\":\"([^\"]*)\".*' '\$1')"
"#;
