//! The board: which chips there are and how they are connected. MOTHERBOARD.txt has the same as a picture.
//!
//! Not responsible for: the chips; the engine and the clock (`gemel_machine::Machine`).

use crate::acpi::{self, PowerManagement, pm};
use crate::apic::{IoApic, LocalApic, ioapic, lapic};
use crate::isa::coprocessor::Coprocessor;
use crate::isa::debug_ports::{DebugConsole, DebugExit};
use crate::isa::i8042::I8042;
use crate::isa::pic::Pic;
use crate::isa::pit::Pit;
use crate::isa::reset_ports::ResetPorts;
use crate::isa::rtc::Rtc;
use crate::isa::uart::Uart;
use crate::pci::{self, PciHost};
use crate::virtio::{self, Block, Net, VirtioPci};
use crate::wiring::{FERR, IGNNE, ISA_LINES, PCI_INTA, PIC_INTR, WIRES, isa_irq};
use gemel_machine::bus::{BusBuilder, PortWidth};
use gemel_machine::{Bus, DiskRequest, GuestRam, InputPort, MachineSpec};
use gemel_x86::CpuModel;
use std::sync::Arc;

/// The version of the board that this build makes; stands in [`MachineSpec::board`].
pub const BOARD: u16 = 3;
/// Where [`build`] leaves the ACPI root pointer, for [`crate::boot::load`].
pub const RSDP: u64 = acpi::tables::RSDP;
/// The I/O APIC input of the 8254, which the MADT declares.
const TIMER_INPUT: u8 = 2;

/// Why there is no board.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BoardError {
    /// A specification of another version.
    #[error(
        "the machine has board version {found}, this build makes version {BOARD}: use the build that made it"
    )]
    Version {
        /// What the specification says.
        found: u16,
    },
    /// RAM of another size than specified.
    #[error("the machine's specification says {wanted} bytes of RAM, {found} were given")]
    Ram {
        /// What the specification says.
        wanted: u64,
        /// What was given.
        found: u64,
    },
    /// More disks and network interfaces than slots.
    #[error(
        "{disks} disks and {nics} network interfaces: the board has slots for {max}; attach fewer with --drive and --net",
        max = pci::SLOTS - 1
    )]
    TooManyCards {
        /// Disks specified.
        disks: usize,
        /// Network interfaces specified.
        nics: usize,
    },
}

/// Builds the board of a specification, and writes the ACPI tables into `ram`, which must be as after power-on.
///
/// # Errors
/// See [`BoardError`].
pub fn build(spec: &MachineSpec, cpu: &CpuModel, ram: Arc<GuestRam>) -> Result<Bus, BoardError> {
    if spec.board != BOARD {
        return Err(BoardError::Version { found: spec.board });
    }
    let size_error = BoardError::Ram { wanted: spec.ram, found: ram.size() };
    if ram.size() != spec.ram & !0xfff {
        return Err(size_error);
    }
    acpi::tables::write(&ram).map_err(|_| size_error)?;

    let mut board = BusBuilder::new(ram, WIRES);
    // Interrupt controllers first: at one position, device numbers order the timers.
    let lapic = board.add(LocalApic::new(cpu));
    let ioapic = board.add(IoApic::new());
    let pic = board.add(Pic::new());
    board.cpu_interrupts(&[lapic, pic]).end_of_interrupt(ioapic);
    board.window(lapic::BASE, lapic::WINDOW, lapic).window(ioapic::BASE, ioapic::WINDOW, ioapic);
    for range in Pic::PORTS {
        board.ports(range, pic, PortWidth::Byte);
    }
    board.connect(PIC_INTR, lapic, lapic::LINT0_PIN);
    for line in 0..ISA_LINES as u8 {
        board.connect(isa_irq(line), pic, line);
        match line {
            0 => board.connect(isa_irq(0), ioapic, TIMER_INPUT),
            2 => continue, // the 8259 pair's cascade
            _ => board.connect(isa_irq(line), ioapic, line),
        };
    }
    for link in 0..4 {
        board.connect(PCI_INTA + u16::from(link), ioapic, pci::FIRST_GSI + link);
    }
    isa(&mut board, spec);
    bridges(&mut board, spec)?;
    Ok(board.build())
}

/// The chips of the ISA bus.
fn isa(board: &mut BusBuilder, spec: &MachineSpec) {
    let pit = board.add(Pit::new());
    board.ports(Pit::PORTS, pit, PortWidth::Byte).ports(Pit::PORT_B..=Pit::PORT_B, pit, PortWidth::Byte);
    let rtc = board.add(Rtc::new(spec.rtc_base, spec.ram));
    board.ports(Rtc::PORTS, rtc, PortWidth::Byte);
    for (number, uart) in [Uart::first(), Uart::second()].into_iter().enumerate() {
        let ports = uart.ports();
        let uart = board.add(uart);
        board.ports(ports, uart, PortWidth::Byte).plug(InputPort::Serial(number as u8), uart);
    }
    let i8042 = board.add(I8042::new());
    for range in I8042::PORTS {
        board.ports(range, i8042, PortWidth::Byte);
    }
    board.plug(InputPort::Keyboard, i8042).plug(InputPort::Mouse, i8042);
    let coprocessor = board.add(Coprocessor::default());
    board.ports(Coprocessor::PORTS, coprocessor, PortWidth::Byte);
    board.connect(FERR, coprocessor, Coprocessor::FERR_PIN).float_errors(FERR, IGNNE);
    let exit = board.add(DebugExit);
    board.ports(DebugExit::PORTS, exit, PortWidth::Any);
    let console = board.add(DebugConsole);
    board.ports(DebugConsole::PORT..=DebugConsole::PORT, console, PortWidth::Byte);
}

/// Power management, and PCI with its cards: disks first, so that a disk's slot says its number.
fn bridges(board: &mut BusBuilder, spec: &MachineSpec) -> Result<(), BoardError> {
    let power = board.add(PowerManagement::new());
    board.ports(pm::EVENT_PORT..=pm::LAST_PORT, power, PortWidth::Byte).plug(InputPort::PowerButton, power);

    let too_many = BoardError::TooManyCards { disks: spec.disks.len(), nics: spec.nics.len() };
    let mut host = PciHost::new();
    for (number, disk) in spec.disks.iter().enumerate() {
        let block = Block::new(number as u8, disk.sectors, disk.read_only);
        if !host.disk(VirtioPci::new(block)) {
            return Err(too_many);
        }
    }
    for (number, nic) in spec.nics.iter().enumerate() {
        if !host.nic(VirtioPci::new(Net::new(number as u8, nic.mac))) {
            return Err(too_many);
        }
    }
    let host = board.add(host);
    for number in 0..spec.disks.len() {
        board.plug(InputPort::Disk(number as u8), host);
    }
    for number in 0..spec.nics.len() {
        board.plug(InputPort::Net(number as u8), host);
    }
    board.ports(pci::CONFIG_ADDRESS..=pci::CONFIG_ADDRESS + 7, host, PortWidth::Any);
    board.window(pci::MEMORY_WINDOW.start, pci::MEMORY_WINDOW.end - pci::MEMORY_WINDOW.start, host);
    // After the bridge: one of these ports lies amid its configuration ports, and only bytes there are the register.
    let reset = board.add(ResetPorts::new());
    for range in ResetPorts::PORTS {
        board.ports(range, reset, PortWidth::Byte);
    }
    Ok(())
}

/// The disk requests that the board has in flight, by disk and in the order in which they were made. Who takes over
/// a restored machine issues them again.
pub fn disk_requests(bus: &Bus) -> Vec<DiskRequest> {
    let sections = bus.save();
    let bridge = sections.iter().find(|(name, _)| *name == pci::host::NAME);
    let functions = bridge.and_then(|(_, section)| pci::host::saved_functions(section)).unwrap_or_default();
    let disks = functions.iter().enumerate(); // cards behind them are no disks, and have none in flight
    disks.filter_map(|(disk, function)| virtio::requests_in_flight(disk as u8, function)).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use gemel_machine::{BootSpec, DiskOp, DiskSpec, Output, Reckoning, VirtTime};

    fn spec(disks: usize) -> MachineSpec {
        MachineSpec {
            board: BOARD,
            ram: 16 << 20,
            cpu: "x86-64-v2".into(),
            reckoning: Reckoning::default(),
            rtc_base: 1_700_000_000,
            seed: 1,
            disks: vec![DiskSpec { sectors: 100, read_only: false, digest: 0 }; disks],
            nics: Vec::new(),
            boot: BootSpec::default(),
        }
    }

    fn board(spec: &MachineSpec) -> Result<Bus, BoardError> {
        let ram = Arc::new(GuestRam::new(16 << 20).unwrap());
        build(spec, &CpuModel::x86_64_v2(), ram)
    }

    #[test]
    fn every_chip_has_a_name_of_its_own() {
        let bus = board(&spec(2)).unwrap();
        let mut names: Vec<_> = bus.save().iter().map(|(name, _)| *name).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count, "{names:?}");
    }

    #[test]
    fn a_timer_tick_reaches_the_vcpu_through_the_8259_pair() {
        // Virtual wire mode, as firmware leaves it: no APIC register is touched.
        let mut bus = board(&spec(0)).unwrap();
        let now = VirtTime(0);
        for (port, value) in [
            (0x20, 0x11),
            (0x21, 0x20),
            (0x21, 4),
            (0x21, 1),
            (0x21, 0xfe),
            (0x43, 0x34),
            (0x40, 100),
            (0x40, 0),
        ] {
            bus.port_write(now, port, 1, value);
        }
        let mut now = now;
        while !bus.interrupt_pending() {
            now = bus.next_deadline();
            assert!(now < VirtTime(1_000_000));
            bus.fire_timers(now);
        }
        assert_eq!(bus.acknowledge(now), 0x20);
    }

    #[test]
    fn a_timer_tick_reaches_the_vcpu_through_the_io_apic() {
        let mut bus = board(&spec(0)).unwrap();
        let mut now = VirtTime(0);
        for (register, value) in [(0, 0x10 + 2 * u64::from(TIMER_INPUT)), (0x10, 0x55)] {
            bus.mmio_write(now, ioapic::BASE + register, 4, value);
        }
        bus.mmio_write(now, lapic::BASE + 0x350, 4, 0x1_0700);
        for (port, value) in [(0x43, 0x34), (0x40, 100), (0x40, 0)] {
            bus.port_write(now, port, 1, value);
        }
        while !bus.interrupt_pending() {
            now = bus.next_deadline();
            assert!(now < VirtTime(1_000_000));
            bus.fire_timers(now);
        }
        assert_eq!(bus.acknowledge(now), 0x55);
    }

    #[test]
    fn requests_in_flight_are_found_by_disk() {
        let ram = Arc::new(GuestRam::new(16 << 20).unwrap());
        let mut bus = build(&spec(2), &CpuModel::x86_64_v2(), ram.clone()).unwrap();
        let now = VirtTime(0);
        // The second disk, in slot 2: memory and bus master, then a driver's way to DRIVER_OK.
        bus.port_write(now, 0xcf8, 4, 1 << 31 | 2 << 11 | 0x10);
        let base = u64::from(bus.port_read(now, 0xcfc, 4));
        bus.port_write(now, 0xcf8, 4, 1 << 31 | 2 << 11 | 4);
        bus.port_write(now, 0xcfc, 4, 6);
        let ring = [(32, 4, 0x1000), (40, 4, 0x2000), (48, 4, 0x3000), (28, 2, 1)];
        for (offset, size, value) in [(8, 4, 1), (12, 4, 1), (20, 1, 0xb)].into_iter().chain(ring) {
            bus.mmio_write(now, base + offset, size, value);
        }
        bus.mmio_write(now, base + 20, 1, 0xf);
        // A flush: header at 4000h, status at 5000h.
        ram.write(0x4000, &[4]).unwrap();
        for (at, words) in [(0x1000, [0x4000u32, 0, 16, 1 | 1 << 16]), (0x1010, [0x5000, 0, 1, 2])] {
            ram.write(at, &words.map(u32::to_le_bytes).concat()).unwrap();
        }
        ram.write(0x2002, &[1]).unwrap();
        assert_eq!(disk_requests(&bus), []);
        bus.mmio_write(now, base + 0x3000, 2, 0);
        let request = DiskRequest { disk: 1, tag: 0, op: DiskOp::Flush };
        assert_eq!(bus.take_outputs().collect::<Vec<_>>(), [Output::Disk(request.clone())]);
        assert_eq!(disk_requests(&bus), [request]);
    }

    /// Every file that the picture names is there, and every chip's file is in the picture.
    #[test]
    fn the_picture_is_of_this_board() {
        let picture = include_str!("../MOTHERBOARD.txt");
        let source = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let named: Vec<&str> =
            picture.split_whitespace().filter(|word| word.contains('/') && word.ends_with(".rs")).collect();
        assert!(named.len() > 20, "{named:?}");
        for file in &named {
            assert!(source.join(file).exists(), "{file} is named and missing");
        }
        for folder in ["apic", "pci", "virtio", "isa"] {
            for entry in std::fs::read_dir(source.join(folder)).unwrap() {
                let name = entry.unwrap().file_name().into_string().unwrap();
                let drawn = name == "mod.rs" || picture.contains(&format!("{folder}/{name}"));
                assert!(drawn || !name.ends_with(".rs"), "{folder}/{name} is not in the picture");
            }
        }
    }

    #[test]
    fn what_cannot_be_built_is_said() {
        assert_eq!(board(&MachineSpec { board: 0, ..spec(0) }).err(), Some(BoardError::Version { found: 0 }));
        assert!(matches!(board(&MachineSpec { ram: 32 << 20, ..spec(0) }), Err(BoardError::Ram { .. })));
    }
}
