//! The sockets: each device of the board with what leads to it, and the board as a whole.
//!
//! Not responsible for: what is done there (`script`).
//!
//! A new device is a line in [`SUBJECTS`].

use gemel_devices::acpi::{PowerManagement, pm};
use gemel_devices::apic::{IoApic, LocalApic, ioapic, lapic};
use gemel_devices::board;
use gemel_devices::isa::debug_ports::{DebugConsole, DebugExit};
use gemel_devices::isa::i8042::I8042;
use gemel_devices::isa::pic::Pic;
use gemel_devices::isa::pit::Pit;
use gemel_devices::isa::reset_ports::ResetPorts;
use gemel_devices::isa::rtc::Rtc;
use gemel_devices::isa::uart::Uart;
use gemel_devices::pci::{self, PciHost};
use gemel_devices::virtio::{Block, Net, VirtioPci};
use gemel_machine::bus::{BusBuilder, PortWidth};
use gemel_machine::{
    BootSpec, Bus, Device, DeviceCx, DiskSpec, GuestRam, InputPort, MachineSpec, NicSpec, Reckoning, Section,
    SectionError,
};
use gemel_x86::{CpuModel, msr};
use std::ops::RangeInclusive;
use std::sync::Arc;

/// A device, or all of them, ready to be plugged in.
pub struct Subject {
    /// Its name in reports.
    pub name: &'static str,
    /// Makes a bus with it.
    pub plug_in: fn(&Self, Arc<GuestRam>) -> anyhow::Result<Bus>,
    /// Ports at which something answers.
    pub ports: &'static [RangeInclusive<u16>],
    /// Windows of the physical address space at which something answers: start and size.
    pub windows: &'static [(u64, u64)],
    /// MSRs that go over the bus.
    pub msrs: &'static [u32],
    /// Wires that lead to it.
    pub wires: RangeInclusive<u16>,
    /// Slots of PCI functions with rings.
    pub slots: &'static [u8],
}

const NONE: Subject = Subject {
    name: "",
    plug_in: |_, ram| Ok(BusBuilder::new(ram, WIRES).build()),
    ports: &[],
    windows: &[],
    msrs: &[],
    wires: 0..=0,
    slots: &[],
};

const APIC_MSRS: &[u32] = &[
    msr::APIC_BASE,
    msr::TSC_DEADLINE,
    msr::X2APIC_FIRST + 8,
    msr::X2APIC_FIRST + 0x30,
    msr::X2APIC_FIRST + 0x38,
];
const PCI_PORTS: RangeInclusive<u16> = pci::CONFIG_ADDRESS..=pci::CONFIG_ADDRESS + 7;
const PCI_WINDOW: (u64, u64) = (pci::MEMORY_WINDOW.start, pci::MEMORY_WINDOW.end - pci::MEMORY_WINDOW.start);

/// Everything that is fuzzed.
pub const SUBJECTS: &[Subject] = &[
    Subject {
        name: "pit",
        ports: &[0x40..=0x43, 0x61..=0x61],
        plug_in: |s, ram| alone(s, ram, Pit::new()),
        ..NONE
    },
    Subject {
        name: "rtc",
        ports: &[0x70..=0x71],
        plug_in: |s, ram| alone(s, ram, Rtc::new(1_767_225_600, 1 << 30)),
        ..NONE
    },
    Subject { name: "uart", ports: &[0x3f8..=0x3ff], plug_in: |s, ram| alone(s, ram, Uart::first()), ..NONE },
    Subject {
        name: "i8042",
        ports: &[0x60..=0x60, 0x64..=0x64],
        plug_in: |s, ram| alone(s, ram, I8042::new()),
        ..NONE
    },
    Subject {
        name: "8259 pair",
        ports: &[0x20..=0x21, 0xa0..=0xa1, 0x4d0..=0x4d1],
        wires: 0..=15,
        plug_in: |s, ram| alone(s, ram, Pic::new()),
        ..NONE
    },
    Subject {
        name: "local APIC",
        windows: &[(lapic::BASE, lapic::WINDOW)],
        msrs: APIC_MSRS,
        wires: 0..=1,
        plug_in: |s, ram| alone(s, ram, LocalApic::new(&model()?)),
        ..NONE
    },
    Subject {
        name: "I/O APIC",
        windows: &[(ioapic::BASE, 0x20), (ioapic::BASE, ioapic::WINDOW)],
        wires: 0..=23,
        plug_in: |s, ram| alone(s, ram, IoApic::new()),
        ..NONE
    },
    Subject {
        name: "power management",
        ports: &[pm::EVENT_PORT..=pm::LAST_PORT],
        plug_in: |s, ram| alone(s, ram, PowerManagement::new()),
        ..NONE
    },
    Subject {
        name: "reset and debug ports",
        ports: &[0x92..=0x92, 0xcf9..=0xcf9, 0xe9..=0xe9, 0xf4..=0xf7],
        plug_in: small_ports,
        ..NONE
    },
    Subject {
        name: "PCI and virtio",
        ports: &[PCI_PORTS],
        windows: &[(pci::MEMORY_WINDOW.start, 0x10_0000), PCI_WINDOW],
        slots: &[1, 2, 3, NIC_SLOT],
        plug_in: |s, ram| alone(s, ram, cards()),
        ..NONE
    },
    Subject {
        name: "virtio rings",
        slots: &[1, 2, 3, NIC_SLOT],
        windows: &[(pci::MEMORY_WINDOW.start, 0x2_0000)],
        plug_in: |s, ram| alone(s, ram, cards()),
        ..NONE
    },
    Subject {
        name: "board",
        ports: &[
            0x20..=0x21,
            0xa0..=0xa1,
            0x40..=0x43,
            0x60..=0x64,
            0x70..=0x71,
            0x2f8..=0x2ff,
            0x3f8..=0x3ff,
            0x4d0..=0x4d1,
            0x600..=0x60b,
            PCI_PORTS,
            0..=0xffff,
        ],
        windows: &[
            (lapic::BASE, lapic::WINDOW),
            (ioapic::BASE, 0x20),
            (pci::MEMORY_WINDOW.start, 0x2_0000),
            (0, 1 << 40),
        ],
        msrs: APIC_MSRS,
        slots: &[1, 2, 3, NIC_SLOT],
        plug_in: whole_board,
        ..NONE
    },
];

/// The slot of the network interface, behind the disks.
pub const NIC_SLOT: u8 = 4;
/// The network interface's address.
const MAC: [u8; 6] = [0x52, 0x54, 0, 1, 2, 3];
/// Wires of a socket.
const WIRES: usize = 64;
/// A store of 0 or 1 to this plus a wire's number sets the wire, as another device would.
pub const HAND: u64 = 0xff_ffff_0000;

fn model() -> anyhow::Result<CpuModel> {
    CpuModel::parse("x86-64-v2,+x2apic").map_err(anyhow::Error::msg)
}

/// Notes what the device under test signals, and moves wires by hand. All that it saves is a number that depends on everything it saw.
struct Witness(u64);

impl Witness {
    fn note(&mut self, cx: &DeviceCx<'_>, what: u64) {
        self.0 = (self.0.rotate_left(9) ^ what ^ cx.now.0).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

impl Device for Witness {
    fn name(&self) -> &'static str {
        "witness"
    }
    fn reset(&mut self, _cx: &mut DeviceCx<'_>) {}
    fn save(&self) -> Section {
        Section::of(1, &self.0)
    }
    fn restore(&mut self, section: &Section) -> Result<(), SectionError> {
        self.0 = section.read(self.name(), 1)?;
        Ok(())
    }
    fn mmio_write(&mut self, cx: &mut DeviceCx<'_>, address: u64, _size: u8, value: u64) {
        cx.wires.set((address - HAND) as u16, value & 1 != 0);
    }
    fn on_wire(&mut self, cx: &mut DeviceCx<'_>, pin: u8, level: bool) {
        self.note(cx, u64::from(pin) << 1 | u64::from(level));
    }
    fn on_message(&mut self, cx: &mut DeviceCx<'_>, address: u64, data: u32) {
        self.note(cx, address ^ u64::from(data) << 24);
    }
    fn on_end_of_interrupt(&mut self, cx: &mut DeviceCx<'_>, vector: u8) {
        self.note(cx, 0x100 | u64::from(vector));
    }
}

/// A bus with a device, a witness on all its signals, and every plug in the device.
fn alone(subject: &Subject, ram: Arc<GuestRam>, device: impl Device + 'static) -> anyhow::Result<Bus> {
    let mut builder = BusBuilder::new(ram, WIRES);
    let device = builder.add(device);
    let witness = builder.add(Witness(0));
    let Subject { ports, windows, wires, msrs, slots, .. } = subject;
    for range in *ports {
        builder.ports(range.clone(), device, PortWidth::Byte);
    }
    if !slots.is_empty() {
        builder.ports(PCI_PORTS, device, PortWidth::Any);
    }
    // The widest window holds the others.
    if let Some((start, size)) = windows.iter().max_by_key(|(_, size)| *size) {
        builder.window(*start, *size, device);
    }
    builder.window(HAND, WIRES as u64, witness);
    for wire in 0..WIRES as u16 {
        builder.connect(wire, witness, wire as u8);
        if wires.contains(&wire) && wires.end() > wires.start() {
            builder.connect(wire, device, wire as u8);
        }
    }
    for number in 0..4 {
        builder.plug(InputPort::Serial(number), device).plug(InputPort::Disk(number), device);
        builder.plug(InputPort::Net(number), device);
    }
    for port in [InputPort::Keyboard, InputPort::Mouse, InputPort::PowerButton] {
        builder.plug(port, device);
    }
    let controller = !msrs.is_empty() || wires.end() == &15;
    builder.cpu_interrupts(&[if controller { device } else { witness }]).end_of_interrupt(witness);
    Ok(builder.build())
}

fn small_ports(_: &Subject, ram: Arc<GuestRam>) -> anyhow::Result<Bus> {
    let mut builder = BusBuilder::new(ram, WIRES);
    let reset = builder.add(ResetPorts::new());
    let exit = builder.add(DebugExit);
    let console = builder.add(DebugConsole);
    for range in ResetPorts::PORTS {
        builder.ports(range, reset, PortWidth::Byte);
    }
    builder.ports(DebugExit::PORTS, exit, PortWidth::Any);
    builder.ports(DebugConsole::PORT..=DebugConsole::PORT, console, PortWidth::Byte);
    Ok(builder.build())
}

fn cards() -> PciHost {
    let mut host = PciHost::new();
    host.disk(VirtioPci::new(Block::new(0, 64, false)));
    host.disk(VirtioPci::new(Block::new(1, 64, true)));
    host.disk(VirtioPci::new(Block::new(2, u64::MAX >> 9, false)));
    host.nic(VirtioPci::new(Net::new(0, MAC)));
    host
}

fn whole_board(_: &Subject, ram: Arc<GuestRam>) -> anyhow::Result<Bus> {
    let spec = MachineSpec {
        board: board::BOARD,
        ram: ram.size(),
        cpu: model()?.text(),
        reckoning: Reckoning::default(),
        rtc_base: 1_767_225_600,
        seed: 0,
        disks: vec![DiskSpec { sectors: 64, read_only: false, digest: 0 }; 3],
        nics: vec![NicSpec { mac: MAC }],
        boot: BootSpec::default(),
    };
    Ok(board::build(&spec, &model()?, ram)?)
}
