//! The standby's end of a clone: parts into a machine at power-on.
//!
//! Not responsible for: the log from the cut on (`feed`), what comes of it (`standby`).

use super::DiskBlocks;
use super::part::Part;
use gemel_machine::Machine;
use gemel_machine::ram::PAGE_SIZE;
use gemel_replay::Progress;
use std::sync::Arc;

/// Digests in one part.
const BATCH: u64 = 4096;
/// A machine's state without RAM that is longer is none.
const LONGEST: usize = 1 << 30;

/// What became of the machine.
pub(in crate::shell) struct Received {
    /// What its run had come to.
    pub(in crate::shell) progress: Progress,
}

/// A machine that is on its way.
#[derive(Default)]
pub(in crate::shell) struct Receiving {
    machine: Vec<u8>,
    progress: Vec<u8>,
}

impl Receiving {
    /// Says what the disks hold, and makes the machine ready to become another: what it has from power-on stays only for a
    /// reset.
    pub(in crate::shell) fn begin(
        machine: &Machine,
        disks: &[Arc<dyn DiskBlocks>],
        say: impl Fn(&Part),
    ) -> Self {
        for (disk, handle) in (0..).zip(disks) {
            for first in (0..handle.count()).step_by(BATCH as usize) {
                let blocks = first..handle.count().min(first + BATCH);
                // One that cannot be read is not equal.
                let digests = blocks.map(|block| handle.digest(block).unwrap_or_default()).collect();
                say(&Part::Digests { disk, first, digests });
            }
        }
        machine.ram().clear();
        say(&Part::Ready);
        Self::default()
    }

    /// Takes a part. The last one makes the machine what it was at the cut.
    ///
    /// # Errors
    /// What is wrong with it; the machine is then of no use.
    pub(in crate::shell) fn take(
        &mut self,
        machine: &mut Machine,
        disks: &[Arc<dyn DiskBlocks>],
        part: Part,
    ) -> Result<Option<Received>, String> {
        let ram = machine.ram();
        match part {
            Part::Pages { numbers, content } => {
                if content.len() != numbers.len() * PAGE_SIZE {
                    return Err("pages of another size".into());
                }
                for (page, content) in numbers.iter().zip(content.chunks_exact(PAGE_SIZE)) {
                    put(ram, *page, content)?;
                }
            }
            Part::Zeros(numbers) => {
                numbers.iter().try_for_each(|page| put(ram, *page, &[0; PAGE_SIZE]))?;
            }
            Part::Block { disk, number, data } => {
                let handle = disks.get(usize::from(disk)).ok_or("a block of a disk that is not here")?;
                handle.write(number, &data).map_err(|e| {
                    format!("block {number} of disk {disk} cannot be written here: {e}; give it an image of its own")
                })?;
            }
            Part::Machine(piece) => add(&mut self.machine, &piece)?,
            Part::Progress(piece) => add(&mut self.progress, &piece)?,
            Part::End => return self.finish(machine, disks).map(Some),
            Part::Digests { .. } | Part::Ready | Part::Taken(_) => return Err("a part for a leader".into()),
        }
        Ok(None)
    }

    fn finish(&self, machine: &mut Machine, disks: &[Arc<dyn DiskBlocks>]) -> Result<Received, String> {
        machine.restore_beside_ram(&self.machine).map_err(|e| e.to_string())?;
        // Nothing of what the guest wrote before the cut can be lost from here on.
        for disk in disks {
            disk.flush().map_err(|e| format!("a disk image cannot be made durable: {e}"))?;
        }
        let progress = Progress::from_bytes(&self.progress).map_err(|e| e.to_string())?;
        Ok(Received { progress })
    }
}

fn add(to: &mut Vec<u8>, piece: &[u8]) -> Result<(), String> {
    if to.len() + piece.len() > LONGEST {
        return Err("a machine's state of more than 1 GiB".into());
    }
    to.extend_from_slice(piece);
    Ok(())
}

fn put(ram: &gemel_machine::GuestRam, page: u32, content: &[u8]) -> Result<(), String> {
    if page as usize >= ram.pages() {
        return Err(format!("page {page}, and RAM has {}", ram.pages()));
    }
    ram.write(ram.address_of(page), content).map_err(|e| e.to_string())
}
