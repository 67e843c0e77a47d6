//! KVM as an engine: runs the guest at the CPU's own speed.
//!
//! Not responsible for: devices, interrupt controllers and timers (the machine's own, in user space), what an instruction does that
//! KVM cannot execute (an assistant, handed in, does it).
//!
//! [`Kvm`] is two engines with one state: the guest is at home in KVM or with the assistant, and `run` decides at each boundary where
//! to go on. Positions count exits, which both make at the same instructions, so that no run shows who executed what.

mod assist;
mod before;
mod cpuid;
mod engine;
mod error;
mod exits;
mod figures;
mod guest;
mod ioctl;
mod kick;
mod left;
mod memory;
mod msr_filter;
pub mod passport;
pub mod placement;
mod processor_time;
mod pursuit;
mod quirks;
mod run;
mod state;
mod user;

pub use engine::Kvm;
pub use error::KvmError;
pub use figures::{Assist, Figures, Leaving};
pub use quirks::{Native, Quirks};
