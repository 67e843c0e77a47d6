//! The stack alone, in virtual time: the test is the world outside, and the wire loses and reorders.

use crate::guest::{Dice, Guest, Wire};
use gemel_net::{GUEST, Request, Stack, Standing};
use smoltcp::socket::tcp;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};

const MS: u64 = 1_000_000;
const SERVER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 7), 80);

struct Net {
    now: u64,
    guest: Guest,
    stack: Stack,
    there: Wire,
    back: Wire,
}

impl Net {
    fn new(seed: u64, lost: u64, jitter: u64) -> Self {
        let (there, back) = (Wire::new(seed * 2 + 1, lost, jitter), Wire::new(seed * 7 + 3, lost, jitter));
        Self { now: 1, guest: Guest::new(1), stack: Stack::new(seed), there, back }
    }

    /// Everything that is due now, and on to the next moment.
    fn step(&mut self) {
        self.guest.poll(self.now);
        while let Some(frame) = self.guest.take() {
            self.there.send(self.now, frame);
        }
        for frame in self.there.arrived(self.now) {
            self.stack.receive(self.now, &frame);
        }
        self.stack.poll(self.now);
        while let Some(frame) = self.stack.take_frame() {
            self.back.send(self.now, frame);
        }
        for frame in self.back.arrived(self.now) {
            self.guest.receive(frame);
        }
        let due = [
            self.there.next(),
            self.back.next(),
            self.guest.poll_at(self.now),
            self.stack.poll_at(self.now),
            Some(self.now + 100 * MS),
        ];
        let next = due.into_iter().flatten().min().unwrap();
        self.now = next.max(self.now + 10_000);
    }

    fn until(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        let deadline = self.now + 600_000 * MS;
        while !done(self) {
            assert!(self.now < deadline, "{what}: not within ten minutes");
            self.step();
        }
    }

    fn address(&mut self) {
        self.until("address", |net| net.guest.address().is_some());
        assert_eq!(self.guest.address().unwrap().address(), GUEST);
        assert_eq!(self.guest.dns, Some(gemel_net::DNS));
    }

    fn connect_request(&mut self) -> (u64, SocketAddrV4) {
        let mut got = None;
        self.until("request", |net| {
            got = net.stack.take_request();
            got.is_some()
        });
        match got.unwrap() {
            Request::Connect { flow, to } => (flow, to),
            other => panic!("{other:?}"),
        }
    }
}

/// Bytes that tell their place.
fn pattern(length: usize) -> Vec<u8> {
    let mut dice = Dice(99);
    (0..length).map(|_| dice.roll() as u8).collect()
}

/// Many seeds: what goes in at one end comes out at the other, both ways. (How connections end is tested on a wire that loses
/// nothing: the guest's TCP can forget a lost FIN.)
#[test]
fn every_byte_arrives_over_a_wire_that_loses_and_reorders() {
    for seed in 1..=20 {
        let mut net = Net::new(seed, 25, 3 * MS);
        net.address();
        let socket = net.guest.add_tcp();
        net.guest.connect(socket, (*SERVER.ip(), SERVER.port()), 40000);
        let (flow, to) = net.connect_request();
        assert_eq!(to, SERVER);
        net.stack.accept(net.now, flow);
        let sent = pattern(200_000);
        let (mut said, mut echoed, mut heard) = (0, Vec::new(), Vec::new());
        net.until("echo", |net| {
            let guest = net.guest.tcp(socket);
            if guest.can_send() && said < sent.len() {
                said += guest.send_slice(&sent[said..]).unwrap();
            }
            while guest.can_recv() {
                guest.recv(|bytes| (bytes.len(), heard.extend_from_slice(bytes))).unwrap();
            }
            // The world echoes.
            while let Standing::Open { readable: 1.., room: room @ 1.., .. } = net.stack.standing(flow) {
                let mut piece = Vec::new();
                net.stack.read(flow, |bytes| {
                    piece = bytes[..bytes.len().min(room)].to_vec();
                    piece.len()
                });
                assert_eq!(net.stack.write(flow, &piece), piece.len(), "there was room");
                echoed.extend(piece);
            }
            heard.len() == sent.len()
        });
        assert!(echoed == sent && heard == sent, "seed {seed}: other bytes");
    }
}

/// A FIN that no guest acknowledges is not waited for for ever.
#[test]
fn an_end_that_is_not_heard_becomes_a_break() {
    let mut net = Net::new(4, 0, 0);
    net.address();
    let server = net.guest.add_tcp();
    net.guest.tcp(server).listen(22).unwrap();
    let flow = net.stack.connect(SocketAddrV4::new(GUEST, 22)).unwrap();
    net.until("connection", |net| net.guest.tcp(server).may_send());
    net.stack.finish(flow);
    net.stack.poll(net.now);
    let fin = net.stack.take_frame().unwrap();
    assert_eq!(fin[14 + 20 + 13] & 1, 1, "that was it");
    // Every repetition of it is lost; other frames arrive.
    let begun = net.now;
    while net.stack.standing(flow) != (Standing::Gone { finished: false }) {
        net.now += 100 * MS;
        net.stack.poll(net.now);
        while net.stack.take_frame().is_some() {}
        if net.now > begun + 190_000 * MS {
            eprintln!("DBG2 {:?} {}", net.stack.standing(flow), net.stack.connections());
        }
        assert!(net.now < begun + 200_000 * MS);
    }
    // Nobody is there who would hear of a reset.
    net.now += 3_000 * MS;
    net.stack.poll(net.now);
    assert_eq!(net.stack.connections(), 0);
}

#[test]
fn a_guest_serves_a_connection_from_outside() {
    let mut net = Net::new(3, 6, 2 * MS);
    net.address();
    let server = net.guest.add_tcp();
    net.guest.tcp(server).listen(22).unwrap();
    let flow = net.stack.connect(SocketAddrV4::new(GUEST, 22)).unwrap();
    let sent = pattern(50_000);
    let (mut said, mut heard) = (0, Vec::new());
    net.until("forward", |net| {
        said += net.stack.write(flow, &sent[said..]);
        let guest = net.guest.tcp(server);
        while guest.can_recv() {
            guest.recv(|bytes| (bytes.len(), heard.extend_from_slice(bytes))).unwrap();
        }
        heard.len() == sent.len()
    });
    assert_eq!(heard, sent);
    let from = net.guest.tcp(server).remote_endpoint().unwrap();
    assert_eq!(from.addr, gemel_net::GATEWAY.into(), "as from the gateway");
    // The guest breaks it off, and the outside hears that this was no orderly end.
    net.guest.tcp(server).abort();
    net.until("reset", |net| net.stack.standing(flow) == Standing::Gone { finished: false });
    assert_eq!(net.stack.connections(), 0);
    // Where nobody listens the connection is refused.
    let flow = net.stack.connect(SocketAddrV4::new(GUEST, 23)).unwrap();
    net.until("refusal", |net| net.stack.standing(flow) == Standing::Gone { finished: false });
}

#[test]
fn what_the_world_refuses_is_refused_and_silence_is_silence() {
    let mut net = Net::new(5, 0, 0);
    net.address();
    let socket = net.guest.add_tcp();
    net.guest.connect(socket, (*SERVER.ip(), SERVER.port()), 40000);
    let (flow, _) = net.connect_request();
    // The host is still connecting: the guest repeats its SYN, and that asks for nothing new.
    let later = net.now + 10_000 * MS;
    net.until("silence", |net| net.now > later);
    assert_eq!(net.guest.tcp(socket).state(), tcp::State::SynSent);
    assert_eq!((net.stack.take_request(), net.stack.connections()), (None, 1));
    net.stack.refuse(net.now, flow);
    net.until("refusal", |net| net.guest.tcp(socket).state() == tcp::State::Closed);
    assert_eq!(net.stack.connections(), 0);
}

/// A guest that opens more connections than there may be is refused, others go on, and nothing is left behind.
#[test]
fn connections_are_bounded() {
    let mut net = Net::new(6, 0, 0);
    net.address();
    let mut open = BTreeMap::new();
    for i in 0..gemel_net::MAX_FLOWS + 10 {
        let socket = net.guest.add_tcp();
        net.guest.connect(socket, (*SERVER.ip(), SERVER.port()), 10_000 + i as u16);
        if i < gemel_net::MAX_FLOWS {
            let (flow, _) = net.connect_request();
            net.stack.accept(net.now, flow);
            open.insert(flow, socket);
            net.until("connection", |net| net.guest.tcp(socket).may_send());
        } else {
            net.until("refusal", |net| net.guest.tcp(socket).state() == tcp::State::Closed);
        }
    }
    assert_eq!(net.stack.connections(), gemel_net::MAX_FLOWS);
    assert_eq!(net.stack.connect(SocketAddrV4::new(GUEST, 22)), None);
    // One end closes in order and lingers; its place can be had at once.
    let (flow, socket) = open.pop_first().unwrap();
    net.stack.finish(flow);
    net.guest.tcp(socket).close();
    net.until("end", |net| net.stack.standing(flow) == Standing::Gone { finished: true });
    assert_eq!(net.stack.connections(), gemel_net::MAX_FLOWS);
    assert!(net.stack.connect(SocketAddrV4::new(GUEST, 22)).is_some());
    for (flow, _) in open {
        net.stack.abort(flow);
    }
    let later = net.now + 200_000 * MS;
    net.until("cleaning", |net| net.now > later);
    assert_eq!(net.stack.connections(), 0, "the one to a silent port timed out");
}
