//! Page tables in guest RAM: which pages are some, and what a store into one drops.
//!
//! Not responsible for: walking them (`walk`).
//!
//! In long mode a store drops no more than what was derived from the entry that it changes: the entry's range of linear addresses, in the
//! spaces whose walk comes by it. Whatever is derived from an entry lies in such a space, since a change further up would have
//! dropped it. In the legacy modes, and for a page that serves as a table in more ways than one, all is dropped where the
//! entry is not a single page's.

use super::walk::{ACCESSED, LARGE, LINEAR, NO_EXECUTE, PHYSICAL, PRESENT};
use super::{EMPTY, FETCH_ENTRIES, MODES, Mmu, NO_PAGING, NONE, NOWHERE, SLOW, SPACES, half};
use crate::cpu::Cpu;
use gemel_machine::GuestRam;
use gemel_machine::ram::TABLE;
use gemel_x86::control::EFER_NXE;

/// What a page is known as when it serves as a page table.
#[derive(Clone, Copy, Default)]
struct TableUse {
    /// First linear address that it translates, without sign extension.
    va: u64,
    /// 1 for a table whose entries are pages; 0: not a table.
    level: u8,
    /// Used in more than one way.
    many: bool,
    /// Entries have 4 bytes.
    narrow: bool,
    /// Stands in [`Tables::pages`].
    listed: bool,
}

/// The pages that were read as page tables.
pub(super) struct Tables {
    uses: Vec<TableUse>,
    pages: Vec<u32>,
}

impl Tables {
    pub(super) fn new(pages: usize) -> Self {
        Self { uses: vec![TableUse::default(); pages], pages: Vec::new() }
    }

    /// No page is a table now.
    pub(super) fn forget_all(&mut self, ram: &GuestRam) {
        for page in std::mem::take(&mut self.pages) {
            ram.unmark(page, TABLE);
            self.uses[page as usize] = TableUse::default();
        }
    }

    /// A page is no table any more.
    fn forget(&mut self, page: u32, ram: &GuestRam) {
        ram.unmark(page, TABLE);
        let listed = self.uses[page as usize].listed;
        self.uses[page as usize] = TableUse { listed, ..TableUse::default() };
    }
}

/// The linear addresses that one entry of a table translates, in long mode.
#[derive(Clone, Copy)]
struct Range {
    /// The first, canonical.
    va: u64,
    /// Their number is two to this.
    bits: u32,
}

impl Range {
    fn of(va: u64, level: u8, index: usize) -> Self {
        let bits = 12 + 9 * (u32::from(level) - 1);
        let va = va + ((index as u64) << bits);
        Self { va: ((va << 16) as i64 >> 16) as u64, bits }
    }

    fn has(&self, lin: u64) -> bool {
        lin != NONE && (lin ^ self.va) >> self.bits == 0
    }
}

impl Mmu {
    /// Notes that a page was read as a page table at `level` for addresses from `va` on.
    pub(super) fn note_table(&mut self, page: u32, va: u64, level: u8, narrow: bool, ram: &GuestRam) {
        let known = &mut self.tables.uses[page as usize];
        if known.level == 0 {
            if !known.listed {
                self.tables.pages.push(page);
            }
            *known = TableUse { va, level, many: false, narrow, listed: true };
            ram.mark(page, TABLE);
            self.slow_down(page);
            // Also when the walk ends in a fault and fills nothing: a flush forgets the table.
            self.filled = true;
        } else if (known.va, known.level, known.narrow) != (va, level, narrow) {
            known.many = true;
        }
    }

    /// Drops the translations of one linear page in every space.
    fn drop_page(&mut self, va: u64) {
        for space in 0..SPACES {
            self.drop_range(space, Range { va, bits: 12 });
        }
    }

    /// Drops the translations of a range in one space.
    fn drop_range(&mut self, space: usize, range: Range) {
        let inside = |e: &super::Entry| range.has(e.read) || (e.write != NONE && range.has(e.write & !SLOW));
        let pages = 1usize << (range.bits - 12);
        for mode in 0..MODES {
            let first = Self::slot(space, mode, 0);
            let entries = &mut self.entries[first..first + super::ENTRIES];
            let start = (range.va >> 12) as usize % super::ENTRIES;
            let end = if pages < super::ENTRIES { start + pages } else { super::ENTRIES };
            let start = if pages < super::ENTRIES { start } else { 0 };
            entries[start..end].iter_mut().filter(|e| inside(e)).for_each(|e| *e = EMPTY);
        }
        let fetch = &mut self.fetch[space * FETCH_ENTRIES..(space + 1) * FETCH_ENTRIES];
        let start = (range.va >> 12) as usize % FETCH_ENTRIES;
        let part = if pages < FETCH_ENTRIES { start..start + pages } else { 0..FETCH_ENTRIES };
        fetch[part].iter_mut().filter(|f| range.has(f.tag & !1)).for_each(|f| f.tag = NONE);
    }

    /// Whether a space's walk for an address comes by a page as its table at `level`. Long mode only.
    fn comes_by(&self, space: usize, page: u32, level: u8, va: u64, ram: &GuestRam) -> bool {
        let root = self.spaces[space].root;
        if matches!(root, NO_PAGING | NOWHERE) {
            return false;
        }
        let mut table = root;
        for above in (level + 1..=4).rev() {
            let index = va >> (12 + 9 * (u32::from(above) - 1)) & 0x1ff;
            let Ok(entry) = ram.read_array(table + index * 8).map(u64::from_le_bytes) else { return false };
            if entry & PRESENT == 0 || (entry & LARGE != 0 && above < 4) {
                return false;
            }
            table = entry & PHYSICAL & !0xfff;
        }
        ram.page_at(table) == Some(page)
    }

    /// A root that is not in use changes, as when its page is used for something else: whole spaces go, and the page is no table.
    /// False when it is the current space's.
    fn forget_root(&mut self, page: u32, ram: &GuestRam) -> bool {
        let is_root = |root| !matches!(root, NO_PAGING | NOWHERE) && ram.page_at(root) == Some(page);
        if is_root(self.spaces[self.space].root) {
            return false;
        }
        for space in 0..SPACES {
            if is_root(self.spaces[space].root) {
                self.clear_space(space);
                self.spaces[space].root = NOWHERE;
            }
        }
        self.tables.forget(page, ram);
        true
    }

    /// Takes over the upper half's translations from another space into the current one, which is new, as far as both roots say the
    /// same: every one of them then follows from the new root just as well.
    pub(super) fn inherit_upper_half(&mut self, from: usize, ram: &GuestRam) {
        let (old, new) = (self.spaces[from].root, self.spaces[self.space].root);
        let (Some(old), Some(page)) = (root_entries(old, ram), ram.page_at(new)) else { return };
        let Some(new) = root_entries(new, ram) else { return };
        self.note_table(page, 0, 4, false, ram);
        self.filled = true;
        let same = |lin: u64| {
            lin != NONE && half(lin) == 1 && {
                let index = (lin >> 39 & 0x1ff) as usize;
                old[index] == new[index]
            }
        };
        for mode in 0..MODES {
            let (source, target) = (Self::slot(from, mode, 0), Self::slot(self.space, mode, 0));
            for n in 0..super::ENTRIES {
                let e = self.entries[source + n];
                let tag = if e.read != NONE { e.read } else { e.write };
                if same(tag) {
                    // Which entry has the fast write tag of a page is noted; the copy gets its own at its first store.
                    let write = if e.write == NONE { NONE } else { e.write | SLOW };
                    self.filled_entries.note(target + n);
                    self.entries[target + n] = super::Entry { write, ..e };
                }
            }
        }
        for n in 0..FETCH_ENTRIES {
            let f = self.fetch[from * FETCH_ENTRIES + n];
            if same(f.tag) {
                self.filled_fetch.note(self.space * FETCH_ENTRIES + n);
                self.fetch[self.space * FETCH_ENTRIES + n] = f;
            }
        }
        if old[256..] == new[256..] {
            self.spaces[self.space].generations[1] = self.spaces[from].generations[1];
        }
    }
}

/// The entries of a long-mode root; `None` where there is no RAM.
fn root_entries(root: u64, ram: &GuestRam) -> Option<Vec<u64>> {
    let mut bytes = [0; 4096];
    ram.read(root, &mut bytes).ok()?;
    let entries = bytes.chunks_exact(8).map(|e| e.iter().rev().fold(0, |v, b| v << 8 | u64::from(*b)));
    Some(entries.collect())
}

impl Cpu {
    /// A store is about to change bytes of a page that is marked as a page table: drops what was derived from the
    /// entries that it touches.
    pub(crate) fn table_written(&mut self, page: u32, offset: usize, len: usize) {
        let known = self.mmu.tables.uses[page as usize];
        if known.level == 0 {
            return;
        }
        let size = if known.narrow { 4 } else { 8 };
        for index in offset / size..=(offset + len - 1) / size {
            let old = self.entry_at(page, (index * size) as u16, known.narrow);
            if old & (PRESENT | ACCESSED) != PRESENT | ACCESSED {
                continue;
            }
            self.limit = 0;
            // What could not be executed was not fetched.
            let executable = known.narrow || old & NO_EXECUTE == 0 || self.s.efer & EFER_NXE == 0;
            if self.long_mode() && !known.many {
                self.long_entry_written(page, known, index, old, executable);
            } else if known.level == 1 && !known.many {
                let va = known.va + ((index as u64) << 12);
                self.mmu.drop_page(va);
                if executable {
                    self.blocks.forget_page(va);
                }
            } else {
                self.mmu.flush_all(&self.ram);
                self.blocks.forget_addresses();
                self.code_key_changed();
                return;
            }
        }
    }

    fn long_entry_written(&mut self, page: u32, known: TableUse, index: usize, old: u64, executable: bool) {
        if known.level == 4 && self.mmu.forget_root(page, &self.ram) {
            return;
        }
        let range = Range::of(known.va, known.level, index);
        let below = known.level - 1;
        let leads_on = below > 0 && (old & LARGE == 0 || known.level == 4);
        let child = if leads_on { self.ram.page_at(old & PHYSICAL & !0xfff) } else { None };
        let mut child_is_used = false;
        for space in 0..SPACES {
            if self.mmu.comes_by(space, page, known.level, range.va, &self.ram) {
                self.mmu.drop_range(space, range);
                if executable {
                    self.mmu.renew_code(space, half(range.va));
                }
            } else if let Some(child) = child {
                child_is_used |= self.mmu.comes_by(space, child, below, range.va, &self.ram);
            }
        }
        if executable {
            self.code_key_changed();
        }
        // A table that nothing leads to any more is a page like any other: stores into it need not be heard of.
        if let Some(child) = child
            && !child_is_used
        {
            let use_ = self.mmu.tables.uses[child as usize];
            if (use_.level, use_.many, use_.va) == (below, false, range.va & LINEAR) {
                self.mmu.tables.forget(child, &self.ram);
            }
        }
    }
}
