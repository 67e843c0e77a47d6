//! Instructions and faults whose results the manuals give, in each mode.

use super::*;
use crate::arena::{BASE, CODE, DATA, FS_SHIFT, PAGE, READ_ONLY, RIM, STACK};
use crate::case::{Fault, Mode, Patch, Registers};

/// RFLAGS that every single-stepped case has: TF, IF, bit 1.
const STEPPED: u64 = 0x302;
const RF: u64 = 1 << 16;

/// A case at the start of the code page with a stack.
fn case(mode: Mode, code: &[u8]) -> Case {
    let mut case = Case { mode, length: code.len() as u8, ..Case::default() };
    case.code[..code.len()].copy_from_slice(code);
    case.before.rip = u64::from(offset(mode, CODE));
    case.before.gpr[4] = u64::from(offset(mode, STACK + 0x800));
    case
}

/// A linear address as an offset in the segments of a mode.
fn offset(mode: Mode, address: u32) -> u32 {
    if mode == Mode::Protected16 { address - BASE } else { address }
}

fn patch(address: u32, bytes: &[u8]) -> Patch {
    let mut patch = Patch { address, length: bytes.len() as u8, ..Patch::default() };
    patch.bytes[..bytes.len()].copy_from_slice(bytes);
    patch
}

fn run(case: Case) -> Outcome {
    let mut native = Native::start().unwrap();
    native.run(&[case]).unwrap().remove(0).unwrap()
}

fn fault_of(case: Case) -> Fault {
    let outcome = run(case);
    assert_eq!(outcome.changes, []);
    outcome.fault.unwrap()
}

/// What is at an address of a changed line.
fn changed(outcome: &Outcome, address: u32, length: usize) -> &[u8] {
    let line = outcome.changes.iter().find(|line| line.address == address & !63).unwrap();
    &line.bytes[(address & 63) as usize..][..length]
}

#[test]
fn add_sets_a_register_and_flags_and_nothing_else() {
    for mode in Mode::ALL {
        // ADD AL, BL
        let mut case = case(mode, &[0x00, 0xd8]);
        case.before.gpr[0] = 0x1234_567f;
        case.before.gpr[3] = 1;
        case.before.gpr[7] = 0xdead_beef;
        case.before.st[3] = 0x4000_c90f_daa2_2168_c235;
        case.before.ymm[5] = [1, 2, 3, 4];
        case.before.ftw = 0xff;
        (case.before.mxcsr, case.before.fcw, case.before.fsw) = (0x9fc0, 0x27f, 0x3800);
        let outcome = run(case);
        let mut wanted = case.before;
        wanted.gpr[0] = 0x1234_5680;
        wanted.rip += 2;
        // AF, SF, OF.
        wanted.rflags = STEPPED | 0x890;
        assert_eq!(outcome, Outcome { after: wanted, changes: vec![], fault: None }, "{mode:?}");
    }
}

#[test]
fn all_of_64_bit_state_survives_nop() {
    let mut case = case(Mode::Long64, &[0x90]);
    let mut n = 0u64;
    let mut next = || {
        n += 1;
        n.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    };
    case.before.gpr = std::array::from_fn(|_| next());
    case.before.ymm = std::array::from_fn(|_| std::array::from_fn(|_| next()));
    if is_x86_feature_detected!("avx512bw") {
        (0..32).for_each(|n| case.before.set_zmm(n, std::array::from_fn(|_| next())));
        case.before.opmask = std::array::from_fn(|_| next());
    }
    case.before.st =
        std::array::from_fn(|_| u128::from(next() & 0xffff) << 64 | u128::from(next() | 1 << 63));
    (case.before.ftw, case.before.rflags) = (0x5a, STEPPED | 0x8d5 | 0x400 | 1 << 18);
    let mut wanted = case.before;
    wanted.rip += 1;
    assert_eq!(run(case), Outcome { after: wanted, changes: vec![], fault: None });
}

#[test]
fn x87_pointers_are_loaded_though_not_always_told() {
    // FNSTENV [RDI]
    let mut store = case(Mode::Long64, &[0xd9, 0x37]);
    store.before.gpr[7] = DATA.into();
    (store.before.fip, store.before.fdp, store.before.fop) = (0x1234_5678, 0x2345_6789, 0x123);
    let outcome = run(store);
    let word = |n: u32| u32::from_le_bytes(changed(&outcome, DATA + 4 * n, 4).try_into().unwrap());
    assert_eq!([word(3), word(4) >> 16, word(5)], [0x1234_5678, 0x123, 0x2345_6789]);
    // With an error pending XSAVE tells them, on every vendor's CPU. NOP.
    let mut pending = case(Mode::Long64, &[0x90]);
    (pending.before.fcw, pending.before.fsw) = (0x37e, 0x8081);
    (pending.before.fip, pending.before.fdp, pending.before.fop) =
        (0x1111_2222_3333, 0x4444_5555_6666, 0x777);
    let wanted = Registers { rip: pending.before.rip + 1, ..pending.before };
    assert_eq!(run(pending).after, wanted);
}

#[test]
fn each_mode_decodes_its_own_way() {
    // DEC EAX / REX.W prefix with no opcode it would matter to / DEC AX; then NOP.
    let after = |mode| run(case(mode, &[0x48, 0x90])).after;
    assert_eq!((after(Mode::Long64).gpr[0], after(Mode::Long64).rip), (0, u64::from(CODE) + 2));
    assert_eq!(after(Mode::Protected32).gpr[0], 0xffff_ffff);
    assert_eq!((after(Mode::Protected16).gpr[0], after(Mode::Protected16).rip), (0xffff, 0x2001));
    // PUSH AX in 16-bit code moves SP by two.
    let mut push = case(Mode::Protected16, &[0x50]);
    push.before.gpr[0] = 0xabcd;
    let outcome = run(push);
    assert_eq!(outcome.after.gpr[4], push.before.gpr[4] - 2);
    assert_eq!(changed(&outcome, STACK + 0x7fe, 2), [0xcd, 0xab]);
}

#[test]
fn memory_is_read_where_patched_and_told_where_changed() {
    for mode in Mode::ALL {
        // XCHG [DI/EDI/RDI], AX/EAX/RAX, across the pages of DATA.
        let code: &[u8] = match mode {
            Mode::Long64 => &[0x48, 0x87, 0x07],
            Mode::Protected32 => &[0x87, 0x07],
            Mode::Protected16 => &[0x67, 0x66, 0x87, 0x07],
        };
        let mut case = case(mode, code);
        let at = DATA + PAGE - 3;
        case.before.gpr[7] = offset(mode, at).into();
        case.before.gpr[0] = 0x1122_3344_5566_7788;
        case.patches[2] = patch(at - 1, &[0xaa, 1, 2, 3, 4, 5, 6, 7, 8, 0xbb]);
        let outcome = run(case);
        let wide = mode == Mode::Long64;
        assert_eq!(outcome.after.gpr[0], if wide { 0x0807_0605_0403_0201 } else { 0x0403_0201 });
        assert_eq!(outcome.changes.len(), 2);
        assert_eq!(changed(&outcome, at - 1, 4), [0xaa, 0x88, 0x77, 0x66], "{mode:?}");
        assert_eq!(changed(&outcome, DATA + PAGE, 1), [0x55]);
    }
}

#[test]
fn the_arena_is_as_new_for_the_next_case() {
    // MOV [RDI], RAX; then MOV RAX, [RDI].
    let mut store = case(Mode::Long64, &[0x48, 0x89, 0x07]);
    store.before.gpr[7] = (STACK + 8).into();
    store.patches[0] = patch(STACK + 100, &[0; 64]);
    let mut load = case(Mode::Long64, &[0x48, 0x8b, 0x07]);
    load.before.gpr[7] = (STACK + 8).into();
    let mut untouched = load;
    untouched.before.gpr[7] = (STACK + 104).into();
    let answers = Native::start().unwrap().run(&[store, load, untouched]).unwrap();
    for (answer, at) in answers[1..].iter().zip([STACK + 8, STACK + 104]) {
        let background = &arena::background()[(at - BASE) as usize..][..8];
        assert_eq!(answer.as_ref().unwrap().after.gpr[0].to_le_bytes(), background);
    }
}

#[test]
fn segment_overrides_have_their_bases() {
    for mode in Mode::ALL {
        // MOV AX/EAX, FS:[EDI]
        let code: &[u8] =
            if mode == Mode::Protected16 { &[0x67, 0x64, 0x8b, 0x07] } else { &[0x64, 0x8b, 0x07] };
        let mut case = case(mode, code);
        case.before.gpr[7] = offset(mode, DATA).into();
        case.patches[0] = patch(DATA + FS_SHIFT, &[0x78, 0x56, 0x34, 0x12]);
        let wanted = if mode == Mode::Protected16 { 0x5678 } else { 0x1234_5678 };
        assert_eq!(run(case).after.gpr[0], wanted, "{mode:?}");
    }
}

#[test]
fn segments_that_a_case_loads_are_its_own() {
    for mode in Mode::ALL {
        // MOV FS, AX with a null selector; then a load by FS.
        let null = case(mode, &[0x8e, 0xe0]);
        let mut load = case(mode, &[0x67, 0x64, 0x8a, 0x07]);
        if mode == Mode::Protected32 {
            load = case(mode, &[0x64, 0x8a, 0x07]);
        }
        load.before.gpr[7] = offset(mode, DATA).into();
        load.patches[0] = patch(DATA + FS_SHIFT, &[0x99]);
        let answers = Native::start().unwrap().run(&[null, load]).unwrap();
        assert_eq!(answers[0].as_ref().unwrap().fault, None);
        assert_eq!(answers[1].as_ref().unwrap().after.gpr[0], 0x99, "{mode:?}");
    }
    // MOV FS, AX: a kernel's segment is refused.
    let mut kernel = case(Mode::Protected32, &[0x8e, 0xe0]);
    kernel.before.gpr[0] = 0x10;
    assert_eq!(fault_of(kernel), Fault { vector: 13, error_code: 0x10, cr2: 0 });
}

#[test]
fn a_repeated_string_instruction_stops_after_one_iteration() {
    // REP STOSB
    let mut case = case(Mode::Long64, &[0xf3, 0xaa]);
    (case.before.gpr[1], case.before.gpr[7], case.before.gpr[0]) = (3, DATA.into(), 0x5a);
    case.patches[0] = patch(DATA, &[1, 2]);
    let outcome = run(case);
    let after = outcome.after;
    assert_eq!((after.gpr[1], after.gpr[7], after.rip), (2, u64::from(DATA) + 1, CODE.into()));
    assert_eq!(changed(&outcome, DATA, 2), [0x5a, 2]);
}

#[test]
fn page_faults_have_their_error_codes_and_addresses() {
    let fault = |error_code, cr2: u64| Fault { vector: 14, error_code, cr2 };
    for mode in Mode::ALL {
        // MOV AL, [EDI]; MOV [EDI], AL.
        let (load, store): (&[u8], &[u8]) = if mode == Mode::Protected16 {
            (&[0x8a, 0x05], &[0x88, 0x05])
        } else {
            (&[0x8a, 0x07], &[0x88, 0x07])
        };
        let at = |code, address| {
            let mut case = case(mode, code);
            case.before.gpr[7] = offset(mode, address).into();
            case
        };
        let hole = DATA + 2 * PAGE;
        assert_eq!(fault_of(at(load, hole)), fault(4, hole.into()), "{mode:?}");
        assert_eq!(fault_of(at(store, hole)), fault(6, hole.into()));
        assert_eq!(fault_of(at(store, READ_ONLY + 5)), fault(7, (READ_ONLY + 5).into()));
        assert_eq!(fault_of(at(store, CODE)), fault(7, CODE.into()));
        // Code that goes on in a page that is not there: 66 is a prefix everywhere.
        let mut cut = case(mode, &[0x66]);
        cut.before.rip = u64::from(offset(mode, CODE + PAGE - 1));
        let outcome = run(cut);
        assert_eq!(outcome.fault, Some(fault(0x14, (CODE + PAGE).into())), "{mode:?}");
        assert_eq!((outcome.after.rip, outcome.after.rflags), (cut.before.rip, STEPPED | RF));
    }
    // JMP RAX into data retires, and the fetch is the next instruction's.
    let mut jump = case(Mode::Long64, &[0xff, 0xe0]);
    jump.before.gpr[0] = DATA.into();
    let outcome = run(jump);
    assert_eq!((outcome.fault, outcome.after.rip), (None, DATA.into()));
}

#[test]
fn faults_without_an_address_have_their_vectors() {
    let fault = |vector, error_code| Fault { vector, error_code, cr2: 0 };
    // DIV CL by zero; UD2; HLT and IN at privilege level 3.
    for mode in Mode::ALL {
        assert_eq!(fault_of(case(mode, &[0xf6, 0xf1])), fault(0, 0), "{mode:?}");
        assert_eq!(fault_of(case(mode, &[0x0f, 0x0b])), fault(6, 0));
        assert_eq!(fault_of(case(mode, &[0xf4])), fault(13, 0));
        assert_eq!(fault_of(case(mode, &[0xec])), fault(13, 0));
        let outcome = run(case(mode, &[0xcc]));
        assert_eq!(outcome.fault, Some(fault(3, 0)));
        assert_eq!(outcome.after.rip, case(mode, &[0xcc]).before.rip + 1);
    }
    // MOV AL, [RDI] at a non-canonical address, and the same by RBP.
    let mut case64 = case(Mode::Long64, &[0x8a, 0x07]);
    case64.before.gpr[7] = 1 << 47;
    assert_eq!(fault_of(case64), fault(13, 0));
    let mut by_stack = case(Mode::Long64, &[0x8a, 0x45, 0x00]);
    by_stack.before.gpr[5] = 1 << 47;
    assert_eq!(fault_of(by_stack), fault(12, 0));
    // MOV EAX, [RDI] misaligned with AC set.
    let mut misaligned = case(Mode::Long64, &[0x8b, 0x07]);
    misaligned.before.gpr[7] = (DATA + 1).into();
    misaligned.before.rflags |= 1 << 18;
    assert_eq!(fault_of(misaligned), fault(17, 0));
    // INTO with OF set; BOUND AX, [DI] outside.
    let mut overflow = case(Mode::Protected32, &[0xce]);
    overflow.before.rflags |= 1 << 11;
    assert_eq!(run(overflow).fault, Some(fault(4, 0)));
    let mut bound = case(Mode::Protected16, &[0x62, 0x05]);
    (bound.before.gpr[7], bound.before.gpr[0]) = (offset(Mode::Protected16, DATA).into(), 9);
    bound.patches[0] = patch(DATA, &[1, 0, 5, 0]);
    assert_eq!(fault_of(bound), fault(5, 0));
    // WAIT with an unmasked x87 error pending.
    let mut pending = case(Mode::Long64, &[0x9b]);
    (pending.before.fcw, pending.before.fsw) = (0x37e, 0x8081);
    assert_eq!(fault_of(pending), fault(16, 0));
    // DIVPS XMM0, XMM1 by zero, unmasked.
    let mut simd = case(Mode::Long64, &[0x0f, 0x5e, 0xc1]);
    simd.before.mxcsr = 0x1f80 & !(1 << 9);
    simd.before.ymm[0] = [0x3f80_0000_3f80_0000; 4];
    let outcome = run(simd);
    assert_eq!(outcome.fault, Some(fault(19, 0)));
    assert_eq!(outcome.after.mxcsr, simd.before.mxcsr | 1 << 2);
}

#[test]
fn the_16_bit_segments_end_where_the_rim_does() {
    // MOV AX, [DI] with its second byte behind the limit: #GP; by BP: #SS.
    let mut data = case(Mode::Protected16, &[0x8b, 0x05]);
    data.before.gpr[7] = (RIM - BASE + PAGE - 1).into();
    assert_eq!(fault_of(data), Fault { vector: 13, error_code: 0, cr2: 0 });
    let mut stack = case(Mode::Protected16, &[0x8b, 0x46, 0x00]);
    stack.before.gpr[5] = data.before.gpr[7];
    assert_eq!(fault_of(stack), Fault { vector: 12, error_code: 0, cr2: 0 });
}

#[test]
fn a_case_that_calls_the_kernel_is_refused_and_the_next_runs() {
    // SYSCALL, as getpid(2), from below 4 GiB; INT 80h.
    let mut call = case(Mode::Long64, &[0x0f, 0x05]);
    call.before.gpr[0] = libc::SYS_getpid as u64;
    let nop = case(Mode::Protected32, &[0x90]);
    let answers =
        Native::start().unwrap().run(&[call, nop, case(Mode::Protected32, &[0xcd, 0x80]), nop]).unwrap();
    assert_eq!([&answers[0], &answers[2]], [&Err(Lost::SystemCall); 2]);
    assert!(answers[1].is_ok() && answers[3].is_ok());
}

#[test]
fn a_dead_child_costs_its_case_and_no_other() {
    let mut native = Native::start().unwrap();
    let nop = case(Mode::Long64, &[0x90]);
    assert!(native.run(&[nop; 3]).unwrap().iter().all(Result::is_ok));
    // SAFETY: our own child.
    unsafe { libc::kill(native.pid, libc::SIGKILL) };
    let answers = native.run(&[nop; 2 * BATCH]).unwrap();
    assert_eq!(answers.len(), 2 * BATCH);
    assert!(matches!(answers[0], Err(Lost::Died(_))));
    assert!(answers[1..].iter().all(Result::is_ok));
}

#[test]
fn a_child_that_does_not_come_back_is_replaced() {
    let mut native = Native::start().unwrap();
    native.longest_stall = Duration::from_millis(200);
    // SAFETY: our own child; no instruction hangs, but a stopped process does.
    unsafe { libc::kill(native.pid, libc::SIGSTOP) };
    let answers = native.run(&[case(Mode::Long64, &[0x90]); 3]).unwrap();
    assert_eq!(answers[0], Err(Lost::Hung));
    assert!(answers[1..].iter().all(Result::is_ok));
}

#[test]
fn many_cases_in_all_modes_come_back_in_order() {
    let mut native = Native::start().unwrap();
    // MOV AX, imm16 in every mode, the number of the case.
    let cases: Vec<Case> = (0..3000u32)
        .map(|n| {
            let mode = Mode::ALL[n as usize / 7 % 3];
            let [low, high, ..] = n.to_le_bytes();
            match mode {
                Mode::Protected16 => case(mode, &[0xb8, low, high]),
                _ => case(mode, &[0x66, 0xb8, low, high]),
            }
        })
        .collect();
    for (n, answer) in native.run(&cases).unwrap().into_iter().enumerate() {
        assert_eq!(answer.unwrap().after.gpr[0], n as u64);
    }
}

#[test]
fn cases_outside_the_arena_are_refused() {
    let mut native = Native::start().unwrap();
    let mut outside = case(Mode::Long64, &[0x90]);
    outside.before.rip = (CODE + PAGE).into();
    assert!(native.run(&[outside]).is_err());
    let mut wild = case(Mode::Long64, &[0x90]);
    wild.patches[1] = patch(DATA + 2 * PAGE - 1, &[0, 0]);
    assert!(native.run(&[wild]).is_err());
    assert_eq!(Registers::default().rflags, STEPPED);
}
