//! The leader's clone thread: sends the machine to a standby while its guest runs.
//!
//! Not responsible for: anything that needs the machine (`cut`).

use super::desk::{Answer, Costs, CutState, Errand, room};
use super::part::Part;
use crate::protocol::{Event, PeerId};
use crate::shell::side::Side;
use crossbeam::channel::Receiver;
use gemel_machine::GuestRam;
use gemel_machine::ram::PAGE_SIZE;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Bytes of parts that the standby has not dealt with.
const WINDOW: u64 = 16 << 20;
/// Pages in one part.
const BATCH: usize = 128;
/// Bytes of state in one part.
const PIECE: usize = 1 << 20;
/// A standby that deals with nothing for so long is none.
const PATIENCE: Duration = Duration::from_secs(30);
/// So few pages are not worth another round.
const FEW: usize = 256;
/// Rounds after which a guest that changes its memory faster than it can be sent is slowed, more with each.
const FREE_ROUNDS: u32 = 4;
/// Rounds that bring less and less are worth it up to here.
const ROUNDS: u32 = 12;
/// What copying a page and hashing it costs at least, beside what was measured of copying, ns.
const LEAST_PAGE_COST: u64 = 1500;
/// What reading a block costs at least, ns.
const LEAST_BLOCK_COST: u64 = 30_000;

/// How a copy went.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(in crate::shell) struct Copied {
    /// How long the guest stood still for the cut.
    pub(in crate::shell) pause: Duration,
    /// How long all of it took.
    pub(in crate::shell) took: Duration,
    pub(in crate::shell) pages: u64,
    pub(in crate::shell) blocks: u64,
    pub(in crate::shell) bytes: u64,
    pub(in crate::shell) rounds: u32,
}

/// Copies the machine to a peer, up to the last part of the cut. Tells the protocol if that fails.
pub(in crate::shell) fn copy_to(side: &Arc<Side>, peer: PeerId, parts: Receiver<Part>, max_pause: Duration) {
    let sending = Sending {
        side,
        peer,
        parts,
        sent: 0,
        taken: 0,
        copied: Copied::default(),
        page_cost: LEAST_PAGE_COST,
    };
    let started = Instant::now();
    let outcome = {
        let _turn = side.desk.turn();
        sending.run(max_pause)
    };
    side.desk.slow(0);
    match outcome {
        Ok(copied) => side.copied(Copied { took: started.elapsed(), ..copied }),
        Err(why) => {
            side.disks().iter().for_each(|disk| disk.unwatch());
            side.say(&format!("the machine could not be copied to a standby: {why}"));
            side.event(Event::CloneFailed(peer));
        }
    }
}

struct Sending<'a> {
    side: &'a Arc<Side>,
    peer: PeerId,
    parts: Receiver<Part>,
    sent: u64,
    taken: u64,
    copied: Copied,
    /// Measured, ns.
    page_cost: u64,
}

impl Sending<'_> {
    fn run(mut self, max_pause: Duration) -> Result<Copied, String> {
        let mut blocks = self.differing_blocks()?;
        let (ram, mut pages) = match self.ask(Errand::Follow)? {
            Answer::Follows(ram, pages) => (ram, pages),
            other => return Err(unexpected(other)),
        };
        let mut before = usize::MAX;
        for round in 1.. {
            self.copied.rounds = round;
            self.send_pages(&ram, &pages, round > 1)?;
            self.send_blocks(&blocks)?;
            let costs =
                Costs { page: self.page_cost, block: LEAST_BLOCK_COST, most: max_pause.as_nanos() as u64 };
            let fits = costs.allows(pages.len(), blocks.len());
            let shrinks = pages.len() > FEW && pages.len() < before / 2;
            before = pages.len();
            if fits && (!shrinks || round >= ROUNDS) {
                let errand = Errand::Cut { peer: self.peer, costs, room: room(2 * pages.len() + FEW) };
                match self.ask(errand)? {
                    Answer::Cut(cut) => {
                        self.side.desk.slow(0);
                        return self.send_cut(*cut);
                    }
                    Answer::Pages(more) => pages = more,
                    other => return Err(unexpected(other)),
                }
            } else {
                match self.ask(Errand::Collect)? {
                    Answer::Pages(more) => pages = more,
                    other => return Err(unexpected(other)),
                }
            }
            blocks = self.changed_blocks();
            if round > FREE_ROUNDS && !fits {
                self.side.desk.slow(u64::from(round - FREE_ROUNDS) * 20);
            }
        }
        Err("it changes too fast".into())
    }

    fn ask(&self, errand: Errand) -> Result<Answer, String> {
        let nudge = || self.side.nudge();
        self.side.desk.ask(errand, nudge).ok_or_else(|| "the machine runs no more".into())
    }

    /// Waits for the standby's digests, and says which blocks are other here. What is written from here on is noted.
    fn differing_blocks(&mut self) -> Result<BTreeSet<(u8, u64)>, String> {
        let disks = self.side.disks();
        disks.iter().for_each(|disk| disk.watch());
        let mut differ: BTreeSet<(u8, u64)> =
            (0..).zip(disks).flat_map(|(disk, handle)| (0..handle.count()).map(move |b| (disk, b))).collect();
        loop {
            match self.hear()? {
                Part::Digests { disk, first, digests } => {
                    let Some(handle) = disks.get(usize::from(disk)) else { continue };
                    for (block, theirs) in (first..).zip(digests) {
                        if handle.digest(block).is_ok_and(|ours| ours == theirs) {
                            differ.remove(&(disk, block));
                        }
                    }
                }
                Part::Ready => return Ok(differ),
                _ => {}
            }
        }
    }

    fn changed_blocks(&self) -> BTreeSet<(u8, u64)> {
        let changed = |(disk, handle): (u8, &Arc<dyn super::DiskBlocks>)| {
            handle.take_changed().into_iter().map(move |block| (disk, block))
        };
        (0..).zip(self.side.disks()).flat_map(changed).collect()
    }

    /// The standby's next word. A connection that closed is the end.
    fn hear(&mut self) -> Result<Part, String> {
        let part = self.parts.recv_timeout(PATIENCE);
        let part = part.map_err(|e| if e.is_timeout() { "it says nothing" } else { "it is gone" })?;
        if let Part::Taken(bytes) = part {
            self.taken += bytes;
        }
        Ok(part)
    }

    fn send(&mut self, part: &Part) -> Result<(), String> {
        while self.sent.saturating_sub(self.taken) > WINDOW {
            self.hear()?;
        }
        let (message, length) = part.to_message();
        self.sent += length;
        self.copied.bytes += length;
        if self.side.send(self.peer, &message) { Ok(()) } else { Err("it is gone".into()) }
    }

    fn send_pages(&mut self, ram: &GuestRam, pages: &[u32], say_zeros: bool) -> Result<(), String> {
        for batch in pages.chunks(BATCH) {
            let started = Instant::now();
            let (mut numbers, mut zeros, mut content) = (Vec::new(), Vec::new(), Vec::new());
            let mut copy = [0; PAGE_SIZE];
            for page in batch {
                ram.copy_page(*page, &mut copy);
                if copy == [0; PAGE_SIZE] {
                    zeros.push(*page);
                } else {
                    numbers.push(*page);
                    content.extend_from_slice(&copy);
                }
            }
            let cost = started.elapsed().as_nanos() as u64 / batch.len() as u64;
            self.page_cost = LEAST_PAGE_COST.max((self.page_cost * 15 + 2 * cost) / 16);
            self.send_batch(numbers, content, if say_zeros { zeros } else { Vec::new() })?;
        }
        Ok(())
    }

    fn send_batch(&mut self, numbers: Vec<u32>, content: Vec<u8>, zeros: Vec<u32>) -> Result<(), String> {
        if !numbers.is_empty() {
            self.copied.pages += numbers.len() as u64;
            self.send(&Part::Pages { numbers, content })?;
        }
        if !zeros.is_empty() {
            self.send(&Part::Zeros(zeros))?;
        }
        Ok(())
    }

    fn send_blocks(&mut self, blocks: &BTreeSet<(u8, u64)>) -> Result<(), String> {
        let side = self.side;
        for (disk, number) in blocks.iter().copied() {
            let Some(handle) = side.disks().get(usize::from(disk)) else { continue };
            let data = handle.read(number).map_err(|e| format!("its disk {disk} cannot be read: {e}"))?;
            self.copied.blocks += 1;
            self.send(&Part::Block { disk, number, data })?;
        }
        Ok(())
    }

    fn send_cut(&mut self, cut: CutState) -> Result<Copied, String> {
        let CutState { pages, content, blocks, machine, progress, pause } = cut;
        for (numbers, content) in pages.chunks(BATCH).zip(content.chunks(BATCH * PAGE_SIZE)) {
            self.send_batch(numbers.to_vec(), content.to_vec(), Vec::new())?;
        }
        for (disk, number, data) in blocks {
            self.copied.blocks += 1;
            self.send(&Part::Block { disk, number, data })?;
        }
        for piece in machine.chunks(PIECE) {
            self.send(&Part::Machine(piece.to_vec()))?;
        }
        for piece in progress.chunks(PIECE) {
            self.send(&Part::Progress(piece.to_vec()))?;
        }
        self.send(&Part::End)?;
        Ok(Copied { pause, ..self.copied })
    }
}

fn unexpected(answer: Answer) -> String {
    match answer {
        Answer::Failed(why) => why,
        _ => "the machine's thread answers another question".into(),
    }
}
