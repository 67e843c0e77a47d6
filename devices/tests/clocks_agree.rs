//! The five clocks of the board tell the same time, to one part in a million: TSC, 8254, local APIC timer, RTC and
//! ACPI PM timer, all read through the board's own registers while guest time passes.

use gemel_devices::acpi::pm;
use gemel_devices::apic::{ioapic, lapic};
use gemel_devices::board;
use gemel_machine::{BootSpec, Bus, GuestRam, MachineSpec, Reckoning, VirtTime};
use gemel_x86::{CpuModel, cpuid::TSC_HZ};
use std::sync::Arc;

const PIT_VECTOR: u8 = 0x30;
const RTC_VECTOR: u8 = 0x38;
const APIC_VECTOR: u8 = 0x50;
/// 100 Hz, roughly.
const PIT_DIVISOR: u64 = 11_932;
const PIT_HZ: f64 = 1_193_182.0;
/// An odd count, so that nothing divides evenly.
const APIC_COUNT: u64 = 611_953;
const APIC_DIVISOR: u64 = 16;
const PM_TIMER_HZ: f64 = 3_579_545.0;
/// How long is measured.
const SECONDS: u64 = 200;

/// An engine is not at a boundary when a timer is due: it comes late by up to so many nanoseconds.
const LATE_NS: u64 = 997;

fn bus() -> Result<Bus, Box<dyn std::error::Error>> {
    let spec = MachineSpec {
        board: board::BOARD,
        ram: 4 << 20,
        cpu: "x86-64-v2".into(),
        reckoning: Reckoning::default(),
        rtc_base: 1_767_225_600,
        seed: 0,
        disks: vec![],
        nics: Vec::new(),
        boot: BootSpec::default(),
    };
    Ok(board::build(&spec, &CpuModel::x86_64_v2(), Arc::new(GuestRam::new(spec.ram)?))?)
}

/// Sets every clock going: 8254 and RTC through the I/O APIC, the APIC timer by itself.
fn start(bus: &mut Bus) {
    let now = VirtTime(0);
    for (pin, vector) in [(2, PIT_VECTOR), (8, RTC_VECTOR)] {
        bus.mmio_write(now, ioapic::BASE, 4, 0x10 + 2 * pin);
        bus.mmio_write(now, ioapic::BASE + 0x10, 4, vector.into());
    }
    let [low, high] = (PIT_DIVISOR as u16).to_le_bytes();
    let rtc_update_interrupt = 0x12;
    for (port, value) in [(0x43, 0x34), (0x40, low), (0x40, high), (0x70, 0x0b), (0x71, rtc_update_interrupt)]
    {
        bus.port_write(now, port, 1, value.into());
    }
    let divide_by_16 = 0b0011;
    let periodic = 1 << 17;
    for (register, value) in [
        (0x350, 1 << 16),
        (0x3e0, divide_by_16),
        (0x320, periodic | u64::from(APIC_VECTOR)),
        (0x380, APIC_COUNT),
    ] {
        bus.mmio_write(now, lapic::BASE + register, 4, value);
    }
    // The 8254's control word raised its output: an edge that is no tick.
    while bus.interrupt_pending() {
        bus.acknowledge(now);
        bus.mmio_write(now, lapic::BASE + 0xb0, 4, 0);
    }
}

/// The first and the last tick of a clock, and how many there were.
#[derive(Default)]
struct Ticks {
    first: u64,
    last: u64,
    count: u64,
}

impl Ticks {
    fn note(&mut self, now: u64) {
        if self.count == 0 {
            self.first = now;
        }
        self.last = now;
        self.count += 1;
    }

    /// How many nanoseconds of this clock pass in a nanosecond of the TSC, if a tick is `period` nanoseconds.
    fn rate(&self, period: f64) -> f64 {
        (self.count - 1) as f64 * period / (self.last - self.first) as f64
    }
}

fn pm_timer(bus: &mut Bus, now: VirtTime) -> u32 {
    bus.port_read(now, pm::TIMER_PORT, 4)
}

#[test]
fn all_clocks_agree_to_one_part_in_a_million() {
    let mut bus = bus().unwrap();
    start(&mut bus);
    let (mut pit, mut rtc, mut apic) = (Ticks::default(), Ticks::default(), Ticks::default());
    let (mut tsc_first, mut pm_elapsed, mut pm_last) = (None, 0u64, 0);
    let mut now = VirtTime(0);
    while now < VirtTime(SECONDS * 1_000_000_000) {
        let due = bus.next_deadline();
        now = VirtTime(due.0.next_multiple_of(LATE_NS));
        bus.fire_timers(now);
        let tsc = now.ticks(TSC_HZ);
        while bus.interrupt_pending() {
            match bus.acknowledge(now) {
                PIT_VECTOR => pit.note(tsc),
                APIC_VECTOR => apic.note(tsc),
                RTC_VECTOR => {
                    rtc.note(tsc);
                    bus.port_write(now, 0x70, 1, 0x0c);
                    assert_eq!(bus.port_read(now, 0x71, 1) & 0x90, 0x90, "an update");
                }
                other => panic!("vector {other:#x}"),
            }
            bus.mmio_write(now, lapic::BASE + 0xb0, 4, 0);
        }
        let pm = pm_timer(&mut bus, now);
        match tsc_first {
            None => tsc_first = Some(tsc),
            Some(_) => pm_elapsed += u64::from(pm.wrapping_sub(pm_last)),
        }
        pm_last = pm;
    }
    let tsc_elapsed = now.ticks(TSC_HZ) - tsc_first.unwrap();
    let rates = [
        ("8254", pit.rate(PIT_DIVISOR as f64 * 1e9 / PIT_HZ)),
        ("APIC timer", apic.rate((APIC_COUNT * APIC_DIVISOR) as f64)),
        ("RTC", rtc.rate(1e9)),
        ("PM timer", pm_elapsed as f64 * 1e9 / PM_TIMER_HZ / tsc_elapsed as f64),
    ];
    assert_eq!(rtc.count, SECONDS);
    for (name, rate) in rates {
        assert!((rate - 1.0).abs() < 1e-6, "{name}: {:+.3} ppm against the TSC", (rate - 1.0) * 1e6);
    }
}
