//! String instructions (SDM 1 5.1.8) and their repetition.
//!
//! Not responsible for: INS and OUTS (`io`, which uses the repetition here).
//!
//! Every iteration counts as one instruction, and a repetition can be left between any two: at the machine's stop,
//! when an access wants attention, or on a fault. RIP then still is the instruction's, and RCX says how much is left.

use crate::cpu::{Cpu, SEGS, Width};
use crate::fault::R;
use crate::lower::Form;
use crate::mmu::access::Mem;
use crate::op::{CHECK_SEGMENT, Handler, Op, REP, REPNE};
use gemel_machine::CpuIo;
use gemel_x86::flags::{DF, RF};
use gemel_x86::segment::ES;

/// Fewer iterations than this are not worth the bulk path.
const BULK_FROM: u64 = 4;

/// Adds to RSI or RDI under the address size: 16-bit pointers keep the upper bits, 32-bit ones clear them.
#[inline(always)]
fn step_pointer(c: &mut Cpu, r: usize, mask: u64, by: u64) {
    let new = c.regs[r].wrapping_add(by);
    c.regs[r] = if mask == 0xffff { c.regs[r] & !0xffff | new & 0xffff } else { new & mask };
}

/// Moves RSI and RDI past one element, as DF says.
#[inline(always)]
pub(super) fn advance<W: Width>(c: &mut Cpu, op: &Op, si: bool, di: bool) {
    let by = if c.system_flags & DF != 0 { (W::BYTES as u64).wrapping_neg() } else { W::BYTES as u64 };
    if si {
        step_pointer(c, 6, op.address_mask, by);
    }
    if di {
        step_pointer(c, 7, op.address_mask, by);
    }
}

fn put_count(c: &mut Cpu, mask: u64, value: u64) {
    c.regs[1] = if mask == 0xffff { c.regs[1] & !0xffff | value } else { value };
}

/// Runs one iteration, or as many as RCX says. `step` returns whether the condition lets it go on.
#[inline(always)]
pub(super) fn repeat(
    c: &mut Cpu,
    op: &Op,
    io: &mut dyn CpuIo,
    mut step: impl FnMut(&mut Cpu, &mut dyn CpuIo) -> R<bool>,
) -> R {
    if !op.has(REP | REPNE) {
        return step(c, io).map(drop);
    }
    let mask = op.address_mask;
    if c.regs[1] & mask == 0 {
        // ECX is not written then: the upper half of RCX stays.
        return Ok(());
    }
    loop {
        let again = step(c, io)?;
        let left = (c.regs[1] & mask) - 1;
        put_count(c, mask, left);
        if left == 0 || !again {
            return Ok(());
        }
        if !may_go_on(c) {
            come_back(c, op);
            return Ok(());
        }
        c.count += 1;
    }
}

/// Leaves an instruction that is not done: it goes on where it was. What interrupts it pushes RF set, so that a breakpoint on
/// it does not hit again (SDM 3B 17.3.1.1); but a single step's trap pushes RF as it was before, as on Zen 4.
pub(crate) fn come_back(c: &mut Cpu, op: &Op) {
    c.rip = c.rip_of(op);
    if c.resumed || !c.single_steps() {
        c.system_flags |= RF;
    }
}

/// Whether something waits for the boundary between two iterations: an access that wants attention, a trap or an interrupt that an
/// STI or MOV SS before this instruction held back until now, single step.
#[inline(always)]
fn boundary_wanted(c: &Cpu) -> bool {
    c.limit == 0
        || c.debug_traps != 0
        || c.single_steps()
        || c.attention.interrupt && c.interrupts_on()
        || c.attention.nmi && !c.s.nmi_blocked
}

/// Whether another iteration may start: nothing waits for the boundary, and the stop is not reached.
#[inline(always)]
fn may_go_on(c: &Cpu) -> bool {
    !boundary_wanted(c) && c.count + u64::from(c.nth) + 1 < c.attention.stop
}

/// The linear address that RDI points to; always ES.
#[inline(always)]
fn destination<W: Width>(c: &mut Cpu, op: &Op, write: bool) -> R<u64> {
    let offset = c.regs[7] & op.address_mask;
    if op.has(CHECK_SEGMENT) || !c.mode.flat {
        c.checked_linear(ES as u8, offset, W::BYTES as u64, write)
    } else {
        Ok(offset)
    }
}

/// How many iterations a bulk step may make now: what RCX and the stop allow.
fn bulk_limit(c: &Cpu, op: &Op) -> u64 {
    let plain = op.has(REP | REPNE) && c.system_flags & DF == 0 && op.address_mask == u64::MAX;
    if !plain || boundary_wanted(c) {
        return 0;
    }
    c.regs[1].min((c.attention.stop - c.count).saturating_sub(u64::from(c.nth)))
}

/// Does the bookkeeping of `n` iterations made at once.
fn account(c: &mut Cpu, n: u64) {
    c.regs[1] -= n;
    c.count += n;
}

/// As many iterations of MOVS at once as stay in one page each way; the last one, at least, is left.
#[inline(always)]
fn movs_bulk<W: Width>(c: &mut Cpu, op: &Op) {
    let most = bulk_limit(c, op).saturating_sub(1);
    if most < BULK_FROM {
        return;
    }
    let (to, from) = (c.regs[7], c.regs[6].wrapping_add(c.seg_base[op.seg as usize % SEGS]));
    let n = c.bulk_copy(to, from, most, W::BYTES as u64);
    c.regs[6] = c.regs[6].wrapping_add(n * W::BYTES as u64);
    c.regs[7] = c.regs[7].wrapping_add(n * W::BYTES as u64);
    account(c, n);
}

fn movs_any<W: Width + Mem>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    repeat(c, op, io, |c, io| {
        movs_bulk::<W>(c, op);
        let value = c.load::<W>(op, io)?;
        let lin = destination::<W>(c, op, true)?;
        c.write(lin, ES as u8, value, io)?;
        advance::<W>(c, op, true, true);
        Ok(true)
    })
}

fn stos_bulk<W: Width + Mem>(c: &mut Cpu, op: &Op, value: W) {
    let most = bulk_limit(c, op).saturating_sub(1);
    if most < BULK_FROM {
        return;
    }
    let n = c.bulk_fill(c.regs[7], value, most);
    c.regs[7] = c.regs[7].wrapping_add(n * W::BYTES as u64);
    account(c, n);
}

fn stos_any<W: Width + Mem>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    let value = W::get(&c.regs, 0);
    repeat(c, op, io, |c, io| {
        stos_bulk(c, op, value);
        let lin = destination::<W>(c, op, true)?;
        c.write(lin, ES as u8, value, io)?;
        advance::<W>(c, op, false, true);
        Ok(true)
    })
}

fn lods_any<W: Width + Mem>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    repeat(c, op, io, |c, io| {
        c.load::<W>(op, io)?.put(&mut c.regs, 0);
        advance::<W>(c, op, true, false);
        Ok(true)
    })
}

/// Whether REPE or REPNE goes on after a comparison.
#[inline(always)]
fn goes_on(c: &Cpu, op: &Op) -> bool {
    c.flags.zf() != op.has(REPNE)
}

fn load_destination<W: Width + Mem>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R<W> {
    let lin = destination::<W>(c, op, false)?;
    c.read::<W>(lin, ES as u8, io)
}

fn cmps_any<W: Width + Mem>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    repeat(c, op, io, |c, io| {
        // Zen 4 reads the second operand first, as faults of both show; REPE CMPSB alone has it the other way round.
        let (a, b);
        if W::BITS == 8 && op.has(REP) {
            a = c.load::<W>(op, io)?;
            b = load_destination::<W>(c, op, io)?;
        } else {
            b = load_destination::<W>(c, op, io)?;
            a = c.load::<W>(op, io)?;
        }
        c.flags.sub(a, b, W::cut(a.zext().wrapping_sub(b.zext())));
        advance::<W>(c, op, true, true);
        Ok(goes_on(c, op))
    })
}

fn scas_any<W: Width + Mem>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    repeat(c, op, io, |c, io| {
        let b = load_destination::<W>(c, op, io)?;
        let a = W::get(&c.regs, 0);
        c.flags.sub(a, b, W::cut(a.zext().wrapping_sub(b.zext())));
        advance::<W>(c, op, false, true);
        Ok(goes_on(c, op))
    })
}

macro_rules! string_binder {
    ($(#[$doc:meta])* $name:ident, $handler:ident) => {
        $(#[$doc])*
        pub fn $name(f: &Form<'_>) -> Option<Handler> {
            Some(match f.instruction.memory_size().size() {
                1 => $handler::<u8> as Handler,
                2 => $handler::<u16>,
                4 => $handler::<u32>,
                _ => $handler::<u64>,
            })
        }
    };
}
string_binder!(
    /// LODSB to LODSQ.
    lods,
    lods_any
);
string_binder!(
    /// SCASB to SCASQ.
    scas,
    scas_any
);
string_binder!(
    /// STOSB to STOSQ.
    stos,
    stos_any
);
string_binder!(
    /// MOVS proper.
    string_movs,
    movs_any
);
string_binder!(
    /// CMPS proper.
    string_cmps,
    cmps_any
);

/// MOVSB to MOVSQ. MOVSD is also an SSE2 mnemonic: that form has no string operand.
pub fn movs(f: &Form<'_>) -> Option<Handler> {
    if f.instruction.is_string_instruction() { string_movs(f) } else { super::simd_transfer::movsd(f) }
}

/// CMPSB to CMPSQ; CMPSD as MOVSD.
pub fn cmps(f: &Form<'_>) -> Option<Handler> {
    if f.instruction.is_string_instruction() { string_cmps(f) } else { super::simd::thunked(f) }
}
