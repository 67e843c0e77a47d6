//! A serial line on a socket: one client at a time, bytes as they are.
//!
//! Not responsible for: exactly-once delivery (the pair's console protocol has that). Bytes that the host took over
//! and had not delivered when a connection broke may be lost with it or, when in doubt, come again on the next one.
//!
//! Output goes into a queue that a thread of its own writes from, so that a slow client never holds the guest up.
//! While nobody is connected the queue keeps the latest bytes for whoever comes.

use crate::error::HostError;
use crate::inbox::Inbox;
use crate::outputs::ByteSink;
use crate::signals::spawn;
use crate::sockets::{Address, Listener, Stream};
use parking_lot::{Condvar, Mutex, MutexGuard};
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Bytes kept for a client that is slow or not there; the oldest go first.
const KEPT: usize = 1 << 20;
/// How long the end of a run waits for a client to take the rest.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What the threads of one line share.
#[derive(Default)]
struct Queue {
    bytes: VecDeque<u8>,
    client: Option<Arc<Stream>>,
    /// The writer has bytes in hand.
    writing: bool,
    overflowed: bool,
}

struct Line {
    address: Address,
    server: bool,
    queue: Mutex<Queue>,
    changed: Condvar,
}

impl Line {
    /// Serves one client until it hangs up: its bytes go to `input`.
    fn serve(&self, stream: Stream, input: &dyn Fn(&[u8]) -> bool) {
        let stream = Arc::new(stream);
        self.queue.lock().client = Some(Arc::clone(&stream));
        self.changed.notify_all();
        let mut buffer = [0; 256];
        loop {
            match stream.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) if !input(&buffer[..count]) => break,
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        stream.close();
        self.queue.lock().client = None;
        self.changed.notify_all();
    }

    /// Writes what is queued, for ever.
    fn drain(&self) {
        let mut queue = self.queue.lock();
        loop {
            let client = match &queue.client {
                Some(client) if !queue.bytes.is_empty() => Arc::clone(client),
                _ => {
                    self.changed.wait(&mut queue);
                    continue;
                }
            };
            let count = queue.bytes.len().min(4096);
            let piece: Vec<u8> = queue.bytes.drain(..count).collect();
            queue.writing = true;
            let written = MutexGuard::unlocked(&mut queue, || client.write(&piece));
            queue.writing = false;
            let done = match written {
                Ok(count) => count,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => 0,
                Err(_) => {
                    // The reader sees the end too and makes room for the next client.
                    client.close();
                    queue.client = None;
                    0
                }
            };
            for byte in piece[done..].iter().rev() {
                queue.bytes.push_front(*byte);
            }
            self.changed.notify_all();
        }
    }
}

/// Opens the line. `input` names the serial port that hears what the client says, if any.
pub(super) fn open(
    address: &Address,
    server: bool,
    input: Option<(usize, &Arc<Inbox>)>,
) -> Result<Box<dyn ByteSink>, HostError> {
    let line =
        Arc::new(Line { address: address.clone(), server, queue: Mutex::default(), changed: Condvar::new() });
    let source = input.map(|(_, inbox)| inbox.source());
    let input = input.map(|(port, inbox)| (port, Arc::clone(inbox)));
    let hear = move |bytes: &[u8]| input.as_ref().is_none_or(|(port, inbox)| inbox.serial(*port, bytes));
    let reader = Arc::clone(&line);
    if server {
        let listener = Listener::open(address)?;
        spawn("serial socket", move || {
            let _source = source;
            while let Ok(stream) = listener.accept() {
                reader.serve(stream, &hear);
            }
        })?;
    } else {
        let stream = Stream::open(address)?;
        spawn("serial socket", move || {
            let _source = source;
            reader.serve(stream, &hear);
        })?;
    }
    let writer = Arc::clone(&line);
    spawn("serial writer", move || writer.drain())?;
    Ok(Box::new(Sink(line)))
}

struct Sink(Arc<Line>);

impl ByteSink for Sink {
    fn name(&self) -> String {
        self.0.address.to_string()
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut queue = self.0.queue.lock();
        queue.bytes.extend(bytes);
        let over = queue.bytes.len().saturating_sub(KEPT);
        queue.bytes.drain(..over);
        if over > 0 && queue.client.is_some() && !std::mem::replace(&mut queue.overflowed, true) {
            crate::warn(format_args!("{}: the client is too slow, output is lost", self.0.address));
        }
        drop(queue);
        self.0.changed.notify_all();
        Ok(())
    }

    fn finish(&mut self) {
        let deadline = Instant::now() + LAST_WORDS;
        let mut queue = self.0.queue.lock();
        while queue.client.is_some() && (queue.writing || !queue.bytes.is_empty()) {
            if self.0.changed.wait_until(&mut queue, deadline).timed_out() {
                break;
            }
        }
        drop(queue);
        if let (true, Address::Unix(path)) = (self.0.server, &self.0.address) {
            let _ = std::fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_client_that_comes_late_gets_what_was_said_and_the_next_one_the_rest() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("serial");
        let inbox = Inbox::new();
        let address = Address::Unix(path.clone());
        let mut sink = open(&address, true, Some((0, &inbox))).unwrap();
        sink.write(b"hello ").unwrap();
        let mut client = UnixStream::connect(&path).unwrap();
        sink.write(b"world").unwrap();
        let mut heard = [0; 11];
        client.read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"hello world");
        client.write_all(b"ls").unwrap();
        let mut inputs = crate::Inputs::new(Arc::clone(&inbox));
        assert!(inputs.wait(None, false));
        let typed = inputs.take(gemel_machine::VirtTime(0)).unwrap();
        assert_eq!(typed.map(|i| i.port()), Some(gemel_machine::InputPort::Serial(0)));
        drop(client);
        let mut client = UnixStream::connect(&path).unwrap();
        while client.peer_addr().is_err() {}
        sink.write(b"again").unwrap();
        let mut heard = [0; 5];
        client.read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"again");
        sink.finish();
        assert!(!path.exists());
    }
}
