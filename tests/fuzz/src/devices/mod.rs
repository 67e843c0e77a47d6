//! Devices under random accesses, alone in a socket (`socket`) or all together on the board, with drivers that know enough to
//! reach the rings (`driver`).
//!
//! Not responsible for: code that a guest runs (`cpu`), whether a chip does what its datasheet says (its own tests).
//!
//! A case takes a device that has been through all cases before it, saves it into a fresh one, and does the same to both: what
//! they show and what they are must stay the same.

mod driver;
mod script;
mod socket;

use crate::rng::Rng;
use crate::run::{Episode, Tally};
use gemel_machine::{Bus, GuestRam, VirtTime};
use script::Script;
use socket::{SUBJECTS, Subject};
use std::sync::Arc;

/// RAM of a bench: small, so that rings meet its end.
const RAM: u64 = 1 << 20;
/// Cases of an episode.
const CASES: u64 = 12;
/// Steps of a case.
const STEPS: u64 = 400;

/// The fuzzer. Episodes take turns with the devices.
#[derive(Default)]
pub struct DeviceFuzzer;

/// A bus under test, and the guest time that the script wants.
struct Bench {
    bus: Bus,
    ram: Arc<GuestRam>,
    now: VirtTime,
}

impl Bench {
    fn new(subject: &Subject) -> anyhow::Result<Self> {
        let ram = Arc::new(GuestRam::new(RAM)?);
        let bus = (subject.plug_in)(subject, ram.clone())?;
        Ok(Self { bus, ram, now: VirtTime(0) })
    }

    /// A fresh bench that takes over everything that another is.
    fn from(subject: &Subject, other: &Self) -> anyhow::Result<Self> {
        let mut bench = Self::new(subject)?;
        for (name, section) in other.bus.save() {
            anyhow::ensure!(bench.bus.restore(name, &section)?, "no device {name}");
        }
        bench.bus.restore_wiring(&other.bus.save_wiring())?;
        bench.ram.clear();
        for (page, content) in other.ram.used_pages() {
            bench.ram.write(other.ram.address_of(page), &content)?;
        }
        bench.now = other.now;
        bench.bus.take_outputs();
        Ok(bench)
    }
}

impl Episode for DeviceFuzzer {
    fn run(&self, rng: &Rng, number: u64, tally: &mut Tally) -> anyhow::Result<()> {
        let subject = &SUBJECTS[number as usize % SUBJECTS.len()];
        let mut bench = Bench::new(subject)?;
        let mut script = Script::new(subject, Rng::of(rng.next(), 0));
        for _ in 0..CASES {
            tally.case(subject.name, Vec::new);
            let mut twin = Bench::from(subject, &bench)?;
            let mut repeated = script.clone();
            let before = script.made;
            for step in 0..STEPS {
                let seen = script.step(&mut bench);
                assert_eq!(seen, repeated.step(&mut twin), "step {step} after save and restore");
            }
            assert_eq!(bench.bus.save(), twin.bus.save(), "the same state");
            assert_eq!(bench.bus.save_wiring(), twin.bus.save_wiring(), "the same wires and timers");
            assert_eq!(bench.ram.digest(), twin.ram.digest(), "the same memory");
            // A device with rings is got at only when it makes requests.
            tally.done(STEPS, subject.slots.is_empty() || script.made > before);
        }
        Ok(())
    }
}
