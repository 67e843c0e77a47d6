//! The addresses of the user-mode network: those of QEMU's, so that what users know by heart is true here.
//!
//! Not responsible for: giving them out (`dhcp`).

use smoltcp::wire::EthernetAddress;
use std::net::Ipv4Addr;

/// The gateway. What is sent to its ports goes to the host's loopback.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
/// The DNS server.
pub const DNS: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 3);
/// The first guest.
pub const GUEST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
/// The network's mask.
pub const NETMASK: Ipv4Addr = Ipv4Addr::new(255, 255, 255, 0);
/// The network's prefix length.
pub(crate) const PREFIX: u8 = 24;
/// The gateway's hardware address: locally administered, and as recognizable as QEMU's.
pub const GATEWAY_MAC: EthernetAddress = EthernetAddress([0x52, 0x55, 10, 0, 2, 2]);

/// Whether an address is one that a guest of this network may have.
pub(crate) fn is_guest(address: Ipv4Addr) -> bool {
    is_local(address) && !matches!(address.octets()[3], 0 | 255) && !is_ours(address)
}

/// Whether an address belongs to the network.
pub(crate) fn is_local(address: Ipv4Addr) -> bool {
    address.octets()[..3] == GATEWAY.octets()[..3]
}

/// Whether the stack itself answers there.
pub(crate) fn is_ours(address: Ipv4Addr) -> bool {
    address == GATEWAY || address == DNS
}

/// Whether something that is sent there by a guest may go out of the network, or to the stack's own ports.
pub(crate) fn is_reachable(address: Ipv4Addr) -> bool {
    let nowhere = address.is_unspecified()
        || address.is_broadcast()
        || address.is_multicast()
        || address.is_loopback()
        || address.octets()[0] == 0;
    !nowhere && (is_ours(address) || !is_local(address))
}
