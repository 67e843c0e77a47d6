//! A guest: another TCP/IP stack with a client and a server on it, and a wire that loses and reorders.

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::{dhcpv4, icmp, tcp, udp};
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, IpCidr, Ipv4Cidr};
use std::collections::VecDeque;
use std::net::Ipv4Addr;

/// xorshift64*: the same wire for the same seed.
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.roll() % n
    }
}

/// Frames under way in one direction, with the time at which each arrives.
pub struct Wire {
    dice: Dice,
    /// One in so many is lost; 0: none.
    lost: u64,
    /// The longest way, ns. Frames overtake each other.
    jitter: u64,
    frames: Vec<(u64, Vec<u8>)>,
}

impl Wire {
    pub fn new(seed: u64, lost: u64, jitter: u64) -> Self {
        Self { dice: Dice(seed | 1), lost, jitter, frames: Vec::new() }
    }

    pub fn send(&mut self, now: u64, frame: Vec<u8>) {
        if self.lost == 0 || self.dice.below(self.lost) != 0 {
            let delay = if self.jitter == 0 { 0 } else { self.dice.below(self.jitter) };
            self.frames.push((now + delay, frame));
        }
    }

    pub fn arrived(&mut self, now: u64) -> Vec<Vec<u8>> {
        let (mut here, under_way): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.frames).into_iter().partition(|(at, _)| *at <= now);
        self.frames = under_way;
        here.sort_by_key(|(at, _)| *at);
        here.into_iter().map(|(_, frame)| frame).collect()
    }

    pub fn next(&self) -> Option<u64> {
        self.frames.iter().map(|(at, _)| *at).min()
    }
}

#[derive(Default)]
struct Card {
    arrived: VecDeque<Vec<u8>>,
    out: VecDeque<Vec<u8>>,
}

struct Rx(Vec<u8>);
struct Tx<'a>(&'a mut VecDeque<Vec<u8>>);

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

impl Device for Card {
    type RxToken<'a> = Rx;
    type TxToken<'a> = Tx<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Rx, Tx<'_>)> {
        Some((Rx(self.arrived.pop_front()?), Tx(&mut self.out)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Tx<'_>> {
        Some(Tx(&mut self.out))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = 1514;
        capabilities
    }
}

pub struct Guest {
    pub interface: Interface,
    pub sockets: SocketSet<'static>,
    card: Card,
    dhcp: SocketHandle,
    pub dns: Option<Ipv4Addr>,
}

impl Guest {
    pub fn new(mac: u8) -> Self {
        let mut card = Card::default();
        let mut config = Config::new(EthernetAddress([2, 0, 0, 0, 0, mac]).into());
        config.random_seed = 0x1234;
        let interface = Interface::new(config, &mut card, Instant::ZERO);
        let mut sockets = SocketSet::new(Vec::new());
        let dhcp = sockets.add(dhcpv4::Socket::new());
        Self { interface, sockets, card, dhcp, dns: None }
    }

    pub fn poll(&mut self, now: u64) {
        let now = Instant::from_micros(now as i64 / 1000);
        self.interface.poll(now, &mut self.card, &mut self.sockets);
        match self.sockets.get_mut::<dhcpv4::Socket>(self.dhcp).poll() {
            Some(dhcpv4::Event::Configured(config)) => {
                let cidr = IpCidr::Ipv4(config.address);
                self.interface.update_ip_addrs(|a| {
                    a.clear();
                    a.push(cidr).unwrap();
                });
                let router = config.router.unwrap();
                self.interface.routes_mut().add_default_ipv4_route(router).unwrap();
                self.dns = config.dns_servers.first().copied();
            }
            Some(dhcpv4::Event::Deconfigured) => self.interface.update_ip_addrs(|a| a.clear()),
            None => {}
        }
    }

    /// When it has to be polled at the latest.
    pub fn poll_at(&mut self, now: u64) -> Option<u64> {
        let at = self.interface.poll_at(Instant::from_micros(now as i64 / 1000), &self.sockets)?;
        Some(at.total_micros().max(0) as u64 * 1000)
    }

    pub fn receive(&mut self, frame: Vec<u8>) {
        self.card.arrived.push_back(frame);
    }

    pub fn take(&mut self) -> Option<Vec<u8>> {
        self.card.out.pop_front()
    }

    pub fn address(&self) -> Option<Ipv4Cidr> {
        self.interface.ip_addrs().first().map(|IpCidr::Ipv4(cidr)| *cidr)
    }

    pub fn add_tcp(&mut self) -> SocketHandle {
        let buffer = || tcp::SocketBuffer::new(vec![0; 32 << 10]);
        self.sockets.add(tcp::Socket::new(buffer(), buffer()))
    }

    pub fn add_udp(&mut self, port: u16) -> SocketHandle {
        let buffer = || udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; 16], vec![0; 16 << 10]);
        let mut socket = udp::Socket::new(buffer(), buffer());
        socket.bind(port).unwrap();
        self.sockets.add(socket)
    }

    pub fn add_icmp(&mut self, ident: u16) -> SocketHandle {
        let buffer = || icmp::PacketBuffer::new(vec![icmp::PacketMetadata::EMPTY; 4], vec![0; 4096]);
        let mut socket = icmp::Socket::new(buffer(), buffer());
        socket.bind(icmp::Endpoint::Ident(ident)).unwrap();
        self.sockets.add(socket)
    }

    pub fn connect(&mut self, socket: SocketHandle, to: (Ipv4Addr, u16), port: u16) {
        self.sockets.get_mut::<tcp::Socket>(socket).connect(self.interface.context(), to, port).unwrap();
    }

    pub fn tcp(&mut self, socket: SocketHandle) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(socket)
    }
}
