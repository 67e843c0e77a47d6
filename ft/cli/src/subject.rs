//! Logs and bundles as what `gemel-diverge` compares.
//!
//! Not responsible for: comparing.

use crate::checker::growing::Growing;
use crate::logged::{self, FileOptions};
use crate::machine::{self, Built, Images};
use crate::scratch::Scratch;
use anyhow::{Context, Result};
use gemel_devices::board;
use gemel_diverge::{START, Subject, WINDOW};
use gemel_host::Inbox;
use gemel_host::disk::Changes;
use gemel_log::{Engine, Header, LogReader};
use gemel_machine::Machine;
use gemel_replay::{LogSource, NoDisks, Progress, ReplayDisks};
use std::error::Error;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

/// What a machine starts from.
enum Start {
    /// Power-on, with these images.
    PowerOn(Images),
    /// A machine that was copied while it ran, on one at power-on.
    Cut(Images, Box<gemel_replay::Start>),
    /// A bundle's snapshot.
    Snapshot(Vec<u8>),
}

/// A log, or a bundle, with an engine to follow it: the interpreter unless said otherwise.
#[derive(Clone)]
pub struct Followed {
    name: String,
    log: PathBuf,
    header: Header,
    engine: Engine,
    start: Rc<Start>,
    disks: Option<Scratch>,
    /// Who ends the wait for a log that still grows.
    grows: Option<Arc<Inbox>>,
}

impl Followed {
    /// A log file, or a directory that a comparison left behind.
    ///
    /// # Errors
    /// Files that are missing, or not what they must be.
    pub fn open(path: &Path, files: &FileOptions) -> Result<Self> {
        let name = path.display().to_string();
        if path.is_dir() {
            let (log, start) = (path.join(WINDOW), path.join(START));
            let header = logged::open(&log)?.header().clone();
            let snapshot =
                std::fs::read(&start).with_context(|| format!("cannot read {}", start.display()))?;
            let (engine, start) = (Engine::Interp, Rc::new(Start::Snapshot(snapshot)));
            return Ok(Self { name, log, header, engine, start, disks: None, grows: None });
        }
        let header = logged::open(path)?.header().clone();
        let images = files.images(&header)?;
        let disks = files.disks(&header, Changes::Refused)?.map(Scratch::new);
        let start = match logged::start(path, &header)? {
            Some(start) => Start::Cut(images, Box::new(start)),
            None => Start::PowerOn(images),
        };
        let (engine, start) = (Engine::Interp, Rc::new(start));
        Ok(Self { name, log: path.to_owned(), header, engine, start, disks, grows: None })
    }

    /// The same under another name.
    pub fn named(&self, name: &str) -> Self {
        Self { name: name.into(), ..self.clone() }
    }

    /// The same on another engine.
    pub fn on(self, engine: Engine) -> Self {
        Self { engine, ..self }
    }

    /// The same, of a log that still grows; `inbox` can end the wait for what comes.
    pub fn growing(self, inbox: &Arc<Inbox>) -> Self {
        Self { grows: Some(Arc::clone(inbox)), ..self }
    }

    /// The log file.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// The log's header.
    pub fn header(&self) -> &Header {
        &self.header
    }
}

impl Subject for Followed {
    fn name(&self) -> &str {
        &self.name
    }

    fn machine(&self) -> Result<Machine, Box<dyn Error + Send + Sync>> {
        let spec = &self.header.machine;
        match self.start.as_ref() {
            Start::PowerOn(images) => {
                Ok(machine::build(spec, self.engine, &images.kernel, &images.initrd)?.machine)
            }
            Start::Cut(images, start) => {
                let Built { mut machine, .. } =
                    machine::build(spec, self.engine, &images.kernel, &images.initrd)?;
                machine.restore(&start.snapshot)?;
                Ok(machine)
            }
            Start::Snapshot(snapshot) => {
                let Built { mut machine, .. } = machine::bare(spec, self.engine)?;
                machine.restore(snapshot)?;
                Ok(machine)
            }
        }
    }

    fn source(&self) -> Result<LogSource<Box<dyn Read>>, Box<dyn Error + Send + Sync>> {
        let file: Box<dyn Read> = match &self.grows {
            Some(inbox) => Box::new(BufReader::with_capacity(1 << 18, Growing::open(&self.log, inbox)?)),
            None => Box::new(BufReader::with_capacity(1 << 18, File::open(&self.log)?)),
        };
        Ok(LogSource::new(LogReader::new(file)?))
    }

    fn disks(&self) -> Result<Box<dyn ReplayDisks>, Box<dyn Error + Send + Sync>> {
        Ok(match &self.disks {
            Some(disks) => Box::new(disks.clone()),
            None => Box::new(NoDisks),
        })
    }

    fn progress(&self) -> Result<Progress, Box<dyn Error + Send + Sync>> {
        match self.start.as_ref() {
            Start::PowerOn(_) => Ok(Progress::default()),
            Start::Cut(_, start) => Ok(start.progress.clone()),
            Start::Snapshot(_) => Ok(Progress::with_requests(board::disk_requests(self.machine()?.bus()))),
        }
    }
}
