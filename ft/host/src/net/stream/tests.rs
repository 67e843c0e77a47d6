use super::*;
use crate::Inputs;
use crate::inbox::Inbox;
use crate::net::announce::announcement;
use gemel_machine::{Input, VirtTime};
use std::io::Write;
use std::os::unix::net::UnixStream;

fn arrives(inputs: &mut Inputs, now: u64) -> Vec<u8> {
    assert!(inputs.wait(None, false));
    match inputs.take(VirtTime(now)).unwrap() {
        Some(Input::Frame { nic: 2, bytes }) => bytes,
        other => panic!("{other:?}"),
    }
}

#[test]
fn frames_go_both_ways_and_a_second_peer_follows_the_first() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("wire");
    let inbox = Inbox::new();
    let mut inputs = Inputs::new(Arc::clone(&inbox));
    let mut stream = Stream::open(&Address::Unix(path.clone()), true, Port::new(&inbox, 2)).unwrap();
    for round in 0..2u8 {
        let mut peer = UnixStream::connect(&path).unwrap();
        // Too long for the guest, then one that is not, cut in the middle of its length.
        peer.write_all(&[&2000u32.to_be_bytes()[..], &[9; 2000], &[0, 0]].concat()).unwrap();
        peer.write_all(&[&[0, 60][..], &[round; 60]].concat()).unwrap();
        assert_eq!(arrives(&mut inputs, round.into()), [round; 60]);
        stream.send(vec![round + 7; 64]);
        stream.send(vec![round + 8; 1514]);
        let mut heard = vec![0; 4 + 64 + 4 + 1514];
        peer.read_exact(&mut heard).unwrap();
        let wanted = [&64u32.to_be_bytes()[..], &[round + 7; 64], &1514u32.to_be_bytes(), &[round + 8; 1514]];
        assert_eq!(heard, wanted.concat());
    }
    drop(stream);
    assert!(!path.exists());
}

#[test]
fn a_guest_that_goes_on_here_is_announced_more_than_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("wire");
    let inbox = Inbox::new();
    let mut inputs = Inputs::new(Arc::clone(&inbox));
    let mut stream = Stream::open(&Address::Unix(path.clone()), true, Port::new(&inbox, 2)).unwrap();
    let mut peer = UnixStream::connect(&path).unwrap();
    // Once it is heard, what is sent goes to it.
    peer.write_all(&[&[0, 0, 0, 60][..], &[1; 60]].concat()).unwrap();
    arrives(&mut inputs, 0);
    let mac = [0x52, 0x54, 0, 1, 2, 3];
    stream.went_live(mac);
    for _ in 0..3 {
        let mut heard = [0; 64];
        peer.read_exact(&mut heard).unwrap();
        assert_eq!((&heard[..4], &heard[4..]), (&[0, 0, 0, 60][..], &announcement(mac)[..]));
    }
}

#[test]
fn a_peer_that_speaks_something_else_is_hung_up_on() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("wire");
    let inbox = Inbox::new();
    let _stream = Stream::open(&Address::Unix(path.clone()), true, Port::new(&inbox, 0)).unwrap();
    let mut peer = UnixStream::connect(&path).unwrap();
    peer.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    assert_eq!(peer.read(&mut [0; 16]).unwrap_or(0), 0);
    assert!(!inbox.any());
}
