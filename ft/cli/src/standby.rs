//! `gemel standby`: waits for a leader that wants a secondary, and becomes a copy of its running machine.
//!
//! Not responsible for: the copy and the pair (`gemel-pair`).

use crate::copies::{Copies, replicas};
use crate::machine::{self, Built, Images};
use crate::pair::{PairOptions, Surround, take_over};
use crate::report::Stopwatch;
use anyhow::{Context, Result, ensure};
use gemel_host::Inbox;
use gemel_log::Header;
use gemel_machine::MachineSpec;
use gemel_pair::shell::{Address, Standby, Surroundings};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use std::sync::Arc;

/// Options of `gemel standby`. The machine's must be the leader's, and its images of the same sizes; what is on them is replaced.
#[derive(clap::Args)]
pub struct Args {
    /// Where leaders find this standby: HOST:PORT or unix:PATH
    #[arg(long, value_name = "ADDR")]
    listen: Address,
    #[command(flatten)]
    pair: PairOptions,
}

/// The leader's machine, if these options and images make it. What is on the disks comes from there.
fn spec(pair: &PairOptions, header: &Header, images: &mut Images) -> Result<MachineSpec> {
    let theirs = &header.machine;
    let mut ours = machine::spec(&pair.machine, theirs.reckoning, images, false)?;
    (ours.rtc_base, ours.seed) = (theirs.rtc_base, theirs.seed);
    for (our, their) in ours.disks.iter_mut().zip(&theirs.disks) {
        our.digest = their.digest;
    }
    ensure!(
        ours == *theirs,
        "the leader's machine is another one: give this side the same machine options, and images of the same sizes"
    );
    Ok(ours)
}

/// Follows one leader. `None`: nobody came, and somebody asked the process to end.
fn serve(Args { listen, pair }: &Args) -> Result<(ExitCode, bool)> {
    let shell = pair.shell()?;
    let options = &pair.machine;
    let mut images = Images::open(&options.kernel, options.initrd.as_deref(), &options.drive)?;
    let inbox = Inbox::new();
    let surround = Surround::new(&inbox, "standby", pair, replicas(&mut images.disks))?;
    let listener = listen.listen(&shell.trust)?;
    eprintln!("gemel: waiting for a leader on {}", listener.address(listen));
    let Some(standby) = Standby::wait(listener, || surround.asked_to_quit())? else {
        return Ok((ExitCode::SUCCESS, false));
    };
    let header = standby.header().clone();
    let spec = spec(pair, &header, &mut images)?;
    let engine = pair.accel.for_machine(spec.reckoning)?;
    let Built { mut machine, figures } = machine::build(&spec, engine, &images.kernel, &images.initrd)?;
    eprintln!("gemel: becoming a copy of the leader's machine");

    let copies = Copies::new(images.disks);
    let (following, taken_over) = (Box::new(copies.clone()), Arc::clone(&inbox));
    let stopwatch = Stopwatch::start();
    let ended = standby.run(
        &shell,
        &mut machine,
        following,
        |handover, at| take_over(handover, at, taken_over, options.clock, copies.take(), &spec),
        |header, start| pair.open_log_from(header, start),
        Box::new(surround),
    )?;
    let quit = inbox.quit_reason();
    let again = ended.may_wait_again() && quit.is_none();
    let code = pair.tell("standby", &mut machine, figures.as_deref(), &ended, quit, &stopwatch)?;
    Ok((code, again))
}

/// Waits for leaders, one after the other, until a guest ends here or somebody asks for the end.
///
/// # Errors
/// Input that no standby can be made of.
pub fn run(args: Args) -> Result<ExitCode> {
    let (code, again) = serve(&args)?;
    if !again {
        return Ok(code);
    }
    // A fresh standby is a fresh process: nothing of the guest that this one had can be left in it.
    let itself = std::env::current_exe().context("cannot find this program to start it again")?;
    let failed = Command::new(itself).args(std::env::args_os().skip(1)).exec();
    Err(failed).context("cannot wait for another leader")
}
