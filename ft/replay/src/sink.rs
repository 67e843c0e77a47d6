//! Where entries go when a run is recorded, and where outputs go when it is replayed.
//!
//! Not responsible for: making either.

use gemel_log::{Entry, LogWriter};
use gemel_machine::{At, Output, Stop};
use std::io::Write;

/// Takes entries as a recording makes them.
pub trait EntrySink {
    /// Takes the next entry. Called before the machine meets what is in it.
    ///
    /// # Errors
    /// The reason to end the run.
    fn entry(&mut self, entry: &Entry) -> Result<(), Stop>;

    /// The run has come to `at`: whatever will be handed in later is not before it. `outputs` outputs have left
    /// the machine so far. Called at every stop and after every output, so it must be cheap.
    ///
    /// # Errors
    /// The reason to end the run.
    fn mark(&mut self, _at: At, _outputs: u64) -> Result<(), Stop> {
        Ok(())
    }

    /// Everything handed in so far should leave buffers now (an epoch ended, or the run).
    ///
    /// # Errors
    /// The reason to end the run.
    fn flush(&mut self) -> Result<(), Stop> {
        Ok(())
    }
}

impl<W: Write> EntrySink for LogWriter<W> {
    fn entry(&mut self, entry: &Entry) -> Result<(), Stop> {
        self.append(entry).map_err(|e| Stop::Host(Box::new(e)))
    }

    fn flush(&mut self) -> Result<(), Stop> {
        Self::flush(self).map_err(|e| Stop::Host(Box::new(e)))
    }
}

/// Both, the left one first: a pair that also keeps a log.
impl<A: EntrySink, B: EntrySink> EntrySink for (A, B) {
    fn entry(&mut self, entry: &Entry) -> Result<(), Stop> {
        self.0.entry(entry)?;
        self.1.entry(entry)
    }

    fn mark(&mut self, at: At, outputs: u64) -> Result<(), Stop> {
        self.0.mark(at, outputs)?;
        self.1.mark(at, outputs)
    }

    fn flush(&mut self) -> Result<(), Stop> {
        self.0.flush()?;
        self.1.flush()
    }
}

/// If there is one.
impl<S: EntrySink> EntrySink for Option<S> {
    fn entry(&mut self, entry: &Entry) -> Result<(), Stop> {
        self.as_mut().map_or(Ok(()), |s| s.entry(entry))
    }

    fn mark(&mut self, at: At, outputs: u64) -> Result<(), Stop> {
        self.as_mut().map_or(Ok(()), |s| s.mark(at, outputs))
    }

    fn flush(&mut self) -> Result<(), Stop> {
        self.as_mut().map_or(Ok(()), EntrySink::flush)
    }
}

/// Takes the outputs of a replayed run: a terminal, a ring, a file.
pub trait OutputSink {
    /// Takes the next output; `ordinal` counts all outputs of the run from 0.
    ///
    /// # Errors
    /// The reason to end the run.
    fn output(&mut self, ordinal: u64, at: At, output: &Output) -> Result<(), Stop>;
}

/// Nowhere.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoOutput;

impl OutputSink for NoOutput {
    fn output(&mut self, _ordinal: u64, _at: At, _output: &Output) -> Result<(), Stop> {
        Ok(())
    }
}

impl<F: FnMut(u64, At, &Output) -> Result<(), Stop>> OutputSink for F {
    fn output(&mut self, ordinal: u64, at: At, output: &Output) -> Result<(), Stop> {
        self(ordinal, at, output)
    }
}
