//! The interpreter: an engine that executes the guest instruction by instruction, exactly.
//!
//! Not responsible for: devices and memory beyond RAM (`emu/machine`), speed by translation (`accel/jit`).
//!
//! `exec` drives blocks of decoded instructions (`blocks`, made by `lower`) whose handlers live under `isa`; `mmu`
//! translates. Nothing that is cached is visible: see [`Interp::flush`].

pub mod blocks;
mod bounds;
pub mod cpu;
mod debug;
mod exec;
mod extent;
pub mod fault;
mod filled;
pub mod flags;
mod float_error;
mod gate;
pub mod interrupt;
pub mod isa;
pub mod lower;
pub mod mmu;
mod msr;
pub mod op;
mod segmentation;
mod stack;
mod task;
mod thunk;

pub use thunk::missing_on_host;

use cpu::Cpu;
use gemel_machine::{Aim, CountKind, CpuIo, EngineError, Exit, GuestRam, Position, Steps, Vcpu};
use gemel_x86::{CpuModel, CpuState};
use std::sync::Arc;

/// The interpreter as an engine.
pub struct Interp {
    cpu: Box<Cpu>,
}

impl Interp {
    /// An interpreter in its reset state, for a CPU model, on a machine's RAM.
    pub fn new(model: CpuModel, ram: Arc<GuestRam>) -> Self {
        Self { cpu: Box::new(Cpu::new(model, ram)) }
    }

    /// What positions count. To be called before anything ran.
    #[must_use]
    pub fn counting(mut self, kind: CountKind) -> Self {
        self.cpu.bounds.count(kind);
        self
    }

    /// [`Vcpu::restore`] for many short runs over one memory: keeps what was translated and decoded, which is right as
    /// long as memory changed through [`GuestRam::write`] only.
    pub fn restore_warm(&mut self, state: &CpuState) {
        self.cpu.set_registers(state);
    }
}

impl Vcpu for Interp {
    fn run(&mut self, io: &mut dyn CpuIo) -> Result<Exit, EngineError> {
        Ok(self.cpu.run(io))
    }

    fn position(&self) -> Position {
        self.cpu.position()
    }

    fn steps(&self) -> Steps {
        Steps::exactly(self.cpu.bounds.made(self.cpu.count))
    }

    fn save(&mut self) -> Result<CpuState, EngineError> {
        Ok(self.cpu.state())
    }

    fn restore(&mut self, state: &CpuState) -> Result<(), EngineError> {
        self.cpu.set_state(state);
        Ok(())
    }

    fn flush(&mut self) {
        self.cpu.flush_caches();
    }

    fn aim(&mut self, aim: Aim) {
        self.cpu.bounds.set_aim(aim);
    }
}
