//! The engine: KVM and an assistant with one state between them.
//!
//! Not responsible for: the loop (`run`), exits (`exits`), what the assistant is called for (`assist`).

use crate::error::KvmError;
use crate::figures::Figures;
use crate::guest::Guest;
use crate::kick::Kick;
use crate::placement::Choice;
use crate::processor_time::processor_time;
use crate::pursuit::Ways;
use crate::quirks::Quirks;
use gemel_machine::{Aim, CpuIo, EngineError, Exit, GuestRam, Position, Steps, Vcpu};
use gemel_x86::{CpuModel, CpuState};
use std::sync::Arc;
use std::time::Duration;

/// From one kick to the next: each costs a guest that computes some 50 us on a software KVM, and a timer of the board waits for at most this.
const KICKS: Duration = Duration::from_millis(2);

/// No CPU makes more steps in a nanosecond: REP STOSB stores 64 bytes in a cycle at best, and each is a step; six cycles, and something over.
const MOST_STEPS_A_NS: u64 = 512;

/// Who has the state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Home {
    Kvm,
    Assistant,
}

/// KVM as an engine. Positions count exits.
pub struct Kvm {
    pub(crate) guest: Guest,
    pub(crate) assistant: Box<dyn Vcpu>,
    pub(crate) home: Home,
    /// Exits so far, while the guest is at home in KVM.
    pub(crate) count: u64,
    /// HLT waits, likewise.
    pub(crate) halted: bool,
    /// A triple fault happened there.
    pub(crate) shut_down: bool,
    pub(crate) aim: Aim,
    pub(crate) quirks: Quirks,
    pub(crate) kick: Kick,
    /// The count at which the engine last came back by itself between two exits.
    pub(crate) yielded_at: Option<u64>,
    pub(crate) figures: Arc<Figures>,
    /// How far the assistant goes on after it was called for an instruction, in steps.
    pub(crate) stretch: u64,
    /// And no further, at present.
    pub(crate) most_steps: u64,
    /// The ways to a boundary that is aimed at, and the one that is taken whatever is known of the host.
    pub(crate) ways: Ways,
    pub(crate) forced: Option<Choice>,
    /// Single steps that KVM has made.
    pub(crate) stepped: u64,
    /// Entries since the state last came from the assistant.
    pub(crate) entries: u64,
    /// Processor time that runs took.
    ran: Duration,
}

impl Kvm {
    /// A vCPU in its reset state. The assistant is an engine for the same model and RAM that counts exits too: it executes what KVM
    /// cannot.
    ///
    /// # Errors
    /// [`KvmError`] where the host has no KVM for us, or one that lacks something.
    pub fn new(model: CpuModel, ram: Arc<GuestRam>, assistant: Box<dyn Vcpu>) -> Result<Self, KvmError> {
        Self::with_quirks(model, ram, assistant, Quirks::of_host())
    }

    /// As [`Kvm::new`], on a host that is known.
    ///
    /// # Errors
    /// As there.
    pub fn with_quirks(
        model: CpuModel,
        ram: Arc<GuestRam>,
        assistant: Box<dyn Vcpu>,
        quirks: Quirks,
    ) -> Result<Self, KvmError> {
        Ok(Self {
            guest: Guest::new(&model, ram, quirks)?,
            assistant,
            home: Home::Assistant,
            count: 0,
            halted: false,
            shut_down: false,
            aim: Aim::NONE,
            quirks,
            kick: Kick::every(KICKS),
            yielded_at: None,
            figures: Arc::new(Figures::default()),
            stretch: quirks.stretch,
            most_steps: u64::MAX,
            ways: Ways::default(),
            forced: None,
            stepped: 0,
            entries: 0,
            ran: Duration::ZERO,
        })
    }

    /// Boundaries that are aimed at by address are reached in this way, whatever is known of the host: for tests.
    #[must_use]
    pub fn placing(mut self, way: Choice) -> Self {
        self.forced = Some(way);
        self
    }

    /// The counters, which go on while a machine owns the engine.
    pub fn figures(&self) -> Arc<Figures> {
        self.figures.clone()
    }

    /// How this host's KVM is used.
    pub fn quirks(&self) -> Quirks {
        self.quirks
    }

    /// The state, wherever it is.
    pub(crate) fn state(&mut self) -> Result<CpuState, EngineError> {
        if self.home == Home::Assistant {
            return self.assistant.save();
        }
        let (count, halted) = (self.count, self.halted);
        let state = self.guest.save()?;
        (state.count, state.halted) = (count, halted);
        Ok(state.clone())
    }
}

impl Vcpu for Kvm {
    fn run(&mut self, io: &mut dyn CpuIo) -> Result<Exit, EngineError> {
        let began = processor_time();
        self.kick.begin()?;
        let exit = match std::mem::replace(&mut self.aim, Aim::NONE) {
            Aim::NONE => self.run_on(io),
            aim => self.run_aimed(aim, io),
        };
        self.kick.end();
        self.ran += processor_time() - began;
        exit
    }

    fn position(&self) -> Position {
        match self.home {
            Home::Assistant => self.assistant.position(),
            Home::Kvm => Position { count: self.count, rip: self.guest.regs.rip, rcx: self.guest.regs.rcx },
        }
    }

    fn steps(&self) -> Steps {
        let at_most = u64::try_from(self.ran.as_nanos()).unwrap_or(u64::MAX);
        let at_least = self.assistant.steps().at_least + self.stepped;
        Steps { at_least, at_most: at_most.saturating_mul(MOST_STEPS_A_NS) }
    }

    fn save(&mut self) -> Result<CpuState, EngineError> {
        self.guest.collect_dirty()?;
        self.state()
    }

    fn restore(&mut self, state: &CpuState) -> Result<(), EngineError> {
        self.assistant.restore(state)?;
        self.home = Home::Assistant;
        self.shut_down = false;
        Ok(())
    }

    fn flush(&mut self) {
        // KVM's translations follow the state: they are dropped whenever it comes back from the assistant.
        if self.home == Home::Assistant {
            self.assistant.flush();
        }
    }

    fn aim(&mut self, aim: Aim) {
        self.aim = aim;
    }
}
