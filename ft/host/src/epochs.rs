//! A world that writes down the machine's digest at every epoch.
//!
//! Not responsible for: comparing digests (`ft/replay`); two files of this kind can be compared with `cmp`.

use crate::error::HostError;
use gemel_machine::{At, Digest, Input, Stop, StopAt, World, forward_to_world};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// Writes a line for each epoch: count, guest time in ns, and the three parts of the digest.
pub struct Epochs<W> {
    /// The wrapped world.
    pub world: W,
    file: Option<(BufWriter<File>, PathBuf)>,
    every: u64,
    next: u64,
}

impl<W> Epochs<W> {
    /// Wraps a world. `path` is the file, or `None` for no digests; `every` is the length of an epoch in counts.
    ///
    /// # Errors
    /// [`HostError::Path`] when the file cannot be made.
    pub fn new(world: W, path: Option<&Path>, every: u64) -> Result<Self, HostError> {
        let file = path
            .map(|path| {
                let file = File::create(path).map_err(|e| HostError::path("write digests to", path, e))?;
                Ok((BufWriter::new(file), path.to_owned()))
            })
            .transpose()?;
        let every = every.max(1);
        Ok(Self { world, next: if file.is_some() { every } else { u64::MAX }, file, every })
    }

    /// Writes a line for the end of the run, too, and hands the file over to the host.
    ///
    /// # Errors
    /// [`HostError::Output`].
    pub fn finish(&mut self, at: At, digest: Digest) -> Result<(), HostError> {
        self.line(at, digest)?;
        match &mut self.file {
            Some((file, path)) => file.flush().map_err(|e| HostError::Output(path.display().to_string(), e)),
            None => Ok(()),
        }
    }

    fn line(&mut self, at: At, digest: Digest) -> Result<(), HostError> {
        let Some((file, path)) = &mut self.file else { return Ok(()) };
        writeln!(file, "{} {} {digest}", at.position.count, at.time.0)
            .map_err(|e| HostError::Output(path.display().to_string(), e))
    }
}

impl<W: World> World for Epochs<W> {
    fn next_stop(&mut self, at: At) -> StopAt {
        let wanted = self.world.next_stop(at);
        StopAt { count: wanted.count.min(self.next), ..wanted }
    }

    fn poll(&mut self, at: At) -> Result<Option<Input>, Stop> {
        self.world.poll(at)
    }

    forward_to_world!(input_number, idle, now, wake, landed, missed, answer, emit);

    fn digest_due(&self, at: At) -> bool {
        at.position.count >= self.next || self.world.digest_due(at)
    }

    fn digest(&mut self, at: At, digest: Digest) -> Result<(), Stop> {
        if at.position.count >= self.next {
            self.next = (at.position.count / self.every + 1).saturating_mul(self.every);
            self.line(at, digest).map_err(|e| Stop::Host(Box::new(e)))?;
        }
        if self.world.digest_due(at) { self.world.digest(at, digest) } else { Ok(()) }
    }
}
