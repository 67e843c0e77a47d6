//! A peer on a stream socket: each frame behind its length in four bytes, highest first, as QEMU's `-netdev stream` and passt
//! speak it.
//!
//! Not responsible for: who the peer is. Whoever can connect is on the guest's network.
//!
//! A connection that ends is a wire pulled out: frames are lost until there is another, which a server waits for and a client
//! looks for.

use super::announce::announce;
use super::{Backend, LONGEST, Port};
use crate::error::HostError;
use crate::signals::spawn;
use crate::sockets::{self, Address, Listener};
use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::io::{self, BufReader, Read};
use std::sync::Arc;
use std::time::Duration;

/// Frames that may wait for a peer that is slow; more are lost.
const QUEUE: usize = 1024;
/// What QEMU takes as the largest length: a peer that says more speaks something else.
const LARGEST: usize = (64 << 10) + 4096;
/// Between two attempts to connect again.
const AGAIN: Duration = Duration::from_millis(500);

#[derive(Default)]
struct Queue {
    frames: VecDeque<Vec<u8>>,
    peer: Option<Arc<sockets::Stream>>,
}

/// What the threads share.
#[derive(Default)]
struct Wire {
    queue: Mutex<Queue>,
    changed: Condvar,
}

impl Wire {
    fn send(&self, frame: Vec<u8>) {
        let mut queue = self.queue.lock();
        if queue.peer.is_some() && queue.frames.len() < QUEUE {
            queue.frames.push_back(frame);
            self.changed.notify_one();
        }
    }

    /// Hears one peer until it hangs up or the run is over, of which it returns the first.
    fn hear(&self, peer: sockets::Stream, port: &Port) -> bool {
        let peer = Arc::new(peer);
        self.queue.lock().peer = Some(Arc::clone(&peer));
        let mut input = BufReader::with_capacity(LARGEST, Reader(&peer));
        let on = loop {
            match next_frame(&mut input) {
                Ok(frame) if frame.len() > LONGEST => {}
                Ok(frame) => {
                    if !port.deliver(frame) {
                        break false;
                    }
                }
                Err(_) => break true,
            }
        };
        peer.close();
        let mut queue = self.queue.lock();
        queue.peer = None;
        queue.frames.clear();
        on
    }

    /// Writes what is queued, for ever; what has collected while the last was written goes together.
    fn drain(&self) {
        let mut queue = self.queue.lock();
        loop {
            let peer = match &queue.peer {
                Some(peer) if !queue.frames.is_empty() => Arc::clone(peer),
                _ => {
                    self.changed.wait(&mut queue);
                    continue;
                }
            };
            let frames = std::mem::take(&mut queue.frames);
            drop(queue);
            if write_all(&peer, &framed(&frames)).is_err() {
                peer.close(); // the reader sees it, and makes room for the next
            }
            queue = self.queue.lock();
        }
    }
}

fn framed(frames: &VecDeque<Vec<u8>>) -> Vec<u8> {
    let mut out = Vec::with_capacity(frames.iter().map(|frame| 4 + frame.len()).sum());
    for frame in frames {
        out.extend_from_slice(&(frame.len() as u32).to_be_bytes());
        out.extend_from_slice(frame);
    }
    out
}

fn next_frame(input: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    input.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length) as usize;
    if length > LARGEST {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut frame = vec![0; length];
    input.read_exact(&mut frame)?;
    Ok(frame)
}

fn write_all(peer: &sockets::Stream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match peer.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => bytes = &bytes[count..],
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

struct Reader<'a>(&'a sockets::Stream);

impl Read for Reader<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.0.read(bytes)
    }
}

/// A peer on a socket.
pub(super) struct Stream {
    wire: Arc<Wire>,
    /// Where this side listens.
    listens: Option<Address>,
}

impl Stream {
    /// Listens on or connects to an address, and starts the threads.
    pub fn open(address: &Address, server: bool, port: Port) -> Result<Self, HostError> {
        let wire = Arc::<Wire>::default();
        let hearing = Arc::clone(&wire);
        if server {
            let listener = Listener::open(address)?;
            spawn("network stream", move || {
                while let Ok(peer) = listener.accept() {
                    if !hearing.hear(peer, &port) {
                        break;
                    }
                }
            })?;
        } else {
            let first = sockets::Stream::open(address)?;
            let address = address.clone();
            spawn("network stream", move || {
                let mut peer = first;
                while hearing.hear(peer, &port) {
                    crate::warn(format_args!("{address}: the network peer is gone"));
                    peer = loop {
                        std::thread::sleep(AGAIN);
                        if let Ok(peer) = sockets::Stream::open(&address) {
                            break peer;
                        }
                    };
                }
            })?;
        }
        let writing = Arc::clone(&wire);
        spawn("network writer", move || writing.drain())?;
        Ok(Self { wire, listens: server.then(|| address.clone()) })
    }
}

impl Backend for Stream {
    fn send(&mut self, frame: Vec<u8>) {
        self.wire.send(frame);
    }

    fn went_live(&mut self, mac: [u8; 6]) {
        let wire = Arc::clone(&self.wire);
        announce(mac, move |frame| wire.send(frame));
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if let Some(Address::Unix(path)) = &self.listens {
            let _ = std::fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests;
