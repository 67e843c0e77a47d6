//! `gemel`: a PC whose runs are recorded, replayed exactly and kept alive on a second machine.
//!
//! Not responsible for: anything but options, putting the parts together, and telling how it ended. One file for each
//! subcommand.

mod exit;
mod machine;
mod options;
mod report;
mod run;
mod world;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// A full-system x86-64 PC emulator whose runs can be recorded, replayed exactly and kept alive on a second machine.
#[derive(Parser)]
#[command(version, after_help = exit::TABLE)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs a guest
    #[command(after_help = exit::TABLE)]
    Run(run::Args),
}

fn main() -> ExitCode {
    let result = match Cli::try_parse() {
        Ok(cli) => match cli.command {
            Command::Run(args) => run::run(args),
        },
        Err(e) if e.use_stderr() => Err(anyhow::Error::msg(exit::usage_line(&e.to_string()))),
        // --help and --version.
        Err(e) => e.exit(),
    };
    result.unwrap_or_else(|e| {
        eprintln!("gemel: {}", exit::one_line(&e));
        ExitCode::from(exit::BAD_INPUT)
    })
}
