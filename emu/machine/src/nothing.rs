//! An outside with nothing in it: for an engine that runs by itself, as when single instructions are compared with a CPU, and for a
//! machine into which nothing comes.
//!
//! Not responsible for: a world behind which there is another (`until` ends one at a count).

use crate::digest::Digest;
use crate::position::{Position, VirtTime};
use crate::vcpu::{Attention, CpuIo, Query};
use crate::world::{At, Input, Output, Stop, StopAt, World};

/// Ports and addresses read as all ones, MSRs are not there, the TSC stands, nothing interrupts. As a world it has no input and no
/// answer, and idle time passes at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Nothing {
    /// The count at which the engine stops, and the run ends.
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

impl World for Nothing {
    fn next_stop(&mut self, _: At) -> StopAt {
        StopAt { count: self.stop, ..StopAt::NEVER }
    }
    fn poll(&mut self, at: At) -> Result<Option<Input>, Stop> {
        if at.position.count >= self.stop { Err(Stop::Quit) } else { Ok(None) }
    }
    fn idle(&mut self, _: At, until: VirtTime) -> Result<VirtTime, Stop> {
        Ok(until)
    }
    fn answer(&mut self, _: At, _: Query) -> Result<u64, Stop> {
        Err(Stop::EndOfLog)
    }
    fn emit(&mut self, _: At, _: Output) {}
    fn digest_due(&self, _: At) -> bool {
        false
    }
    fn digest(&mut self, _: At, _: Digest) -> Result<(), Stop> {
        Ok(())
    }
}
