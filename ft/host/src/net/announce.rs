//! Tells a network where a guest is now.
//!
//! Not responsible for: when that is worth saying.
//!
//! Switches learn behind which port an address is from what it sends. A guest that goes on elsewhere may be silent for long,
//! so a frame is sent in its name: a request of the Reverse Address Resolution Protocol (RFC 903), which asks for nothing that
//! anybody would answer wrongly, since its IP addresses are zero.

use crate::error::HostError;
use crate::signals::spawn;
use std::time::Duration;

const RARP: [u8; 2] = [0x80, 0x35];
/// Ethernet, IPv4, the lengths of their addresses, and the operation "request reverse".
const REQUEST: [u8; 8] = [0, 1, 8, 0, 6, 4, 0, 3];
/// The shortest frame on a wire, without its checksum.
const PADDED: usize = 60;
/// Milliseconds before each of the announcements: the first may come before the switch has the port up.
const WAITS: [u64; 6] = [0, 50, 100, 200, 400, 800];

/// The frame.
pub(super) fn announcement(mac: [u8; 6]) -> Vec<u8> {
    let addresses = [&mac[..], &[0; 4]].concat();
    let mut frame = [&[0xff; 6][..], &mac, &RARP, &REQUEST, &addresses, &addresses].concat();
    frame.resize(PADDED, 0);
    frame
}

/// Sends it, and again a few times, in a thread of its own.
pub(super) fn announce(mac: [u8; 6], send: impl Fn(Vec<u8>) + Send + 'static) {
    let started: Result<(), HostError> = spawn("announcement", move || {
        for wait in WAITS {
            std::thread::sleep(Duration::from_millis(wait));
            send(announcement(mac));
        }
    });
    if let Err(error) = started {
        crate::warn(format_args!("the network is not told where the guest is now: {error}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_frame_is_a_reverse_arp_request() {
        // RFC 903 and RFC 826: hardware 1, protocol 800h, lengths 6 and 4, operation 3, sender, target.
        let mac = [0x52, 0x54, 0, 1, 2, 3];
        let frame = announcement(mac);
        assert_eq!(frame.len(), 60);
        assert_eq!(
            (&frame[..6], &frame[6..12], &frame[12..14]),
            (&[0xff; 6][..], &mac[..], &[0x80, 0x35][..])
        );
        assert_eq!(&frame[14..22], &[0, 1, 8, 0, 6, 4, 0, 3]);
        assert_eq!((&frame[22..28], &frame[32..38]), (&mac[..], &mac[..]));
        assert!(frame[28..32].iter().chain(&frame[38..]).all(|b| *b == 0));
    }
}
