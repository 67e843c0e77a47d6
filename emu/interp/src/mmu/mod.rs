//! Translations: what was read from the guest's page tables, kept so that it can never be told from reading them anew.
//!
//! Not responsible for: walking the tables (`walk`), moving data (`access`).
//!
//! The TLB is coherent. Every page that was read as a page table carries the `TABLE` mark; a store (or DMA) into it
//! drops what was derived from the entry that changes. An entry from which something was derived has its accessed
//! bit set (the walk sets it), so stores over entries that are clear cost nothing (`tables` has the rest). INVLPG and CR3 loads therefore need no
//! flush, and whether the TLB is warm or cold shows nowhere: not in a stale translation, not in an accessed bit.
//!
//! Translations are kept per address space (CR3) and per access mode; switching back to a recent space finds its
//! translations still there.

pub mod access;
mod tables;
pub mod walk;

use crate::filled::Filled;
use gemel_machine::GuestRam;
use gemel_machine::ram::{CODE, DIRTY, TABLE};
use tables::Tables;

/// Address spaces remembered at once.
const SPACES: usize = 8;
/// Access modes per space.
const MODES: usize = 4;
/// Entries per space and mode.
const ENTRIES: usize = 1024;
const TOTAL: usize = SPACES * MODES * ENTRIES;
/// Fetch translations per space.
const FETCH_ENTRIES: usize = 512;

/// CPL 3.
pub const USER: usize = 0;
/// CPL 0 to 2, user pages allowed.
pub const SUPERVISOR: usize = 1;
/// CPL 0 to 2 under SMAP: user pages are refused.
pub const SUPERVISOR_SMAP: usize = 2;
/// Every access takes the slow path, where alignment and data breakpoints are checked. Never filled.
pub const CHECKED: usize = 3;

/// No page has this tag.
const NONE: u64 = u64::MAX;
/// In a write tag: allowed by the tables, but the page's marks want to hear of every store.
const SLOW: u64 = 1;

/// One translation. Tags are linear page addresses.
#[derive(Clone, Copy)]
pub(crate) struct Entry {
    pub(crate) read: u64,
    pub(crate) write: u64,
    /// Host address minus linear address.
    pub(crate) addend: usize,
    /// The page of RAM.
    pub(crate) page: u32,
}

const EMPTY: Entry = Entry { read: NONE, write: NONE, addend: 0, page: 0 };

#[derive(Clone, Copy)]
struct FetchEntry {
    /// Linear page address, bit 0 for user mode.
    tag: u64,
    page: u32,
}

const NO_FETCH: FetchEntry = FetchEntry { tag: NONE, page: 0 };

struct Space {
    root: u64,
    last_use: u64,
    /// Which meaning code addresses have, for each half of the linear addresses.
    generations: [u16; HALVES],
}

/// Lower and upper half of the linear addresses: programs and kernel, by the custom of every 64-bit system. A new space whose upper half is
/// that of the last one begins with what is known of it.
const HALVES: usize = 2;

/// The half in which a linear address lies.
fn half(lin: u64) -> usize {
    (lin >> 63) as usize
}

/// The translations of one CPU.
pub struct Mmu {
    entries: Box<[Entry; TOTAL]>,
    fetch: Box<[FetchEntry]>,
    spaces: Vec<Space>,
    space: usize,
    /// First entry of the current space and mode.
    current: usize,
    /// The current access mode.
    pub mode: usize,
    uses: u64,
    generations: u16,
    /// Whether anything was filled or noted as a table since the last full flush.
    filled: bool,
    tables: Tables,
    /// Per page of RAM: which entry (plus one) last had a fast write tag for it; `u32::MAX` when several might.
    writers: Vec<u32>,
    /// What of `entries`, `fetch` and `writers` is not blank.
    filled_entries: Filled,
    filled_fetch: Filled,
    filled_writers: Filled,
    ram_generation: u64,
}

/// The root that stands for "paging is off".
pub const NO_PAGING: u64 = u64::MAX;
/// The root of a space that holds nothing yet.
const NOWHERE: u64 = u64::MAX - 1;

impl Mmu {
    pub(crate) fn new(pages: usize) -> Self {
        let entries: Box<[Entry]> = vec![EMPTY; TOTAL].into();
        let entries = entries.try_into().unwrap_or_else(|_| unreachable!("the vector has TOTAL entries"));
        Self {
            entries,
            fetch: vec![NO_FETCH; SPACES * FETCH_ENTRIES].into(),
            spaces: (0..SPACES)
                .map(|_| Space { root: NOWHERE, last_use: 0, generations: [0; HALVES] })
                .collect(),
            space: 0,
            current: 0,
            mode: SUPERVISOR,
            uses: 0,
            generations: 1,
            filled: true,
            tables: Tables::new(pages),
            writers: vec![0; pages],
            filled_entries: Filled::default(),
            filled_fetch: Filled::default(),
            filled_writers: Filled::default(),
            ram_generation: u64::MAX,
        }
    }

    /// The entry that could translate an address in the current space and mode.
    #[inline(always)]
    pub(crate) fn entry(&self, lin: u64) -> &Entry {
        &self.entries[(self.current + (lin >> 12) as usize % ENTRIES) % TOTAL]
    }

    fn slot(space: usize, mode: usize, lin: u64) -> usize {
        (space * MODES + mode) * ENTRIES + (lin >> 12) as usize % ENTRIES
    }

    /// Selects the access mode for data.
    pub(crate) fn select_mode(&mut self, mode: usize) {
        self.mode = mode;
        self.current = (self.space * MODES + mode) * ENTRIES;
    }

    /// Selects the address space of a root (CR3's table address, or [`NO_PAGING`]). `long` is RAM in long mode, where a new space
    /// takes over what the last one knows of the upper half, as far as both are the same there.
    pub(crate) fn select_space(&mut self, root: u64, long: Option<&GuestRam>) {
        self.uses += 1;
        let last = self.space;
        let found = self.spaces.iter().position(|s| s.root == root);
        self.space = found.unwrap_or_else(|| {
            let oldest = (0..SPACES).min_by_key(|i| self.spaces[*i].last_use).unwrap_or(0);
            self.clear_space(oldest);
            self.spaces[oldest].root = root;
            oldest
        });
        self.spaces[self.space].last_use = self.uses;
        self.select_mode(self.mode);
        if let (None, Some(ram)) = (found, long)
            && last != self.space
        {
            self.inherit_upper_half(last, ram);
        }
    }

    /// Drops the translations of the current space (PAE: the directory registers may have changed).
    pub(crate) fn clear_current_space(&mut self) {
        self.clear_space(self.space);
    }

    fn clear_space(&mut self, space: usize) {
        self.entries[space * MODES * ENTRIES..(space + 1) * MODES * ENTRIES].fill(EMPTY);
        self.fetch[space * FETCH_ENTRIES..(space + 1) * FETCH_ENTRIES].fill(NO_FETCH);
        for half in 0..HALVES {
            self.renew_code(space, half);
        }
    }

    /// Code addresses in one half of a space may mean something else now.
    fn renew_code(&mut self, space: usize, half: usize) {
        self.spaces[space].generations[half] = self.generations;
        self.generations = self.generations.saturating_add(1);
    }

    fn renew_all_code(&mut self) {
        for space in 0..SPACES {
            for half in 0..HALVES {
                self.renew_code(space, half);
            }
        }
    }

    /// Numbers that change whenever code addresses in the lower and the upper half may mean something else. 11 bits; on wrap-around
    /// (`true`) the caller drops whatever it keyed by them.
    pub(crate) fn code_keys(&mut self) -> ([u16; HALVES], bool) {
        let wrapped = self.generations >= 1 << 11;
        if wrapped {
            self.generations = 0;
            self.renew_all_code();
        }
        (self.spaces[self.space].generations, wrapped)
    }

    /// Drops all translations and forgets all page tables.
    pub(crate) fn flush_all(&mut self, ram: &GuestRam) {
        if !self.filled {
            return;
        }
        self.filled = false;
        self.filled_entries.blank(self.entries.as_mut_slice(), EMPTY);
        self.filled_fetch.blank(&mut self.fetch, NO_FETCH);
        self.filled_writers.blank(&mut self.writers, 0);
        self.renew_all_code();
        self.tables.forget_all(ram);
    }

    /// Takes the fast write tags of a page away: its marks want to hear of stores.
    pub(crate) fn slow_down(&mut self, page: u32) {
        match std::mem::take(&mut self.writers[page as usize]) {
            0 => {}
            u32::MAX => {
                let hit = self.entries.iter_mut().filter(|e| e.page == page && e.write != NONE);
                hit.for_each(|e| e.write |= SLOW);
            }
            slot => {
                let e = &mut self.entries[slot as usize - 1];
                if e.page == page && e.write != NONE {
                    e.write |= SLOW;
                }
            }
        }
    }

    /// Gives an entry a fast write tag, and remembers which.
    fn speed_up(&mut self, slot: usize) {
        let Entry { page, .. } = self.entries[slot];
        self.filled_writers.note(page as usize);
        let writer = &mut self.writers[page as usize];
        let mine = slot as u32 + 1;
        *writer = match *writer {
            0 => mine,
            w if w == mine => mine,
            u32::MAX => u32::MAX,
            w => {
                let other = &self.entries[w as usize - 1];
                let live = other.page == page && other.write & SLOW == 0;
                if live { u32::MAX } else { mine }
            }
        };
        self.entries[slot].write &= !SLOW;
    }

    /// Fills the entry for an address in the current space and a mode. `write` is whether stores are allowed as the
    /// tables stand (dirty bit set).
    fn fill(&mut self, lin: u64, mode: usize, page: u32, write: bool, ram: &GuestRam) {
        self.filled = true;
        let tag = lin & !0xfff;
        let slot = Self::slot(self.space, mode, lin);
        let addend = (ram.host_page(page) as usize).wrapping_sub(tag as usize);
        self.filled_entries.note(slot);
        self.entries[slot] = Entry { read: tag, write: if write { tag | SLOW } else { NONE }, addend, page };
        if write && ram.marks(page) & (DIRTY | CODE | TABLE) == DIRTY {
            self.speed_up(slot);
        }
    }

    /// The page for a fetch, if it is known.
    #[inline]
    pub(crate) fn fetch_page(&self, lin: u64, user: bool) -> Option<u32> {
        let e = &self.fetch[self.space * FETCH_ENTRIES + (lin >> 12) as usize % FETCH_ENTRIES];
        (e.tag == (lin & !0xfff | u64::from(user))).then_some(e.page)
    }

    fn fill_fetch(&mut self, lin: u64, user: bool, page: u32) {
        self.filled = true;
        let slot = self.space * FETCH_ENTRIES + (lin >> 12) as usize % FETCH_ENTRIES;
        self.filled_fetch.note(slot);
        self.fetch[slot] = FetchEntry { tag: lin & !0xfff | u64::from(user), page };
    }

    /// DIRTY marks may have been cleared since the last run: then stores must set them again.
    pub(crate) fn follow_generation(&mut self, ram: &GuestRam) {
        if self.ram_generation != ram.generation() {
            self.ram_generation = ram.generation();
            self.entries.iter_mut().for_each(|e| {
                if e.write != NONE {
                    e.write |= SLOW;
                }
            });
            self.writers.fill(0);
        }
    }
}
