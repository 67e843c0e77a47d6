//! `gemel primary`: the side of a pair that leads.
//!
//! Not responsible for: the pair itself (`gemel-pair`).

use crate::accel::ClearOptions;
use crate::copies::replicas;
use crate::machine::{self, Built, Images};
use crate::pair::{PairOptions, Surround, no_lines};
use crate::record;
use crate::report::Stopwatch;
use crate::world::{self, Connections};
use anyhow::Result;
use gemel_host::Inbox;
use gemel_log::ReadPolicy;
use gemel_pair::shell::{Address, Primary};
use std::process::ExitCode;
use std::sync::Arc;

/// Options of `gemel primary`.
#[derive(clap::Args)]
pub struct Args {
    /// Where the secondary finds the primary: HOST:PORT or unix:PATH. The guest starts when it is there. Without this, the guest starts
    /// at once, and is copied to a standby (--standby)
    #[arg(long, value_name = "ADDR", required_unless_present = "standby")]
    listen: Option<Address>,
    #[command(flatten)]
    clear: ClearOptions,
    #[command(flatten)]
    pair: PairOptions,
}

/// Waits for a secondary and runs the guest.
///
/// # Errors
/// Input that no pair can be made of.
pub fn run(args: Args) -> Result<ExitCode> {
    let Args { listen, clear, pair } = &args;
    let options = &pair.machine;
    let mut images = Images::open(&options.kernel, options.initrd.as_deref(), &options.drive)?;
    let chosen = pair.accel.for_record(options, clear, pair.epochs.asks_for_counts())?;
    let spec = machine::spec(options, chosen.reckoning(options.reckoning), &mut images, true)?;
    let Built { mut machine, figures } =
        machine::build(&spec, chosen.engine, &images.kernel, &images.initrd)?;
    let epoch = pair.epochs.length(spec.reckoning);
    let mut header = record::header(options, spec, ReadPolicy::Carried, epoch);
    chosen.note_in(&mut header)?;

    let inbox = Inbox::new();
    let surround = Surround::new(&inbox, "primary", pair, replicas(&mut images.disks))?;
    let primary = Primary::new(&pair.shell()?, listen.as_ref(), &header, Box::new(surround))?;
    let log = pair.open_log(&header)?;
    let connections = Connections { inbox: Arc::clone(&inbox), outputs: no_lines() };
    let live = world::live(connections, options.clock, images.disks, &header.machine);
    if let Some(address) = primary.listens_on() {
        eprintln!("gemel: waiting for a secondary on {address}");
    }

    let stopwatch = Stopwatch::start();
    let ended = primary.run(&mut machine, live, log, &header)?;
    pair.tell("primary", &mut machine, figures.as_deref(), &ended, inbox.quit_reason(), &stopwatch)
}
