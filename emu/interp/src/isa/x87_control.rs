//! x87 control instructions (SDM 1 5.2.6): control word, status word, environment, whole state, WAIT.
//!
//! Not responsible for: FXSAVE and XSAVE (`state_management`).

use super::x87::{BUSY, ERRORS, ES, available, no_pending_error};
use crate::cpu::{Cpu, Width};
use crate::fault::R;
use crate::lower::Form;
use crate::op::{Handler, Op};
use gemel_machine::CpuIo;
use gemel_x86::control::{CR0_MP, CR0_TS};
use gemel_x86::{CpuState, Exception, Vector};
use iced_x86::{Code, Mnemonic};

/// FCW bits that can be written; bit 6 reads as one.
const FCW_WRITABLE: u16 = 0x1f3f;
const FCW_FIXED: u16 = 0x40;

/// FNINIT, FNCLEX, FLDCW, FNSTCW, FNSTSW, FLDENV, FNSTENV, FRSTOR, FNSAVE, WAIT, and what the 8087 and 287 had beside them.
/// FSTCW and its kin are two instructions, WAIT being the first.
pub fn control(f: &Form<'_>) -> Option<Handler> {
    use Mnemonic::*;
    Some(match f.mnemonic {
        Fninit => fninit,
        Fnclex => fnclex,
        Fldcw => fldcw,
        Fnstcw => fnstcw,
        Fnstsw if f.code == Code::Fnstsw_AX => fnstsw_ax,
        Fnstsw => fnstsw,
        Fldenv => fldenv,
        Fnstenv => fnstenv,
        Frstor => frstor,
        Fnsave => fnsave,
        Wait => wait,
        // Interrupt enable of the 8087, protected mode of the 287: nothing since the 387.
        Fneni | Fndisi | Fnsetpm => nothing,
        _ => return None,
    })
}

fn wait(c: &mut Cpu, _op: &Op, _io: &mut dyn CpuIo) -> R {
    if c.s.cr0 & CR0_MP != 0 && c.s.cr0 & CR0_TS != 0 {
        return c.fail(Exception::new(Vector::DeviceNotAvailable));
    }
    no_pending_error(c)
}

fn nothing(c: &mut Cpu, _op: &Op, _io: &mut dyn CpuIo) -> R {
    available(c)
}

/// What FNINIT sets.
pub fn initialise(s: &mut CpuState) {
    (s.fcw, s.fsw, s.ftw) = (0x37f, 0, 0);
    (s.fop, s.fip, s.fcs, s.fdp, s.fds) = (0, 0, 0, 0, 0);
}

/// Sets the control word and recomputes from it whether an error waits.
pub fn set_control(s: &mut CpuState, fcw: u16) {
    s.fcw = fcw & FCW_WRITABLE | FCW_FIXED;
    s.fsw &= !(ES | BUSY);
    if s.fsw & !s.fcw & ERRORS != 0 {
        s.fsw |= ES | BUSY;
    }
}

fn fninit(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    available(c)?;
    initialise(&mut c.s);
    c.float_error_settled(op, io);
    Ok(())
}

fn fnclex(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    available(c)?;
    // Error flags, stack fault, summary, busy.
    c.s.fsw &= !0x80ff;
    c.float_error_settled(op, io);
    Ok(())
}

fn fldcw(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    available(c)?;
    no_pending_error(c)?;
    let fcw = c.load::<u16>(op, io)?;
    set_control(&mut c.s, fcw);
    c.float_error_settled(op, io);
    Ok(())
}

fn fnstcw(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    available(c)?;
    c.store(op, c.s.fcw, io)
}

fn fnstsw(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    available(c)?;
    c.store(op, c.s.fsw, io)
}

fn fnstsw_ax(c: &mut Cpu, _op: &Op, _io: &mut dyn CpuIo) -> R {
    available(c)?;
    c.s.fsw.put(&mut c.regs, 0);
    Ok(())
}

/// Whether the operand has the 32-bit layout; the 16-bit one is half as long.
fn is_wide(op: &Op) -> bool {
    let code = op.code;
    ![Code::Fldenv_m14byte, Code::Fnstenv_m14byte, Code::Frstor_m94byte, Code::Fnsave_m94byte]
        .iter()
        .any(|c| *c as u16 == code)
}

/// Whether pointers are linear addresses (real and virtual-8086 mode) and not selector and offset.
fn is_real(c: &Cpu) -> bool {
    c.real() || c.v86()
}

/// The two-bit tag of each register: valid, zero, special, empty (SDM 1 8.1.7).
fn full_tags(s: &CpuState) -> u16 {
    (0..8).fold(0, |tags, i| {
        let (exponent, mantissa) = (s.st[i] >> 64 & 0x7fff, s.st[i] as u64);
        let tag = if s.ftw & 1 << i == 0 {
            3
        } else if exponent == 0 && mantissa == 0 {
            1
        } else if exponent == 0 || exponent == 0x7fff || mantissa >> 63 == 0 {
            2
        } else {
            0
        };
        tags | tag << (2 * i)
    })
}

/// The environment: 28 or 14 bytes (SDM 1 figures 8-9 to 8-12).
fn environment(c: &Cpu, wide: bool) -> ([u8; 28], usize) {
    let s = &c.s;
    let (fip, fdp, fop) = (s.fip as u32, s.fdp as u32, u32::from(s.fop));
    let tags = u32::from(full_tags(s));
    let mut out = [0; 28];
    if wide {
        // Reserved halves read as ones.
        let high = 0xffff_0000;
        let pointers = if is_real(c) {
            let (ip, dp) = (fip.wrapping_add(u32::from(s.fcs) << 4), fdp.wrapping_add(u32::from(s.fds) << 4));
            [
                high | ip & 0xffff,
                ip >> 16 << 12 & 0x0fff_f000 | fop,
                high | dp & 0xffff,
                dp >> 16 << 12 & 0x0fff_f000,
            ]
        } else {
            [fip, fop << 16 | u32::from(s.fcs), fdp, high | u32::from(s.fds)]
        };
        let words = [high | u32::from(s.fcw), high | u32::from(s.fsw), high | tags];
        for (slot, word) in out.chunks_exact_mut(4).zip(words.into_iter().chain(pointers)) {
            slot.copy_from_slice(&word.to_le_bytes());
        }
        (out, 28)
    } else {
        let pointers = if is_real(c) {
            let (ip, dp) = (fip.wrapping_add(u32::from(s.fcs) << 4), fdp.wrapping_add(u32::from(s.fds) << 4));
            [ip, ip >> 16 << 12 | fop, dp, dp >> 16 << 12]
        } else {
            [fip, u32::from(s.fcs), fdp, u32::from(s.fds)]
        };
        let words = [u32::from(s.fcw), u32::from(s.fsw), tags];
        for (slot, word) in out.chunks_exact_mut(2).zip(words.into_iter().chain(pointers)) {
            slot.copy_from_slice(&(word as u16).to_le_bytes());
        }
        (out, 14)
    }
}

/// Takes an environment on.
fn set_environment(c: &mut Cpu, bytes: &[u8], wide: bool) {
    let real = is_real(c);
    let half = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
    let step = if wide { 4 } else { 2 };
    let word = |n: usize| half(n * step);
    let s = &mut c.s;
    s.fsw = word(1);
    let tags = word(2);
    s.ftw = (0..8).fold(0, |all, i| all | u8::from(tags >> (2 * i) & 3 != 3) << i);
    if real {
        // Linear addresses: 16 low bits, and 16 or 4 high ones beside the opcode.
        let high = |at: usize| {
            let low_half = u64::from(half(at));
            if wide { (low_half >> 12 | u64::from(half(at + 2)) << 4) & 0xffff } else { low_half >> 12 }
        };
        s.fip = u64::from(word(3)) | high(4 * step) << 16;
        s.fdp = u64::from(word(5)) | high(6 * step) << 16;
        s.fop = word(4) & 0x7ff;
        (s.fcs, s.fds) = (0, 0);
    } else if wide {
        s.fip = u64::from(half(12)) | u64::from(half(14)) << 16;
        s.fdp = u64::from(half(20)) | u64::from(half(22)) << 16;
        (s.fcs, s.fop, s.fds) = (half(16), half(18) & 0x7ff, half(24));
    } else {
        // There is no opcode in this layout.
        (s.fip, s.fcs, s.fdp, s.fds, s.fop) = (word(3).into(), word(4), word(5).into(), word(6), 0);
    }
    set_control(s, word(0));
}

/// The linear address of an environment or state of `bytes` bytes. Silicon reaches for its first field, then for its last byte,
/// and then for the rest.
fn area(c: &mut Cpu, op: &Op, wide: bool, bytes: u64, write: bool) -> R<u64> {
    c.probe(op, 0, if wide { 4 } else { 2 }, write)?;
    c.probe(op, bytes - 1, 1, write)?;
    c.linear(op, bytes, write)
}

fn fnstenv(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    available(c)?;
    let wide = is_wide(op);
    let (bytes, n) = environment(c, wide);
    let lin = area(c, op, wide, n as u64, true)?;
    c.write_bytes(lin, op.seg, &bytes[..n], io)?;
    // All errors are masked afterwards (SDM 2A FSTENV).
    let fcw = c.s.fcw | ERRORS;
    set_control(&mut c.s, fcw);
    c.float_error_settled(op, io);
    Ok(())
}

fn fldenv(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    available(c)?;
    no_pending_error(c)?;
    let wide = is_wide(op);
    let n = if wide { 28 } else { 14 };
    let mut bytes = [0; 28];
    let lin = area(c, op, wide, n as u64, false)?;
    c.read_bytes(lin, op.seg, &mut bytes[..n], io)?;
    set_environment(c, &bytes, wide);
    c.float_error_settled(op, io);
    Ok(())
}

fn fnsave(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    available(c)?;
    let wide = is_wide(op);
    let (head, n) = environment(c, wide);
    let mut bytes = [0; 108];
    bytes[..n].copy_from_slice(&head[..n]);
    let top = usize::from(c.s.fsw >> 11 & 7);
    for (i, slot) in bytes[n..n + 80].chunks_exact_mut(10).enumerate() {
        slot.copy_from_slice(&c.s.st[(top + i) & 7].to_le_bytes()[..10]);
    }
    let lin = area(c, op, wide, n as u64 + 80, true)?;
    c.write_bytes(lin, op.seg, &bytes[..n + 80], io)?;
    initialise(&mut c.s);
    c.float_error_settled(op, io);
    Ok(())
}

fn frstor(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    available(c)?;
    no_pending_error(c)?;
    let wide = is_wide(op);
    let n = if wide { 28 } else { 14 };
    let mut bytes = [0; 108];
    let lin = area(c, op, wide, n as u64 + 80, false)?;
    c.read_bytes(lin, op.seg, &mut bytes[..n + 80], io)?;
    set_environment(c, &bytes[..28], wide);
    let top = usize::from(c.s.fsw >> 11 & 7);
    for (i, slot) in bytes[n..n + 80].chunks_exact(10).enumerate() {
        let mut value = [0; 16];
        value[..10].copy_from_slice(slot);
        c.s.st[(top + i) & 7] = u128::from_le_bytes(value);
    }
    c.float_error_settled(op, io);
    Ok(())
}
