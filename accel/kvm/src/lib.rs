//! KVM as an engine: runs the guest at the CPU's own speed.
//!
//! Not responsible for: devices, interrupt controllers and timers (the machine's own, in user space), what an instruction does that
//! KVM cannot execute (an assistant, handed in, does it).

pub mod placement;
