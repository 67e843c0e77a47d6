//! What an exit is for: port and memory-mapped accesses that KVM can finish, and those that the assistant executes instead.
//!
//! Not responsible for: whose turn it is afterwards (`run`).
//!
//! An exit is counted once per instruction, before its first access; the position that the board hears of is that of the instruction.

use crate::before::{is_plain_load, is_string};
use crate::engine::Kvm;
use crate::error::KvmError;
use crate::figures::Assist;
use crate::left::{Left, MmioAccess, PortAccess};
use crate::quirks::Native;
use crate::run::{Going, Next};
use gemel_machine::{Attention, CpuIo, EngineError, Exit, Position};
use gemel_x86::Vector;
use kvm_bindings::kvm_regs;

/// No exception: what the vector says is of an earlier one.
const NO_VECTOR: u8 = u8::MAX;

impl Kvm {
    /// A kick found ring 3 on its way into ring 0: an INT3 has gone on already, and would not come again with its instruction.
    pub(crate) fn enters_ring_0(&self) -> bool {
        self.quirks.native == Native::User64
            && (self.exception_waits() || crate::user::is_past_syscall(&self.guest.view()))
    }

    /// KVM has an exception that it did not deliver yet. Of a breakpoint it says the number and no more; that the number is not of an
    /// earlier one follows from where those lead: to the assistant, from which the state comes back without.
    fn exception_waits(&self) -> bool {
        let exception = &self.guest.events.exception;
        exception.injected != 0 || exception.pending != 0 || exception.nr == Vector::Breakpoint as u8
    }

    /// Does what the guest left for.
    pub(crate) fn handle(
        &mut self,
        left: Left,
        want: Attention,
        io: &mut dyn CpuIo,
    ) -> Result<Next, EngineError> {
        let same = Next::Boundary(Going { want, at_exit: false });
        match left {
            Left::Port(access) if access.write => self.port_write(access, io),
            Left::Port(access) => self.port_read(access, io),
            Left::Mmio(access) if access.write => self.mmio_write(access, io),
            Left::Mmio(access) => self.mmio_read(access, io),
            Left::Msr => self.execute_again(self.guest.regs, Assist::Msr, io),
            Left::Halted => {
                self.count += 1;
                self.halted = true;
                Ok(Next::Boundary(Going { want, at_exit: true }))
            }
            Left::CannotEmulate => {
                self.move_to_assistant()?;
                self.assist(Assist::CannotEmulate, self.stretch, io)
            }
            Left::Shutdown | Left::Interrupted
                if self.quirks.native == Native::User64
                    && (left == Left::Shutdown || self.enters_ring_0()) =>
            {
                let known = left == Left::Shutdown || self.exception_waits();
                let vector = if known { self.guest.events.exception.nr } else { NO_VECTOR };
                let at = crate::user::exception(&self.guest.view(), vector);
                self.guest.regs = at.regs;
                let mut state = self.state()?;
                state.pending_debug = at.pending_debug;
                self.hand_over(&state)?;
                self.assist(Assist::Exception, self.stretch, io)
            }
            Left::Shutdown => {
                self.shut_down = true;
                Ok(Next::Return(Exit::Shutdown))
            }
            Left::Window | Left::Debug | Left::Interrupted | Left::Priority => Ok(same),
            Left::Unexpected(reason, detail) => {
                let rip = self.guest.regs.rip;
                Err(KvmError::Stopped(format!("exit {reason}, detail {detail:#x}, at {rip:#x}")).into())
            }
        }
    }

    /// The position of an instruction that began with these registers, and counts it.
    fn leave(&mut self, before: &kvm_regs) -> Position {
        let at = Position { count: self.count, rip: before.rip, rcx: before.rcx };
        self.count += 1;
        at
    }

    /// After an instruction that KVM has finished.
    fn finished(&mut self, want: Attention) -> Next {
        Next::Boundary(Going { want, at_exit: true })
    }

    fn port_read(&mut self, access: PortAccess, io: &mut dyn CpuIo) -> Result<Next, EngineError> {
        let before = self.guest.regs;
        // KVM reads ahead for INS: as many elements as fit into a page.
        if self.guest.view().next().is_none_or(|i| is_string(&i)) || access.count != 1 {
            return self.execute_again(before, Assist::Compound, io);
        }
        let at = self.leave(&before);
        let (value, want) = io.port_read(at, access.port, access.size);
        self.guest.answer_port(access.size, value);
        self.complete()?;
        Ok(self.finished(want))
    }

    fn port_write(&mut self, access: PortAccess, io: &mut dyn CpuIo) -> Result<Next, EngineError> {
        // Where OUT is not emulated, KVM goes past it only when the access is completed, and so shows where it was.
        let stood = self.guest.regs;
        self.complete()?;
        let before = if self.guest.regs.rip != stood.rip {
            stood
        } else {
            match self.guest.view().before_port_write(&access) {
                Some(before) if before.plain => before.regs,
                Some(before) => return self.execute_again(before.regs, Assist::Compound, io),
                None => {
                    self.figures.not_placed();
                    stood
                }
            }
        };
        let at = self.leave(&before);
        let want = io.port_write(at, access.port, access.size, access.value);
        Ok(self.finished(want))
    }

    fn mmio_read(&mut self, access: MmioAccess, io: &mut dyn CpuIo) -> Result<Next, EngineError> {
        let before = self.guest.regs;
        if !self.guest.view().next().is_some_and(|i| is_plain_load(&i, &access)) {
            return self.execute_again(before, Assist::Compound, io);
        }
        let at = self.leave(&before);
        let (value, want) = io.mmio_read(at, access.address, access.len);
        self.guest.answer_mmio(value);
        self.complete()?;
        Ok(self.finished(want))
    }

    fn mmio_write(&mut self, access: MmioAccess, io: &mut dyn CpuIo) -> Result<Next, EngineError> {
        let before = match self.guest.view().before_store(&access) {
            Some(before) if before.plain => before.regs,
            Some(before) => return self.execute_again(before.regs, Assist::Compound, io),
            None => {
                self.figures.not_placed();
                self.guest.regs
            }
        };
        let at = self.leave(&before);
        self.complete()?;
        let want = io.mmio_write(at, access.address, access.len, access.value);
        Ok(self.finished(want))
    }

    /// Lets KVM finish an instruction that makes one access.
    fn complete(&mut self) -> Result<(), KvmError> {
        match self.guest.complete()? {
            Left::Interrupted | Left::Debug => Ok(()),
            left => Err(KvmError::Stopped(format!("{left:?} in the middle of an instruction of one access"))),
        }
    }
}
