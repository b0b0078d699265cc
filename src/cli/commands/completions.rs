//! `orphand completions`: prints completions for a shell, generated from the definitions of the command line.

use clap::Command;

use crate::cli::exit::{Exit, Failure};
use crate::cli::output::standard_streams::print;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  bash   orphand completions bash > ~/.local/share/bash-completion/completions/orphand
  zsh    orphand completions zsh > ~/.zfunc/_orphand      (with ~/.zfunc in fpath)
  fish   orphand completions fish > ~/.config/fish/completions/orphand.fish")]
pub(crate) struct Completions {
    /// The shell
    shell: clap_complete::Shell,
}

pub(crate) fn run(command: &Completions, mut cli: Command) -> Result<Exit, Failure> {
    // Not directly to stdout: clap panics if the reader has closed the pipe.
    let mut script = Vec::new();
    clap_complete::generate(command.shell, &mut cli, "orphand", &mut script);
    script.extend_from_slice(ids_script(command.shell).as_bytes());
    Ok(print(&script)?)
}

/// Returns the part of a script that completes the ids of files in quarantine, for the shells in which it is short.
fn ids_script(shell: clap_complete::Shell) -> &'static str {
    match shell {
        clap_complete::Shell::Bash => BASH_IDS,
        clap_complete::Shell::Fish => FISH_IDS,
        _ => "",
    }
}

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
