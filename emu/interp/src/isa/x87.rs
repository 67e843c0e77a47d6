//! x87 instructions that compute, load, store or move on the register stack (SDM 1 5.2.1 to 5.2.5): by thunk.
//!
//! Not responsible for: what each of them computes (the host CPU knows), control instructions (`x87_control`).
//!
//! Most runs have all errors masked and their operands on the stack: then only the operands go to the host's unit
//! ([`thunk::brief`]). Everything else, stack faults and unmasked errors above all, is left to the host with the whole state.

use crate::cpu::Cpu;
use crate::fault::R;
use crate::lower::Form;
use crate::op::{HAS_MEMORY, Handler, Op};
use crate::thunk::{self, Operand, Plan, State};
use gemel_machine::CpuIo;
use gemel_x86::control::{CR0_EM, CR0_TS};
use gemel_x86::flags::{CF, PF, STATUS, ZF};
use gemel_x86::segment::CS;
use gemel_x86::{Exception, Vector};

/// Error summary in FSW: some flag is set whose error is unmasked.
pub const ES: u16 = 1 << 7;
/// Busy in FSW: a copy of [`ES`].
pub const BUSY: u16 = 1 << 15;
/// The six errors in FSW and their masks in FCW.
pub const ERRORS: u16 = 0x3f;
/// TOP in FSW.
const TOP: u16 = 7 << 11;
const C1: u16 = 1 << 9;
/// Unmasked invalid, overflow, underflow: the result is not stored to memory (SDM 1 8.5).
const UNSTORED: u16 = 1 << 0 | 1 << 3 | 1 << 4;

/// Every instruction that has a thunk on the x87 unit.
pub fn thunked(f: &Form<'_>) -> Option<Handler> {
    let fop = opcode(f.bytes)?;
    let plan = Plan::of(fop)?;
    f.thunk.set(plan.number());
    Some(match (plan.bytes(), plan.stores()) {
        (0, _) => match fop & !7 {
            // FLD ST(i), FXCH, FST ST(i), FSTP ST(i).
            0x1c0 => fld,
            0x1c8 => fxch,
            0x5d0 => fst::<false>,
            0x5d8 => fst::<true>,
            // FCMOVcc.
            0x2c0 | 0x2c8 | 0x2d0 | 0x2d8 | 0x3c0 | 0x3c8 | 0x3d0 | 0x3d8 => fcmov,
            _ => on_registers,
        },
        (_, false) => with_load,
        (_, true) => with_store,
    })
}

/// FOP: the low three bits of the escape byte, and ModRM.
pub fn opcode(bytes: &[u8]) -> Option<u16> {
    // Prefixes end where an escape byte stands. None of them looks like one.
    let at = bytes.iter().position(|b| b & 0xf8 == 0xd8)?;
    Some(u16::from(bytes[at] & 7) << 8 | u16::from(*bytes.get(at + 1)?))
}

/// #NM before any x87 instruction (SDM 3A 2.5, table 9-3).
#[inline(always)]
pub fn available(c: &mut Cpu) -> R {
    if c.s.cr0 & (CR0_EM | CR0_TS) == 0 { Ok(()) } else { c.fail(Exception::new(Vector::DeviceNotAvailable)) }
}

/// #MF when an unmasked error waits (SDM 1 8.7). With CR0.NE clear it goes outside instead (`float_error`).
#[inline(always)]
pub fn no_pending_error(c: &mut Cpu) -> R {
    if waiting_errors(c) == 0 || c.float_errors_ignored {
        Ok(())
    } else {
        c.fail(Exception::new(Vector::X87))
    }
}

/// Unmasked error flags. They say more than the summary bit, which a state that comes from elsewhere may have wrong: the host's unit
/// would trap on them.
#[inline(always)]
pub fn waiting_errors(c: &Cpu) -> u16 {
    c.s.fsw & !c.s.fcw & ERRORS
}

/// Whether an instruction that only moves registers needs no more than looks at tags: the unit is there and no error waits.
#[inline(always)]
fn is_plain(c: &Cpu) -> bool {
    c.s.cr0 & (CR0_EM | CR0_TS) == 0 && waiting_errors(c) == 0
}

#[inline(always)]
fn top(c: &Cpu) -> usize {
    usize::from(c.s.fsw >> 11 & 7)
}

/// Whether ST(i) is not empty.
#[inline(always)]
fn full(c: &Cpu, i: usize) -> bool {
    c.s.ftw >> ((top(c) + i) & 7) & 1 != 0
}

#[inline(always)]
fn set_top(c: &mut Cpu, top: usize) {
    c.s.fsw = c.s.fsw & !TOP | ((top & 7) as u16) << 11;
}

#[inline(always)]
fn push(c: &mut Cpu) {
    let new = (top(c) + 7) & 7;
    set_top(c, new);
    c.s.ftw |= 1 << new;
}

#[inline(always)]
fn pop(c: &mut Cpu) {
    let old = top(c);
    c.s.ftw &= !(1 << old);
    set_top(c, old + 1);
}

/// Last-instruction pointers. AMD's rule: every instruction that is no control instruction sets FOP and FIP, those with a
/// memory operand FDP too (APM 1 6.2.5); selectors are zero in 64-bit mode.
#[inline(always)]
fn note(c: &mut Cpu, op: &Op, fop: u16) {
    let legacy = !c.is_64();
    c.s.fop = fop;
    c.s.fip = c.rip_of(op);
    c.s.fcs = if legacy { c.s.seg[CS].selector } else { 0 };
    if op.has(HAS_MEMORY) {
        c.s.fdp = c.ea(op);
        c.s.fds = if legacy && op.seg < 6 { c.s.seg[op.seg as usize].selector } else { 0 };
    }
}

fn on_registers(c: &mut Cpu, op: &Op, _io: &mut dyn CpuIo) -> R {
    available(c)?;
    no_pending_error(c)?;
    let plan = Plan::at(op.thunk);
    note(c, op, plan.fop());
    run(c, plan, &mut Operand::default());
    Ok(())
}

fn with_load(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    available(c)?;
    no_pending_error(c)?;
    let plan = Plan::at(op.thunk);
    let mut operand = Operand(match plan.bytes() {
        2 => c.load::<u16>(op, io)?.into(),
        4 => c.load::<u32>(op, io)?.into(),
        8 => c.load::<u64>(op, io)?.into(),
        // Two accesses, of which the second is wrapped to the address size by itself.
        _ => u128::from(c.load::<u64>(op, io)?) | u128::from(c.load::<u16>(&ninth_byte(op), io)?) << 64,
    });
    note(c, op, plan.fop());
    run(c, plan, &mut operand);
    Ok(())
}

fn with_store(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    available(c)?;
    no_pending_error(c)?;
    let plan = Plan::at(op.thunk);
    let n = plan.bytes();
    // Once the unit has run the store must not fault any more.
    c.probe(op, 0, n.min(8), true)?;
    if n > 8 {
        c.probe(op, 8, 2, true)?;
    }
    note(c, op, plan.fop());
    let mut operand = Operand::default();
    let ignored = waiting_errors(c);
    run(c, plan, &mut operand);
    if waiting_errors(c) & !ignored & UNSTORED != 0 {
        return Ok(());
    }
    match n {
        2 => c.store(op, operand.0 as u16, io),
        4 => c.store(op, operand.0 as u32, io),
        _ => {
            c.store(op, operand.0 as u64, io)?;
            if n == 8 { Ok(()) } else { c.store(&ninth_byte(op), (operand.0 >> 64) as u16, io) }
        }
    }
}

/// Where the sign and exponent of a memory operand of 80 bits are.
fn ninth_byte(op: &Op) -> Op {
    Op { disp: op.disp.wrapping_add(8), ..*op }
}

#[inline(always)]
fn run(c: &mut Cpu, plan: Plan, operand: &mut Operand) {
    if run_brief(c, plan, operand).is_none() {
        run_whole(c, plan, operand);
    }
}

/// Runs with the operands alone, or does nothing and returns `None` when that would not be exact.
#[inline(always)]
fn run_brief(c: &mut Cpu, plan: Plan, operand: &mut Operand) -> Option<()> {
    let (mut before, mut after) = plan.depths()?;
    let t = top(c);
    let i = plan.second();
    let mut thunk = plan.on_st1();
    if before != 2 || i == 0 {
        thunk = plan.thunk();
    }
    if before == 2 && i == 0 {
        // One register twice, as in FMUL ST, ST(0). Popping it as well is left to the host.
        (before, after) = if after == 2 { (1, 1) } else { return None };
    }
    let there = match before {
        0 => true,
        1 => full(c, 0),
        _ => full(c, 0) && full(c, i),
    };
    if !there || after > before && full(c, 7) || c.s.fcw & ERRORS != ERRORS {
        return None;
    }
    let slots = match (before, after) {
        (0, _) => (t + 7, t),
        (1, 2) => (t + 7, t),
        _ => (t, t + i),
    };
    let words = (c.s.fcw, c.s.fsw & ERRORS);
    let (status, flags) = thunk::brief(thunk, (before, after), words, &mut c.s.st, slots, operand)?;
    let codes = plan.condition_codes();
    c.s.fsw = c.s.fsw & !codes | status & (codes | ERRORS);
    if after > before {
        push(c);
    } else {
        (after..before).for_each(|_| pop(c));
    }
    if plan.integer_flags() {
        c.flags.update(STATUS, flags);
    }
    Some(())
}

#[cold]
#[inline(never)]
fn run_whole(c: &mut Cpu, plan: Plan, operand: &mut Operand) {
    let rflags = c.flags.bits();
    // The host's unit would trap on errors that are ignored here.
    let ignored = waiting_errors(c);
    let summary = if ignored != 0 { ES | BUSY } else { 0 };
    let fsw = c.s.fsw & !(ignored | summary);
    let mut state = State { fcw: c.s.fcw, fsw, ftw: c.s.ftw, st: &mut c.s.st };
    let after = thunk::whole(plan.thunk(), &mut state, operand, rflags);
    (c.s.fsw, c.s.ftw) = (state.fsw | ignored | summary, state.ftw);
    if plan.integer_flags() {
        c.flags.update(STATUS, after);
    }
}

/// FLD ST(i).
fn fld(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    let i = (op.thunk & 7) as usize;
    if !is_plain(c) || !full(c, i) || full(c, 7) {
        return on_registers(c, op, io);
    }
    note(c, op, Plan::at(op.thunk).fop());
    let t = top(c);
    c.s.st[(t + 7) & 7] = c.s.st[(t + i) & 7];
    c.s.fsw &= !C1;
    push(c);
    Ok(())
}

/// FXCH.
fn fxch(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    let i = (op.thunk & 7) as usize;
    if !is_plain(c) || !full(c, i) || !full(c, 0) {
        return on_registers(c, op, io);
    }
    note(c, op, Plan::at(op.thunk).fop());
    c.s.fsw &= !C1;
    let t = top(c);
    c.s.st.swap(t, (t + i) & 7);
    Ok(())
}

/// FST ST(i), FSTP ST(i).
fn fst<const POPS: bool>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    let i = (op.thunk & 7) as usize;
    if !is_plain(c) || !full(c, 0) {
        return on_registers(c, op, io);
    }
    note(c, op, Plan::at(op.thunk).fop());
    c.s.fsw &= !C1;
    let (t, to) = (top(c), (top(c) + i) & 7);
    c.s.st[to] = c.s.st[t];
    c.s.ftw |= 1 << to;
    if POPS {
        pop(c);
    }
    Ok(())
}

/// FCMOVcc.
fn fcmov(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    let i = (op.thunk & 7) as usize;
    if !is_plain(c) || !full(c, 0) || !full(c, i) {
        return on_registers(c, op, io);
    }
    let fop = Plan::at(op.thunk).fop();
    note(c, op, fop);
    // B, E, BE, U by two bits of ModRM; the escape byte DB inverts.
    let asked = [CF, ZF, CF | ZF, PF][usize::from(fop >> 3 & 3)];
    if (c.flags.bits() & asked != 0) != (fop & 0x100 != 0) {
        let t = top(c);
        c.s.st[t] = c.s.st[(t + i) & 7];
    }
    Ok(())
}
