//! Connections: threads that turn streams into messages and back.
//!
//! Not responsible for: what the messages mean, sockets (`stream`), who may connect (`trust`).

use super::error::PairError;
use super::stream::{Stream, read_buffer};
use crate::protocol::{decode, encode};
use parking_lot::{Condvar, Mutex, MutexGuard};
use rustix::process::setpriority_process;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::marker::PhantomData;
use std::sync::Arc;
use std::{io, thread};

/// Nice value of the pair's own threads.
const URGENT: i32 = -10;

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
        if pending.broken || pending.closing {
            return;
        }
        let Some(frame) = encode(message).ok().and_then(|frame| self.stream.seal(frame).ok()) else {
            pending.broken = true;
            self.stream.close();
            return;
        };
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

    #[cfg(test)]
    pub(super) fn stream(&self) -> &Stream {
        &self.stream
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
/// when the connection is gone, for whatever reason: also when what arrives is no message, of which a line tells.
///
/// # Errors
/// [`PairError::Thread`].
pub fn attend<Out, In: DeserializeOwned>(
    stream: Stream,
    name: &str,
    mut on_message: impl FnMut(In) -> bool + Send + 'static,
    on_close: impl FnOnce() + Send + 'static,
) -> Result<Outgoing<Out>, PairError> {
    let pending = Arc::new((Mutex::new(Pending::default()), Condvar::new()));
    let stream = Arc::new(stream);
    let (incoming, writing, to_write) = (Arc::clone(&stream), Arc::clone(&stream), Arc::clone(&pending));
    spawn(&format!("{name}-out"), move || write_all(&writing, &to_write))?;
    spawn(&format!("{name}-in"), move || {
        if let Err(why) = read_all(&incoming, &mut on_message) {
            incoming.complain(&why);
        }
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

/// # Errors
/// Somebody says what is no message, or tampers with the connection. One that only breaks ends as one that is closed.
fn read_all<M: DeserializeOwned>(stream: &Stream, on_message: &mut impl FnMut(M) -> bool) -> io::Result<()> {
    let (mut buffer, mut arrived) = (read_buffer(), Vec::new());
    loop {
        match stream.read(&mut buffer, &mut arrived) {
            Ok(false) => return Ok(()),
            Ok(true) => {}
            Err(e) if e.kind() == io::ErrorKind::InvalidData => return Err(e),
            Err(_) => return Ok(()),
        }
        while let Some(message) = decode(&mut arrived).map_err(io::Error::other)? {
            if !on_message(message) {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Message;
    use crate::shell::stream::Socket;
    use crate::shell::trust::Trust;
    use crossbeam::channel::unbounded;
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    fn heartbeat(delivered: u64) -> Message {
        Message::Heartbeat { delivered, executed: 0 }
    }

    /// Both ends of a connection over a UNIX socket; what the second hears, and that it closed.
    fn pair() -> (Stream, Stream) {
        let (a, b) = UnixStream::pair().unwrap();
        let stream = |socket| Stream::new(Socket::Unix(socket), None, "test".into(), &Trust::local());
        (stream(a), stream(b))
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
}
