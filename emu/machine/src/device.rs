//! The contract of a device: a chip that meets the rest of the machine only through the call that it is in.
//!
//! Not responsible for: addresses (the bus maps them), backends (a [`crate::World`] has them).

use crate::bus::PowerEvent;
use crate::position::VirtTime;
use crate::ram::GuestRam;
use crate::timers::Timers;
use crate::wires::Wires;
use crate::world::{Input, Output};
use serde::{Serialize, de::DeserializeOwned};

/// A device's saved state: an opaque body with a version of its own.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Section {
    /// Version of the body's layout.
    pub version: u16,
    /// The body, in postcard form.
    pub body: Vec<u8>,
}

/// Why a section cannot be restored.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SectionError {
    /// Another version of the layout.
    #[error("{device}: saved state has version {found}, this build reads {wanted}")]
    Version {
        /// The device.
        device: &'static str,
        /// What this build reads.
        wanted: u16,
        /// What was there.
        found: u16,
    },
    /// The body is not what the version promises.
    #[error("{device}: saved state is damaged")]
    Damaged {
        /// The device.
        device: &'static str,
    },
}

impl Section {
    /// Saves a value.
    pub fn of<T: Serialize>(version: u16, value: &T) -> Self {
        // postcard fails only on values without a known length, which no device state has; an empty body is then
        // refused by `read`.
        Self { version, body: postcard::to_stdvec(value).unwrap_or_default() }
    }

    /// Reads a value back.
    ///
    /// # Errors
    /// [`SectionError::Version`] for another version; [`SectionError::Damaged`] for a body that does not parse or
    /// has bytes left over.
    pub fn read<T: DeserializeOwned>(&self, device: &'static str, wanted: u16) -> Result<T, SectionError> {
        if self.version != wanted {
            return Err(SectionError::Version { device, wanted, found: self.version });
        }
        match postcard::take_from_bytes(&self.body) {
            Ok((value, [])) => Ok(value),
            _ => Err(SectionError::Damaged { device }),
        }
    }
}

/// All that a device may see or change outside itself, for the length of one call.
pub struct DeviceCx<'a> {
    /// Guest time now.
    pub now: VirtTime,
    /// Guest memory, for DMA.
    pub ram: &'a GuestRam,
    /// The wires of the board.
    pub wires: &'a mut Wires,
    pub(crate) timers: &'a mut Timers,
    pub(crate) outputs: &'a mut Vec<Output>,
    pub(crate) power: &'a mut Option<PowerEvent>,
    pub(crate) nmi: &'a mut bool,
    pub(crate) id: u16,
}

impl DeviceCx<'_> {
    /// Arms one of this device's timers; [`VirtTime::NEVER`] disarms it.
    pub fn arm(&mut self, index: u8, deadline: VirtTime) {
        self.timers.arm(self.id, index, deadline);
    }

    /// Disarms one of this device's timers.
    pub fn cancel(&mut self, index: u8) {
        self.timers.cancel(self.id, index);
    }

    /// Sends something out of the machine.
    pub fn emit(&mut self, output: Output) {
        self.outputs.push(output);
    }
}

/// A chip. It holds registers only: no thread, lock, file, socket, clock, random number or unordered map.
///
/// `restore` touches only the device itself: it drives no wire, arms no timer, emits nothing (the machine restores
/// wires and timers from its own tables).
///
/// An access outside what a device implements reads all ones and writes nothing, as on an ISA bus.
pub trait Device: Send {
    /// A short name, unique on the board, as in `uart0`.
    fn name(&self) -> &'static str;

    /// Power-on or system reset. Timers of the device are cancelled and its wires lowered by the device itself.
    fn reset(&mut self, cx: &mut DeviceCx<'_>);

    /// The whole state.
    fn save(&self) -> Section;

    /// Takes a saved state on.
    ///
    /// # Errors
    /// See [`SectionError`]; the device is then unchanged.
    fn restore(&mut self, section: &Section) -> Result<(), SectionError>;

    /// A read of `size` (1, 2 or 4) bytes at an absolute port.
    fn port_read(&mut self, _cx: &mut DeviceCx<'_>, _port: u16, _size: u8) -> u32 {
        u32::MAX
    }

    /// A write of `size` (1, 2 or 4) bytes at an absolute port.
    fn port_write(&mut self, _cx: &mut DeviceCx<'_>, _port: u16, _size: u8, _value: u32) {}

    /// A read of `size` (1, 2, 4 or 8) bytes at a guest physical address.
    fn mmio_read(&mut self, _cx: &mut DeviceCx<'_>, _address: u64, _size: u8) -> u64 {
        u64::MAX
    }

    /// A write of `size` (1, 2, 4 or 8) bytes at a guest physical address.
    fn mmio_write(&mut self, _cx: &mut DeviceCx<'_>, _address: u64, _size: u8, _value: u64) {}

    /// One of the device's timers reached its deadline (and is disarmed).
    fn on_timer(&mut self, _cx: &mut DeviceCx<'_>, _index: u8) {}

    /// A wire that the board connected to `pin` of this device changed its level.
    fn on_wire(&mut self, _cx: &mut DeviceCx<'_>, _pin: u8, _level: bool) {}

    /// A message-signalled interrupt arrived (local APIC).
    fn on_message(&mut self, _cx: &mut DeviceCx<'_>, _address: u64, _data: u32) {}

    /// A level-triggered interrupt ended (I/O APIC).
    fn on_end_of_interrupt(&mut self, _cx: &mut DeviceCx<'_>, _vector: u8) {}

    /// Something came in from the world.
    fn on_input(&mut self, _cx: &mut DeviceCx<'_>, _input: Input) {}

    /// Whether the device asks the vCPU for a maskable interrupt. Asked of the interrupt controllers that the
    /// board named, see [`crate::bus::BusBuilder::cpu_interrupts`].
    fn interrupt_pending(&self) -> bool {
        false
    }

    /// The vCPU acknowledges: the vector, and the request moves into service. `None` hands the acknowledge on to
    /// the next controller (local APIC in virtual-wire mode to the 8259).
    fn acknowledge(&mut self, _cx: &mut DeviceCx<'_>) -> Option<u8> {
        None
    }

    /// RDMSR of a register that belongs to the device (local APIC). `None`: not mine, or #GP.
    fn msr_read(&mut self, _cx: &mut DeviceCx<'_>, _msr: u32) -> Option<u64> {
        None
    }

    /// WRMSR. `None`: not mine, or #GP.
    fn msr_write(&mut self, _cx: &mut DeviceCx<'_>, _msr: u32, _value: u64) -> Option<()> {
        None
    }

    /// The task priority for CR8 (local APIC).
    fn task_priority(&self) -> u8 {
        0
    }

    /// MOV to CR8 (local APIC).
    fn set_task_priority(&mut self, _cx: &mut DeviceCx<'_>, _priority: u8) {}
}
