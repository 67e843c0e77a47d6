//! `gemel`: a PC whose runs are recorded, replayed exactly and kept alive on a second machine.
//!
//! Not responsible for: anything but options, putting the parts together, and telling how it ended. One file for each
//! subcommand.

mod exit;
mod log_show;
mod machine;
mod options;
mod record;
mod replay;
mod report;
mod run;
mod watch;
mod world;

use clap::error::ErrorKind;
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
    /// Runs a guest and writes a log from which the run can be replayed
    #[command(after_help = exit::TABLE)]
    Record(record::Args),
    /// Runs a log's machine again and checks that it does the same
    #[command(after_help = exit::TABLE)]
    Replay(replay::Args),
    /// Looks into logs
    Log {
        #[command(subcommand)]
        command: LogCommand,
    },
}

#[derive(Subcommand)]
enum LogCommand {
    /// Prints a log's header and entries
    Show(log_show::Args),
}

fn main() -> ExitCode {
    let result = match Cli::try_parse() {
        Ok(cli) => match cli.command {
            Command::Run(args) => run::run(args),
            Command::Record(args) => record::run(args),
            Command::Replay(args) => replay::run(args),
            Command::Log { command: LogCommand::Show(args) } => log_show::run(args),
        },
        Err(e) if e.use_stderr() && e.kind() != ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            Err(anyhow::Error::msg(exit::usage_line(&e.to_string())))
        }
        // --help and --version.
        Err(e) => e.exit(),
    };
    result.unwrap_or_else(|e| {
        eprintln!("gemel: {}", exit::one_line(&e));
        ExitCode::from(exit::BAD_INPUT)
    })
}
