//! Probes of single instructions: what leaks from the host, and what is wrong.
//!
//! Not responsible for: what a leak means for a guest (`rules`).

use super::facts::{Execution, Treatment};
use super::guests::{self, Program};
use super::probes::{Bench, MARK, unexpected};
use super::sandbox::{Left, Probe};
use super::stage::{CODE, DATA, Mode, SYSCALL_ENTRY, SYSCALL_VECTOR};
use std::time::Duration;

/// Time between two readings of what may go on by itself.
const BETWEEN: Duration = Duration::from_millis(2);
/// 1.0 as a single; twice that is [`TWO`].
const ONE: u64 = 0x3f80_0000;
const TWO: u64 = 0x4000_0000;
/// The selector's bits that say the ring.
const RING: u16 = 3;

/// What to run, and which result is not the host's.
pub type Case = (&'static str, fn() -> Program, fn([u64; 2]) -> bool);

/// The instructions whose result is not the guest's state alone. Two runs, a little apart, give RAX twice.
pub const CASES: [Case; 8] = [
    ("rdtsc", guests::rdtsc, same),
    ("rdtscp", guests::rdtscp, same),
    ("cpuid", guests::cpuid, |read| read == [u64::from(MARK); 2]),
    ("rdrand", guests::rdrand, same),
    ("rdseed", guests::rdseed, same),
    ("rdpmc", guests::rdpmc, same),
    // Not offered in CPUID, these are BSF and BSR; on a CPU that has them they are themselves all the same. Of RCX = 0
    // BSF and BSR leave RAX alone.
    ("tzcnt", guests::tzcnt, |read| read == [0x8000_0002; 2]),
    ("lzcnt", guests::lzcnt, |read| read == [0x8000_0002; 2]),
];

fn same(read: [u64; 2]) -> bool {
    read[0] == read[1]
}

/// What happens to an instruction of [`CASES`].
///
/// # Errors
/// Why the program did not run.
pub fn treatment(bench: &Bench, mode: Mode, case: Case) -> Probe<Treatment> {
    let (_, program, is_ours) = case;
    let mut sandbox = bench.sandbox()?;
    let mut read = [0; 2];
    for value in &mut read {
        sandbox.load(mode, program(), |regs, _| regs.rax = 0x8000_0002)?;
        match sandbox.run()? {
            Left::Done => *value = sandbox.regs()?.rax,
            Left::HandedOut => return Ok(Treatment::Intercepted),
            Left::Trapped(vector) => return Ok(Treatment::Faults(vector)),
            left => return unexpected(left),
        }
        std::thread::sleep(BETWEEN);
    }
    Ok(if is_ours(read) { Treatment::Masked } else { Treatment::Leaks })
}

/// Arithmetic of the SSE unit.
///
/// # Errors
/// Why the program did not run.
pub fn sse(bench: &Bench, mode: Mode) -> Probe<Execution> {
    let (sandbox, left) = bench.after(mode, guests::sse(), 0, ONE)?;
    judge(left, || Ok(sandbox.regs()?.rax == TWO))
}

/// Arithmetic of the x87 unit.
///
/// # Errors
/// Why the program did not run.
pub fn x87(bench: &Bench, mode: Mode) -> Probe<Execution> {
    let mut sandbox = bench.sandbox()?;
    sandbox.load(mode, guests::x87(), |regs, _| regs.rdi = DATA)?;
    let left = sandbox.run()?;
    judge(left, || Ok(sandbox.regs()?.rax == 2))
}

/// SYSCALL from ring 3: to LSTAR at ring 0, with the return address in RCX.
///
/// # Errors
/// Why the program did not run.
pub fn syscall(bench: &Bench) -> Probe<Execution> {
    let mut sandbox = bench.sandbox()?;
    sandbox.set_msrs(&SYSCALL_ENTRY)?;
    sandbox.load(Mode::LongRing3, guests::syscall(), |_, _| ())?;
    match sandbox.run()? {
        // The HLT there leaves only at ring 0; at ring 3 it faults.
        Left::Trapped(SYSCALL_VECTOR) => {
            let sregs =
                sandbox.vcpu.get_sregs().map_err(super::sandbox::refused("system registers not told"))?;
            let right = sandbox.regs()?.rcx == CODE + 2 && sregs.cs.selector & RING == 0;
            Ok(if right { Execution::Right } else { Execution::Wrong })
        }
        Left::Trapped(13) => Ok(Execution::Wrong),
        left => judge(left, || Ok(false)),
    }
}

/// INT n from ring 3 through a gate that allows it.
///
/// # Errors
/// Why the program did not run.
pub fn int_n(bench: &Bench) -> Probe<Execution> {
    let (sandbox, left) = bench.after(Mode::LongRing3, guests::int_80(), 0, 0)?;
    match left {
        Left::Trapped(0x80) => {
            let right = sandbox.trapped_at(&sandbox.regs()?, 0x80) == CODE + 2;
            Ok(if right { Execution::Right } else { Execution::Wrong })
        }
        left => judge(left, || Ok(false)),
    }
}

fn judge(left: Left, right: impl FnOnce() -> Probe<bool>) -> Probe<Execution> {
    match left {
        Left::Done if right()? => Ok(Execution::Right),
        Left::Done => Ok(Execution::Wrong),
        Left::HandedOut => Ok(Execution::HandedOut),
        Left::Trapped(vector) => Ok(Execution::Faults(vector)),
        left => unexpected(left),
    }
}
