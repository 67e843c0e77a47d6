//! Probes of what it costs to leave the guest and come back.
//!
//! Not responsible for: why it costs that.

use super::facts::Measured;
use super::guests::{self, Program};
use super::probes::{Bench, unexpected};
use super::sandbox::{Left, Probe};
use super::stage::{Mode, NOT_RAM};
use crate::processor_time::processor_time;
use kvm_bindings::{KVM_CAP_X86_USER_SPACE_MSR, KVM_EXIT_HLT, kvm_enable_cap};
use kvm_ioctls::MsrExitReason;
use std::collections::BTreeMap;

/// Times that an exit is made.
const TIMES: u32 = 100;
/// A register that no CPU and no hypervisor has.
const NO_MSR: u64 = 0x0dea_0000;

/// Nanoseconds by kind of exit, in the modes that they exist in.
pub fn measure(bench: &Bench) -> BTreeMap<Mode, BTreeMap<String, Measured<u64>>> {
    let halt = Left::Other(KVM_EXIT_HLT);
    let mut all = BTreeMap::new();
    for mode in [Mode::Real, Mode::Protected, Mode::LongRing0, Mode::LongRing3] {
        let mut costs = BTreeMap::new();
        let mut put = |name: &str, cost: Probe<u64>| costs.insert(name.to_owned(), cost.into());
        put("pio", exits(bench, mode, guests::port_exits(), Left::Port));
        put("mmio", exits(bench, mode, guests::store_exits(), Left::Memory));
        if !mode.is_user() {
            put("hlt", exits(bench, mode, guests::halts(), halt));
            put("msr", exits(bench, mode, guests::msr_exits(), Left::Msr));
        }
        put("cpuid", cpuid(bench, mode));
        put("immediate_exit", immediate(bench, mode));
        all.insert(mode, costs);
    }
    all
}

/// A program that leaves by the same exit again and again.
fn exits(bench: &Bench, mode: Mode, program: Program, by: Left) -> Probe<u64> {
    let mut sandbox = bench.sandbox()?;
    let reasons = MsrExitReason::Unknown | MsrExitReason::Inval | MsrExitReason::Filter;
    let mut user_space = kvm_enable_cap { cap: KVM_CAP_X86_USER_SPACE_MSR, ..Default::default() };
    user_space.args[0] = u64::from(reasons.bits());
    // Where KVM cannot do this, a register's exit is a fault, which the probe then names.
    let _ = sandbox.vm.enable_cap(&user_space);
    sandbox.load(mode, program, |regs, _| (regs.rdi, regs.rcx, regs.rdx) = (NOT_RAM, NO_MSR, 0x10))?;
    let started = processor_time();
    let mut made = 0;
    while made < TIMES {
        match sandbox.leave_once()? {
            Left::Interrupted => {}
            left if left == by => made += 1,
            left => return unexpected(left),
        }
    }
    // The first one also builds what the rest finds built, so small numbers are an upper bound.
    Ok((processor_time() - started).as_nanos() as u64 / u64::from(TIMES))
}

/// CPUID never leaves to user space: its cost is the time inside.
fn cpuid(bench: &Bench, mode: Mode) -> Probe<u64> {
    let mut sandbox = bench.sandbox()?;
    sandbox.load(mode, guests::cpuids(), |regs, _| regs.rsi = TIMES.into())?;
    let started = processor_time();
    match sandbox.run()? {
        Left::Done => Ok((processor_time() - started).as_nanos() as u64 / u64::from(TIMES)),
        left => unexpected(left),
    }
}

/// Entering only to leave.
fn immediate(bench: &Bench, mode: Mode) -> Probe<u64> {
    let mut sandbox = bench.sandbox()?;
    sandbox.load(mode, guests::countdown(), |_, _| ())?;
    sandbox.vcpu.set_kvm_immediate_exit(1);
    let started = processor_time();
    for _ in 0..TIMES {
        let left = sandbox.leave_once()?;
        if left != Left::Interrupted {
            return unexpected(left);
        }
    }
    Ok((processor_time() - started).as_nanos() as u64 / u64::from(TIMES))
}
