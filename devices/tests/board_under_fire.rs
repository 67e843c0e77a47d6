//! The whole board under random accesses: no access panics, equal boards stay equal, and a board restored from
//! another's saved state goes on as that one does.

use gemel_devices::apic::{ioapic, lapic};
use gemel_devices::{board, pci};
use gemel_machine::{
    BootSpec, Bus, DiskSpec, DiskStatus, GuestRam, Input, MachineSpec, NicSpec, Output, Reckoning, VirtTime,
};
use gemel_x86::{CpuModel, msr};
use std::sync::Arc;

const RAM: u64 = 2 << 20;

/// A board with two disks and a network interface, and its RAM.
struct Rig {
    bus: Bus,
    ram: Arc<GuestRam>,
    now: VirtTime,
}

impl Rig {
    fn new() -> Result<Self, Box<dyn std::error::Error>> {
        let spec = MachineSpec {
            board: board::BOARD,
            ram: RAM,
            cpu: "x86-64-v2".into(),
            reckoning: Reckoning::default(),
            rtc_base: 1_767_225_600,
            seed: 0,
            disks: vec![DiskSpec { sectors: 64, read_only: false, digest: 0 }; 2],
            nics: vec![NicSpec { mac: [2, 0, 0, 0, 0, 1] }],
            boot: BootSpec::default(),
        };
        let ram = Arc::new(GuestRam::new(RAM)?);
        let bus = board::build(&spec, &CpuModel::x86_64_v2(), ram.clone())?;
        Ok(Self { bus, ram, now: VirtTime(0) })
    }

    /// Takes over everything that another rig is.
    fn take_over(&mut self, from: &Self) -> Result<(), Box<dyn std::error::Error>> {
        for (name, section) in from.bus.save() {
            assert!(self.bus.restore(name, &section)?, "{name}");
        }
        self.bus.restore_wiring(&from.bus.save_wiring())?;
        self.ram.clear();
        for (page, content) in from.ram.used_pages() {
            self.ram.write(from.ram.address_of(page), &content)?;
        }
        self.now = from.now;
        Ok(())
    }

    fn sections(&self) -> Vec<u8> {
        let sections = self.bus.save().into_iter().flat_map(|(_, section)| section.body);
        sections.chain(self.bus.save_wiring().body).collect()
    }

    /// One random step; what could be seen from outside.
    fn step(&mut self, rng: &mut Rng) -> (u64, Vec<Output>) {
        let sizes = [1, 2, 4, 8];
        let now = self.now;
        let mut seen = 0;
        match rng.below(12) {
            0..=2 => {
                let port = rng.port();
                seen = self.bus.port_read(now, port, sizes[rng.below(3)]).into();
            }
            3..=5 => {
                let port = rng.port();
                self.bus.port_write(now, port, sizes[rng.below(3)], rng.next() as u32);
            }
            6 => {
                let address = rng.address();
                seen = self.bus.mmio_read(now, address, sizes[rng.below(4)]);
            }
            7 | 8 => {
                let address = rng.address();
                let value = rng.next() >> rng.below(64);
                self.bus.mmio_write(now, address, sizes[rng.below(4)], value);
            }
            9 => {
                // Rings and their tables may lie anywhere.
                let address = (rng.next() % (RAM - 8)) & !7;
                let _ = self.ram.write(address, &(rng.next() >> rng.below(64)).to_le_bytes());
                let number = [msr::APIC_BASE, msr::TSC_DEADLINE][rng.below(2)];
                seen = u64::from(self.bus.msr_write(now, number, rng.next()).is_some());
            }
            10 => {
                let data = vec![rng.next() as u8; 512 * rng.below(4)];
                let tag = rng.next() % 8;
                let inputs = [
                    Input::DiskDone { disk: (tag % 3) as u8, tag, status: DiskStatus::Ok, data },
                    Input::Serial { port: 0, bytes: vec![tag as u8; 3] },
                    Input::Key(vec![0x1c, 0xf0, 0x1c]),
                    Input::Mouse { dx: 3, dy: -4, buttons: 1 },
                    Input::PowerButton,
                    Input::Frame { nic: 0, bytes: vec![tag as u8; 60] },
                ];
                self.bus.input(now, inputs[rng.below(6)].clone());
            }
            _ => {
                if self.bus.interrupt_pending() {
                    seen = self.bus.acknowledge(now).into();
                }
                self.now = now.after(rng.next() >> (40 + rng.below(24)));
                // Periodic timers of a few nanoseconds are allowed; a step fires only the first of them.
                for _ in 0..16 {
                    if self.bus.next_deadline() > self.now {
                        break;
                    }
                    self.bus.fire_timers(self.bus.next_deadline());
                }
                self.bus.fire_timers(self.now);
            }
        }
        (seen, self.bus.take_outputs().collect())
    }
}

/// SplitMix64.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// Mostly where something is.
    fn port(&mut self) -> u16 {
        let bases = [0x20, 0xa0, 0x40, 0x60, 0x70, 0x80, 0x2f8, 0x3f8, 0x4d0, 0x600, 0xcf8, 0xcfc];
        match self.below(16) {
            0 => self.next() as u16,
            n => bases[n % bases.len()] + self.below(8) as u16,
        }
    }

    fn address(&mut self) -> u64 {
        let bases = [lapic::BASE, ioapic::BASE, pci::MEMORY_WINDOW.start, pci::MEMORY_WINDOW.start + 0x3000];
        match self.below(16) {
            0 => self.next(),
            n => bases[n % 4] + ((self.next() % 0x500) & !3),
        }
    }
}

#[test]
fn equal_boards_stay_equal_and_a_restored_one_goes_on() {
    for seed in 0..12 {
        let (mut first, mut second) = (Rig::new().unwrap(), Rig::new().unwrap());
        let (mut a, mut b) = (Rng(seed), Rng(seed));
        for step in 0..4000 {
            assert_eq!(first.step(&mut a), second.step(&mut b), "seed {seed}, step {step}");
        }
        assert_eq!(first.sections(), second.sections(), "seed {seed}");
        let mut third = Rig::new().unwrap();
        third.take_over(&first).unwrap();
        assert_eq!(first.sections(), third.sections(), "seed {seed}: as saved");
        let mut c = Rng(b.0);
        for step in 0..4000 {
            assert_eq!(second.step(&mut b), third.step(&mut c), "seed {seed}, step {step} after the restore");
        }
        assert_eq!(second.sections(), third.sections(), "seed {seed}");
        assert_eq!(second.ram.digest(), third.ram.digest(), "seed {seed}");
    }
}

/// What a reset leaves is what power-on leaves, but for the clock and its battery, bytes on their way to a serial port, and the names
/// of disk requests, which must stay unique while completions from before the reset are on their way.
#[test]
fn a_reset_leaves_what_power_on_leaves() {
    const GOES_ON: [&str; 3] = ["rtc", "uart0", "pci"];
    for seed in 0..40 {
        let mut used = Rig::new().unwrap();
        let mut rng = Rng(seed);
        for _ in 0..2000 {
            used.step(&mut rng);
        }
        let mut fresh = Rig::new().unwrap();
        used.bus.reset(used.now);
        fresh.bus.reset(used.now);
        assert_eq!(used.bus.power(), None);
        assert!(!used.bus.nmi_pending() && !used.bus.interrupt_pending(), "seed {seed}");
        for ((name, used), (_, fresh)) in used.bus.save().into_iter().zip(fresh.bus.save()) {
            assert!(used == fresh || GOES_ON.contains(&name), "seed {seed}: {name}\n{used:?}\n{fresh:?}");
        }
        assert_eq!(board::disk_requests(&used.bus), [], "seed {seed}");
    }
}
