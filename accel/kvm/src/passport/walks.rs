//! Probes of page tables: what a walk leaves in the guest's, what speculation leaves, and what the dirty log names.
//!
//! Not responsible for: how digests treat it (docs/check.md says what is at stake).

use super::facts::{DirtyLog, TableFindings};
use super::guests;
use super::host;
use super::probes::{Bench, unexpected};
use super::sandbox::{Left, Probe};
use super::stage::{CODE, DATA, LEAVES, Mode, OTHER_DATA, ROOT};

/// Accessed and dirty bits of an entry.
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
/// Rounds of the loop that runs ahead, enough for any predictor to learn the branch.
const ROUNDS: u64 = 200;
/// How often running ahead is tried.
const TRIES: u64 = 40;
/// Bits of the pages that hold long mode's tables.
const TABLES: u64 = 0xf << (ROOT / 4096);

/// All of it.
pub fn measure(bench: &Bench, modules: &[String]) -> TableFindings {
    let is = |module: &str, parameter: &str| {
        modules.iter().any(|name| name == module) && host::module_says_yes(module, parameter)
    };
    let hardware = modules.iter().any(|name| name == "kvm_intel" || name == "kvm_amd");
    let kind = match hardware {
        _ if is("kvm_intel", "ept") => "ept",
        _ if is("kvm_amd", "npt") => "npt",
        true => "shadow",
        false => "software",
    };
    let long = [Mode::LongRing0, Mode::LongRing3];
    TableFindings {
        kind: kind.into(),
        bits_exact: long.map(|mode| (mode, bits_exact(bench, mode).into())).into(),
        speculation_shows: speculation(bench).into(),
        walks_dirty: walks_dirty(bench).into(),
        outside_writes: long.map(|mode| (mode, outside_writes(bench, mode).into())).into(),
    }
}

/// Long mode's entry for a page.
fn leaf(page: u64) -> u64 {
    LEAVES + page / 4096 * 8
}

/// One load with all bits clear beforehand. Exact is: accessed on the way to the code and to the data, dirty nowhere, nothing
/// on pages that were not used. (At ring 3 the way out through a fault uses more pages; those are not judged.)
fn bits_exact(bench: &Bench, mode: Mode) -> Probe<bool> {
    let mut sandbox = bench.sandbox()?;
    sandbox.load(mode, guests::load(), |regs, _| regs.rdi = DATA)?;
    let entries: Vec<u64> =
        (0..3).map(|level| ROOT + level * 4096).chain((0..16).map(|n| leaf(n * 4096))).collect();
    for at in &entries {
        sandbox.write(*at, sandbox.read(*at) & !(ACCESSED | DIRTY));
    }
    let left = sandbox.run()?;
    if left != Left::Done {
        return unexpected(left);
    }
    let bits = |at| sandbox.read(at) & (ACCESSED | DIRTY);
    let walked = entries[..3].iter().all(|at| bits(*at) & ACCESSED != 0);
    Ok(walked && bits(leaf(CODE)) == ACCESSED && bits(leaf(DATA)) == ACCESSED && bits(leaf(OTHER_DATA)) == 0)
}

/// Whether a load on a path that is never taken leaves an accessed bit. Each try is a VM of its own, so that no translation is
/// left from the one before. Not seen is not proved.
fn speculation(bench: &Bench) -> Probe<bool> {
    for _ in 0..TRIES {
        let mut sandbox = bench.sandbox()?;
        sandbox.load(Mode::LongRing3, guests::run_ahead(), |regs, _| {
            (regs.rdi, regs.rsi, regs.rbx, regs.rbp) = (DATA, OTHER_DATA, ROUNDS, 1);
        })?;
        sandbox.write(leaf(OTHER_DATA), sandbox.read(leaf(OTHER_DATA)) & !ACCESSED);
        let left = sandbox.run()?;
        if left != Left::Done {
            return unexpected(left);
        }
        if sandbox.read(leaf(OTHER_DATA)) & ACCESSED != 0 {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether page tables count as written that a walk has only read: their accessed bits were set beforehand.
fn walks_dirty(bench: &Bench) -> Probe<bool> {
    let mut sandbox = bench.sandbox()?;
    sandbox.load(Mode::LongRing0, guests::load(), |regs, _| regs.rdi = DATA)?;
    sandbox.dirty()?;
    let left = sandbox.run()?;
    if left != Left::Done {
        return unexpected(left);
    }
    Ok(sandbox.dirty()? & TABLES != 0)
}

/// Whether a page table's entry that user space writes while the guest is out is what its next walk finds. Whoever keeps a shadow of the
/// tables learns of such a write from nobody.
///
/// # Errors
/// Why the program did not run.
pub fn outside_writes(bench: &Bench, mode: Mode) -> Probe<bool> {
    let mut sandbox = bench.sandbox()?;
    let mut read = [0; 2];
    sandbox.load(mode, guests::load(), |_, _| ())?;
    sandbox.write(DATA, 1);
    sandbox.write(OTHER_DATA, 2);
    for value in &mut read {
        sandbox.start(|regs, _| regs.rdi = DATA)?;
        let left = sandbox.run()?;
        if left != Left::Done {
            return unexpected(left);
        }
        *value = sandbox.regs()?.rax & 0xff;
        sandbox.write(leaf(DATA), sandbox.read(leaf(OTHER_DATA)));
    }
    Ok(read == [1, 2])
}

/// Two stores and a load: whether the log names two pages.
///
/// # Errors
/// Why the program did not run.
pub fn dirty_log(bench: &Bench) -> Probe<DirtyLog> {
    const STACK: u64 = 0xd000;
    let mut sandbox = bench.sandbox()?;
    sandbox.load(Mode::Real, guests::two_stores(), |regs, _| {
        (regs.rdi, regs.rsi, regs.rbx) = (DATA, STACK, OTHER_DATA);
    })?;
    sandbox.dirty()?;
    let left = sandbox.run()?;
    if left != Left::Done {
        return unexpected(left);
    }
    let written = 1 << (DATA / 4096) | 1 << (STACK / 4096);
    let named = sandbox.dirty()?;
    Ok(match named {
        _ if named == written => DirtyLog::Exact,
        _ if named & written == written => DirtyLog::More,
        _ => DirtyLog::Less,
    })
}
