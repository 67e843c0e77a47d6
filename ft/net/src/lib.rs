//! The user-mode network: a guest's frames on one side, the host's ordinary sockets on the other, and no privilege.
//!
//! Not responsible for: the guest's network card (`devices`), who delivers its frames in time (`ft/host`), or that they leave
//! once and in order from a machine that has moved (`ft/pair`).
//!
//! [`Stack`] is pure: frames, time and what sockets said go in, frames and requests come out; tests drive it without sockets.
//! [`Outside`] is the edge: it carries out the requests on the host's sockets. [`Network`] is a thread around it, and [`Switch`]
//! connects several guests with each other and with the stack.
//!
//! What a guest finds (the addresses are QEMU's): itself at 10.0.2.15 by DHCP, a gateway at 10.0.2.2 that answers pings and
//! whose ports are the host's own loopback's, a DNS server at 10.0.2.3 that forwards to the host's resolver, and TCP and UDP to
//! wherever the host can reach.

mod addresses;
mod datagram;
mod dhcp;
mod dns;
mod error;
mod flows;
mod forward;
mod link;
mod network;
mod outside;
mod proxy;
mod stack;
mod switch;

pub use addresses::{DNS, GATEWAY, GATEWAY_MAC, GUEST, NETMASK};
pub use dns::host_resolver;
pub use error::NetError;
pub use flows::{FlowId, MAX_FLOWS, Standing};
pub use forward::Forward;
pub use network::{Config, Network};
pub use outside::{Outside, now};
pub use stack::{Request, Stack};
pub use switch::{Switch, To};

/// The longest frame: Ethernet's header and an MTU of 1500 bytes, without a checksum.
pub const MAX_FRAME: usize = 1514;
