//! A network in a thread of its own.
//!
//! Not responsible for: what it does there (`outside`).

use crate::error::NetError;
use crate::forward::Forward;
use crate::outside::{Outside, now};
use parking_lot::Mutex;
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::{read, write};
use std::collections::VecDeque;
use std::net::{SocketAddr, SocketAddrV4};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// Frames from guests that may wait for the network's thread; more are lost, as on a wire.
const QUEUE: usize = 1024;

/// What a network is to be.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Ports of the host that lead to guests.
    pub forwards: Vec<Forward>,
    /// Where guests' questions to the DNS server go: [`crate::host_resolver`], as a rule. Without one they fail.
    pub resolver: Option<SocketAddrV4>,
}

struct Shared {
    frames: Mutex<VecDeque<Vec<u8>>>,
    wake: OwnedFd,
    over: AtomicBool,
}

impl Shared {
    fn wake(&self) {
        // A counter that is full wakes as well.
        let _ = write(&self.wake, &1u64.to_ne_bytes());
    }
}

/// A running network. It ends when this is dropped.
pub struct Network {
    shared: Arc<Shared>,
    listens_on: Vec<SocketAddr>,
}

impl Network {
    /// Starts the thread. `deliver` gets frames for guests, in order, from that thread, and takes each out of its place unless it has
    /// no room; then it is asked again after [`Network::wake`], and what comes after waits.
    ///
    /// # Errors
    /// An address that cannot be listened on, no thread.
    pub fn start(
        config: &Config,
        deliver: impl FnMut(&mut Option<Vec<u8>>) + Send + 'static,
    ) -> Result<Self, NetError> {
        let outside = Outside::new(config)?;
        let wake = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)
            .map_err(|e| NetError::Start(e.into()))?;
        let shared = Arc::new(Shared { frames: Mutex::default(), wake, over: AtomicBool::new(false) });
        let listens_on = outside.listens_on();
        let running = Arc::clone(&shared);
        thread::Builder::new()
            .name("network".into())
            .spawn(move || run(outside, &running, deliver))
            .map_err(NetError::Start)?;
        Ok(Self { shared, listens_on })
    }

    /// Where the forwards listen, in their order.
    pub fn listens_on(&self) -> &[SocketAddr] {
        &self.listens_on
    }

    /// A guest sent a frame. Never waits; a frame for which there is no room is lost.
    pub fn send(&self, frame: Vec<u8>) {
        let mut frames = self.shared.frames.lock();
        if frames.len() < QUEUE {
            frames.push_back(frame);
        }
        let first = frames.len() == 1;
        drop(frames);
        if first {
            self.shared.wake();
        }
    }

    /// There is room for frames again.
    pub fn wake(&self) {
        self.shared.wake();
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Release);
        self.shared.wake();
    }
}

fn run(mut outside: Outside, shared: &Shared, mut deliver: impl FnMut(&mut Option<Vec<u8>>)) {
    let mut held = None;
    while !shared.over.load(Ordering::Acquire) {
        if outside.wait(shared.wake.as_fd()).is_err() {
            // Poll fails only where the host has no memory for it, which passes or ends the process.
            thread::sleep(std::time::Duration::from_millis(10));
        }
        let mut counter = [0; 8];
        let _ = read(&shared.wake, &mut counter);
        let frames = std::mem::take(&mut *shared.frames.lock());
        if !frames.is_empty() {
            let at = now();
            frames.iter().for_each(|frame| outside.stack.receive(at, frame));
            outside.turn();
        }
        loop {
            if held.is_none() {
                held = outside.stack.take_frame();
                if held.is_none() {
                    break;
                }
            }
            deliver(&mut held);
            if held.is_some() {
                break;
            }
            if !outside.stack.has_frames() {
                outside.stack.poll(now());
            }
        }
    }
}
