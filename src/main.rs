//! The `orphand` binary: the command line of the library.

use std::process::ExitCode;

#[macro_use]
mod rule;

mod cli;

fn main() -> ExitCode {
    cli::main()
}
