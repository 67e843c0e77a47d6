//! The DHCP server (RFC 2131): a guest gets the same address each time it asks.
//!
//! Not responsible for: frames (`datagram`).
//!
//! Leases last a day and are not written down. A gateway that starts anew gives a guest the address that it asks for, if that is
//! free, so guests keep theirs.

use crate::addresses::{DNS, GATEWAY, GUEST, NETMASK, is_guest};
use smoltcp::wire::{DhcpMessageType, DhcpPacket, DhcpRepr, EthernetAddress};
use std::net::Ipv4Addr;

/// Where a server listens.
pub(crate) const SERVER_PORT: u16 = 67;
/// Where a client does.
pub(crate) const CLIENT_PORT: u16 = 68;
/// Guests that can have a lease. More get no answer.
const MAX_LEASES: usize = 64;
/// A day, in seconds.
const LEASE: u32 = 86_400;

/// Who has which address.
#[derive(Default)]
pub(crate) struct Leases(Vec<(EthernetAddress, Ipv4Addr)>);

/// An answer to a client.
pub(crate) struct Reply {
    pub mac: EthernetAddress,
    pub to: Ipv4Addr,
    pub payload: Vec<u8>,
}

impl Leases {
    /// Answers what a client says, if that wants an answer.
    pub fn answer(&mut self, payload: &[u8]) -> Option<Reply> {
        let packet = DhcpPacket::new_checked(payload).ok()?;
        let asked = DhcpRepr::parse(&packet).ok()?;
        let mac = asked.client_hardware_address;
        let another = asked.server_identifier.is_some_and(|server| server != GATEWAY);
        if !mac.is_unicast() || another {
            return None;
        }
        let has = Some(asked.client_ip).filter(|ip| !ip.is_unspecified());
        let wanted = asked.requested_ip.or(has);
        let (kind, your_ip) = match asked.message_type {
            DhcpMessageType::Discover => (DhcpMessageType::Offer, self.lease(mac, wanted)?),
            DhcpMessageType::Request => {
                let ip = self.lease(mac, wanted)?;
                let fits = wanted.is_none_or(|wanted| wanted == ip);
                if fits { (DhcpMessageType::Ack, ip) } else { (DhcpMessageType::Nak, Ipv4Addr::UNSPECIFIED) }
            }
            DhcpMessageType::Inform => (DhcpMessageType::Ack, Ipv4Addr::UNSPECIFIED),
            _ => return None,
        };
        let refused = kind == DhcpMessageType::Nak;
        let granted = !refused && !your_ip.is_unspecified();
        let reply = DhcpRepr {
            message_type: kind,
            transaction_id: asked.transaction_id,
            secs: 0,
            client_hardware_address: mac,
            client_ip: if refused { Ipv4Addr::UNSPECIFIED } else { asked.client_ip },
            your_ip,
            server_ip: GATEWAY,
            router: (!refused).then_some(GATEWAY),
            subnet_mask: (!refused).then_some(NETMASK),
            relay_agent_ip: Ipv4Addr::UNSPECIFIED,
            broadcast: asked.broadcast,
            requested_ip: None,
            client_identifier: asked.client_identifier,
            server_identifier: Some(GATEWAY),
            parameter_request_list: None,
            dns_servers: (!refused).then(|| [DNS].into_iter().collect()),
            max_size: None,
            lease_duration: granted.then_some(LEASE),
            renew_duration: None,
            rebind_duration: None,
            additional_options: &[],
        };
        let mut payload = vec![0; reply.buffer_len()];
        reply.emit(&mut DhcpPacket::new_unchecked(&mut payload[..])).ok()?;
        // RFC 2131 4.1: to the address that the client has, else to where it listens without one.
        let to = has.filter(|_| !refused).unwrap_or(Ipv4Addr::BROADCAST);
        let mac = if asked.broadcast || refused { EthernetAddress::BROADCAST } else { mac };
        Some(Reply { mac, to, payload })
    }

    /// The address of a guest: the one it has, else the one it wants, else the first free one.
    fn lease(&mut self, mac: EthernetAddress, wanted: Option<Ipv4Addr>) -> Option<Ipv4Addr> {
        if let Some((_, ip)) = self.0.iter().find(|(of, _)| *of == mac) {
            return Some(*ip);
        }
        if self.0.len() >= MAX_LEASES {
            return None;
        }
        let first = GUEST.octets();
        let pool = (first[3]..255).map(|last| Ipv4Addr::new(first[0], first[1], first[2], last));
        let mut candidates = wanted.into_iter().filter(|ip| is_guest(*ip)).chain(pool);
        let ip = candidates.find(|ip| self.0.iter().all(|(_, taken)| taken != ip))?;
        self.0.push((mac, ip));
        Some(ip)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(kind: DhcpMessageType, mac: u8, wanted: Option<Ipv4Addr>) -> Vec<u8> {
        let repr = DhcpRepr {
            message_type: kind,
            transaction_id: 0x1234_5678,
            secs: 0,
            client_hardware_address: EthernetAddress([2, 0, 0, 0, 0, mac]),
            client_ip: Ipv4Addr::UNSPECIFIED,
            your_ip: Ipv4Addr::UNSPECIFIED,
            server_ip: Ipv4Addr::UNSPECIFIED,
            router: None,
            subnet_mask: None,
            relay_agent_ip: Ipv4Addr::UNSPECIFIED,
            broadcast: false,
            requested_ip: wanted,
            client_identifier: None,
            server_identifier: None,
            parameter_request_list: None,
            dns_servers: None,
            max_size: None,
            lease_duration: None,
            renew_duration: None,
            rebind_duration: None,
            additional_options: &[],
        };
        let mut payload = vec![0; repr.buffer_len()];
        repr.emit(&mut DhcpPacket::new_unchecked(&mut payload[..])).unwrap();
        payload
    }

    fn answered(leases: &mut Leases, payload: &[u8]) -> Option<(DhcpMessageType, Ipv4Addr)> {
        let reply = leases.answer(payload)?;
        let packet = DhcpPacket::new_checked(&reply.payload[..]).unwrap();
        let repr = DhcpRepr::parse(&packet).unwrap();
        assert_eq!(repr.transaction_id, 0x1234_5678);
        Some((repr.message_type, repr.your_ip))
    }

    #[test]
    fn a_guest_keeps_its_address_and_nobody_elses() {
        let mut leases = Leases::default();
        let (second, far) = (Ipv4Addr::new(10, 0, 2, 16), Ipv4Addr::new(10, 0, 2, 77));
        let offer = answered(&mut leases, &ask(DhcpMessageType::Discover, 1, None));
        assert_eq!(offer, Some((DhcpMessageType::Offer, GUEST)));
        let granted = answered(&mut leases, &ask(DhcpMessageType::Request, 1, Some(GUEST)));
        assert_eq!(granted, Some((DhcpMessageType::Ack, GUEST)));
        // Another that wants the same is refused and gets the next.
        let refused = answered(&mut leases, &ask(DhcpMessageType::Request, 2, Some(GUEST)));
        assert_eq!(refused, Some((DhcpMessageType::Nak, Ipv4Addr::UNSPECIFIED)));
        let offer = answered(&mut leases, &ask(DhcpMessageType::Discover, 2, None));
        assert_eq!(offer, Some((DhcpMessageType::Offer, second)));
        // One that had its address from an earlier server keeps it, but not the gateway's.
        let kept = answered(&mut leases, &ask(DhcpMessageType::Request, 3, Some(far)));
        assert_eq!(kept, Some((DhcpMessageType::Ack, far)));
        let refused = answered(&mut leases, &ask(DhcpMessageType::Request, 4, Some(GATEWAY)));
        assert_eq!(refused, Some((DhcpMessageType::Nak, Ipv4Addr::UNSPECIFIED)));
    }

    #[test]
    fn more_guests_than_leases_and_nonsense_get_no_answer() {
        let mut leases = Leases::default();
        for mac in 0..MAX_LEASES as u8 {
            assert!(leases.answer(&ask(DhcpMessageType::Discover, mac, None)).is_some());
        }
        assert!(leases.answer(&ask(DhcpMessageType::Discover, MAX_LEASES as u8, None)).is_none());
        let good = ask(DhcpMessageType::Discover, 1, None);
        for length in 0..good.len() {
            let _ = leases.answer(&good[..length]);
        }
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] = !bad[at];
            let _ = leases.answer(&bad);
        }
    }
}
