//! `gemel console`: the guest's console on both sides of a pair.
//!
//! Not responsible for: exactly-once (`gemel-pair`).

use crate::trust::TrustOptions;
use anyhow::{Context, Result, bail};
use gemel_host::serial::{Command, Escape, HELP};
use gemel_host::terminal;
use gemel_pair::protocol::Channel;
use gemel_pair::shell::{Address, Console, Shown, now};
use serde_json::{Value, json};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// With no side to be reached for so long there is no pair.
const PATIENCE: Duration = Duration::from_secs(10);

const NOBODY: &str =
    "no side of the pair can be reached: start them, or give the addresses of their --console";

/// Options of `gemel console`.
#[derive(clap::Args)]
pub struct Args {
    /// The console addresses of the sides: HOST:PORT or unix:PATH
    #[arg(value_name = "ADDR", required = true, num_args = 1..)]
    sides: Vec<Address>,
    /// Notes as JSON lines when which side was live, and when its first output was shown (ns of the host's monotonic clock)
    #[arg(long, value_name = "FILE")]
    events: Option<PathBuf>,
    /// Prints the sides' figures as JSON lines and leaves
    #[arg(long)]
    status: bool,
    #[command(flatten)]
    trust: TrustOptions,
}

/// Shows the console until the guest ends.
///
/// # Errors
/// No side can be reached.
pub fn run(args: Args) -> Result<ExitCode> {
    let console = Console::new(&args.sides, &args.trust.trust()?, !args.status)?;
    if args.status { status(&args, &console) } else { attend(&args, console) }
}

fn status(args: &Args, console: &Console) -> Result<ExitCode> {
    let (mut told, mut any) = (vec![false; args.sides.len()], false);
    console.ask_figures();
    let deadline = Instant::now() + Duration::from_secs(2);
    while let Ok(shown) = console.shown().recv_deadline(deadline) {
        match shown {
            Shown::Reached(_) => console.ask_figures(),
            Shown::Figures(side, report) if !std::mem::replace(&mut told[side], true) => {
                any = true;
                println!("{}", json!({ "side": args.sides[side].to_string(), "figures": *report }));
            }
            Shown::Gone(side) => told[side] = true,
            _ => {}
        }
        if told.iter().all(|t| *t) {
            break;
        }
    }
    if !any {
        bail!("{NOBODY}");
    }
    Ok(ExitCode::SUCCESS)
}

fn note(events: &mut Option<File>, event: Value) -> io::Result<()> {
    // In one write: a reader may look at any time.
    let line = format!("{event}\n");
    events.as_mut().map_or(Ok(()), |file| file.write_all(line.as_bytes()))
}

fn attend(args: &Args, console: Console) -> Result<ExitCode> {
    let shown = console.shown().clone();
    let _raw = terminal::is_terminal().then(terminal::raw).transpose()?;
    // Input can end before the guest does; what it prints is shown all the same.
    let console = Arc::new(console);
    let typist = Arc::clone(&console);
    std::thread::spawn(move || type_in(&typist));
    let mut out = io::stdout().lock();
    let mut gone = vec![None; args.sides.len()];
    let mut events = match &args.events {
        Some(path) => Some(
            File::create(path).with_context(|| format!("cannot write the events to {}", path.display()))?,
        ),
        None => None,
    };
    // The epoch of a side that is live and has shown nothing yet.
    let mut unheard = None;
    loop {
        match shown.recv_timeout(Duration::from_millis(500)) {
            Ok(Shown::Output(Channel::Serial(0), bytes)) => {
                out.write_all(&bytes)?;
                out.flush()?;
                if let Some(epoch) = unheard.take() {
                    note(&mut events, json!({ "event": "output", "epoch": epoch, "at": now() }))?;
                }
            }
            Ok(Shown::Live(side, epoch)) => {
                unheard = Some(epoch);
                note(&mut events, json!({ "event": "live", "side": side, "epoch": epoch, "at": now() }))?;
            }
            Ok(Shown::Reached(side)) => gone[side] = None,
            Ok(Shown::Gone(side)) => gone[side] = Some(Instant::now()),
            Ok(Shown::Missed(count)) => {
                eprintln!("gemel: {count} bytes were not fetched in time and are gone")
            }
            Ok(Shown::GuestEnded) => return Ok(ExitCode::SUCCESS),
            Ok(Shown::Replaced) => bail!("another console took over"),
            Ok(Shown::Output(..) | Shown::Figures(..)) | Err(_) => {}
        }
        if gone.iter().all(|since| since.is_some_and(|at: Instant| at.elapsed() > PATIENCE)) {
            bail!("{NOBODY}");
        }
    }
}

/// What is typed goes to the guest; on a terminal Ctrl-A is the way to this program.
pub fn type_in(console: &Console) {
    let mut escape = terminal::is_terminal().then(Escape::default);
    let mut buffer = [0; 1024];
    while let Ok(count @ 1..) = io::stdin().lock().read(&mut buffer) {
        let mut bytes = buffer[..count].to_vec();
        if let Some(escape) = &mut escape {
            match escape.filter(&mut bytes) {
                Some(Command::Leave) => {
                    terminal::restore();
                    std::process::exit(0);
                }
                Some(Command::Help) => eprint!("{HELP}"),
                None => {}
            }
        }
        console.typed(&bytes);
    }
}
