//! An engine with a fault: the interpreter, which at one count changes something that no instruction changed.
//!
//! Not responsible for: being found out.

use gemel_interp::Interp;
use gemel_machine::{Aim, Attention, CpuIo, EngineError, Exit, GuestRam, Position, Query, Vcpu};
use gemel_x86::CpuState;
use std::sync::Arc;

/// What goes wrong, once the count is reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// Nothing.
    None,
    /// A bit of a general register.
    Register(u64, usize),
    /// The byte at a physical address.
    Memory(u64, u64),
    /// A status flag, which the next instruction that writes flags puts right.
    Flag(u64, u64),
}

impl Fault {
    fn count(self) -> u64 {
        match self {
            Self::None => u64::MAX,
            Self::Register(count, _) | Self::Memory(count, _) | Self::Flag(count, _) => count,
        }
    }
}

pub struct Faulty {
    inner: Interp,
    ram: Arc<GuestRam>,
    fault: Fault,
}

impl Faulty {
    pub fn new(inner: Interp, ram: Arc<GuestRam>, fault: Fault) -> Self {
        Self { inner, ram, fault }
    }

    fn strike(&mut self) -> Result<(), EngineError> {
        let mut state = self.inner.save()?;
        match self.fault {
            Fault::None => {}
            Fault::Register(_, register) => state.gpr[register] ^= 1 << 40,
            Fault::Flag(_, flag) => state.rflags ^= flag,
            Fault::Memory(_, address) => {
                let [byte] = self.ram.read_array(address).map_err(|e| EngineError::State(e.to_string()))?;
                self.ram.write(address, &[!byte]).map_err(|e| EngineError::State(e.to_string()))?;
            }
        }
        self.inner.restore(&state)
    }
}

impl Vcpu for Faulty {
    fn run(&mut self, io: &mut dyn CpuIo) -> Result<Exit, EngineError> {
        let due = self.fault.count();
        if self.position().count >= due {
            return self.inner.run(io);
        }
        let exit = self.inner.run(&mut Bounded { io, bound: due })?;
        if exit == Exit::Stop && self.position().count == due {
            self.strike()?;
        }
        Ok(exit)
    }

    fn position(&self) -> Position {
        self.inner.position()
    }

    fn aim(&mut self, aim: Aim) {
        self.inner.aim(aim);
    }

    fn save(&mut self) -> Result<CpuState, EngineError> {
        self.inner.save()
    }

    fn restore(&mut self, state: &CpuState) -> Result<(), EngineError> {
        self.inner.restore(state)
    }

    fn flush(&mut self) {
        self.inner.flush();
    }
}

/// The same, but with a stop at a count.
struct Bounded<'a> {
    io: &'a mut dyn CpuIo,
    bound: u64,
}

impl Bounded<'_> {
    fn bound(&self, attention: Attention) -> Attention {
        Attention { stop: attention.stop.min(self.bound), ..attention }
    }
}

impl CpuIo for Bounded<'_> {
    fn attention(&mut self, at: Position) -> Attention {
        let attention = self.io.attention(at);
        self.bound(attention)
    }
    fn port_read(&mut self, at: Position, port: u16, size: u8) -> (u32, Attention) {
        let (value, attention) = self.io.port_read(at, port, size);
        (value, self.bound(attention))
    }
    fn port_write(&mut self, at: Position, port: u16, size: u8, value: u32) -> Attention {
        let attention = self.io.port_write(at, port, size, value);
        self.bound(attention)
    }
    fn mmio_read(&mut self, at: Position, address: u64, size: u8) -> (u64, Attention) {
        let (value, attention) = self.io.mmio_read(at, address, size);
        (value, self.bound(attention))
    }
    fn mmio_write(&mut self, at: Position, address: u64, size: u8, value: u64) -> Attention {
        let attention = self.io.mmio_write(at, address, size, value);
        self.bound(attention)
    }
    fn msr_read(&mut self, at: Position, msr: u32) -> (Option<u64>, Attention) {
        let (value, attention) = self.io.msr_read(at, msr);
        (value, self.bound(attention))
    }
    fn msr_write(&mut self, at: Position, msr: u32, value: u64) -> (Option<()>, Attention) {
        let (done, attention) = self.io.msr_write(at, msr, value);
        (done, self.bound(attention))
    }
    fn cr8_read(&mut self, at: Position) -> u8 {
        self.io.cr8_read(at)
    }
    fn cr8_write(&mut self, at: Position, value: u8) -> Attention {
        let attention = self.io.cr8_write(at, value);
        self.bound(attention)
    }
    fn acknowledge_irq(&mut self, at: Position) -> (u8, Attention) {
        let (vector, attention) = self.io.acknowledge_irq(at);
        (vector, self.bound(attention))
    }
    fn acknowledge_nmi(&mut self, at: Position) -> Attention {
        let attention = self.io.acknowledge_nmi(at);
        self.bound(attention)
    }
    fn query(&mut self, at: Position, query: Query) -> u64 {
        self.io.query(at, query)
    }
}
