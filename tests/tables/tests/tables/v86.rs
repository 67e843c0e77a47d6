//! Virtual-8086 mode: the way in, the way out, and what IOPL and VME allow inside (SDM 3B 20.2, 20.3).

use crate::board::*;
use crate::case::{Case, cases};
use gemel_x86::control::{CR4_OSXSAVE, CR4_VME};
use gemel_x86::flags::{FIXED, IF, IOPL, RF, VIF, VM};
use gemel_x86::segment::{CS, DS, ES, FS, GS, SS, attr};
use gemel_x86::{CpuModel, Segment};

fn guest(iopl: u64) -> Guest {
    let mut g = Guest::protected(3);
    g.state.rflags |= VM | iopl;
    for (index, selector) in [(ES, 0x111), (CS, 0), (SS, 0), (DS, 0x333), (FS, 0x444), (GS, 0x555)] {
        g.state.seg[index] = Segment { attr: 0xf3, ..Segment::real(selector) };
    }
    g
}

/// SDM 3B figure 20-4: all segments are on the ring-0 stack, and the data ones null.
fn interrupt_out_of_virtual_8086_mode() {
    let mut g = guest(IOPL);
    g.set_gate(0x30, gate(14, 3, CODE0, HANDLERS + 0x300, 0));
    g.run(&[0xcd, 0x30]);
    assert_eq!((g.vector(), g.state.cpl, g.state.rflags & VM), (0x30, 0, 0));
    let wanted = [CODE + 2, 0, FIXED | IOPL | VM, STACK, 0, 0x111, 0x333, 0x444, 0x555];
    assert_eq!(g.frame::<4>(9), wanted);
    assert_eq!(g.state.gpr[4], STACK0 - 36);
    assert_eq!(g.selectors(), [0, CODE0, DATA0, 0, 0, 0]);
}

/// IOPL below 3 without VME: INT n, CLI, STI, PUSHF, POPF, IRET are #GP(0); INT3 is not.
fn sensitive_instructions() {
    for code in [&[0xcd, 0x30][..], &[0xfa], &[0xfb], &[0x9c], &[0x9d], &[0xcf]] {
        let mut g = guest(0);
        g.run(code);
        assert_eq!((g.vector(), g.frame::<4>(4)), (13, vec![0, CODE, 0, FIXED | VM | RF]), "{code:x?}");
    }
    let mut g = guest(0);
    g.set_gate(3, gate(14, 3, CODE0, HANDLERS + 0x30, 0));
    g.run(&[0xcc]);
    assert_eq!((g.vector(), g.frame::<4>(1)), (3, vec![CODE + 1]));
    // A handler that is not at ring 0.
    let mut g = guest(IOPL);
    g.set_descriptor(FREE, flat(TYPE_CODE, 1));
    g.set_gate(0x30, gate(14, 3, FREE, 0, 0));
    g.run(&[0xcd, 0x30]);
    assert_eq!((g.vector(), g.frame::<4>(2)), (13, vec![FREE.into(), CODE]));
}

/// SDM 3B table 20-2, method 5: a clear bit in the redirection map sends INT n to the program's own handler.
fn vme_redirects_interrupts() {
    let mut g = guest(0);
    g.state.cr4 |= CR4_VME;
    g.state.rflags |= VIF;
    g.poke16(TSS + 0x66, 0x88);
    for n in 0..32 {
        g.poke(TSS + 0x68 + n, &[0]);
    }
    g.poke32(4 * 0x30, 0x0600_0010);
    g.poke(0x6010, &[0x90]);
    g.poke(g.state.rip, &[0xcd, 0x30]);
    g.run_for(1);
    assert_eq!((g.state.rip, g.selector(CS), g.state.seg[CS].base), (0x10, 0x600, 0x6000));
    // The image has IF from VIF, and IOPL 3; VIF is cleared.
    assert_eq!(g.frame::<2>(3), [CODE + 2, 0, FIXED | IF | IOPL]);
    assert_eq!(g.state.rflags, FIXED | VM);
    // A set bit: as without VME.
    let mut g = guest(0);
    g.state.cr4 |= CR4_VME;
    g.poke16(TSS + 0x66, 0x88);
    g.poke(TSS + 0x68 + 6, &[1]);
    g.run(&[0xcd, 0x30]);
    assert_eq!(g.vector(), 13);
    // No room for the redirection map below the I/O permission map.
    let mut g = guest(0);
    g.state.cr4 |= CR4_VME;
    g.poke16(TSS + 0x66, 16);
    g.run(&[0xcd, 0x30]);
    assert_eq!(g.vector(), 13);
}

/// VME: CLI, STI, PUSHF and POPF work on VIF.
fn vme_virtual_interrupt_flag() {
    let mut g = guest(0);
    g.state.cr4 |= CR4_VME;
    g.poke(g.state.rip, &[0xfb, 0x9c, 0xfa, 0x9d]);
    g.run_for(1);
    assert_eq!(g.state.rflags, FIXED | VM | VIF);
    g.run_for(1);
    assert_eq!(g.peek16(STACK - 2) as u64, FIXED | IF | IOPL);
    g.run_for(1);
    assert_eq!(g.state.rflags, FIXED | VM);
    g.run_for(1);
    assert_eq!(g.state.rflags, FIXED | VM | VIF);
}

/// SDM 2A IRET, RETURN-TO-VIRTUAL-8086-MODE.
fn iret_into_virtual_8086_mode() {
    let mut g = Guest::protected(0);
    let frame = [0x100, 0x400, FIXED | VM | IF | 3 << 12, 0x7000, 0x10, 0x11, 0x12, 0x13, 0x14];
    g.state.gpr[4] = STACK - 36;
    for (n, value) in frame.into_iter().enumerate() {
        g.poke32(STACK - 36 + 4 * n as u64, value as u32);
    }
    g.poke(g.state.rip, &[0xcf]);
    g.run_for(1);
    assert_eq!((g.state.rip, g.state.gpr[4], g.state.cpl), (0x100, 0x7000, 3));
    assert_eq!(g.state.rflags, FIXED | VM | IF | IOPL);
    assert_eq!(g.selectors(), [0x11, 0x400, 0x10, 0x12, 0x13, 0x14]);
    assert_eq!((g.state.seg[ES].base, g.state.seg[ES].limit, g.state.seg[ES].attr), (0x110, 0xffff, 0xf3));
}

/// SDM 2A 2.3.1: VEX encodings are #UD in real and virtual-8086 mode, where C4 and C5 load segments from memory, and instructions in
/// 16-bit protected mode.
fn vex_needs_protected_mode() {
    const VADDPS: &[u8] = &[0xc5, 0xf8, 0x58, 0xc2];
    const LDS: &[u8] = &[0xc5, 0x06, 0x00, 0x70]; // lds ax, [0x7000]
    let ready = |g: Guest| {
        let mut g = g.with_model(CpuModel::x86_64_v3());
        g.state.cr4 |= CR4_OSXSAVE;
        g.state.xcr0 = 7;
        g
    };
    for make in [Guest::real, || guest(IOPL)] {
        let mut g = ready(make());
        g.run(VADDPS);
        assert_eq!((g.vector(), g.frame::<2>(1)[0] & 0xffff), (6, CODE));
        let mut g = ready(make());
        g.poke(CODE, LDS);
        g.run_for(1);
        assert_eq!(g.state.rip, CODE + 4);
    }
    let mut g = ready(Guest::protected(0));
    g.state.seg[CS].attr &= !attr::DB;
    g.poke(CODE, VADDPS);
    g.run_for(1);
    assert_eq!(g.state.rip, CODE + 4);
}

/// Every case of this table.
pub const CASES: &[Case] = cases![
    interrupt_out_of_virtual_8086_mode,
    sensitive_instructions,
    vme_redirects_interrupts,
    vme_virtual_interrupt_flag,
    iret_into_virtual_8086_mode,
    vex_needs_protected_mode
];
