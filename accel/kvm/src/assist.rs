//! What the assistant does: a stretch of instructions in KVM's stead, with the same board and the same positions.
//!
//! Not responsible for: when it is called (`run`, `exits`).
//!
//! A move of the whole state costs more than many interpreted instructions, so the assistant goes on for a while. Nobody can tell from
//! a run how far.

use crate::engine::{Home, Kvm};
use crate::error::KvmError;
use crate::figures::Assist;
use crate::run::{Going, Next};
use gemel_machine::{Aim, Attention, CpuIo, EngineError, Exit, Position, Query};
use gemel_x86::{CpuState, msr};
use kvm_bindings::kvm_regs;

/// Entries to KVM since the last move below which the assistant was left too early.
const FEW: u64 = 4;
/// KVM finishes an access in at most so many pieces.
const MOST_PIECES: u32 = 64;

impl Kvm {
    /// A run that was aimed at a boundary: only the assistant finds it.
    pub(crate) fn run_aimed(&mut self, io: &mut dyn CpuIo) -> Result<Exit, EngineError> {
        let aim = std::mem::replace(&mut self.aim, Aim::NONE);
        if self.shut_down {
            return Ok(Exit::Shutdown);
        }
        self.move_to_assistant()?;
        self.figures.assisted(Assist::Aim);
        self.assistant.aim(aim);
        self.assistant.run(io)
    }

    /// The assistant, which has the state, goes on for some steps.
    pub(crate) fn assist(
        &mut self,
        cause: Assist,
        steps: u64,
        io: &mut dyn CpuIo,
    ) -> Result<Next, EngineError> {
        self.figures.assisted(cause);
        self.assistant.aim(Aim { steps, ..Aim::NONE });
        // Once it was kicked, the engine comes back at the next exit.
        let kicked = self.kick.kicks() != 0;
        let stop = if kicked { self.assistant.position().count + 1 } else { u64::MAX };
        match self.assistant.run(&mut Bounded { vector: None, stop, io })? {
            Exit::Yield => {
                let want = io.attention(self.assistant.position());
                Ok(Next::Boundary(Going { want, at_exit: false }))
            }
            exit => Ok(Next::Return(exit)),
        }
    }

    /// The state goes to the assistant.
    pub(crate) fn move_to_assistant(&mut self) -> Result<(), EngineError> {
        if self.home == Home::Kvm {
            let state = self.state()?;
            self.hand_over(&state)?;
        }
        Ok(())
    }

    /// The assistant has the state from now on.
    pub(crate) fn hand_over(&mut self, state: &CpuState) -> Result<(), EngineError> {
        self.stretch = if self.entries < FEW {
            (self.stretch * 2).min(self.quirks.longest_stretch)
        } else {
            self.quirks.stretch
        };
        self.figures.moved();
        self.assistant.restore(state)?;
        self.home = Home::Assistant;
        Ok(())
    }

    /// The state goes to KVM.
    pub(crate) fn move_to_kvm(&mut self, state: &CpuState, io: &mut dyn CpuIo) -> Result<(), EngineError> {
        let at = self.assistant.position();
        let priority = io.cr8_read(at);
        let (base, _) = io.msr_read(at, msr::APIC_BASE);
        self.guest.load(state, priority, base.unwrap_or_default())?;
        (self.count, self.halted) = (state.count, state.halted);
        (self.home, self.entries) = (Home::Kvm, 0);
        self.figures.moved();
        Ok(())
    }

    /// The guest left KVM in the middle of an instruction that began with these registers: what KVM has done of it is undone, and the
    /// assistant executes it.
    pub(crate) fn execute_again(
        &mut self,
        before: kvm_regs,
        cause: Assist,
        io: &mut dyn CpuIo,
    ) -> Result<Next, EngineError> {
        self.guest.regs = before;
        let state = self.state()?;
        let kept = self.guest.destinations();
        let mut pieces = 0;
        // KVM insists on an answer. What it makes of this one is overwritten: the registers by the assistant's, memory by what was there.
        while self.guest.complete()? != crate::left::Left::Interrupted {
            pieces += 1;
            if pieces == MOST_PIECES {
                return Err(KvmError::Stopped("an access does not come to an end".into()).into());
            }
        }
        self.guest.put_back(&kept);
        self.hand_over(&state)?;
        self.assist(cause, self.stretch, io)
    }

    /// The assistant delivers an interrupt that was acknowledged.
    pub(crate) fn deliver_with_assistant(
        &mut self,
        vector: u8,
        io: &mut dyn CpuIo,
    ) -> Result<(), EngineError> {
        self.move_to_assistant()?;
        self.figures.assisted(Assist::Delivery);
        self.assistant.aim(Aim::STEP);
        self.assistant.run(&mut Bounded { vector: Some(vector), stop: u64::MAX, io }).map(drop)
    }
}

/// A board of which the assistant sees less: it stops at the latest at a count, or the next interrupt was fetched already.
struct Bounded<'a> {
    vector: Option<u8>,
    stop: u64,
    io: &'a mut dyn CpuIo,
}

impl Bounded<'_> {
    fn bounded(&self, want: Attention) -> Attention {
        match self.vector {
            Some(_) => Attention { stop: u64::MAX, interrupt: true, nmi: false },
            None => Attention { stop: want.stop.min(self.stop), ..want },
        }
    }

    fn both<T>(&self, (value, want): (T, Attention)) -> (T, Attention) {
        (value, self.bounded(want))
    }
}

impl CpuIo for Bounded<'_> {
    fn attention(&mut self, at: Position) -> Attention {
        let want = self.io.attention(at);
        self.bounded(want)
    }
    fn port_read(&mut self, at: Position, port: u16, size: u8) -> (u32, Attention) {
        let answer = self.io.port_read(at, port, size);
        self.both(answer)
    }
    fn port_write(&mut self, at: Position, port: u16, size: u8, value: u32) -> Attention {
        let want = self.io.port_write(at, port, size, value);
        self.bounded(want)
    }
    fn mmio_read(&mut self, at: Position, address: u64, size: u8) -> (u64, Attention) {
        let answer = self.io.mmio_read(at, address, size);
        self.both(answer)
    }
    fn mmio_write(&mut self, at: Position, address: u64, size: u8, value: u64) -> Attention {
        let want = self.io.mmio_write(at, address, size, value);
        self.bounded(want)
    }
    fn msr_read(&mut self, at: Position, number: u32) -> (Option<u64>, Attention) {
        let answer = self.io.msr_read(at, number);
        self.both(answer)
    }
    fn msr_write(&mut self, at: Position, number: u32, value: u64) -> (Option<()>, Attention) {
        let answer = self.io.msr_write(at, number, value);
        self.both(answer)
    }
    fn cr8_read(&mut self, at: Position) -> u8 {
        self.io.cr8_read(at)
    }
    fn cr8_write(&mut self, at: Position, value: u8) -> Attention {
        let want = self.io.cr8_write(at, value);
        self.bounded(want)
    }
    fn acknowledge_irq(&mut self, at: Position) -> (u8, Attention) {
        let answer = match self.vector.take() {
            Some(vector) => (vector, self.io.attention(at)),
            None => self.io.acknowledge_irq(at),
        };
        self.both(answer)
    }
    fn acknowledge_nmi(&mut self, at: Position) -> Attention {
        let want = self.io.acknowledge_nmi(at);
        self.bounded(want)
    }
    fn float_error(&mut self, at: Position, waits: bool) -> (bool, Attention) {
        let answer = self.io.float_error(at, waits);
        self.both(answer)
    }
    fn query(&mut self, at: Position, query: Query) -> u64 {
        self.io.query(at, query)
    }
}
