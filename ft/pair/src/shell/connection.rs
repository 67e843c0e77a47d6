//! Connections: addresses, and threads that turn streams into messages and back.
//!
//! Not responsible for: what the messages mean.

use super::error::PairError;
use crate::protocol::{decode, encode};
use parking_lot::{Condvar, Mutex, MutexGuard};
use rustix::net::{SendFlags, send};
use rustix::process::setpriority_process;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::{self, Read, Write};
use std::marker::PhantomData;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use std::{fmt, str, thread};

/// A write that takes longer has a reader that is stopped or gone.
const WRITE_TIMEOUT: Duration = Duration::from_secs(1);

/// A primary that listens says who it is at once.
const GREETING_TIMEOUT: Duration = Duration::from_secs(5);
/// Nice value of the pair's own threads.
const URGENT: i32 = -10;

/// Where to listen or connect.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Address {
    /// `HOST:PORT`; without a host, as QEMU's users write it, all of this machine's addresses.
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
                Ok(Self::Tcp(format!("{}:{port}", if host.is_empty() { "0.0.0.0" } else { host })))
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
        self.set_read_timeout(Some(GREETING_TIMEOUT))?;
        loop {
            match self.read(&mut buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => arrived.extend_from_slice(&buffer[..n]),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    return Err(io::Error::new(io::ErrorKind::TimedOut, "no answer"));
                }
                Err(e) => return Err(e),
            }
            if let Some(message) = decode(&mut arrived).map_err(|_| nonsense())? {
                self.set_read_timeout(None)?;
                return if arrived.is_empty() { Ok(message) } else { Err(nonsense()) };
            }
        }
    }

    fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.set_read_timeout(timeout),
            Self::Unix(stream) => stream.set_read_timeout(timeout),
        }
    }

    fn write_all(&self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => (&*stream).write_all(bytes),
            Self::Unix(stream) => (&*stream).write_all(bytes),
        }
    }

    /// Sends what the socket takes without waiting.
    fn send_now(&self, bytes: &[u8]) -> io::Result<usize> {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        Ok(match self {
            Self::Tcp(stream) => send(stream, bytes, flags)?,
            Self::Unix(stream) => send(stream, bytes, flags)?,
        })
    }
}

#[derive(Default)]
struct Pending {
    bytes: Vec<u8>,
    /// The writer's thread is at it: what comes now comes after.
    writing: bool,
    /// Close when everything is written.
    closing: bool,
    /// Nothing can be written any more.
    broken: bool,
}

/// The sending end of a connection.
pub struct Outgoing<M> {
    stream: Arc<Stream>,
    pending: Arc<(Mutex<Pending>, Condvar)>,
    messages: PhantomData<fn(M)>,
}

impl<M: Serialize> Outgoing<M> {
    /// Sends a message without waiting: at once, from this thread, if the connection takes it, since every change of threads
    /// costs time on a busy host; otherwise the writer's thread does. What cannot be sent because the connection is gone is
    /// lost; the reader notices.
    pub fn send(&self, message: &M) {
        let (pending, changed) = &*self.pending;
        let mut pending = pending.lock();
        let Ok(frame) = encode(message) else {
            pending.broken = true;
            self.stream.close();
            return;
        };
        if pending.broken || pending.closing {
            return;
        }
        let mut sent = 0;
        if !pending.writing && pending.bytes.is_empty() {
            // A socket that is full or broken takes nothing; the writer's thread finds out which.
            sent = self.stream.send_now(&frame).unwrap_or(0);
        }
        if sent < frame.len() {
            pending.bytes.extend_from_slice(&frame[sent..]);
            changed.notify_one();
        }
    }
}

impl<M> Outgoing<M> {
    /// Closes the connection after what was sent.
    pub fn close(&self) {
        let (pending, changed) = &*self.pending;
        pending.lock().closing = true;
        changed.notify_one();
    }

    /// Bytes that the connection has not taken yet.
    pub fn waiting(&self) -> usize {
        let pending = self.pending.0.lock();
        if pending.broken { 0 } else { pending.bytes.len() + usize::from(pending.writing) }
    }
}

impl<M> Drop for Outgoing<M> {
    fn drop(&mut self) {
        self.close();
    }
}

/// Starts a connection's two threads. `on_message` gets what arrives until it says `false`, `on_close` is called once
/// when the connection is gone, for whatever reason: also when what arrives is no message.
///
/// # Errors
/// No thread, no second handle.
pub fn attend<Out, In: DeserializeOwned>(
    stream: Stream,
    name: &str,
    mut on_message: impl FnMut(In) -> bool + Send + 'static,
    on_close: impl FnOnce() + Send + 'static,
) -> Result<Outgoing<Out>, PairError> {
    let pending = Arc::new((Mutex::new(Pending::default()), Condvar::new()));
    let mut incoming = stream.try_clone().map_err(PairError::Thread)?;
    let stream = Arc::new(stream);
    let (writing, to_write) = (Arc::clone(&stream), Arc::clone(&pending));
    spawn(&format!("{name}-out"), move || write_all(&writing, &to_write))?;
    spawn(&format!("{name}-in"), move || {
        read_all(&mut incoming, &mut on_message);
        incoming.close();
        on_close();
    })?;
    Ok(Outgoing { stream, pending, messages: PhantomData })
}

/// Starts a thread. It ends with the process at the latest.
///
/// # Errors
/// [`PairError::Thread`].
pub fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<(), PairError> {
    let urgent = move || {
        // These threads do little, and a peer that hears nothing of them suspects this side: they go before the machine's
        // where the host allows it.
        let _ = setpriority_process(None, URGENT);
        body();
    };
    thread::Builder::new().name(name.into()).spawn(urgent).map(drop).map_err(PairError::Thread)
}

fn write_all(stream: &Stream, (pending, changed): &(Mutex<Pending>, Condvar)) {
    let mut bytes = Vec::new();
    let mut state = pending.lock();
    while !state.broken {
        if !state.bytes.is_empty() {
            std::mem::swap(&mut bytes, &mut state.bytes);
            state.writing = true;
            let written = MutexGuard::unlocked(&mut state, || stream.write_all(&bytes));
            bytes.clear();
            state.writing = false;
            state.broken |= written.is_err();
        } else if state.closing {
            break;
        } else {
            changed.wait(&mut state);
        }
    }
    state.broken = true;
    drop(state);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Message;
    use crossbeam::channel::unbounded;

    fn heartbeat(delivered: u64) -> Message {
        Message::Heartbeat { delivered, executed: 0 }
    }

    /// Both ends of a connection over a UNIX socket; what the second hears, and that it closed.
    fn pair() -> (Stream, Stream) {
        let (a, b) = UnixStream::pair().unwrap();
        (Stream::Unix(a).prepare().unwrap(), Stream::Unix(b).prepare().unwrap())
    }

    #[test]
    fn messages_come_in_order_also_when_the_socket_is_full_and_before_the_end() {
        let (a, b) = pair();
        let (heard, hear) = unbounded();
        let on_message = move |message: Message| {
            if heard.is_empty() {
                thread::sleep(Duration::from_millis(20)); // let the sender run into a full socket
            }
            heard.send(message).is_ok()
        };
        let (closed, wait_closed) = unbounded();
        let out: Outgoing<Message> = attend(a, "a", |_: Message| true, || {}).unwrap();
        let _back: Outgoing<Message> = attend(b, "b", on_message, move || closed.send(()).unwrap()).unwrap();
        for i in 0..1000 {
            out.send(&heartbeat(i));
            out.send(&Message::Entries { sequence: i, bytes: vec![i as u8; 2000] });
        }
        out.close();
        wait_closed.recv_timeout(Duration::from_secs(30)).unwrap();
        let messages: Vec<Message> = hear.try_iter().collect();
        assert_eq!(messages.len(), 2000);
        for (i, two) in (0..).zip(messages.chunks(2)) {
            assert_eq!(two[0], heartbeat(i));
            assert_eq!(two[1], Message::Entries { sequence: i, bytes: vec![i as u8; 2000] });
        }
    }

    #[test]
    fn nonsense_closes_the_connection() {
        for nonsense in [&[0xff; 64][..], &[3, 0, 0, 0, 0xee, 0xee, 0xee], &[0, 0, 0, 0]] {
            let (a, b) = pair();
            let (closed, wait_closed) = unbounded();
            let _out: Outgoing<Message> =
                attend(b, "b", |_: Message| true, move || closed.send(()).unwrap()).unwrap();
            a.write_all(nonsense).unwrap();
            wait_closed.recv_timeout(Duration::from_secs(30)).unwrap();
        }
    }

    #[test]
    fn addresses_are_read_as_they_are_shown() {
        for (text, shown) in
            [("1.2.3.4:5", "1.2.3.4:5"), (":7", "0.0.0.0:7"), ("tcp:h:7", "h:7"), ("unix:/x", "unix:/x")]
        {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), shown);
        }
        for bad in ["", "host", "host:port", "unix:", "1.2.3.4:70000"] {
            assert!(bad.parse::<Address>().is_err(), "{bad}");
        }
    }
}
