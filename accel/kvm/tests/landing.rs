//! Boundaries between two exits: where a kick leads, and what is aimed at.

#![allow(clippy::unwrap_used)] // a host that refuses fails the test

mod board;

use board::*;
use gemel_machine::{Aim, Exit, Vcpu};
use gemel_x86::{CpuModel, CpuState};
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
