//! The network with the host's own sockets: a guest resolves, fetches, is reached, and pings.

use crate::guest::{Guest, Wire};
use gemel_net::{Config, DNS, GATEWAY, Outside};
use rustix::event::{EventfdFlags, eventfd};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::socket::{icmp, tcp, udp};
use smoltcp::wire::{Icmpv4Packet, Icmpv4Repr, IpEndpoint};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant};

struct Net {
    begun: Instant,
    guest: Guest,
    outside: Outside,
    there: Wire,
    back: Wire,
    /// Always ready: the test polls.
    ready: std::os::fd::OwnedFd,
}

impl Net {
    fn new(config: &Config) -> Self {
        Self {
            begun: Instant::now(),
            guest: Guest::new(1),
            outside: Outside::new(config).unwrap(),
            there: Wire::new(1, 0, 0),
            back: Wire::new(2, 0, 0),
            ready: eventfd(1, EventfdFlags::NONBLOCK).unwrap(),
        }
    }

    fn until(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        while !done(self) {
            assert!(self.begun.elapsed() < Duration::from_secs(60), "{what}: not within a minute");
            let now = self.begun.elapsed().as_nanos() as u64;
            self.guest.poll(now);
            while let Some(frame) = self.guest.take() {
                self.there.send(now, frame);
            }
            for frame in self.there.arrived(now) {
                self.outside.stack.receive(gemel_net::now(), &frame);
            }
            self.outside.wait(self.ready.as_fd()).unwrap();
            while let Some(frame) = self.outside.stack.take_frame() {
                self.back.send(now, frame);
            }
            for frame in self.back.arrived(now) {
                self.guest.receive(frame);
            }
            thread::sleep(Duration::from_micros(100));
        }
    }

    fn address(&mut self) {
        self.until("address", |net| net.guest.address().is_some());
    }

    /// From here on the wire loses and reorders.
    fn spoil(&mut self) {
        self.there = Wire::new(1, 5, 1_000_000);
        self.back = Wire::new(2, 5, 1_000_000);
    }

    /// Asks the DNS server and returns its answer.
    fn ask(&mut self, query: &[u8]) -> Vec<u8> {
        let socket = self.guest.add_udp(5000);
        let mut answer = None;
        let mut asked: Option<Instant> = None;
        self.until("answer", |net| {
            let udp = net.guest.sockets.get_mut::<udp::Socket>(socket);
            if asked.is_none_or(|at| at.elapsed() > Duration::from_millis(500)) {
                asked = Some(Instant::now());
                udp.send_slice(query, IpEndpoint::new(DNS.into(), 53)).unwrap();
            }
            answer = udp.recv().ok().map(|(bytes, from)| {
                assert_eq!(from.endpoint, IpEndpoint::new(DNS.into(), 53));
                bytes.to_vec()
            });
            answer.is_some()
        });
        self.guest.sockets.remove(socket);
        answer.unwrap()
    }
}

const QUERY: &[u8] = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x02ab\x00\x00\x01\x00\x01";

#[test]
fn questions_go_to_the_resolver_and_fail_where_there_is_none() {
    let resolver = UdpSocket::bind("127.0.0.1:0").unwrap();
    let SocketAddr::V4(address) = resolver.local_addr().unwrap() else { unreachable!() };
    thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((length, from)) = resolver.recv_from(&mut buffer) {
            let mut answer = buffer[..length].to_vec();
            answer[2] |= 0x80;
            answer.extend_from_slice(b"the answer");
            resolver.send_to(&answer, from).unwrap();
        }
    });
    let mut net = Net::new(&Config { resolver: Some(address), ..Config::default() });
    net.address();
    net.spoil();
    let answer = net.ask(QUERY);
    assert!(answer.starts_with(b"\x12\x34\x81") && answer.ends_with(b"the answer"), "{answer:x?}");

    let mut net = Net::new(&Config::default());
    net.address();
    net.spoil();
    assert_eq!(net.ask(QUERY)[3] & 15, 2, "server failure");
}

#[test]
fn a_guest_fetches_from_the_hosts_loopback_and_learns_of_its_end() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port();
    let content: Vec<u8> = (0..300_000u32).map(|i| (i % 251) as u8).collect();
    let served = content.clone();
    let serving = thread::spawn(move || {
        let (mut client, _) = server.accept().unwrap();
        let mut request = [0; 4];
        client.read_exact(&mut request).unwrap();
        assert_eq!(&request, b"GET\n");
        client.write_all(&served).unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).unwrap();
        rest
    });
    let mut net = Net::new(&Config::default());
    net.address();
    let socket = net.guest.add_tcp();
    net.guest.connect(socket, (GATEWAY, port), 40000);
    let (mut asked, mut got) = (false, Vec::new());
    net.until("content", |net| {
        let guest = net.guest.tcp(socket);
        if guest.can_send() && !asked {
            asked = guest.send_slice(b"GET\n").unwrap() == 4;
        }
        while guest.can_recv() {
            guest.recv(|bytes| (bytes.len(), got.extend_from_slice(bytes))).unwrap();
        }
        guest.state() == tcp::State::CloseWait
    });
    assert!(got == content, "other bytes");
    net.guest.tcp(socket).send_slice(b"bye").unwrap();
    net.guest.tcp(socket).close();
    net.until("end", |net| !net.guest.tcp(socket).is_open() && serving.is_finished());
    assert_eq!(serving.join().unwrap(), b"bye", "what the guest said after the other end had finished");

    // Where nobody listens the guest is refused.
    let socket = net.guest.add_tcp();
    net.guest.connect(socket, (GATEWAY, port), 40001);
    net.until("refusal", |net| net.guest.tcp(socket).state() == tcp::State::Closed);
}

#[test]
fn a_forward_leads_to_the_guest_and_many_clients_are_served() {
    let forwards = vec!["tcp:127.0.0.1:0-:7".parse().unwrap()];
    let mut net = Net::new(&Config { forwards, ..Config::default() });
    let address = net.outside.listens_on()[0];
    net.address();
    let servers: Vec<_> = (0..8).map(|_| net.guest.add_tcp()).collect();
    for server in &servers {
        net.guest.tcp(*server).listen(7).unwrap();
    }
    let clients: Vec<_> = (0..8u8)
        .map(|i| {
            thread::spawn(move || {
                let mut stream = TcpStream::connect(address).unwrap();
                let sent = vec![i; 20_000];
                let mut heard = vec![0; sent.len()];
                stream.write_all(&sent).unwrap();
                stream.read_exact(&mut heard).unwrap();
                assert_eq!(heard, sent);
                stream.shutdown(std::net::Shutdown::Write).unwrap();
                assert_eq!(stream.read(&mut heard).unwrap(), 0, "the guest's end");
            })
        })
        .collect();
    net.until("echo", |net| {
        for server in &servers {
            let socket = net.guest.tcp(*server);
            while socket.can_recv() && socket.can_send() {
                let room = socket.send_capacity() - socket.send_queue();
                let mut piece = Vec::new();
                socket
                    .recv(|bytes| {
                        piece = bytes[..bytes.len().min(room)].to_vec();
                        (piece.len(), ())
                    })
                    .unwrap();
                socket.send_slice(&piece).unwrap();
            }
            if socket.state() == tcp::State::CloseWait && !socket.can_recv() {
                socket.close();
            }
        }
        clients.iter().all(|client| client.is_finished())
    });
    clients.into_iter().for_each(|client| client.join().unwrap());
}

#[test]
fn datagrams_go_out_and_come_back_and_the_gateway_answers_pings() {
    let echo = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = echo.local_addr().unwrap().port();
    thread::spawn(move || {
        let mut buffer = [0; 2000];
        while let Ok((length, from)) = echo.recv_from(&mut buffer) {
            echo.send_to(&buffer[..length], from).unwrap();
        }
    });
    let mut net = Net::new(&Config::default());
    net.address();
    let socket = net.guest.add_udp(6000);
    let there = IpEndpoint::new(GATEWAY.into(), port);
    net.guest.sockets.get_mut::<udp::Socket>(socket).send_slice(&[7; 1400], there).unwrap();
    net.until("datagram", |net| {
        let udp = net.guest.sockets.get_mut::<udp::Socket>(socket);
        udp.recv().is_ok_and(|(bytes, from)| {
            assert_eq!((bytes, from.endpoint), (&[7; 1400][..], there));
            true
        })
    });

    let socket = net.guest.add_icmp(0x22b);
    let nobody = Ipv4Addr::new(10, 0, 2, 99);
    for to in [GATEWAY, DNS, nobody] {
        let request = Icmpv4Repr::EchoRequest { ident: 0x22b, seq_no: to.octets()[3].into(), data: b"ping" };
        let icmp = net.guest.sockets.get_mut::<icmp::Socket>(socket);
        let payload = icmp.send(request.buffer_len(), to.into()).unwrap();
        request.emit(&mut Icmpv4Packet::new_unchecked(payload), &ChecksumCapabilities::default());
    }
    let mut answers = Vec::new();
    let patience = Instant::now();
    net.until("pings", |net| {
        let icmp = net.guest.sockets.get_mut::<icmp::Socket>(socket);
        if let Ok((payload, from)) = icmp.recv() {
            let packet = Icmpv4Packet::new_checked(payload).unwrap();
            assert_eq!(packet.data(), b"ping");
            answers.push(from);
        }
        patience.elapsed() > Duration::from_millis(300) && answers.len() >= 2
    });
    assert_eq!(answers, [GATEWAY.into(), DNS.into()], "and nobody else answers");
}
