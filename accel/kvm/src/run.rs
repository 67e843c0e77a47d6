//! The loop: at each boundary, who goes on, and what is delivered first.
//!
//! Not responsible for: exits (`exits`), what the assistant is called for (`assist`).

use crate::engine::{Home, Kvm};
use crate::figures::{Assist, Leaving};
use crate::left::Left;
use crate::quirks::Native;
use gemel_machine::{Attention, CpuIo, EngineError, Exit};
use gemel_x86::CpuState;
use gemel_x86::control::{CR0_EM, CR0_TS, EFER_LMA};
use gemel_x86::flags::{IF, IOPL, RF, TF};
use gemel_x86::segment::{CS, attr};

/// Where a run stands.
pub(crate) struct Going {
    /// What the machine wants.
    pub want: Attention,
    /// The last thing that happened was an exit: its count names this boundary.
    pub at_exit: bool,
}

/// What a part of the loop leads to.
pub(crate) enum Next {
    Boundary(Going),
    Return(Exit),
}

impl Kvm {
    pub(crate) fn run_on(&mut self, io: &mut dyn CpuIo) -> Result<Exit, EngineError> {
        let mut going = Going { want: io.attention(gemel_machine::Vcpu::position(self)), at_exit: false };
        let mut began = false;
        loop {
            if self.shut_down {
                return Ok(Exit::Shutdown);
            }
            if gemel_machine::Vcpu::position(self).count >= going.want.stop {
                return Ok(Exit::Stop);
            }
            // On a busy host kicks come before anything has run.
            if std::mem::replace(&mut began, true) && self.kick.kicks() != 0 {
                // The boundary after an exit has a name: better there than between two, if the guest makes exits.
                if going.at_exit {
                    return Ok(Exit::Stop);
                }
                let count = gemel_machine::Vcpu::position(self).count;
                if self.kick.kicks() > 1 || self.yielded_at == Some(count) {
                    self.yielded_at = Some(count);
                    self.figures.kicked();
                    self.settle(io)?;
                    return Ok(Exit::Yield);
                }
            }
            let next = match self.home {
                Home::Assistant => self.go_on_in_assistant(going.want, io)?,
                Home::Kvm => self.go_on_in_kvm(going.want, io)?,
            };
            match next {
                Next::Boundary(new) => going = new,
                Next::Return(exit) => return Ok(exit),
            }
        }
    }

    /// Whether this KVM runs code of the state's mode on the CPU. A software KVM's ring 3 has no steps and breakpoints of the guest's own,
    /// no #NM, and no I/O by privilege level.
    pub(crate) fn is_native(&self, state: &CpuState) -> bool {
        let unlike =
            state.rflags & (TF | IOPL) != 0 || state.dr7 & 0xff != 0 || state.cr0 & (CR0_TS | CR0_EM) != 0;
        let user = state.cpl == 3 && state.efer & EFER_LMA != 0 && state.seg[CS].has(attr::L);
        self.quirks.native == Native::All || (user && !unlike)
    }

    /// Whether nothing is left over from the last instruction that KVM would not hold.
    pub(crate) fn is_clean(&self, state: &CpuState) -> bool {
        // What a software KVM says of RF is not the guest's own.
        let resumes = state.rflags & RF != 0 && self.quirks.native == Native::User64;
        !(state.halted || state.pending_debug != 0 || state.shadow != 0 || resumes)
    }

    /// The state is with the assistant: it stays there while something waits that KVM would not do exactly.
    fn go_on_in_assistant(&mut self, want: Attention, io: &mut dyn CpuIo) -> Result<Next, EngineError> {
        let state = self.assistant.save()?;
        let waits = want.nmi
            || (want.interrupt && (!self.quirks.exact_window || self.quirks.native == Native::User64));
        if !self.is_clean(&state) || waits {
            return self.assist(Assist::Delivery, self.stretch, io);
        }
        if !self.is_native(&state) {
            return self.assist(Assist::Mode, self.quirks.longest_stretch, io);
        }
        self.move_to_kvm(&state, io)?;
        self.go_on_in_kvm(want, io)
    }

    fn go_on_in_kvm(&mut self, want: Attention, io: &mut dyn CpuIo) -> Result<Next, EngineError> {
        if self.guest.events.interrupt.injected != 0 {
            // A kick came before the entry that delivers it.
            return self.enter(want, io);
        }
        let takes_interrupts = self.guest.regs.rflags & IF != 0;
        if self.halted && !want.nmi && !(want.interrupt && takes_interrupts) {
            return Ok(Next::Return(if takes_interrupts { Exit::Halted } else { Exit::HaltedForGood }));
        }
        if want.nmi {
            self.move_to_assistant()?;
            return self.assist(Assist::Delivery, self.stretch, io);
        }
        let user_only = self.quirks.native == Native::User64;
        if user_only && !self.is_native_here() {
            self.move_to_assistant()?;
            return self.assist(Assist::Mode, self.quirks.longest_stretch, io);
        }
        if want.interrupt {
            let events = &self.guest.events;
            let free = events.interrupt.shadow == 0
                && events.interrupt.injected == 0
                && events.exception.injected == 0
                && events.exception.pending == 0;
            if takes_interrupts && free && !user_only {
                self.halted = false;
                return self.take_interrupt(io);
            }
            if user_only || !self.quirks.exact_window {
                self.move_to_assistant()?;
                return self.assist(Assist::Window, self.stretch, io);
            }
        }
        self.guest.want_window(want.interrupt);
        self.enter(want, io)
    }

    /// The same of the guest in KVM. Ring 3 cannot change more of it.
    fn is_native_here(&self) -> bool {
        self.guest.sregs.cs.l != 0 && self.guest.regs.rflags & TF == 0
    }

    /// The guest takes the interrupt that waits.
    fn take_interrupt(&mut self, io: &mut dyn CpuIo) -> Result<Next, EngineError> {
        let at = gemel_machine::Vcpu::position(self);
        let (vector, want) = io.acknowledge_irq(at);
        if self.count >= want.stop {
            // The boundary after the delivery is where the machine wants to be, and KVM delivers only on its way further.
            self.deliver_with_assistant(vector, io)?;
            return Ok(Next::Boundary(Going { want, at_exit: false }));
        }
        self.figures.injected();
        self.guest.interrupt(vector)?;
        self.guest.want_window(want.interrupt);
        self.enter(want, io)
    }

    /// Lets the guest run in KVM until it leaves, and does what it left for.
    fn enter(&mut self, want: Attention, io: &mut dyn CpuIo) -> Result<Next, EngineError> {
        let (left, other) = self.leave_for(io)?;
        self.handle(left, other.unwrap_or(want), io)
    }

    /// Lets the guest run in KVM until it leaves. What the machine wants then, if that is something else now.
    pub(crate) fn leave_for(&mut self, io: &mut dyn CpuIo) -> Result<(Left, Option<Attention>), EngineError> {
        let priority = io.cr8_read(gemel_machine::Vcpu::position(self));
        self.guest.set_cr8(priority);
        self.entries += 1;
        let left = self.guest.enter()?;
        self.figures.left(kind_of(&left));
        let now = self.guest.cr8();
        let want = (now != priority).then(|| io.cr8_write(gemel_machine::Vcpu::position(self), now));
        Ok((left, want))
    }

    /// A run ends between two exits: whatever KVM has begun is finished, or was not begun.
    pub(crate) fn settle(&mut self, io: &mut dyn CpuIo) -> Result<(), EngineError> {
        if self.home == Home::Assistant {
            return Ok(());
        }
        // KVM's emulator ends a repetition by executing the instruction once more with nothing left to do.
        if let Some(next) = self.guest.view().next()
            && crate::before::is_over(&next, self.guest.regs.rcx)
        {
            let regs = kvm_bindings::kvm_regs { rip: next.next_ip(), ..self.guest.regs };
            self.guest.set_regs(regs);
        }
        // An exception that waits comes again with its instruction; an interrupt does not.
        let interrupt = self.guest.events.interrupt;
        if interrupt.injected != 0 && interrupt.soft == 0 {
            self.deliver_with_assistant(interrupt.nr, io)?;
        }
        Ok(())
    }
}

fn kind_of(left: &Left) -> Leaving {
    match left {
        Left::Port(access) if access.write => Leaving::PortWrite,
        Left::Port(_) => Leaving::PortRead,
        Left::Mmio(access) if access.write => Leaving::MmioWrite,
        Left::Mmio(_) => Leaving::MmioRead,
        Left::Msr => Leaving::Msr,
        Left::Halted => Leaving::Halt,
        Left::Window => Leaving::Window,
        Left::CannotEmulate => Leaving::CannotEmulate,
        Left::Debug => Leaving::Debug,
        Left::Interrupted => Leaving::Kick,
        Left::Shutdown => Leaving::Shutdown,
        Left::Priority | Left::Unexpected(..) => Leaving::Other,
    }
}
