//! `gemel replay`: a log's machine again, checked at every entry and epoch.
//!
//! Not responsible for: the checking itself (`gemel-replay`).

use crate::copies::Copies;
use crate::exit::Ending;
use crate::machine::{self, Images};
use crate::options::{LimitOptions, LineOptions, ReportOptions};
use crate::report::{Report, Stopwatch};
use crate::watch::{Watch, progress_bar};
use anyhow::{Context, Result, bail, ensure};
use gemel_host::disk::Changes;
use gemel_host::{Disks, DriveSpec, Epochs, Inbox, Outputs, signals};
use gemel_log::{Header, Item, LogReader, ReadPolicy};
use gemel_machine::{At, Machine, Output, RunError, Stop, Until, image_digest};
use gemel_replay::{
    Conclusion, Diverged, LogSource, NoDisks, OutputSink, Replay, ReplayDisks, write_evidence,
};
use serde_json::json;
use std::fs::File;
use std::io::{self, BufReader, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

/// Options of `gemel replay`.
#[derive(clap::Args)]
pub struct Args {
    /// The log
    #[arg(value_name = "LOG")]
    log: PathBuf,
    /// The kernel, if it is no longer where it was
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,
    /// The initial RAM disk, if it is no longer where it was
    #[arg(long, value_name = "FILE")]
    initrd: Option<PathBuf>,
    /// The disks, if the log does not carry their data and they are no longer where they were; they stay untouched
    #[arg(long, value_name = "SPEC")]
    drive: Vec<DriveSpec>,
    #[command(flatten)]
    lines: LineOptions,
    #[command(flatten)]
    limits: LimitOptions,
    #[command(flatten)]
    report: ReportOptions,
}

fn open(path: &Path) -> Result<LogReader<BufReader<File>>> {
    let file = File::open(path).with_context(|| format!("cannot open the log {}", path.display()))?;
    LogReader::new(BufReader::with_capacity(1 << 18, file))
        .with_context(|| format!("{} cannot be replayed", path.display()))
}

/// A file that the log names, or that the options give instead.
fn place(given: Option<&PathBuf>, hint: Option<&String>, what: &str, option: &str) -> Result<PathBuf> {
    match (given, hint) {
        (Some(path), _) => Ok(path.clone()),
        (None, Some(path)) => Ok(path.into()),
        (None, None) => bail!("the log does not say where the {what} is: give {option}"),
    }
}

/// The kernel and the initrd that the log was made with.
fn images(args: &Args, header: &Header) -> Result<Images> {
    let (hints, boot) = (&header.images, &header.machine.boot);
    let kernel = place(args.kernel.as_ref(), hints.kernel.as_ref(), "kernel", "--kernel")?;
    let initrd = match boot.initrd {
        0 => None,
        _ => Some(place(args.initrd.as_ref(), hints.initrd.as_ref(), "initrd", "--initrd")?),
    };
    let images = Images::open(&kernel, initrd.as_deref(), &[])?;
    ensure!(
        image_digest(&images.kernel) == boot.kernel,
        "{} is not the kernel that the log was made with: give that one with --kernel",
        kernel.display()
    );
    if let Some(initrd) = &initrd {
        ensure!(
            image_digest(&images.initrd) == boot.initrd,
            "{} is not the initrd that the log was made with: give that one with --initrd",
            initrd.display()
        );
    }
    Ok(images)
}

/// The disks that the replay reads, each through a temporary overlay; none if the log carries all data.
fn disks(args: &Args, header: &Header) -> Result<Box<dyn ReplayDisks>> {
    if header.reads.iter().all(|policy| *policy == ReadPolicy::Carried) {
        return Ok(Box::new(NoDisks));
    }
    let specs = &header.machine.disks;
    ensure!(
        args.drive.is_empty() || args.drive.len() == specs.len(),
        "the log's machine has {} disks: give --drive once for each, in the same order",
        specs.len()
    );
    let mut opened = Vec::new();
    for (i, spec) in specs.iter().enumerate() {
        let given = args.drive.get(i).map(|drive| &drive.file);
        let file = place(given, header.images.disks.get(i), "disk image", "--drive")?;
        let mut disk = DriveSpec { file: file.clone(), changes: Changes::Discarded }.open()?;
        let digest = disk.digest().with_context(|| format!("cannot read {}", file.display()))?;
        ensure!(
            disk.sectors() == spec.sectors && digest == spec.digest,
            "{} is not the disk image that the log was made with, or was written to since: give that one with --drive",
            file.display()
        );
        opened.push(disk);
    }
    Ok(Box::new(Copies::new(Disks::new(opened))))
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
            Output::SerialConsumed { .. } | Output::Disk(_) => {}
        }
        Ok(())
    }
}

/// The count at which a log ends. Costs one reading of the log, so it is done for a progress bar only.
fn length(path: &Path) -> u64 {
    let mut end = 0;
    if let Ok(mut reader) = open(path) {
        while let Ok(Item::Entry(entry)) = reader.next_item() {
            end = entry.at.position.count;
        }
    }
    end
}

/// Where the run went wrong, for somebody who wants to find out why.
pub fn keep_evidence(log: &Path, diverged: &Diverged, machine: &mut Machine) {
    let mut folder = log.as_os_str().to_owned();
    folder.push(".diverged");
    let snapshot = machine.snapshot().ok();
    match write_evidence(Path::new(&folder), diverged, snapshot.as_deref()) {
        Ok(()) => eprintln!("gemel: the evidence is in {}", folder.display()),
        Err(e) => gemel_host::warn(format_args!("cannot keep evidence in {}: {e}", folder.display())),
    }
}

/// Runs a log's machine to the log's end.
///
/// # Errors
/// A log that cannot be read, files that are not the log's, input that no run can be made of.
pub fn run(args: Args) -> Result<ExitCode> {
    let reader = open(&args.log)?;
    let header = reader.header().clone();
    let images = images(&args, &header)?;
    let disks = disks(&args, &header)?;
    let mut machine = machine::build(&header.machine, &images.kernel, &images.initrd)?;

    let inbox = Inbox::new();
    signals::install(&inbox)?;
    let on_terminal = io::stderr().is_terminal() && !(args.lines.use_stdout() && io::stdout().is_terminal());
    let bar = on_terminal.then(|| progress_bar(length(&args.log)));
    let console = Console { outputs: args.lines.open_outputs()?, serial_bytes: 0 };
    let replay = Replay::new(LogSource::new(reader), console, disks);
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
    let ending = match conclusion {
        Ok(Conclusion::Complete { .. } | Conclusion::Ended) => Ending::LogEnd,
        Ok(Conclusion::Cut { leftover: bytes, .. }) => {
            leftover = bytes;
            Ending::LogCut
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
    let more = json!({ "log_entries": entries, "log_leftover_bytes": leftover });
    let report = Report {
        command: "replay",
        at,
        digest,
        seconds,
        serial_bytes,
        ending: &ending,
        more: more.as_object().cloned().unwrap_or_default(),
    };
    report.tell(&args.report, args.lines.use_stdout())?;
    Ok(ExitCode::from(ending.code()))
}
