//! The contract of an engine: something that executes the guest between two boundaries.
//!
//! Not responsible for: which engine it is (`emu/interp`, `accel/kvm`), what lies behind an access (`bus`).

use crate::position::{Position, Steps};
use gemel_x86::CpuState;

/// What the machine wants of the engine. The engine obeys at the next boundary; `interrupt` after any STI or
/// MOV SS shadow and only while IF is set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Attention {
    /// Return with [`Exit::Stop`] at the first boundary whose count is not below this.
    pub stop: u64,
    /// A maskable interrupt waits: fetch it with [`CpuIo::acknowledge_irq`].
    pub interrupt: bool,
    /// A non-maskable interrupt waits: fetch it with [`CpuIo::acknowledge_nmi`].
    pub nmi: bool,
}

/// Why [`Vcpu::run`] returned. It returns only at instruction (or REP iteration) boundaries with all started
/// accesses finished.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exit {
    /// The count reached [`Attention::stop`]; or, at the first boundary after an exit, the engine was kicked.
    Stop,
    /// The engine came back by itself: at its [`Aim`], or because it was kicked so that the world can be asked. Where counts
    /// do not name every boundary, this can be between two counts.
    Yield,
    /// HLT, and nothing to wake for.
    Halted,
    /// HLT with interrupts off: only an NMI or a reset can wake it.
    HaltedForGood,
    /// A triple fault.
    Shutdown,
}

/// A boundary at which [`Vcpu::run`] comes back with [`Exit::Yield`], whatever the count.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Aim {
    /// After this many steps: instructions, REP iterations, deliveries. Not zero. On its way to an address an engine that does not count
    /// them takes it for a measure of how far that can be.
    pub steps: u64,
    /// At the first boundary after at least one step where RIP is this.
    pub rip: Option<u64>,
    /// And where RCX is this too, as in [`Position`]: a loop comes by an address a million times, and mostly counts in RCX.
    pub rcx: Option<u64>,
    /// The linear address that RIP stands for there, where it is given.
    pub linear: u64,
}

impl Aim {
    /// Nowhere.
    pub const NONE: Self = Self { steps: u64::MAX, rip: None, rcx: None, linear: 0 };
    /// The next boundary.
    pub const STEP: Self = Self { steps: 1, ..Self::NONE };
}

/// Values that only the machine or the world can give.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Query {
    /// The machine's time-stamp counter (the vCPU adds its offset).
    Tsc,
    /// 64 random bits (RDRAND, RDSEED).
    Random,
}

/// What an engine can do outside itself. Every call says where the vCPU is (the position before the instruction)
/// and returns what the machine wants next.
pub trait CpuIo {
    /// What the machine wants, before the first instruction, and after a [`CpuIo::query`].
    fn attention(&mut self, at: Position) -> Attention;
    /// IN: `size` is 1, 2 or 4.
    fn port_read(&mut self, at: Position, port: u16, size: u8) -> (u32, Attention);
    /// OUT.
    fn port_write(&mut self, at: Position, port: u16, size: u8, value: u32) -> Attention;
    /// A load from a guest physical address that is not RAM: `size` is 1, 2, 4 or 8.
    fn mmio_read(&mut self, at: Position, address: u64, size: u8) -> (u64, Attention);
    /// A store to a guest physical address that is not RAM.
    fn mmio_write(&mut self, at: Position, address: u64, size: u8, value: u64) -> Attention;
    /// RDMSR of a register that is not the vCPU's own: APIC base, x2APIC, TSC deadline. `None` is #GP.
    fn msr_read(&mut self, at: Position, msr: u32) -> (Option<u64>, Attention);
    /// WRMSR of the same.
    fn msr_write(&mut self, at: Position, msr: u32, value: u64) -> (Option<()>, Attention);
    /// MOV from CR8.
    fn cr8_read(&mut self, at: Position) -> u8;
    /// MOV to CR8.
    fn cr8_write(&mut self, at: Position, value: u8) -> Attention;
    /// Fetches the vector of the interrupt that [`Attention::interrupt`] announced.
    fn acknowledge_irq(&mut self, at: Position) -> (u8, Attention);
    /// Takes the NMI that [`Attention::nmi`] announced.
    fn acknowledge_nmi(&mut self, at: Position) -> Attention;
    /// FERR#: an unmasked x87 error waits, or waits no more, with CR0.NE clear. Returns whether the board asserts IGNNE#, and
    /// wants the error ignored. A board without the wires never does.
    fn float_error(&mut self, at: Position, _waits: bool) -> (bool, Attention) {
        (false, self.attention(at))
    }
    /// The TSC, or a random number. The answer can change what the machine wants: ask for its attention behind it (for the
    /// TSC only where time is sampled).
    fn query(&mut self, at: Position, query: Query) -> u64;
}

/// Inside `impl CpuIo for Wrapper`: hands the named calls on to the field `io`, and what the machine wants through the method
/// `bound(&mut self, Attention) -> Attention`. A wrapper writes out what else it changes and names the rest, so that a call with a
/// default, like [`CpuIo::float_error`], is not lost on the way.
#[macro_export]
macro_rules! forward_to_io {
    ($($call:ident),* $(,)?) => { $($crate::forward_to_io!(@ $call);)* };
    (@ attention) => { $crate::forward_to_io!(% attention()); };
    (@ port_read) => { $crate::forward_to_io!(% port_read(port: u16, size: u8) -> u32); };
    (@ port_write) => { $crate::forward_to_io!(% port_write(port: u16, size: u8, value: u32)); };
    (@ mmio_read) => { $crate::forward_to_io!(% mmio_read(address: u64, size: u8) -> u64); };
    (@ mmio_write) => { $crate::forward_to_io!(% mmio_write(address: u64, size: u8, value: u64)); };
    (@ msr_read) => { $crate::forward_to_io!(% msr_read(number: u32) -> Option<u64>); };
    (@ msr_write) => { $crate::forward_to_io!(% msr_write(number: u32, value: u64) -> Option<()>); };
    (@ cr8_write) => { $crate::forward_to_io!(% cr8_write(value: u8)); };
    (@ acknowledge_irq) => { $crate::forward_to_io!(% acknowledge_irq() -> u8); };
    (@ acknowledge_nmi) => { $crate::forward_to_io!(% acknowledge_nmi()); };
    (@ float_error) => { $crate::forward_to_io!(% float_error(waits: bool) -> bool); };
    (@ cr8_read) => {
        fn cr8_read(&mut self, at: $crate::Position) -> u8 {
            self.io.cr8_read(at)
        }
    };
    (@ query) => {
        fn query(&mut self, at: $crate::Position, query: $crate::Query) -> u64 {
            self.io.query(at, query)
        }
    };
    (% $call:ident($($name:ident: $type:ty),*)) => {
        fn $call(&mut self, at: $crate::Position, $($name: $type),*) -> $crate::Attention {
            let attention = self.io.$call(at, $($name),*);
            self.bound(attention)
        }
    };
    (% $call:ident($($name:ident: $type:ty),*) -> $answer:ty) => {
        fn $call(&mut self, at: $crate::Position, $($name: $type),*) -> ($answer, $crate::Attention) {
            let (answer, attention) = self.io.$call(at, $($name),*);
            (answer, self.bound(attention))
        }
    };
}

/// Trouble of an engine with its host. What a guest does wrong is never one.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The host refused something.
    #[error("{what}: {source}; {advice}")]
    Host {
        /// What was tried.
        what: &'static str,
        /// What the host said.
        source: std::io::Error,
        /// What to do about it.
        advice: &'static str,
    },
    /// A state that this engine cannot hold.
    #[error("this engine cannot take the state on: {0}")]
    State(String),
}

/// An engine with one vCPU.
pub trait Vcpu: Send {
    /// Runs until [`Attention`] says stop, or the guest halts or shuts down.
    ///
    /// # Errors
    /// Host trouble only.
    fn run(&mut self, io: &mut dyn CpuIo) -> Result<Exit, EngineError>;

    /// Where the vCPU is.
    fn position(&self) -> Position;

    /// How far it has run in all, whatever states it took on meanwhile.
    fn steps(&self) -> Steps;

    /// The whole CPU state at this boundary. Afterwards RAM's DIRTY marks are complete, where an engine has to ask for them.
    ///
    /// # Errors
    /// Host trouble only.
    fn save(&mut self) -> Result<CpuState, EngineError>;

    /// Takes a state on; whatever was cached is dropped.
    ///
    /// # Errors
    /// [`EngineError::State`] for a state that the engine cannot hold, or host trouble.
    fn restore(&mut self, state: &CpuState) -> Result<(), EngineError>;

    /// Drops all that is cached (TLB, decoded blocks). A run must not show whether this was called.
    fn flush(&mut self);

    /// Where the next [`Vcpu::run`] comes back. Holds for one run; then it is [`Aim::NONE`] again.
    fn aim(&mut self, aim: Aim);
}
