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
use gemel_machine::{Aim, Attention, CpuIo, EngineError, Exit, Position, forward_to_io};
use gemel_x86::{CpuState, msr};
use kvm_bindings::kvm_regs;

/// Entries to KVM since the last move below which the assistant was left too early.
const FEW: u64 = 4;
/// KVM finishes an access in at most so many pieces.
const MOST_PIECES: u32 = 64;

impl Kvm {
    /// The assistant, which has the state, goes on for some steps.
    pub(crate) fn assist(
        &mut self,
        cause: Assist,
        steps: u64,
        io: &mut dyn CpuIo,
    ) -> Result<Next, EngineError> {
        self.figures.assisted(cause);
        self.assistant.aim(Aim { steps: steps.min(self.most_steps), ..Aim::NONE });
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
    fn bound(&self, want: Attention) -> Attention {
        match self.vector {
            Some(_) => Attention { stop: u64::MAX, interrupt: true, nmi: false },
            None => Attention { stop: want.stop.min(self.stop), ..want },
        }
    }
}

impl CpuIo for Bounded<'_> {
    fn acknowledge_irq(&mut self, at: Position) -> (u8, Attention) {
        let (vector, want) = match self.vector.take() {
            Some(vector) => (vector, self.io.attention(at)),
            None => self.io.acknowledge_irq(at),
        };
        (vector, self.bound(want))
    }

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
        acknowledge_nmi,
        float_error,
        query
    );
}
