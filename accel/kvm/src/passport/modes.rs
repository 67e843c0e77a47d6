//! Probes of one mode: who executes it, and where its guest can be stopped.
//!
//! Not responsible for: single instructions (`instructions`).

use super::facts::{NATIVE, Stopped};
use super::guests;
use super::probes::{Bench, unexpected};
use super::sandbox::{Left, Probe, Sandbox};
use super::stage::{CODE, Mode};
use crate::processor_time::processor_time;
use kvm_bindings::{KVM_GUESTDBG_SINGLESTEP, KVM_GUESTDBG_USE_HW_BP};
use std::time::Duration;

/// A loop must take this long to be judged by its time.
const ENOUGH: Duration = Duration::from_millis(8);

/// RFLAGS.IF.
const IF: u64 = 1 << 9;
/// The instruction that a breakpoint is set on: the third.
const THIRD: u64 = CODE + 2;

/// Rounds of a loop of two instructions by which a CPU is told from a program in some milliseconds: 0.16 ms at the rate where the two part.
const TELLING: u64 = 1 << 13;
/// Tries at it: others' use of the processor makes it slower at most.
const TRIES: u32 = 3;

/// The time that so many rounds of two instructions take.
fn lap(sandbox: &mut Sandbox<'_>, mode: Mode, rounds: u64) -> Probe<Duration> {
    sandbox.load(mode, guests::countdown(), |regs, _| regs.rcx = rounds)?;
    let started = processor_time();
    let left = sandbox.run()?;
    let took = processor_time() - started;
    if left == Left::Done { Ok(took) } else { unexpected(left) }
}

/// Millions of instructions a second.
fn speed(rounds: u64, took: Duration) -> f64 {
    ((2 * rounds) as f64 / took.as_secs_f64() / 1e5).round() / 10.0
}

/// Whether the CPU itself executes this mode, as [`rate`] would tell in more time.
///
/// # Errors
/// Why the loop did not run.
pub fn is_native(bench: &Bench, mode: Mode) -> Probe<bool> {
    let mut sandbox = bench.sandbox()?;
    lap(&mut sandbox, mode, 1)?;
    for _ in 0..TRIES {
        if speed(TELLING, lap(&mut sandbox, mode, TELLING)?) >= NATIVE {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Millions of instructions a second in a loop of two.
///
/// # Errors
/// Why the loop did not run.
pub fn rate(bench: &Bench, mode: Mode) -> Probe<f64> {
    let mut sandbox = bench.sandbox()?;
    // The largest count takes a CPU at 1 GHz a quarter of a second.
    for shift in [8, 14, 20, 24, 28] {
        let took = lap(&mut sandbox, mode, 1 << shift)?;
        if took >= ENOUGH || shift == 28 {
            return Ok(speed(1 << shift, took));
        }
    }
    Err("no loop was long enough".into())
}

/// Single steps: two in a row.
///
/// # Errors
/// Why the program did not run.
pub fn single_step(bench: &Bench, mode: Mode) -> Probe<Stopped> {
    let mut sandbox = bench.sandbox()?;
    sandbox.load(mode, guests::three_nops(), |_, _| ())?;
    sandbox.debug(KVM_GUESTDBG_SINGLESTEP, &[])?;
    for step in 1..=2 {
        let left = sandbox.run()?;
        let rip = sandbox.regs()?.rip;
        match left {
            Left::Debug if rip == CODE + step => {}
            Left::Debug => return Ok(Stopped::Late),
            Left::Done => return Ok(Stopped::Never),
            left => return unexpected(left),
        }
    }
    Ok(Stopped::Exactly)
}

/// A hardware breakpoint on the third instruction.
///
/// # Errors
/// Why the program did not run.
pub fn breakpoint(bench: &Bench, mode: Mode) -> Probe<Stopped> {
    let mut sandbox = bench.sandbox()?;
    sandbox.load(mode, guests::three_nops(), |_, _| ())?;
    sandbox.debug(KVM_GUESTDBG_USE_HW_BP, &[THIRD])?;
    let left = sandbox.run()?;
    match left {
        Left::Debug if sandbox.regs()?.rip == THIRD => Ok(Stopped::Exactly),
        Left::Debug => Ok(Stopped::Late),
        Left::Done => Ok(Stopped::Never),
        left => unexpected(left),
    }
}

/// The exit at the first boundary where an interrupt can be taken: after STI's shadow at ring 0, at once at ring 3.
///
/// # Errors
/// Why the program did not run.
pub fn window(bench: &Bench, mode: Mode) -> Probe<Stopped> {
    let mut sandbox = bench.sandbox()?;
    let program = if mode.is_user() { guests::in_window() } else { guests::open_window() };
    sandbox.load(mode, program, |regs, _| {
        regs.rcx = 100_000;
        regs.rflags |= if mode.is_user() { IF } else { 0 };
    })?;
    sandbox.vcpu.get_kvm_run().request_interrupt_window = 1;
    let left = sandbox.run()?;
    match left {
        Left::Window if sandbox.regs()?.rax == 0 => Ok(Stopped::Exactly),
        Left::Window => Ok(Stopped::Late),
        Left::Done => Ok(Stopped::Never),
        left => unexpected(left),
    }
}
