//! `gemel`: a PC whose runs are recorded, replayed exactly and kept alive on a second machine.
//!
//! Not responsible for: anything but options, putting the parts together, and telling how it ended. One file for each
//! subcommand.

mod accel;
mod check;
mod checker;
mod console;
mod control;
mod copies;
mod demo;
mod diff;
mod exit;
mod figures;
mod gateway;
mod keys;
mod log_show;
mod logged;
mod machine;
mod net;
mod options;
mod pair;
mod primary;
mod protect;
mod record;
mod replay;
mod report;
mod run;
mod scratch;
mod secondary;
mod standby;
mod subject;
mod trust;
mod verify;
mod verify_outputs;
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
    /// Runs a guest as a primary: what leaves it is also in its secondary's hands
    #[command(after_help = exit::TABLE)]
    Primary(primary::Args),
    /// Follows a primary and goes on with its guest when it dies
    #[command(after_help = exit::TABLE)]
    Secondary(secondary::Args),
    /// Waits for a leader, becomes a copy of its running guest, follows it, and goes on with the guest when it dies
    #[command(after_help = exit::TABLE)]
    Standby(standby::Args),
    /// Has the leader of a pair copy its guest to a standby, now and whenever it has no secondary
    Protect(protect::Protect),
    /// Has the leader of a pair go on without a secondary
    Unprotect(protect::Leader),
    /// Has the leader of a pair hand its guest over to its secondary
    Failover(protect::Leader),
    /// The guest's console on both sides of a pair: shows every output once, delivers every key once
    #[command(after_help = exit::TABLE)]
    Console(console::Args),
    /// The gateway of guests on pairs: NAT, DHCP, DNS and port forwards, whose connections survive a failover
    #[command(after_help = exit::TABLE)]
    Net(gateway::Args),
    /// A guest survives the death of the machine that runs it, before your eyes
    #[command(after_help = exit::TABLE)]
    Demo(demo::Args),
    /// Judges a log: on the engine it was made with and, from each checkpoint anew, on the interpreter; a difference is
    /// narrowed down to the first instruction after which the two differ
    #[command(after_help = exit::TABLE)]
    Verify(verify::Args),
    /// Judges a log while it is still written: beside a pair, on its secondary's log, without the pair's knowledge
    #[command(after_help = exit::TABLE)]
    Checker(checker::Args),
    /// Proves from the ledgers of all sides of a pair that no output left before its acknowledgement, and none is lost
    #[command(after_help = exit::TABLE)]
    VerifyOutputs(verify_outputs::Args),
    /// Finds where two recorded runs part, by their logs' entries and by their machines' states
    #[command(after_help = exit::TABLE)]
    Diff(diff::Args),
    /// The host's passport: what its KVM does with a guest, and whether another host fits
    #[command(after_help = exit::TABLE)]
    Check(check::Args),
    /// The figures of a pair's sides, as they change: lag, log, held outputs and how long they wait, protection
    #[command(after_help = exit::TABLE)]
    Top(figures::top::Args),
    /// How much log a guest makes: VMware's rule of thumb beside what was measured, and what each read policy would save
    #[command(after_help = exit::TABLE)]
    Estimate(figures::estimate::Args),
    /// Tells a running guest's control socket what to do: keys, power button, power off, reset
    #[command(after_help = exit::TABLE)]
    Control(control::Args),
    /// Makes the keys by which the sides of a pair, consoles and gateways know each other over TCP
    Keys {
        #[command(subcommand)]
        command: keys::Command,
    },
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
            Command::Primary(args) => primary::run(args),
            Command::Secondary(args) => secondary::run(args),
            Command::Protect(args) => protect::protect(args),
            Command::Unprotect(args) => protect::unprotect(args),
            Command::Failover(args) => protect::fail_over(args),
            Command::Standby(args) => standby::run(args),
            Command::Console(args) => console::run(args),
            Command::Net(args) => gateway::run(args),
            Command::Demo(args) => demo::run(args),
            Command::Verify(args) => verify::run(args),
            Command::VerifyOutputs(args) => verify_outputs::run(args),
            Command::Checker(args) => checker::run(args),
            Command::Diff(args) => diff::run(args),
            Command::Check(args) => check::run(args),
            Command::Top(args) => figures::top::run(args),
            Command::Estimate(args) => figures::estimate::run(args),
            Command::Control(args) => control::run(args),
            Command::Keys { command } => keys::run(command),
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
