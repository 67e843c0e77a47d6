//! `gemel checker`: a log judged while it is still written, by a process beside a pair.
//!
//! Not responsible for: comparing (`gemel-diverge`), the pair.
//!
//! It reads the secondary's log file and nothing else, and runs with less priority than its neighbours: the pair neither waits for
//! it nor knows of it.

pub mod growing;
mod head;
mod idle;

use crate::accel::AccelOptions;
use crate::exit::Ending;
use crate::logged::FileOptions;
use crate::report::Stopwatch;
use crate::subject::Followed;
use crate::verify::{EvidenceOption, judge};
use anyhow::{Context, Result, bail};
use gemel_diverge::{Error, Plan, Watcher};
use gemel_host::{Inbox, signals};
use gemel_machine::At;
use head::Head;
use idle::Idle;
use serde_json::{Value, json};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Between two lines for people.
const TELLS: Duration = Duration::from_secs(1);
/// Between two looks for a log that is not there yet.
const PAUSE: Duration = Duration::from_millis(20);
/// How much nicer than its neighbours it is.
const NICENESS: i32 = 10;

/// Options of `gemel checker`.
#[derive(clap::Args)]
pub struct Args {
    /// The log that the secondary writes (its --log); may not be there yet
    #[arg(value_name = "LOG")]
    log: PathBuf,
    #[command(flatten)]
    files: FileOptions,
    #[command(flatten)]
    accel: AccelOptions,
    #[command(flatten)]
    evidence: EvidenceOption,
    /// Which epochs of the log are judged: epoch (each), a number N (one in N), or idle (those that come up while a processor
    /// of the host has nothing else to do)
    #[arg(long, value_name = "WHICH", default_value = "epoch")]
    every: Every,
    /// Epochs that it may be behind before it leaves some out to catch up
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u64).range(1..))]
    max_lag: u64,
    /// The control socket of a side that is to end when something differs; otherwise the pair does not hear of it
    #[arg(long, value_name = "SOCKET")]
    quit_on_difference: Option<PathBuf>,
    /// Tells every verdict as a line of JSON on standard output
    #[arg(long)]
    json: bool,
}

/// `--every`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Every {
    /// One in so many.
    In(u64),
    /// Those for which there is time.
    Idle,
}

impl FromStr for Every {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text, text.parse()) {
            ("epoch", _) => Ok(Self::In(1)),
            ("idle", _) => Ok(Self::Idle),
            (_, Ok(n)) if n > 0 => Ok(Self::In(n)),
            _ => Err("epoch, idle, or a number of epochs is wanted".into()),
        }
    }
}

/// Follows the comparison, tells of it, and decides what there is time for.
struct Beside<'a> {
    args: &'a Args,
    inbox: Arc<Inbox>,
    head: Head,
    epoch: u64,
    idle: Option<Idle>,
    from: u64,
    judged: u64,
    left_out: u64,
    most_behind: u64,
    told: Instant,
    /// Whether it was said that epochs are left out.
    hurries: bool,
}

impl Watcher for Beside<'_> {
    fn wants(&mut self, at: At) -> bool {
        let (head, grows) = self.head.look();
        let behind = head.saturating_sub(at.position.count);
        // Nobody waits for what comes after the log's end.
        let hurries = grows && behind > self.args.max_lag.saturating_mul(self.epoch);
        if hurries != std::mem::replace(&mut self.hurries, hurries) {
            let what =
                if hurries { "epochs are left out to catch up" } else { "no more epochs are left out" };
            eprintln!("gemel: {behind} instructions behind: {what}");
        }
        !hurries && self.idle.as_mut().is_none_or(|idle| !grows || idle.is_free())
    }

    fn passed(&mut self, at: At, compared: bool) -> Result<(), Error> {
        let (head, _) = self.head.look();
        let (from, to) = (std::mem::replace(&mut self.from, at.position.count), at.position.count);
        *(if compared { &mut self.judged } else { &mut self.left_out }) += to - from;
        let behind = head.saturating_sub(to);
        self.most_behind = self.most_behind.max(behind);
        if self.args.json {
            let verdict = if compared { "same" } else { "left-out" };
            let guest = at.time.0 as f64 / 1e9;
            let line = json!({ "verdict": verdict, "from": from, "to": to, "guest_time_s": guest, "behind": behind });
            // Whoever reads the verdicts may have gone.
            if writeln!(std::io::stdout(), "{line}").is_err() {
                return Err(Error::Quit);
            }
        } else if self.told.elapsed() >= TELLS {
            self.told = Instant::now();
            eprintln!(
                "gemel: nothing differs up to {to} instructions, {:.3} s of guest time ({} judged, {} left out); {behind} behind",
                at.time.0 as f64 / 1e9,
                self.judged,
                self.left_out
            );
        }
        if self.inbox.quit_reason().is_some() { Err(Error::Quit) } else { Ok(()) }
    }
}

/// Waits for a log's header; `None` if somebody asked for the end first.
fn wait_for(log: &Path, inbox: &Inbox) -> Result<Option<()>> {
    loop {
        if inbox.quit_reason().is_some() {
            return Ok(None);
        }
        if let Ok(file) = File::open(log) {
            let held = growing::is_held(&file);
            let length = file.metadata().with_context(|| format!("cannot read {}", log.display()))?.len();
            // The header is written at once, after the file is held.
            if length > 0 {
                return Ok(Some(()));
            }
            if !held && !log.is_file() {
                bail!("{} is no log", log.display());
            }
        }
        std::thread::sleep(PAUSE);
    }
}

/// Ends a side through its control socket.
fn quit(socket: &Path) -> Result<()> {
    let stream = UnixStream::connect(socket).with_context(|| format!("cannot reach {}", socket.display()))?;
    writeln!(&stream, "{}", json!({ "execute": "quit" }))?;
    // Its answer: the command has arrived.
    BufReader::new(&stream).read_line(&mut String::new())?;
    Ok(())
}

/// Judges a growing log until it ends.
///
/// # Errors
/// A log that cannot be read, files that are not the log's.
pub fn run(args: Args) -> Result<ExitCode> {
    let inbox = Inbox::new();
    signals::install(&inbox)?;
    // Where the host does not allow it, the neighbours' priority has to do.
    let _ = rustix::process::nice(NICENESS);
    if wait_for(&args.log, &inbox)?.is_none() {
        return Ok(ExitCode::from(inbox.quit_reason().map_or(0, |reason| Ending::Quit(reason).code())));
    }
    let subject = Followed::open(&args.log, &args.files)?.growing(&inbox);
    let engine = args.accel.for_judged(subject.header())?;
    let (engine, judge_) = (subject.named("engine").on(engine), subject.named("judge"));
    let epoch = subject.header().epoch;
    let (sample, idle) = match args.every {
        Every::In(n) => (n, None),
        Every::Idle => (1, Some(Idle::new())),
    };
    let plan = Plan { interval: epoch, sample, ..Plan::default() };
    let mut beside = Beside {
        args: &args,
        inbox: Arc::clone(&inbox),
        head: Head::open(&args.log)?,
        epoch,
        idle,
        from: subject.header().start.position.count,
        judged: 0,
        left_out: 0,
        most_behind: 0,
        told: Instant::now(),
        hurries: false,
    };
    let stopwatch = Stopwatch::start();
    let verdict = judge(&engine, &judge_, plan, &args.evidence.beside(&args.log), &inbox, &mut beside)?;
    if let (Some(socket), true) = (&args.quit_on_difference, verdict.differs()) {
        quit(socket)?;
    }
    let mut figures = verdict.json("checker", stopwatch.read());
    if let Value::Object(fields) = &mut figures {
        fields.insert("verdict".into(), if verdict.differs() { "differs" } else { "end" }.into());
        fields.insert("left_out".into(), beside.left_out.into());
        fields.insert("most_behind".into(), beside.most_behind.into());
    }
    if args.json {
        println!("{figures}");
    } else {
        eprintln!("gemel: {} left out, {} behind at most", beside.left_out, beside.most_behind);
    }
    Ok(verdict.tell(args.json))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_to_judge_are_named_or_numbered() {
        assert_eq!("epoch".parse(), Ok(Every::In(1)));
        assert_eq!("12".parse(), Ok(Every::In(12)));
        assert_eq!("idle".parse(), Ok(Every::Idle));
        assert!("0".parse::<Every>().is_err() && "often".parse::<Every>().is_err());
    }
}
