//! Nothing that caches may be visible: a kernel that boots with all translations and decoded blocks dropped at random
//! boundaries is, at every epoch, equal to one that boots undisturbed.
//!
//! Not responsible for: whether the boot is right (the guests' results are checked in `tests/system`).

use anyhow::{Context, Result};
use gemel_devices::{board, boot};
use gemel_interp::Interp;
use gemel_machine::{
    At, BootSpec, Digest, GuestRam, Input, Machine, MachineSpec, Output, Query, RunError, Stop, StopAt,
    TimeBase, Vcpu, VirtTime, World,
};
use gemel_system_tests::guest::Guest;
use gemel_x86::CpuModel;
use std::sync::Arc;

/// Instructions to boot for: past the kernel's unpacking, its page tables, and its first processes.
const LENGTH: u64 = 700_000_000;
const EPOCH: u64 = 1 << 24;

/// A closed world on a free clock that ends each run at a count and collects epoch digests.
struct Closed {
    end: u64,
    digests: Vec<Digest>,
}

impl Closed {
    fn next_epoch(&self) -> u64 {
        (self.digests.len() as u64 + 1) * EPOCH
    }
}

impl World for Closed {
    fn next_stop(&mut self, _: At) -> StopAt {
        StopAt { count: self.end.min(self.next_epoch()), time: VirtTime::NEVER }
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

fn machine(guest: &Guest) -> Result<Machine> {
    let cpu = CpuModel::x86_64_v2();
    let spec = MachineSpec {
        board: board::BOARD,
        ram: 256 << 20,
        cpu: cpu.text(),
        time_base: TimeBase::default(),
        rtc_base: 1_767_225_600,
        seed: 0,
        disks: Vec::new(),
        boot: BootSpec::default(),
    };
    let ram = Arc::new(GuestRam::new(spec.ram)?);
    let bus = board::build(&spec, &cpu, ram.clone())?;
    let (kernel, initrd) = (std::fs::read(guest.kernel())?, std::fs::read(guest.initrd())?);
    let state = boot::load(&kernel, Some(&initrd), &guest.append, &ram, board::RSDP)?;
    let mut engine = Interp::new(cpu, ram.clone());
    engine.restore(&state)?;
    Ok(Machine::new(Box::new(engine), bus, ram, spec.time_base, spec.id()))
}

/// Epoch digests of a boot; `seed` flushes at random boundaries, 200,000 instructions apart on average.
fn digests(guest: &Guest, seed: Option<u64>) -> Result<Vec<Digest>> {
    let mut machine = machine(guest)?;
    let mut world = Closed { end: 0, digests: Vec::new() };
    let mut random = seed.unwrap_or(0);
    while world.end < LENGTH {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let step = if seed.is_some() { 1 + (random >> 33) % 400_000 } else { LENGTH };
        world.end = (world.end + step).min(LENGTH);
        match machine.run(&mut world) {
            Err(RunError::World(Stop::Quit)) => {}
            other => anyhow::bail!("the boot ended early: {other:?}"),
        }
        if seed.is_some() {
            machine.vcpu().flush();
        }
    }
    Ok(world.digests)
}

#[test]
fn a_boot_does_not_show_when_caches_are_dropped() -> Result<()> {
    let guest = Guest::obtain("boot-cloud").context("a kernel to boot is needed")?;
    let calm = digests(&guest, None)?;
    assert_eq!(calm.len() as u64, LENGTH / EPOCH);
    let disturbed = digests(&guest, Some(0x5eed))?;
    for (epoch, (a, b)) in calm.iter().zip(&disturbed).enumerate() {
        assert_eq!(a, b, "epoch {epoch}: {:?} differ", a.differing_parts(b));
    }
    assert_eq!(calm.len(), disturbed.len());
    Ok(())
}
