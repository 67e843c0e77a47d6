//! A guest that means harm: whatever it sends, the stack neither panics nor grows.

use crate::guest::{Dice, Guest};
use gemel_net::{MAX_FLOWS, Request, Stack};

const MS: u64 = 1_000_000;

/// Frames that a well-meaning guest sends: what a malicious one starts from.
fn honest() -> Vec<Vec<u8>> {
    let (mut guest, mut stack, mut frames) = (Guest::new(1), Stack::new(1), Vec::new());
    let socket = guest.add_tcp();
    let mut connected = false;
    for step in 0..200 {
        let now = step * 20 * MS + 1;
        guest.poll(now);
        if guest.address().is_some() && !connected {
            connected = true;
            guest.connect(socket, ([192, 0, 2, 7].into(), 80), 40000);
        }
        if guest.tcp(socket).can_send() {
            guest.tcp(socket).send_slice(&[step as u8; 100]).unwrap();
        }
        while let Some(frame) = guest.take() {
            stack.receive(now, &frame);
            frames.push(frame);
        }
        while let Some(request) = stack.take_request() {
            if let Request::Connect { flow, .. } = request {
                stack.accept(now, flow);
            }
        }
        stack.poll(now);
        while let Some(frame) = stack.take_frame() {
            guest.receive(frame);
        }
    }
    assert!(frames.len() > 50 && guest.tcp(socket).may_send(), "{} frames", frames.len());
    frames
}

/// The checksum of IPv4's header and of TCP set right, so that damage is not simply dropped.
fn mend(frame: &mut [u8]) {
    use smoltcp::wire::{EthernetFrame, Ipv4Packet, TcpPacket, UdpPacket};
    if frame.len() < 34 || frame[12..14] != [8, 0] {
        return;
    }
    let mut ethernet = EthernetFrame::new_unchecked(frame);
    if Ipv4Packet::new_checked(&*ethernet.payload_mut()).is_err() {
        return;
    }
    let mut packet = Ipv4Packet::new_unchecked(ethernet.payload_mut());
    packet.fill_checksum();
    let (src, dst, protocol) = (packet.src_addr().into(), packet.dst_addr().into(), packet.next_header());
    let payload = packet.payload_mut();
    match protocol {
        smoltcp::wire::IpProtocol::Tcp if payload.len() >= 20 => {
            TcpPacket::new_unchecked(payload).fill_checksum(&src, &dst);
        }
        smoltcp::wire::IpProtocol::Udp if UdpPacket::new_checked(&*payload).is_ok() => {
            UdpPacket::new_unchecked(payload).fill_checksum(&src, &dst);
        }
        _ => {}
    }
}

#[test]
fn nothing_that_a_guest_sends_breaks_the_stack_or_makes_it_grow() {
    let honest = honest();
    for seed in 1..=4u64 {
        let mut dice = Dice(seed * 0x9e37_79b9);
        let mut stack = Stack::new(seed);
        let (mut now, mut flows, mut worst) = (1, Vec::new(), 0);
        for _ in 0..12_000 {
            now += dice.below(5 * MS);
            let mut frame = honest[dice.below(honest.len() as u64) as usize].clone();
            match dice.below(10) {
                0 => frame = (0..dice.below(1600)).map(|_| dice.roll() as u8).collect(),
                1 => frame.truncate(dice.below(frame.len() as u64 + 1) as usize),
                2..9 => {
                    for _ in 0..1 + dice.below(4) {
                        // The headers, mostly.
                        let reach =
                            if dice.below(4) == 0 { frame.len() as u64 } else { 60.min(frame.len() as u64) };
                        let at = dice.below(reach) as usize;
                        frame[at] = match dice.below(4) {
                            0 => 0,
                            1 => 0xff,
                            2 => frame[at].wrapping_add(1),
                            _ => dice.roll() as u8,
                        };
                    }
                    mend(&mut frame);
                }
                _ => {}
            }
            stack.receive(now, &frame);
            while let Some(request) = stack.take_request() {
                if let Request::Connect { flow, .. } = request {
                    match dice.below(3) {
                        0 => stack.refuse(now, flow),
                        1 => stack.accept(now, flow),
                        _ => {}
                    }
                    flows.push(flow);
                }
            }
            if let Some(&flow) = flows.get(dice.below(flows.len() as u64 + 1) as usize) {
                match dice.below(6) {
                    0 => drop(stack.read(flow, |bytes| bytes.len())),
                    1 => drop(stack.write(flow, &[1; 3000])),
                    2 => stack.finish(flow),
                    3 => stack.accept(now, flow),
                    _ => {}
                }
            }
            stack.poll(now);
            let mut frames = 0;
            // A peer that does not take its frames, for a while.
            if dice.below(50) == 0 {
                while stack.take_frame().is_some() {
                    frames += 1;
                }
            }
            worst = worst.max(frames);
            assert!(stack.connections() <= MAX_FLOWS);
        }
        assert!(worst <= 512, "{worst} frames waited");
    }
}
