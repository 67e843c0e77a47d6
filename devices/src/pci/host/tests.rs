use super::*;
use crate::conformance::{Bench, Socket, conformance};
use crate::wiring::PCI_INTA;
use gemel_machine::DiskStatus;
use gemel_machine::bus::PortWidth;

/// A function with one BAR: a word that stores set and loads give; bit 0 is its interrupt.
struct Latch {
    config: ConfigSpace,
    word: u64,
}

impl Latch {
    fn new() -> Self {
        let mut config = ConfigSpace::new(Identity {
            vendor: 0x1af4,
            device: 0x1fff,
            revision: 1,
            class: 0xff_0000,
            subsystem_vendor: 0,
            subsystem: 0,
        });
        config.add_memory_bar(0, 0x1000);
        Self { config, word: 0 }
    }
}

impl PciFunction for Latch {
    fn config(&self) -> &ConfigSpace {
        &self.config
    }
    fn config_mut(&mut self) -> &mut ConfigSpace {
        &mut self.config
    }
    fn bar_read(&mut self, _cx: &mut DeviceCx<'_>, _bar: usize, offset: u64, _size: u8) -> u64 {
        self.word + offset
    }
    fn bar_write(&mut self, _cx: &mut DeviceCx<'_>, _bar: usize, _offset: u64, _size: u8, value: u64) {
        self.word = value & 0xffff;
    }
    fn interrupt(&mut self) -> bool {
        self.config.show_interrupt(self.word & 1 != 0)
    }
    fn on_input(&mut self, _cx: &mut DeviceCx<'_>, _input: Input) {
        self.word = 0x99;
    }
    fn save(&self) -> Section {
        Section::of(1, &(self.config.bytes().to_vec(), self.word))
    }
    fn restore(&mut self, section: &Section) -> Result<(), SectionError> {
        let (bytes, word): (Vec<u8>, u64) = section.read("latch", 1)?;
        let mut config = self.config.clone();
        config.restore(&bytes).ok_or(SectionError::Damaged { device: "latch" })?;
        (self.config, self.word) = (config, word & 0xffff);
        Ok(())
    }
}

fn host() -> PciHost {
    let mut host = PciHost::new();
    assert!(host.disk(Latch::new()) && host.disk(Latch::new()));
    host
}

fn socket() -> Socket {
    let done = |disk| Input::DiskDone { disk, tag: 0, status: DiskStatus::Ok, data: vec![] };
    Socket {
        ports: vec![(CONFIG_ADDRESS..=CONFIG_ADDRESS + 7, PortWidth::Any)],
        windows: vec![(MEMORY_WINDOW.start, 0x4000)],
        inputs: vec![done(0), done(1), done(2)],
        ..Socket::default()
    }
}

impl Bench {
    fn select(&mut self, slot: u32, register: u32) {
        self.bus.port_write(self.now, 0xcf8, 4, 1 << 31 | slot << 11 | register);
    }

    fn pci(&mut self, slot: u32, register: u32) -> u32 {
        self.select(slot, register);
        self.bus.port_read(self.now, 0xcfc, 4)
    }

    fn set_pci(&mut self, slot: u32, register: u32, value: u32) {
        self.select(slot, register);
        self.bus.port_write(self.now, 0xcfc, 4, value);
    }
}

#[test]
fn keeps_the_rules_of_saving() {
    conformance(host, &socket());
}

#[test]
fn a_scan_finds_the_bridge_and_the_functions_and_nothing_else() {
    let mut b = Bench::new(host(), &socket());
    let found: Vec<u32> = (0..32).filter(|slot| b.pci(*slot, 0) != u32::MAX).collect();
    assert_eq!(found, [0, 1, 2]);
    assert_eq!(b.pci(0, 8) >> 8, 0x06_0000, "class: host bridge");
    assert_eq!(
        [b.pci(1, 0x3c) & 0xffff, b.pci(2, 0x3c) & 0xffff],
        [0x010b, 0x010a],
        "pin A, lines 11 and 10"
    );
    b.bus.port_write(b.now, 0xcf8, 4, 1 << 31 | 1 << 16 | 1 << 11);
    assert_eq!(b.bus.port_read(b.now, 0xcfc, 4), u32::MAX, "no other bus");
    b.bus.port_write(b.now, 0xcf8, 4, 1 << 31 | 1 << 11 | 1 << 8);
    assert_eq!(b.bus.port_read(b.now, 0xcfc, 4), u32::MAX, "no other function");
    b.bus.port_write(b.now, 0xcf8, 4, 1 << 11);
    assert_eq!(b.bus.port_read(b.now, 0xcfc, 4), u32::MAX, "not enabled");
    b.select(1, 0);
    assert_eq!(b.bus.port_read(b.now, 0xcfe, 2), 0x1fff, "a word in the middle");
}

#[test]
fn memory_follows_the_bar() {
    let mut b = Bench::new(host(), &socket());
    let (first, second) = (u64::from(b.pci(1, 0x10)), u64::from(b.pci(2, 0x10)));
    assert_eq!((first, second), (0xc000_0000, 0xc000_1000));
    b.bus.mmio_write(b.now, first, 4, 0x1000);
    assert_eq!(b.bus.mmio_read(b.now, first + 8, 4), 0x1008);
    assert_eq!(b.bus.mmio_read(b.now, second + 8, 4), 8);
    b.set_pci(1, 0x10, 0xc000_3000);
    assert_eq!(b.bus.mmio_read(b.now, first, 4), 0xffff_ffff);
    assert_eq!(b.bus.mmio_read(b.now, 0xc000_3000, 4), 0x1000);
    b.set_pci(1, 0x04, 0);
    assert_eq!(b.bus.mmio_read(b.now, 0xc000_3000, 4), 0xffff_ffff, "memory decoding is off");
}

#[test]
fn interrupt_pins_are_turned_from_slot_to_slot() {
    let mut b = Bench::new(host(), &socket());
    let second = u64::from(b.pci(2, 0x10));
    b.bus.mmio_write(b.now, second, 4, 1);
    assert!(b.wire(PCI_INTA + 2) && !b.wire(PCI_INTA + 1), "slot 2, pin A is link C");
    assert!(b.wire(isa_irq(10)) && !b.wire(isa_irq(11)));
    assert_eq!(b.pci(2, 0x04) >> 16 & 8, 8, "interrupt status");
    b.set_pci(2, 0x04, 0x402);
    assert!(!b.wire(PCI_INTA + 2), "INTx disabled");
    b.set_pci(2, 0x04, 0x002);
    b.bus.mmio_write(b.now, second, 4, 2);
    assert!(!b.wire(PCI_INTA + 2));
}
