//! Random code in every mode, on a whole machine: the interpreter, the board behind it, inputs that come at any time.
//!
//! Not responsible for: devices alone (`devices`).
//!
//! An episode is one machine and some cases. A case is a CPU state with its tables (`state`, `tables`), code
//! (`code`) and inputs (`world`), run for at most [`MOST`] counts. Every second episode runs on two machines at once:
//! the other one is stopped at random positions, where its caches are dropped or it moves into a new machine by snapshot.
//! Both must end with the same digest.

mod code;
mod memory;
mod snapshot;
mod state;
mod tables;
mod world;

use crate::places;
use crate::rng::Rng;
use crate::run::{Episode, Tally};
use code::Shapes;
use gemel_devices::board;
use gemel_interp::{Interp, missing_on_host};
use gemel_machine::{
    BootSpec, Bus, DiskSpec, GuestRam, Machine, MachineSpec, Pause, PowerEvent, Reckoning, RunError, VirtTime,
};
use gemel_x86::CpuModel;
pub use snapshot::SnapshotFuzzer;
use state::Mode;
use std::sync::Arc;
use world::Weather;
pub use world::input;

/// Most counts of a case.
pub const MOST: u64 = 4000;
/// RAM of the machines: small, so that random addresses meet its end.
const RAM: u64 = 2 << 20;
/// Where the tables, the code and the stacks of a case lie; the stacks end at 0xc000.
const GDT: u64 = 0x1000;
const LDT: u64 = 0x1400;
const IDT: u64 = 0x2000;
const TSS: u64 = 0x3000;
const CODE: u64 = 0x5000;
const CODE_BYTES: u64 = 0x700;
const STACK: u64 = 0x9000;
const PAGES: u64 = 0x10000;
/// Cases on one machine.
const CASES: u64 = 16;

/// CPU models that episodes take turns with: the default, and others, with all that can be asked for or left out.
const MODELS: [&str; 7] = [
    "x86-64-v4",
    "x86-64-v2",
    "x86-64-v3",
    "x86-64-v3,+x2apic,+pcid",
    "x86-64-v2,+x2apic,+xsave,+pcid",
    "x86-64-v2,+pcid,-smap,-smep,-page_1g",
    "x86-64-v2,+xsave,-tsc_deadline,-umip,-fsgsbase",
];

/// The fuzzer: what is made once.
pub struct CpuFuzzer {
    shapes: Shapes,
}

impl Default for CpuFuzzer {
    fn default() -> Self {
        Self { shapes: Shapes::new() }
    }
}

/// The model whose turn it is; the default in place of one that this host cannot run.
fn model(turn: u64) -> anyhow::Result<CpuModel> {
    let model = CpuModel::parse(MODELS[turn as usize % MODELS.len()]).map_err(anyhow::Error::msg)?;
    Ok(if missing_on_host(&model).is_some() { CpuModel::x86_64_v2() } else { model })
}

/// The machine of an episode. `board` draws what its chips were told before; without it they are as after power-on.
fn machine(model: &CpuModel, board: Option<&Rng>) -> anyhow::Result<Machine> {
    let spec = MachineSpec {
        board: board::BOARD,
        ram: RAM,
        cpu: model.text(),
        reckoning: Reckoning::default(),
        rtc_base: 1_767_225_600,
        seed: 0,
        disks: vec![DiskSpec { sectors: 64, read_only: false, digest: 0 }; 2],
        nics: Vec::new(),
        boot: BootSpec::default(),
    };
    let ram = Arc::new(GuestRam::new(RAM)?);
    let mut bus = board::build(&spec, model, ram.clone())?;
    if let Some(rng) = board {
        program(&mut bus, rng);
    }
    let interp = Box::new(Interp::new(model.clone(), ram.clone()));
    Ok(Machine::new(interp, bus, ram, spec.reckoning, spec.id()))
}

/// Random accesses to the chips, so that some have interrupts and timers under way.
fn program(bus: &mut Bus, rng: &Rng) {
    for _ in 0..rng.below(80) {
        if rng.once_in(2) {
            bus.port_write(VirtTime(0), places::port(rng), rng.pick(&[1, 2, 4]), rng.value() as u32);
        } else {
            bus.mmio_write(VirtTime(0), places::address(rng), rng.pick(&[1, 2, 4, 8]), rng.value());
        }
    }
}

/// Why a case ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    /// The world's limit was reached.
    Limit,
    /// A triple fault.
    TripleFault,
    /// HLT for good.
    Halted,
    /// A device wants a power event; the machine is of no further use.
    Power(PowerEvent),
}

/// Lets a machine run under its world, with a break wherever the weather has one.
fn go(
    machine: &mut Machine,
    world: &mut Weather,
    mut at_break: impl FnMut(&mut Machine),
) -> anyhow::Result<End> {
    loop {
        match machine.run(world) {
            Ok(Pause::TripleFault) => return Ok(End::TripleFault),
            Ok(Pause::Halted) => return Ok(End::Halted),
            Ok(Pause::Power(event)) => return Ok(End::Power(event)),
            Err(RunError::World(_)) if world.is_over() => return Ok(End::Limit),
            Err(RunError::World(_)) => at_break(machine),
            Err(RunError::Engine(error)) => return Err(error.into()),
        }
    }
}

/// A break: something that must not be visible.
fn disturb(machine: &mut Machine, model: &CpuModel, rng: &Rng) -> anyhow::Result<()> {
    match rng.below(64) {
        0 => {
            let snapshot = machine.snapshot()?;
            *machine = self::machine(model, None)?;
            machine.restore(&snapshot)?;
        }
        1..=24 => {
            let state = machine.vcpu().save()?;
            machine.vcpu().restore(&state)?;
        }
        _ => machine.vcpu().flush(),
    }
    Ok(())
}

impl CpuFuzzer {
    fn case(
        &self,
        rng: &Rng,
        machines: &mut [Machine],
        model: &CpuModel,
        tally: &mut Tally,
    ) -> anyhow::Result<End> {
        let mode = Mode::pick(rng);
        let made = state::make(rng, mode, model, &self.shapes, machines[0].at().position.count);
        tally.case(mode.name(), || made.code.clone());
        let mut ends = Vec::new();
        let weather = Weather::new(rng, machines[0].at().position.count, MOST);
        let breaks = rng.clone();
        for (number, machine) in machines.iter_mut().enumerate() {
            for (address, bytes) in &made.memory {
                // What lies beyond RAM is lost.
                let _ = machine.ram().write(*address, bytes);
            }
            machine.vcpu().restore(&made.state)?;
            let mut world = weather.clone();
            let mut failed = Ok(());
            if number > 0 {
                world.break_at(&breaks);
            }
            let end = go(machine, &mut world, |machine| {
                if failed.is_ok() {
                    failed = disturb(machine, model, &breaks);
                }
            })?;
            failed?;
            ends.push((end, machine.at(), world.seen()));
        }
        let count = machines[0].at().position.count - made.state.count;
        tally.done(count, matches!(ends[0].0, End::Limit));
        if let [one, other] = machines {
            assert_eq!(ends[0], ends[1], "breaks are visible in where and how the case ends");
            let left = one.vcpu().save()?;
            let right = other.vcpu().save()?;
            assert_eq!(left.differences(&right, true), [], "breaks are visible in the CPU");
            assert_eq!(one.digest()?, other.digest()?, "breaks are visible in the digest");
        }
        Ok(ends[0].0)
    }
}

impl Episode for CpuFuzzer {
    fn run(&self, rng: &Rng, number: u64, tally: &mut Tally) -> anyhow::Result<()> {
        let model = model(number / 2)?;
        let board = Rng::of(rng.next(), 0);
        let mut machines = vec![machine(&model, Some(&board.clone()))?];
        if number % 2 == 1 {
            machines.push(machine(&model, Some(&board))?);
        }
        for _ in 0..CASES {
            let end = self.case(rng, &mut machines, &model, tally)?;
            for machine in &machines {
                assert!(memory::red_zone_is_clean(machine.ram()), "a store outside guest memory");
            }
            if matches!(end, End::Power(_)) {
                break;
            }
        }
        Ok(())
    }
}
