//! What the machine's thread does for a clone between two runs.
//!
//! Not responsible for: asking for it (`send`).

use super::desk::{Answer, CutState, Errand};
use crate::protocol::Event;
use crate::shell::run::Sinks;
use crate::shell::side::Side;
use gemel_log::Header;
use gemel_machine::ram::PAGE_SIZE;
use gemel_machine::{Machine, World};
use gemel_replay::Record;
use std::error::Error;
use std::sync::Arc;
use std::time::Instant;

type Trouble = Box<dyn Error + Send + Sync>;

/// Does what is wanted at the side's desk, if anything is.
pub(in crate::shell) fn serve<W: World>(
    side: &Arc<Side>,
    machine: &mut Machine,
    record: &mut Record<W, Sinks>,
    header: &Header,
) {
    let Some(errand) = side.desk.take() else { return };
    let done = perform(side, machine, record, header, errand);
    side.desk.answer(done.unwrap_or_else(|why| Answer::Failed(why.to_string())));
}

fn perform<W: World>(
    side: &Arc<Side>,
    machine: &mut Machine,
    record: &mut Record<W, Sinks>,
    header: &Header,
    errand: Errand,
) -> Result<Answer, Trouble> {
    let started = Instant::now();
    // The engine's marks are complete behind this.
    machine.vcpu().save()?;
    let (peer, costs, mut content) = match errand {
        Errand::Follow => {
            let ram = Arc::clone(machine.ram());
            ram.follow_changes();
            let pages = ram.take_changes();
            return Ok(Answer::Follows(ram, pages));
        }
        Errand::Collect => return Ok(Answer::Pages(machine.ram().take_changes())),
        Errand::Cut { peer, costs, room } => (peer, costs, room),
    };
    let pages = machine.ram().take_changes();
    if !costs.allows(pages.len(), side.disks().iter().map(|disk| disk.changed()).sum()) {
        return Ok(Answer::Pages(pages));
    }
    let mut blocks = Vec::new();
    for (disk, handle) in (0..).zip(side.disks()) {
        for block in handle.take_changed() {
            blocks.push((disk, block, handle.read(block)?));
        }
        handle.unwatch();
    }
    for page in &pages {
        let mut copy = [0; PAGE_SIZE];
        machine.ram().copy_page(*page, &mut copy);
        content.extend_from_slice(&copy);
    }
    record.settle().map_err(|stop| format!("{stop:?}"))?;
    let state = machine.snapshot_beside_ram()?;
    let progress = record.progress().to_bytes();
    let digest = machine.digest()?;
    machine.ram().forget_changes();

    let at = machine.at();
    let header = Header { start: at, ..header.clone() };
    let (log_header, _) = header.encode()?;
    side.event(Event::Reached(at));
    side.event(Event::Cut { peer, at, log_header });
    side.event(Event::CutDigest { peer, digest });
    record.sink().1.cut(peer, &header)?;
    let pause = started.elapsed();
    Ok(Answer::Cut(Box::new(CutState { pages, content, blocks, machine: state, progress, pause })))
}
