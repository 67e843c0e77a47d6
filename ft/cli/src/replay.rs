//! `gemel replay`: a log's machine again, checked at every entry and epoch.
//!
//! Not responsible for: the checking itself (`gemel-replay`).

use crate::accel::{AccelOptions, tell_assertion};
use crate::copies::Copies;
use crate::exit::Ending;
use crate::logged::{self, FileOptions};
use crate::machine::{self, Built};
use crate::options::{LimitOptions, LineOptions, ReportOptions};
use crate::report::{Report, Stopwatch};
use crate::watch::{Watch, progress_bar};
use anyhow::Result;
use gemel_host::disk::Changes;
use gemel_host::{Epochs, Inbox, Outputs, signals};
use gemel_log::Item;
use gemel_machine::{At, Machine, Output, RunError, Stop, Until};
use gemel_replay::{
    Conclusion, Diverged, LogSource, NoDisks, OutputSink, Progress, Replay, ReplayDisks, write_evidence,
};
use serde_json::json;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

/// Options of `gemel replay`.
#[derive(clap::Args)]
pub struct Args {
    /// The log
    #[arg(value_name = "LOG")]
    log: PathBuf,
    #[command(flatten)]
    files: FileOptions,
    #[command(flatten)]
    accel: AccelOptions,
    #[command(flatten)]
    lines: LineOptions,
    #[command(flatten)]
    limits: LimitOptions,
    #[command(flatten)]
    report: ReportOptions,
}

/// Bytes leave as in the recorded run.
struct Console {
    outputs: Outputs,
    serial_bytes: u64,
}

impl OutputSink for Console {
    fn output(&mut self, _ordinal: u64, _at: At, output: &Output) -> Result<(), Stop> {
        use gemel_host::OutputSink as _;
        match output {
            Output::Serial { port, byte } => {
                self.serial_bytes += 1;
                self.outputs.serial(*port, *byte);
                if *byte == b'\n' {
                    self.outputs.flush().map_err(|e| Stop::Host(Box::new(e)))?;
                }
            }
            Output::Debug(byte) => self.outputs.debug(*byte),
            Output::SerialConsumed { .. } | Output::Disk(_) | Output::Frame { .. } => {}
        }
        Ok(())
    }
}

/// The count at which a log ends. Costs one reading of the log, so it is done for a progress bar only.
pub fn length(path: &Path) -> u64 {
    let mut end = 0;
    if let Ok(mut reader) = logged::open(path) {
        while let Ok(Item::Entry(entry)) = reader.next_item() {
            end = entry.at.position.count;
        }
    }
    end
}

/// Where the evidence of a log's divergence goes unless somebody says otherwise.
pub fn evidence_beside(log: &Path) -> PathBuf {
    let mut folder = log.as_os_str().to_owned();
    folder.push(".diverged");
    folder.into()
}

/// How a log's end is told.
pub fn ending(conclusion: Conclusion) -> Ending {
    match conclusion {
        Conclusion::Complete { .. } | Conclusion::Ended => Ending::LogEnd,
        Conclusion::Cut { .. } => Ending::LogCut,
    }
}

/// Where the run went wrong, for somebody who wants to find out why.
pub fn keep_evidence(log: &Path, diverged: &Diverged, machine: &mut Machine) {
    let folder = evidence_beside(log);
    let snapshot = machine.snapshot().ok();
    match write_evidence(&folder, diverged, snapshot.as_deref()) {
        Ok(()) => eprintln!("gemel: the evidence is in {}", folder.display()),
        Err(e) => gemel_host::warn(format_args!("cannot keep evidence in {}: {e}", folder.display())),
    }
}

/// Runs a log's machine to the log's end.
///
/// # Errors
/// A log that cannot be read, files that are not the log's, input that no run can be made of.
pub fn run(args: Args) -> Result<ExitCode> {
    let reader = logged::open(&args.log)?;
    let header = reader.header().clone();
    let images = args.files.images(&header)?;
    let disks: Box<dyn ReplayDisks> = match args.files.disks(&header, Changes::Discarded)? {
        Some(disks) => Box::new(Copies::new(disks)),
        None => Box::new(NoDisks),
    };
    let engine = args.accel.for_machine(header.machine.reckoning)?;
    let Built { mut machine, figures } =
        machine::build(&header.machine, engine, &images.kernel, &images.initrd)?;
    let progress = match logged::start(&args.log, &header)? {
        Some(start) => {
            machine.restore(&start.snapshot)?;
            start.progress
        }
        None => Progress::default(),
    };

    let inbox = Inbox::new();
    signals::install(&inbox)?;
    let on_terminal = io::stderr().is_terminal() && !(args.lines.use_stdout() && io::stdout().is_terminal());
    let bar = on_terminal.then(|| progress_bar(length(&args.log)));
    let console = Console { outputs: args.lines.open_outputs()?, serial_bytes: 0 };
    let replay = Replay::resume(LogSource::new(reader), console, disks, progress);
    let watch = Watch::new(replay, Arc::clone(&inbox), bar);
    let epochs = Epochs::new(watch, args.limits.digests.as_deref(), header.epoch)?;
    let mut world = Until::new(epochs, args.limits.stop_after);

    let stopwatch = Stopwatch::start();
    let outcome = machine.run(&mut world);
    let replay = &mut world.world.world.world;
    let conclusion = replay.conclude(&mut machine, outcome);
    let seconds = stopwatch.read();
    gemel_host::OutputSink::finish(&mut replay.outputs().outputs);
    let (entries, serial_bytes) = (replay.entries(), replay.outputs().serial_bytes);

    let mut leftover = 0;
    let how = match conclusion {
        Ok(conclusion) => {
            if let Conclusion::Cut { leftover: bytes, .. } = conclusion {
                leftover = bytes;
            }
            ending(conclusion)
        }
        Err(e) => {
            if let RunError::World(Stop::Diverged(e)) = &e
                && let Some(diverged) = e.downcast_ref()
            {
                keep_evidence(&args.log, diverged, &mut machine);
            }
            Ending::of(&Err(e), inbox.quit_reason())
        }
    };
    let (at, digest) = (machine.at(), machine.digest()?);
    world.world.finish(at, digest)?;
    drop(world);
    let more = json!({
        "log_entries": entries,
        "log_leftover_bytes": leftover,
        "recorded_on": format!("{:?}", header.engine),
        "stays_clear": header.stays_clear,
    });
    let report = Report {
        command: "replay",
        reckoning: header.machine.reckoning,
        at,
        digest,
        seconds,
        serial_bytes,
        ending: &how,
        figures: figures.as_deref(),
        more: more.as_object().cloned().unwrap_or_default(),
    };
    if args.report.json.is_none() {
        tell_assertion(&header);
    }
    report.tell(&args.report, args.lines.use_stdout())?;
    Ok(ExitCode::from(how.code()))
}
