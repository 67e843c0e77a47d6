//! A bench for one device, and the rules that every device keeps when it is saved and restored.
//!
//! Not responsible for: what a chip does (its own tests).
//!
//! The bench is a bus with the device under test (number 0) and a witness (number 1), which listens to every wire,
//! takes messages, and can drive wires itself.

use gemel_machine::bus::{BusBuilder, PortWidth};
use gemel_machine::{
    Bus, Device, DeviceCx, GuestRam, Input, InputPort, Output, PAGE_SIZE, Section, SectionError, Timers,
    VirtTime, Wires,
};
use serde::{Deserialize, Serialize};
use std::ops::RangeInclusive;
use std::sync::Arc;

/// Where the device under test is plugged in, and what a random script may do to it.
#[derive(Clone, Default)]
pub(crate) struct Socket {
    /// Port ranges of the device, each with the width at which it takes accesses.
    pub ports: Vec<(RangeInclusive<u16>, PortWidth)>,
    /// Windows of the physical address space: start and size.
    pub windows: Vec<(u64, u64)>,
    /// Wires that lead to the device: pin `i` of the device hears of wire `pins[i]`.
    pub pins: Vec<u16>,
    /// MSRs that a script may access.
    pub msrs: Vec<u32>,
    /// Whether the device is the vCPU's interrupt controller.
    pub controller: bool,
    /// Inputs that a script may send; each is sent as it stands.
    pub inputs: Vec<Input>,
}

/// What the witness saw.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum Seen {
    /// A wire went to a level.
    Level(u16, bool),
    /// A message-signalled interrupt.
    Message(u64, u32),
    /// The end of a level-triggered interrupt.
    EndOfInterrupt(u8),
}

/// Where the witness is driven: a store of 0 or 1 to `HAND + wire` sets the wire.
const HAND: u64 = 0xff_ffff_0000;

#[derive(Default)]
struct Witness {
    seen: Vec<(VirtTime, Seen)>,
}

impl Device for Witness {
    fn name(&self) -> &'static str {
        "witness"
    }
    fn reset(&mut self, _cx: &mut DeviceCx<'_>) {}
    fn save(&self) -> Section {
        Section::of(1, &self.seen)
    }
    fn restore(&mut self, section: &Section) -> Result<(), SectionError> {
        self.seen = section.read("witness", 1)?;
        Ok(())
    }
    fn mmio_write(&mut self, cx: &mut DeviceCx<'_>, address: u64, _size: u8, value: u64) {
        cx.wires.set((address - HAND) as u16, value != 0);
    }
    fn on_wire(&mut self, cx: &mut DeviceCx<'_>, pin: u8, level: bool) {
        self.seen.push((cx.now, Seen::Level(u16::from(pin), level)));
    }
    fn on_message(&mut self, cx: &mut DeviceCx<'_>, address: u64, data: u32) {
        self.seen.push((cx.now, Seen::Message(address, data)));
    }
    fn on_end_of_interrupt(&mut self, cx: &mut DeviceCx<'_>, vector: u8) {
        self.seen.push((cx.now, Seen::EndOfInterrupt(vector)));
    }
}

/// A bus with one device, and the guest time that the test wants.
pub(crate) struct Bench {
    /// The bus.
    pub bus: Bus,
    /// Guest memory.
    pub ram: Arc<GuestRam>,
    /// Guest time now; [`Bench::run_to`] moves it.
    pub now: VirtTime,
}

const WIRES: usize = 64;

impl Bench {
    /// Plugs a device in and resets it, at time zero.
    pub fn new(device: impl Device + 'static, socket: &Socket) -> Self {
        let ram = Arc::new(GuestRam::new(1 << 20).unwrap());
        let mut builder = BusBuilder::new(ram.clone(), WIRES);
        let device = builder.add(device);
        let witness = builder.add(Witness::default());
        for (range, width) in &socket.ports {
            builder.ports(range.clone(), device, *width);
        }
        for (start, size) in &socket.windows {
            builder.window(*start, *size, device);
        }
        builder.window(HAND, WIRES as u64, witness);
        for wire in 0..WIRES as u16 {
            builder.connect(wire, witness, wire as u8);
        }
        for (pin, wire) in socket.pins.iter().enumerate() {
            builder.connect(*wire, device, pin as u8);
        }
        for n in 0..4 {
            builder.plug(InputPort::Serial(n), device).plug(InputPort::Disk(n), device);
            builder.plug(InputPort::Net(n), device);
        }
        for port in [InputPort::Keyboard, InputPort::Mouse, InputPort::PowerButton] {
            builder.plug(port, device);
        }
        builder.cpu_interrupts(&[if socket.controller { device } else { witness }]).end_of_interrupt(witness);
        let mut bench = Self { bus: builder.build(), ram, now: VirtTime(0) };
        bench.clear_seen();
        bench
    }

    /// IN of a byte.
    pub fn inb(&mut self, port: u16) -> u8 {
        self.bus.port_read(self.now, port, 1) as u8
    }

    /// OUT of a byte.
    pub fn outb(&mut self, port: u16, value: u8) {
        self.bus.port_write(self.now, port, 1, u32::from(value));
    }

    /// Drives a wire from outside.
    pub fn set_wire(&mut self, wire: u16, level: bool) {
        self.bus.mmio_write(self.now, HAND + u64::from(wire), 1, u64::from(level));
    }

    /// The level of a wire.
    pub fn wire(&self, wire: u16) -> bool {
        self.wiring().0.level(wire)
    }

    fn wiring(&self) -> (Wires, Timers, bool) {
        self.bus.save_wiring().read("wiring", 1).unwrap()
    }

    /// When the next timer of the device is due.
    pub fn next_deadline(&self) -> VirtTime {
        self.bus.next_deadline()
    }

    /// Lets guest time pass, firing each timer at its deadline.
    pub fn run_to(&mut self, end: VirtTime) {
        while self.bus.next_deadline() <= end {
            self.now = self.now.max(self.bus.next_deadline());
            self.bus.fire_timers(self.now);
        }
        self.now = self.now.max(end);
    }

    /// Lets `ns` nanoseconds pass.
    pub fn run_for(&mut self, ns: u64) {
        self.run_to(self.now.after(ns));
    }

    /// Sends an input.
    pub fn input(&mut self, input: Input) {
        self.bus.input(self.now, input);
    }

    /// What left the machine since the last call.
    pub fn outputs(&mut self) -> Vec<Output> {
        self.bus.take_outputs().collect()
    }

    /// The witness's notes since the last call, with their times.
    pub fn seen(&mut self) -> Vec<(VirtTime, Seen)> {
        let seen = self.bus.save()[1].1.read("witness", 1).unwrap();
        self.clear_seen();
        seen
    }

    fn clear_seen(&mut self) {
        let nothing: Vec<(VirtTime, Seen)> = Vec::new();
        self.bus.restore("witness", &Section::of(1, &nothing)).unwrap();
    }

    /// The device's section.
    pub fn section(&self) -> Section {
        self.bus.save()[0].1.clone()
    }

    /// Restores the device alone.
    pub fn restore(&mut self, section: &Section) -> Result<(), SectionError> {
        let name = self.bus.save()[0].0;
        self.bus.restore(name, section).map(|known| assert!(known))
    }
}

/// A seeded generator (SplitMix64).
pub(crate) struct Rng(pub u64);

impl Rng {
    /// 64 random bits.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// A number below `n`; zero when `n` is.
    pub fn below(&mut self, n: u64) -> u64 {
        if n == 0 { 0 } else { self.next() % n }
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        let at = self.below(from.len() as u64) as usize;
        from.get(at)
    }
}

/// What a script observed, step by step.
#[derive(PartialEq, Debug)]
enum Observed {
    Read(u64),
    Msr(Option<u64>),
    Vector(u8),
    Out(Output),
    Wire(VirtTime, Seen),
}

/// Timers that one step may fire: a PIT at its highest rate would otherwise keep a long step busy for hours.
const FIRES_A_STEP: usize = 64;

fn script(bench: &mut Bench, socket: &Socket, seed: u64, steps: usize) -> Vec<Observed> {
    let mut rng = Rng(seed);
    let mut observed = Vec::new();
    for _ in 0..steps {
        let kind = rng.below(10);
        let sizes: [u8; 4] = [1, 2, 4, 8];
        match kind {
            0..=4 => {
                if let Some((range, _)) = rng.pick(&socket.ports).cloned() {
                    let port = range.start() + rng.below(range.len() as u64) as u16;
                    let size = sizes[rng.below(3) as usize];
                    if rng.below(2) == 0 {
                        observed.push(Observed::Read(bench.bus.port_read(bench.now, port, size).into()));
                    } else {
                        bench.bus.port_write(bench.now, port, size, rng.next() as u32);
                    }
                }
                if let Some((start, size)) = rng.pick(&socket.windows).copied() {
                    let width = sizes[rng.below(4) as usize];
                    let address = (start + rng.below(size)) & !(u64::from(width) - 1);
                    if rng.below(2) == 0 {
                        let value = bench.bus.mmio_read(bench.now, address, width);
                        observed.push(Observed::Read(value));
                    } else {
                        let value = if rng.below(4) == 0 { rng.next() } else { rng.below(0x200) };
                        bench.bus.mmio_write(bench.now, address, width, value);
                    }
                }
            }
            5 => {
                if let Some(wire) = rng.pick(&socket.pins).copied() {
                    bench.set_wire(wire, rng.below(2) == 0);
                }
            }
            6 => {
                if let Some(input) = rng.pick(&socket.inputs).cloned() {
                    bench.input(input);
                }
            }
            7 if socket.controller => {
                if bench.bus.interrupt_pending() || rng.below(4) == 0 {
                    observed.push(Observed::Vector(bench.bus.acknowledge(bench.now)));
                }
            }
            8 if !socket.msrs.is_empty() => {
                if let Some(msr) = rng.pick(&socket.msrs).copied() {
                    if rng.below(2) == 0 {
                        observed.push(Observed::Msr(bench.bus.msr_read(bench.now, msr)));
                    } else {
                        let value = rng.next() >> rng.below(64);
                        let done = bench.bus.msr_write(bench.now, msr, value);
                        observed.push(Observed::Msr(done.map(|()| value)));
                    }
                }
            }
            _ => {
                let end = bench.now.after(rng.next() >> (34 + rng.below(30)));
                for _ in 0..FIRES_A_STEP {
                    let due = bench.bus.next_deadline();
                    if due > end {
                        bench.now = end;
                        break;
                    }
                    bench.now = bench.now.max(due);
                    bench.bus.fire_timers(bench.now);
                }
            }
        }
        observed.extend(bench.outputs().into_iter().map(Observed::Out));
        observed.extend(bench.seen().into_iter().map(|(at, seen)| Observed::Wire(at, seen)));
    }
    observed
}

fn copy_ram(from: &GuestRam, to: &GuestRam) {
    to.clear();
    for (page, content) in from.used_pages() {
        assert_eq!(content.len(), PAGE_SIZE);
        to.write(to.address_of(page), &content).unwrap();
    }
}

/// The rules of saving and restoring, for a device that `make` builds.
pub(crate) fn conformance<D: Device + 'static>(make: impl Fn() -> D, socket: &Socket) {
    for seed in 1..=20 {
        let mut first = Bench::new(make(), socket);
        script(&mut first, socket, seed, 400);
        let (section, wiring) = (first.section(), first.bus.save_wiring());

        let mut second = Bench::new(make(), socket);
        let before = second.bus.save_wiring();
        second.restore(&section).unwrap();
        assert_eq!(second.section(), section, "seed {seed}: save, restore, save is identical");
        assert_eq!(second.bus.save_wiring(), before, "seed {seed}: restore moves no wire and arms no timer");
        assert_eq!(second.outputs(), [], "seed {seed}: restore emits nothing");
        assert_eq!(second.seen(), [], "seed {seed}: restore signals nothing");
        assert_eq!(second.bus.power(), None, "seed {seed}: restore asks for no power event");

        second.bus.restore_wiring(&wiring).unwrap();
        second.now = first.now;
        copy_ram(&first.ram, &second.ram);
        let saw = script(&mut first, socket, !seed, 400);
        assert_eq!(
            saw,
            script(&mut second, socket, !seed, 400),
            "seed {seed}: the same script shows the same"
        );
        assert_eq!(first.section(), second.section(), "seed {seed}: and ends in the same state");
        assert_eq!(first.bus.save_wiring(), second.bus.save_wiring(), "seed {seed}: and with the same wires");
        assert_eq!(first.ram.digest(), second.ram.digest(), "seed {seed}: and with the same memory");

        let other = Section { version: section.version.wrapping_add(1), body: section.body.clone() };
        assert!(matches!(second.restore(&other), Err(SectionError::Version { .. })), "version is checked");
        assert_eq!(second.section(), first.section(), "seed {seed}: a refused section changes nothing");
        damaged(&make, socket, &section, seed);
    }
}

/// Damaged sections are refused, or give a state on which the device runs without a panic.
fn damaged<D: Device + 'static>(make: &impl Fn() -> D, socket: &Socket, good: &Section, seed: u64) {
    let mut rng = Rng(seed ^ 0xdead);
    for round in 0..60 {
        let mut bad = good.clone();
        match round % 3 {
            0 => bad.body = (0..rng.below(200)).map(|_| rng.next() as u8).collect(),
            1 => bad.body.truncate(rng.below(good.body.len() as u64) as usize),
            _ => {
                for _ in 0..=rng.below(4) {
                    let at = rng.below(bad.body.len() as u64) as usize;
                    if let Some(byte) = bad.body.get_mut(at) {
                        *byte = rng.next() as u8;
                    }
                }
            }
        }
        let mut bench = Bench::new(make(), socket);
        let fresh = bench.section();
        if bench.restore(&bad).is_ok() {
            script(&mut bench, socket, rng.next(), 40);
        } else {
            assert_eq!(bench.section(), fresh, "a refused section changes nothing");
        }
    }
}

/// The rules can be broken: a device that leaves a register out of its section is found.
mod found_out {
    use super::*;

    #[derive(Default)]
    struct Forgetful {
        kept: u8,
        forgotten: u8,
    }

    impl Device for Forgetful {
        fn name(&self) -> &'static str {
            "forgetful"
        }
        fn reset(&mut self, _cx: &mut DeviceCx<'_>) {}
        fn save(&self) -> Section {
            Section::of(1, &self.kept)
        }
        fn restore(&mut self, section: &Section) -> Result<(), SectionError> {
            self.kept = section.read("forgetful", 1)?;
            Ok(())
        }
        fn port_read(&mut self, _cx: &mut DeviceCx<'_>, _port: u16, _size: u8) -> u32 {
            u32::from(self.kept) | u32::from(self.forgotten) << 8
        }
        fn port_write(&mut self, _cx: &mut DeviceCx<'_>, port: u16, _size: u8, value: u32) {
            let register = if port == 0 { &mut self.kept } else { &mut self.forgotten };
            *register = value as u8;
        }
    }

    #[test]
    #[should_panic(expected = "the same script shows the same")]
    fn what_is_left_out() {
        let socket = Socket { ports: vec![(0..=1, PortWidth::Any)], ..Socket::default() };
        conformance(Forgetful::default, &socket);
    }
}
