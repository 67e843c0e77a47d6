//! The host bridge: configuration mechanism 1 (PCI Local Bus 3.0 3.2.2.3.2), routing of memory accesses to its
//! functions, and their interrupt pins on the board's wires.
//!
//! Not responsible for: other buses than the one, what a function does, the reset register amid the configuration
//! ports (`isa/reset_ports.rs`).

use super::config::{ConfigSpace, Identity};
use super::function::PciFunction;
use super::{CONFIG_ADDRESS, MEMORY_WINDOW, SLOTS, link_of, pic_line};
use crate::wiring::{PCI_INTA, isa_irq};
use gemel_machine::{Device, DeviceCx, Input, InputPort, Section, SectionError};

/// The bridge's name on the board.
pub const NAME: &str = "pci";
const STATE_VERSION: u16 = 1;

const CONFIG_DATA: u16 = 0xcfc;
const CONFIG_ENABLE: u32 = 1 << 31;

/// The bridge and its functions.
pub struct PciHost {
    // Configuration.
    /// By slot, in ascending order. One function a slot.
    functions: Vec<(u8, Box<dyn PciFunction>)>,
    /// Which slot a disk is in.
    disks: Vec<u8>,
    /// Which slot a network interface is in.
    nics: Vec<u8>,
    next_address: u64,
    // State.
    config_address: u32,
    bridge: ConfigSpace,
}

impl PciHost {
    /// A bridge without functions.
    pub fn new() -> Self {
        Self {
            functions: Vec::new(),
            disks: Vec::new(),
            nics: Vec::new(),
            next_address: MEMORY_WINDOW.start,
            config_address: 0,
            bridge: ConfigSpace::new(Identity {
                vendor: 0x1b36,
                device: 0x0008,
                revision: 0,
                class: 0x06_0000,
                subsystem_vendor: 0x1b36,
                subsystem: 0x1100,
            }),
        }
    }

    /// Puts the next disk into the next free slot. Returns whether there was one.
    pub fn disk(&mut self, function: impl PciFunction + 'static) -> bool {
        let slot = self.insert(function);
        self.disks.extend(slot);
        slot.is_some()
    }

    /// Puts the next network interface into the next free slot. Returns whether there was one.
    pub fn nic(&mut self, function: impl PciFunction + 'static) -> bool {
        let slot = self.insert(function);
        self.nics.extend(slot);
        slot.is_some()
    }

    /// Puts a function into the next free slot and assigns its BARs, as firmware would.
    fn insert(&mut self, mut function: impl PciFunction + 'static) -> Option<u8> {
        let slot = self.functions.last().map_or(1, |(slot, _)| slot + 1);
        if slot >= SLOTS {
            return None;
        }
        let config = function.config_mut();
        for (index, size) in config.bar_sizes().into_iter().enumerate().filter(|(_, size)| *size > 0) {
            let address = self.next_address.next_multiple_of(u64::from(size));
            config.assign_bar(index, address as u32);
            self.next_address = address + u64::from(size);
        }
        config.use_interrupt_pin(pic_line(link_of(slot, 0)));
        self.functions.push((slot, Box::new(function)));
        Some(slot)
    }

    fn function(&mut self, slot: u8) -> Option<&mut Box<dyn PciFunction>> {
        self.functions.iter_mut().find(|(s, _)| *s == slot).map(|(_, f)| f)
    }

    /// Drives the interrupt links by what all functions ask for: each link is an I/O APIC input, and two of them
    /// share an 8259 line.
    fn settle(&mut self, cx: &mut DeviceCx<'_>) {
        let mut links = [false; 4];
        for (slot, function) in &mut self.functions {
            links[usize::from(link_of(*slot, 0))] |= function.interrupt();
        }
        for (link, level) in links.into_iter().enumerate() {
            cx.wires.set(PCI_INTA + link as u16, level);
        }
        for link in 0..2 {
            cx.wires.set(isa_irq(pic_line(link)), links[usize::from(link)] || links[usize::from(link) + 2]);
        }
    }

    /// The slot and register that the address register selects; `None` for other buses and functions.
    fn selected(&self) -> Option<(u8, usize)> {
        let address = self.config_address;
        let here = address & CONFIG_ENABLE != 0 && address >> 16 & 0xff == 0 && address >> 8 & 7 == 0;
        here.then_some(((address >> 11 & 0x1f) as u8, (address & 0xfc) as usize))
    }

    fn config_read(&mut self, cx: &mut DeviceCx<'_>, at: usize, size: usize) -> u32 {
        match self.selected() {
            Some((0, register)) => self.bridge.read(register + at, size),
            Some((slot, register)) => match self.function(slot) {
                Some(function) => function.config_read(cx, register + at, size),
                None => u32::MAX,
            },
            None => u32::MAX,
        }
    }

    fn config_write(&mut self, cx: &mut DeviceCx<'_>, at: usize, size: usize, value: u32) {
        match self.selected() {
            Some((0, register)) => self.bridge.write(register + at, size, value),
            Some((slot, register)) => {
                if let Some(function) = self.function(slot) {
                    function.config_write(cx, register + at, size, value);
                }
            }
            None => {}
        }
    }

    /// The function and BAR that answer at an address: index, BAR, offset.
    fn at(&self, address: u64) -> Option<(usize, usize, u64)> {
        self.functions.iter().enumerate().find_map(|(i, (_, function))| {
            function.config().bar_at(address).map(|(bar, offset)| (i, bar, offset))
        })
    }
}

impl Default for PciHost {
    fn default() -> Self {
        Self::new()
    }
}

/// The saved functions of a saved bridge, in slot order; `None` for a section that is no bridge's.
pub fn saved_functions(section: &Section) -> Option<Vec<Section>> {
    let (_, _, functions): Saved = section.read(NAME, STATE_VERSION).ok()?;
    Some(functions.into_iter().map(|(version, body)| Section { version, body }).collect())
}

type Saved = (u32, Vec<u8>, Vec<(u16, Vec<u8>)>);

impl Device for PciHost {
    fn name(&self) -> &'static str {
        NAME
    }

    fn reset(&mut self, cx: &mut DeviceCx<'_>) {
        self.config_address = 0;
        self.bridge.reset();
        for (_, function) in &mut self.functions {
            function.reset(cx);
        }
        self.settle(cx);
    }

    fn save(&self) -> Section {
        let functions = self.functions.iter().map(|(_, f)| f.save()).map(|s| (s.version, s.body));
        let saved: Saved = (self.config_address, self.bridge.bytes().to_vec(), functions.collect());
        Section::of(STATE_VERSION, &saved)
    }

    fn restore(&mut self, section: &Section) -> Result<(), SectionError> {
        let damaged = SectionError::Damaged { device: NAME };
        let (address, bridge_bytes, functions): Saved = section.read(NAME, STATE_VERSION)?;
        let mut bridge = self.bridge.clone();
        if functions.len() != self.functions.len() || bridge.restore(&bridge_bytes).is_none() {
            return Err(damaged);
        }
        let before: Vec<Section> = self.functions.iter().map(|(_, f)| f.save()).collect();
        for (i, (version, body)) in functions.into_iter().enumerate() {
            if let Err(error) = self.functions[i].1.restore(&Section { version, body }) {
                for (section, (_, function)) in before.iter().zip(&mut self.functions) {
                    function.restore(section)?;
                }
                return Err(error);
            }
        }
        (self.config_address, self.bridge) = (address, bridge);
        Ok(())
    }

    fn port_read(&mut self, cx: &mut DeviceCx<'_>, port: u16, size: u8) -> u32 {
        match port {
            CONFIG_ADDRESS if size == 4 => self.config_address,
            CONFIG_DATA.. if port <= CONFIG_DATA + 3 => {
                self.config_read(cx, usize::from(port - CONFIG_DATA), usize::from(size))
            }
            _ => u32::MAX,
        }
    }

    fn port_write(&mut self, cx: &mut DeviceCx<'_>, port: u16, size: u8, value: u32) {
        match port {
            CONFIG_ADDRESS if size == 4 => self.config_address = value & (CONFIG_ENABLE | 0xff_fffc),
            CONFIG_DATA.. if port <= CONFIG_DATA + 3 => {
                self.config_write(cx, usize::from(port - CONFIG_DATA), usize::from(size), value);
                self.settle(cx);
            }
            _ => {}
        }
    }

    fn mmio_read(&mut self, cx: &mut DeviceCx<'_>, address: u64, size: u8) -> u64 {
        let Some((i, bar, offset)) = self.at(address) else { return u64::MAX };
        let value = self.functions[i].1.bar_read(cx, bar, offset, size);
        self.settle(cx); // reading an interrupt status can clear it
        value
    }

    fn mmio_write(&mut self, cx: &mut DeviceCx<'_>, address: u64, size: u8, value: u64) {
        if let Some((i, bar, offset)) = self.at(address) {
            self.functions[i].1.bar_write(cx, bar, offset, size, value);
            self.settle(cx);
        }
    }

    fn on_input(&mut self, cx: &mut DeviceCx<'_>, input: Input) {
        let slot = match input.port() {
            InputPort::Disk(disk) => self.disks.get(usize::from(disk)),
            InputPort::Net(nic) => self.nics.get(usize::from(nic)),
            _ => None,
        };
        if let Some(slot) = slot.copied()
            && let Some(function) = self.function(slot)
        {
            function.on_input(cx, input);
            self.settle(cx);
        }
    }
}

#[cfg(test)]
mod tests;
