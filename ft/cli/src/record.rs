//! `gemel record`: a guest under the live world, and a log of what came in.
//!
//! Not responsible for: what a log holds (`gemel-log`), when an entry is made (`gemel-replay`).

use crate::accel::{AccelOptions, ClearOptions};
use crate::exit::Ending;
use crate::machine::{self, Built, Images};
use crate::options::{Clock, EpochOptions, LimitOptions, MachineOptions, ReportOptions, WorldOptions};
use crate::report::{Report, Stopwatch};
use crate::{net, world};
use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use gemel_host::disk::Changes;
use gemel_host::{DriveSpec, Epochs};
use gemel_log::{ClockKind, Header, ImageHints, LogWriter, ReadPolicy};
use gemel_machine::{MachineSpec, Until};
use gemel_replay::Record;
use serde_json::json;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// Options of `gemel record`.
#[derive(clap::Args)]
pub struct Args {
    /// The log
    #[arg(short, value_name = "FILE")]
    output: PathBuf,
    /// Where a replay gets the data that the guest read from disks: carried in the log, or from the image, which must
    /// then stay as it is (give the drive snapshot=on, overlay=NEW-FILE or readonly=on)
    #[arg(long, value_enum, default_value = "carried")]
    reads: Reads,
    #[command(flatten)]
    machine: MachineOptions,
    #[command(flatten)]
    accel: AccelOptions,
    #[command(flatten)]
    clear: ClearOptions,
    #[command(flatten)]
    world: WorldOptions,
    #[command(flatten)]
    limits: LimitOptions,
    #[command(flatten)]
    epochs: EpochOptions,
    #[command(flatten)]
    report: ReportOptions,
}

/// `--reads`.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq)]
enum Reads {
    /// In the log.
    Carried,
    /// In the image.
    Image,
}

/// A replay reads the image as it was at power-on: nothing may have been written to it, now or in an old overlay.
fn check_images_stay(drives: &[DriveSpec]) -> Result<()> {
    for drive in drives {
        let stays = match &drive.changes {
            Changes::Image => false,
            Changes::Overlay(path) => !path.exists(),
            Changes::Discarded | Changes::Refused => true,
        };
        if !stays {
            bail!(
                "--reads image needs {} as it is now for the replay: give the drive snapshot=on, a new overlay=FILE, \
                 or readonly=on",
                drive.file.display()
            );
        }
    }
    Ok(())
}

/// The path as another working directory would find it.
fn hint(path: &Path) -> String {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).display().to_string()
}

/// The header of a log that the machine of these options makes.
pub fn header(options: &MachineOptions, spec: MachineSpec, policy: ReadPolicy, epoch: u64) -> Header {
    let clock = match options.clock {
        Clock::Paced => ClockKind::Paced,
        Clock::Free => ClockKind::Free,
    };
    let mut header = Header::new(spec, clock);
    header.reads.fill(policy);
    header.epoch = epoch;
    header.images = ImageHints {
        kernel: Some(hint(&options.kernel)),
        initrd: options.initrd.as_deref().map(hint),
        disks: options.drive.iter().map(|drive| hint(&drive.file)).collect(),
    };
    header.host_cpu = host_cpu();
    header
}

/// The name of the host's CPU, whose floating-point unit works for the guest.
fn host_cpu() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    name.map_or_else(String::new, |(_, name)| name.to_owned())
}

/// Runs a guest to its end and writes its log.
///
/// # Errors
/// Input that no run can be made of; the log is made only after all of it is checked.
pub fn run(args: Args) -> Result<ExitCode> {
    let options = &args.machine;
    if args.reads == Reads::Image {
        check_images_stay(&options.drive)?;
    }
    let mut images = Images::open(&options.kernel, options.initrd.as_deref(), &options.drive)?;
    let counts = args.limits.asks_for_counts() || args.epochs.asks_for_counts();
    let chosen = args.accel.for_record(options, &args.clear, counts)?;
    let spec = machine::spec(options, chosen.reckoning(options.reckoning), &mut images, true)?;
    let Built { mut machine, figures } =
        machine::build(&spec, chosen.engine, &images.kernel, &images.initrd)?;
    let policy = match args.reads {
        Reads::Carried => ReadPolicy::Carried,
        Reads::Image => ReadPolicy::FromImage,
    };
    let reckoning = spec.reckoning;
    let mut header = header(options, spec, policy, args.epochs.length(reckoning));
    chosen.note_in(&mut header)?;

    let connections = args.world.lines.connect()?;
    let inbox = Arc::clone(&connections.inbox);
    let mut live = world::live(connections, options.clock, images.disks, &header.machine);
    live.nics = net::connect(&options.net, &inbox)?;
    let status = live.status();
    let shown = Arc::clone(&status);
    let control =
        args.world.open_control(&inbox, Arc::new(move || world::status("record", reckoning, &shown)))?;
    let path = args.output.display();
    let file = File::create(&args.output).with_context(|| format!("cannot write the log {path}"))?;
    let log = LogWriter::new(file, &header)?;
    let record = Record::new(live, log, &header);
    let epochs = Epochs::new(record, args.limits.digests.as_deref(), header.epoch)?;
    let mut world = Until::new(epochs, args.limits.stop_after);

    let stopwatch = Stopwatch::start();
    let outcome = machine.run(&mut world);
    let concluded = world.world.world.conclude(&mut machine, &outcome);
    let seconds = stopwatch.read();
    world.world.world.world().outputs.finish();
    drop(control);

    // Trouble with the log's end counts, unless the run itself ended in trouble before.
    let outcome = outcome.and_then(|pause| concluded.map(|()| pause));
    let ending = Ending::of(&outcome, inbox.quit_reason());
    let (at, digest) = (machine.at(), machine.digest()?);
    world.world.finish(at, digest)?;
    let (counts, entries) = {
        let log = world.world.world.sink();
        (log.counts(), log.entries())
    };
    // The terminal is restored before anything is said.
    drop(world);
    let more = json!({ "log_bytes": counts.total(), "log_entries": entries, "log_bytes_by_class": counts });
    let report = Report {
        command: "record",
        reckoning,
        at,
        digest,
        seconds,
        serial_bytes: status.serial_bytes.load(Relaxed),
        ending: &ending,
        figures: figures.as_deref(),
        more: more.as_object().cloned().unwrap_or_default(),
    };
    report.tell(&args.report, args.world.lines.use_stdout())?;
    Ok(ExitCode::from(ending.code()))
}
