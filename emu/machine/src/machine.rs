//! The machine and its one loop.
//!
//! Not responsible for: which role the run has. The same loop serves every world.
//!
//! Order at one position, always: timers by (deadline, device), then inputs in the world's order, then the vCPU
//! recognises interrupts.

use crate::bus::{Bus, PowerEvent};
use crate::clock::{Clock, Reckoning};
use crate::digest::Digest;
use crate::position::{Landing, Position, VirtTime};
use crate::power_on::PowerOn;
use crate::ram::GuestRam;
use crate::vcpu::{Aim, Attention, CpuIo, EngineError, Exit, Query, Vcpu};
use crate::world::{At, Stop, StopAt, World};
use gemel_x86::{CpuState, msr};
use std::sync::Arc;
use xxhash_rust::xxh3::Xxh3;

/// A PC: an engine, a bus of devices, RAM, and a clock.
pub struct Machine {
    pub(crate) vcpu: Box<dyn Vcpu>,
    pub(crate) bus: Bus,
    pub(crate) ram: Arc<GuestRam>,
    pub(crate) clock: Clock,
    pub(crate) id: u64,
    /// The most steps that the engine can have made by the last stop before the count rose to what it is.
    exit_not_before: u64,
    /// What a reset starts again from; `None`: a reset ends the run.
    power_on: Option<PowerOn>,
}

/// Why a run ended by itself. A machine that is [`Machine::rebooting`] ends neither by a reset nor by a triple fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pause {
    /// A device asked for it.
    Power(PowerEvent),
    /// HLT with interrupts off: the guest stopped for good.
    Halted,
    /// A triple fault, which on a PC is a reset.
    TripleFault,
}

/// Why a run could not go on.
#[derive(Debug)]
pub enum RunError {
    /// The world ended it.
    World(Stop),
    /// The engine could not.
    Engine(EngineError),
}

impl From<EngineError> for RunError {
    fn from(e: EngineError) -> Self {
        Self::Engine(e)
    }
}

impl From<Stop> for RunError {
    fn from(s: Stop) -> Self {
        Self::World(s)
    }
}

impl Machine {
    /// Puts a machine together. `id` names its configuration (devices, RAM, CPU model): snapshots and logs of
    /// another `id` are refused.
    pub fn new(vcpu: Box<dyn Vcpu>, bus: Bus, ram: Arc<GuestRam>, reckoning: Reckoning, id: u64) -> Self {
        Self { vcpu, bus, ram, clock: Clock::new(reckoning), id, exit_not_before: 0, power_on: None }
    }

    /// Makes a reset start the machine again as it is now: to be called at power-on, with everything loaded. Whether a
    /// machine does so is part of its configuration.
    ///
    /// # Errors
    /// Host trouble of the engine.
    pub fn rebooting(mut self) -> Result<Self, EngineError> {
        self.power_on = Some(PowerOn::of(self.vcpu.as_mut(), &self.ram)?);
        Ok(self)
    }

    /// The configuration's name.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Guest memory.
    pub fn ram(&self) -> &Arc<GuestRam> {
        &self.ram
    }

    /// What positions count, and what makes time of it.
    pub fn reckoning(&self) -> Reckoning {
        self.clock.reckoning()
    }

    /// The devices and how they are connected.
    pub fn bus(&self) -> &Bus {
        &self.bus
    }

    /// The engine.
    pub fn vcpu(&mut self) -> &mut dyn Vcpu {
        self.vcpu.as_mut()
    }

    /// Where and when the machine is.
    pub fn at(&self) -> At {
        let position = self.vcpu.position();
        At { position, time: self.clock.time_at(position.count) }
    }

    /// Runs under a world until the guest or the world ends it. The machine can be run again, also under another
    /// world: it goes on where it stopped.
    ///
    /// # Errors
    /// [`RunError::World`] with the world's reason, [`RunError::Engine`] for host trouble of the engine.
    pub fn run(&mut self, world: &mut dyn World) -> Result<Pause, RunError> {
        // Whether the boundary may lie between two counts, so that its count alone does not name it.
        let mut between = self.clock.reckoning() == Reckoning::Exits;
        let mut search = None;
        loop {
            let at = self.woken(world, &mut between)?;
            self.bus.fire_timers(at.time);
            emit_all(&mut self.bus, at, world);
            while self.bus.power().is_none()
                && let Some(input) = world.poll(at)?
            {
                self.land(at, world, &mut between)?;
                self.bus.input(at.time, input);
                emit_all(&mut self.bus, at, world);
            }
            match self.bus.power() {
                Some(PowerEvent::Reset) if self.reset()? => continue,
                Some(event) => return Ok(Pause::Power(event)),
                None => {}
            }
            if world.digest_due(at) {
                self.land(at, world, &mut between)?;
                let digest = self.digest()?;
                world.digest(at, digest)?;
            }
            let mut wanted = world.next_stop(at);
            if let Some(landing) = wanted.landing.filter(|l| l.position.count == at.position.count) {
                if self.is_at(&landing)? {
                    between = false;
                    world.landed(at, landing);
                    continue;
                }
                let made = self.vcpu.steps().at_least;
                let (_, began) = search.filter(|(sought, _)| *sought == landing).unwrap_or((landing, made));
                search = Some((landing, began));
                if made - began > landing.within {
                    return Err(world.missed(at, landing, made - began).into());
                }
                let Landing { position: Position { rip, rcx, .. }, linear, within, .. } = landing;
                let steps = (within - (made - began)).saturating_add(1);
                self.vcpu.aim(Aim { steps, rip: Some(rip), rcx: Some(rcx), linear });
                wanted.count = at.position.count.saturating_add(1);
            }
            let made = self.vcpu.steps().at_most;
            let mut io = Io::new(&mut self.bus, self.clock, world, wanted);
            let exit = self.vcpu.run(&mut io)?;
            let (failed, asked_within) = (io.failed, io.asked_within);
            self.clock = io.clock;
            if let Some(stop) = failed {
                return Err(stop.into());
            }
            let here = self.vcpu.position();
            if here.count != at.position.count {
                self.exit_not_before = made;
            }
            between = self.clock.reckoning() == Reckoning::Exits
                && match exit {
                    // HLT is an exit, and a halted vCPU is right behind it.
                    Exit::Halted | Exit::HaltedForGood => false,
                    Exit::Stop if asked_within == Some(here.count) => true,
                    Exit::Stop if here.count != at.position.count => false,
                    Exit::Stop => between || here != at.position,
                    Exit::Yield | Exit::Shutdown => true,
                };
            match exit {
                Exit::Stop | Exit::Yield => {}
                // The chipset of a PC answers the shutdown cycle (SDM 3A 6.15, interrupt 8) with a reset.
                Exit::Shutdown if self.reset()? => {}
                Exit::Shutdown => return Ok(Pause::TripleFault),
                Exit::HaltedForGood => return Ok(Pause::Halted),
                Exit::Halted => {
                    let at = self.at();
                    let until = self.bus.next_deadline();
                    if until > at.time {
                        let time = world.idle(at, until)?;
                        self.clock.advance(at.position.count, time.min(until));
                    }
                }
            }
        }
    }

    /// Where and when the machine is, the time asked for if a timer is due by now.
    fn woken(&mut self, world: &mut dyn World, between: &mut bool) -> Result<At, RunError> {
        let at = self.at();
        if self.clock.reckoning() != Reckoning::Exits {
            return Ok(at);
        }
        let deadline = self.bus.next_deadline();
        // What is due by a time that is known fires by itself.
        if deadline <= at.time {
            return Ok(at);
        }
        if let Some(time) = world.wake(at, deadline)? {
            self.land(at, world, between)?;
            self.clock.advance(at.position.count, time);
        }
        Ok(self.at())
    }

    /// Something is about to be applied here: if the count does not name this boundary, its state does.
    fn land(&mut self, at: At, world: &mut dyn World, between: &mut bool) -> Result<(), EngineError> {
        if std::mem::take(between) {
            let landing = self.landing()?;
            world.landed(at, landing);
        }
        Ok(())
    }

    /// This boundary, described by the state.
    ///
    /// # Errors
    /// Host trouble of the engine.
    pub fn landing(&mut self) -> Result<Landing, EngineError> {
        let within = self.vcpu.steps().at_most.saturating_sub(self.exit_not_before);
        let state = self.vcpu.save()?;
        let (linear, digest) = (state.linear_rip(), self.digest_with(self.cpu_digest(&state)));
        Ok(Landing { position: self.vcpu.position(), digest, linear, within })
    }

    /// Whether the machine is at a landing. What is cheap to compare comes first.
    fn is_at(&mut self, landing: &Landing) -> Result<bool, EngineError> {
        if self.vcpu.position() != landing.position {
            return Ok(false);
        }
        let state = self.vcpu.save()?;
        let cpu = self.cpu_digest(&state);
        Ok(cpu == landing.digest.cpu && self.digest_with(cpu) == landing.digest)
    }

    /// An engine that cannot count instructions cannot hold what an FPU leaves in its pointers either.
    fn cpu_digest(&self, state: &CpuState) -> u64 {
        state.digest(self.clock.reckoning() != Reckoning::Exits)
    }

    /// A reset, if this machine starts again at one: devices, CPU and RAM are as at power-on, position and guest time go on
    /// (TSC, PM timer and the RTC's time with them).
    fn reset(&mut self) -> Result<bool, EngineError> {
        let at = self.at();
        let Some(power_on) = &self.power_on else { return Ok(false) };
        self.bus.reset(at.time);
        power_on.apply(at.position, self.vcpu.as_mut(), &self.ram)?;
        Ok(true)
    }

    /// The digest at this boundary.
    ///
    /// # Errors
    /// Host trouble of the engine.
    pub fn digest(&mut self) -> Result<Digest, EngineError> {
        let state = self.vcpu.save()?;
        Ok(self.digest_with(self.cpu_digest(&state)))
    }

    /// The digest here, where the vCPU's part is known.
    fn digest_with(&self, cpu: u64) -> Digest {
        let mut hash = Xxh3::new();
        for (name, section) in self.bus.save() {
            hash.update(name.as_bytes());
            hash.update(&section.version.to_le_bytes());
            hash.update(&(section.body.len() as u64).to_le_bytes());
            hash.update(&section.body);
        }
        hash.update(&self.bus.save_wiring().body);
        hash.update(&self.at().time.0.to_le_bytes());
        Digest { cpu, devices: hash.digest(), ram: self.ram.digest() }
    }
}

fn emit_all(bus: &mut Bus, at: At, world: &mut dyn World) {
    for output in bus.take_outputs() {
        world.emit(at, output);
    }
}

/// The vCPU's side of the bus during one `run`.
struct Io<'a> {
    bus: &'a mut Bus,
    clock: Clock,
    world: &'a mut dyn World,
    /// The world's stop, as a count.
    wanted: u64,
    /// The world answered something since it was asked what it wants.
    answered: bool,
    /// The count of the last call that no exit goes with: a boundary of this count is not its first.
    asked_within: Option<u64>,
    /// The world's refusal to answer a query; ends the run at the next boundary.
    failed: Option<Stop>,
}

impl<'a> Io<'a> {
    fn new(bus: &'a mut Bus, clock: Clock, world: &'a mut dyn World, wanted: StopAt) -> Self {
        let wanted = wanted.count.min(clock.count_at(wanted.time));
        Self { bus, clock, world, wanted, answered: false, asked_within: None, failed: None }
    }

    fn time(&self, at: Position) -> VirtTime {
        self.clock.time_at(at.count)
    }

    /// Guest time for what the vCPU does with the board within a count.
    fn time_within(&mut self, at: Position) -> VirtTime {
        self.asked_within = Some(at.count);
        self.time(at)
    }

    /// Guest time for an access to a device. Where time is sampled this is where.
    fn now(&mut self, at: Position) -> VirtTime {
        let time = self.time(at);
        if self.clock.reckoning() != Reckoning::Exits {
            return time;
        }
        self.answered = true;
        match self.world.now(At { position: at, time }) {
            Ok(time) => self.clock.advance(at.count, time),
            Err(stop) => {
                self.failed.get_or_insert(stop);
            }
        }
        self.time(at)
    }

    /// After a device call: outputs leave, and the attention is what the board wants now.
    fn settle(&mut self, at: Position) -> Attention {
        if self.bus.has_outputs() || self.answered {
            let time = self.time(at);
            for output in self.bus.take_outputs() {
                self.world.emit(At { position: at, time }, output);
            }
            // An output can change what the world wants next (a disk completion has a time now), and so can an answer.
            let wanted = self.world.next_stop(At { position: at, time });
            self.wanted = wanted.count.min(self.clock.count_at(wanted.time));
            self.answered = false;
        }
        let ends = self.bus.power().is_some() || self.failed.is_some();
        let stop = if ends { 0 } else { self.wanted.min(self.clock.count_at(self.bus.next_deadline())) };
        Attention { stop, interrupt: self.bus.interrupt_pending(), nmi: self.bus.nmi_pending() }
    }
}

impl CpuIo for Io<'_> {
    fn attention(&mut self, at: Position) -> Attention {
        self.settle(at)
    }

    fn port_read(&mut self, at: Position, port: u16, size: u8) -> (u32, Attention) {
        let now = self.now(at);
        let value = self.bus.port_read(now, port, size);
        (value, self.settle(at))
    }

    fn port_write(&mut self, at: Position, port: u16, size: u8, value: u32) -> Attention {
        let now = self.now(at);
        self.bus.port_write(now, port, size, value);
        self.settle(at)
    }

    fn mmio_read(&mut self, at: Position, address: u64, size: u8) -> (u64, Attention) {
        let now = self.now(at);
        let value = self.bus.mmio_read(now, address, size);
        (value, self.settle(at))
    }

    fn mmio_write(&mut self, at: Position, address: u64, size: u8, value: u64) -> Attention {
        let now = self.now(at);
        self.bus.mmio_write(now, address, size, value);
        self.settle(at)
    }

    fn msr_read(&mut self, at: Position, number: u32) -> (Option<u64>, Attention) {
        // Where the APIC is does not depend on time, and CPUID asks too, which leaves no guest.
        let now = if number == msr::APIC_BASE { self.time_within(at) } else { self.now(at) };
        let value = self.bus.msr_read(now, number);
        (value, self.settle(at))
    }

    fn msr_write(&mut self, at: Position, msr: u32, value: u64) -> (Option<()>, Attention) {
        let now = self.now(at);
        let done = self.bus.msr_write(now, msr, value);
        (done, self.settle(at))
    }

    fn cr8_read(&mut self, _at: Position) -> u8 {
        self.bus.task_priority()
    }

    fn cr8_write(&mut self, at: Position, value: u8) -> Attention {
        let now = self.time_within(at);
        self.bus.set_task_priority(now, value);
        self.settle(at)
    }

    fn acknowledge_irq(&mut self, at: Position) -> (u8, Attention) {
        let now = self.time_within(at);
        let vector = self.bus.acknowledge(now);
        (vector, self.settle(at))
    }

    fn acknowledge_nmi(&mut self, at: Position) -> Attention {
        self.asked_within = Some(at.count);
        self.bus.take_nmi();
        self.settle(at)
    }

    fn float_error(&mut self, at: Position, waits: bool) -> (bool, Attention) {
        let now = self.time_within(at);
        let ignored = self.bus.float_error(now, waits);
        (ignored, self.settle(at))
    }

    fn query(&mut self, at: Position, query: Query) -> u64 {
        self.asked_within = Some(at.count);
        match query {
            Query::Tsc => self.now(at).ticks(gemel_x86::cpuid::TSC_HZ),
            Query::Random => {
                self.answered = true;
                self.world.answer(At { position: at, time: self.time(at) }, query).unwrap_or_else(|stop| {
                    self.failed.get_or_insert(stop);
                    0
                })
            }
        }
    }
}

/// MSRs that belong to the local APIC and so go over the bus.
pub const fn is_bus_msr(number: u32) -> bool {
    matches!(number, msr::APIC_BASE | msr::TSC_DEADLINE | msr::X2APIC_FIRST..=msr::X2APIC_LAST)
}
