//! What a machine's network interfaces are connected to: what `--net` names.
//!
//! Not responsible for: the card (`devices/virtio`), when a frame reaches the guest (`inputs`), the user-mode network and the
//! pair's gateway, which are backends from elsewhere.
//!
//! A frame has addresses, type and payload, and no checksum. A backend that has no room for one loses it, as a wire does.

mod announce;
mod spec;
mod stream;
mod tap;

pub use spec::{NetKind, NetSpec};

use crate::error::HostError;
use crate::inbox::{Inbox, Source};
use gemel_machine::NicSpec;
use std::sync::Arc;

/// The longest frame: an MTU of 1500 bytes behind addresses, type, and one VLAN tag.
pub const LONGEST: usize = 1518;

/// The other end of an interface. The machine's thread calls it, so nothing here waits.
pub trait Backend: Send {
    /// A frame leaves the guest.
    fn send(&mut self, frame: Vec<u8>);

    /// There is room for frames again after [`Port::offer`] found none.
    fn room(&mut self) {}

    /// The machine goes on here that another host had: whoever sends to `mac` must learn where it is now.
    fn went_live(&mut self, _mac: [u8; 6]) {}
}

/// Where a backend leaves the frames that come in for one interface.
#[derive(Clone)]
pub struct Port {
    inbox: Arc<Inbox>,
    nic: u8,
    /// A guest may sleep until a frame comes.
    _source: Arc<Source>,
}

impl Port {
    /// The way into an interface.
    pub fn new(inbox: &Arc<Inbox>, nic: u8) -> Self {
        Self { inbox: Arc::clone(inbox), nic, _source: Arc::new(inbox.source()) }
    }

    /// Hands a frame over. Waits while too many wait already; `false` when the run is over.
    pub fn deliver(&self, frame: Vec<u8>) -> bool {
        self.inbox.frame(self.nic, frame)
    }

    /// Hands a frame over if there is room: it is then taken out of its place. Otherwise [`Backend::room`] says when to
    /// offer it again.
    pub fn offer(&self, frame: &mut Option<Vec<u8>>) {
        self.inbox.offer_frame(self.nic, frame, None);
    }

    /// The same for a sender that numbers its frames: the number is [`gemel_machine::World::input_number`] where it arrives.
    pub fn offer_numbered(&self, frame: &mut Option<Vec<u8>>, number: u64) {
        self.inbox.offer_frame(self.nic, frame, Some(number));
    }
}

/// The backends of a machine's interfaces, in order.
#[derive(Default)]
pub struct Nics(Vec<Box<dyn Backend>>);

impl Nics {
    /// Interfaces with these backends.
    pub fn new(backends: Vec<Box<dyn Backend>>) -> Self {
        Self(backends)
    }

    /// A frame leaves an interface; without a backend it is lost.
    pub fn send(&mut self, nic: u8, frame: Vec<u8>) {
        if let Some(backend) = self.0.get_mut(usize::from(nic)) {
            backend.send(frame);
        }
    }

    pub(crate) fn room(&mut self) {
        self.0.iter_mut().for_each(|backend| backend.room());
    }

    /// The machine with these interfaces goes on here: tells the networks where it is now.
    pub fn went_live(&mut self, nics: &[NicSpec]) {
        for (backend, nic) in self.0.iter_mut().zip(nics) {
            backend.went_live(nic.mac);
        }
    }
}

impl NetSpec {
    /// Connects interface number `nic`. `None` for a backend that is not of this crate ([`NetKind::User`],
    /// [`NetKind::Gateway`]).
    ///
    /// # Errors
    /// [`HostError`] when the interface or the address cannot be had.
    pub fn open(&self, nic: u8, inbox: &Arc<Inbox>) -> Result<Option<Box<dyn Backend>>, HostError> {
        Ok(match &self.kind {
            NetKind::Tap { ifname } => Some(Box::new(tap::Tap::open(ifname, Port::new(inbox, nic))?)),
            NetKind::Stream { address, server } => {
                Some(Box::new(stream::Stream::open(address, *server, Port::new(inbox, nic))?))
            }
            NetKind::User { .. } | NetKind::Gateway => None,
        })
    }
}
