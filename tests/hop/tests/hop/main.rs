//! One log, replayed while the vCPU is handed from engine to engine a thousand times and more, and the machine from snapshot to
//! snapshot: every digest is as recorded.
//!
//! Not responsible for what a kernel prints (`gemel-system-tests`, `kernels`).

mod endless;
mod hopper;
mod recorded;

use anyhow::{Context, Result, bail, ensure};
use gemel_interp::Interp;
use gemel_kvm::placement::Choice;
use gemel_kvm::{Kvm, Native, Quirks};
use gemel_machine::{CountKind, GuestRam, Machine, Until, Vcpu};
use gemel_replay::Conclusion;
use gemel_system_tests::engine::Engine;
use gemel_system_tests::kernel::Kernel;
use gemel_x86::CpuModel;
use hopper::{Dice, Hopper, Leave, Side};
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use recorded::{Make, Recorded, describe};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The least number of times that a run is handed over.
const HOPS: u64 = 1000;
/// The least number of snapshots that it goes through.
const SNAPSHOTS: u64 = 20;

/// Makes an engine without knowing more than the machine does.
type Maker = fn(&CpuModel, &Arc<GuestRam>) -> Result<Box<dyn Vcpu>>;

fn interpreter(model: &CpuModel, ram: &Arc<GuestRam>) -> Result<Box<dyn Vcpu>> {
    Ok(Box::new(Interp::new(model.clone(), Arc::clone(ram)).counting(CountKind::Exits)))
}

fn kvm(model: &CpuModel, ram: &Arc<GuestRam>) -> Result<Box<dyn Vcpu>> {
    Ok(Box::new(Kvm::new(model.clone(), Arc::clone(ram), interpreter(model, ram)?)?))
}

/// KVM that is given everything, and finds boundaries between two exits by breakpoint, whatever is known of this host.
fn kvm_by_breakpoint(model: &CpuModel, ram: &Arc<GuestRam>) -> Result<Box<dyn Vcpu>> {
    let quirks = Quirks { native: Native::All, ..Quirks::of_host() };
    let kvm = Kvm::with_quirks(model.clone(), Arc::clone(ram), interpreter(model, ram)?, quirks)?;
    Ok(Box::new(kvm.placing(Choice::Breakpoint)))
}

/// Records `kernel` on one engine and replays it on another.
fn replayed(kernel: &str, recording: Make<'_>, replaying: Make<'_>) -> Result<()> {
    let recorded = Recorded::new(&Kernel::obtain(kernel)?, recording)?;
    let (mut machine, mut world) = (recorded.machine(replaying)?, recorded.replay()?);
    let outcome = machine.run(&mut world);
    match world.conclude(&mut machine, outcome).map_err(describe)? {
        Conclusion::Complete { .. } => Ok(()),
        other => bail!("{other:?}"),
    }
}

/// Records `kernel` on the first kind of engine, and replays it on both in turn. The first is left at counts, the second anywhere.
fn hop(kernel: &str, seed: u64, [first, second]: [Make<'_>; 2]) -> Result<()> {
    let recorded = Recorded::new(&Kernel::obtain(kernel)?, first)?;
    let hops = Arc::new(AtomicU64::new(0));
    let mut dice = Dice(seed);
    let mut machine = || -> Result<Machine> {
        let seed = dice.up_to(u64::MAX);
        recorded.machine(&|model, ram| {
            let first = Side { engine: first(model, ram)?, leave: Leave::AtCounts(2) };
            let second = Side { engine: second(model, ram)?, leave: Leave::Anywhere(30) };
            Ok(Box::new(Hopper::new([first, second], seed, Arc::clone(&hops))))
        })
    };
    let mut running = machine()?;
    let mut world = Until::new(recorded.replay()?, None);
    let mut snapshots = 0;
    // Twice as many as are asked for, so that chance cannot make them too few.
    let apart = recorded.exits() / SNAPSHOTS;
    loop {
        world.rearm(running.at().position.count + Dice(seed ^ snapshots).up_to(apart));
        let outcome = running.run(&mut world);
        if !world.reached() {
            let conclusion = world.world.conclude(&mut running, outcome).map_err(describe);
            let (hops, entries) = (hops.load(Relaxed), world.world.entries());
            let told = format!("{hops} hops, {snapshots} snapshots, {entries} entries of the log");
            match conclusion.with_context(|| format!("after {told}"))? {
                Conclusion::Complete { .. } => {}
                other => bail!("{other:?}"),
            }
            println!("{kernel}: {told}, {} exits", running.at().position.count);
            ensure!(hops >= HOPS && snapshots >= SNAPSHOTS, "only {told}");
            return Ok(());
        }
        let (snapshot, digest) = (running.snapshot()?, running.digest()?);
        let mut next = machine()?;
        next.restore(&snapshot)?;
        ensure!(next.digest()? == digest, "a snapshot restored has another digest");
        running = next;
        snapshots += 1;
    }
}

fn trial(name: &str, test: impl FnOnce() -> Result<()> + Send + 'static) -> Trial {
    let needs_kvm = name.contains("kvm");
    Trial::ignorable_test(name, move || match Engine::Kvm.missing().filter(|_| needs_kvm) {
        Some(reason) => Ok(Completion::ignored_with(reason)),
        None => test().map(|()| Completion::Completed).map_err(|error| Failed::from(format!("{error:#}"))),
    })
}

fn main() -> ExitCode {
    let hops = |name: &str, kernel: &'static str, first: Maker| {
        let seed = 1;
        trial(name, move || hop(kernel, seed, [&first, &interpreter]).with_context(|| format!("seed {seed}")))
    };
    let endless = |name: &str, recording: Maker, replaying: Maker| {
        trial(name, move || endless::endless(&recording, &replaying))
    };
    let trials = vec![
        hops("interpreters_longmode", "longmode", interpreter),
        hops("interpreters_realmode", "realmode", interpreter),
        hops("kvm_compute", "compute", kvm),
        hops("kvm_longmode", "longmode", kvm),
        hops("kvm_realmode", "realmode", kvm),
        hops("kvm_protected", "protected", kvm),
        hops("kvm_paging_pse", "paging-pse", kvm),
        hops("kvm_paging_pae", "paging-pae", kvm),
        hops("kvm_lines", "lines:lines=5", kvm),
        trial("kvm_realmode_by_breakpoint", || replayed("realmode", &interpreter, &kvm_by_breakpoint)),
        endless("kvm_endless_by_breakpoint", kvm_by_breakpoint, kvm_by_breakpoint),
        endless("interpreters_endless", interpreter, interpreter),
        endless("kvm_endless", kvm, kvm),
        endless("kvm_endless_for_an_interpreter", kvm, interpreter),
        endless("interpreters_endless_for_kvm", interpreter, kvm),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
