//! Connections: addresses, and threads that turn streams into messages and back.
//!
//! Not responsible for: what the messages mean.

use super::error::PairError;
use crate::protocol::{MAX_FRAME, decode, encode};
use crossbeam::channel::{Receiver, Sender, unbounded};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;
use std::{fmt, str, thread};

/// A write that takes longer has a reader that is stopped or gone.
const WRITE_TIMEOUT: Duration = Duration::from_secs(1);

/// Where to listen or connect.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Address {
    /// `HOST:PORT`.
    Tcp(String),
    /// `unix:PATH`.
    Unix(PathBuf),
}

impl str::FromStr for Address {
    type Err = PairError;

    fn from_str(text: &str) -> Result<Self, PairError> {
        let refuse = || PairError::Address(text.into());
        match text.strip_prefix("unix:") {
            Some("") => Err(refuse()),
            Some(path) => Ok(Self::Unix(path.into())),
            None => {
                let (host, port) =
                    text.strip_prefix("tcp:").unwrap_or(text).rsplit_once(':').ok_or_else(refuse)?;
                port.parse::<u16>().map_err(|_| refuse())?;
                Ok(Self::Tcp(format!("{}:{port}", if host.is_empty() { "127.0.0.1" } else { host })))
            }
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => f.write_str(address),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A listening socket.
pub enum Listener {
    /// TCP.
    Tcp(TcpListener),
    /// A UNIX socket.
    Unix(UnixListener),
}

/// A connected socket.
pub enum Stream {
    /// TCP.
    Tcp(TcpStream),
    /// A UNIX socket.
    Unix(UnixStream),
}

impl Address {
    /// Listens here.
    ///
    /// # Errors
    /// [`PairError::Listen`].
    pub fn listen(&self) -> Result<Listener, PairError> {
        let listener = match self {
            Self::Tcp(address) => TcpListener::bind(address).map(Listener::Tcp),
            Self::Unix(path) => {
                // A socket that nobody listens on is left over from a process that died.
                if UnixStream::connect(path).is_err_and(|e| e.kind() == io::ErrorKind::ConnectionRefused) {
                    let _ = std::fs::remove_file(path);
                }
                UnixListener::bind(path).map(Listener::Unix)
            }
        };
        listener.map_err(|e| PairError::Listen(self.clone(), e))
    }

    /// Connects here.
    ///
    /// # Errors
    /// The host's.
    pub fn connect(&self) -> io::Result<Stream> {
        let stream = match self {
            Self::Tcp(address) => Stream::Tcp(TcpStream::connect(address)?),
            Self::Unix(path) => Stream::Unix(UnixStream::connect(path)?),
        };
        stream.prepare()
    }
}

impl Listener {
    /// Where this listens, asked to listen on `wanted`.
    pub fn address(&self, wanted: &Address) -> Address {
        match self {
            Self::Tcp(listener) => {
                listener.local_addr().map_or_else(|_| wanted.clone(), |a| Address::Tcp(a.to_string()))
            }
            Self::Unix(_) => wanted.clone(),
        }
    }

    /// The next connection.
    ///
    /// # Errors
    /// The host's.
    pub fn accept(&self) -> io::Result<Stream> {
        match self {
            Self::Tcp(listener) => Stream::Tcp(listener.accept()?.0),
            Self::Unix(listener) => Stream::Unix(listener.accept()?.0),
        }
        .prepare()
    }
}

impl Stream {
    fn prepare(self) -> io::Result<Self> {
        match &self {
            Self::Tcp(stream) => {
                stream.set_nodelay(true)?; // a mark must not wait for the next one
                stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
            }
            Self::Unix(stream) => stream.set_write_timeout(Some(WRITE_TIMEOUT))?,
        }
        Ok(self)
    }

    fn try_clone(&self) -> io::Result<Self> {
        Ok(match self {
            Self::Tcp(stream) => Self::Tcp(stream.try_clone()?),
            Self::Unix(stream) => Self::Unix(stream.try_clone()?),
        })
    }

    fn close(&self) {
        // A connection that is closed already is what is wanted.
        let _ = match self {
            Self::Tcp(stream) => stream.shutdown(Shutdown::Both),
            Self::Unix(stream) => stream.shutdown(Shutdown::Both),
        };
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buffer),
            Self::Unix(stream) => stream.read(buffer),
        }
    }

    /// The first message of a peer that says only one before it is answered.
    pub(super) fn first_message<M: DeserializeOwned>(&mut self) -> io::Result<M> {
        let nonsense =
            || io::Error::new(io::ErrorKind::InvalidData, "what answers there speaks another language");
        let mut arrived = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            match self.read(&mut buffer)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                n => arrived.extend_from_slice(&buffer[..n]),
            }
            if let Some(message) = decode(&mut arrived).map_err(|_| nonsense())? {
                return if arrived.is_empty() { Ok(message) } else { Err(nonsense()) };
            }
        }
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.write_all(bytes),
            Self::Unix(stream) => stream.write_all(bytes),
        }
    }
}

/// The sending end of a connection.
#[derive(Clone)]
pub struct Outgoing<M> {
    queue: Sender<Option<M>>,
    waiting: Arc<AtomicUsize>,
}

impl<M> Outgoing<M> {
    /// Queues a message. What cannot be sent because the connection is gone is lost; the reader notices.
    pub fn send(&self, message: M) {
        self.waiting.fetch_add(1, Relaxed);
        let _ = self.queue.send(Some(message));
    }

    /// Closes the connection after what was queued.
    pub fn close(&self) {
        let _ = self.queue.send(None);
    }

    /// Messages that are not written out.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Relaxed)
    }
}

/// Starts a connection's two threads. `on_message` gets what arrives until it says `false`, `on_close` is called once
/// when the connection is gone, for whatever reason: also when what arrives is no message.
///
/// # Errors
/// No thread, no second handle.
pub fn attend<Out: Serialize + Send + 'static, In: DeserializeOwned>(
    stream: Stream,
    name: &str,
    mut on_message: impl FnMut(In) -> bool + Send + 'static,
    on_close: impl FnOnce() + Send + 'static,
) -> Result<Outgoing<Out>, PairError> {
    let (queue, queued) = unbounded();
    let waiting = Arc::new(AtomicUsize::new(0));
    let mut incoming = stream.try_clone().map_err(PairError::Thread)?;
    let counter = Arc::clone(&waiting);
    spawn(&format!("{name}-out"), move || write_all(stream, &queued, &counter))?;
    spawn(&format!("{name}-in"), move || {
        read_all(&mut incoming, &mut on_message);
        incoming.close();
        on_close();
    })?;
    Ok(Outgoing { queue, waiting })
}

/// Starts a thread. It ends with the process at the latest.
///
/// # Errors
/// [`PairError::Thread`].
pub fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<(), PairError> {
    thread::Builder::new().name(name.into()).spawn(body).map(drop).map_err(PairError::Thread)
}

fn write_all<M: Serialize>(mut stream: Stream, queued: &Receiver<Option<M>>, waiting: &AtomicUsize) {
    let mut frames = Vec::new();
    'open: while let Ok(Some(message)) = queued.recv() {
        // Everything that waits goes out in one write.
        frames.clear();
        let mut next = Some(message);
        let (mut last, mut count) = (false, 0);
        while let Some(message) = next.take() {
            count += 1;
            match encode(&message) {
                Ok(frame) => frames.extend_from_slice(&frame),
                Err(_) => break 'open,
            }
            if frames.len() < MAX_FRAME {
                match queued.try_recv() {
                    Ok(Some(message)) => next = Some(message),
                    Ok(None) => last = true,
                    Err(_) => {}
                }
            }
        }
        let written = stream.write_all(&frames);
        waiting.fetch_sub(count, Relaxed);
        if written.is_err() || last {
            break;
        }
    }
    waiting.store(0, Relaxed);
    stream.close();
}

fn read_all<M: DeserializeOwned>(stream: &mut Stream, on_message: &mut impl FnMut(M) -> bool) {
    let mut arrived = Vec::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return,
            Ok(n) => arrived.extend_from_slice(&buffer[..n]),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => return,
        }
        loop {
            match decode(&mut arrived) {
                Ok(Some(message)) => {
                    if !on_message(message) {
                        return;
                    }
                }
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
}
