//! An engine that is two: the vCPU is handed from one to the other again and again while it runs.
//!
//! Not responsible for what the engines are, nor for the machine around them.

use gemel_machine::{Aim, Attention, CpuIo, EngineError, Exit, Position, Steps, Vcpu, forward_to_io};
use gemel_x86::CpuState;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Where an engine is left for the other.
#[derive(Clone, Copy, Debug)]
pub enum Leave {
    /// At a count, that many counts at most behind the one at which it took over
    AtCounts(u64),
    /// At any boundary, also between two counts: that many steps behind at most, or now and then a thousand times as many
    Anywhere(u64),
}

/// An engine and where it is left
pub struct Side {
    pub engine: Box<dyn Vcpu>,
    pub leave: Leave,
}

/// Two engines with one vCPU
pub struct Hopper {
    sides: [Side; 2],
    here: usize,
    dice: Dice,
    aim: Aim,
    hops: Arc<AtomicU64>,
}

impl Hopper {
    /// The vCPU is with the first side. `hops` counts the times that it is handed over.
    pub fn new(sides: [Side; 2], seed: u64, hops: Arc<AtomicU64>) -> Self {
        Self { sides, here: 0, dice: Dice(seed), aim: Aim::NONE, hops }
    }

    fn engine(&mut self) -> &mut dyn Vcpu {
        self.sides[self.here].engine.as_mut()
    }

    fn hop(&mut self) -> Result<(), EngineError> {
        let state = self.engine().save()?;
        let at = self.engine().position();
        self.here ^= 1;
        self.engine().restore(&state)?;
        assert_eq!(self.engine().position(), at, "the other engine is somewhere else");
        self.hops.fetch_add(1, Relaxed);
        Ok(())
    }

    /// Runs until a count at which this side is left; whether it was, and not the machine's own stop.
    fn run_counts(&mut self, most: u64, io: &mut dyn CpuIo) -> Result<(Exit, bool), EngineError> {
        let leave = self.engine().position().count + self.dice.up_to(most);
        let mut bounded = Bounded { io, leave, wanted: u64::MAX };
        let exit = self.sides[self.here].engine.run(&mut bounded)?;
        let wanted = bounded.wanted;
        Ok((exit, exit == Exit::Stop && self.engine().position().count < wanted))
    }
}

impl Vcpu for Hopper {
    fn run(&mut self, io: &mut dyn CpuIo) -> Result<Exit, EngineError> {
        let aim = std::mem::replace(&mut self.aim, Aim::NONE);
        loop {
            match self.sides[self.here].leave {
                Leave::AtCounts(most) => {
                    self.engine().aim(aim);
                    let (exit, left) = self.run_counts(most, io)?;
                    if !left {
                        return Ok(exit);
                    }
                    self.hop()?;
                }
                Leave::Anywhere(most) => {
                    // On the way to an address there are millions of steps, each hand-over costs as much as thousands.
                    let most = if aim.rip.is_some() { most * 1000 } else { most };
                    let steps = self.dice.mostly_up_to(most).min(aim.steps);
                    self.engine().aim(Aim { steps, ..aim });
                    let exit = self.engine().run(io)?;
                    if exit == Exit::Yield {
                        self.hop()?;
                    }
                    return Ok(exit);
                }
            }
        }
    }

    fn position(&self) -> Position {
        self.sides[self.here].engine.position()
    }

    fn steps(&self) -> Steps {
        let [one, other] = self.sides.each_ref().map(|side| side.engine.steps());
        Steps { at_least: one.at_least + other.at_least, at_most: one.at_most + other.at_most }
    }

    fn save(&mut self) -> Result<CpuState, EngineError> {
        self.engine().save()
    }

    fn restore(&mut self, state: &CpuState) -> Result<(), EngineError> {
        self.engine().restore(state)
    }

    fn flush(&mut self) {
        self.engine().flush();
    }

    fn aim(&mut self, aim: Aim) {
        self.aim = aim;
    }
}

/// Has an engine stop at a count that the machine does not ask for.
struct Bounded<'a> {
    io: &'a mut dyn CpuIo,
    leave: u64,
    /// The count that the machine asked for last
    wanted: u64,
}

impl Bounded<'_> {
    fn bound(&mut self, attention: Attention) -> Attention {
        self.wanted = attention.stop;
        Attention { stop: attention.stop.min(self.leave), ..attention }
    }
}

impl CpuIo for Bounded<'_> {
    forward_to_io!(
        attention,
        port_read,
        port_write,
        mmio_read,
        mmio_write,
        msr_read,
        msr_write,
        cr8_read,
        cr8_write,
        acknowledge_irq,
        acknowledge_nmi,
        float_error,
        query
    );
}

/// Numbers for tests: splitmix64
pub struct Dice(pub u64);

impl Dice {
    /// The same, or now and then up to a thousand times as much.
    fn mostly_up_to(&mut self, most: u64) -> u64 {
        let most = if self.up_to(16) == 1 { most.saturating_mul(1000) } else { most };
        self.up_to(most)
    }

    /// A number from 1 to `most`.
    pub fn up_to(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        1 + (mixed ^ mixed >> 31) % most
    }
}
