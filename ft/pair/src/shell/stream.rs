//! Connected sockets, bare or under TLS.
//!
//! Not responsible for: listening (`listener`), messages and threads (`connection`).

use super::address::Address;
use super::complaints::Complaints;
use super::tls::Session;
use super::trust::{Protection, Trust};
use crate::protocol::decode;
use rustix::net::{SendFlags, send};
use serde::de::DeserializeOwned;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

/// A write that takes longer has a reader that is stopped or gone.
const WRITE_TIMEOUT: Duration = Duration::from_secs(1);
/// A primary that listens says who it is at once.
const GREETING_TIMEOUT: Duration = Duration::from_secs(5);
/// Read from a socket at once.
const READ: usize = 64 << 10;

/// Room for what is read from a socket; one for each thread that reads.
pub fn read_buffer() -> Vec<u8> {
    vec![0; READ]
}

/// A socket.
pub enum Socket {
    /// TCP.
    Tcp(TcpStream),
    /// A UNIX socket.
    Unix(UnixStream),
}

/// A connection whose ends may talk to each other.
pub struct Stream {
    socket: Socket,
    session: Option<Session>,
    /// Who is at the other end, for people.
    peer: String,
    complaints: Arc<Complaints>,
}

impl Socket {
    /// # Errors
    /// The host's.
    pub fn prepare(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => {
                stream.set_nodelay(true)?; // a mark must not wait for the next one
                stream.set_write_timeout(Some(WRITE_TIMEOUT))
            }
            Self::Unix(stream) => stream.set_write_timeout(Some(WRITE_TIMEOUT)),
        }
    }

    fn close(&self) {
        // A connection that is closed already is what is wanted.
        let _ = match self {
            Self::Tcp(stream) => stream.shutdown(Shutdown::Both),
            Self::Unix(stream) => stream.shutdown(Shutdown::Both),
        };
    }

    fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.set_read_timeout(timeout),
            Self::Unix(stream) => stream.set_read_timeout(timeout),
        }
    }

    fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => (&*stream).read(buffer),
            Self::Unix(stream) => (&*stream).read(buffer),
        }
    }
}

impl Address {
    /// Connects here.
    ///
    /// # Errors
    /// The host's, or the other end is not who it must be, or must not be connected to at all.
    pub fn connect(&self, trust: &Trust) -> io::Result<Stream> {
        let protection =
            trust.client(self).map_err(|e| io::Error::new(io::ErrorKind::PermissionDenied, e.to_string()))?;
        let (socket, session) = match self {
            Self::Tcp(address) => {
                let stream = TcpStream::connect(address)?;
                let session = match protection {
                    Protection::Tls(config) => Some(Session::connect(&config, &stream)?),
                    Protection::None => None,
                };
                (Socket::Tcp(stream), session)
            }
            Self::Unix(path) => (Socket::Unix(UnixStream::connect(path)?), None),
        };
        socket.prepare()?;
        Ok(Stream::new(socket, session, self.to_string(), trust))
    }
}

impl Stream {
    /// A socket that is prepared, and a handshake that is done.
    pub(super) fn new(socket: Socket, session: Option<Session>, peer: String, trust: &Trust) -> Self {
        Self { socket, session, peer, complaints: Arc::clone(trust.complaints()) }
    }

    /// Ends the connection, both ways.
    pub fn close(&self) {
        self.socket.close();
    }

    /// Says why the connection ends, if it does not end by itself.
    pub fn complain(&self, why: &dyn std::fmt::Display) {
        self.complaints.say(&self.peer, &why.to_string());
    }

    /// Waits for what arrives next, by way of `buffer`, and appends it; returns `false` when nothing follows.
    ///
    /// # Errors
    /// The host's; [`io::ErrorKind::InvalidData`] when somebody tampers with the connection.
    pub fn read(&self, buffer: &mut [u8], arrived: &mut Vec<u8>) -> io::Result<bool> {
        let before = arrived.len();
        loop {
            if let Some(session) = &self.session {
                // The last message of the handshake may have come with the first of what follows.
                let more = session.open(&[], arrived)?;
                if arrived.len() > before || !more {
                    return Ok(arrived.len() > before);
                }
            }
            let count = match self.socket.read(buffer) {
                Ok(0) => return Ok(false),
                Ok(count) => count,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            };
            match &self.session {
                Some(session) => {
                    session.open(&buffer[..count], arrived)?;
                }
                None => {
                    arrived.extend_from_slice(&buffer[..count]);
                    return Ok(true);
                }
            }
        }
    }

    /// The first message of a peer that says only one before it is answered.
    ///
    /// # Errors
    /// It says nothing, or something else.
    pub fn first_message<M: DeserializeOwned>(&self) -> io::Result<M> {
        let nonsense =
            || io::Error::new(io::ErrorKind::InvalidData, "what answers there speaks another language");
        let (mut buffer, mut arrived) = (read_buffer(), Vec::new());
        self.socket.set_read_timeout(Some(GREETING_TIMEOUT))?;
        loop {
            match self.read(&mut buffer, &mut arrived) {
                Ok(false) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(true) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    return Err(io::Error::new(io::ErrorKind::TimedOut, "no answer"));
                }
                Err(e) => return Err(e),
            }
            if let Some(message) = decode(&mut arrived).map_err(|_| nonsense())? {
                self.socket.set_read_timeout(None)?;
                return if arrived.is_empty() { Ok(message) } else { Err(nonsense()) };
            }
        }
    }

    /// A frame as it goes over the socket. Frames must be sent in the order in which they were sealed.
    ///
    /// # Errors
    /// Nothing can be sent any more.
    pub fn seal(&self, frame: Vec<u8>) -> io::Result<Vec<u8>> {
        self.session
            .as_ref()
            .map_or(Ok(None), |session| session.seal(&frame).map(Some))
            .map(|s| s.unwrap_or(frame))
    }

    /// Sends what is sealed.
    ///
    /// # Errors
    /// The host's, or it takes too long.
    pub fn write_all(&self, sealed: &[u8]) -> io::Result<()> {
        match &self.socket {
            Socket::Tcp(stream) => (&*stream).write_all(sealed),
            Socket::Unix(stream) => (&*stream).write_all(sealed),
        }
    }

    /// Sends what the socket takes without waiting, of what is sealed.
    ///
    /// # Errors
    /// The host's.
    pub fn send_now(&self, sealed: &[u8]) -> io::Result<usize> {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        Ok(match &self.socket {
            Socket::Tcp(stream) => send(stream, sealed, flags)?,
            Socket::Unix(stream) => send(stream, sealed, flags)?,
        })
    }

    #[cfg(test)]
    pub fn renew_keys(&self) {
        self.session.as_ref().unwrap().renew_keys();
    }
}
