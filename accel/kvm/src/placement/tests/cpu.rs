//! A simulated CPU: a small machine with branches, loops, REP and exits, whose every run is the same but for the host's signals.

use super::chance::Chance;
use super::pmu::Pmu;
use crate::placement::{Guest, Return};
use gemel_machine::EngineError;
use std::cell::RefCell;
use std::rc::Rc;

#[derive(Clone, Copy, Debug)]
enum Instruction {
    Add(usize, u64),
    Mix(usize, usize),
    Store(usize, usize),
    Load(usize, usize),
    /// Taken if this bit of the register is set.
    Branch(usize, u32, u64),
    /// Counts RCX down and is taken unless that makes it zero.
    Loop(u64),
    Jump(u64),
    SetRcx(usize, u64),
    /// One iteration a step, until RCX is zero.
    Rep(usize, usize),
    Exit,
    Pause,
}

/// All that the guest is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct State {
    pub(super) rip: u64,
    pub(super) rcx: u64,
    registers: [u64; 4],
    memory: [u64; 4],
}

pub(super) struct Cpu {
    program: Rc<[Instruction]>,
    pub(super) state: State,
    /// What a perfect counter would say.
    pub(super) branches: u64,
    pub(super) exits: u64,
    pub(super) steps: u64,
    pmu: Rc<RefCell<Pmu>>,
    host: Chance,
    /// Steps until the host's timer kicks the vCPU.
    kick: u64,
}

impl Cpu {
    pub(super) fn new(seed: u64, host: u64, pmu: Rc<RefCell<Pmu>>) -> Self {
        let mut chance = Chance(seed);
        let state = State {
            rip: 0,
            rcx: chance.below(20),
            registers: std::array::from_fn(|_| chance.next()),
            memory: std::array::from_fn(|_| chance.next()),
        };
        let program = program(&mut chance);
        Self { program, state, branches: 0, exits: 0, steps: 0, pmu, host: Chance(host), kick: 3_000 }
    }

    /// One step, and whether it retired a conditional branch; `None`: the guest leaves, and nothing is done yet.
    fn execute(&mut self) -> Option<bool> {
        self.steps += 1;
        let State { rip, rcx, registers, memory } = &mut self.state;
        let at = *rip;
        let next = (at + 1) % self.program.len() as u64;
        *rip = next;
        match self.program[at as usize] {
            Instruction::Add(r, value) => registers[r] = registers[r].wrapping_add(value),
            Instruction::Mix(r, s) => registers[r] = (registers[r] ^ registers[s]).rotate_left(7),
            Instruction::Store(m, r) => memory[m] = memory[m].wrapping_mul(5).wrapping_add(registers[r]),
            Instruction::Load(r, m) => registers[r] = memory[m],
            Instruction::Branch(r, bit, target) => {
                if registers[r] >> bit & 1 == 1 {
                    *rip = target;
                }
                return Some(true);
            }
            Instruction::Loop(target) => {
                *rcx = rcx.wrapping_sub(1) & 0x3ff;
                if *rcx != 0 {
                    *rip = target;
                }
                return Some(true);
            }
            Instruction::Jump(target) => *rip = target,
            Instruction::SetRcx(r, mask) => *rcx = registers[r] & mask,
            Instruction::Rep(m, r) => {
                if *rcx != 0 {
                    *rcx -= 1;
                    memory[m] = memory[m].wrapping_add(registers[r]);
                }
                if *rcx != 0 {
                    *rip = at;
                }
            }
            Instruction::Exit => {
                *rip = at;
                return None;
            }
            Instruction::Pause => {}
        }
        Some(false)
    }

    /// Serves the exit that the guest left by.
    pub(super) fn serve(&mut self) {
        self.exits += 1;
        self.state.rip = (self.state.rip + 1) % self.program.len() as u64;
        self.state.registers[0] = self.state.registers[0].rotate_left(11).wrapping_add(self.exits);
    }

    /// One step in the assistant, which no PMU sees.
    pub(super) fn interpret(&mut self) {
        match self.execute() {
            Some(branch) => self.branches += u64::from(branch),
            None => self.serve(),
        }
    }

    /// One step on the vCPU. `Ok` says whether a signal came behind it.
    fn native(&mut self) -> Result<bool, Return> {
        let branch = self.execute().ok_or(Return::Exit)?;
        self.branches += u64::from(branch);
        let overflow = self.pmu.borrow_mut().retired(branch);
        self.kick -= 1;
        let kicked = self.kick == 0;
        if kicked {
            self.kick = 2_000 + self.host.below(4_000);
        }
        Ok(overflow || kicked)
    }
}

impl Guest for Cpu {
    fn rip(&mut self) -> Result<u64, EngineError> {
        Ok(self.state.rip)
    }

    fn resume(&mut self, breakpoint: Option<u64>) -> Result<Return, EngineError> {
        if self.host.once_in(50) {
            return Ok(Return::Signal);
        }
        let mut from = None;
        loop {
            // A breakpoint hits where the guest is let go, and at every arrival, but not between iterations.
            let rip = self.state.rip;
            if breakpoint == Some(rip) && from != Some(rip) {
                return Ok(Return::Boundary);
            }
            from = matches!(self.program[rip as usize], Instruction::Rep(..)).then_some(rip);
            match self.native() {
                Ok(false) => {}
                Ok(true) => return Ok(Return::Signal),
                Err(exit) => return Ok(exit),
            }
        }
    }

    fn step(&mut self) -> Result<Return, EngineError> {
        if self.host.once_in(50) {
            return Ok(Return::Signal);
        }
        Ok(match self.native() {
            Ok(false) => Return::Boundary,
            Ok(true) => Return::Signal,
            Err(exit) => exit,
        })
    }
}

/// Every way through it passes the conditional branch at its end, so no run stays without branches for ever.
fn program(chance: &mut Chance) -> Rc<[Instruction]> {
    let length = 12 + chance.below(40);
    let anywhere = |chance: &mut Chance| chance.below(length);
    let mut program: Vec<Instruction> = Vec::new();
    for at in 0..length - 1 {
        let (r, s) = (chance.below(4) as usize, chance.below(4) as usize);
        program.push(match chance.below(24) {
            0..4 => Instruction::Add(r, chance.next() >> chance.below(64)),
            4..7 => Instruction::Mix(r, s),
            7..10 => Instruction::Store(s, r),
            10..12 => Instruction::Load(r, s),
            12..16 => Instruction::Branch(r, chance.below(64) as u32, anywhere(chance)),
            16..18 => Instruction::Loop(anywhere(chance)),
            18 => Instruction::Jump((at + 1 + chance.below(length - at - 1)).min(length - 1)),
            19 => Instruction::SetRcx(r, (1 << chance.below(7)) - 1),
            20 | 21 => Instruction::Rep(s, r),
            22 if chance.once_in(3) => Instruction::Exit,
            _ => Instruction::Pause,
        });
    }
    program.push(Instruction::Branch(chance.below(4) as usize, chance.below(64) as u32, 0));
    program.into()
}
