//! Virtio 1.x devices (Virtual I/O Device Version 1.2): the ring, the PCI transport, disks, and network interfaces.
//!
//! Not responsible for: legacy and transitional interfaces, which are not offered.

pub mod block;
pub mod net;
pub mod queue;
pub mod transport;

pub use block::Block;
pub use net::Net;
pub use queue::Queue;
pub use transport::VirtioPci;

use gemel_machine::{DeviceCx, DiskRequest, Input, Section, SectionError};
use queue::RingError;

/// The requests that disk number `disk` has in flight, from its saved state: whoever takes a restored machine over
/// issues them again. `None` for a state that is no disk's.
pub fn requests_in_flight(disk: u8, function: &Section) -> Option<Vec<DiskRequest>> {
    Block::requests(disk, &transport::device_state(function)?)
}

/// What a kind of device adds to the transport.
pub trait VirtioDevice: Send {
    /// The device type (chapter 5).
    const TYPE: u16;
    /// The PCI class that it shows.
    const CLASS: u32;
    /// How many queues it has.
    const QUEUES: u16;

    /// Feature bits of the type; the transport adds the ring's.
    fn features(&self) -> u64;

    /// The device configuration, as the type lays it out.
    fn config(&self) -> Vec<u8>;

    /// The driver has put something into a queue.
    ///
    /// # Errors
    /// [`RingError`] for a ring that breaks the rules: the device then needs a reset.
    fn notified(
        &mut self,
        cx: &mut DeviceCx<'_>,
        queues: &mut [Queue],
        index: usize,
    ) -> Result<(), RingError>;

    /// Something came in from the world. `driven`: a driver is there, and the device may use its rings unasked; what completes a
    /// request needs no more leave than the request was.
    ///
    /// # Errors
    /// As [`VirtioDevice::notified`].
    fn on_input(
        &mut self,
        cx: &mut DeviceCx<'_>,
        queues: &mut [Queue],
        input: Input,
        driven: bool,
    ) -> Result<(), RingError>;

    /// The driver or the system reset the device.
    fn reset(&mut self);

    /// The state of the type, in postcard form.
    fn save(&self) -> Vec<u8>;

    /// Takes a saved state on.
    ///
    /// # Errors
    /// [`SectionError::Damaged`]; the device is then unchanged.
    fn restore(&mut self, state: &[u8]) -> Result<(), SectionError>;
}
