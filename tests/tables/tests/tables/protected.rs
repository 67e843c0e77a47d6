//! Legacy protected mode: gates and frames, error codes, segment loads, call gates, returns to outer levels.

use crate::board::*;
use crate::case::{Case, cases};
use gemel_machine::Exit;
use gemel_x86::TableRegister;
use gemel_x86::control::CR0_AM;
use gemel_x86::flags::{AC, FIXED, IF, IOPL, NT, RF, ZF};
use gemel_x86::segment::{CS, DS, ES, FS, GS, SS};

const USER_STACK: u64 = STACK;

/// SDM 3A figure 6-4: no change of level.
fn frame_at_the_same_level() {
    for (kind, if_after) in [(14, 0), (15, IF)] {
        let mut g = Guest::protected(0);
        g.state.rflags |= IF;
        g.set_gate(0x30, gate(kind, 0, CODE0, HANDLERS + 0x300, 0));
        g.run(&[0xcd, 0x30]);
        assert_eq!(g.vector(), 0x30);
        assert_eq!(g.frame::<4>(3), [CODE + 2, CODE0.into(), FIXED | IF]);
        assert_eq!((g.state.gpr[4], g.state.rflags & IF), (STACK - 12, if_after));
    }
}

/// The same with a change of level: SS0:ESP0 of the TSS, old SS:ESP first.
fn frame_from_ring_3() {
    let mut g = Guest::protected(3);
    g.state.rflags |= IF;
    g.set_gate(0x30, gate(14, 3, CODE0, HANDLERS + 0x300, 0));
    g.run(&[0xcd, 0x30]);
    assert_eq!((g.vector(), g.state.cpl, g.state.gpr[4]), (0x30, 0, STACK0 - 20));
    assert_eq!(g.frame::<4>(5), [CODE + 2, CODE3.into(), FIXED | IF, USER_STACK, DATA3.into()]);
    assert_eq!((g.selector(CS), g.selector(SS)), (CODE0, DATA0));
    // Data segments stay.
    assert_eq!(g.selector(DS), DATA3);
}

fn sixteen_bit_gates_push_words() {
    let mut g = Guest::protected(3);
    g.set_gate(0x30, gate(6, 3, CODE0, HANDLERS + 0x300, 0));
    g.run(&[0xcd, 0x30]);
    assert_eq!((g.vector(), g.state.gpr[4]), (0x30, STACK0 - 10));
    assert_eq!(g.frame::<2>(5), [CODE + 2, CODE3.into(), FIXED, USER_STACK, DATA3.into()]);
}

/// A fault pushes its error code last and RF set (SDM 3B 17.3.1.1).
fn faults_push_error_code_and_rf() {
    let mut g = Guest::protected(3);
    g.run(&[0xfa]); // cli at IOPL 0
    assert_eq!(g.vector(), 13);
    assert_eq!(g.frame::<4>(6), [0, CODE, CODE3.into(), FIXED | RF, USER_STACK, DATA3.into()]);
}

/// A conforming handler runs at the interrupted level, on its stack (SDM 3A 6.12.1.1).
fn conforming_handlers_keep_the_level() {
    let mut g = Guest::protected(3);
    g.set_descriptor(FREE, flat(TYPE_CODE | 4, 0));
    g.set_gate(0x30, gate(14, 3, FREE, CODE + 0x100, 0));
    g.poke(CODE + 0x100, &[0x0f, 0x0b]);
    g.run(&[0xcd, 0x30]);
    // The handler's UD2 shows where it ran.
    assert_eq!(g.vector(), 6);
    assert_eq!(g.frame::<4>(5), [CODE + 0x100, (FREE | 3).into(), FIXED | RF, USER_STACK - 12, DATA3.into()]);
    assert_eq!(g.peek32(USER_STACK - 12), CODE as u32 + 2);
}

type Setup = fn(&mut Guest);

/// Runs code in a ring and asserts which fault comes with which error code.
#[track_caller]
fn expect(ring: u8, setup: Setup, code: &[u8], vector: u8, error: u16) {
    let mut g = Guest::protected(ring);
    setup(&mut g);
    let before = g.state.clone();
    g.run(code);
    assert_eq!(g.vector(), vector);
    assert_eq!(g.frame::<4>(2), [error.into(), CODE], "error code and address");
    // Nothing of the instruction is left.
    assert_eq!(g.state.gpr[0], before.gpr[0]);
    for index in [DS, ES, FS, GS] {
        assert_eq!(g.state.seg[index], before.seg[index]);
    }
}

const GP: u8 = 13;
const NP: u8 = 11;
const SS_FAULT: u8 = 12;
const TS: u8 = 10;
const NONE: Setup = |_| {};
const INT_30: &[u8] = &[0xcd, 0x30];

/// SDM 2A INT n, PROTECTED-MODE.
fn gates_that_refuse() {
    let idt = |vector: u16| vector << 3 | 2;
    expect(3, NONE, INT_30, GP, idt(0x30));
    expect(0, |g| g.state.idtr.limit = 8 * 0x30 + 6, INT_30, GP, idt(0x30));
    expect(0, |g| g.set_gate(0x30, gate(12, 0, CODE0, 0, 0)), INT_30, GP, idt(0x30));
    expect(0, |g| g.set_gate(0x30, gate(14, 0, CODE0, 0, 0) & !(0x80 << 40)), INT_30, NP, idt(0x30));
    // The DPL comes before the present bit.
    expect(3, |g| g.set_gate(0x30, gate(14, 0, CODE0, 0, 0) & !(0x80 << 40)), INT_30, GP, idt(0x30));
    expect(0, |g| g.set_gate(0x30, gate(14, 0, 3, 0, 0)), INT_30, GP, 0);
    expect(0, |g| g.set_gate(0x30, gate(14, 0, DATA0, 0, 0)), INT_30, GP, DATA0);
    expect(0, |g| g.set_gate(0x30, gate(14, 0, 0x80, 0, 0)), INT_30, GP, 0x80);
    // A less privileged handler.
    expect(0, |g| g.set_gate(0x30, gate(14, 0, CODE3, 0, 0)), INT_30, GP, CODE3 & !3);
    let absent: Setup = |g| {
        g.set_descriptor(FREE, flat(TYPE_CODE & !0x80, 0));
        g.set_gate(0x30, gate(14, 0, FREE, 0, 0));
    };
    expect(0, absent, INT_30, NP, FREE);
    let short: Setup = |g| {
        g.set_descriptor(FREE, descriptor(0, 0xfff, TYPE_CODE, 4));
        g.set_gate(0x30, gate(14, 0, FREE, 0x1000, 0));
    };
    expect(0, short, INT_30, GP, 0);
}

/// The same on the way to an exception's handler: EXT is set (SDM 3A 6.13).
fn faults_while_an_exception_is_delivered_are_external() {
    let absent: Setup = |g| {
        g.set_descriptor(FREE, flat(TYPE_CODE & !0x80, 0));
        g.set_gate(6, gate(14, 0, FREE, 0, 0));
    };
    expect(0, absent, &[0x0f, 0x0b], NP, FREE | 1);
    expect(0, |g| g.set_gate(6, 0), &[0x0f, 0x0b], GP, 6 << 3 | 3);
    expect(3, |g| g.set_gate(3, gate(14, 0, CODE0, 0, 0)), &[0xcc], GP, 3 << 3 | 2);
}

/// Stacks of inner levels (SDM 3A 6.13, #TS conditions). The gate leads to ring 1, so that ring 0 can take the fault.
fn inner_stacks_that_refuse() {
    fn prepare(g: &mut Guest, ss1: u16) {
        g.set_descriptor(FREE, flat(TYPE_CODE, 1));
        g.set_descriptor(FREE + 8, flat(TYPE_DATA, 1));
        g.set_descriptor(FREE + 16, flat(TYPE_DATA & !0x80, 1));
        g.set_descriptor(FREE + 24, flat(TYPE_CODE, 1));
        g.set_descriptor(FREE + 32, descriptor(0, 11, TYPE_DATA | 1 << 5, 4));
        g.set_gate(0x30, gate(14, 3, FREE, 0, 0));
        g.poke32(TSS + 12, 12);
        g.poke32(TSS + 16, ss1.into());
    }
    expect(3, |g| prepare(g, 0), INT_30, TS, 0);
    expect(3, |g| prepare(g, 0x80 | 1), INT_30, TS, 0x80);
    expect(3, |g| prepare(g, FREE + 8), INT_30, TS, FREE + 8);
    expect(3, |g| prepare(g, DATA0 | 1), INT_30, TS, DATA0);
    expect(3, |g| prepare(g, (FREE + 24) | 1), INT_30, TS, FREE + 24);
    expect(3, |g| prepare(g, (FREE + 16) | 1), INT_30, SS_FAULT, FREE + 16);
    // No room for the frame: five doublewords in twelve bytes.
    expect(3, |g| prepare(g, (FREE + 32) | 1), INT_30, SS_FAULT, FREE + 32);
    let short_tss: Setup = |g| {
        prepare(g, (FREE + 8) | 1);
        g.state.tr.limit = 16;
    };
    expect(3, short_tss, INT_30, TS, TR);
}

const MOV_DS_AX: &[u8] = &[0x8e, 0xd8];
const MOV_SS_AX: &[u8] = &[0x8e, 0xd0];

/// SDM 2B MOV, protected mode exceptions; 3A 5.6, 5.7.
fn segment_loads_that_refuse() {
    expect(0, |g| g.state.gpr[0] = 0x80, MOV_DS_AX, GP, 0x80);
    expect(3, |g| g.state.gpr[0] = DATA0.into(), MOV_DS_AX, GP, DATA0);
    // RPL counts as well.
    expect(0, |g| g.state.gpr[0] = (DATA0 | 3).into(), MOV_DS_AX, GP, DATA0);
    expect(0, |g| g.state.gpr[0] = TR.into(), MOV_DS_AX, GP, TR);
    // No LDT.
    expect(0, |g| g.state.gpr[0] = 0x0c, MOV_DS_AX, GP, 0x0c);
    let execute_only: Setup = |g| {
        g.set_descriptor(FREE, flat(TYPE_CODE & !2, 0));
        g.state.gpr[0] = FREE.into();
    };
    expect(0, execute_only, MOV_DS_AX, GP, FREE);
    let absent: Setup = |g| {
        g.set_descriptor(FREE, flat(TYPE_DATA & !0x80, 0));
        g.state.gpr[0] = FREE.into();
    };
    expect(0, absent, MOV_DS_AX, NP, FREE);
    expect(0, absent, MOV_SS_AX, SS_FAULT, FREE);
    expect(0, |g| g.state.gpr[0] = 0, MOV_SS_AX, GP, 0);
    expect(0, |g| g.state.gpr[0] = CODE0.into(), MOV_SS_AX, GP, CODE0);
    expect(0, |g| g.state.gpr[0] = DATA3.into(), MOV_SS_AX, GP, DATA3 & !3);
    let read_only: Setup = |g| {
        g.set_descriptor(FREE, flat(TYPE_DATA & !2, 0));
        g.state.gpr[0] = FREE.into();
    };
    expect(0, read_only, MOV_SS_AX, GP, FREE);
}

fn segment_loads_that_succeed() {
    let mut g = Guest::protected(3);
    // Conforming readable code of ring 0 may be read from ring 3.
    g.set_descriptor(FREE, flat(TYPE_CODE | 4, 0) & !(1 << 40));
    g.state.gpr[0] = (FREE | 3).into();
    g.state.gpr[3] = 3;
    g.set_gate(0x30, gate(14, 3, CODE0, HANDLERS + 0x300, 0));
    g.run(&[0x8e, 0xd8, 0x8e, 0xe3, 0xcd, 0x30]); // mov ds, ax; mov fs, bx; int 0x30
    assert_eq!(g.vector(), 0x30);
    assert_eq!((g.selector(DS), g.selector(FS)), (FREE | 3, 3));
    assert_eq!(g.state.seg[FS].attr, 0);
    // The accessed bit is in memory.
    assert_eq!(g.peek64(GDT + u64::from(FREE)), flat(TYPE_CODE | 4, 0));
}

/// A null data segment faults when it is used, not when it is loaded.
fn null_segments_fault_at_use() {
    let mut g = Guest::protected(0);
    g.state.gpr[0] = 0;
    g.run(&[0x8e, 0xd8, 0xa0, 0, 0, 0, 0]); // mov ds, ax; mov al, [0]
    assert_eq!((g.vector(), g.frame::<4>(2)), (GP, vec![0, CODE + 2]));
}

/// Far JMP with a pointer of 16:32.
fn jump_to(selector: u16, offset: u32) -> Vec<u8> {
    let mut code = vec![0xea];
    code.extend(offset.to_le_bytes());
    code.extend(selector.to_le_bytes());
    code
}

/// SDM 2A JMP, 3A 5.8.1.
fn far_jumps_that_refuse() {
    expect(0, NONE, &jump_to(3, 0), GP, 0);
    expect(0, NONE, &jump_to(0x80, 0), GP, 0x80);
    expect(0, NONE, &jump_to(DATA0, 0), GP, DATA0);
    expect(0, NONE, &jump_to(CODE3, 0), GP, CODE3 & !3);
    expect(3, NONE, &jump_to(CODE0, 0), GP, CODE0);
    let short: Setup = |g| g.set_descriptor(FREE, descriptor(0, 0xfff, TYPE_CODE, 4));
    expect(0, short, &jump_to(FREE, 0x1000), GP, 0);
    let absent: Setup = |g| g.set_descriptor(FREE, flat(TYPE_CODE & !0x80, 0));
    expect(0, absent, &jump_to(FREE, 0), NP, FREE);
    // A conforming segment must not be less privileged.
    expect(0, |g| g.set_descriptor(FREE, flat(TYPE_CODE | 4, 3)), &jump_to(FREE, 0), GP, FREE);
    // A call gate's DPL, and a jump through it to another level.
    let gate_0: Setup = |g| g.set_descriptor(FREE, gate(12, 0, CODE0, CODE + 0x100, 0));
    expect(3, gate_0, &jump_to(FREE | 3, 0), GP, FREE);
    let gate_3: Setup = |g| g.set_descriptor(FREE, gate(12, 3, CODE0, CODE + 0x100, 0));
    expect(3, gate_3, &jump_to(FREE | 3, 0), GP, CODE0);
}

fn a_conforming_segment_takes_a_jump_from_ring_3() {
    let mut g = Guest::protected(3);
    g.set_descriptor(FREE, flat(TYPE_CODE | 4, 0));
    g.poke(CODE + 0x100, &[0x0f, 0x0b]);
    g.run(&jump_to(FREE, CODE as u32 + 0x100));
    assert_eq!(g.vector(), 6);
    assert_eq!(g.frame::<4>(2), [CODE + 0x100, (FREE | 3).into()]);
}

/// SDM 3A figure 5-12, and back: the parameters are copied, and RETF n releases them on both stacks.
fn call_gate_to_ring_0_and_back() {
    let mut g = Guest::protected(3);
    g.set_descriptor(FREE, gate(12, 3, CODE0, CODE + 0x100, 2));
    g.poke(CODE + 0x100, &[0xca, 8, 0]); // retf 8
    g.set_gate(0x30, gate(14, 3, CODE0, HANDLERS + 0x300, 0));
    // push 0x11; push 0x22; call FREE|3:0; int 0x30
    let call = [0x6a, 0x11, 0x6a, 0x22, 0x9a, 0, 0, 0, 0, FREE as u8 | 3, 0, 0xcd, 0x30];
    g.state.seg[ES] = gemel_x86::Segment::from_descriptor(DATA0, flat(TYPE_DATA, 0));
    g.run(&call);
    assert_eq!(g.vector(), 0x30);
    // What the call pushed on the ring-0 stack, from the top; INT 30h has since overwritten its first words.
    assert_eq!(g.frame::<4>(5), [CODE + 13, CODE3.into(), FIXED, USER_STACK, DATA3.into()]);
    assert_eq!(g.peek32(STACK0 - 24), CODE as u32 + 11, "return address of the gate's frame");
    // A ring-0 data segment does not survive the return (SDM 3A 5.8.6).
    assert_eq!((g.selector(ES), g.state.seg[ES].attr), (0, 0));
    assert_eq!(g.selector(DS), DATA3);

    let mut g = Guest::protected(3);
    g.set_descriptor(FREE, gate(12, 3, CODE0, HANDLERS, 2));
    g.run(&call);
    assert_eq!((g.vector(), g.state.gpr[4]), (0, STACK0 - 24));
    let wanted = [CODE + 11, CODE3.into(), 0x22, 0x11, USER_STACK - 8, DATA3.into()];
    assert_eq!(g.frame::<4>(6), wanted);
}

/// SDM 2B RET, 2A IRET: returns that refuse.
fn returns_that_refuse() {
    fn stack(g: &mut Guest, values: &[u32]) {
        g.state.gpr[4] = STACK - 4 * values.len() as u64;
        for (n, value) in values.iter().enumerate() {
            g.poke32(g.state.gpr[4] + 4 * n as u64, *value);
        }
    }
    const RETF: &[u8] = &[0xcb];
    const IRET: &[u8] = &[0xcf];
    expect(0, |g| stack(g, &[0, 0]), RETF, GP, 0);
    expect(0, |g| stack(g, &[0, DATA0.into()]), RETF, GP, DATA0);
    expect(3, |g| stack(g, &[0, CODE0.into()]), RETF, GP, CODE0);
    // RPL 3 with a segment of DPL 0.
    expect(0, |g| stack(g, &[0, (CODE0 | 3).into()]), RETF, GP, CODE0);
    expect(0, |g| stack(g, &[0, CODE3.into(), 0, 0]), RETF, GP, 0);
    expect(0, |g| stack(g, &[0, CODE3.into(), 0, DATA0.into()]), RETF, GP, DATA0);
    let absent: Setup = |g| {
        g.set_descriptor(FREE, flat(TYPE_DATA & !0x80, 3));
        stack(g, &[0, CODE3.into(), 0, (FREE | 3).into()]);
    };
    expect(0, absent, RETF, SS_FAULT, FREE);
    expect(0, |g| stack(g, &[0, 0, 2]), IRET, GP, 0);
    expect(0, |g| stack(g, &[0, DATA0.into(), 2]), IRET, GP, DATA0);
    expect(0, |g| stack(g, &[0, CODE3.into(), 2, 0, DATA0.into()]), IRET, GP, DATA0);
}

/// Which flags IRET may change at which level (SDM 2A IRET).
fn iret_changes_flags_by_privilege() {
    let all = IF | IOPL | NT | 0x41;
    for (ring, iopl, wanted) in
        [(0u8, 0, FIXED | all), (3, 0, FIXED | NT | 0x41), (3, 3 << 12, FIXED | NT | 0x41 | IF | 3 << 12)]
    {
        let mut g = Guest::protected(ring);
        g.state.rflags |= iopl;
        let cs = if ring == 0 { CODE0 } else { CODE3 };
        g.state.gpr[4] = STACK - 12;
        for (n, value) in [CODE + 0x100, cs.into(), all].into_iter().enumerate() {
            g.poke32(STACK - 12 + 4 * n as u64, value as u32);
        }
        g.poke(CODE + 0x100, &[0x0f, 0x0b]);
        g.poke(g.state.rip, &[0xcf]);
        g.run_for(1);
        assert_eq!((g.state.rip, g.state.rflags), (CODE + 0x100, wanted), "ring {ring}, iopl {iopl:#x}");
    }
}

/// IRET to ring 3 and the interrupt back.
fn iret_to_ring_3() {
    let mut g = Guest::protected(0);
    g.set_gate(0x30, gate(14, 3, CODE0, HANDLERS + 0x300, 0));
    g.poke(CODE + 0x100, INT_30);
    g.state.gpr[4] = STACK - 20;
    let frame = [CODE + 0x100, CODE3.into(), FIXED | IF, 0x8000, DATA3.into()];
    for (n, value) in frame.into_iter().enumerate() {
        g.poke32(STACK - 20 + 4 * n as u64, value as u32);
    }
    g.run(&[0xcf]);
    assert_eq!(g.vector(), 0x30);
    assert_eq!(g.frame::<4>(5), [CODE + 0x102, CODE3.into(), FIXED | IF, 0x8000, DATA3.into()]);
    assert_eq!((g.selector(DS), g.state.seg[DS].attr), (0, 0), "ring 0's data segment is gone");
}

/// SDM 3A 6.15: a second contributory fault is #DF with error code 0, a third shutdown.
fn double_and_triple_fault() {
    let mut g = Guest::protected(0);
    g.set_gate(13, 0);
    g.state.gpr[0] = 0x80;
    g.run(MOV_DS_AX);
    assert_eq!((g.vector(), g.frame::<4>(2)), (8, vec![0, CODE]));
    let mut g = Guest::protected(0);
    g.set_gate(13, 0);
    g.set_gate(8, 0);
    g.state.gpr[0] = 0x80;
    g.run(MOV_DS_AX);
    assert_eq!(g.exit, Some(Exit::Shutdown));
}

/// SDM 1 19.5.2.
fn io_permission_map() {
    let with_map = |g: &mut Guest| {
        g.poke16(TSS + 0x66, 0x68);
        g.state.tr.limit = 0x68 + 0x80;
        for n in 0..0x80 {
            g.poke(TSS + 0x68 + n, &[0]);
        }
        // Port 0x81 is denied.
        g.poke(TSS + 0x68 + 0x10, &[2]);
    };
    for (code, allowed) in [
        (&[0xe6, 0x80][..], true),  // out 0x80, al
        (&[0xe6, 0x81][..], false), // out 0x81, al
        (&[0xe7, 0x80][..], false), // out 0x80, eax: needs 0x80 to 0x83
        (&[0xe7, 0x82][..], true),
    ] {
        let mut g = Guest::protected(3);
        with_map(&mut g);
        g.set_gate(0x30, gate(14, 3, CODE0, HANDLERS + 0x300, 0));
        g.run(&[code, INT_30].concat());
        assert_eq!(g.vector(), if allowed { 0x30 } else { GP }, "{code:x?}");
        assert_eq!(g.outside.written.len(), usize::from(allowed));
    }
    // Beyond the TSS's limit: denied. With IOPL 3: allowed.
    expect(3, NONE, &[0xe6, 0x80], GP, 0);
    let mut g = Guest::protected(3);
    g.state.rflags |= IOPL;
    g.run(&[0xe6, 0x80, 0xf4]);
    assert_eq!(g.outside.written, [(0x80, 1, g.state.gpr[0] as u32 & 0xff)]);
}

/// SDM 3A 5.10: LAR, LSL, VERR, VERW, ARPL at ring 3.
fn questions_about_selectors() {
    // The selector is in BX, the result in ECX; code, selector, ZF, ECX.
    let lar = [0x0f, 0x02, 0xcb];
    let lsl = [0x0f, 0x03, 0xcb];
    let verr = [0x0f, 0x00, 0xe3];
    let verw = [0x0f, 0x00, 0xeb];
    let cases: &[(&[u8], u16, bool, u64)] = &[
        // The limit's upper nibble is there (measured on an AMD EPYC: LAR of a flat 32-bit segment gives 00cffb00).
        (&lar, CODE3, true, 0x00cf_fb00),
        (&lar, CODE0, false, 0x1111),
        (&lar, 0, false, 0x1111),
        (&lsl, DATA3, true, 0xffff_ffff),
        (&lsl, DATA0, false, 0x1111),
        (&lsl, 0x80, false, 0x1111),
        (&verr, CODE3, true, 0x1111),
        (&verr, DATA0, false, 0x1111),
        (&verw, DATA3, true, 0x1111),
        (&verw, CODE3, false, 0x1111),
        (&verr, TR | 3, false, 0x1111),
    ];
    for (code, selector, found, ecx) in cases {
        let mut g = Guest::protected(3);
        g.state.gpr[3] = (*selector).into();
        g.poke(g.state.rip, code);
        g.run_for(1);
        assert_eq!(g.state.rip, CODE + 3, "{code:x?} {selector:#x}");
        assert_eq!((g.state.rflags & ZF != 0, g.state.gpr[1]), (*found, *ecx), "{code:x?} {selector:#x}");
    }
    // arpl cx, bx
    for (first, second, result, raised) in [(0x10, 0x23, 0x13, true), (0x13, 0x22, 0x13, false)] {
        let mut g = Guest::protected(3);
        (g.state.gpr[1], g.state.gpr[3]) = (first, second);
        g.poke(g.state.rip, &[0x63, 0xd9]);
        g.run_for(1);
        assert_eq!((g.state.gpr[1], g.state.rflags & ZF != 0), (result, raised));
    }
}

/// LLDT and LTR (SDM 2A).
fn ldt_and_task_register() {
    const LLDT_AX: &[u8] = &[0x0f, 0x00, 0xd0];
    const LTR_AX: &[u8] = &[0x0f, 0x00, 0xd8];
    expect(0, |g| g.state.gpr[0] = DATA0.into(), LLDT_AX, GP, DATA0);
    expect(0, |g| g.state.gpr[0] = 0, LTR_AX, GP, 0);
    // Busy.
    expect(0, |g| g.state.gpr[0] = TR.into(), LTR_AX, GP, TR);
    expect(3, NONE, LLDT_AX, GP, 0);
    let mut g = Guest::protected(0);
    // The LDT at 0x5000 holds one data segment.
    g.set_descriptor(FREE, descriptor(0x5000, 0xf, 0x82, 0));
    g.poke64(0x5008, flat(TYPE_DATA, 0));
    g.set_descriptor(FREE + 8, descriptor(TSS, 0x67, 0x89, 0));
    g.state.gpr[0] = FREE.into();
    g.state.gpr[3] = 0x0c;
    g.state.gpr[1] = (FREE + 8).into();
    // lldt ax; mov ds, bx; ltr cx; hlt
    g.run(&[0x0f, 0x00, 0xd0, 0x8e, 0xdb, 0x0f, 0x00, 0xd9, 0xf4]);
    assert!(g.state.halted && g.state.rip == CODE + 9);
    assert_eq!((g.state.ldtr.base, g.selector(DS), g.state.tr.selector), (0x5000, 0x0c, FREE + 8));
    assert_eq!(g.peek64(GDT + u64::from(FREE) + 8), descriptor(TSS, 0x67, 0x8b, 0), "busy in memory");
}

/// APM 3 SYSENTER, SYSEXIT in legacy mode.
fn sysenter_and_sysexit() {
    let mut g = Guest::protected(3);
    (g.state.sysenter_cs, g.state.sysenter_esp, g.state.sysenter_eip) = (CODE0.into(), STACK0, CODE + 0x100);
    g.state.rflags |= IF;
    // mov ecx, USER_STACK; mov edx, CODE+0x200; sysexit
    g.poke(CODE + 0x100, &[0xb9, 0, 0x90, 0, 0, 0xba, 0, 0x42, 0, 0, 0x0f, 0x35]);
    g.poke(CODE + 0x200, &[0x0f, 0x0b]);
    g.run(&[0x0f, 0x34]);
    assert_eq!(g.vector(), 6);
    // CS + 16, SS + 24, ring 3; IF stays clear.
    assert_eq!(g.frame::<4>(5), [CODE + 0x200, CODE3.into(), FIXED | RF, USER_STACK, DATA3.into()]);
    expect(3, NONE, &[0x0f, 0x34], GP, 0);
}

/// An interrupt from outside, and an NMI that blocks others until IRET (SDM 3A 6.7.1).
fn interrupts_and_nmis() {
    let mut g = Guest::protected(3);
    g.state.rflags |= IF;
    g.outside.interrupt = Some(0x50);
    g.run(&[0x90]);
    assert_eq!((g.vector(), g.frame::<4>(3)), (0x50, vec![CODE, CODE3.into(), FIXED | IF]));

    let mut g = Guest::protected(0);
    // The handler: iret. The code: nop; nop; hlt.
    g.poke(HANDLERS + 0x20, &[0x90, 0x90, 0xcf]);
    g.outside.nmi = true;
    g.poke(g.state.rip, &[0x90, 0x90, 0xf4]);
    g.run_for(2);
    assert_eq!((g.state.rip, g.state.nmi_blocked), (HANDLERS + 0x21, true));
    g.outside.nmi = true;
    g.run_for(1);
    assert_eq!(g.state.rip, HANDLERS + 0x22, "a second NMI waits");
    g.run_for(1);
    assert_eq!((g.state.rip, g.state.nmi_blocked), (CODE, false));
    g.run_for(1);
    assert_eq!(g.state.rip, HANDLERS + 0x20);
}

/// POPF and CLI at ring 3 (SDM 2B POPF table 4-18; 2A CLI).
fn popf_and_cli_obey_iopl() {
    for (ring, iopl, pushed, wanted) in [
        (3u8, 0u64, IF | IOPL, 0),
        (3, IOPL, IF, IOPL | IF),
        (3, IOPL, 0, IOPL),
        (0, 0, IF | IOPL, IF | IOPL),
    ] {
        let mut g = Guest::protected(ring);
        g.state.rflags |= iopl;
        g.state.gpr[4] = STACK - 4;
        g.poke32(STACK - 4, pushed as u32);
        g.poke(g.state.rip, &[0x9d]);
        g.run_for(1);
        assert_eq!(g.state.rflags, FIXED | wanted, "ring {ring} {iopl:#x} {pushed:#x}");
    }
    expect(3, NONE, &[0xfa], GP, 0);
    expect(3, NONE, &[0xfb], GP, 0);
    let mut g = Guest::protected(3);
    g.state.cr4 |= gemel_x86::control::CR4_PVI;
    g.poke(g.state.rip, &[0xfb, 0xfa]);
    g.run_for(1);
    assert_eq!(g.state.rflags, FIXED | gemel_x86::flags::VIF);
    g.run_for(1);
    assert_eq!(g.state.rflags, FIXED);
}

/// An IDT of no bytes leaves nothing to deliver through.
fn no_idt_is_a_triple_fault() {
    let mut g = Guest::protected(0);
    g.state.idtr = TableRegister { base: 0, limit: 0 };
    g.run(&[0x0f, 0x0b]);
    assert_eq!(g.exit, Some(Exit::Shutdown));
}

/// An #AC whose frame is misaligned too raises #AC for ever (CVE-2015-5307): the machine shuts down instead of hanging.
fn an_alignment_check_that_cannot_be_delivered() {
    let mut g = Guest::protected(3);
    g.set_gate(17, gate(14, 0, CODE3, HANDLERS, 0));
    g.state.cr0 |= CR0_AM;
    g.state.rflags |= AC;
    g.state.gpr[4] = STACK - 2;
    g.run(&[0xa1, 1, 0, 0, 0]); // mov eax, [1]
    assert_eq!(g.exit, Some(Exit::Shutdown));
    g.state.gpr[4] = STACK;
    g.state.rip = CODE;
    // On an aligned stack it is delivered, and the handler's HLT is not for ring 3.
    g.run(&[0xa1, 1, 0, 0, 0]);
    assert_eq!((g.vector(), g.frame::<4>(2)), (13, vec![0, HANDLERS]));
}

/// Every case of this table.
pub const CASES: &[Case] = cases![
    frame_at_the_same_level,
    frame_from_ring_3,
    sixteen_bit_gates_push_words,
    faults_push_error_code_and_rf,
    conforming_handlers_keep_the_level,
    gates_that_refuse,
    faults_while_an_exception_is_delivered_are_external,
    inner_stacks_that_refuse,
    segment_loads_that_refuse,
    segment_loads_that_succeed,
    null_segments_fault_at_use,
    far_jumps_that_refuse,
    a_conforming_segment_takes_a_jump_from_ring_3,
    call_gate_to_ring_0_and_back,
    returns_that_refuse,
    iret_changes_flags_by_privilege,
    iret_to_ring_3,
    double_and_triple_fault,
    io_permission_map,
    questions_about_selectors,
    ldt_and_task_register,
    sysenter_and_sysexit,
    interrupts_and_nmis,
    popf_and_cli_obey_iopl,
    no_idt_is_a_triple_fault,
    an_alignment_check_that_cannot_be_delivered
];
