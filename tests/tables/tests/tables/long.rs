//! Long mode: 64-bit gates, stacks by IST, SYSCALL, returns to every kind of code.

use crate::board::*;
use crate::case::{Case, cases};
use gemel_machine::Exit;
use gemel_x86::Segment;
use gemel_x86::control::{CR4_FSGSBASE, CR4_SMAP};
use gemel_x86::flags::{AC, FIXED, IF, NT, RF, TF, ZF};
use gemel_x86::segment::{CS, DS, FS, GS, SS, attr};

const INT_30: &[u8] = &[0xcd, 0x30];

/// SDM 3A 6.14.2: SS:RSP is pushed always, on a stack aligned to 16 bytes.
fn frame_at_the_same_level_is_aligned() {
    let mut g = Guest::long(0);
    g.state.gpr[4] = STACK - 5;
    g.state.rflags |= IF | NT;
    g.run(INT_30);
    assert_eq!((g.vector(), g.state.gpr[4]), (0x30, STACK - 16 - 40));
    assert_eq!(g.frame::<8>(5), [CODE + 2, CODE0.into(), FIXED | IF | NT, STACK - 5, DATA0.into()]);
    assert_eq!((g.state.rflags, g.selector(SS)), (FIXED, DATA0));
}

/// SDM 3A 6.14.4: from ring 3 the stack is RSP0, and SS becomes null.
fn frame_from_ring_3() {
    let mut g = Guest::long(3);
    g.set_long_gate(0x30, gate(15, 3, CODE0, HANDLERS + 0x300, 0));
    g.state.rflags |= IF;
    g.run(INT_30);
    assert_eq!((g.vector(), g.state.cpl, g.state.rflags), (0x30, 0, FIXED | IF));
    assert_eq!(g.frame::<8>(5), [CODE + 2, CODE3.into(), FIXED | IF, STACK, DATA3.into()]);
    assert_eq!((g.selector(SS), g.state.seg[SS].has(attr::P), g.state.gpr[4]), (0, false, STACK0 - 40));
}

/// SDM 3A 6.14.5: an IST index counts at every level.
fn interrupt_stack_table() {
    for ring in [0, 3] {
        let mut g = Guest::long(ring);
        g.set_long_gate(0x30, gate(14, 3, CODE0, HANDLERS + 0x300, 1));
        g.run(INT_30);
        assert_eq!((g.vector(), g.state.gpr[4]), (0x30, IST1 - 40));
        assert_eq!(g.frame::<8>(5)[3], STACK);
    }
}

/// #PF: CR2, and the error code's P, W and U bits (SDM 3A 4.7).
fn page_faults() {
    for (ring, code, error) in [
        (0, &[0x8a, 0x03][..], 0), // mov al, [rbx]
        (0, &[0x88, 0x03], 2),
        (3, &[0x8a, 0x03], 4),
        (3, &[0x88, 0x03], 6),
    ] {
        let mut g = Guest::long(ring);
        g.unmap(0xe000);
        g.state.gpr[3] = 0xe123;
        g.run(code);
        assert_eq!((g.vector(), g.state.cr2), (14, 0xe123));
        assert_eq!(g.frame::<8>(4)[..2], [error, CODE]);
        assert_eq!(g.frame::<8>(4)[3], FIXED | RF);
    }
}

/// SDM 3A table 6-5 with page faults, by a stack that is not there.
fn page_faults_while_delivering() {
    // #UD pushes on an unmapped stack: #PF, whose handler has a stack of its own.
    let mut g = Guest::long(0);
    g.unmap(0xe000);
    g.state.gpr[4] = 0xe100;
    g.set_long_gate(14, gate(14, 0, CODE0, HANDLERS + 14 * 16, 1));
    g.run(&[0x0f, 0x0b]);
    assert_eq!((g.vector(), g.state.cr2), (14, 0xe0f8));
    assert_eq!(g.frame::<8>(6), [2, CODE, CODE0.into(), FIXED | RF, 0xe100, DATA0.into()]);
    // #PF pushes there too: #DF.
    let mut g = Guest::long(0);
    g.unmap(0xe000);
    g.state.gpr[4] = 0xe100;
    g.set_long_gate(8, gate(14, 0, CODE0, HANDLERS + 8 * 16, 1));
    g.run(&[0x50]); // push rax
    assert_eq!((g.vector(), g.state.cr2), (8, 0xe0f8));
    assert_eq!(g.frame::<8>(2), [0, CODE]);
    // And #DF as well: shutdown.
    let mut g = Guest::long(0);
    g.unmap(0xe000);
    g.state.gpr[4] = 0xe100;
    g.run(&[0x50]);
    assert_eq!(g.exit, Some(Exit::Shutdown));
}

/// Runs code and asserts which fault with an error code it raises.
#[track_caller]
fn expect(ring: u8, setup: fn(&mut Guest), code: &[u8], vector: u8, error: u64) {
    let mut g = Guest::long(ring);
    setup(&mut g);
    g.run(code);
    assert_eq!((g.vector(), &g.frame::<8>(2)[..]), (vector, &[error, CODE][..]));
}

/// SDM 2A INT n, IA-32e mode.
fn gates_that_refuse() {
    expect(0, |g| g.state.idtr.limit = 16 * 0x30 + 14, INT_30, 13, 0x30 << 3 | 2);
    expect(3, |_| {}, INT_30, 13, 0x30 << 3 | 2);
    for kind in [5, 6, 7, 12] {
        let mut g = Guest::long(0);
        g.set_long_gate(0x30, gate(kind, 0, CODE0, 0, 0));
        g.run(INT_30);
        assert_eq!((g.vector(), g.frame::<8>(1)), (13, vec![0x30 << 3 | 2]), "type {kind}");
    }
    // 32-bit code behind the gate.
    fn compatibility(g: &mut Guest) {
        g.set_descriptor(FREE, flat(TYPE_CODE, 0));
        g.set_long_gate(0x30, gate(14, 0, FREE, 0, 0));
    }
    expect(0, compatibility, INT_30, 13, FREE.into());
    // A stack pointer that is not canonical.
    fn wild_ist(g: &mut Guest) {
        g.poke64(TSS + 0x24, 1 << 63);
        g.set_long_gate(0x30, gate(14, 0, CODE0, HANDLERS, 1));
    }
    expect(0, wild_ist, INT_30, 12, 0);
}

/// APM 3 SYSCALL, SYSRET: selectors, flags, RCX and R11.
fn syscall_and_sysret() {
    let mut g = Guest::long(3);
    g.state.star = (u64::from(CODE3 - 16) << 48) | (u64::from(CODE0) << 32);
    g.state.lstar = CODE + 0x100;
    g.state.sfmask = IF | TF | NT | AC;
    g.state.rflags |= IF | AC | 0x41;
    g.poke(g.state.rip, &[0x0f, 0x05, 0x0f, 0x0b]);
    g.run_for(1);
    assert_eq!((g.state.rip, g.state.cpl, g.state.rflags), (CODE + 0x100, 0, FIXED | 0x41));
    assert_eq!((g.state.gpr[1], g.state.gpr[11]), (CODE + 2, FIXED | IF | AC | 0x41));
    assert_eq!((g.selector(CS), g.selector(SS), g.state.gpr[4]), (CODE0, DATA0, STACK));
    assert!(g.state.seg[CS].has(attr::L) && !g.state.seg[CS].has(attr::DB));
    // Back: RF and VM of R11 do not count.
    g.state.gpr[11] |= RF;
    g.run(&[0x48, 0x0f, 0x07]);
    assert_eq!(g.vector(), 6);
    assert_eq!(g.frame::<8>(3), [CODE + 2, CODE3.into(), FIXED | RF | IF | AC | 0x41]);
    assert_eq!(g.frame::<8>(5)[4], u64::from(CODE3 - 16 + 8) | 3);
}

/// SYSRET into TF traps at once, not after the next instruction as IRET does; out of TF it does not trap at all.
fn sysret_and_single_step() {
    for (before, after, traps) in [(0, TF, true), (TF, TF, true), (TF, 0, false), (0, 0, false)] {
        let mut g = Guest::long(0);
        g.state.star = u64::from(CODE3 - 16) << 48;
        g.state.gpr[1] = CODE + 0x100;
        g.state.gpr[11] = FIXED | after;
        g.state.rflags |= before;
        g.poke(CODE + 0x100, &[0x0f, 0x0b]);
        g.run(&[0x48, 0x0f, 0x07]);
        assert_eq!(g.vector(), if traps { 1 } else { 6 }, "{before:#x} to {after:#x}");
        assert_eq!(g.frame::<8>(1), [CODE + 0x100]);
    }
}

fn syscall_refuses() {
    let mut g = Guest::long(3);
    g.state.efer &= !gemel_x86::control::EFER_SCE;
    g.run(&[0x0f, 0x05]);
    assert_eq!(g.vector(), 6);
    expect(3, |_| {}, &[0x48, 0x0f, 0x07], 13, 0);
    // AMD has no SYSENTER in long mode.
    let mut g = Guest::long(0);
    g.state.sysenter_cs = CODE0.into();
    g.run(&[0x0f, 0x34]);
    assert_eq!(g.vector(), 6);
}

/// On AMD, SYSRET to an address that is not canonical faults at ring 3.
fn sysret_to_a_wild_address_faults_at_ring_3() {
    let mut g = Guest::long(0);
    g.state.star = u64::from(CODE3 - 16) << 48;
    g.state.gpr[1] = 1 << 63;
    g.state.gpr[11] = FIXED;
    g.run(&[0x48, 0x0f, 0x07]);
    assert_eq!((g.vector(), g.frame::<8>(3)), (13, vec![0, 1 << 63, CODE3.into()]));
    assert_eq!(g.state.gpr[4], STACK0 - 48);
}

fn push_frame(g: &mut Guest, values: [u64; 5]) {
    g.state.gpr[4] = STACK - 40;
    for (n, value) in values.into_iter().enumerate() {
        g.poke64(STACK - 40 + 8 * n as u64, value);
    }
}

const IRETQ: &[u8] = &[0x48, 0xcf];

/// SDM 3A 6.14.3: IRETQ pops all five, at every level.
fn iretq() {
    let mut g = Guest::long(0);
    push_frame(&mut g, [CODE + 0x100, CODE0.into(), FIXED, 0x8888, DATA0.into()]);
    g.poke(g.state.rip, IRETQ);
    g.run_for(1);
    assert_eq!((g.state.rip, g.state.gpr[4], g.state.cpl), (CODE + 0x100, 0x8888, 0));

    // A null SS is fine for 64-bit code at ring 0.
    let mut g = Guest::long(0);
    push_frame(&mut g, [CODE + 0x100, CODE0.into(), FIXED, 0x8888, 0]);
    g.poke(g.state.rip, IRETQ);
    g.run_for(1);
    assert_eq!((g.state.rip, g.selector(SS)), (CODE + 0x100, 0));

    let mut g = Guest::long(0);
    g.state.seg[FS] = Segment { base: 0x1234_5678_9000, ..Segment::default() };
    g.state.seg[GS].base = 0x9876_5432_1000;
    push_frame(&mut g, [CODE + 0x100, CODE3.into(), FIXED | IF, 0x8888, DATA3.into()]);
    g.poke(g.state.rip, IRETQ);
    g.run_for(1);
    assert_eq!((g.state.rip, g.state.gpr[4], g.state.cpl), (CODE + 0x100, 0x8888, 3));
    assert_eq!(g.state.rflags, FIXED | IF);
    // Ring 0's data segments are gone; FS and GS keep their bases, whatever their selectors were.
    assert_eq!((g.selector(DS), g.state.seg[DS].attr), (0, 0));
    assert_eq!((g.selector(GS), g.state.seg[GS].attr), (0, 0));
    assert_eq!((g.state.seg[FS].base, g.state.seg[GS].base), (0x1234_5678_9000, 0x9876_5432_1000));

    // To 32-bit code: EIP and ESP count.
    let mut g = Guest::long(0);
    g.set_descriptor(FREE, flat(TYPE_CODE, 3));
    g.set_long_gate(0x30, gate(14, 3, CODE0, HANDLERS + 0x300, 0));
    push_frame(&mut g, [CODE + 0x100, (FREE | 3).into(), FIXED, 0xffff_ffff_0000_8888, DATA3.into()]);
    g.poke(CODE + 0x100, &[0xb8, 1, 0, 0, 0, 0x48, 0xcd, 0x30]); // mov eax, 1; dec eax; int 30h
    g.run(IRETQ);
    assert_eq!((g.vector(), g.state.gpr[0]), (0x30, 0));
    assert_eq!(g.frame::<8>(5), [CODE + 0x108, (FREE | 3).into(), FIXED | 0x44, 0x8888, DATA3.into()]);
}

/// An instruction may begin in the last page of the linear address space and end in the first, also when its block is
/// known from another address already.
fn code_across_the_end_of_the_address_space() {
    let mut g = Guest::long(0);
    const TABLES: u64 = 0x2_0000;
    const LAST: u64 = 0x3_0000;
    g.poke64(0x1_0000 + 8 * 511, TABLES | 7);
    for level in 0..2 {
        g.poke64(TABLES + 0x1000 * level + 8 * 511, (TABLES + 0x1000 * (level + 1)) | 7);
    }
    g.poke64(TABLES + 0x2000 + 8 * 511, LAST | 7);
    // The page after LAST's identity mapping is the first one too.
    g.poke64(0x1_3000 + 8 * (LAST / 0x1000 + 1), 7);
    g.poke(LAST + 0xffe, &[0x48, 0xff]); // inc rax ...
    g.poke(0, &[0xc0, 0xff, 0xe3]); // jmp rbx
    g.poke(CODE, &[0xf4]);
    g.state.gpr[0] = 0;
    g.state.gpr[3] = u64::MAX - 1;
    g.state.rip = LAST + 0xffe;
    g.run_for(3);
    assert_eq!((g.state.gpr[0], g.state.rip), (2, 1));
}

fn iretq_refuses() {
    expect(0, |g| push_frame(g, [0, 0, 2, 0, 0]), IRETQ, 13, 0);
    expect(0, |g| push_frame(g, [0, CODE3.into(), 2, 0, 0]), IRETQ, 13, 0);
    expect(0, |g| push_frame(g, [0, DATA0.into(), 2, 0, 0]), IRETQ, 13, DATA0.into());
    expect(0, |g| push_frame(g, [1 << 63, CODE0.into(), 2, STACK, DATA0.into()]), IRETQ, 13, 0);
    // Nested tasks are no more.
    expect(0, |g| g.state.rflags |= NT, IRETQ, 13, 0);
    fn both_sizes(g: &mut Guest) {
        g.set_descriptor(FREE, descriptor(0, 0xf_ffff, TYPE_CODE, 0xe));
        push_frame(g, [0, FREE.into(), 2, STACK, DATA0.into()]);
    }
    expect(0, both_sizes, IRETQ, 13, FREE.into());
}

/// A 16-byte call gate: RSP0, null SS, no parameters (SDM 3A 5.8.3.1, 5.8.5.1).
fn call_gate() {
    let mut g = Guest::long(3);
    g.set_descriptor(FREE, gate(12, 3, CODE0, HANDLERS + 0x770, 0x1f));
    g.set_descriptor(FREE + 8, 0);
    g.poke64(0x800, (u64::from(FREE) | 3) << 32);
    g.run(&[0xff, 0x1c, 0x25, 0, 8, 0, 0]); // call far [0x800]
    assert_eq!((g.vector(), g.state.cpl, g.selector(SS)), (0x77, 0, 0));
    assert_eq!(g.frame::<8>(4), [CODE + 7, CODE3.into(), STACK, DATA3.into()]);
    assert_eq!(g.state.gpr[4], STACK0 - 32);
    // An upper half that is a descriptor of its own.
    fn bad_upper(g: &mut Guest) {
        g.set_descriptor(FREE, gate(12, 3, CODE0, HANDLERS, 0));
        g.set_descriptor(FREE + 8, 1 << 40);
        g.poke64(0x800, u64::from(FREE) << 32);
    }
    expect(0, bad_upper, &[0xff, 0x1c, 0x25, 0, 8, 0, 0], 13, FREE.into());
    // TSSs and task gates are no targets.
    expect(0, |g| g.poke64(0x800, u64::from(TR) << 32), &[0xff, 0x2c, 0x25, 0, 8, 0, 0], 13, TR.into());
}

/// RETFQ to ring 3 and far jumps between 64-bit and 32-bit code.
fn far_returns_and_compatibility_mode() {
    let mut g = Guest::long(0);
    g.state.gpr[4] = STACK - 32;
    for (n, value) in [CODE + 0x100, CODE3.into(), 0x8880, DATA3.into()].into_iter().enumerate() {
        g.poke64(STACK - 32 + 8 * n as u64, value);
    }
    g.poke(g.state.rip, &[0x48, 0xca, 0x10, 0]); // retfq 16, whose parameters lie above the address
    g.poke64(STACK - 16 + 16, 0);
    g.poke64(STACK, 0x8880);
    g.poke64(STACK + 8, DATA3.into());
    g.run_for(1);
    assert_eq!((g.state.rip, g.state.gpr[4], g.state.cpl), (CODE + 0x100, 0x8890, 3));

    let mut g = Guest::long(0);
    g.set_descriptor(FREE, flat(TYPE_CODE, 0));
    g.poke64(0x800, (u64::from(FREE) << 32) | (CODE + 0x100));
    // jmp far FREE:CODE+0x100; there: dec eax (a REX prefix in 64-bit code); jmp CODE0:CODE+0x200; there: hlt
    g.poke(CODE + 0x100, &[0x48, 0xea, 0, 0x42, 0, 0, CODE0 as u8, 0]);
    g.poke(CODE + 0x200, &[0x48, 0xff, 0xc8, 0xf4]);
    g.state.gpr[0] = 5;
    g.run(&[0xff, 0x2c, 0x25, 0, 8, 0, 0]);
    assert!(g.state.halted && g.state.rip == CODE + 0x204);
    assert_eq!((g.state.gpr[0], g.selector(CS)), (3, CODE0));
}

/// FS and GS: bases by MSR, by WRFSBASE, by SWAPGS; a load replaces them.
fn segment_bases() {
    let mut g = Guest::long(0);
    g.state.cr4 |= CR4_FSGSBASE;
    g.state.kernel_gs_base = 0xa000;
    g.state.seg[GS].base = 0xc000;
    g.poke(0xa010, &[0x5a]);
    g.state.gpr[3] = 0xa008;
    g.poke(0xa009, &[0x77]);
    g.run(&[
        0x0f, 0x01, 0xf8, // swapgs
        0x65, 0x8a, 0x04, 0x25, 0x10, 0, 0, 0, // mov al, gs:[0x10]
        0xf3, 0x48, 0x0f, 0xae, 0xd3, // wrfsbase rbx
        0x64, 0x8a, 0x24, 0x25, 1, 0, 0, 0, // mov ah, fs:[1]
        0xf4,
    ]);
    assert_eq!(g.state.gpr[0] & 0xffff, 0x775a);
    assert_eq!((g.state.kernel_gs_base, g.state.seg[GS].base), (0xc000, 0xa000));
    expect(
        0,
        |g| {
            g.state.cr4 |= CR4_FSGSBASE;
            g.state.gpr[3] = 1 << 63;
        },
        &[0xf3, 0x48, 0x0f, 0xae, 0xd3],
        13,
        0,
    );
    expect(3, |_| {}, &[0x0f, 0x01, 0xf8], 13, 0);
}

/// Null SS loads in 64-bit mode: allowed below ring 3 when the RPL is the CPL.
fn null_stack_segments() {
    const MOV_SS_AX: &[u8] = &[0x8e, 0xd0];
    let mut g = Guest::long(0);
    g.state.gpr[0] = 0;
    g.poke(g.state.rip, MOV_SS_AX);
    g.run_for(1);
    assert_eq!((g.state.rip, g.selector(SS)), (CODE + 2, 0));
    expect(0, |g| g.state.gpr[0] = 3, MOV_SS_AX, 13, 0);
    expect(3, |g| g.state.gpr[0] = 3, MOV_SS_AX, 13, 0);
}

/// Addresses that are not canonical: #SS through the stack, #GP elsewhere.
fn addresses_that_are_none() {
    expect(0, |g| g.state.gpr[3] = 1 << 63, &[0x8a, 0x03], 13, 0);
    fn wild_stack(g: &mut Guest) {
        g.set_long_gate(12, gate(14, 0, CODE0, HANDLERS + 12 * 16, 1));
        g.state.gpr[4] = 1 << 63;
    }
    expect(0, wild_stack, &[0x58], 12, 0);
}

/// STAC and CLAC open and close user pages under SMAP (SDM 3A 4.6.1); a descriptor table on one stays closed.
fn supervisor_mode_access_prevention() {
    let read = |code: &[u8]| {
        let mut g = Guest::long(0);
        g.state.gpr[3] = 0xe000;
        g.state.cr4 |= CR4_SMAP;
        // An LDT on the one page that is the user's, and a selector into it.
        g.state.ldtr = Segment::from_descriptor(FREE, descriptor(0xe000, 0xf, 0x82, 0));
        g.poke64(0xe008, flat(TYPE_DATA, 0));
        g.state.gpr[0] = 0x0c;
        for page in (0..256).filter(|p| *p != 0xe) {
            g.poke64(0x13000 + 8 * page, page << 12 | 3);
        }
        g.run(code);
        g.vector()
    };
    assert_eq!(read(&[0x8a, 0x03, 0x0f, 0x0b]), 14);
    assert_eq!(read(&[0x0f, 0x01, 0xcb, 0x8a, 0x03, 0x0f, 0x0b]), 6);
    assert_eq!(read(&[0x0f, 0x01, 0xcb, 0x0f, 0x01, 0xca, 0x8a, 0x03, 0x0f, 0x0b]), 14);
    // mov ds, ax reads the LDT: an implicit access, which AC does not open.
    assert_eq!(read(&[0x0f, 0x01, 0xcb, 0x8e, 0xd8, 0x0f, 0x0b]), 14);
}

/// LTR and LLDT take 16-byte descriptors.
fn wide_system_descriptors() {
    let mut g = Guest::long(0);
    g.set_descriptor(FREE, descriptor(0x5000, 0xf, 0x82, 0));
    g.poke64(GDT + u64::from(FREE) + 8, 0xffff_8000);
    g.state.gpr[0] = FREE.into();
    g.poke(g.state.rip, &[0x0f, 0x00, 0xd0]);
    g.run_for(1);
    assert_eq!((g.state.ldtr.base, g.state.ldtr.limit), (0xffff_8000_0000_5000, 0xf));
    // Not canonical.
    fn wild(g: &mut Guest) {
        g.set_descriptor(FREE, descriptor(TSS, 0x67, 0x89, 0));
        g.poke64(GDT + u64::from(FREE) + 8, 0x0001_0000);
        g.state.gpr[0] = FREE.into();
    }
    expect(0, wild, &[0x0f, 0x00, 0xd8], 13, FREE.into());
}

/// SDM 2A CMPXCHG8B: EDX:EAX is compared, ECX:EBX is stored, and what was there comes back in EDX:EAX.
fn compare_and_exchange_of_eight_bytes() {
    const PLACE: u64 = 0xe000;
    let there = 0x1111_1111_2222_2222_u64;
    for (equal, high) in [(true, 0x1111_1111), (false, 0x1111_1112)] {
        let mut g = Guest::long(0);
        g.poke64(PLACE, there);
        (g.state.gpr[0], g.state.gpr[2]) = (0x2222_2222, high);
        (g.state.gpr[1], g.state.gpr[3]) = (0x3333_3333, 0x4444_4444);
        g.state.gpr[6] = PLACE;
        g.run(&[0x0f, 0xc7, 0x0e, 0xcd, 0x30]); // cmpxchg8b [rsi]; int 30h
        let stored = g.peek64(PLACE);
        assert_eq!(stored, if equal { 0x3333_3333_4444_4444 } else { there });
        assert_eq!((g.state.gpr[2], g.state.gpr[0]), (0x1111_1111, 0x2222_2222));
        assert_eq!(g.frame::<8>(3)[2] & ZF != 0, equal);
    }
}

/// Every case of this table.
pub const CASES: &[Case] = cases![
    frame_at_the_same_level_is_aligned,
    frame_from_ring_3,
    interrupt_stack_table,
    page_faults,
    page_faults_while_delivering,
    gates_that_refuse,
    syscall_and_sysret,
    sysret_and_single_step,
    syscall_refuses,
    sysret_to_a_wild_address_faults_at_ring_3,
    iretq,
    code_across_the_end_of_the_address_space,
    iretq_refuses,
    call_gate,
    far_returns_and_compatibility_mode,
    segment_bases,
    null_stack_segments,
    addresses_that_are_none,
    supervisor_mode_access_prevention,
    wide_system_descriptors,
    compare_and_exchange_of_eight_bytes
];
