//! Virtio over PCI (Virtio 1.2 4.1): the structures in BAR 0, MSI-X in BAR 1, and the capabilities that say so.
//!
//! Not responsible for: what a device does with its queues (`block`, `net`).

use super::VirtioDevice;
use super::queue::{Queue, RingError};
use crate::pci::config::Identity;
use crate::pci::msix::MsiX;
use crate::pci::{ConfigSpace, PciFunction};
use gemel_machine::{DeviceCx, Input, Section, SectionError};
use serde::{Deserialize, Serialize};

const NAME: &str = "virtio-pci";
const STATE_VERSION: u16 = 1;

const VENDOR: u16 = 0x1af4;
/// Device id of type 0 of a device that is not transitional.
const DEVICE_BASE: u16 = 0x1040;
const SUBSYSTEM: u16 = 0x1100;

/// BAR 0: each structure in a page of its own.
const REGISTERS_BAR: usize = 0;
const REGISTERS_SIZE: u32 = 0x4000;
const COMMON: u64 = 0x0000;
const COMMON_SIZE: u32 = 60;
const ISR: u64 = 0x1000;
const DEVICE: u64 = 0x2000;
const NOTIFY: u64 = 0x3000;
/// Bytes between the notify addresses of two queues.
const NOTIFY_MULTIPLIER: u32 = 4;
const MSIX_BAR: u8 = 1;

/// Capability of a vendor, and the structures that it can point to (4.1.4).
const VENDOR_CAPABILITY: u8 = 0x09;
const CFG_COMMON: u8 = 1;
const CFG_NOTIFY: u8 = 2;
const CFG_ISR: u8 = 3;
const CFG_DEVICE: u8 = 4;
const CFG_PCI: u8 = 5;

/// Device status (2.1).
const FEATURES_OK: u8 = 1 << 3;
const DRIVER_OK: u8 = 1 << 2;
const NEEDS_RESET: u8 = 1 << 6;

/// Features of ring and transport (6).
const F_INDIRECT_DESC: u64 = 1 << 28;
const F_VERSION_1: u64 = 1 << 32;

const ISR_QUEUE: u8 = 1 << 0;
const ISR_CONFIG: u8 = 1 << 1;
const NO_VECTOR: u16 = 0xffff;

/// The common configuration, as far as it is state.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Registers {
    device_feature_select: u32,
    driver_feature_select: u32,
    driver_features: u64,
    status: u8,
    isr: u8,
    queue_select: u16,
    config_vector: u16,
    queue_vectors: Vec<u16>,
}

impl Registers {
    fn new(queues: u16) -> Self {
        Self {
            device_feature_select: 0,
            driver_feature_select: 0,
            driver_features: 0,
            status: 0,
            isr: 0,
            queue_select: 0,
            config_vector: NO_VECTOR,
            queue_vectors: vec![NO_VECTOR; queues.into()],
        }
    }
}

/// A virtio device as a PCI function.
pub struct VirtioPci<D> {
    config: ConfigSpace,
    /// Where the capability lies through which configuration accesses reach the BARs.
    window: usize,
    msix: MsiX,
    registers: Registers,
    queues: Vec<Queue>,
    device: D,
}

impl<D: VirtioDevice> VirtioPci<D> {
    /// Puts a device on the transport.
    pub fn new(device: D) -> Self {
        let mut config = ConfigSpace::new(Identity {
            vendor: VENDOR,
            device: DEVICE_BASE + D::TYPE,
            revision: 1,
            class: D::CLASS,
            subsystem_vendor: VENDOR,
            subsystem: SUBSYSTEM,
        });
        config.add_memory_bar(REGISTERS_BAR, REGISTERS_SIZE);
        let msix = MsiX::new(&mut config, MSIX_BAR, D::QUEUES + 1);
        let device_size = device.config().len() as u32;
        for (kind, offset, size, extra) in [
            (CFG_COMMON, COMMON, COMMON_SIZE, None),
            (CFG_ISR, ISR, 1, None),
            (CFG_DEVICE, DEVICE, device_size, None),
            (CFG_NOTIFY, NOTIFY, u32::from(D::QUEUES) * NOTIFY_MULTIPLIER, Some(NOTIFY_MULTIPLIER)),
        ] {
            add_structure(&mut config, kind, offset as u32, size, extra);
        }
        let window = add_structure(&mut config, CFG_PCI, 0, 0, Some(0));
        config.allow(window + 4, &[0xff]);
        config.allow(window + 8, &[0xff; 8]);
        Self {
            config,
            window,
            msix,
            registers: Registers::new(D::QUEUES),
            queues: vec![Queue::new(); D::QUEUES.into()],
            device,
        }
    }

    fn features(&self) -> u64 {
        self.device.features() | F_VERSION_1 | F_INDIRECT_DESC
    }

    fn reset_device(&mut self) {
        self.registers = Registers::new(D::QUEUES);
        self.queues.fill(Queue::new());
        self.device.reset();
    }

    /// The queue that the driver selected; `None` for one that does not exist.
    fn selected(&mut self) -> Option<(usize, &mut Queue)> {
        let index = usize::from(self.registers.queue_select);
        self.queues.get_mut(index).map(|queue| (index, queue))
    }

    fn common_read(&mut self, offset: u64) -> u64 {
        let features = self.features();
        let half = |value: u64, select: u32| match select {
            0 => value & 0xffff_ffff,
            1 => value >> 32,
            _ => 0,
        };
        let r = &self.registers;
        match offset {
            0 => r.device_feature_select.into(),
            4 => half(features, r.device_feature_select),
            8 => r.driver_feature_select.into(),
            12 => half(r.driver_features, r.driver_feature_select),
            16 => r.config_vector.into(),
            18 => D::QUEUES.into(),
            20 => r.status.into(),
            21 => 0, // the configuration never changes
            22 => r.queue_select.into(),
            _ => self.queue_read(offset),
        }
    }

    fn queue_read(&mut self, offset: u64) -> u64 {
        let vectors = self.registers.queue_vectors.clone();
        // 4.1.4.3.1: a queue that does not exist has size 0.
        let Some((index, queue)) = self.selected() else { return 0 };
        match offset {
            24 => queue.size.into(),
            26 => vectors[index].into(),
            28 => queue.enabled.into(),
            30 => index as u64,
            32 => queue.descriptors & 0xffff_ffff,
            36 => queue.descriptors >> 32,
            40 => queue.available & 0xffff_ffff,
            44 => queue.available >> 32,
            48 => queue.used & 0xffff_ffff,
            52 => queue.used >> 32,
            _ => 0,
        }
    }

    fn common_write(&mut self, cx: &mut DeviceCx<'_>, offset: u64, size: u8, value: u32) {
        match (offset, size) {
            (0, 4) => self.registers.device_feature_select = value,
            (8, 4) => self.registers.driver_feature_select = value,
            (12, 4) => {
                let shift = self.registers.driver_feature_select;
                if shift < 2 && self.registers.status & FEATURES_OK == 0 {
                    let kept = self.registers.driver_features & !(0xffff_ffff << (32 * shift));
                    self.registers.driver_features = kept | u64::from(value) << (32 * shift);
                }
            }
            (16, 2) => self.registers.config_vector = self.vector(value),
            (20, 1) => self.write_status(value as u8),
            (22, 2) => self.registers.queue_select = value as u16,
            _ => self.queue_write(offset, size, value),
        }
        self.notify_driver(cx);
    }

    /// A vector that the table lacks reads back as "none" (4.1.5.1.2).
    fn vector(&self, value: u32) -> u16 {
        if (value as usize) < self.msix.vectors() { value as u16 } else { NO_VECTOR }
    }

    fn queue_write(&mut self, offset: u64, size: u8, value: u32) {
        let vector = self.vector(value);
        let low = |field: u64| field & !0xffff_ffff | u64::from(value);
        let high = |field: u64| field & 0xffff_ffff | u64::from(value) << 32;
        let Some((index, queue)) = self.selected() else { return };
        if (offset, size) == (26, 2) {
            self.registers.queue_vectors[index] = vector;
            return;
        }
        if queue.enabled {
            return; // 4.1.4.3.2: the driver configures before it enables
        }
        match (offset, size) {
            (24, 2) if Queue::is_size(value as u16) => queue.size = value as u16,
            (28, 2) => queue.enabled = value == 1,
            (32, 4) => queue.descriptors = low(queue.descriptors),
            (36, 4) => queue.descriptors = high(queue.descriptors),
            (40, 4) => queue.available = low(queue.available),
            (44, 4) => queue.available = high(queue.available),
            (48, 4) => queue.used = low(queue.used),
            (52, 4) => queue.used = high(queue.used),
            _ => {}
        }
    }

    fn write_status(&mut self, value: u8) {
        if value == 0 {
            return self.reset_device();
        }
        let mut status = value & !NEEDS_RESET | self.registers.status & NEEDS_RESET;
        let accepted = self.registers.driver_features;
        if accepted & !self.features() != 0 || accepted & F_VERSION_1 == 0 {
            status &= !FEATURES_OK; // 2.2.2: and the driver gives up
        }
        self.registers.status = status;
    }

    /// After a call of the device: a broken ring asks for a reset, and used buffers interrupt.
    fn settle(&mut self, cx: &mut DeviceCx<'_>, result: Result<(), RingError>) {
        if result.is_err() && self.registers.status & NEEDS_RESET == 0 {
            self.registers.status |= NEEDS_RESET;
            self.raise(cx, ISR_CONFIG, self.registers.config_vector);
        }
        self.notify_driver(cx);
    }

    fn notify_driver(&mut self, cx: &mut DeviceCx<'_>) {
        for index in 0..self.queues.len() {
            if std::mem::take(&mut self.queues[index].interrupt) {
                self.raise(cx, ISR_QUEUE, self.registers.queue_vectors[index]);
            }
        }
    }

    fn raise(&mut self, cx: &mut DeviceCx<'_>, isr: u8, vector: u16) {
        if self.msix.is_enabled(&self.config) {
            self.msix.notify(cx, &self.config, vector);
        } else {
            self.registers.isr |= isr;
        }
    }

    /// Whether a driver is ready for what the device does with its rings.
    fn is_driven(&self) -> bool {
        self.registers.status & (DRIVER_OK | NEEDS_RESET) == DRIVER_OK && self.config.is_bus_master()
    }

    fn notified(&mut self, cx: &mut DeviceCx<'_>, index: usize) {
        if self.is_driven() && self.queues.get(index).is_some_and(|queue| queue.enabled) {
            let result = self.device.notified(cx, &mut self.queues, index);
            self.settle(cx, result);
        }
    }

    fn register_read(&mut self, offset: u64, size: u8) -> u64 {
        let within = |start: u64, len: usize| offset >= start && offset - start < len as u64;
        if within(COMMON, COMMON_SIZE as usize) {
            if size == 8 {
                return self.common_read(offset) | self.common_read(offset + 4) << 32;
            }
            return self.common_read(offset);
        }
        if within(ISR, 1) {
            return std::mem::take(&mut self.registers.isr).into(); // 4.1.4.5: reading acknowledges
        }
        let config = self.device.config();
        if within(DEVICE, config.len()) {
            let rest = &config[(offset - DEVICE) as usize..];
            return rest.iter().take(size.into()).rev().fold(0, |v, b| v << 8 | u64::from(*b));
        }
        0
    }

    fn register_write(&mut self, cx: &mut DeviceCx<'_>, offset: u64, size: u8, value: u64) {
        let notify_end = NOTIFY + u64::from(D::QUEUES) * u64::from(NOTIFY_MULTIPLIER);
        match offset {
            0..0x40 if size == 8 => {
                self.common_write(cx, offset, 4, value as u32);
                self.common_write(cx, offset + 4, 4, (value >> 32) as u32);
            }
            0..0x40 => self.common_write(cx, offset, size, value as u32),
            _ if (NOTIFY..notify_end).contains(&offset) => {
                self.notified(cx, ((offset - NOTIFY) / u64::from(NOTIFY_MULTIPLIER)) as usize);
            }
            _ => {}
        }
    }

    /// The access that the window in configuration space makes: BAR, offset, size (4.1.4.9).
    fn window_access(&self) -> Option<(usize, u64, u8)> {
        let bar = self.config.read(self.window + 4, 1) as usize;
        let offset = self.config.read(self.window + 8, 4);
        let size = self.config.read(self.window + 12, 4);
        let inside = bar < 6 && offset < self.config.bar_sizes()[bar];
        let aligned = matches!(size, 1 | 2 | 4) && offset.is_multiple_of(size);
        (inside && aligned).then_some((bar, offset.into(), size as u8))
    }

    fn is_window_data(&self, offset: usize) -> bool {
        (self.window + 16..self.window + 20).contains(&offset)
    }
}

/// Appends a virtio structure capability; `extra` is the word that some kinds have behind it.
fn add_structure(config: &mut ConfigSpace, kind: u8, offset: u32, size: u32, extra: Option<u32>) -> usize {
    let length = if extra.is_some() { 20 } else { 16 };
    let mut body = vec![length, kind, REGISTERS_BAR as u8, 0, 0, 0];
    for word in [Some(offset), Some(size), extra].into_iter().flatten() {
        body.extend_from_slice(&word.to_le_bytes());
    }
    config.add_capability(VENDOR_CAPABILITY, &body)
}

type Saved = (Vec<u8>, MsiX, Registers, Vec<Queue>, Vec<u8>);

/// The part of a saved function that is its device's own.
pub(super) fn device_state(function: &Section) -> Option<Vec<u8>> {
    function.read::<Saved>(NAME, STATE_VERSION).ok().map(|saved| saved.4)
}

impl<D: VirtioDevice> PciFunction for VirtioPci<D> {
    fn config(&self) -> &ConfigSpace {
        &self.config
    }

    fn config_mut(&mut self) -> &mut ConfigSpace {
        &mut self.config
    }

    fn config_read(&mut self, cx: &mut DeviceCx<'_>, offset: usize, size: usize) -> u32 {
        if self.is_window_data(offset) {
            return match self.window_access() {
                Some((bar, at, size)) => self.bar_read(cx, bar, at, size) as u32,
                None => u32::MAX,
            };
        }
        self.config.read(offset, size)
    }

    fn config_write(&mut self, cx: &mut DeviceCx<'_>, offset: usize, size: usize, value: u32) {
        if self.is_window_data(offset) {
            if let Some((bar, at, size)) = self.window_access() {
                self.bar_write(cx, bar, at, size, value.into());
            }
            return;
        }
        self.config.write(offset, size, value);
        self.msix.flush(cx, &self.config); // the function may just have been unmasked
    }

    fn bar_read(&mut self, _cx: &mut DeviceCx<'_>, bar: usize, offset: u64, size: u8) -> u64 {
        if bar == usize::from(MSIX_BAR) {
            self.msix.read(offset, size)
        } else {
            self.register_read(offset, size)
        }
    }

    fn bar_write(&mut self, cx: &mut DeviceCx<'_>, bar: usize, offset: u64, size: u8, value: u64) {
        if bar == usize::from(MSIX_BAR) {
            self.msix.write(cx, &self.config, offset, size, value);
        } else {
            self.register_write(cx, offset, size, value);
        }
    }

    fn interrupt(&mut self) -> bool {
        let pending = self.registers.isr != 0 && !self.msix.is_enabled(&self.config);
        self.config.show_interrupt(pending)
    }

    fn on_input(&mut self, cx: &mut DeviceCx<'_>, input: Input) {
        let driven = self.is_driven();
        let result = self.device.on_input(cx, &mut self.queues, input, driven);
        self.settle(cx, result);
    }

    fn reset(&mut self, _cx: &mut DeviceCx<'_>) {
        self.reset_device();
        self.msix.reset();
        self.config.reset();
    }

    fn save(&self) -> Section {
        let Self { config, window: _, msix, registers, queues, device } = self;
        Section::of(STATE_VERSION, &(config.bytes(), msix, registers, queues, device.save()))
    }

    fn restore(&mut self, section: &Section) -> Result<(), SectionError> {
        let damaged = SectionError::Damaged { device: NAME };
        let (bytes, msix, registers, queues, device): Saved = section.read(NAME, STATE_VERSION)?;
        let mut config = self.config.clone();
        let sound = config.restore(&bytes).is_some()
            && self.msix.matches(&msix)
            && registers.queue_vectors.len() == self.queues.len()
            && queues.len() == self.queues.len()
            && queues.iter().all(|queue| Queue::is_size(queue.size));
        if !sound {
            return Err(damaged);
        }
        self.device.restore(&device)?;
        (self.config, self.msix, self.registers, self.queues) = (config, msix, registers, queues);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
