//! The stack's edge: the host's sockets, without any privilege.
//!
//! Not responsible for: what frames mean (`stack`), threads (`network`).

use crate::addresses::{DNS, GATEWAY};
use crate::dns;
use crate::error::NetError;
use crate::flows::FlowId;
use crate::forward::Forward;
use crate::network::Config;
use crate::proxy::Proxy;
use crate::stack::{Request, Stack};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::rand::{GetRandomFlags, getrandom};
use rustix::time::{ClockId, clock_gettime};
use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};

/// UDP sockets for guests at one time. A new one beyond takes the place of the one that was silent for longest.
const MAX_DATAGRAM_SOCKETS: usize = 256;
/// A guest's UDP socket that is silent for so long is forgotten (RFC 4787 REQ-5: at least two minutes), ns.
const DATAGRAM_IDLE: u64 = 120_000_000_000;
/// Datagrams that one socket may hand over at once, before the others have their turn.
const DATAGRAM_BURST: usize = 32;
/// The longest sleep: idle sockets are looked for as often (ns).
const LONGEST_SLEEP: u64 = 10_000_000_000;
/// The shortest: a stack that has something to do and cannot do it yet must not spin (ns).
const SHORTEST_SLEEP: u64 = 1_000_000;
/// The longest datagram.
const MAX_DATAGRAM: usize = 65_535;

struct Datagrams {
    socket: UdpSocket,
    used: u64,
}

/// The sockets of a network, and the stack between them and the guests.
pub struct Outside {
    /// The stack.
    pub stack: Stack,
    resolver: Option<SocketAddrV4>,
    listeners: Vec<(TcpListener, Forward)>,
    proxies: BTreeMap<FlowId, Proxy>,
    datagrams: BTreeMap<SocketAddrV4, Datagrams>,
    buffer: Box<[u8; MAX_DATAGRAM]>,
}

/// The host's monotonic clock (ns).
pub fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

impl Outside {
    /// Listens for the forwards.
    ///
    /// # Errors
    /// An address that cannot be listened on.
    pub fn new(config: &Config) -> Result<Self, NetError> {
        let mut seed = [0; 8];
        getrandom(&mut seed, GetRandomFlags::empty()).map_err(|e| NetError::Start(e.into()))?;
        let listen = |forward: &Forward| {
            let listener = TcpListener::bind(forward.host)?;
            listener.set_nonblocking(true)?;
            Ok((listener, *forward))
        };
        let listeners = config
            .forwards
            .iter()
            .map(|forward| listen(forward).map_err(|e| NetError::Listen(*forward, e)))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            stack: Stack::new(u64::from_ne_bytes(seed)),
            resolver: config.resolver,
            listeners,
            proxies: BTreeMap::new(),
            datagrams: BTreeMap::new(),
            buffer: Box::new([0; MAX_DATAGRAM]),
        })
    }

    /// Where the forwards listen: with the ports that the host chose where it was to choose.
    pub fn listens_on(&self) -> Vec<SocketAddr> {
        self.listeners.iter().map(|(listener, f)| listener.local_addr().unwrap_or(f.host)).collect()
    }

    /// Waits until a socket, `waker`, or the stack's time asks for attention. Returns whether `waker` did.
    ///
    /// # Errors
    /// The host's.
    pub fn wait(&mut self, waker: BorrowedFd<'_>) -> io::Result<bool> {
        let at = now();
        let due = self.stack.poll_at(at).map_or(LONGEST_SLEEP, |due| due.saturating_sub(at));
        let sleep = due.clamp(SHORTEST_SLEEP, LONGEST_SLEEP);
        let timeout =
            Timespec { tv_sec: (sleep / 1_000_000_000) as i64, tv_nsec: (sleep % 1_000_000_000) as i64 };
        let mut fds = vec![PollFd::from_borrowed_fd(waker, PollFlags::IN)];
        fds.extend(self.listeners.iter().map(|(l, _)| PollFd::from_borrowed_fd(l.as_fd(), PollFlags::IN)));
        fds.extend(
            self.datagrams.values().map(|d| PollFd::from_borrowed_fd(d.socket.as_fd(), PollFlags::IN)),
        );
        fds.extend(self.proxies.values().map(|proxy| proxy.poll_fd(&mut self.stack)));
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
        let ready: Vec<PollFlags> = fds.iter().map(PollFd::revents).collect();
        drop(fds);
        let (woken, ready) = ready.split_first().map_or((false, &[][..]), |(w, r)| (!w.is_empty(), r));
        let (listeners, ready) = ready.split_at(self.listeners.len());
        let (datagrams, proxies) = ready.split_at(self.datagrams.len());
        // The maps are as they were when they were asked what to wait for, so flags and sockets go together.
        self.take_datagrams(datagrams);
        self.shuttle(Some(proxies));
        self.take_connections(listeners);
        self.turn();
        Ok(woken)
    }

    /// Does what frames that were received since, and time, ask for.
    pub fn turn(&mut self) {
        self.carry_out();
        self.shuttle(None);
        self.stack.poll(now());
    }

    fn shuttle(&mut self, ready: Option<&[PollFlags]>) {
        let at = now();
        let mut ready = ready.into_iter().flatten().copied();
        let stack = &mut self.stack;
        self.proxies.retain(|_, proxy| proxy.shuttle(at, stack, ready.next().unwrap_or(PollFlags::empty())));
    }

    fn carry_out(&mut self) {
        while let Some(request) = self.stack.take_request() {
            match request {
                Request::Connect { flow, to } => match Proxy::open(flow, self.address(to)) {
                    Ok(proxy) => drop(self.proxies.insert(flow, proxy)),
                    Err(_) => self.stack.refuse(now(), flow),
                },
                Request::Datagram { from, to, payload } => self.send(from, to, &payload),
            }
        }
    }

    /// Where on the host something is that guests know by another address.
    fn address(&self, to: SocketAddrV4) -> SocketAddrV4 {
        match (*to.ip(), self.resolver) {
            (GATEWAY, _) => SocketAddrV4::new(Ipv4Addr::LOCALHOST, to.port()),
            (DNS, Some(resolver)) if to.port() == dns::PORT => resolver,
            _ => to,
        }
    }

    /// The address by which guests know what is at `from`.
    fn known_as(&self, from: SocketAddrV4) -> SocketAddrV4 {
        if self.resolver == Some(from) {
            SocketAddrV4::new(DNS, dns::PORT)
        } else if from.ip().is_loopback() {
            SocketAddrV4::new(GATEWAY, from.port())
        } else {
            from
        }
    }

    fn send(&mut self, from: SocketAddrV4, to: SocketAddrV4, payload: &[u8]) {
        if *to.ip() == DNS && (to.port() != dns::PORT || self.resolver.is_none()) {
            if let Some(answer) = dns::server_failure(payload).filter(|_| to.port() == dns::PORT) {
                self.stack.datagram(to, from, &answer);
            }
            return;
        }
        let (to, at) = (self.address(to), now());
        if !self.datagrams.contains_key(&from) {
            let opened = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).and_then(|socket| {
                socket.set_nonblocking(true)?;
                Ok(socket)
            });
            // A host that has no more sockets loses datagrams, as a network may.
            let Ok(socket) = opened else { return };
            self.make_room(at);
            self.datagrams.insert(from, Datagrams { socket, used: at });
        }
        if let Some(datagrams) = self.datagrams.get_mut(&from) {
            datagrams.used = at;
            let _ = datagrams.socket.send_to(payload, to);
        }
    }

    fn make_room(&mut self, at: u64) {
        self.datagrams.retain(|_, d| at.saturating_sub(d.used) < DATAGRAM_IDLE);
        if self.datagrams.len() >= MAX_DATAGRAM_SOCKETS {
            let oldest = self.datagrams.iter().min_by_key(|(_, d)| d.used).map(|(from, _)| *from);
            oldest.into_iter().for_each(|from| drop(self.datagrams.remove(&from)));
        }
    }

    fn take_datagrams(&mut self, ready: &[PollFlags]) {
        let mut arrived = Vec::new();
        for ((to, datagrams), ready) in self.datagrams.iter_mut().zip(ready) {
            for _ in 0..if ready.is_empty() { 0 } else { DATAGRAM_BURST } {
                match datagrams.socket.recv_from(&mut self.buffer[..]) {
                    Ok((length, SocketAddr::V4(from))) => {
                        datagrams.used = now();
                        arrived.push((from, *to, self.buffer[..length].to_vec()));
                    }
                    _ => break,
                }
            }
        }
        for (from, to, payload) in arrived {
            self.stack.datagram(self.known_as(from), to, &payload);
        }
    }

    fn take_connections(&mut self, ready: &[PollFlags]) {
        for ((listener, forward), _) in self.listeners.iter().zip(ready).filter(|(_, r)| !r.is_empty()) {
            while let Ok((stream, _)) = listener.accept() {
                // Without room the client is turned away, which it notices.
                let Some(flow) = self.stack.connect(forward.guest) else { continue };
                match Proxy::accepted(flow, stream) {
                    Ok(proxy) => drop(self.proxies.insert(flow, proxy)),
                    Err(_) => self.stack.abort(flow),
                }
            }
        }
    }
}
