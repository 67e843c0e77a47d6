//! `gemel top`: the figures of a pair's sides, as they change.
//!
//! Not responsible for: asking (`sides`), what is said of a side (`words`).

use super::sides::Sides;
use super::words::Change;
use crate::trust::TrustOptions;
use anyhow::{Result, bail};
use rustix::termios::tcgetwinsize;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Options of `gemel top`.
#[derive(clap::Args)]
pub struct Args {
    /// Console addresses (HOST:PORT, unix:PATH) or control sockets (PATH) of the sides
    #[arg(value_name = "ADDR|SOCKET", required = true)]
    sides: Vec<String>,
    /// Milliseconds between two looks; rates are those of the last interval
    #[arg(long, value_name = "MS", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(50..))]
    interval: u64,
    /// Looks twice, an interval apart, prints once and leaves; so does an output that is no terminal
    #[arg(long)]
    once: bool,
    /// JSON lines, one for each side and look
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    trust: TrustOptions,
}

/// Shows figures until it is interrupted.
///
/// # Errors
/// With `--once`: no side can be reached.
pub fn run(args: Args) -> Result<ExitCode> {
    let sides = Sides::new(&args.sides, &args.trust)?;
    let interval = Duration::from_millis(args.interval);
    let mut out = io::stdout().lock();
    let once = args.once || !args.json && !out.is_terminal();
    // Those that are there answer at once; the first time they have to be connected to.
    let mut then = sides.ask(interval.max(Duration::from_secs(2)));
    loop {
        let next = Instant::now() + interval;
        sleep(interval);
        let now = sides.ask(interval);
        let change = |i: usize| now[i].as_ref().map(|report| Change::new(then[i].as_ref(), report));
        let mut lines = Vec::new();
        for (i, side) in sides.names().iter().enumerate() {
            match change(i) {
                Some(change) if args.json => lines.push(change.json(side).to_string()),
                Some(change) => lines.extend(change.lines(side)),
                None if args.json => {}
                None => lines.push(format!("{side}  cannot be reached")),
            }
        }
        let shown = match args.json || once {
            true => lines.iter().try_for_each(|line| writeln!(out, "{line}")),
            false => paint(&mut out, &lines),
        };
        if shown.and_then(|()| out.flush()).is_err() {
            return Ok(ExitCode::SUCCESS); // whoever reads has seen enough
        }
        if once {
            if now.iter().all(Option::is_none) {
                bail!("no side can be reached: give their --console addresses or --control sockets");
            }
            return Ok(ExitCode::SUCCESS);
        }
        then = now;
        sleep(next.saturating_duration_since(Instant::now()));
    }
}

/// Draws the screen anew, as much as the terminal has room for. Nothing is left to be restored, however this ends.
fn paint(out: &mut impl Write, lines: &[String]) -> io::Result<()> {
    let (columns, rows) = tcgetwinsize(io::stdout())
        .ok()
        .map(|size| (usize::from(size.ws_col), usize::from(size.ws_row)))
        .filter(|(columns, rows)| *columns > 0 && *rows > 0)
        .unwrap_or((80, 24));
    write!(out, "\x1b[H")?;
    for (i, line) in lines.iter().take(rows).enumerate() {
        let line: String = line.chars().take(columns).collect();
        // Without a line feed after the last row the screen does not scroll.
        write!(out, "{}{line}\x1b[K", if i == 0 { "" } else { "\r\n" })?;
    }
    write!(out, "\x1b[J")
}
