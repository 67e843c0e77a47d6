//! State management (SDM 1 5.5.3, 5.10, chapters 10.5 and 13): FXSAVE, FXRSTOR, the XSAVE family, LDMXCSR, STMXCSR.
//!
//! Not responsible for: FNSAVE and its kin (`x87_control`), XCR0 (`system`).
//!
//! Vendor rule of the models, AMD: FOP, FIP, FDP come from memory always, and go to it only while an unmasked x87 error waits;
//! otherwise zeroes do (APM 2 11.4.4, CPUID Fn8000_0008_EBX\[2\] set). Zen 4 keeps 57 bits of the pointers.

use super::extended_state::{self, COMPONENTS, area_bytes};
use super::simd::ready;
use super::x87::{ES, available};
use super::x87_control::{initialise, set_control};
use crate::cpu::{Cpu, SEGS};
use crate::fault::R;
use crate::lower::Form;
use crate::op::{Handler, Op};
use crate::thunk::MXCSR_BITS;
use gemel_machine::CpuIo;
use gemel_x86::control::{
    CR0_TS, CR4_OSFXSR, CR4_OSXSAVE, XCR0_AVX as AVX, XCR0_SSE as SSE, XCR0_X87 as X87,
};
use gemel_x86::{Exception, Vector};
use iced_x86::{Code, Mnemonic};

/// FXSAVE, FXSAVE64, FXRSTOR, FXRSTOR64.
pub fn fxsave(f: &Form<'_>) -> Option<Handler> {
    Some(match f.code {
        Code::Fxsave_m512byte => fx_save::<false>,
        Code::Fxsave64_m512byte => fx_save::<true>,
        Code::Fxrstor_m512byte => fx_restore::<false>,
        Code::Fxrstor64_m512byte => fx_restore::<true>,
        _ => return None,
    })
}

/// XSAVE, XSAVE64, XRSTOR, XRSTOR64.
pub fn xsave(f: &Form<'_>) -> Option<Handler> {
    Some(match f.code {
        Code::Xsave_mem => x_save::<false>,
        Code::Xsave64_mem => x_save::<true>,
        Code::Xrstor_mem => x_restore::<false>,
        Code::Xrstor64_mem => x_restore::<true>,
        _ => return None,
    })
}

/// LDMXCSR, STMXCSR.
pub fn mxcsr(f: &Form<'_>) -> Option<Handler> {
    Some(if f.mnemonic == Mnemonic::Ldmxcsr { ldmxcsr } else { stmxcsr })
}

fn ldmxcsr(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    ready(c)?;
    load_mxcsr(c, op, io)
}

/// Loads MXCSR from the memory operand, whatever the encoding.
pub(super) fn load_mxcsr(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    let value = c.load::<u32>(op, io)?;
    if value & !MXCSR_BITS != 0 {
        return c.general_protection(0);
    }
    c.s.mxcsr = value;
    Ok(())
}

fn stmxcsr(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    ready(c)?;
    c.store(op, c.s.mxcsr, io)
}

/// XMM registers that this mode can name.
fn xmm_count(c: &Cpu) -> usize {
    if c.is_64() { 16 } else { 8 }
}

/// The x87 part of the legacy area, bytes 0 to 23 and 32 to 159. `wide` pointers have 64 bits and no selectors.
fn x87_area(c: &Cpu, wide: bool) -> [u8; 160] {
    let s = &c.s;
    let mut out = [0; 160];
    out[0..2].copy_from_slice(&s.fcw.to_le_bytes());
    out[2..4].copy_from_slice(&s.fsw.to_le_bytes());
    out[4] = s.ftw;
    if s.fsw & ES != 0 {
        out[6..8].copy_from_slice(&s.fop.to_le_bytes());
        out[8..16].copy_from_slice(&s.fip.to_le_bytes());
        out[16..24].copy_from_slice(&s.fdp.to_le_bytes());
        if !wide {
            out[12..16].copy_from_slice(&u32::from(s.fcs).to_le_bytes());
            out[20..24].copy_from_slice(&u32::from(s.fds).to_le_bytes());
        }
    }
    let top = usize::from(s.fsw >> 11 & 7);
    for (i, slot) in out[32..160].chunks_exact_mut(16).enumerate() {
        let value = s.st[(top + i) & 7] & ((1 << 80) - 1);
        slot.copy_from_slice(&value.to_le_bytes());
    }
    out
}

/// Takes the x87 part on.
fn set_x87(c: &mut Cpu, area: &[u8; 512], wide: bool) {
    let half = |at: usize| u16::from_le_bytes([area[at], area[at + 1]]);
    let quad = |at: usize| {
        u64::from(half(at))
            | u64::from(half(at + 2)) << 16
            | u64::from(half(at + 4)) << 32
            | u64::from(half(at + 6)) << 48
    };
    let s = &mut c.s;
    s.fsw = half(2);
    s.ftw = area[4];
    set_control(s, half(0));
    s.fop = half(6) & 0x7ff;
    let pointer = |at| if wide { ((quad(at) << 7) as i64 >> 7) as u64 } else { quad(at) & 0xffff_ffff };
    (s.fip, s.fdp) = (pointer(8), pointer(16));
    (s.fcs, s.fds) = if wide { (0, 0) } else { (half(12), half(20)) };
    let top = usize::from(s.fsw >> 11 & 7);
    for (i, slot) in area[32..160].chunks_exact(16).enumerate() {
        let mut value = [0; 16];
        value[..10].copy_from_slice(&slot[..10]);
        s.st[(top + i) & 7] = u128::from_le_bytes(value);
    }
}

fn set_registers(registers: &mut [u128], bytes: &[u8]) {
    for (register, slot) in registers.iter_mut().zip(bytes.chunks_exact(16)) {
        let mut value = [0; 16];
        value.copy_from_slice(slot);
        *register = u128::from_le_bytes(value);
    }
}

fn mxcsr_of(area: &[u8; 512]) -> u32 {
    u32::from_le_bytes([area[24], area[25], area[26], area[27]])
}

/// Stores the x87 part.
fn store_x87(c: &mut Cpu, op: &Op, lin: u64, wide: bool, io: &mut dyn CpuIo) -> R {
    let area = x87_area(c, wide);
    c.write_bytes(lin, op.seg, &area[..24], io)?;
    c.write_bytes(lin + 32, op.seg, &area[32..], io)
}

fn store_mxcsr(c: &mut Cpu, op: &Op, lin: u64, io: &mut dyn CpuIo) -> R {
    let both = u64::from(c.s.mxcsr) | u64::from(MXCSR_BITS) << 32;
    c.write(lin + 24, op.seg, both, io)
}

fn store_xmm(c: &mut Cpu, op: &Op, lin: u64, io: &mut dyn CpuIo) -> R {
    for i in 0..xmm_count(c) {
        c.write(lin + 160 + 16 * i as u64, op.seg, c.s.xmm[i], io)?;
    }
    Ok(())
}

/// The linear address of FXSAVE's area: `bytes` long, aligned to 16. Silicon looks at where its first four bytes are, at its
/// alignment, at its last byte, and then at the rest.
fn area(c: &mut Cpu, op: &Op, bytes: u64, write: bool) -> R<u64> {
    // That the segment may not be written comes later.
    let lin = c.linear(op, 4, false)?;
    c.check_range(lin, 4, op.seg)?;
    if lin & 15 != 0 {
        // Areas at a multiple of four are misaligned, but not for alignment checking.
        if c.checks_alignment() && lin & 3 != 0 {
            return c.fail(Exception::with_error(Vector::Alignment, 0));
        }
        return c.general_protection(0);
    }
    c.probe(op, bytes - 1, 1, write)?;
    c.linear(op, bytes, write)
}

fn fx_save<const WIDE: bool>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    available(c)?;
    let lin = area(c, op, 512, true)?;
    // Nothing is stored unless all of it can be.
    c.check_write(lin, 512, op.seg, io)?;
    store_x87(c, op, lin, WIDE, io)?;
    if c.s.cr4 & CR4_OSFXSR == 0 {
        return Ok(());
    }
    store_mxcsr(c, op, lin, io)?;
    store_xmm(c, op, lin, io)
}

fn fx_restore<const WIDE: bool>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    available(c)?;
    let lin = area(c, op, 512, false)?;
    let mut bytes = [0; 512];
    c.read_bytes(lin, op.seg, &mut bytes, io)?;
    let with_sse = c.s.cr4 & CR4_OSFXSR != 0;
    let mxcsr = mxcsr_of(&bytes);
    if with_sse && mxcsr & !MXCSR_BITS != 0 {
        return c.general_protection(0);
    }
    set_x87(c, &bytes, WIDE);
    if with_sse {
        c.s.mxcsr = mxcsr;
        let n = xmm_count(c);
        set_registers(&mut c.s.xmm[..n], &bytes[160..]);
    }
    c.float_error_settled(op, io);
    Ok(())
}

/// #UD and #NM of the XSAVE family.
fn x_ready(c: &mut Cpu) -> R {
    if c.s.cr4 & CR4_OSXSAVE == 0 {
        return c.undefined();
    }
    if c.s.cr0 & CR0_TS != 0 {
        return c.fail(Exception::new(Vector::DeviceNotAvailable));
    }
    Ok(())
}

/// The components that EDX:EAX asks for and XCR0 has.
fn requested(c: &Cpu) -> u64 {
    (c.regs[0] & 0xffff_ffff | c.regs[2] << 32) & c.s.xcr0
}

/// The components that are not in their initial state (SDM 1 13.6). By value, so that it depends on nothing else.
fn in_use(c: &Cpu) -> u64 {
    let s = &c.s;
    let x87_initial = (s.fcw, s.fsw, s.ftw, s.fop, s.fip, s.fdp, s.fcs, s.fds)
        == (0x37f, 0, 0, 0, 0, 0, 0, 0)
        && s.st.iter().all(|r| *r == 0);
    let sse_initial = s.xmm[..xmm_count(c)].iter().all(|r| *r == 0);
    (if x87_initial { 0 } else { X87 }) | (if sse_initial { 0 } else { SSE }) | extended_state::in_use(c)
}

/// The area of XSAVE and XRSTOR. Zen 4 looks at its alignment, whatever AC says, then at its first bytes, XRSTOR at the header, then at
/// its last byte and the rest.
fn x_area(c: &mut Cpu, op: &Op, bytes: u64, write: bool) -> R<u64> {
    if c.ea(op).wrapping_add(c.seg_base[op.seg as usize % SEGS]) & 63 != 0 {
        return c.general_protection(0);
    }
    c.probe(op, 0, 4, write)?;
    if !write {
        c.probe(op, 512, 8, false)?;
    }
    c.probe(op, bytes - 1, 1, write)?;
    c.linear(op, bytes, write)
}

fn x_save<const WIDE: bool>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    x_ready(c)?;
    let asked = requested(c);
    let bytes = area_bytes(asked);
    let lin = x_area(c, op, bytes, true)?;
    c.check_write(lin, bytes as usize, op.seg, io)?;
    let old: u64 = c.read(lin + 512, op.seg, io)?;
    if asked & X87 != 0 {
        store_x87(c, op, lin, WIDE, io)?;
    }
    // MXCSR belongs to both (SDM 1 13.5.2, 13.5.3).
    if asked & (SSE | AVX) != 0 {
        store_mxcsr(c, op, lin, io)?;
    }
    if asked & SSE != 0 {
        store_xmm(c, op, lin, io)?;
    }
    for component in COMPONENTS.iter().filter(|component| asked & component.bit != 0) {
        let image = component.image(c);
        if !image.is_empty() {
            c.write_bytes(lin + component.offset, op.seg, &image, io)?;
        }
    }
    let present = old & !asked | in_use(c) & asked;
    c.write(lin + 512, op.seg, present, io)
}

fn x_restore<const WIDE: bool>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    x_ready(c)?;
    let asked = requested(c);
    let lin = x_area(c, op, area_bytes(asked), false)?;
    let (mut bytes, mut header) = ([0; 512], [0; 64]);
    c.read_bytes(lin, op.seg, &mut bytes, io)?;
    c.read_bytes(lin + 512, op.seg, &mut header, io)?;
    let present = u64::from(header[0]);
    // Standard form only: other components, XCOMP_BV and the reserved bytes must be zero (SDM 1 13.8).
    if present & !c.s.xcr0 != 0 || header[1..24].iter().any(|b| *b != 0) {
        return c.general_protection(0);
    }
    let mxcsr = mxcsr_of(&bytes);
    if asked & (SSE | AVX) != 0 && mxcsr & !MXCSR_BITS != 0 {
        return c.general_protection(0);
    }
    // Zeroes where they are not present.
    let mut images = COMPONENTS.map(|component| vec![0; component.image(c).len()]);
    for (component, image) in COMPONENTS.iter().zip(&mut images) {
        if asked & present & component.bit != 0 && !image.is_empty() {
            c.read_bytes(lin + component.offset, op.seg, image, io)?;
        }
    }
    if asked & present & X87 != 0 {
        set_x87(c, &bytes, WIDE);
    } else if asked & X87 != 0 {
        initialise(&mut c.s);
        c.s.st = [0; 8];
    }
    let n = xmm_count(c);
    if asked & (SSE | AVX) != 0 {
        // MXCSR comes from memory whether or not its components do (SDM 1 13.8.1).
        c.s.mxcsr = mxcsr;
    }
    if asked & present & SSE != 0 {
        set_registers(&mut c.s.xmm[..n], &bytes[160..]);
    } else if asked & SSE != 0 {
        c.s.xmm[..n].fill(0);
    }
    for (component, image) in COMPONENTS.iter().zip(&images).filter(|(c, _)| asked & c.bit != 0) {
        component.take(c, image);
    }
    c.float_error_settled(op, io);
    Ok(())
}
