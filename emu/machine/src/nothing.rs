//! An outside with nothing in it, for an engine that runs by itself: single instructions compared with a CPU.
//!
//! Not responsible for: machines; theirs is `machine`.

use crate::position::Position;
use crate::vcpu::{Attention, CpuIo, Query};

/// Ports and addresses read as all ones, MSRs are not there, the TSC stands, nothing interrupts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Nothing {
    /// The count at which the engine stops.
    pub stop: u64,
}

impl CpuIo for Nothing {
    fn attention(&mut self, _: Position) -> Attention {
        Attention { stop: self.stop, interrupt: false, nmi: false }
    }
    fn port_read(&mut self, at: Position, _: u16, _: u8) -> (u32, Attention) {
        (u32::MAX, self.attention(at))
    }
    fn port_write(&mut self, at: Position, _: u16, _: u8, _: u32) -> Attention {
        self.attention(at)
    }
    fn mmio_read(&mut self, at: Position, _: u64, _: u8) -> (u64, Attention) {
        (u64::MAX, self.attention(at))
    }
    fn mmio_write(&mut self, at: Position, _: u64, _: u8, _: u64) -> Attention {
        self.attention(at)
    }
    fn msr_read(&mut self, at: Position, _: u32) -> (Option<u64>, Attention) {
        (None, self.attention(at))
    }
    fn msr_write(&mut self, at: Position, _: u32, _: u64) -> (Option<()>, Attention) {
        (None, self.attention(at))
    }
    fn cr8_read(&mut self, _: Position) -> u8 {
        0
    }
    fn cr8_write(&mut self, at: Position, _: u8) -> Attention {
        self.attention(at)
    }
    fn acknowledge_irq(&mut self, at: Position) -> (u8, Attention) {
        (0xff, self.attention(at))
    }
    fn acknowledge_nmi(&mut self, at: Position) -> Attention {
        self.attention(at)
    }
    fn query(&mut self, _: Position, _: Query) -> u64 {
        0
    }
}
