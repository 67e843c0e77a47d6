//! `gemel secondary`: the side of a pair that follows, and goes on alone.
//!
//! Not responsible for: the pair itself (`gemel-pair`).

use crate::copies::{Copies, replicas};
use crate::machine::{self, Built, Images};
use crate::options::RtcBase;
use crate::pair::{PairOptions, Surround, take_over};
use crate::report::Stopwatch;
use anyhow::Result;
use gemel_host::Inbox;
use gemel_pair::shell::{Address, Secondary};
use std::process::ExitCode;
use std::sync::Arc;

/// Options of `gemel secondary`. The machine's must be the primary's; its clock and seed are taken from there.
#[derive(clap::Args)]
pub struct Args {
    /// Where the primary listens: HOST:PORT or unix:PATH
    #[arg(long, value_name = "ADDR")]
    connect: Address,
    #[command(flatten)]
    pair: PairOptions,
}

/// Follows a primary to the end of the guest, wherever that is.
///
/// # Errors
/// Input that no pair can be made of.
pub fn run(args: Args) -> Result<ExitCode> {
    let Args { connect, mut pair } = args;
    let shell = pair.shell()?;
    let options = &mut pair.machine;
    let mut images = Images::open(&options.kernel, options.initrd.as_deref(), &options.drive)?;
    let secondary = Secondary::connect(&connect, &shell.trust)?;
    let header = secondary.header().clone();
    options.rtc_base = Some(RtcBase::Epoch(header.machine.rtc_base));
    options.seed = header.machine.seed;
    let reckoning = header.machine.reckoning;
    let engine = pair.accel.for_machine(reckoning)?;
    let spec = machine::spec(options, reckoning, &mut images, true)?;
    let Built { mut machine, figures } = machine::build(&spec, engine, &images.kernel, &images.initrd)?;

    let inbox = Inbox::new();
    let surround = Surround::new(&inbox, "secondary", &pair, replicas(&mut images.disks))?;
    let log = pair.open_log(&header)?;
    let clock = pair.machine.clock;
    let copies = Copies::new(images.disks);
    let (following, taken_over) = (Box::new(copies.clone()), Arc::clone(&inbox));
    let stopwatch = Stopwatch::start();
    let ended = secondary.run(
        &shell,
        &mut machine,
        following,
        |handover, at| take_over(handover, at, taken_over, clock, copies.take(), &spec),
        log,
        Box::new(surround),
    )?;
    pair.tell("secondary", &mut machine, figures.as_deref(), &ended, inbox.quit_reason(), &stopwatch)
}
