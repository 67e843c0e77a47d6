//! Probes of what could rule the time-stamp counter (docs/check.md weighs them).
//!
//! Not responsible for: whether it leaks (`instructions`).

use super::facts::TscFindings;
use super::guests;
use super::probes::{Bench, unexpected};
use super::sandbox::{Left, Probe, Sandbox};
use super::stage::Mode;
use kvm_ioctls::Cap;
use std::time::{Duration, Instant};

/// IA32_TIME_STAMP_COUNTER.
const IA32_TSC: u32 = 0x10;
/// A value that no host's counter reaches in a hundred years.
const FAR: u64 = 1 << 62;
/// CR4.TSD.
const TSD: u64 = 1 << 2;
/// Rates to ask for, in kHz: the slowest that means anything, and two that any implementation should have.
const RATES: [u32; 3] = [1, 1_000, 1_000_000];
/// Time over which a rate is measured.
const SPAN: Duration = Duration::from_millis(20);

/// All of it.
pub fn measure(bench: &Bench) -> TscFindings {
    TscFindings {
        offset: offset(bench).into(),
        user_disable: faults(bench.sandbox(), Mode::LongRing3, TSD).into(),
        absent_faults: faults(bench.sandbox_without_tsc(), Mode::LongRing0, 0).into(),
        slowest_khz: slowest(bench).into(),
    }
}

fn read(sandbox: &mut Sandbox, mode: Mode) -> Probe<u64> {
    sandbox.load(mode, guests::rdtsc(), |_, _| ())?;
    match sandbox.run()? {
        Left::Done => {
            let regs = sandbox.regs()?;
            Ok(regs.rdx << 32 | regs.rax & 0xffff_ffff)
        }
        left => unexpected(left),
    }
}

fn offset(bench: &Bench) -> Probe<bool> {
    let mut sandbox = bench.sandbox()?;
    sandbox.set_msrs(&[(IA32_TSC, FAR)])?;
    let value = read(&mut sandbox, Mode::LongRing0)?;
    Ok(value >= FAR)
}

fn faults(sandbox: Probe<Sandbox>, mode: Mode, cr4: u64) -> Probe<bool> {
    let mut sandbox = sandbox?;
    sandbox.load(mode, guests::rdtsc(), |_, sregs| sregs.cr4 |= cr4)?;
    match sandbox.run()? {
        Left::Done => Ok(false),
        Left::Trapped(6 | 13) | Left::HandedOut => Ok(true),
        left => unexpected(left),
    }
}

fn slowest(bench: &Bench) -> Probe<u32> {
    if !bench.kvm.check_extension(Cap::TscControl) {
        return Err("KVM cannot scale the counter here (KVM_CAP_TSC_CONTROL)".into());
    }
    for khz in RATES {
        let mut sandbox = bench.sandbox()?;
        if sandbox.vcpu.set_tsc_khz(khz).is_err() {
            continue;
        }
        let (started, first) = (Instant::now(), read(&mut sandbox, Mode::LongRing0)?);
        std::thread::sleep(SPAN);
        let last = read(&mut sandbox, Mode::LongRing0)?;
        let expected = started.elapsed().as_micros() as u64 * u64::from(khz) / 1_000;
        if last.wrapping_sub(first).abs_diff(expected) <= expected / 4 + 1 {
            return Ok(khz);
        }
    }
    Err("a rate is accepted and the counter does not keep to it, or none is accepted".into())
}
