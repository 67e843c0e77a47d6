//! The bus: which device answers at which port, address, wire and plug; and the order in which their signals settle.
//!
//! Not responsible for: chips (`devices`), when a call happens (`machine`).

use crate::device::{Device, DeviceCx, Section, SectionError};
use crate::position::VirtTime;
use crate::ram::GuestRam;
use crate::timers::Timers;
use crate::wires::{Signal, Wire, Wires};
use crate::world::{Input, InputPort, Output};
use std::ops::RangeInclusive;
use std::sync::Arc;

/// What a device asks of the machine's power supply.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PowerEvent {
    /// Power off (ACPI S5).
    Off,
    /// System reset (keyboard controller, 0xcf9, ACPI reset register).
    Reset,
    /// The debug-exit device was written: the guest program's result.
    DebugExit(u32),
}

/// How wide accesses reach the devices at a port range.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PortWidth {
    /// Eight-bit ISA: wider accesses arrive as bytes, lowest address first.
    Byte,
    /// The device takes 1, 2 and 4 bytes.
    Any,
}

const NOBODY: u16 = u16::MAX;

/// Builds a [`Bus`]. Device numbers are given in the order of [`BusBuilder::add`]: they are part of the machine's
/// identity (the order of timers at one position).
pub struct BusBuilder {
    bus: Bus,
}

/// All devices and how they are connected.
pub struct Bus {
    devices: Vec<Box<dyn Device>>,
    ports: Box<[(u16, PortWidth)]>,
    windows: Vec<(u64, u64, u16)>,
    listeners: Vec<Vec<(u16, u8)>>,
    plugs: Vec<(InputPort, u16)>,
    controllers: Vec<u16>,
    message_target: u16,
    end_listeners: Vec<u16>,
    float_error_wires: Option<(Wire, Wire)>,
    wires: Wires,
    timers: Timers,
    outputs: Vec<Output>,
    power: Option<PowerEvent>,
    nmi: bool,
    ram: Arc<GuestRam>,
}

impl BusBuilder {
    /// A bus with `wires` wires and no device.
    pub fn new(ram: Arc<GuestRam>, wires: usize) -> Self {
        Self {
            bus: Bus {
                devices: Vec::new(),
                ports: vec![(NOBODY, PortWidth::Any); 1 << 16].into(),
                windows: Vec::new(),
                listeners: vec![Vec::new(); wires],
                plugs: Vec::new(),
                controllers: Vec::new(),
                message_target: NOBODY,
                end_listeners: Vec::new(),
                float_error_wires: None,
                wires: Wires::new(wires),
                timers: Timers::default(),
                outputs: Vec::new(),
                power: None,
                nmi: false,
                ram,
            },
        }
    }

    /// Adds a device and returns its number.
    pub fn add(&mut self, device: impl Device + 'static) -> u16 {
        self.bus.devices.push(Box::new(device));
        (self.bus.devices.len() - 1) as u16
    }

    /// Maps ports to a device.
    pub fn ports(&mut self, range: RangeInclusive<u16>, device: u16, width: PortWidth) -> &mut Self {
        for port in range {
            self.bus.ports[usize::from(port)] = (device, width);
        }
        self
    }

    /// Maps `size` bytes of the physical address space from `start` to a device. Windows must not overlap.
    pub fn window(&mut self, start: u64, size: u64, device: u16) -> &mut Self {
        self.bus.windows.push((start, start + size, device));
        self.bus.windows.sort_unstable();
        self
    }

    /// Connects a wire to a pin of a device: its [`Device::on_wire`] hears of every change.
    pub fn connect(&mut self, wire: Wire, device: u16, pin: u8) -> &mut Self {
        self.bus.listeners[usize::from(wire)].push((device, pin));
        self
    }

    /// Names the device behind a plug.
    pub fn plug(&mut self, port: InputPort, device: u16) -> &mut Self {
        self.bus.plugs.push((port, device));
        self
    }

    /// Names the interrupt controllers: the first is what the vCPU sees, the next is asked when it hands an
    /// acknowledge on. The first also owns the MSRs, CR8 and message-signalled interrupts.
    pub fn cpu_interrupts(&mut self, controllers: &[u16]) -> &mut Self {
        self.bus.controllers = controllers.to_vec();
        self.bus.message_target = controllers.first().copied().unwrap_or(NOBODY);
        self
    }

    /// Names a device that hears of ended level-triggered interrupts (I/O APIC).
    pub fn end_of_interrupt(&mut self, device: u16) -> &mut Self {
        self.bus.end_listeners.push(device);
        self
    }

    /// Names the wires behind the vCPU's FERR# output and IGNNE# input.
    pub fn float_errors(&mut self, ferr: Wire, ignne: Wire) -> &mut Self {
        self.bus.float_error_wires = Some((ferr, ignne));
        self
    }

    /// The finished bus; every device is reset, at time zero.
    pub fn build(self) -> Bus {
        let mut bus = self.bus;
        bus.reset(VirtTime(0));
        bus.outputs.clear();
        bus
    }
}

impl DeviceCx<'_> {
    /// Asks for a power event.
    pub fn power(&mut self, event: PowerEvent) {
        self.power.get_or_insert(event);
    }

    /// Raises the vCPU's NMI input.
    pub fn nmi(&mut self) {
        *self.nmi = true;
    }
}

impl Bus {
    /// Calls one device and lets its signals settle.
    fn call<R>(
        &mut self,
        id: u16,
        now: VirtTime,
        f: impl FnOnce(&mut dyn Device, &mut DeviceCx<'_>) -> R,
    ) -> Option<R> {
        let result = self.call_unsettled(id, now, f);
        self.settle(now);
        result
    }

    /// Delivers changes of wires and messages until none is left.
    fn settle(&mut self, now: VirtTime) {
        while let Some(signal) = self.wires.take_pending() {
            match signal {
                Signal::Level(wire, level) => {
                    for i in 0..self.listeners[usize::from(wire)].len() {
                        let (device, pin) = self.listeners[usize::from(wire)][i];
                        self.call_unsettled(device, now, |d, cx| d.on_wire(cx, pin, level));
                    }
                }
                Signal::Message { address, data } => {
                    self.call_unsettled(self.message_target, now, |d, cx| d.on_message(cx, address, data));
                }
                Signal::EndOfInterrupt(vector) => {
                    for i in 0..self.end_listeners.len() {
                        let device = self.end_listeners[i];
                        self.call_unsettled(device, now, |d, cx| d.on_end_of_interrupt(cx, vector));
                    }
                }
            }
        }
    }

    fn call_unsettled<R>(
        &mut self,
        id: u16,
        now: VirtTime,
        f: impl FnOnce(&mut dyn Device, &mut DeviceCx<'_>) -> R,
    ) -> Option<R> {
        let device = self.devices.get_mut(usize::from(id))?;
        let mut cx = DeviceCx {
            now,
            ram: &self.ram,
            wires: &mut self.wires,
            timers: &mut self.timers,
            outputs: &mut self.outputs,
            power: &mut self.power,
            nmi: &mut self.nmi,
            id,
        };
        Some(f(device.as_mut(), &mut cx))
    }

    /// Resets every device. What the devices say to the world because of it goes out as always.
    pub fn reset(&mut self, now: VirtTime) {
        // The vCPU is reset too, and drives FERR# no more.
        self.float_error(now, false);
        // The reset line is held until the wires are quiet: a chip that heard of a wire falling is reset once more.
        for _ in 0..2 {
            for id in 0..self.devices.len() as u16 {
                self.call(id, now, |device, cx| device.reset(cx));
            }
        }
        self.power = None;
        self.nmi = false;
    }

    /// IN. Ports that nobody answers read as ones.
    pub fn port_read(&mut self, now: VirtTime, port: u16, size: u8) -> u32 {
        let (id, width) = self.ports[usize::from(port)];
        let value = if width == PortWidth::Byte && size > 1 {
            (0..size).fold(0, |value, i| {
                value | (self.port_read(now, port.wrapping_add(u16::from(i)), 1) & 0xff) << (8 * i)
            })
        } else {
            self.call(id, now, |d, cx| d.port_read(cx, port, size)).unwrap_or(u32::MAX)
        };
        if size == 4 { value } else { value & ((1 << (8 * size)) - 1) }
    }

    /// OUT.
    pub fn port_write(&mut self, now: VirtTime, port: u16, size: u8, value: u32) {
        let (id, width) = self.ports[usize::from(port)];
        if width == PortWidth::Byte && size > 1 {
            for i in 0..size {
                self.port_write(now, port.wrapping_add(u16::from(i)), 1, value >> (8 * i) & 0xff);
            }
        } else {
            self.call(id, now, |d, cx| d.port_write(cx, port, size, value));
        }
    }

    fn window_at(&self, address: u64) -> u16 {
        let at = self.windows.partition_point(|w| w.0 <= address);
        match at.checked_sub(1).map(|i| self.windows[i]) {
            Some((_, end, id)) if address < end => id,
            _ => NOBODY,
        }
    }

    /// A load from the physical address space outside RAM. Addresses that nobody answers read as ones.
    pub fn mmio_read(&mut self, now: VirtTime, address: u64, size: u8) -> u64 {
        let id = self.window_at(address);
        let value = self.call(id, now, |d, cx| d.mmio_read(cx, address, size)).unwrap_or(u64::MAX);
        if size >= 8 { value } else { value & ((1 << (8 * size)) - 1) }
    }

    /// A store to the same.
    pub fn mmio_write(&mut self, now: VirtTime, address: u64, size: u8, value: u64) {
        let id = self.window_at(address);
        self.call(id, now, |d, cx| d.mmio_write(cx, address, size, value));
    }

    /// RDMSR of a device's register.
    pub fn msr_read(&mut self, now: VirtTime, msr: u32) -> Option<u64> {
        self.call(self.message_target, now, |d, cx| d.msr_read(cx, msr)).flatten()
    }

    /// WRMSR of a device's register.
    pub fn msr_write(&mut self, now: VirtTime, msr: u32, value: u64) -> Option<()> {
        self.call(self.message_target, now, |d, cx| d.msr_write(cx, msr, value)).flatten()
    }

    /// MOV from CR8.
    pub fn task_priority(&self) -> u8 {
        self.devices.get(usize::from(self.message_target)).map_or(0, |d| d.task_priority())
    }

    /// MOV to CR8.
    pub fn set_task_priority(&mut self, now: VirtTime, priority: u8) {
        self.call(self.message_target, now, |d, cx| d.set_task_priority(cx, priority));
    }

    /// Whether a maskable interrupt waits for the vCPU.
    pub fn interrupt_pending(&self) -> bool {
        self.controllers.first().is_some_and(|id| self.devices[usize::from(*id)].interrupt_pending())
    }

    /// The vector of the interrupt that waits. A request that went away in the meantime gives the first
    /// controller's spurious vector, by its own rule.
    pub fn acknowledge(&mut self, now: VirtTime) -> u8 {
        for i in 0..self.controllers.len() {
            if let Some(vector) = self.call(self.controllers[i], now, |d, cx| d.acknowledge(cx)).flatten() {
                return vector;
            }
        }
        0xff
    }

    /// Whether an NMI waits.
    pub fn nmi_pending(&self) -> bool {
        self.nmi
    }

    /// The vCPU takes the NMI.
    pub fn take_nmi(&mut self) {
        self.nmi = false;
    }

    /// The vCPU drives FERR#. Returns IGNNE#.
    pub fn float_error(&mut self, now: VirtTime, waits: bool) -> bool {
        let Some((ferr, ignne)) = self.float_error_wires else { return false };
        self.wires.set(ferr, waits);
        self.settle(now);
        self.wires.level(ignne)
    }

    /// The earliest deadline of any device.
    pub fn next_deadline(&self) -> VirtTime {
        self.timers.next()
    }

    /// Fires every timer that is due, by (deadline, device, index); timers armed meanwhile count too.
    pub fn fire_timers(&mut self, now: VirtTime) {
        while let Some((device, index)) = self.timers.take_due(now) {
            self.call(device, now, |d, cx| d.on_timer(cx, index));
        }
    }

    /// Hands an input to the device behind its plug; without one it is lost, as in an empty socket. Power that is cut and the
    /// reset line are the board's own.
    pub fn input(&mut self, now: VirtTime, input: Input) {
        match input {
            Input::PowerOff => self.power = Some(PowerEvent::Off),
            Input::Reset => self.power = self.power.or(Some(PowerEvent::Reset)),
            _ => {}
        }
        let port = input.port();
        if let Some(&(_, device)) = self.plugs.iter().find(|(p, _)| *p == port) {
            self.call(device, now, |d, cx| d.on_input(cx, input));
        }
    }

    /// Takes what left the machine since the last call, in order.
    pub fn take_outputs(&mut self) -> std::vec::Drain<'_, Output> {
        self.outputs.drain(..)
    }

    /// Whether [`Bus::take_outputs`] has anything.
    pub fn has_outputs(&self) -> bool {
        !self.outputs.is_empty()
    }

    /// The power event that a device asked for, if any.
    pub fn power(&self) -> Option<PowerEvent> {
        self.power
    }

    /// The sections of all devices, in board order, by name.
    pub fn save(&self) -> Vec<(&'static str, Section)> {
        self.devices.iter().map(|d| (d.name(), d.save())).collect()
    }

    /// The board's own state beside the devices': wires, timers, a waiting NMI.
    pub fn save_wiring(&self) -> Section {
        Section::of(WIRING_VERSION, &(&self.wires, &self.timers, self.nmi))
    }

    /// Restores the device of a name.
    ///
    /// # Errors
    /// See [`SectionError`]. `Ok(false)` when the board has no such device.
    pub fn restore(&mut self, name: &str, section: &Section) -> Result<bool, SectionError> {
        match self.devices.iter_mut().find(|d| d.name() == name) {
            Some(device) => device.restore(section).map(|()| true),
            None => Ok(false),
        }
    }

    /// Restores what [`Bus::save_wiring`] saved.
    ///
    /// # Errors
    /// See [`SectionError`]; also when the number of wires differs.
    pub fn restore_wiring(&mut self, section: &Section) -> Result<(), SectionError> {
        let (wires, timers, nmi): (Wires, Timers, bool) = section.read("wiring", WIRING_VERSION)?;
        if wires.count() != self.wires.count() {
            return Err(SectionError::Damaged { device: "wiring" });
        }
        (self.wires, self.timers, self.nmi) = (wires, timers, nmi);
        Ok(())
    }
}

const WIRING_VERSION: u16 = 1;
