//! A closed machine that boots a kernel, for tests that compare two boots.
//!
//! Not responsible for: what is compared.

use anyhow::Result;
use gemel_devices::{board, boot};
use gemel_interp::Interp;
use gemel_machine::{
    At, BootSpec, Digest, GuestRam, Input, Machine, MachineSpec, Output, Query, Reckoning, RunError, Stop,
    StopAt, Vcpu, VirtTime, World,
};
use gemel_system_tests::guest::Guest;
use gemel_x86::CpuModel;
use std::sync::Arc;

/// Instructions between digests.
pub const EPOCH: u64 = 1 << 24;

/// A closed world on a free clock that ends each run at a count and collects epoch digests.
#[derive(Default)]
pub struct Closed {
    /// Where the run ends.
    pub end: u64,
    /// A digest for each epoch that the run finished, the first at [`EPOCH`].
    pub digests: Vec<Digest>,
}

impl Closed {
    fn next_epoch(&self) -> u64 {
        (self.digests.len() as u64 + 1) * EPOCH
    }
}

impl World for Closed {
    fn next_stop(&mut self, _: At) -> StopAt {
        StopAt { count: self.end.min(self.next_epoch()), ..StopAt::NEVER }
    }
    fn poll(&mut self, at: At) -> Result<Option<Input>, Stop> {
        let due = self.digest_due(at);
        if at.position.count >= self.end && !due { Err(Stop::Quit) } else { Ok(None) }
    }
    fn idle(&mut self, _: At, until: VirtTime) -> Result<VirtTime, Stop> {
        Ok(until)
    }
    fn answer(&mut self, _: At, _: Query) -> Result<u64, Stop> {
        Ok(0)
    }
    fn emit(&mut self, _: At, _: Output) {}
    fn digest_due(&self, at: At) -> bool {
        at.position.count >= self.next_epoch()
    }
    fn digest(&mut self, _: At, digest: Digest) -> Result<(), Stop> {
        self.digests.push(digest);
        Ok(())
    }
}

/// The guest's machine at power-on.
pub fn machine(guest: &Guest) -> Result<Machine> {
    let cpu = CpuModel::x86_64_v2();
    let spec = MachineSpec {
        board: board::BOARD,
        ram: 256 << 20,
        cpu: cpu.text(),
        reckoning: Reckoning::default(),
        rtc_base: 1_767_225_600,
        seed: 0,
        disks: Vec::new(),
        nics: Vec::new(),
        boot: BootSpec::default(),
    };
    let ram = Arc::new(GuestRam::new(spec.ram)?);
    let bus = board::build(&spec, &cpu, ram.clone())?;
    let (kernel, initrd) = (std::fs::read(guest.kernel())?, std::fs::read(guest.initrd())?);
    let state = boot::load(&kernel, Some(&initrd), &guest.append, &ram, board::RSDP)?;
    let mut engine = Interp::new(cpu, ram.clone());
    engine.restore(&state)?;
    Ok(Machine::new(Box::new(engine), bus, ram, spec.reckoning, spec.id()))
}

/// Runs a machine to a count.
pub fn run_to(machine: &mut Machine, world: &mut Closed, end: u64) -> Result<()> {
    world.end = end;
    match machine.run(world) {
        Err(RunError::World(Stop::Quit)) => Ok(()),
        other => anyhow::bail!("the boot ended early: {other:?}"),
    }
}
