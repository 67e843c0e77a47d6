//! The x86-64 architecture as data: registers, flags, segments, MSRs, exceptions, CPUID models and the one table
//! of CPU state.
//!
//! Not responsible for: executing anything (`emu/interp`), memory and devices (`emu/machine`, `devices`).

pub mod control;
pub mod cpuid;
pub mod exception;
pub mod flags;
pub mod msr;
pub mod segment;
pub mod state;

pub use cpuid::{CpuModel, Feature};
pub use exception::{Exception, Vector};
pub use segment::{Segment, TableRegister};
pub use state::{CpuState, StateDifference};
