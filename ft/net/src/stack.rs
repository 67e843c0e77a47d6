//! The network's stack: frames of guests, time, and what the host's sockets said go in; frames and requests come out.
//!
//! Not responsible for: sockets and clocks (`outside`), several guests on one wire (`switch`).
//!
//! Whatever a guest sends is looked at here first. To the TCP implementation goes only what it is meant for: ARP and pings for the
//! stack's own addresses, and TCP segments that are whole, from an address of the network to one outside of it. Everything else
//! is answered here (DHCP), handed out (UDP), or dropped: IPv6, fragments, other protocols.

use crate::MAX_FRAME;
use crate::addresses::{GATEWAY, GATEWAY_MAC, PREFIX, is_guest, is_ours, is_reachable};
use crate::datagram::{self, Datagram};
use crate::dhcp::{CLIENT_PORT, Leases, SERVER_PORT};
use crate::flows::{FlowId, Flows, Standing};
use crate::link::{Link, OUT_FRAMES};
use smoltcp::iface::{Config, Interface, PollResult};
use smoltcp::time::Instant;
use smoltcp::wire::{
    ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol, IpCidr, IpProtocol, Ipv4Packet,
    TcpPacket,
};
use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddrV4};

/// Requests that may wait to be carried out; datagrams beyond are lost.
const MAX_REQUESTS: usize = 1024;

/// What the stack wants of the outside.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Request {
    /// Connect for a guest, then [`Stack::accept`] or [`Stack::refuse`].
    Connect {
        /// The connection.
        flow: FlowId,
        /// Where to.
        to: SocketAddrV4,
    },
    /// Send a datagram for a guest; answers come by [`Stack::datagram`].
    Datagram {
        /// The guest's end.
        from: SocketAddrV4,
        /// Where to.
        to: SocketAddrV4,
        /// What it says.
        payload: Vec<u8>,
    },
}

/// The stack. Times are nanoseconds of any clock that does not go back.
pub struct Stack {
    interface: Interface,
    link: Link,
    flows: Flows,
    leases: Leases,
    /// Hardware addresses of guests, by the last byte of their address.
    neighbors: Box<[Option<EthernetAddress>; 256]>,
    requests: VecDeque<Request>,
}

fn instant(now: u64) -> Instant {
    Instant::from_micros(i64::try_from(now / 1000).unwrap_or(i64::MAX))
}

impl Stack {
    /// A stack that knows nobody. `seed` is for sequence numbers, which nobody should guess.
    pub fn new(seed: u64) -> Self {
        let mut link = Link::default();
        let mut config = Config::new(GATEWAY_MAC.into());
        config.random_seed = seed;
        let mut interface = Interface::new(config, &mut link, Instant::ZERO);
        interface.update_ip_addrs(|addresses| {
            // Of several it has room for two at least.
            let _ = addresses.push(IpCidr::new(GATEWAY.into(), PREFIX));
        });
        // It speaks for everybody outside; what it is asked for is decided here.
        interface.set_any_ip(true);
        Self {
            interface,
            link,
            flows: Flows::new(),
            leases: Leases::default(),
            neighbors: Box::new([None; 256]),
            requests: VecDeque::new(),
        }
    }

    /// A guest sent this frame.
    pub fn receive(&mut self, now: u64, frame: &[u8]) {
        if frame.len() > MAX_FRAME {
            return;
        }
        let Ok(ethernet) = EthernetFrame::new_checked(frame) else { return };
        let mac = ethernet.src_addr();
        let to_us = ethernet.dst_addr() == GATEWAY_MAC || ethernet.dst_addr().is_broadcast();
        if !mac.is_unicast() || mac == GATEWAY_MAC || !to_us {
            return;
        }
        match ethernet.ethertype() {
            EthernetProtocol::Arp => self.arp(now, &ethernet),
            EthernetProtocol::Ipv4 => {
                if let Ok(packet) = Ipv4Packet::new_checked(ethernet.payload()) {
                    self.ipv4(now, mac, &packet, frame);
                }
            }
            _ => {}
        }
    }

    /// ARP for the stack's own addresses only: it must not answer where a guest probes for its own.
    fn arp(&mut self, now: u64, frame: &EthernetFrame<&[u8]>) {
        let arp = ArpPacket::new_checked(frame.payload()).and_then(|packet| ArpRepr::parse(&packet));
        let Ok(ArpRepr::EthernetIpv4 {
            source_hardware_addr,
            source_protocol_addr,
            target_protocol_addr,
            ..
        }) = arp
        else {
            return;
        };
        if source_hardware_addr == frame.src_addr() && is_guest(source_protocol_addr) {
            self.learn(source_protocol_addr, source_hardware_addr);
            if is_ours(target_protocol_addr) {
                self.feed(now, frame.as_ref().to_vec());
            }
        }
    }

    fn learn(&mut self, address: Ipv4Addr, mac: EthernetAddress) {
        self.neighbors[usize::from(address.octets()[3])] = Some(mac);
    }

    fn ipv4(&mut self, now: u64, mac: EthernetAddress, packet: &Ipv4Packet<&[u8]>, frame: &[u8]) {
        let (from, to) = (packet.src_addr(), packet.dst_addr());
        let whole = packet.version() == 4
            && packet.verify_checksum()
            && !packet.more_frags()
            && packet.frag_offset() == 0;
        if !whole || !(is_guest(from) || from.is_unspecified()) {
            return;
        }
        if packet.next_header() == IpProtocol::Udp {
            if let Some(datagram) = Datagram::parse(packet) {
                self.udp(mac, &datagram);
            }
            return;
        }
        if !is_guest(from) || !is_reachable(to) {
            return;
        }
        self.learn(from, mac);
        match packet.next_header() {
            IpProtocol::Icmp if is_ours(to) => self.feed(now, frame.to_vec()),
            IpProtocol::Tcp => self.tcp(now, packet, frame),
            _ => {}
        }
    }

    fn udp(&mut self, mac: EthernetAddress, datagram: &Datagram<'_>) {
        let Datagram { from, to, payload } = *datagram;
        if to.port() == SERVER_PORT && (to.ip().is_broadcast() || is_ours(*to.ip())) {
            if let Some(reply) = self.leases.answer(payload) {
                let from = SocketAddrV4::new(GATEWAY, SERVER_PORT);
                let to = SocketAddrV4::new(reply.to, CLIENT_PORT);
                datagram::frame(reply.mac, from, to, &reply.payload)
                    .into_iter()
                    .for_each(|f| self.link.push(f));
            }
        } else if is_guest(*from.ip()) && is_reachable(*to.ip()) && self.requests.len() < MAX_REQUESTS {
            self.learn(*from.ip(), mac);
            self.requests.push_back(Request::Datagram { from, to, payload: payload.to_vec() });
        }
    }

    fn tcp(&mut self, now: u64, packet: &Ipv4Packet<&[u8]>, frame: &[u8]) {
        let (from, to) = (packet.src_addr(), packet.dst_addr());
        let Ok(segment) = TcpPacket::new_checked(packet.payload()) else { return };
        if !segment.verify_checksum(&from.into(), &to.into())
            || segment.src_port() == 0
            || segment.dst_port() == 0
        {
            return;
        }
        let ends = (SocketAddrV4::new(from, segment.src_port()), SocketAddrV4::new(to, segment.dst_port()));
        if self.flows.is_opening(ends) {
            return;
        }
        let begins = segment.syn() && !segment.ack() && !segment.rst();
        let room = self.requests.len() < MAX_REQUESTS;
        let flow = (begins && room && self.flows.is_new(ends)).then(|| self.flows.open_later(ends, frame));
        match flow.flatten() {
            Some(flow) => self.requests.push_back(Request::Connect { flow, to: ends.1 }),
            None => self.feed(now, frame.to_vec()),
        }
    }

    /// Hands a frame to the TCP implementation. A segment of no connection gets a reset.
    fn feed(&mut self, now: u64, frame: Vec<u8>) {
        self.link.arrive(frame);
        self.interface.poll_ingress_single(instant(now), &mut self.link, self.flows.sockets());
        self.flows.sweep(now);
    }

    /// Lets pass what time and the calls since have made due. To be called after them, and when [`Stack::poll_at`] says.
    pub fn poll(&mut self, now: u64) {
        // A pass sends one segment of each connection; the link has room for so many.
        for _ in 0..=OUT_FRAMES {
            let sent = self.interface.poll_egress(instant(now), &mut self.link, self.flows.sockets());
            if sent == PollResult::None {
                break;
            }
        }
        self.flows.sweep(now);
    }

    /// When to call [`Stack::poll`] at the latest, if nothing else happens.
    pub fn poll_at(&mut self, now: u64) -> Option<u64> {
        let at = self.interface.poll_at(instant(now), self.flows.sockets())?;
        Some(u64::try_from(at.total_micros()).unwrap_or(0).saturating_mul(1000))
    }

    /// The next frame for a guest. Frames wait here; while many do, connections wait and datagrams are lost.
    pub fn take_frame(&mut self) -> Option<Vec<u8>> {
        self.link.take()
    }

    /// Whether frames wait for [`Stack::take_frame`].
    pub fn has_frames(&self) -> bool {
        !self.link.is_empty()
    }

    /// The next thing that the outside should do.
    pub fn take_request(&mut self) -> Option<Request> {
        self.requests.pop_front()
    }

    /// A datagram for a guest. One that nobody has heard of yet, or too long for a frame, is lost.
    pub fn datagram(&mut self, from: SocketAddrV4, to: SocketAddrV4, payload: &[u8]) {
        let mac = self.neighbors[usize::from(to.ip().octets()[3])].filter(|_| is_guest(*to.ip()));
        let frame = mac.and_then(|mac| datagram::frame(mac, from, to, payload));
        frame.into_iter().for_each(|frame| self.link.push(frame));
    }

    /// The host is connected for this one: the guest hears so.
    pub fn accept(&mut self, now: u64, flow: FlowId) {
        if let Some(syn) = self.flows.accept(now, flow) {
            self.feed(now, syn);
        }
    }

    /// The host cannot connect: the guest is refused.
    pub fn refuse(&mut self, now: u64, flow: FlowId) {
        if let Some(syn) = self.flows.refuse(flow) {
            self.feed(now, syn);
        }
    }

    /// Connects to a guest, as from the gateway; `None` when there are too many connections.
    pub fn connect(&mut self, guest: SocketAddrV4) -> Option<FlowId> {
        self.flows.connect(self.interface.context(), guest)
    }

    /// How a connection stands.
    pub fn standing(&mut self, flow: FlowId) -> Standing {
        self.flows.standing(flow)
    }

    /// Hands a piece of what the guest said to `f`, which says how much of it it took. Returns that.
    pub fn read(&mut self, flow: FlowId, f: impl FnOnce(&[u8]) -> usize) -> usize {
        self.flows.read(flow, f)
    }

    /// Says something to the guest; returns how much there was room for.
    pub fn write(&mut self, flow: FlowId, bytes: &[u8]) -> usize {
        self.flows.write(flow, bytes)
    }

    /// Nothing more will be said to the guest.
    pub fn finish(&mut self, flow: FlowId) {
        self.flows.finish(flow);
    }

    /// Breaks a connection: the guest gets a reset.
    pub fn abort(&mut self, flow: FlowId) {
        self.flows.abort(flow);
    }

    /// Connections there are, those included that only linger.
    pub fn connections(&self) -> usize {
        self.flows.len()
    }
}
