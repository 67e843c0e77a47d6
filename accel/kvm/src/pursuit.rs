//! A run that is aimed at a boundary: the way that leads there, on the vCPU or by the assistant.
//!
//! Not responsible for: the ways themselves (`placement`), whether the boundary is the one that was meant: the machine compares, and aims
//! again.
//!
//! Wherever a way cannot go on, the assistant does from there, so that what a way does not reach costs time and nothing else. A guest that
//! uses the debug registers itself is the assistant's from the start.

use crate::before::is_no_step;
use crate::engine::{Home, Kvm};
use crate::figures::Assist;
use crate::guest::Halting;
use crate::left::Left;
use crate::placement::{ByBreakpoint, ByStep, Came, Choice, Guest, Return, Target, Way};
use crate::run::Next;
use gemel_machine::{Aim, Attention, CpuIo, EngineError, Exit, Vcpu};
use gemel_x86::CpuState;
use gemel_x86::flags::TF;

/// Kicks that a breakpoint may wait for, however near the aim is said to be.
const FEW_KICKS: u64 = 50;
/// Steps that a vCPU makes from one kick to the next, where the CPU itself executes: few, so that it is not given up too early.
const STEPS_A_KICK: u64 = 1 << 20;

/// The ways of one engine.
#[derive(Default)]
pub(crate) struct Ways {
    breakpoint: ByBreakpoint,
}

/// The guest as a way sees it.
struct Pursued<'a> {
    kvm: &'a mut Kvm,
    io: &'a mut dyn CpuIo,
    /// The aim's linear address.
    linear: u64,
    /// Steps are made on the vCPU, where it can be helped.
    on_vcpu: bool,
    /// Steps that may still be made.
    steps: u64,
    want: Attention,
    /// Only the assistant can go on.
    stuck: bool,
    /// What the guest left KVM for.
    left: Option<Left>,
    /// How the assistant came back.
    exit: Option<Exit>,
}

impl Kvm {
    pub(crate) fn run_aimed(&mut self, aim: Aim, io: &mut dyn CpuIo) -> Result<Exit, EngineError> {
        if self.shut_down {
            return Ok(Exit::Shutdown);
        }
        let way = self.forced.unwrap_or_else(|| self.quirks.means.choose(aim));
        if way != Choice::Assistant && aim.rip.is_some() && self.is_pursued()? {
            let exit = self.pursue(way, aim, io);
            self.guest.halt_at(Halting::Nowhere)?;
            if let Some(exit) = exit? {
                self.figures.placed(way);
                return Ok(exit);
            }
            // Whatever was begun is over, and perhaps that is it.
            let stood = self.position();
            self.settle(io)?;
            if self.position() != stood && self.is_at(aim) {
                self.figures.placed(way);
                return Ok(Exit::Yield);
            }
        }
        self.figures.placed(Choice::Assistant);
        self.move_to_assistant()?;
        self.figures.assisted(Assist::Aim);
        self.assistant.aim(aim);
        self.assistant.run(io)
    }

    fn is_at(&self, aim: Aim) -> bool {
        let at = self.position();
        aim.rip == Some(at.rip) && aim.rcx.is_none_or(|rcx| rcx == at.rcx)
    }

    /// Whether a guest in this state can be stopped by KVM without noticing.
    fn is_pursued(&mut self) -> Result<bool, EngineError> {
        let state = self.state()?;
        Ok(state.dr7 & 0xff == 0 && state.rflags & TF == 0 && self.is_native(&state))
    }

    /// Goes by a way on the vCPU. `None`: the assistant is to go on.
    fn pursue(&mut self, way: Choice, aim: Aim, io: &mut dyn CpuIo) -> Result<Option<Exit>, EngineError> {
        let want = io.attention(self.position());
        let (mut ways, mut by_step) = (std::mem::take(&mut self.ways), ByStep);
        let on_vcpu = way == Choice::Steps;
        let going: &mut dyn Way = if on_vcpu { &mut by_step } else { &mut ways.breakpoint };
        let mut guest = Pursued {
            kvm: self,
            io,
            linear: aim.linear,
            on_vcpu,
            steps: aim.steps,
            want,
            stuck: false,
            left: None,
            exit: None,
        };
        let reached = guest.follow(going, aim);
        self.ways = ways;
        reached
    }
}

impl Pursued<'_> {
    fn follow(&mut self, way: &mut dyn Way, aim: Aim) -> Result<Option<Exit>, EngineError> {
        let mut kicks = (aim.steps / STEPS_A_KICK).max(FEW_KICKS);
        loop {
            let at = self.kvm.position();
            let Some(rip) = aim.rip else { return Ok(None) };
            if at.count >= self.want.stop {
                return Ok(Some(Exit::Stop));
            }
            match way.next(self, &Target { count: at.count, rip })? {
                Came::Here if self.kvm.is_at(aim) => {
                    self.kvm.settle(self.io)?;
                    return Ok(Some(Exit::Yield));
                }
                Came::Here => {}
                Came::Kicked if self.stuck || kicks == 0 => return Ok(None),
                Came::Kicked => kicks -= 1,
                Came::Exit => {
                    if let Some(exit) = self.serve()? {
                        return Ok(Some(exit));
                    }
                    if self.kvm.position().count < self.want.stop && self.kvm.is_at(aim) {
                        return Ok(Some(Exit::Yield));
                    }
                }
                Came::Spent | Came::Passed(_) => return Ok(None),
            }
        }
    }

    /// Does what the guest left for, and no step more.
    fn serve(&mut self) -> Result<Option<Exit>, EngineError> {
        if let Some(exit) = self.exit.take() {
            return Ok(Some(exit));
        }
        let Some(left) = self.left.take() else { return Ok(None) };
        self.kvm.guest.halt_at(Halting::Nowhere)?;
        let stretch = std::mem::replace(&mut self.kvm.most_steps, 1);
        let next = self.kvm.handle(left, self.want, self.io);
        self.kvm.most_steps = stretch;
        match next? {
            Next::Return(exit) => Ok(Some(exit)),
            Next::Boundary(going) => {
                self.want = going.want;
                Ok(None)
            }
        }
    }

    /// The state is with KVM, if it can be.
    fn enters(&mut self, state: &CpuState) -> Result<bool, EngineError> {
        if self.want.interrupt || self.want.nmi || !self.kvm.is_native(state) {
            self.stuck = true;
        } else if self.kvm.is_clean(state) {
            self.kvm.move_to_kvm(state, self.io)?;
            return Ok(true);
        }
        Ok(false)
    }

    /// Lets the guest run in KVM.
    fn enter(&mut self, until: Halting) -> Result<Return, EngineError> {
        self.kvm.guest.want_window(false);
        self.kvm.guest.halt_at(until)?;
        let (left, want) = self.kvm.leave_for(self.io)?;
        self.want = want.unwrap_or(self.want);
        Ok(match left {
            Left::Debug => Return::Boundary,
            Left::Interrupted if !self.kvm.enters_ring_0() => Return::Signal,
            left => {
                self.left = Some(left);
                Return::Exit
            }
        })
    }

    /// One step of the assistant's.
    fn interpret(&mut self) -> Result<Return, EngineError> {
        self.kvm.move_to_assistant()?;
        self.kvm.figures.assisted(Assist::Aim);
        self.kvm.assistant.aim(Aim::STEP);
        match self.kvm.assistant.run(self.io)? {
            Exit::Yield => Ok(Return::Boundary),
            exit => {
                self.exit = Some(exit);
                Ok(Return::Exit)
            }
        }
    }
}

impl Guest for Pursued<'_> {
    fn rip(&mut self) -> Result<u64, EngineError> {
        Ok(self.kvm.position().rip)
    }

    fn resume(&mut self, breakpoint: Option<u64>) -> Result<Return, EngineError> {
        if self.kvm.home == Home::Assistant {
            let state = self.kvm.assistant.save()?;
            if !self.enters(&state)? {
                return if self.stuck { Ok(Return::Signal) } else { self.interpret() };
            }
        }
        if self.kvm.guest.regs.rflags & TF != 0 || self.want.interrupt || self.want.nmi {
            self.stuck = true;
            return Ok(Return::Signal);
        }
        self.enter(breakpoint.map_or(Halting::Nowhere, |_| Halting::At(self.linear)))
    }

    fn step(&mut self) -> Result<Return, EngineError> {
        if self.steps == 0 {
            self.stuck = true;
            return Ok(Return::Signal);
        }
        self.steps -= 1;
        if !self.on_vcpu {
            return self.interpret();
        }
        if self.kvm.home == Home::Assistant {
            let state = self.kvm.assistant.save()?;
            if !self.enters(&state)? {
                return if self.stuck { Ok(Return::Signal) } else { self.interpret() };
            }
        }
        if self.kvm.guest.view().next().is_none_or(|i| is_no_step(&i)) {
            return self.interpret();
        }
        let returned = self.enter(Halting::EachStep)?;
        self.kvm.stepped += u64::from(returned == Return::Boundary);
        Ok(returned)
    }
}
