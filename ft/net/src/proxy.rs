//! One TCP connection of a guest and the host's connection that it goes on as.
//!
//! Not responsible for: waiting until a socket is ready (`outside`).

use crate::flows::{FlowId, Standing};
use crate::stack::Stack;
use rustix::event::{PollFd, PollFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with, sockopt};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddrV4, TcpStream};
use std::os::fd::AsFd;
use std::time::Duration;

/// Bytes read from the host at once.
const PIECE: usize = 32 << 10;

/// The host's end of a connection.
pub(crate) struct Proxy {
    flow: FlowId,
    stream: TcpStream,
    /// The host is still connecting.
    connecting: bool,
    /// The world outside has said its last, and the guest knows.
    outside_finished: bool,
    /// The guest has said its last, and the world outside knows.
    guest_finished: bool,
}

impl Proxy {
    /// Begins to connect to `to` for a guest.
    pub fn open(flow: FlowId, to: SocketAddrV4) -> io::Result<Self> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
        match connect(&socket, &to) {
            Ok(()) | Err(rustix::io::Errno::INPROGRESS) => {}
            Err(e) => return Err(e.into()),
        }
        let stream = TcpStream::from(socket);
        stream.set_nodelay(true)?;
        Ok(Self { flow, stream, connecting: true, outside_finished: false, guest_finished: false })
    }

    /// Goes on to a guest with a connection that was accepted.
    pub fn accepted(flow: FlowId, stream: TcpStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        Ok(Self { flow, stream, connecting: false, outside_finished: false, guest_finished: false })
    }

    /// What to wait for.
    pub fn poll_fd(&self, stack: &mut Stack) -> PollFd<'_> {
        let mut events = PollFlags::empty();
        if self.connecting {
            events |= PollFlags::OUT;
        } else if let Standing::Open { readable, room, .. } = stack.standing(self.flow) {
            events.set(PollFlags::IN, room > 0 && !self.outside_finished);
            events.set(PollFlags::OUT, readable > 0);
        }
        PollFd::from_borrowed_fd(self.stream.as_fd(), events)
    }

    /// Moves what can be moved; `ready` is what poll said of the socket. `false` when the connection is over.
    pub fn shuttle(&mut self, now: u64, stack: &mut Stack, ready: PollFlags) -> bool {
        if self.connecting {
            return self.finish_connecting(now, stack, ready);
        }
        if ready.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) && !self.outside_finished {
            self.inward(stack, ready);
        }
        self.outward(stack);
        match stack.standing(self.flow) {
            Standing::Gone { finished } => {
                if !finished && !self.guest_finished {
                    self.reset();
                }
                false
            }
            Standing::Open { readable: 0, finished: true, .. } if !self.guest_finished => {
                self.guest_finished = true;
                // One that is gone already is told by the next read.
                let _ = self.stream.shutdown(Shutdown::Write);
                true
            }
            _ => true,
        }
    }

    fn finish_connecting(&mut self, now: u64, stack: &mut Stack, ready: PollFlags) -> bool {
        if ready.is_empty() {
            return stack.standing(self.flow) == Standing::Opening;
        }
        self.connecting = false;
        match sockopt::socket_error(&self.stream) {
            Ok(Ok(())) => stack.accept(now, self.flow),
            _ => stack.refuse(now, self.flow),
        }
        !matches!(stack.standing(self.flow), Standing::Gone { .. })
    }

    /// From the world to the guest, as much as fits.
    fn inward(&mut self, stack: &mut Stack, ready: PollFlags) {
        let mut piece = [0; PIECE];
        loop {
            let room = match stack.standing(self.flow) {
                Standing::Open { room, .. } => room.min(PIECE),
                _ => 0,
            };
            if room == 0 {
                // A connection that broke while the guest does not read is broken for it, too.
                if ready.contains(PollFlags::ERR) {
                    stack.abort(self.flow);
                }
                return;
            }
            match self.stream.read(&mut piece[..room]) {
                Ok(0) => {
                    self.outside_finished = true;
                    stack.finish(self.flow);
                    return;
                }
                Ok(n) => {
                    stack.write(self.flow, &piece[..n]);
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => return,
                Err(_) => {
                    stack.abort(self.flow);
                    return;
                }
            }
        }
    }

    /// From the guest to the world, as much as it takes.
    fn outward(&mut self, stack: &mut Stack) {
        let mut broken = false;
        loop {
            let stream = &mut self.stream;
            let moved = stack.read(self.flow, |bytes| match stream.write(bytes) {
                Ok(n) => n,
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => 0,
                Err(_) => {
                    broken = true;
                    0
                }
            });
            if broken {
                stack.abort(self.flow);
            }
            if moved == 0 {
                return;
            }
        }
    }

    /// The world outside gets a reset, as the guest's end broke.
    fn reset(&self) {
        // Without it the world would see an orderly end, which would be a lie.
        let _ = sockopt::set_socket_linger(&self.stream, Some(Duration::ZERO));
    }
}
