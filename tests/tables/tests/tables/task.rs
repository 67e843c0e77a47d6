//! Task switches: JMP, CALL, gates, IRET; busy bits, links, NT, and faults in the new task's name (SDM 3A 7.3).

use crate::board::*;
use crate::case::{Case, cases};
use gemel_x86::control::{CR0_TS, DR6_BT};
use gemel_x86::flags::{FIXED, IF, NT, RF};
use gemel_x86::segment::{CS, DS, ES, FS, GS, SS};

/// The second task's TSS, its stack, and where it starts.
const TSS2: u64 = 0x5800;
const TR2: u16 = FREE;
const STACK2: u32 = 0xc000;
const START2: u64 = CODE + 0x800;

/// A guest whose GDT has a second, available TSS with a task that runs `code`.
fn guest(ring: u8, code: &[u8]) -> Guest {
    let mut g = Guest::protected(ring);
    g.state.tr.limit = 0x67;
    g.set_descriptor(TR, descriptor(TSS, 0x67, 0x8b, 0));
    g.set_descriptor(TR2, descriptor(TSS2, 0x67, 0xe9, 0));
    let image: [(u64, u32); 10] = [
        (0x20, START2 as u32),
        (0x24, (FIXED | 1) as u32),
        (0x28, 0xaaaa_0000),
        (0x38, STACK2),
        (0x48, DATA0.into()),
        (0x4c, CODE0.into()),
        (0x50, DATA0.into()),
        (0x54, DATA0.into()),
        (0x58, 0),
        (0x5c, DATA0.into()),
    ];
    for (offset, value) in image {
        g.poke32(TSS2 + offset, value);
    }
    g.poke(START2, code);
    g
}

fn far(opcode: u8, selector: u16) -> Vec<u8> {
    let mut code = vec![opcode, 0, 0, 0, 0];
    code.extend(selector.to_le_bytes());
    code
}

fn busy(g: &Guest, selector: u16) -> bool {
    g.peek64(GDT + u64::from(selector)) >> 41 & 1 != 0
}

const HLT: &[u8] = &[0xf4];

/// JMP: the old TSS is left, not nested (SDM 3A table 7-2).
fn jump_to_a_tss() {
    let mut g = guest(0, HLT);
    g.state.rflags |= IF;
    g.run(&far(0xea, TR2));
    assert!(g.state.halted && g.state.rip == START2 + 1);
    assert_eq!((g.state.gpr[0], g.state.gpr[4], g.state.rflags), (0xaaaa_0000, STACK2.into(), FIXED | 1));
    assert_eq!(g.selectors(), [DATA0, CODE0, DATA0, DATA0, 0, DATA0]);
    assert_eq!((g.state.tr.selector, g.state.cr0 & CR0_TS), (TR2, CR0_TS));
    assert_eq!((busy(&g, TR), busy(&g, TR2)), (false, true));
    // The old task is in its TSS.
    assert_eq!(u64::from(g.peek32(TSS + 0x20)), CODE + 7);
    assert_eq!(u64::from(g.peek32(TSS + 0x24)), FIXED | IF);
    assert_eq!((g.peek32(TSS + 0x2c), g.peek32(TSS + 0x38)), (0x1111, STACK as u32));
    assert_eq!((g.peek32(TSS + 0x4c), g.peek32(TSS + 0x50)), (CODE0.into(), DATA0.into()));
}

/// CALL nests: link, NT, both busy; IRET goes back.
fn call_and_return() {
    let mut g = guest(0, &[0xcf]);
    g.poke(g.state.rip, &[&far(0x9a, TR2)[..], HLT].concat());
    g.run_for(1);
    assert_eq!((g.state.rip, g.state.rflags), (START2, FIXED | NT | 1));
    assert_eq!((busy(&g, TR), busy(&g, TR2), g.peek16(TSS2)), (true, true, TR));
    g.run_for(20);
    assert!(g.state.halted && g.state.rip == CODE + 8);
    assert_eq!((g.state.gpr[0], g.state.gpr[1], g.state.rflags), (0, 0x1111, FIXED));
    assert_eq!((g.state.tr.selector, busy(&g, TR), busy(&g, TR2)), (TR, true, false));
    // NT is clear in the image that IRET saved.
    assert_eq!(u64::from(g.peek32(TSS2 + 0x24)), FIXED | 1);
}

/// A task gate as an exception's handler: RF in the saved flags, the error code on the new stack.
fn exception_through_a_task_gate() {
    let mut g = guest(3, HLT);
    g.set_gate(13, gate(5, 0, TR2, 0, 0));
    g.run(&[0xfa]);
    assert!(g.state.halted && g.state.rip == START2 + 1);
    assert_eq!((g.state.cpl, g.state.gpr[4], g.frame::<4>(1)), (0, u64::from(STACK2) - 4, vec![0]));
    assert_eq!((u64::from(g.peek32(TSS + 0x20)), u64::from(g.peek32(TSS + 0x24))), (CODE, FIXED | RF));
    assert_eq!((g.peek16(TSS2), g.state.rflags), (TR, FIXED | NT | 1));
}

/// A far call through a task gate in the GDT, from ring 3.
fn call_through_a_task_gate() {
    let mut g = guest(3, HLT);
    g.set_descriptor(FREE + 8, gate(5, 3, TR2, 0, 0));
    g.run(&far(0x9a, (FREE + 8) | 3));
    assert_eq!((g.state.rip, g.state.tr.selector, g.state.cpl), (START2 + 1, TR2, 0));
}

/// A 16-bit TSS: words, four segments, no FS and GS.
fn sixteen_bit_tss() {
    let mut g = guest(0, HLT);
    g.set_descriptor(TR2, descriptor(TSS2, 0x2b, 0x81, 0));
    for offset in (0..0x2c).step_by(2) {
        g.poke16(TSS2 + offset, 0);
    }
    let image = [
        (0x0e, START2 as u16),
        (0x10, 2),
        (0x12, 0x7777),
        (0x22, DATA0),
        (0x24, CODE0),
        (0x26, DATA0),
        (0x28, DATA0),
    ];
    for (offset, value) in image {
        g.poke16(TSS2 + offset, value);
    }
    g.run(&far(0xea, TR2));
    assert!(g.state.halted && g.state.rip == START2 + 1);
    // SDM 3A 7.6: upper halves are "modified and not maintained".
    assert_eq!((g.state.gpr[0], g.selectors()), (0xffff_7777, [DATA0, CODE0, DATA0, DATA0, 0, 0]));
    assert_eq!((g.state.gpr[3], g.state.rflags), (0xffff_0000, FIXED));
    assert_eq!(g.peek64(GDT + u64::from(TR2)) >> 40 & 0xf, 3);
}

/// Refusals before anything changes (SDM 3A 7.3 steps 2 to 5).
fn switches_that_refuse() {
    let refuse = |setup: fn(&mut Guest), code: &[u8], vector: u8, error: u64| {
        let mut g = guest(0, HLT);
        setup(&mut g);
        g.run(code);
        assert_eq!((g.vector(), g.frame::<4>(2)), (vector, vec![error, CODE]), "{code:x?}");
        assert_eq!((g.state.tr.selector, g.state.cr0 & CR0_TS, busy(&g, TR)), (TR, 0, true));
    };
    let jump = far(0xea, TR2);
    // Busy.
    refuse(|_| {}, &far(0xea, TR), 13, TR.into());
    refuse(|g| g.set_descriptor(TR2, descriptor(TSS2, 0x67, 0x69, 0)), &jump, 11, TR2.into());
    refuse(|g| g.set_descriptor(TR2, descriptor(TSS2, 0x66, 0xe9, 0)), &jump, 10, TR2.into());
    // IRET with a link that is no busy TSS.
    fn nested(g: &mut Guest, link: u16) {
        g.state.rflags |= NT;
        g.poke16(TSS, link);
    }
    refuse(|g| nested(g, 0), &[0xcf], 10, 0);
    refuse(|g| nested(g, TR2), &[0xcf], 10, TR2.into());
    refuse(|g| nested(g, CODE0), &[0xcf], 10, CODE0.into());
}

/// Faults after the switch belong to the new task: its address, its TSS (SDM 3A 7.3 step 12, table 7-1).
fn faults_in_the_new_task() {
    for (offset, selector, vector, error) in [
        (0x60, DATA0, 10, DATA0), // LDT
        (0x4c, DATA0, 10, DATA0), // CS
        (0x50, CODE0, 10, CODE0), // SS
        (0x50, DATA3, 10, DATA3 & !3),
        (0x54, TR, 10, TR),               // DS
        (0x48, FREE + 16, 11, FREE + 16), // ES absent
    ] {
        let mut g = guest(0, HLT);
        g.set_descriptor(FREE + 16, flat(TYPE_DATA & !0x80, 0));
        // A handler in a task of its own, because the new stack may not be there.
        g.set_descriptor(FREE + 8, descriptor(0x5900, 0x67, 0x89, 0));
        for at in (0..0x68).step_by(4) {
            g.poke32(0x5900 + at, g.peek32(TSS2 + at));
        }
        g.poke32(0x5900 + 0x20, HANDLERS as u32 + 16 * u32::from(vector));
        g.set_gate(vector, gate(5, 0, FREE + 8, 0, 0));
        g.poke32(TSS2 + offset, selector.into());
        g.run(&far(0xea, TR2));
        assert_eq!(
            (u16::from(g.vector()), g.frame::<4>(1)),
            (u16::from(vector), vec![error.into()]),
            "{offset:#x}"
        );
        assert_eq!((u64::from(g.peek32(TSS2 + 0x20)), g.peek16(0x5900)), (START2, TR2), "{offset:#x}");
    }
}

/// The T bit traps before the new task's first instruction.
fn trap_on_task_switch() {
    let mut g = guest(0, HLT);
    g.poke16(TSS2 + 0x64, 1);
    g.run(&far(0xea, TR2));
    assert_eq!((g.vector(), g.frame::<4>(1)), (1, vec![START2]));
    assert_eq!(g.state.dr6 & DR6_BT, DR6_BT);
    assert_eq!([ES, CS, SS, DS, FS, GS].map(|i| g.selector(i)), g.selectors());
}

/// Every case of this table.
pub const CASES: &[Case] = cases![
    jump_to_a_tss,
    call_and_return,
    exception_through_a_task_gate,
    call_through_a_task_gate,
    sixteen_bit_tss,
    switches_that_refuse,
    faults_in_the_new_task,
    trap_on_task_switch
];
