//! A guest's network from outside: connections to it survive what its machine does not.
//!
//!     cargo test -p gemel-system-tests --test gateway -- --kills 20 --lines 2000
//!
//! An echo server in the guest, behind a primary, a secondary and `gemel net`. A client outside sends numbered lines through a port forward
//! and compares what comes back, before, while and after the primary gets a SIGKILL. Then the gateway gets one, and what is new works.
//! Prints how long the longest answer took, which is the failover as the client saw it, and the median with and without a pair.

#![allow(clippy::unwrap_used)] // a harness that cannot do its work has failed

mod client;
mod setup;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use client::Client;
use gemel_system_tests::guest::Guest;
use setup::{Network, alone, paired};
use std::process::ExitCode;
use std::time::Duration;

#[derive(Parser)]
struct Args {
    /// Primaries that get a SIGKILL
    #[arg(long, default_value_t = 2)]
    kills: u32,
    /// Lines before, and again after the death
    #[arg(long, default_value_t = 300)]
    lines: u32,
    /// Arguments of cargo's own harness mean nothing here
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    _ignored: Vec<String>,
}

fn in_ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// One pair, one death of its primary, one of its gateway.
fn trial(guest: &Guest, lines: u32) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut network = Network::start(folder.path(), 0)?;
    let mut pair = paired(guest, folder.path())?;
    let mut client = Client::connect(network.port)?;
    client.echo(lines).context("before the primary's death")?;
    let median = client.median();
    // In the middle of a line's way: it is sent and not answered.
    client.send_line()?;
    pair.primary.kill()?;
    client.receive_line().context("sent just before the primary's death")?;
    let failover = client.longest();
    client.echo(lines).context("after the primary's death")?;
    Client::connect(network.port)?.echo(10).context("a new connection to the survivor")?;

    let port = network.port;
    network.gateway.kill()?;
    let _again = Network::start(folder.path(), port)?;
    ensure!(client.echo(1).is_err(), "a connection to a gateway that died goes on");
    let mut late = Client::connect_until_echoed(port)?;
    late.echo(lines).context("after the gateway's restart")?;

    pair.terminal.type_text("quit\r")?;
    let ended = pair.secondary.finish()?;
    ensure!(ended.status.success(), "the survivor ended with {}: {}", ended.status, ended.stderr);
    println!(
        "  {} lines answered, median {:.2} ms; the one across the failover {:.1} ms",
        2 * lines + 1,
        in_ms(median),
        in_ms(failover)
    );
    Ok(())
}

/// The same guest without a pair, on the user-mode network in its own process.
fn plain(guest: &Guest, lines: u32) -> Result<()> {
    let (mut run, port) = alone(guest)?;
    let mut client = Client::connect_until_echoed(port)?;
    client.echo(lines)?;
    println!("  {lines} lines answered without a pair, median {:.2} ms", in_ms(client.median()));
    run.kill()
}

fn main() -> ExitCode {
    let args = Args::parse();
    let guest = Guest::obtain("net-echo").unwrap();
    let mut failed = 0;
    let mut check = |what: &str, result: Result<()>| {
        if let Err(error) = result {
            failed += 1;
            println!("FAILED: {what}: {error:#}");
        }
    };
    check("a guest on the user-mode network", plain(&guest, args.lines));
    for number in 1..=args.kills {
        check(&format!("death {number}"), trial(&guest, args.lines));
    }
    println!("{} deaths of primaries, {failed} failures", args.kills);
    ExitCode::from(u8::from(failed > 0))
}
