//! Boundaries between two exits: where a kick leads, and what is aimed at.

#![allow(clippy::unwrap_used)] // a host that refuses fails the test

mod board;

use board::*;
use gemel_kvm::placement::Choice;
use gemel_kvm::{Native, Quirks};
use gemel_machine::{Aim, Exit, Vcpu};
use gemel_x86::segment::CS;
use gemel_x86::{CpuModel, CpuState, Segment};
use iced_x86::code_asm::*;

const START: u64 = 0x1000;

/// A guest that computes for ever: RBX counts, RCX and RSI follow.
fn counting() -> Program {
    let mut memory = long_mode_memory();
    memory.push(assembled(64, START, |a| {
        let mut again = a.create_label();
        a.set_label(&mut again)?;
        a.inc(rbx)?;
        a.lea(rcx, qword_ptr(rbx + rbx * 2))?;
        a.add(rsi, rcx)?;
        a.jmp(again)
    }));
    Program { model: CpuModel::x86_64_v2(), memory, state: long_mode(START) }
}

/// In ring 3, where the descriptor tables of the state have a segment for it.
fn in_ring_3(state: &CpuState) -> CpuState {
    let mut state = state.clone();
    state.cpl = 3;
    (state.seg[1].selector, state.seg[1].attr) = (USER_CODE as u16, 0xafb);
    (state.seg[2].selector, state.seg[2].attr) = (USER_DATA as u16, 0xcf3);
    state
}

#[test]
fn a_kick_leads_to_a_boundary_that_the_interpreter_finds_too() {
    let program = counting();
    for (quirks, start) in
        ways().into_iter().flat_map(|q| [(q, program.state.clone()), (q, in_ring_3(&program.state))])
    {
        let ram = program.ram();
        let mut kvm = match kvm(&program.model, &ram, quirks) {
            Ok(kvm) => kvm,
            Err(error) => return skipped(&error),
        };
        kvm.restore(&start).unwrap();
        let mut board = Board::new();
        for _ in 0..5 {
            let found = loop {
                assert_eq!(kvm.run(&mut board).unwrap(), Exit::Yield);
                let found = kvm.save().unwrap();
                assert!(found.count == 0 && board.heard.is_empty());
                if found.gpr[3] > 2 {
                    break found;
                }
            };
            // The sum of 3 n up to two rounds before, and then a few steps.
            let n = found.gpr[3] - 2;
            let mut near = start.clone();
            near.gpr[3] = n;
            near.gpr[1] = 3 * n;
            near.gpr[6] = 3 * (n * (n + 1) / 2);
            let mut interp = interp(&program.model, &ram);
            interp.restore(&near).unwrap();
            let there = (0..16).any(|_| {
                run_to(&mut interp, &mut Board::new(), Aim::STEP);
                interp.save().unwrap() == found
            });
            assert!(there, "no boundary is {:x?} at {:#x}", found.gpr, found.rip);
        }
        assert!(kvm.figures().kicks() >= 5);
    }
}

#[test]
fn aims_are_reached_as_on_the_interpreter() {
    let program = counting();
    let ram = program.ram();
    let mut kvm = match kvm(&program.model, &ram, ways()[0]) {
        Ok(kvm) => kvm,
        Err(error) => return skipped(&error),
    };
    let mut interp = interp(&program.model, &ram);
    for aim in [Aim::STEP, Aim { steps: 7, ..Aim::NONE }, Aim { rip: Some(START + 3), ..Aim::NONE }] {
        kvm.restore(&program.state).unwrap();
        interp.restore(&program.state).unwrap();
        for _ in 0..5 {
            // From KVM, in which the guest has gone on for a while.
            run_to(&mut kvm, &mut Board::new(), Aim::NONE);
            interp.restore(&kvm.save().unwrap()).unwrap();
            for _ in 0..3 {
                assert_eq!(run_to(&mut kvm, &mut Board::new(), aim), Exit::Yield);
                assert_eq!(run_to(&mut interp, &mut Board::new(), aim), Exit::Yield);
                assert_eq!(kvm.save().unwrap().differences(&interp.save().unwrap(), false), []);
            }
        }
    }
}

/// Boundaries of a program, in the order in which the interpreter comes by them, each as it is looked for, and its state.
fn boundaries(program: &Program, each: usize, most: usize) -> Vec<(Aim, CpuState)> {
    let mut interp = interp(&program.model, &program.ram());
    interp.restore(&program.state).unwrap();
    let mut board = Board::new();
    let mut all = Vec::new();
    while interp.run_step(&mut board) == Exit::Yield && all.len() < most * each {
        let state = interp.save().unwrap();
        let aim =
            Aim { rip: Some(state.rip), rcx: Some(state.gpr[1]), linear: state.linear_rip(), steps: 1 << 20 };
        all.push((aim, state));
    }
    all.into_iter().step_by(each).collect()
}

trait Steps {
    fn run_step(&mut self, board: &mut Board) -> Exit;
}

impl<V: Vcpu> Steps for V {
    fn run_step(&mut self, board: &mut Board) -> Exit {
        self.aim(Aim::STEP);
        self.run(board).unwrap()
    }
}

#[test]
fn every_way_leads_to_the_same_boundaries() {
    // What a KVM emulates it also stops in, even where it does not obey in ring 3.
    let quirks = Quirks { native: Native::All, ..ways()[0] };
    let looped = assembled(16, 0x1000, |a| {
        let mut again = a.create_label();
        a.mov(cx, 40)?;
        a.set_label(&mut again)?;
        a.inc(ax)?;
        a.mov(word_ptr(0x500), ax)?;
        a.push(cx)?;
        a.pushf()?;
        a.mov(cx, 5)?;
        a.mov(di, 0x600)?;
        a.rep().stosb()?;
        a.pop(dx)?;
        a.pop(cx)?;
        a.dec(cx)?;
        a.jne(again)?;
        a.out(0x50, al)?;
        a.cli()?;
        a.hlt()
    });
    // Somewhere else than where RIP says.
    let mut state = real_mode(0x0100);
    state.seg[CS] = Segment::real(0x0f0);
    let real = Program { model: CpuModel::x86_64_v2(), memory: vec![looped], state };
    for (program, each) in [(real, 17), (counting(), 97)] {
        let wanted = boundaries(&program, each, 20);
        assert!(wanted.len() == 20);
        for way in Choice::ALL {
            let ram = program.ram();
            let mut kvm = match kvm(&program.model, &ram, quirks) {
                Ok(kvm) => kvm.placing(*way),
                Err(error) => return skipped(&error),
            };
            kvm.restore(&program.state).unwrap();
            let (mut found, mut aims) = (program.state.clone(), 0);
            for (n, (aim, state)) in wanted.iter().enumerate() {
                // As a machine does: until all of the state is the one that is meant.
                while !found.differences(state, false).is_empty() {
                    kvm.aim(*aim);
                    assert_eq!(
                        kvm.run(&mut Board::new()).unwrap(),
                        Exit::Yield,
                        "{way:?} to boundary {n}, at {:#x}",
                        found.rip
                    );
                    found = kvm.save().unwrap();
                    aims += 1;
                    assert!(aims < 100_000, "{way:?} does not come to boundary {n}");
                }
            }
            let placed = Choice::ALL.iter().map(|way| kvm.figures().placements(*way)).collect::<Vec<_>>();
            println!("{way:?}: {placed:?} of {aims}");
            assert!(kvm.figures().placements(*way) > aims / 2, "{way:?} was not taken: {placed:?} of {aims}");
        }
    }
}

#[test]
fn an_address_that_the_guest_never_comes_to_brings_every_way_back() {
    let program = counting();
    for way in Choice::ALL {
        let ram = program.ram();
        let mut kvm = match kvm(&program.model, &ram, Quirks { native: Native::All, ..ways()[0] }) {
            Ok(kvm) => kvm.placing(*way),
            Err(error) => return skipped(&error),
        };
        kvm.restore(&program.state).unwrap();
        let before = kvm.steps();
        while kvm.steps().at_least < before.at_least + 1_000 {
            kvm.aim(Aim { steps: 1_000, rip: Some(START + 1), rcx: None, linear: START + 1 });
            assert_eq!(kvm.run(&mut Board::new()).unwrap(), Exit::Yield);
        }
        assert!(kvm.steps().at_most > kvm.steps().at_least);
    }
}

#[test]
fn a_repetition_can_be_left_between_two_iterations() {
    let mut memory = long_mode_memory();
    memory.push(assembled(64, START, |a| {
        a.mov(rsi, 0x100000u64)?;
        a.mov(rdi, 0x180000u64)?;
        a.mov(ecx, 0x60000)?;
        a.rep().movsb()?;
        a.out(0x50, eax)?;
        a.cli()?;
        a.hlt()
    }));
    memory.push((0x100000, (0..0x60000u32).map(|n| ((n * 7) >> 3) as u8).collect()));
    Program { model: CpuModel::x86_64_v2(), memory, state: long_mode(START) }.same_on_both(&ways());
}
