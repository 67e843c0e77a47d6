//! The CPU state in KVM's forms and back, element by element.
//!
//! Not responsible for: when it moves (`guest`). What KVM does not hold (MTRRs, the TSC's offset, HLT and the like) stays with the
//! engine, in the state that these functions write into.

pub(crate) mod debug;
pub(crate) mod events;
pub(crate) mod extended;
pub(crate) mod msrs;
pub(crate) mod registers;
pub(crate) mod system;
