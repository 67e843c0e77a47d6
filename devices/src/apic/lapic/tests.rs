use super::*;
use crate::conformance::{Bench, Seen, Socket, conformance};
use gemel_machine::VirtTime;

/// Wires of the bench that lead to LINT0 and LINT1.
const LINT0: u16 = 10;
const LINT1: u16 = 11;

fn socket() -> Socket {
    Socket {
        windows: vec![(BASE, WINDOW)],
        pins: vec![LINT0, LINT1],
        msrs: vec![msr::APIC_BASE, msr::TSC_DEADLINE, msr::X2APIC_FIRST + 0x30, msr::X2APIC_FIRST + 8],
        controller: true,
        ..Socket::default()
    }
}

fn model(text: &str) -> CpuModel {
    CpuModel::parse(text).unwrap()
}

fn bench() -> Bench {
    Bench::new(LocalApic::new(&model("x86-64-v2")), &socket())
}

impl Bench {
    fn apic(&mut self, register: u64) -> u32 {
        self.bus.mmio_read(self.now, BASE + register, 4) as u32
    }

    fn set_apic(&mut self, register: u64, value: u32) {
        self.bus.mmio_write(self.now, BASE + register, 4, value.into());
    }

    /// Sends a vector to itself by the self shorthand.
    fn self_ipi(&mut self, vector: u8) {
        self.set_apic(0x300, 1 << 18 | u32::from(vector));
    }

    /// What the vCPU takes, if anything waits.
    fn take(&mut self) -> Option<u8> {
        self.bus.interrupt_pending().then(|| self.bus.acknowledge(self.now))
    }
}

#[test]
fn keeps_the_rules_of_saving() {
    conformance(|| LocalApic::new(&model("x86-64-v2")), &socket());
    conformance(|| LocalApic::new(&model("x86-64-v2,+x2apic")), &socket());
}

#[test]
fn firmware_left_virtual_wire_mode() {
    let mut b = bench();
    assert_eq!([b.apic(0x20), b.apic(0x30) & 0xff, b.apic(0xf0)], [0, 0x14, 0x1ff]);
    assert_eq!([b.apic(0x350), b.apic(0x360)], [0x700, 0x400]);
    assert_eq!(b.bus.msr_read(b.now, msr::APIC_BASE), Some(0xfee0_0900));
}

#[test]
fn the_highest_class_is_served_first_and_nests() {
    // SDM 3A 10.8.3 and 10.8.4: one request and one in service a vector; only a higher class interrupts.
    let mut b = bench();
    b.self_ipi(0x41);
    b.self_ipi(0x52);
    b.self_ipi(0x58);
    assert_eq!(b.take(), Some(0x58));
    assert_eq!(b.apic(0xa0), 0x50, "PPR is the class in service");
    assert_eq!(b.take(), None, "52h is of the same class");
    b.self_ipi(0x61);
    assert_eq!(b.take(), Some(0x61));
    assert_eq!([b.apic(0x120), b.apic(0x130)], [1 << 0x18, 1 << 1], "ISR of 40h-5fh and 60h-7fh");
    assert_eq!(b.apic(0x220), 1 << 1 | 1 << 0x12, "IRR of 40h-5fh");
    b.set_apic(0xb0, 0);
    assert_eq!(b.take(), None);
    b.set_apic(0xb0, 0);
    assert_eq!(b.take(), Some(0x52));
    b.set_apic(0xb0, 0);
    assert_eq!(b.take(), Some(0x41));
    b.set_apic(0xb0, 0);
    assert_eq!((b.take(), b.apic(0xa0)), (None, 0));
}

#[test]
fn task_priority_holds_back_its_class_and_below() {
    let mut b = bench();
    b.self_ipi(0x41);
    for (tpr, pending) in [(0x40, false), (0x4f, false), (0x3f, true), (0xff, false), (0, true)] {
        b.set_apic(0x80, tpr);
        assert_eq!(b.bus.interrupt_pending(), pending, "TPR {tpr:#x}");
    }
    b.bus.set_task_priority(b.now, 4);
    assert!(!b.bus.interrupt_pending());
    assert_eq!((b.apic(0x80), b.bus.task_priority()), (0x40, 4));
    // PPR[3:0] is TPR[3:0] only where the task's class is not below the one in service (10.8.3.1).
    b.set_apic(0x80, 0x35);
    assert_eq!(b.take(), Some(0x41));
    assert_eq!(b.apic(0xa0), 0x40);
    b.set_apic(0x80, 0x45);
    assert_eq!(b.apic(0xa0), 0x45);
}

#[test]
fn a_request_that_went_away_is_spurious() {
    let mut b = bench();
    b.self_ipi(0x41);
    b.set_apic(0xf0, 0x1ef);
    b.set_apic(0x80, 0xf0);
    assert_eq!(b.bus.acknowledge(b.now), 0xef);
    assert_eq!(b.apic(0x120), 0, "a spurious interrupt is not in service");
}

#[test]
fn illegal_vectors_are_errors_once() {
    let mut b = bench();
    b.set_apic(0x370, 0xfe);
    b.self_ipi(0x0f);
    assert_eq!(b.take(), Some(0xfe));
    assert_eq!(b.apic(0x280), 0, "not before software has written the register");
    b.set_apic(0x280, 0);
    assert_eq!(b.apic(0x280), 1 << 5);
    b.set_apic(0x280, 0);
    assert_eq!(b.apic(0x280), 0);
    b.set_apic(0x3f0, 1);
    b.set_apic(0x280, 0);
    assert_eq!(b.apic(0x280), 1 << 7);
}

#[test]
fn destinations_by_the_manual() {
    // (ICR high, ICR low's destination mode, LDR, DFR, arrives): SDM 3A 10.6.2.
    let logical = 1 << 11;
    let flat = 0xffff_ffff;
    let cluster = 0x0fff_ffff;
    for (destination, mode, ldr, dfr, arrives) in [
        (0x00, 0, 0, flat, true),
        (0x01, 0, 0, flat, false),
        (0xff, 0, 0, flat, true),
        (0x01, logical, 0x01, flat, true),
        (0x06, logical, 0x04, flat, true),
        (0x06, logical, 0x01, flat, false),
        (0xff, logical, 0x00, flat, true),
        (0x21, logical, 0x21, cluster, true),
        (0x22, logical, 0x21, cluster, false),
        (0x31, logical, 0x21, cluster, false),
        (0xf1, logical, 0x21, cluster, true),
    ] {
        let mut b = bench();
        b.set_apic(0xd0, ldr << 24);
        b.set_apic(0xe0, dfr);
        b.set_apic(0x310, destination << 24);
        b.set_apic(0x300, mode | 0x77);
        assert_eq!(b.take().is_some(), arrives, "destination {destination:#x} LDR {ldr:#x} DFR {dfr:#x}");
    }
    let mut b = bench();
    b.set_apic(0x300, 3 << 18 | 0x77);
    assert_eq!(b.take(), None, "all excluding self");
    b.set_apic(0x300, 2 << 18 | 0x77);
    assert_eq!(b.take(), Some(0x77), "all including self");
    b.set_apic(0x300, 1 << 18 | 4 << 8);
    assert!(b.bus.nmi_pending(), "an NMI to itself");
    b.set_apic(0x300, 1 << 18 | 5 << 8);
    b.set_apic(0x300, 1 << 18 | 6 << 8);
    assert_eq!(b.take(), None, "INIT and start-up");
}

#[test]
fn the_8259_pair_comes_through_lint0() {
    let mut b = bench();
    b.set_wire(LINT0, true);
    assert!(b.bus.interrupt_pending());
    assert_eq!(b.bus.acknowledge(b.now), 0xff, "handed on; nobody is next on this bench");
    b.set_apic(0x350, 0x1_0700);
    assert!(!b.bus.interrupt_pending(), "masked");
    b.set_apic(0x350, 0x700);
    assert!(b.bus.interrupt_pending(), "by level");
    b.set_apic(0xf0, 0xff);
    assert!(!b.bus.interrupt_pending(), "software-disabled: every entry is masked");
    assert_eq!(b.apic(0x350), 0x1_0700);
    b.bus.msr_write(b.now, msr::APIC_BASE, 0xfee0_0100).unwrap();
    assert!(b.bus.interrupt_pending(), "globally disabled: straight through");
    assert_eq!(b.apic(0x20), u32::MAX);
    b.set_wire(LINT0, false);
    assert!(!b.bus.interrupt_pending());
}

#[test]
fn a_pin_in_fixed_mode_by_edge_and_by_level() {
    let mut b = bench();
    b.set_apic(0x350, 0x31);
    for _ in 0..2 {
        b.set_wire(LINT0, true);
        assert_eq!(b.take(), Some(0x31));
        b.set_apic(0xb0, 0);
        assert_eq!(b.take(), None);
        b.set_wire(LINT0, false);
    }
    b.set_apic(0x350, 0x8031);
    b.set_wire(LINT0, true);
    assert_eq!(b.take(), Some(0x31));
    assert_eq!(b.apic(0x350), 0xc031, "remote IRR");
    b.set_apic(0xb0, 0);
    assert_eq!(b.take(), Some(0x31), "still high");
    b.set_wire(LINT0, false);
    b.set_apic(0xb0, 0);
    assert_eq!((b.take(), b.apic(0x350)), (None, 0x8031));
    b.set_wire(LINT1, true);
    assert!(b.bus.nmi_pending());
}

#[test]
fn the_timer_fires_at_exact_times() {
    let mut b = bench();
    b.set_apic(0x3e0, 0b0011); // by 16
    b.set_apic(0x320, 0x2_0040); // periodic
    b.now = VirtTime(1000);
    b.set_apic(0x380, 100);
    for period in 1..=3 {
        assert_eq!(b.next_deadline(), VirtTime(1000 + 1600 * period));
        b.run_to(VirtTime(1000 + 1600 * period + 15));
        assert_eq!((b.take(), b.apic(0x390)), (Some(0x40), 100));
        b.set_apic(0xb0, 0);
    }
    b.set_apic(0x320, 0x3_0040);
    assert_eq!(b.next_deadline(), VirtTime::NEVER, "masked: it counts, and nobody is woken");
    b.run_for(1600);
    assert_eq!((b.take(), b.apic(0x390)), (None, 100));
    b.set_apic(0x380, 0);
    assert_eq!(b.apic(0x390), 0, "zero stops");
}

/// Every divisor of SDM 3A figure 10-10, once and periodically, to the nanosecond.
#[test]
fn the_timer_with_every_divisor() {
    let codes = [0b0000, 0b0001, 0b0010, 0b0011, 0b1000, 0b1001, 0b1010, 0b1011];
    for (code, divisor) in codes.into_iter().zip([2, 4, 8, 16, 32, 64, 128, 1]) {
        for (mode, times) in [(0, 1), (0x2_0000, 3)] {
            let mut b = bench();
            b.set_apic(0x3e0, code);
            b.set_apic(0x320, mode | 0x40);
            b.now = VirtTime(777);
            b.set_apic(0x380, 1000);
            for period in 1..=times {
                b.run_to(VirtTime(777 + 1000 * divisor * period - 1));
                assert_eq!((b.take(), b.apic(0x390)), (None, 1), "by {divisor}");
                b.run_for(1);
                let count = if mode == 0 { 0 } else { 1000 };
                assert_eq!((b.take(), b.apic(0x390)), (Some(0x40), count), "by {divisor}");
                b.set_apic(0xb0, 0);
            }
            let next = if mode == 0 { VirtTime::NEVER } else { VirtTime(777 + 4000 * divisor) };
            assert_eq!(b.next_deadline(), next, "by {divisor}");
        }
    }
}

#[test]
fn tsc_deadline_mode() {
    let mut b = bench();
    b.bus.msr_write(b.now, msr::TSC_DEADLINE, 77).unwrap();
    assert_eq!(b.bus.msr_read(b.now, msr::TSC_DEADLINE), Some(0), "ignored in other modes");
    b.set_apic(0x320, 0x4_0050);
    b.bus.msr_write(b.now, msr::TSC_DEADLINE, 5000).unwrap();
    assert_eq!(b.next_deadline(), VirtTime(5000));
    b.run_to(VirtTime(4999));
    assert_eq!(b.take(), None);
    b.run_to(VirtTime(5000));
    assert_eq!((b.take(), b.bus.msr_read(b.now, msr::TSC_DEADLINE)), (Some(0x50), Some(0)));
    b.set_apic(0xb0, 0);
    b.bus.msr_write(b.now, msr::TSC_DEADLINE, 1).unwrap();
    b.run_for(0);
    assert_eq!(b.take(), Some(0x50), "a deadline in the past fires at once");
    b.bus.msr_write(b.now, msr::TSC_DEADLINE, 9000).unwrap();
    b.bus.msr_write(b.now, msr::TSC_DEADLINE, 0).unwrap();
    assert_eq!(b.next_deadline(), VirtTime::NEVER);
    let mut without = Bench::new(LocalApic::new(&model("x86-64-v2,-tsc_deadline")), &socket());
    assert_eq!(without.bus.msr_read(VirtTime(0), msr::TSC_DEADLINE), None);
}

#[test]
fn apic_base_takes_only_what_is_offered() {
    let mut b = bench();
    for refused in [0xfee0_0d00, 0xfed0_0900, 0xfee0_0901, 1 << 40 | 0xfee0_0900] {
        assert_eq!(b.bus.msr_write(b.now, msr::APIC_BASE, refused), None, "{refused:#x}");
    }
    assert_eq!(b.bus.msr_read(b.now, msr::X2APIC_FIRST + 2), None);
}

#[test]
fn x2apic_mode_and_its_transitions() {
    // SDM 3A 10.12.5, figure 10-27.
    let mut b = Bench::new(LocalApic::new(&model("x86-64-v2,+x2apic")), &socket());
    let base = |b: &mut Bench, value: u64| b.bus.msr_write(b.now, msr::APIC_BASE, 0xfee0_0100 | value);
    let x2 = |n: u32| msr::X2APIC_FIRST + n;
    assert_eq!(base(&mut b, 1 << 10), None, "x2APIC without enable");
    assert_eq!(base(&mut b, 3 << 10), Some(()));
    assert_eq!(base(&mut b, 1 << 11), None, "no way back to xAPIC");
    assert_eq!(b.apic(0x30), u32::MAX, "no window");
    assert_eq!(b.bus.msr_read(b.now, x2(0xd)), Some(1), "logical id");
    assert_eq!(b.bus.msr_read(b.now, x2(0xe)), None, "no destination format");
    assert_eq!(b.bus.msr_write(b.now, x2(0xb), 1), None, "EOI takes zero only");
    b.bus.msr_write(b.now, x2(0x3f), 0x66).unwrap();
    assert_eq!(b.take(), Some(0x66));
    b.bus.msr_write(b.now, x2(0xb), 0).unwrap();
    b.bus.msr_write(b.now, x2(0x30), 0x67).unwrap();
    assert_eq!(b.take(), Some(0x67), "to id 0");
    b.bus.msr_write(b.now, x2(0x30), 0xffff_ffff_0000_0078).unwrap();
    assert_eq!(b.take(), Some(0x78), "to everybody");
    assert_eq!(base(&mut b, 0), Some(()));
    assert_eq!(base(&mut b, 3 << 10), None, "not straight from disabled");
    assert_eq!(base(&mut b, 1 << 11), Some(()));
}

#[test]
fn only_level_triggered_interrupts_announce_their_end() {
    let mut b = bench();
    b.self_ipi(0x41);
    b.take();
    b.set_apic(0xb0, 0);
    assert!(b.seen().iter().all(|(_, seen)| !matches!(seen, Seen::EndOfInterrupt(_))));
}
