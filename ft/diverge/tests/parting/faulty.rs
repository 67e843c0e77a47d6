//! An engine with a fault: the interpreter, which at one count changes something that no instruction changed, or has one
//! mnemonic leave a wrong flag wherever it stands.
//!
//! Not responsible for: being found out.

use gemel_interp::Interp;
use gemel_machine::{
    Aim, Attention, CpuIo, EngineError, Exit, GuestRam, Position, Steps, Vcpu, forward_to_io,
};
use gemel_x86::CpuState;
use iced_x86::{Decoder, DecoderOptions, Mnemonic};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A part of the CPU in which a bit can be wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    General(usize),
    Vector(usize),
    Float(usize),
    Rip,
    Flags,
    Cr2,
    Star,
}

/// What goes wrong.
#[allow(dead_code)] // not every test that has this file has every fault
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// Nothing.
    None,
    /// A bit of a register, once the count is reached.
    Register { count: u64, part: Part, bit: u32 },
    /// Bits of the byte at a physical address, once the count is reached.
    Memory { count: u64, address: u64, bits: u8 },
    /// A flag, after every instruction of a mnemonic.
    Mnemonic { mnemonic: Mnemonic, flag: u64 },
    /// Bit 40 of RAX, after an instruction of a mnemonic while RBX is this.
    Once { mnemonic: Mnemonic, rbx: u64 },
}

impl Fault {
    /// Where it strikes.
    fn count(self) -> Option<u64> {
        match self {
            Self::None | Self::Mnemonic { .. } | Self::Once { .. } => None,
            Self::Register { count, .. } | Self::Memory { count, .. } => Some(count),
        }
    }
}

pub struct Faulty {
    inner: Interp,
    ram: Arc<GuestRam>,
    fault: Fault,
    aim: Aim,
    /// By RIP: the mnemonic there, and where the next instruction is. Code of 64-bit guests mapped one to one that do not change it.
    seen: BTreeMap<u64, (Mnemonic, u64)>,
}

impl Faulty {
    pub fn new(inner: Interp, ram: Arc<GuestRam>, fault: Fault) -> Self {
        Self { inner, ram, fault, aim: Aim::NONE, seen: BTreeMap::new() }
    }

    fn strike(&mut self) -> Result<(), EngineError> {
        let mut state = self.inner.save()?;
        match self.fault {
            Fault::None => {}
            Fault::Register { part, bit, .. } => {
                let (low, wide) = (1u64 << (bit & 63), 1u128 << (bit & 127));
                match part {
                    Part::General(n) => state.gpr[n] ^= low,
                    Part::Vector(n) => state.xmm[n] ^= wide,
                    Part::Float(n) => state.st[n] ^= wide,
                    Part::Rip => state.rip ^= low,
                    Part::Flags => state.rflags ^= low,
                    Part::Cr2 => state.cr2 ^= low,
                    Part::Star => state.star ^= low,
                }
            }
            Fault::Mnemonic { flag, .. } => state.rflags ^= flag,
            Fault::Once { rbx, .. } if state.gpr[3] != rbx => return Ok(()),
            Fault::Once { .. } => state.gpr[0] ^= 1 << 40,
            Fault::Memory { address, bits, .. } => {
                let [byte] = self.ram.read_array(address).map_err(|e| EngineError::State(e.to_string()))?;
                self.ram.write(address, &[byte ^ bits]).map_err(|e| EngineError::State(e.to_string()))?;
            }
        }
        self.inner.restore(&state)
    }

    fn instruction(&mut self, rip: u64) -> (Mnemonic, u64) {
        let ram = &self.ram;
        *self.seen.entry(rip).or_insert_with(|| {
            let mut bytes = [0; 15];
            let _ = ram.read(rip, &mut bytes);
            let instruction = Decoder::with_ip(64, &bytes, rip, DecoderOptions::NONE).decode();
            (instruction.mnemonic(), instruction.next_ip())
        })
    }

    /// Step by step, with a look at each instruction.
    fn run_with_mnemonic(&mut self, io: &mut dyn CpuIo, wrong: Mnemonic) -> Result<Exit, EngineError> {
        loop {
            let before = self.position();
            let (mnemonic, next) = self.instruction(before.rip);
            let mut bounded = Bounded { io: &mut *io, bound: u64::MAX, wanted: u64::MAX };
            self.inner.aim(Aim::STEP);
            let exit = self.inner.run(&mut bounded)?;
            let wanted = bounded.wanted;
            let after = self.position();
            if mnemonic == wrong && after.rip == next {
                self.strike()?;
            }
            self.aim.steps = self.aim.steps.saturating_sub(1);
            let reached = self.aim.steps == 0 || self.aim.rip == Some(after.rip);
            if exit != Exit::Yield || reached || after.count >= wanted {
                self.aim = Aim::NONE;
                return Ok(if after.count >= wanted && exit == Exit::Yield { Exit::Stop } else { exit });
            }
        }
    }
}

impl Vcpu for Faulty {
    fn run(&mut self, io: &mut dyn CpuIo) -> Result<Exit, EngineError> {
        if let Fault::Mnemonic { mnemonic, .. } | Fault::Once { mnemonic, .. } = self.fault {
            return self.run_with_mnemonic(io, mnemonic);
        }
        let Some(due) = self.fault.count().filter(|due| self.position().count < *due) else {
            return self.inner.run(io);
        };
        let exit = self.inner.run(&mut Bounded { io, bound: due, wanted: u64::MAX })?;
        if self.position().count == due {
            self.strike()?;
        }
        Ok(exit)
    }

    fn position(&self) -> Position {
        self.inner.position()
    }

    fn steps(&self) -> Steps {
        self.inner.steps()
    }

    fn aim(&mut self, aim: Aim) {
        self.aim = aim;
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
    /// What the machine wants.
    wanted: u64,
}

impl Bounded<'_> {
    fn bound(&mut self, attention: Attention) -> Attention {
        self.wanted = attention.stop;
        Attention { stop: attention.stop.min(self.bound), ..attention }
    }
}

impl CpuIo for Bounded<'_> {
    forward_to_io!(
        attention,
        port_read,
        port_write,
        mmio_read,
        mmio_write,
        msr_read,
        msr_write,
        cr8_read,
        cr8_write,
        acknowledge_irq,
        acknowledge_nmi,
        float_error,
        query
    );
}
