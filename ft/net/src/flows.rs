//! TCP connections of guests, by number: each ends here and goes on outside as a connection of the host.
//!
//! Not responsible for: sockets of the host (`outside`), frames that are not TCP (`stack`).
//!
//! A guest's SYN is kept until the host's own connection stands, and only then answered: what the guest sees of the other end
//! (accepted, refused, silent) is what the host saw.

use crate::addresses::GATEWAY;
use smoltcp::iface::{Context, SocketHandle, SocketSet};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time::Duration;
use std::collections::BTreeMap;
use std::net::SocketAddrV4;

/// Names a connection; never used again.
pub type FlowId = u64;

/// Connections at one time. A SYN beyond is answered by a reset.
pub const MAX_FLOWS: usize = 512;
/// Bytes under way in each direction of a connection.
const BUFFER: usize = 64 << 10;
/// A guest that is silent for so long while it should answer is gone. Longer than any wait of a pair for its arbiter that
/// a peer outside would bear.
const TIMEOUT: Duration = Duration::from_secs(300);
/// How often an idle guest is asked whether it still knows the connection.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// How long a guest may leave unacknowledged that the other end has finished, ns. The TCP implementation forgets to repeat a FIN that was
/// lost if three duplicate acknowledgements come for what was before it; such a connection is broken off, so that the guest
/// notices.
const FIN_PATIENCE: u64 = 60_000_000_000;
/// How long a reset may wait to leave, ns: for a guest that is gone, ARP finds nobody.
const RESET_PATIENCE: u64 = 2_000_000_000;
/// Where the gateway's own ports begin (RFC 6335).
const FIRST_PORT: u16 = 49152;

/// The ends of a connection: the guest's, and the other.
pub(crate) type Ends = (SocketAddrV4, SocketAddrV4);

/// How a connection stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// The guest waits for the host to connect.
    Opening,
    /// Data may go both ways.
    Open {
        /// Bytes from the guest that can be read.
        readable: usize,
        /// Bytes to the guest that there is room for.
        room: usize,
        /// The guest has said its last; what is readable is all that there will be.
        finished: bool,
    },
    /// It is over. `finished` unless it broke.
    Gone {
        /// The guest had said its last.
        finished: bool,
    },
}

enum Flow {
    /// The guest's SYN, until the host is connected.
    Opening(Vec<u8>),
    Open(Open),
}

struct Open {
    socket: SocketHandle,
    /// The guest has said its last.
    finished: bool,
    /// Broken off here: nobody reads what is left.
    aborted: bool,
    /// Since when only a FIN or a reset is outstanding, and which.
    closing: Option<(State, u64)>,
}

impl Flow {
    fn open(socket: SocketHandle) -> Self {
        Self::Open(Open { socket, finished: false, aborted: false, closing: None })
    }
}

/// All connections.
pub(crate) struct Flows {
    sockets: SocketSet<'static>,
    flows: BTreeMap<FlowId, (Ends, Flow)>,
    by_ends: BTreeMap<Ends, FlowId>,
    next: FlowId,
    port: u16,
}

fn socket() -> Socket<'static> {
    let buffer = || SocketBuffer::new(vec![0; BUFFER]);
    let mut socket = Socket::new(buffer(), buffer());
    socket.set_nagle_enabled(false); // the host's end decides what belongs together
    socket.set_timeout(Some(TIMEOUT));
    socket.set_keep_alive(Some(KEEP_ALIVE));
    socket
}

impl Flows {
    pub fn new() -> Self {
        Self {
            sockets: SocketSet::new(Vec::new()),
            flows: BTreeMap::new(),
            by_ends: BTreeMap::new(),
            next: 0,
            port: FIRST_PORT,
        }
    }

    pub fn sockets(&mut self) -> &mut SocketSet<'static> {
        &mut self.sockets
    }

    /// Whether a SYN between these ends is a new connection's. One that only lingers gives way.
    pub fn is_new(&mut self, ends: Ends) -> bool {
        let Some(id) = self.by_ends.get(&ends).copied() else { return true };
        let over = match self.flows.get(&id) {
            Some((_, Flow::Open(open))) => {
                matches!(self.sockets.get::<Socket>(open.socket).state(), State::TimeWait | State::Closed)
            }
            _ => false,
        };
        if over {
            self.remove(id);
        }
        over
    }

    /// Whether the host is still connecting for these ends: repeated SYNs say nothing new.
    pub fn is_opening(&self, ends: Ends) -> bool {
        let flow = self.by_ends.get(&ends).and_then(|id| self.flows.get(id));
        matches!(flow, Some((_, Flow::Opening(_))))
    }

    fn add(&mut self, ends: Ends, flow: Flow) -> FlowId {
        let id = self.next;
        self.next += 1;
        self.flows.insert(id, (ends, flow));
        self.by_ends.insert(ends, id);
        id
    }

    /// Keeps a new connection's SYN; `None` when there are too many.
    pub fn open_later(&mut self, ends: Ends, syn: &[u8]) -> Option<FlowId> {
        self.make_room().then(|| self.add(ends, Flow::Opening(syn.to_vec())))
    }

    /// The host is connected: the SYN, for which somebody listens now.
    pub fn accept(&mut self, now: u64, id: FlowId) -> Option<Vec<u8>> {
        self.sweep(now); // nobody else may listen there
        let (ends, flow) = self.flows.get_mut(&id)?;
        let Flow::Opening(syn) = flow else { return None };
        let mut socket = socket();
        socket.listen(ends.1).ok()?;
        let syn = std::mem::take(syn);
        *flow = Flow::open(self.sockets.add(socket));
        Some(syn)
    }

    /// The host cannot connect: the SYN, for which nobody listens.
    pub fn refuse(&mut self, id: FlowId) -> Option<Vec<u8>> {
        match self.flows.get_mut(&id)? {
            (_, Flow::Opening(syn)) => {
                let syn = std::mem::take(syn);
                self.remove(id);
                Some(syn)
            }
            _ => None,
        }
    }

    /// Connects to a guest, from the gateway; `None` when there are too many connections.
    pub fn connect(&mut self, context: &mut Context, guest: SocketAddrV4) -> Option<FlowId> {
        if !self.make_room() {
            return None;
        }
        let taken = |port| self.by_ends.contains_key(&(guest, SocketAddrV4::new(GATEWAY, port)));
        while taken(self.port) {
            self.port = self.port.checked_add(1).unwrap_or(FIRST_PORT);
        }
        let ends = (guest, SocketAddrV4::new(GATEWAY, self.port));
        self.port = self.port.checked_add(1).unwrap_or(FIRST_PORT);
        let mut socket = socket();
        socket.connect(context, guest, ends.1).ok()?;
        let socket = self.sockets.add(socket);
        Some(self.add(ends, Flow::open(socket)))
    }

    /// Whether one more connection can be had. One that is over and only lingers gives way.
    fn make_room(&mut self) -> bool {
        if self.flows.len() >= MAX_FLOWS {
            let lingers = |flow: &Flow| match flow {
                Flow::Open(open) => self.sockets.get::<Socket>(open.socket).state() == State::TimeWait,
                Flow::Opening(_) => false,
            };
            let oldest = self.flows.iter().find(|(_, (_, flow))| lingers(flow)).map(|(id, _)| *id);
            oldest.into_iter().for_each(|id| self.remove(id));
        }
        self.flows.len() < MAX_FLOWS
    }

    fn remove(&mut self, id: FlowId) {
        if let Some((ends, flow)) = self.flows.remove(&id) {
            self.by_ends.remove(&ends);
            if let Flow::Open(open) = flow {
                self.sockets.remove(open.socket);
            }
        }
    }

    /// Notes what frames and time have changed, and forgets what is over. A connection that was reset before it stood listens
    /// again, which nobody may find.
    pub fn sweep(&mut self, now: u64) {
        let mut over = Vec::new();
        for (id, (_, flow)) in &mut self.flows {
            let Flow::Open(open) = flow else { continue };
            let socket = self.sockets.get_mut::<Socket>(open.socket);
            let state = socket.state();
            let outstanding = match state {
                State::FinWait1 | State::Closing | State::LastAck => socket.send_queue() == 0,
                State::Closed => true,
                _ => false,
            };
            open.closing = open.closing.filter(|(of, _)| *of == state).or(Some((state, now)));
            open.closing.take_if(|_| !outstanding);
            let waited = open.closing.map_or(0, |(_, since)| now.saturating_sub(since));
            match state {
                State::CloseWait | State::TimeWait => open.finished = true,
                State::Closing | State::LastAck | State::FinWait1 => {
                    open.finished |= state != State::FinWait1;
                    if waited > FIN_PATIENCE {
                        socket.abort();
                        open.closing = Some((State::Closed, now));
                    }
                }
                State::Listen => over.push(*id),
                // What was received can still be read, and a reset has to leave first.
                State::Closed
                    if (open.aborted || socket.recv_queue() == 0)
                        && (socket.remote_endpoint().is_none() || waited > RESET_PATIENCE) =>
                {
                    over.push(*id);
                }
                _ => {}
            }
        }
        over.into_iter().for_each(|id| self.remove(id));
    }

    fn open(&mut self, id: FlowId) -> Option<(&mut Socket<'static>, &mut Open)> {
        match self.flows.get_mut(&id)? {
            (_, Flow::Open(open)) => Some((self.sockets.get_mut::<Socket>(open.socket), open)),
            _ => None,
        }
    }

    pub fn standing(&mut self, id: FlowId) -> Standing {
        if matches!(self.flows.get(&id), Some((_, Flow::Opening(_)))) {
            return Standing::Opening;
        }
        let Some((socket, open)) = self.open(id) else { return Standing::Gone { finished: false } };
        let (readable, finished) = (socket.recv_queue(), open.finished);
        match socket.state() {
            _ if open.aborted => Standing::Gone { finished: false },
            State::Closed | State::TimeWait | State::Listen if readable == 0 => Standing::Gone { finished },
            _ => Standing::Open {
                readable,
                room: if socket.may_send() { socket.send_capacity() - socket.send_queue() } else { 0 },
                finished,
            },
        }
    }

    /// Hands what the guest said to `f`, which says how much of it it took. Returns that.
    pub fn read(&mut self, id: FlowId, f: impl FnOnce(&[u8]) -> usize) -> usize {
        let Some((socket, _)) = self.open(id) else { return 0 };
        let taken = socket.recv(|bytes| {
            let taken = f(bytes).min(bytes.len());
            (taken, taken)
        });
        taken.unwrap_or(0)
    }

    /// Says something to the guest; returns how much there was room for.
    pub fn write(&mut self, id: FlowId, bytes: &[u8]) -> usize {
        self.open(id).map_or(0, |(socket, _)| socket.send_slice(bytes).unwrap_or(0))
    }

    /// Nothing more will be said to the guest.
    pub fn finish(&mut self, id: FlowId) {
        if let Some((socket, _)) = self.open(id) {
            socket.close();
        }
    }

    /// Breaks a connection: the guest gets a reset.
    pub fn abort(&mut self, id: FlowId) {
        if let Some((socket, open)) = self.open(id) {
            open.aborted = true;
            socket.abort();
        } else {
            self.remove(id);
        }
    }

    /// Connections there are.
    pub fn len(&self) -> usize {
        self.flows.len()
    }
}
