//! The wire between the stack and the guests, as the TCP implementation wants to see it.
//!
//! Not responsible for: what the frames are (`stack`).

use crate::MAX_FRAME;
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant;
use std::collections::VecDeque;

/// Frames that may wait to leave. A stack that finds no room waits; nothing is lost by it.
pub(crate) const OUT_FRAMES: usize = 256;

/// One frame in, at most, and a bounded queue out.
#[derive(Default)]
pub(crate) struct Link {
    arrived: Option<Vec<u8>>,
    out: VecDeque<Vec<u8>>,
}

impl Link {
    /// The next frame to be read.
    pub fn arrive(&mut self, frame: Vec<u8>) {
        self.arrived = Some(frame);
    }

    /// Puts a frame made elsewhere behind the others; without room it is lost, as datagrams are.
    pub fn push(&mut self, frame: Vec<u8>) {
        if self.out.len() < OUT_FRAMES {
            self.out.push_back(frame);
        }
    }

    /// The oldest frame that leaves.
    pub fn take(&mut self) -> Option<Vec<u8>> {
        self.out.pop_front()
    }

    /// Whether nothing waits to leave.
    pub fn is_empty(&self) -> bool {
        self.out.is_empty()
    }
}

pub(crate) struct Rx(Vec<u8>);
pub(crate) struct Tx<'a>(&'a mut VecDeque<Vec<u8>>);

impl RxToken for Rx {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl TxToken for Tx<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut frame = vec![0; len];
        let result = f(&mut frame);
        self.0.push_back(frame);
        result
    }
}

impl Device for Link {
    type RxToken<'a> = Rx;
    type TxToken<'a> = Tx<'a>;

    fn receive(&mut self, _now: Instant) -> Option<(Rx, Tx<'_>)> {
        // An answer may go beyond the bound, by one for each frame that was let in below it.
        let frame = self.arrived.take()?;
        (self.out.len() < OUT_FRAMES).then_some((Rx(frame), Tx(&mut self.out)))
    }

    fn transmit(&mut self, _now: Instant) -> Option<Tx<'_>> {
        (self.out.len() < OUT_FRAMES).then_some(Tx(&mut self.out))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = MAX_FRAME;
        capabilities
    }
}
