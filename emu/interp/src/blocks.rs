#![allow(unsafe_code)] // blocks are reached by pointer while they run; see `Blocks::bury`
//! Decoded blocks: by physical page and offset, found again through a small cache by linear address.
//!
//! Not responsible for: decoding (`lower`), running (`exec`).
//!
//! A block is a run of instructions in one page (one that crosses into the next page stands alone). It depends on the
//! page's bytes and the decoding mode only, so it outlives every change of address space. A store into its bytes
//! drops it: pages with blocks carry the `CODE` mark, and 64 granules of 64 bytes say where in a page code lies, so that data
//! beside code costs no block.

use crate::lower::Decoded;
use crate::op::Op;
use gemel_machine::GuestRam;
use gemel_machine::ram::CODE;
use std::ptr::NonNull;

const JUMP_STRIPES: usize = 128;
const STRIPE: usize = 64;
/// Dropped blocks kept until their pointers can no longer be in the jump cache.
const GRAVES: usize = 2048;

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
    /// Decoding mode, see [`crate::cpu::Mode::key`].
    mode: u8,
    /// The page that its last instruction reaches into.
    second_page: Option<u32>,
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
    /// Sorted by (offset, mode). Boxed: the jump cache points to them.
    #[allow(clippy::vec_box)]
    blocks: Vec<Box<Block>>,
    /// Blocks of other pages that reach into this one: (page, offset, mode).
    guests: Vec<(u32, u16, u8)>,
}

/// All decoded code of one CPU.
pub struct Blocks {
    pages: Vec<Option<Box<CodePage>>>,
    jumps: Box<[Jump]>,
    #[allow(clippy::vec_box)] // as in `CodePage`
    graveyard: Vec<Box<Block>>,
    /// The block that runs; only while one does.
    running: Option<NonNull<Block>>,
    key: u64,
}

// SAFETY: the pointers in `jumps` point to blocks that `pages` or `graveyard` own; they move together.
unsafe impl Send for Blocks {}

impl Blocks {
    pub(crate) fn new(pages: usize) -> Self {
        Self {
            pages: (0..pages).map(|_| None).collect(),
            jumps: vec![Jump { tag: u64::MAX, block: None }; JUMP_STRIPES * STRIPE].into(),
            graveyard: Vec::new(),
            running: None,
            key: 0,
        }
    }

    /// Notes which block runs, for [`Blocks::running_offset`].
    #[inline(always)]
    pub(crate) fn set_running(&mut self, block: Option<NonNull<Block>>) {
        self.running = block;
    }

    /// Offset of the running block's `nth` instruction from its first; zero when none runs.
    pub(crate) fn running_offset(&self, nth: u16) -> u64 {
        // SAFETY: set by the loop while the block runs; `bury` does not run meanwhile.
        let block = self.running.map(|b| unsafe { b.as_ref() });
        block.and_then(|b| b.ops.get(usize::from(nth))).map_or(0, |op| u64::from(op.offset))
    }

    /// Sets what, beside the linear address, decides which block runs: 16 bits.
    pub(crate) fn set_key(&mut self, key: u16) {
        self.key = u64::from(key);
    }

    fn stripe(lin: u64) -> usize {
        let page = lin >> 12;
        (page ^ page >> 7) as usize % JUMP_STRIPES * STRIPE
    }

    fn jump_index(lin: u64) -> usize {
        Self::stripe(lin) + (lin ^ lin >> 6) as usize % STRIPE
    }

    fn tag(&self, lin: u64) -> u64 {
        lin << 16 | self.key
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
        self.jumps[Self::jump_index(lin)] = Jump { tag, block: Some(block) };
    }

    /// Finds a block by where its bytes are. `second_page` is asked only for blocks that reach into one.
    pub(crate) fn at_physical(
        &mut self,
        page: u32,
        offset: u16,
        mode: u8,
    ) -> Option<(NonNull<Block>, Option<u32>)> {
        let code = self.pages[page as usize].as_mut()?;
        let at = code.blocks.binary_search_by_key(&(offset, mode), |b| (b.offset, b.mode)).ok()?;
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
        let mut block = Box::new(Block { alive: true, ops, bytes, offset, mode, second_page });
        let pointer = NonNull::from(block.as_mut());
        let code = self.pages[page as usize].get_or_insert_default();
        code.granules |= granules(offset as usize, bytes as usize);
        match code.blocks.binary_search_by_key(&(offset, mode), |b| (b.offset, b.mode)) {
            Ok(at) => {
                let mut old = std::mem::replace(&mut code.blocks[at], block);
                old.alive = false;
                self.graveyard.push(old);
            }
            Err(at) => code.blocks.insert(at, block),
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
        let hit = |b: &Block| {
            let start = b.offset as usize;
            start < offset + len && offset < start + b.bytes as usize
        };
        for block in code.blocks.extract_if(.., |b| hit(b)) {
            self.graveyard.push(block);
            dropped = true;
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
        match code.blocks.binary_search_by_key(&(offset, mode), |b| (b.offset, b.mode)) {
            Ok(at) => {
                self.graveyard.push(code.blocks.remove(at));
                true
            }
            Err(_) => false,
        }
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
        // A block that starts in the page before can reach into this one.
        for at in [Self::stripe(va), Self::stripe(va.wrapping_sub(4096))] {
            self.jumps[at..at + STRIPE].fill(Jump { tag: u64::MAX, block: None });
        }
    }

    /// All linear addresses may mean something else now.
    pub(crate) fn forget_addresses(&mut self) {
        self.jumps.fill(Jump { tag: u64::MAX, block: None });
    }

    /// Frees dropped blocks once there are many. Called only while no block runs.
    pub(crate) fn bury(&mut self) {
        if self.graveyard.len() > GRAVES {
            self.forget_addresses();
            self.graveyard.clear();
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
