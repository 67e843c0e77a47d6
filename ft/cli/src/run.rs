//! `gemel run`: a guest under the live world.
//!
//! Not responsible for: recording (`record`).

use crate::accel::AccelOptions;
use crate::exit::Ending;
use crate::machine::{self, Built, Images};
use crate::options::{EpochOptions, LimitOptions, MachineOptions, ReportOptions, WorldOptions};
use crate::report::{Report, Stopwatch};
use crate::{net, world};
use anyhow::Result;
use gemel_host::Epochs;
use gemel_machine::Until;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// Options of `gemel run`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    machine: MachineOptions,
    #[command(flatten)]
    accel: AccelOptions,
    #[command(flatten)]
    world: WorldOptions,
    #[command(flatten)]
    limits: LimitOptions,
    #[command(flatten)]
    epochs: EpochOptions,
    #[command(flatten)]
    report: ReportOptions,
}

/// Runs a guest to its end.
///
/// # Errors
/// Input that no run can be made of.
pub fn run(args: Args) -> Result<ExitCode> {
    let options = &args.machine;
    let mut images = Images::open(&options.kernel, options.initrd.as_deref(), &options.drive)?;
    let counts = args.limits.asks_for_counts() || args.epochs.asks_for_counts();
    let chosen = args.accel.for_run(options, counts)?;
    let spec = machine::spec(options, chosen.reckoning(options.reckoning), &mut images, false)?;
    let Built { mut machine, figures } =
        machine::build(&spec, chosen.engine, &images.kernel, &images.initrd)?;

    let connections = args.world.lines.connect()?;
    let inbox = Arc::clone(&connections.inbox);
    let mut live = world::live(connections, options.clock, images.disks, &spec);
    live.nics = net::connect(&options.net, &inbox)?;
    let status = live.status();
    let shown = Arc::clone(&status);
    let control =
        args.world.open_control(&inbox, Arc::new(move || world::status("run", spec.reckoning, &shown)))?;
    let epochs = Epochs::new(live, args.limits.digests.as_deref(), args.epochs.length(spec.reckoning))?;
    let mut world = Until::new(epochs, args.limits.stop_after);

    let stopwatch = Stopwatch::start();
    let outcome = machine.run(&mut world);
    let seconds = stopwatch.read();
    world.world.world.outputs.finish();
    drop(control);

    let ending = Ending::of(&outcome, inbox.quit_reason());
    let (at, digest) = (machine.at(), machine.digest()?);
    world.world.finish(at, digest)?;
    // The terminal is restored before anything is said.
    drop(world);
    let report = Report {
        command: "run",
        reckoning: spec.reckoning,
        at,
        digest,
        seconds,
        serial_bytes: status.serial_bytes.load(Relaxed),
        ending: &ending,
        figures: figures.as_deref(),
        more: Default::default(),
    };
    report.tell(&args.report, args.world.lines.use_stdout())?;
    Ok(ExitCode::from(ending.code()))
}
