//! Where the bytes go that leave the machine.
//!
//! Not responsible for: when they may leave. [`crate::Live`] hands them on at once; a wrapper that holds outputs back
//! gives `Live` a sink of its own and calls [`Outputs`] later, from any thread.

use crate::SERIAL_PORTS;
use crate::error::HostError;
use std::io;

/// A place for bytes: a terminal, a file, a socket.
pub trait ByteSink: Send {
    /// Its name in messages.
    fn name(&self) -> String;

    /// Takes bytes. May keep them until [`ByteSink::flush`].
    ///
    /// # Errors
    /// What the host said.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Hands on what was kept.
    ///
    /// # Errors
    /// What the host said.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// The run is over: waits, not for long, until everything is delivered.
    fn finish(&mut self) {
        let _ = self.flush();
    }
}

/// Takes the outputs of a machine.
pub trait OutputSink: Send {
    /// A byte from a serial port.
    fn serial(&mut self, port: u8, byte: u8);

    /// A byte from the debug console.
    fn debug(&mut self, byte: u8);

    /// Called at every slice's end and before every wait: what was taken must get on its way.
    ///
    /// # Errors
    /// [`HostError::Output`] for the first byte that could not be delivered since the last call.
    fn flush(&mut self) -> Result<(), HostError>;

    /// The run is over: delivers what is left, without waiting for long.
    fn finish(&mut self);
}

/// A sink that loses everything.
pub struct Null;

impl ByteSink for Null {
    fn name(&self) -> String {
        "null".into()
    }

    fn write(&mut self, _bytes: &[u8]) -> io::Result<()> {
        Ok(())
    }
}

/// A line out of the machine: a sink and what it has not got yet.
struct Line {
    sink: Box<dyn ByteSink>,
    kept: Vec<u8>,
    /// All bytes that ever came.
    total: u64,
}

impl Line {
    fn new(sink: Box<dyn ByteSink>) -> Self {
        Self { sink, kept: Vec::new(), total: 0 }
    }

    fn push(&mut self, byte: u8) {
        self.kept.push(byte);
        self.total += 1;
    }

    fn flush(&mut self) -> Result<(), HostError> {
        if self.kept.is_empty() {
            return Ok(());
        }
        let result = self.sink.write(&self.kept).and_then(|()| self.sink.flush());
        self.kept.clear();
        result.map_err(|e| HostError::Output(self.sink.name(), e))
    }
}

/// The machine's lines, each with its sink.
pub struct Outputs {
    serial: [Line; SERIAL_PORTS],
    debug: Line,
}

impl Outputs {
    /// Lines for the serial ports, in order, and the debug console.
    pub fn new(serial: [Box<dyn ByteSink>; SERIAL_PORTS], debug: Box<dyn ByteSink>) -> Self {
        Self { serial: serial.map(Line::new), debug: Line::new(debug) }
    }

    /// Bytes that have come from each serial port so far.
    pub fn serial_totals(&self) -> [u64; SERIAL_PORTS] {
        std::array::from_fn(|port| self.serial[port].total)
    }
}

impl OutputSink for Outputs {
    fn serial(&mut self, port: u8, byte: u8) {
        if let Some(line) = self.serial.get_mut(usize::from(port)) {
            line.push(byte);
        }
    }

    fn debug(&mut self, byte: u8) {
        self.debug.push(byte);
    }

    fn flush(&mut self) -> Result<(), HostError> {
        self.serial.iter_mut().chain([&mut self.debug]).try_for_each(Line::flush)
    }
    fn finish(&mut self) {
        for line in self.serial.iter_mut().chain([&mut self.debug]) {
            if let Err(e) = line.flush() {
                crate::warn(e);
            }
            line.sink.finish();
        }
    }
}
