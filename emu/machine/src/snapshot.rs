//! Snapshots: a fixed header outside any codec, then sections with a checksum each.
//!
//! Not responsible for: when one is taken (`ft`), disks (the world's).
//!
//! Layout (little-endian): magic `GEMELSNP`, format u16, count kind u8, zero u8, position 3 x u64, guest time u64,
//! machine id u64, section count u32, CRC-32 of all before. Then per section: name length u8, name, version u16,
//! body length u64, CRC-32 of the body u32, body. `docs/snapshot-format.md` has the same as prose.

use crate::clock::Clock;
use crate::device::{Section, SectionError};
use crate::machine::Machine;
use crate::position::{Position, VirtTime};
use crate::ram::PAGE_SIZE;
use crate::vcpu::EngineError;
use crate::world::At;
use gemel_x86::CpuState;

const MAGIC: &[u8; 8] = b"GEMELSNP";
const FORMAT: u16 = 1;
const CLOCK_VERSION: u16 = 2;
/// The section of RAM's pages.
const RAM: &str = "ram";
/// Counts and nanoseconds that no run reaches: 146 years.
const MOST: u64 = 1 << 62;

/// Why a snapshot cannot be restored. The machine is then not to be used further.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// Not a snapshot, or another format.
    #[error("this is no snapshot of format {FORMAT}")]
    Format,
    /// It ends early or a checksum is wrong.
    #[error("the snapshot is damaged in {0}")]
    Damaged(String),
    /// It is of another machine.
    #[error("the snapshot is of a machine with another configuration ({found:016x}, this is {wanted:016x})")]
    Machine {
        /// This machine's id.
        wanted: u64,
        /// The snapshot's.
        found: u64,
    },
    /// A section that this machine has no part for, or a part without a section.
    #[error("the snapshot {0}")]
    Sections(String),
    /// A device refused its section.
    #[error(transparent)]
    Device(#[from] SectionError),
    /// The engine refused the state.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

impl Machine {
    /// The whole machine at this boundary.
    ///
    /// # Errors
    /// Host trouble of the engine.
    pub fn snapshot(&mut self) -> Result<Vec<u8>, EngineError> {
        let mut sections = self.sections()?;
        let mut ram = Vec::new();
        for (page, content) in self.ram.used_pages() {
            ram.extend_from_slice(&page.to_le_bytes());
            ram.extend_from_slice(&content);
        }
        sections.push((RAM, Section { version: 1, body: ram }));
        Ok(self.encode(sections))
    }

    /// The same without a section for RAM, for who has its pages.
    ///
    /// # Errors
    /// Host trouble of the engine.
    pub fn snapshot_beside_ram(&mut self) -> Result<Vec<u8>, EngineError> {
        let sections = self.sections()?;
        Ok(self.encode(sections))
    }

    /// All sections but RAM's.
    fn sections(&mut self) -> Result<Vec<(&'static str, Section)>, EngineError> {
        let cpu = Section { version: CpuState::VERSION, body: self.vcpu.save()?.to_bytes() };
        let mut sections = vec![("cpu", cpu), ("clock", Section::of(CLOCK_VERSION, &self.clock))];
        sections.push(("wiring", self.bus.save_wiring()));
        sections.extend(self.bus.save());
        Ok(sections)
    }

    fn encode(&self, sections: Vec<(&'static str, Section)>) -> Vec<u8> {
        let at = self.at();
        let mut out = Vec::new();
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&FORMAT.to_le_bytes());
        out.extend_from_slice(&[self.clock.reckoning().count_kind() as u8, 0]);
        for word in [at.position.count, at.position.rip, at.position.rcx, at.time.0, self.id] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        out.extend_from_slice(&(sections.len() as u32).to_le_bytes());
        out.extend_from_slice(&crc32fast::hash(&out).to_le_bytes());
        for (name, Section { version, body }) in sections {
            out.push(name.len() as u8);
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(&version.to_le_bytes());
            out.extend_from_slice(&(body.len() as u64).to_le_bytes());
            out.extend_from_slice(&crc32fast::hash(&body).to_le_bytes());
            out.extend_from_slice(&body);
        }
        out
    }

    /// Takes a snapshot on. Every section must have its part and every part its section.
    ///
    /// # Errors
    /// See [`SnapshotError`].
    pub fn restore(&mut self, snapshot: &[u8]) -> Result<(), SnapshotError> {
        self.restore_parts(snapshot, &[RAM])
    }

    /// Takes a [`Machine::snapshot_beside_ram`] on. RAM must be what it was there, before this call.
    ///
    /// # Errors
    /// See [`SnapshotError`].
    pub fn restore_beside_ram(&mut self, snapshot: &[u8]) -> Result<(), SnapshotError> {
        self.restore_parts(snapshot, &[])
    }

    fn restore_parts(&mut self, snapshot: &[u8], ram: &[&'static str]) -> Result<(), SnapshotError> {
        let mut reader = Reader { all: snapshot, at: 0 };
        let (at, count) = reader.header(self.id)?;
        let mut left: Vec<&'static str> = [&["cpu", "clock", "wiring"], ram].concat();
        left.extend(self.bus.save().into_iter().map(|(name, _)| name));
        let mut cpu = None;
        for _ in 0..count {
            let (name, section) = reader.section()?;
            let Some(at) = left.iter().position(|n| *n == name) else {
                return Err(SnapshotError::Sections(format!(
                    "has a section '{name}' that this machine has no part for"
                )));
            };
            left.swap_remove(at);
            match name.as_str() {
                "cpu" => {
                    let damaged = |_| SnapshotError::Damaged("the CPU state".into());
                    cpu = Some(CpuState::from_bytes(&section.body).map_err(damaged)?);
                }
                "clock" => {
                    let clock = section.read::<Clock>("clock", CLOCK_VERSION)?;
                    if clock.reckoning() != self.clock.reckoning() {
                        return Err(SnapshotError::Damaged("the clock".into()));
                    }
                    self.clock = clock;
                }
                "wiring" => self.bus.restore_wiring(&section)?,
                RAM => self.restore_ram(&section.body)?,
                _ => {
                    self.bus.restore(&name, &section)?;
                }
            }
        }
        if let Some(name) = left.first() {
            return Err(SnapshotError::Sections(format!("has no section '{name}'")));
        }
        if reader.at != snapshot.len() {
            return Err(SnapshotError::Sections("has bytes after its last section".into()));
        }
        if let Some(cpu) = cpu {
            self.vcpu.restore(&cpu)?;
        }
        // No run gets to the end of counting or of time, and what comes near it would overflow.
        if self.at() != at || at.position.count > MOST || at.time.0 > MOST {
            return Err(SnapshotError::Damaged("its position".into()));
        }
        Ok(())
    }

    fn restore_ram(&mut self, body: &[u8]) -> Result<(), SnapshotError> {
        let damaged = || SnapshotError::Damaged("ram".into());
        self.ram.clear();
        if !body.len().is_multiple_of(4 + PAGE_SIZE) {
            return Err(damaged());
        }
        for piece in body.chunks_exact(4 + PAGE_SIZE) {
            let page = u32::from_le_bytes([piece[0], piece[1], piece[2], piece[3]]);
            if page as usize >= self.ram.pages() {
                return Err(damaged());
            }
            self.ram.write(self.ram.address_of(page), &piece[4..]).map_err(|_| damaged())?;
        }
        Ok(())
    }
}

struct Reader<'a> {
    all: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn bytes(&mut self, n: usize, what: &str) -> Result<&'a [u8], SnapshotError> {
        let end = self.at.checked_add(n).filter(|end| *end <= self.all.len());
        let end = end.ok_or_else(|| SnapshotError::Damaged(what.into()))?;
        let piece = &self.all[self.at..end];
        self.at = end;
        Ok(piece)
    }

    fn number(&mut self, n: usize, what: &str) -> Result<u64, SnapshotError> {
        Ok(self.bytes(n, what)?.iter().rev().fold(0, |v, b| v << 8 | u64::from(*b)))
    }

    /// Checks the header; returns where the machine was, and the number of sections.
    fn header(&mut self, wanted: u64) -> Result<(At, u64), SnapshotError> {
        if self.bytes(8, "the header")? != MAGIC || self.number(2, "the header")? != u64::from(FORMAT) {
            return Err(SnapshotError::Format);
        }
        self.bytes(2, "the header")?;
        let mut word = || self.number(8, "the header");
        let position = Position { count: word()?, rip: word()?, rcx: word()? };
        let at = At { position, time: VirtTime(word()?) };
        let found = self.number(8, "the header")?;
        let count = self.number(4, "the header")?;
        let crc = crc32fast::hash(&self.all[..self.at]);
        if self.number(4, "the header")? != u64::from(crc) {
            return Err(SnapshotError::Damaged("the header".into()));
        }
        if found != wanted {
            return Err(SnapshotError::Machine { wanted, found });
        }
        Ok((at, count))
    }

    fn section(&mut self) -> Result<(String, Section), SnapshotError> {
        let len = self.number(1, "a section's name")? as usize;
        let name = String::from_utf8_lossy(self.bytes(len, "a section's name")?).into_owned();
        let version = self.number(2, &name)? as u16;
        let len =
            usize::try_from(self.number(8, &name)?).map_err(|_| SnapshotError::Damaged(name.clone()))?;
        let crc = self.number(4, &name)?;
        let body = self.bytes(len, &name)?.to_vec();
        if u64::from(crc32fast::hash(&body)) != crc {
            return Err(SnapshotError::Damaged(name));
        }
        Ok((name, Section { version, body }))
    }
}
