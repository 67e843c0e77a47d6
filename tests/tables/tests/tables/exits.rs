//! A machine that counts exits: what is one, where the engine comes back, and that coming back is not seen.
//!
//! Not responsible for: what the machine makes of it (`gemel-machine`).

use crate::board::{CODE, Guest, HANDLERS, PAGES};
use crate::case::{Case, cases};
use gemel_machine::{Aim, Exit};
use gemel_x86::control::CR4_OSFXSR;

/// No RAM is here.
const DEVICE: u64 = 0x10_0000;
/// A page that `without_page` takes away.
const HOLE: u64 = 0x6_0000;

fn long() -> Guest {
    let mut g = Guest::long(0).counting_exits();
    for page in 0..2 {
        g.poke64(PAGES + 0x3000 + 8 * (256 + page), (DEVICE + (page << 12)) | 7);
    }
    g.state.cr4 |= CR4_OSFXSR;
    g.state.gpr[0] = 0x41;
    g.state.gpr[1] = 3;
    g.state.gpr[2] = 0x60;
    g.state.gpr[3] = DEVICE;
    g.state.gpr[6] = 0x5000;
    g.state.gpr[7] = 0x5800;
    g
}

/// Exits that the code makes before the HLT that ends it, by the count and by what the board saw.
fn exits(g: &mut Guest, code: &[u8]) -> u64 {
    let mut code = code.to_vec();
    code.push(0xf4);
    g.run(&code);
    assert_eq!((g.exit, g.state.rip), (Some(Exit::HaltedForGood), CODE + code.len() as u64));
    // Each access names the count before its instruction.
    let mut named = g.outside.accessed.clone();
    named.dedup();
    let exits = g.state.count - 1;
    assert!(named.len() as u64 <= exits + 1 && named.iter().all(|count| *count < exits.max(1)), "{named:?}");
    exits
}

fn what_leaves_the_guest_is_counted_once() {
    let cases: &[(&str, u64, &[u8])] = &[
        ("in al, 60h", 1, &[0xe4, 0x60]),
        ("in eax, dx", 1, &[0xed]),
        ("out 60h, al", 1, &[0xe6, 0x60]),
        ("insb", 1, &[0x6c]),
        ("rep insb", 3, &[0xf3, 0x6c]),
        ("rep insd", 3, &[0xf3, 0x6d]),
        ("rep outsw", 3, &[0x66, 0xf3, 0x6f]),
        ("xor ecx, ecx; rep outsb", 0, &[0x31, 0xc9, 0xf3, 0x6e]),
        ("mov eax, [rbx]", 1, &[0x8b, 0x03]),
        ("mov [rbx], rax", 1, &[0x48, 0x89, 0x03]),
        ("add [rbx], eax reads and writes", 1, &[0x01, 0x03]),
        ("xchg [rbx], eax", 1, &[0x87, 0x03]),
        ("mov eax, [rbx-2] from RAM and behind it", 1, &[0x8b, 0x43, 0xfe]),
        ("mov [rbx+0ffeh], eax across two pages", 1, &[0x89, 0x83, 0xfe, 0x0f, 0, 0]),
        ("movups xmm0, [rbx] in two accesses", 1, &[0x0f, 0x10, 0x03]),
        ("mov rdi, rbx; rep movsb", 3, &[0x48, 0x89, 0xdf, 0xf3, 0xa4]),
        (
            "mov rsi, rbx; lea rdi, [rbx+40h]; movsq",
            1,
            &[0x48, 0x89, 0xde, 0x48, 0x8d, 0x7b, 0x40, 0x48, 0xa5],
        ),
        ("push [rbx]", 1, &[0xff, 0x33]),
        ("mov ecx, 6e0h; rdmsr", 1, &[0xb9, 0xe0, 6, 0, 0, 0x0f, 0x32]),
        ("mov ecx, 6e0h; wrmsr", 1, &[0xb9, 0xe0, 6, 0, 0, 0x0f, 0x30]),
        ("mov ecx, 174h; rdmsr: the vCPU's own", 0, &[0xb9, 0x74, 1, 0, 0, 0x0f, 0x32]),
        ("mov ecx, 10h; rdmsr: the TSC", 0, &[0xb9, 0x10, 0, 0, 0, 0x0f, 0x32]),
        ("cpuid", 0, &[0x0f, 0xa2]),
        ("rdtsc", 0, &[0x0f, 0x31]),
        ("mov rax, cr8; mov cr8, rax", 0, &[0x44, 0x0f, 0x20, 0xc0, 0x44, 0x0f, 0x22, 0xc0]),
        ("invlpg [rbx]", 0, &[0x0f, 0x01, 0x3b]),
        ("mov eax, cr3; mov cr3, rax", 0, &[0x0f, 0x20, 0xd8, 0x0f, 0x22, 0xd8]),
        ("rep movsb in RAM", 0, &[0xf3, 0xa4]),
        ("in, in", 2, &[0xec, 0xec]),
    ];
    for (name, expected, code) in cases {
        let mut g = long();
        g.outside.msrs.insert(0x6e0, 0);
        assert_eq!(exits(&mut g, code), *expected, "{name}");
        // CPUID asks the board whether there is an APIC.
        assert!(*expected > 0 || *name == "cpuid" || g.outside.accessed.is_empty(), "{name}");
    }
}

fn an_exit_counts_also_if_the_instruction_then_faults_and_the_delivery_does_not() {
    // A register that the board does not know: #GP behind the exit.
    let mut g = long();
    g.run(&[0xb9, 0xe0, 6, 0, 0, 0x0f, 0x32]);
    assert_eq!((g.vector(), g.state.count), (13, 2));
    // movsb from the device to a page that is not there.
    let mut g = long();
    g.unmap(HOLE);
    (g.state.gpr[6], g.state.gpr[7]) = (DEVICE, HOLE);
    g.run(&[0xa4]);
    assert_eq!((g.vector(), g.state.count), (14, 2));
    // A fault without an exit, and INT.
    let mut g = long();
    g.run(&[0x0f, 0x0b]);
    assert_eq!((g.vector(), g.state.count), (6, 1));
    let mut g = long();
    g.run(&[0xcd, 0x40]);
    assert_eq!((g.vector(), g.state.count), (0x40, 1));
    // An interrupt from outside.
    let mut g = long();
    g.outside.interrupt = Some(0x50);
    g.state.rflags |= 1 << 9;
    g.run(&[0x90]);
    assert_eq!((g.vector(), g.state.count), (0x50, 1));
}

fn the_stop_is_the_first_boundary_behind_the_exit() {
    // in; nop; in; hlt
    let mut g = long();
    g.poke(CODE, &[0xec, 0x90, 0xec, 0xf4]);
    g.run_for(1);
    assert_eq!((g.exit, g.state.count, g.state.rip), (Some(Exit::Stop), 1, CODE + 1));
    g.run_for(1);
    assert_eq!((g.exit, g.state.count, g.state.rip), (Some(Exit::Stop), 2, CODE + 3));
    // Between two elements of one instruction.
    let mut g = long();
    g.poke(CODE, &[0xf3, 0x6c, 0xf4]);
    g.run_for(2);
    assert_eq!((g.exit, g.state.count, g.state.rip, g.state.gpr[1]), (Some(Exit::Stop), 2, CODE, 1));
}

fn an_aim_of_one_step_is_the_next_boundary() {
    // rep movsb; nop; ud2
    let mut g = long();
    g.poke(CODE, &[0xf3, 0xa4, 0x90, 0x0f, 0x0b]);
    let mut seen = Vec::new();
    for _ in 0..5 {
        g.aim(Aim::STEP).run_for(100);
        assert_eq!(g.exit, Some(Exit::Yield));
        seen.push((g.state.rip, g.state.gpr[1]));
    }
    let handler = HANDLERS + 16 * 6;
    assert_eq!(seen, [(CODE, 2), (CODE, 1), (CODE + 2, 0), (CODE + 3, 0), (handler, 0)]);
    assert_eq!(g.state.count, 0);
    // It holds for one run.
    g.run_for(100);
    assert_eq!(g.exit, Some(Exit::HaltedForGood));
}

/// Where the run comes back for an address, until it no longer does.
fn hits(g: &mut Guest, rip: u64) -> Vec<u64> {
    let mut hits = Vec::new();
    loop {
        g.aim(Aim { rip: Some(rip), ..Aim::NONE }).run_for(100);
        if g.exit != Some(Exit::Yield) {
            return hits;
        }
        assert_eq!(g.state.rip, rip);
        hits.push(g.state.gpr[1]);
    }
}

fn an_aim_at_an_address_is_every_boundary_there_but_the_first() {
    // nop; l: nop; dec ecx; nop; jnz l; hlt
    let code = [0x90, 0x90, 0xff, 0xc9, 0x90, 0x75, 0xfa, 0xf4];
    for (offset, expected) in [
        (0, vec![]),
        (1, vec![3, 2, 1]),
        (2, vec![3, 2, 1]),
        (4, vec![2, 1, 0]),
        (5, vec![2, 1, 0]),
        (7, vec![0]),
        (3, vec![]),
    ] {
        let mut g = long();
        g.poke(CODE, &code);
        assert_eq!(hits(&mut g, CODE + offset), expected, "offset {offset}");
        // The caches are warm now, and it makes no difference.
        g.state.rip = CODE;
        g.state.gpr[1] = 3;
        g.state.halted = false;
        assert_eq!(hits(&mut g, CODE + offset), expected, "offset {offset}");
    }
    // Between two iterations, at the front of a block and within.
    let mut g = long();
    g.poke(CODE, &[0xf3, 0xa4, 0xf4]);
    assert_eq!(hits(&mut g, CODE), [2, 1]);
    let mut g = long();
    g.poke(CODE, &[0x90, 0xf3, 0xa4, 0xf4]);
    assert_eq!(hits(&mut g, CODE + 1), [3, 2, 1]);
    // A delivery leads there.
    let mut g = long();
    g.poke(CODE, &[0x90, 0x0f, 0x0b]);
    assert_eq!(hits(&mut g, HANDLERS + 16 * 6), [3]);
}

fn a_guest_that_computes_is_left_now_and_then_and_does_not_see_it() {
    // l: imul rax, rax, 7; inc rax; dec rcx; jnz l; hlt
    let code = [0x48, 0x6b, 0xc0, 7, 0x48, 0xff, 0xc0, 0x48, 0xff, 0xc9, 0x75, 0xf4, 0xf4];
    let start = |mut g: Guest| {
        g.poke(CODE, &code);
        g.state.gpr[1] = 200_000;
        g
    };
    let (mut counted, mut exits) = (start(Guest::long(0)), start(long()));
    counted.state = exits.state.clone();
    counted.run_for(u64::from(u32::MAX));
    let mut yields = 0;
    while exits.run_for(10).exit == Some(Exit::Yield) {
        assert_eq!(exits.state.count, 0);
        yields += 1;
    }
    assert_eq!(yields, 200_000 * 4 / (1 << 17), "a fixed number of steps apart");
    assert_eq!(exits.exit, Some(Exit::HaltedForGood));
    let (mut a, mut b) = (counted.state.clone(), exits.state.clone());
    (a.count, b.count) = (0, 0);
    assert_eq!(a.digest(true), b.digest(true));
}

fn an_engine_that_wants_to_come_back_does_so_behind_an_exit_if_there_is_one_soon() {
    // l: mov ecx, n; m: dec ecx; jnz m; in al, dx; jmp l
    let code = |n: u32| {
        let mut code = vec![0xb9];
        code.extend(n.to_le_bytes());
        code.extend([0xff, 0xc9, 0x75, 0xfc, 0xec, 0xeb, 0xf4]);
        code
    };
    let behind_in = CODE + 10;
    let mut g = long();
    g.poke(CODE, &code(10_000));
    g.run_for(1_000);
    assert_eq!((g.exit, g.state.count, g.state.rip), (Some(Exit::Stop), 4, behind_in));
    // None within twice that time: where it is.
    let mut g = long();
    g.poke(CODE, &code(1_000_000));
    g.run_for(1_000);
    assert_eq!((g.exit, g.state.count), (Some(Exit::Yield), 0));
}

/// Every case of this table.
pub const CASES: &[Case] = cases![
    what_leaves_the_guest_is_counted_once,
    an_exit_counts_also_if_the_instruction_then_faults_and_the_delivery_does_not,
    the_stop_is_the_first_boundary_behind_the_exit,
    an_aim_of_one_step_is_the_next_boundary,
    an_aim_at_an_address_is_every_boundary_there_but_the_first,
    a_guest_that_computes_is_left_now_and_then_and_does_not_see_it,
    an_engine_that_wants_to_come_back_does_so_behind_an_exit_if_there_is_one_soon
];
