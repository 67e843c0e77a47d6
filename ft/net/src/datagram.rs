//! UDP in IPv4 in Ethernet: taking apart what a guest sends, putting together what it gets.
//!
//! Not responsible for: where datagrams go (`stack`, `outside`).

use crate::MAX_FRAME;
use crate::addresses::GATEWAY_MAC;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    EthernetAddress, EthernetFrame, EthernetProtocol, IpProtocol, Ipv4Packet, Ipv4Repr, UdpPacket, UdpRepr,
};
use std::net::SocketAddrV4;

/// Ethernet's header.
const ETHERNET: usize = 14;
/// The longest payload of a datagram that fits into a frame. Longer ones are lost: this network does not make fragments.
pub(crate) const MAX_PAYLOAD: usize = MAX_FRAME - ETHERNET - 20 - 8;

/// A datagram that a guest sent.
pub(crate) struct Datagram<'a> {
    pub from: SocketAddrV4,
    pub to: SocketAddrV4,
    pub payload: &'a [u8],
}

impl<'a> Datagram<'a> {
    /// The datagram in an IPv4 packet, if it is one and whole.
    pub fn parse(packet: &Ipv4Packet<&'a [u8]>) -> Option<Self> {
        let (src, dst) = (packet.src_addr(), packet.dst_addr());
        let udp = UdpPacket::new_checked(packet.payload()).ok()?;
        let repr = UdpRepr::parse(&udp, &src.into(), &dst.into(), &ChecksumCapabilities::default()).ok()?;
        Some(Self {
            from: SocketAddrV4::new(src, repr.src_port),
            to: SocketAddrV4::new(dst, repr.dst_port),
            payload: udp.payload(),
        })
    }
}

/// A frame with a datagram, from the gateway's hardware address; `None` when it does not fit.
pub(crate) fn frame(
    mac: EthernetAddress,
    from: SocketAddrV4,
    to: SocketAddrV4,
    payload: &[u8],
) -> Option<Vec<u8>> {
    if payload.len() > MAX_PAYLOAD {
        return None;
    }
    let checksums = ChecksumCapabilities::default();
    let udp = UdpRepr { src_port: from.port(), dst_port: to.port() };
    let ip = Ipv4Repr {
        src_addr: *from.ip(),
        dst_addr: *to.ip(),
        next_header: IpProtocol::Udp,
        payload_len: udp.header_len() + payload.len(),
        hop_limit: 64,
    };
    let mut bytes = vec![0; ETHERNET + ip.buffer_len() + ip.payload_len];
    let mut ethernet = EthernetFrame::new_unchecked(&mut bytes[..]);
    ethernet.set_src_addr(GATEWAY_MAC);
    ethernet.set_dst_addr(mac);
    ethernet.set_ethertype(EthernetProtocol::Ipv4);
    let mut packet = Ipv4Packet::new_unchecked(ethernet.payload_mut());
    ip.emit(&mut packet, &checksums);
    udp.emit(
        &mut UdpPacket::new_unchecked(packet.payload_mut()),
        &(*from.ip()).into(),
        &(*to.ip()).into(),
        payload.len(),
        |buffer| buffer.copy_from_slice(payload),
        &checksums,
    );
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_together_can_be_taken_apart() {
        let (from, to) = ("10.0.2.3:53".parse().unwrap(), "10.0.2.15:5000".parse().unwrap());
        for length in [0, 1, MAX_PAYLOAD] {
            let payload: Vec<u8> = (0..length).map(|i| i as u8).collect();
            let bytes = frame(EthernetAddress([2; 6]), from, to, &payload).unwrap();
            assert!(bytes.len() <= MAX_FRAME);
            let ethernet = EthernetFrame::new_checked(&bytes[..]).unwrap();
            let packet = Ipv4Packet::new_checked(ethernet.payload()).unwrap();
            assert!(packet.verify_checksum());
            let datagram = Datagram::parse(&packet).unwrap();
            assert_eq!((datagram.from, datagram.to, datagram.payload), (from, to, &payload[..]));
        }
        assert!(frame(EthernetAddress([2; 6]), from, to, &[0; MAX_PAYLOAD + 1]).is_none());
    }

    /// The checksum is over words of the pseudo header, header and payload (RFC 768), worked out by hand.
    #[test]
    fn a_damaged_datagram_is_none() {
        let (from, to) = ("10.0.2.3:53".parse().unwrap(), "10.0.2.15:5000".parse().unwrap());
        let mut bytes = frame(EthernetAddress([2; 6]), from, to, b"ab").unwrap();
        // 0a00+0203+0a00+020f + 0011+000a + 0035+1388+000a + 6162 = 8d56; its complement:
        assert_eq!(bytes[40..42], [0x72, 0xa9]);
        bytes[43] ^= 1;
        let ethernet = EthernetFrame::new_checked(&bytes[..]).unwrap();
        assert!(Datagram::parse(&Ipv4Packet::new_checked(ethernet.payload()).unwrap()).is_none());
    }
}
