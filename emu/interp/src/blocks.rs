#![allow(unsafe_code)] // blocks are reached by pointer while they run; see `Blocks::bury`
//! Decoded blocks: by physical page and offset, found again through a small cache by linear address.
//!
//! Not responsible for: decoding (`lower`), running (`exec`).
//!
//! A block is a run of instructions in one page (one that crosses into the next page stands alone). It depends on the
//! page's bytes and the decoding mode only, so it outlives every change of address space. A store into its bytes
//! drops it: pages with blocks carry the `CODE` mark, and 64 granules of 64 bytes say where in a page code lies, so that data
//! beside code costs no block.
//!
//! Three ways lead from one block to the next, fastest first: the two successors that the last block remembers, the
//! jump cache by linear address, and the page's own list. All but the last hold linear addresses, and forget them when those may
//! mean something else.

use crate::filled::Filled;
use crate::lower::Decoded;
use crate::op::Op;
use gemel_machine::GuestRam;
use gemel_machine::ram::CODE;
use std::cell::Cell;
use std::ptr::NonNull;

const JUMP_STRIPES: usize = 512;
const STRIPE: usize = 64;
/// Dropped blocks kept until their pointers can no longer be in the jump cache.
const GRAVES: usize = 2048;

/// Instructions kept before everything is dropped and begun anew: about 120 MiB. A desktop's hot code is a tenth of it; a
/// guest that runs through all its memory must not take ours.
const MOST_OPS: usize = 2 << 20;

/// A run of decoded instructions.
pub struct Block {
    /// False once dropped; the jump cache may still point here.
    alive: bool,
    /// The instructions; never empty.
    pub ops: Box<[Op]>,
    /// Bytes from the first instruction to the end of the last.
    pub bytes: u16,
    /// Where it starts in its page.
    offset: u16,
    /// The page that its last instruction reaches into.
    second_page: Option<u32>,
    /// The blocks that followed last, valid while `links_epoch` is the cache's.
    links: [Cell<Jump>; 2],
    links_epoch: Cell<u64>,
}

#[derive(Clone, Copy)]
struct Jump {
    tag: u64,
    block: Option<NonNull<Block>>,
}

/// The blocks that start in one page.
#[derive(Default)]
struct CodePage {
    granules: u64,
    /// `place` of each block, sorted: searched without touching the blocks.
    places: Vec<u32>,
    /// In the same order. Boxed: the jump cache points to them.
    #[allow(clippy::vec_box)]
    blocks: Vec<Box<Block>>,
    /// Blocks of other pages that reach into this one: (page, offset, mode).
    guests: Vec<(u32, u16, u8)>,
}

/// Where a block starts in its page, and how it is decoded, as one number.
fn place(offset: u16, mode: u8) -> u32 {
    u32::from(offset) << 8 | u32::from(mode)
}

impl CodePage {
    fn find(&self, offset: u16, mode: u8) -> Result<usize, usize> {
        self.places.binary_search(&place(offset, mode))
    }

    fn remove(&mut self, at: usize) -> Box<Block> {
        self.places.remove(at);
        self.blocks.remove(at)
    }
}

const NO_JUMP: Jump = Jump { tag: u64::MAX, block: None };

/// All decoded code of one CPU.
pub struct Blocks {
    pages: Vec<Option<Box<CodePage>>>,
    jumps: Box<[Jump]>,
    filled_jumps: Filled,
    #[allow(clippy::vec_box)] // as in `CodePage`
    graveyard: Vec<Box<Block>>,
    /// The block that runs, or ran last.
    running: Option<NonNull<Block>>,
    /// For each half of the linear addresses.
    keys: [u64; 2],
    /// Instructions in all blocks, buried ones not counted.
    held: usize,
    /// Counts how often linear addresses came to mean something else.
    epoch: u64,
}

// SAFETY: the pointers in `jumps`, `running` and links point to blocks that `pages` or `graveyard` own; they move together.
unsafe impl Send for Blocks {}

impl Blocks {
    pub(crate) fn new(pages: usize) -> Self {
        Self {
            pages: (0..pages).map(|_| None).collect(),
            jumps: vec![NO_JUMP; JUMP_STRIPES * STRIPE].into(),
            filled_jumps: Filled::default(),
            graveyard: Vec::new(),
            running: None,
            keys: [0; 2],
            held: 0,
            epoch: 0,
        }
    }

    /// Notes which block runs; `None` when what comes next does not follow from it.
    #[inline(always)]
    pub(crate) fn set_running(&mut self, block: Option<NonNull<Block>>) {
        self.running = block;
    }

    /// The block at a linear address, if it followed the last one before.
    #[inline(always)]
    pub(crate) fn successor(&self, lin: u64) -> Option<NonNull<Block>> {
        // SAFETY: `running` points to a block owned by `pages` or `graveyard`; `bury` resets it before it frees any.
        let last = unsafe { self.running?.as_ref() };
        if last.links_epoch.get() != self.epoch {
            return None;
        }
        let tag = self.tag(lin);
        let hit = |jump: Jump| if jump.tag == tag { jump.block } else { None };
        let block = hit(last.links[0].get()).or_else(|| hit(last.links[1].get()))?;
        // SAFETY: links of this epoch were made after the last burial.
        unsafe { block.as_ref() }.alive.then_some(block)
    }

    /// Remembers that a block followed the last one.
    pub(crate) fn link(&mut self, lin: u64, block: NonNull<Block>) {
        let tag = self.tag(lin);
        let Some(last) = self.running else { return };
        // SAFETY: as in `successor`.
        let last = unsafe { last.as_ref() };
        let older = if last.links_epoch.get() == self.epoch { last.links[0].get() } else { NO_JUMP };
        last.links_epoch.set(self.epoch);
        last.links[1].set(older);
        last.links[0].set(Jump { tag, block: Some(block) });
    }

    /// Offset of the running block's `nth` instruction from its first; zero when none runs.
    pub(crate) fn running_offset(&self, nth: u16) -> u64 {
        // SAFETY: as in `successor`.
        let block = self.running.map(|b| unsafe { b.as_ref() });
        block.and_then(|b| b.ops.get(usize::from(nth))).map_or(0, |op| u64::from(op.offset))
    }

    /// Sets what, beside the linear address, decides which block runs: 16 bits, for addresses in the lower and in the upper half.
    pub(crate) fn set_keys(&mut self, keys: [u16; 2]) {
        self.keys = keys.map(u64::from);
    }

    fn stripe(lin: u64) -> usize {
        let page = lin >> 12;
        (page ^ page >> 9) as usize % JUMP_STRIPES * STRIPE
    }

    fn jump_index(lin: u64) -> usize {
        Self::stripe(lin) + (lin ^ lin >> 6) as usize % STRIPE
    }

    fn tag(&self, lin: u64) -> u64 {
        lin << 16 | self.keys[(lin >> 63) as usize]
    }

    /// The block at a linear address, if the jump cache knows it.
    #[inline(always)]
    pub(crate) fn at_linear(&self, lin: u64) -> Option<NonNull<Block>> {
        let jump = &self.jumps[Self::jump_index(lin) % (JUMP_STRIPES * STRIPE)];
        let block = jump.block?;
        // SAFETY: jump cache entries point to blocks owned by `pages` or `graveyard`; `bury` empties the cache before it
        // frees any.
        (jump.tag == self.tag(lin) && unsafe { block.as_ref() }.alive).then_some(block)
    }

    /// Remembers the block for a linear address.
    pub(crate) fn remember(&mut self, lin: u64, block: NonNull<Block>) {
        let tag = self.tag(lin);
        let place = Self::jump_index(lin);
        self.filled_jumps.note(place);
        self.jumps[place] = Jump { tag, block: Some(block) };
    }

    /// Finds a block by where its bytes are. `second_page` is asked only for blocks that reach into one.
    pub(crate) fn at_physical(
        &mut self,
        page: u32,
        offset: u16,
        mode: u8,
    ) -> Option<(NonNull<Block>, Option<u32>)> {
        let code = self.pages[page as usize].as_mut()?;
        let at = code.find(offset, mode).ok()?;
        let block = &mut code.blocks[at];
        Some((NonNull::from(block.as_mut()), block.second_page))
    }

    /// Adds a block; an old one at the same place is dropped.
    pub(crate) fn insert(
        &mut self,
        (page, offset): (u32, u16),
        mode: u8,
        decoded: Decoded,
        ram: &GuestRam,
    ) -> NonNull<Block> {
        let Decoded { ops, bytes, second_page } = decoded;
        ram.mark(page, CODE);
        if let Some(second) = second_page {
            ram.mark(second, CODE);
            let guests = &mut self.pages[second as usize].get_or_insert_default().guests;
            if !guests.contains(&(page, offset, mode)) {
                guests.push((page, offset, mode));
            }
            self.recount(second, ram);
        }
        self.held += ops.len();
        let mut block = Box::new(Block {
            alive: true,
            ops,
            bytes,
            offset,
            second_page,
            links: [Cell::new(NO_JUMP), Cell::new(NO_JUMP)],
            links_epoch: Cell::new(u64::MAX),
        });
        let pointer = NonNull::from(block.as_mut());
        let code = self.pages[page as usize].get_or_insert_default();
        code.granules |= granules(offset as usize, bytes as usize);
        match code.find(offset, mode) {
            Ok(at) => {
                let mut old = std::mem::replace(&mut code.blocks[at], block);
                old.alive = false;
                self.graveyard.push(old);
            }
            Err(at) => {
                code.places.insert(at, place(offset, mode));
                code.blocks.insert(at, block);
            }
        }
        pointer
    }

    /// Bytes of a `CODE` page are about to change. Drops the blocks that they belong to; whether there were any.
    pub(crate) fn written(&mut self, page: u32, offset: usize, len: usize, ram: &GuestRam) -> bool {
        let Some(code) = self.pages[page as usize].as_mut() else {
            ram.unmark(page, CODE);
            return false;
        };
        if code.granules & granules(offset, len) == 0 {
            return false;
        }
        let mut dropped = false;
        for at in (0..code.blocks.len()).rev() {
            let (start, bytes) = (code.blocks[at].offset as usize, code.blocks[at].bytes as usize);
            if start < offset + len && offset < start + bytes {
                self.graveyard.push(code.remove(at));
                dropped = true;
            }
        }
        // A guest has at most 14 bytes here, at the page's start.
        if offset < 15 {
            for (host, at, mode) in std::mem::take(&mut code.guests) {
                dropped |= self.drop_one(host, at, mode);
            }
        }
        for grave in self.graveyard.iter_mut().rev().take_while(|b| b.alive) {
            grave.alive = false;
        }
        self.recount(page, ram);
        dropped
    }

    fn drop_one(&mut self, page: u32, offset: u16, mode: u8) -> bool {
        let Some(code) = self.pages[page as usize].as_mut() else { return false };
        let Ok(at) = code.find(offset, mode) else { return false };
        self.graveyard.push(code.remove(at));
        true
    }

    /// Recomputes where in a page code lies.
    fn recount(&mut self, page: u32, ram: &GuestRam) {
        let Some(code) = self.pages[page as usize].as_mut() else { return };
        code.granules = code.blocks.iter().fold(0, |g, b| g | granules(b.offset as usize, b.bytes as usize));
        code.granules |= u64::from(!code.guests.is_empty());
        if code.granules == 0 {
            self.pages[page as usize] = None;
            ram.unmark(page, CODE);
        }
    }

    /// Something wrote a whole page behind the engine's back.
    pub(crate) fn page_written(&mut self, page: u32, ram: &GuestRam) {
        self.written(page, 0, 4096, ram);
    }

    /// The linear addresses of one page may mean something else now.
    pub(crate) fn forget_page(&mut self, va: u64) {
        self.epoch += 1;
        // A block that starts in the page before can reach into this one.
        for at in [Self::stripe(va), Self::stripe(va.wrapping_sub(4096))] {
            self.jumps[at..at + STRIPE].fill(NO_JUMP);
        }
    }

    /// All linear addresses may mean something else now.
    pub(crate) fn forget_addresses(&mut self) {
        self.epoch += 1;
        self.filled_jumps.blank(&mut self.jumps, NO_JUMP);
    }

    /// Frees dropped blocks once there are many, and all blocks once they hold too much. Called only while no block runs.
    pub(crate) fn bury(&mut self, ram: &GuestRam) {
        if self.held > MOST_OPS {
            self.clear(ram);
        } else if self.graveyard.len() <= GRAVES {
            return;
        }
        self.forget_addresses();
        self.running = None;
        for grave in self.graveyard.drain(..) {
            self.held -= grave.ops.len();
        }
    }

    /// Drops everything. Blocks that run now stay in the graveyard.
    pub(crate) fn clear(&mut self, ram: &GuestRam) {
        self.forget_addresses();
        for page in 0..self.pages.len() {
            if let Some(mut code) = self.pages[page].take() {
                ram.unmark(page as u32, CODE);
                code.blocks.iter_mut().for_each(|b| b.alive = false);
                self.graveyard.append(&mut code.blocks);
            }
        }
    }
}

/// The granules that a range of a page touches; what lies beyond the page does not count.
fn granules(offset: usize, len: usize) -> u64 {
    let first = offset / 64;
    let last = (offset + len.max(1) - 1).min(4095) / 64;
    (u64::MAX >> (63 - (last - first))) << first
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn granules_cover_their_range() {
        assert_eq!(granules(0, 1), 1);
        assert_eq!(granules(63, 2), 3);
        assert_eq!(granules(0, 4096), u64::MAX);
        assert_eq!(granules(4095, 8), 1 << 63);
    }
}
