use super::*;
use crate::conformance::{Bench, Seen, Socket, conformance};
use crate::pci::{CONFIG_ADDRESS, MEMORY_WINDOW, PciHost};
use crate::virtio::Block;
use crate::wiring::PCI_INTB;
use gemel_machine::bus::PortWidth;
use gemel_machine::{DiskStatus, Output};

/// Slot 1: BAR 0 comes first, BAR 1 behind it.
const REGISTERS: u64 = MEMORY_WINDOW.start;
const TABLE: u64 = REGISTERS + REGISTERS_SIZE as u64;

fn host() -> PciHost {
    let mut host = PciHost::new();
    assert!(host.disk(VirtioPci::new(Block::new(0, 1000, false))));
    host
}

fn socket() -> Socket {
    Socket {
        ports: vec![(CONFIG_ADDRESS..=CONFIG_ADDRESS + 7, PortWidth::Any)],
        windows: vec![
            (REGISTERS, 0x40),
            (REGISTERS + ISR, 4),
            (REGISTERS + DEVICE, 64),
            (REGISTERS + NOTIFY, 4),
            (TABLE, 0x20),
            (TABLE + 0x800, 8),
        ],
        inputs: vec![done(0, vec![0; 512]), done(1, vec![])],
        ..Socket::default()
    }
}

fn done(tag: u64, data: Vec<u8>) -> Input {
    Input::DiskDone { disk: 0, tag, status: DiskStatus::Ok, data }
}

impl Bench {
    fn config(&mut self, register: u32) -> u32 {
        self.bus.port_write(self.now, 0xcf8, 4, 1 << 31 | 1 << 11 | register & 0xfc);
        self.bus.port_read(self.now, 0xcfc, 4) >> (8 * (register & 3))
    }

    fn set_config(&mut self, register: u32, value: u32) {
        self.bus.port_write(self.now, 0xcf8, 4, 1 << 31 | 1 << 11 | register);
        self.bus.port_write(self.now, 0xcfc, 4, value);
    }

    fn get(&mut self, offset: u64, size: u8) -> u64 {
        self.bus.mmio_read(self.now, REGISTERS + offset, size)
    }

    fn set(&mut self, offset: u64, size: u8, value: u64) {
        self.bus.mmio_write(self.now, REGISTERS + offset, size, value);
    }

    /// What a driver does up to DRIVER_OK (3.1.1), with a ring of four at 1000h, 2000h, 3000h.
    fn drive(&mut self) {
        self.set_config(4, 0x6); // memory, bus master
        for status in [0, 1, 3] {
            self.set(20, 1, status);
        }
        self.set(8, 4, 1);
        self.set(12, 4, 1); // VERSION_1
        self.set(20, 1, 0xb);
        assert_eq!(self.get(20, 1), 0xb, "features were accepted");
        self.set(22, 2, 0);
        self.set(24, 2, 4);
        for (offset, address) in [(32, 0x1000), (40, 0x2000), (48, 0x3000)] {
            self.set(offset, 4, address);
            self.set(offset + 4, 4, 0);
        }
        self.set(26, 2, 1);
        self.set(28, 2, 1);
        self.set(20, 1, 0xf);
    }

    /// Puts a one-sector read with data at 6000h and status at 7000h into slot `n` of the ring, and notifies.
    fn read_request(&mut self, n: u16) {
        let descriptor = |address: u64, len: u32, flags: u16, next: u16| {
            [&address.to_le_bytes()[..], &len.to_le_bytes(), &flags.to_le_bytes(), &next.to_le_bytes()]
                .concat()
        };
        let table =
            [descriptor(0x5000, 16, 1, 1), descriptor(0x6000, 512, 3, 2), descriptor(0x7000, 1, 2, 0)];
        self.ram.write(0x1000, &table.concat()).unwrap();
        self.ram.write(0x5000, &[0; 16]).unwrap();
        self.ram.write(0x2004 + 2 * u64::from(n % 4), &[0, 0]).unwrap();
        self.ram.write(0x2002, &(n + 1).to_le_bytes()).unwrap();
        self.set(NOTIFY, 2, 0);
    }
}

#[test]
fn keeps_the_rules_of_saving() {
    conformance(host, &socket());
}

#[test]
fn a_driver_finds_the_structures_by_their_capabilities() {
    let mut b = Bench::new(host(), &socket());
    assert_eq!(b.config(0), 0x1042_1af4);
    let mut found = Vec::new();
    let mut at = b.config(0x34) & 0xff;
    while at != 0 {
        let (id, kind) = (b.config(at) & 0xff, b.config(at) >> 24);
        if id == 0x09 {
            found.push((kind, b.config(at + 4) & 0xff, b.config(at + 8), b.config(at + 12)));
        } else {
            assert_eq!((id, b.config(at) >> 16), (0x11, 1), "MSI-X with two vectors");
        }
        at = b.config(at) >> 8 & 0xff;
    }
    assert_eq!(
        found,
        [(1, 0, 0, 60), (3, 0, 0x1000, 1), (4, 0, 0x2000, 60), (2, 0, 0x3000, 4), (5, 0, 0, 0)]
    );
}

#[test]
fn features_are_negotiated_and_nothing_else_is_accepted() {
    let mut b = Bench::new(host(), &socket());
    b.set(0, 4, 1);
    assert_eq!(b.get(4, 4), 1, "VERSION_1");
    b.set(0, 4, 0);
    assert_eq!(b.get(4, 4), 1 << 28 | 1 << 9 | 1 << 6 | 1 << 2 | 1 << 1);
    b.set(20, 1, 0xb);
    assert_eq!(b.get(20, 1), 3, "without VERSION_1");
    b.set(8, 4, 1);
    b.set(12, 4, 3);
    b.set(20, 1, 0xb);
    assert_eq!(b.get(20, 1), 3, "with a feature that was not offered");
    b.drive();
    b.set(20, 1, 0);
    assert_eq!((b.get(20, 1), b.get(28, 2), b.get(24, 2)), (0, 0, 256), "reset");
    b.set(22, 2, 1);
    assert_eq!(b.get(24, 2), 0, "there is no queue 1");
}

#[test]
fn a_completion_interrupts_on_the_pin_until_isr_is_read() {
    let mut b = Bench::new(host(), &socket());
    b.drive();
    b.read_request(0);
    let Some(Output::Disk(request)) = b.outputs().pop() else { panic!("no request") };
    assert_eq!(b.ram.read_array(0x7000).unwrap(), [0]);
    b.input(done(request.tag, vec![0xab; 512]));
    assert_eq!(b.ram.read_array(0x61ff).unwrap(), [0xab, 0]);
    assert_eq!(b.ram.read_array(0x3002).unwrap(), [1, 0, 0, 0, 0, 0, 1, 2, 0, 0]);
    assert!(b.wire(PCI_INTB), "slot 1, pin A");
    assert_eq!(b.get(ISR, 1), 1);
    assert!(!b.wire(PCI_INTB));
    assert_eq!(b.get(ISR, 1), 0);
}

#[test]
fn messages_replace_the_pin_and_wait_while_masked() {
    let mut b = Bench::new(host(), &socket());
    b.drive();
    for (offset, value) in [(16, 0xfee0_0000), (20, 0), (24, 0x4055), (28, 1)] {
        b.bus.mmio_write(b.now, TABLE + offset, 4, value);
    }
    b.set_config(0x40, 0x8000_0000);
    b.seen();
    b.read_request(0);
    b.input(done(0, vec![0; 512]));
    assert_eq!(b.seen(), [], "masked");
    assert_eq!(b.bus.mmio_read(b.now, TABLE + 0x800, 4), 1 << 1, "pending");
    b.bus.mmio_write(b.now, TABLE + 28, 4, 0);
    let now = b.now;
    assert_eq!(b.seen(), [(now, Seen::Message(0xfee0_0000, 0x4055))]);
    assert_eq!(b.bus.mmio_read(b.now, TABLE + 0x800, 4), 0);
    assert_eq!(b.get(ISR, 1), 0);
    b.set(26, 2, 7);
    assert_eq!(b.get(26, 2), 0xffff, "a vector that the table lacks");
}

#[test]
fn a_broken_ring_asks_for_a_reset() {
    let mut b = Bench::new(host(), &socket());
    b.drive();
    b.ram.write(0x2002, &[9, 0]).unwrap();
    b.set(NOTIFY, 2, 0);
    assert_eq!(b.get(20, 1), 0x4f);
    assert_eq!(b.get(ISR, 1), 2, "a configuration interrupt");
    b.set(NOTIFY, 2, 0);
    assert_eq!(b.outputs(), []);
    b.drive();
    b.ram.write(0x2002, &[0, 0]).unwrap();
    b.read_request(0);
    assert_eq!(b.outputs().len(), 1, "and works after it");
}

#[test]
fn a_reset_forgets_requests_but_never_reuses_their_tags() {
    let mut b = Bench::new(host(), &socket());
    b.drive();
    b.read_request(0);
    b.drive();
    b.input(done(0, vec![0xab; 512]));
    assert_eq!(b.ram.read_array(0x6000).unwrap(), [0; 2], "a late completion writes nothing");
    b.read_request(0);
    let tags: Vec<_> =
        b.outputs().into_iter().map(|o| if let Output::Disk(r) = o { r.tag } else { 99 }).collect();
    assert_eq!(tags, [0, 1]);
}

#[test]
fn the_configuration_window_reaches_the_registers() {
    let mut b = Bench::new(host(), &socket());
    let mut at = b.config(0x34) & 0xff;
    while b.config(at) & 0xff != 9 || b.config(at) >> 24 != 5 {
        at = b.config(at) >> 8 & 0xff;
    }
    for (register, value) in [(4, 0), (8, DEVICE as u32), (12, 4)] {
        b.set_config(at + register, value);
    }
    assert_eq!(b.config(at + 16), 1000, "the capacity");
    b.set_config(at + 8, 20);
    b.set_config(at + 12, 1);
    b.set_config(at + 16, 1);
    assert_eq!(b.get(20, 1), 1, "the status");
    b.set_config(at + 8, u32::MAX);
    assert_eq!(b.config(at + 16), u32::MAX, "outside the BAR");
}

#[test]
fn nothing_moves_without_bus_mastering() {
    let mut b = Bench::new(host(), &socket());
    b.drive();
    b.set_config(4, 0x2);
    b.read_request(0);
    assert_eq!(b.outputs(), []);
}
