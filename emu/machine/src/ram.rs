#![allow(unsafe_code)] // guest RAM is one anonymous mapping that engines and DMA reach by address
//! Guest RAM: one anonymous mapping, with marks and a digest per 4 KiB page.
//!
//! Not responsible for: what lies outside RAM (the bus), translation of linear addresses (an engine).
//!
//! Guest memory is never seen through a Rust reference: everything copies through raw pointers, because an engine,
//! a hypervisor and DMA all write to it. One thread at a time drives a machine; that is what makes the copies race-free.

use memmap2::{Advice, MmapOptions, MmapRaw};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Bytes in a page of RAM, the unit of marks and digests.
pub const PAGE_SIZE: usize = 4096;

/// Written since the mark was last cleared, for a digest or by [`GuestRam::take_changes`].
pub const DIRTY: u8 = 1 << 0;
/// An engine holds decoded instructions from this page.
pub const CODE: u8 = 1 << 1;
/// An engine holds translations that it read from this page as a page table.
pub const TABLE: u8 = 1 << 2;
/// Changed since the last digest, though somebody else has cleared DIRTY since.
const UNHASHED: u8 = 1 << 3;
/// Changed since [`GuestRam::take_changes`], though a digest has cleared DIRTY since.
const UNTAKEN: u8 = 1 << 4;

/// RAM ends here below 4 GiB; what is more goes on at 4 GiB (the PC's PCI hole).
pub const LOW_END: u64 = 0xc000_0000;
/// Where RAM goes on above the hole.
pub const HIGH_START: u64 = 1 << 32;
/// The legacy video window, which is not RAM.
pub const VIDEO_HOLE: std::ops::Range<u64> = 0xa_0000..0xc_0000;

/// Why there is no RAM, or none at an address.
#[derive(Debug, thiserror::Error)]
pub enum RamError {
    /// A size that the machine cannot have.
    #[error("guest RAM of {0} MiB: it must be between 1 MiB and 64 GiB")]
    Size(u64),
    /// The host gave no memory.
    #[error("cannot map {size} bytes of guest RAM: {source}; give the guest less with -m")]
    Map {
        /// Bytes asked for.
        size: u64,
        /// What the host said.
        source: std::io::Error,
    },
    /// An access by a device outside RAM.
    #[error("no RAM at {0:#x}")]
    NoRam(u64),
}

/// The memory of one machine.
pub struct GuestRam {
    map: MmapRaw,
    size: u64,
    marks: Box<[AtomicU8]>,
    /// What each page adds to the digest, as of the page's last hashing.
    page_digests: Box<[AtomicU64]>,
    sum: AtomicU64,
    /// Counts the times that DIRTY marks were cleared: an engine that caches "already dirty" compares it.
    generation: AtomicU64,
    /// Marked pages that something other than the engine wrote to, until the engine takes the list.
    touched: Mutex<Vec<u32>>,
    any_touched: AtomicBool,
    /// Somebody asks for changed pages now and then, beside the digest.
    followed: AtomicBool,
}

impl GuestRam {
    /// Maps zeroed RAM of `size` bytes, rounded down to whole pages.
    ///
    /// # Errors
    /// [`RamError::Size`], or [`RamError::Map`] when the host has no room.
    pub fn new(size: u64) -> Result<Self, RamError> {
        if !((1 << 20)..=(64 << 30)).contains(&size) {
            return Err(RamError::Size(size >> 20));
        }
        let size = size & !(PAGE_SIZE as u64 - 1);
        let map = MmapOptions::new().len(size as usize).no_reserve_swap().map_anon();
        let map = map.map_err(|source| RamError::Map { size, source })?;
        // A hint, and no more: huge pages miss the host's TLB less, and a process that dies gives them back sooner.
        let _ = map.advise(Advice::HugePage);
        let map = map.into();
        let pages = size as usize / PAGE_SIZE;
        Ok(Self {
            map,
            size,
            marks: (0..pages).map(|_| AtomicU8::new(0)).collect(),
            page_digests: (0..pages).map(|_| AtomicU64::new(0)).collect(),
            sum: AtomicU64::new(0),
            generation: AtomicU64::new(0),
            touched: Mutex::new(Vec::new()),
            any_touched: AtomicBool::new(false),
            followed: AtomicBool::new(false),
        })
    }

    /// Bytes of RAM.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Number of pages.
    pub fn pages(&self) -> usize {
        self.marks.len()
    }

    /// The guest physical ranges that are RAM, video hole left out, as (start, end).
    pub fn ranges(&self) -> Vec<(u64, u64)> {
        let low = self.size.min(LOW_END);
        let mut out = vec![(0, VIDEO_HOLE.start), (VIDEO_HOLE.end, low)];
        if self.size > LOW_END {
            out.push((HIGH_START, HIGH_START + self.size - LOW_END));
        }
        out
    }

    /// The page (its index in the mapping) at a guest physical address, or `None` where there is no RAM.
    #[inline]
    pub fn page_at(&self, address: u64) -> Option<u32> {
        let offset = if address < LOW_END {
            if VIDEO_HOLE.contains(&address) {
                return None;
            }
            address
        } else if address >= HIGH_START {
            address - HIGH_START + LOW_END
        } else {
            return None;
        };
        (offset < self.size).then_some((offset / PAGE_SIZE as u64) as u32)
    }

    /// The guest physical address of a page.
    pub fn address_of(&self, page: u32) -> u64 {
        let offset = u64::from(page) * PAGE_SIZE as u64;
        if offset < LOW_END { offset } else { offset - LOW_END + HIGH_START }
    }

    /// Where a page lies in the host's address space: valid for [`PAGE_SIZE`] bytes as long as the RAM lives.
    /// Writing there without [`GuestRam::mark`] of `DIRTY` first makes digests wrong.
    ///
    /// # Panics
    /// When `page` is not below [`GuestRam::pages`].
    #[inline]
    pub fn host_page(&self, page: u32) -> *mut u8 {
        assert!((page as usize) < self.marks.len(), "page {page} of {}", self.marks.len());
        // SAFETY: the page lies inside the mapping, as just asserted.
        unsafe { self.map.as_mut_ptr().add(page as usize * PAGE_SIZE) }
    }

    /// The marks of a page.
    #[inline]
    pub fn marks(&self, page: u32) -> u8 {
        self.marks[page as usize].load(Relaxed)
    }

    /// Sets marks.
    #[inline]
    pub fn mark(&self, page: u32, marks: u8) {
        let cell = &self.marks[page as usize];
        cell.store(cell.load(Relaxed) | marks, Relaxed);
    }

    /// Clears marks that the caller owns (`CODE` and `TABLE` are the engine's).
    #[inline]
    pub fn unmark(&self, page: u32, marks: u8) {
        let cell = &self.marks[page as usize];
        cell.store(cell.load(Relaxed) & !marks, Relaxed);
    }

    /// How often DIRTY marks were cleared.
    #[inline]
    pub fn generation(&self) -> u64 {
        self.generation.load(Relaxed)
    }

    /// Copies guest memory out.
    ///
    /// # Errors
    /// [`RamError::NoRam`] when any byte lies outside RAM; `out` is then partly filled.
    pub fn read(&self, address: u64, out: &mut [u8]) -> Result<(), RamError> {
        self.pieces(address, out.len(), |host, range| {
            // SAFETY: `pieces` gives addresses inside one page of the mapping, and `out` is not guest memory.
            unsafe { host.copy_to_nonoverlapping(out[range.clone()].as_mut_ptr(), range.len()) }
        })
    }

    /// Copies into guest memory, as DMA does: pages get dirty, and an engine hears of marked ones.
    ///
    /// # Errors
    /// [`RamError::NoRam`] when any byte lies outside RAM; what lies before it is then written.
    pub fn write(&self, address: u64, data: &[u8]) -> Result<(), RamError> {
        self.pieces(address, data.len(), |host, range| {
            let page = (host.addr() - self.map.as_mut_ptr().addr()) / PAGE_SIZE;
            self.note_foreign_write(page as u32);
            // SAFETY: as in `read`.
            unsafe { host.copy_from_nonoverlapping(data[range.clone()].as_ptr(), range.len()) }
        })
    }

    /// Reads a little-endian value of `N` bytes.
    ///
    /// # Errors
    /// [`RamError::NoRam`].
    pub fn read_array<const N: usize>(&self, address: u64) -> Result<[u8; N], RamError> {
        let mut out = [0; N];
        self.read(address, &mut out)?;
        Ok(out)
    }

    fn note_foreign_write(&self, page: u32) {
        let marks = self.marks(page);
        self.mark(page, DIRTY);
        if marks & (CODE | TABLE) != 0 {
            self.touched.lock().unwrap_or_else(|e| e.into_inner()).push(page);
            self.any_touched.store(true, Relaxed);
        }
    }

    /// Whether [`GuestRam::take_touched`] has anything.
    #[inline]
    pub fn any_touched(&self) -> bool {
        self.any_touched.load(Relaxed)
    }

    /// Marked pages that were written by [`GuestRam::write`] since the last call.
    pub fn take_touched(&self) -> Vec<u32> {
        self.any_touched.store(false, Relaxed);
        std::mem::take(&mut *self.touched.lock().unwrap_or_else(|e| e.into_inner()))
    }

    /// Splits an access into pieces that lie in one page each.
    fn pieces(
        &self,
        mut address: u64,
        len: usize,
        mut each: impl FnMut(*mut u8, std::ops::Range<usize>),
    ) -> Result<(), RamError> {
        let mut done = 0;
        while done < len {
            let page = self.page_at(address).ok_or(RamError::NoRam(address))?;
            let inside = (address % PAGE_SIZE as u64) as usize;
            let n = (PAGE_SIZE - inside).min(len - done);
            // SAFETY: `inside` is less than the page's size.
            each(unsafe { self.host_page(page).add(inside) }, done..done + n);
            done += n;
            address = address.wrapping_add(n as u64);
        }
        Ok(())
    }

    /// The digest of all RAM: the wrapping sum over pages of xxh3(page, seed = page number + 1), where an all-zero
    /// page adds nothing. Costs only the pages that are dirty; they are clean afterwards.
    pub fn digest(&self) -> u64 {
        for page in 0..self.marks.len() as u32 {
            let marks = self.marks(page);
            if marks & (DIRTY | UNHASHED) != 0 {
                self.unmark(page, DIRTY | UNHASHED);
                if marks & DIRTY != 0 && self.followed.load(Relaxed) {
                    self.mark(page, UNTAKEN);
                }
                let new = self.page_digest(page);
                let old = self.page_digests[page as usize].swap(new, Relaxed);
                self.sum.store(self.sum.load(Relaxed).wrapping_sub(old).wrapping_add(new), Relaxed);
            }
        }
        self.generation.store(self.generation() + 1, Relaxed);
        self.sum.load(Relaxed)
    }

    /// From now on [`GuestRam::take_changes`] says what changed; at first everything that may be other than zeros. Costs nothing
    /// until it is called.
    pub fn follow_changes(&self) {
        self.followed.store(true, Relaxed);
        (0..self.marks.len() as u32)
            .filter(|page| self.was_written(*page))
            .for_each(|page| self.mark(page, UNTAKEN));
    }

    /// Nobody asks any more.
    pub fn forget_changes(&self) {
        self.followed.store(false, Relaxed);
        (0..self.marks.len() as u32).for_each(|page| self.unmark(page, UNTAKEN));
    }

    /// The pages that were written since the last call, in order. To be called at a boundary, by the machine's thread, with the
    /// engine's marks complete ([`crate::Vcpu::save`]): a page that is written from there on is in the next call's answer, so a copy
    /// that is made while the guest goes on and that a store tears is followed by another.
    pub fn take_changes(&self) -> Vec<u32> {
        let mut changed = Vec::new();
        for page in 0..self.marks.len() as u32 {
            let marks = self.marks(page);
            if marks & (DIRTY | UNTAKEN) != 0 {
                self.unmark(page, DIRTY | UNTAKEN);
                if marks & DIRTY != 0 {
                    self.mark(page, UNHASHED);
                }
                changed.push(page);
            }
        }
        self.generation.store(self.generation() + 1, Relaxed);
        changed
    }

    /// Copies a page, also while the machine runs on another thread: the copy is then of no moment in particular.
    ///
    /// # Panics
    /// When `page` is not below [`GuestRam::pages`].
    pub fn copy_page(&self, page: u32, out: &mut [u8; PAGE_SIZE]) {
        let from = self.host_page(page).cast::<u64>().cast_const();
        for (i, piece) in out.as_chunks_mut().0.iter_mut().enumerate() {
            // SAFETY: inside the page. Volatile: a guest may store there meanwhile, and a word is read once, whatever it is then.
            *piece = unsafe { from.add(i).read_volatile() }.to_ne_bytes();
        }
    }

    /// What a page added to the digest when [`GuestRam::digest`] was last called: pages of equal content have equal ones, and zero
    /// is the all-zero page's.
    pub fn digest_of(&self, page: u32) -> u64 {
        self.page_digests[page as usize].load(Relaxed)
    }

    fn page_digest(&self, page: u32) -> u64 {
        self.with_page(
            page,
            |bytes| {
                if is_zero(bytes) { 0 } else { xxh3_64_with_seed(bytes, u64::from(page) + 1) }
            },
        )
    }

    fn with_page<R>(&self, page: u32, look: impl FnOnce(&[u8]) -> R) -> R {
        // SAFETY: a page of the mapping; nothing writes to it during this call (one thread drives the machine).
        look(unsafe { std::slice::from_raw_parts(self.host_page(page), PAGE_SIZE) })
    }

    /// Every page that is not all zeros: its index and content. For snapshots.
    pub fn used_pages(&self) -> impl Iterator<Item = (u32, Vec<u8>)> + '_ {
        (0..self.marks.len() as u32).filter(|page| self.was_written(*page)).filter_map(|page| {
            let mut content = vec![0; PAGE_SIZE];
            self.read(self.address_of_mapped(page), &mut content).ok()?;
            (!is_zero(&content)).then_some((page, content))
        })
    }

    /// Whether a page can be other than all zeros: most of a large RAM was never written to, and need not be looked at.
    fn was_written(&self, page: u32) -> bool {
        self.marks(page) & (DIRTY | UNHASHED) != 0 || self.page_digests[page as usize].load(Relaxed) != 0
    }

    /// Like `address_of`, but `u64::MAX` (no RAM there) for pages under the video hole, which nothing can reach.
    fn address_of_mapped(&self, page: u32) -> u64 {
        let address = self.address_of(page);
        if VIDEO_HOLE.contains(&address) { u64::MAX } else { address }
    }

    /// Zeroes all RAM (a restore starts from there). An engine hears of every marked page.
    pub fn clear(&self) {
        for page in 0..self.marks.len() as u32 {
            if self.was_written(page) && !self.with_page(page, is_zero) {
                self.note_foreign_write(page);
                // SAFETY: a whole page of the mapping.
                unsafe { self.host_page(page).write_bytes(0, PAGE_SIZE) };
            }
        }
    }
}

fn is_zero(page: &[u8]) -> bool {
    page.iter().all(|byte| *byte == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_pages_agree_around_both_holes() {
        let ram = GuestRam::new(4 << 30).unwrap();
        assert_eq!(ram.page_at(0x9_f000), Some(0x9f));
        assert_eq!(ram.page_at(0xa_0000), None);
        assert_eq!(ram.page_at(LOW_END - 1), Some(0xb_ffff));
        assert_eq!(ram.page_at(LOW_END), None);
        assert_eq!(ram.page_at(HIGH_START), Some(0xc_0000));
        assert_eq!(ram.address_of(0xc_0000), HIGH_START);
        assert_eq!(ram.page_at(HIGH_START + (1 << 30)), None);
        assert_eq!(ram.page_at(u64::MAX), None);
    }

    #[test]
    fn the_digest_depends_on_content_and_place_only() {
        let a = GuestRam::new(1 << 20).unwrap();
        let b = GuestRam::new(1 << 20).unwrap();
        assert_eq!(a.digest(), 0);
        a.write(0x1ffe, &[1, 2, 3, 4]).unwrap();
        a.write(0x5000, &[9]).unwrap();
        a.digest();
        a.write(0x5000, &[0]).unwrap();
        b.write(0x1ffe, &[1, 2, 3, 4]).unwrap();
        assert_eq!(a.digest(), b.digest());
        b.write(0x1fff, &[7]).unwrap();
        assert_ne!(a.digest(), b.digest());
        let c = GuestRam::new(1 << 20).unwrap();
        c.write(0x2ffe, &[1, 2, 3, 4]).unwrap();
        assert_ne!(a.digest(), c.digest());
    }

    #[test]
    fn used_pages_are_those_that_hold_something() {
        let ram = GuestRam::new(1 << 20).unwrap();
        let used = |ram: &GuestRam| ram.used_pages().map(|(page, _)| page).collect::<Vec<_>>();
        ram.write(0x2000, &[1]).unwrap();
        ram.write(0x7000, &[0]).unwrap();
        assert_eq!(used(&ram), [2]);
        ram.digest();
        assert_eq!(used(&ram), [2], "clean, but not empty");
        ram.write(0x2000, &[0]).unwrap();
        ram.write(0x3000, &[4]).unwrap();
        assert_eq!(used(&ram), [3]);
        ram.clear();
        assert_eq!(used(&ram), []);
        assert_eq!(ram.digest(), 0);
    }

    /// Two that ask, in every order: each hears of every write once.
    #[test]
    fn changes_are_told_beside_the_digest() {
        let (ram, twin) = (GuestRam::new(1 << 20).unwrap(), GuestRam::new(1 << 20).unwrap());
        let write =
            |address, value: u8| [&ram, &twin].iter().for_each(|r| r.write(address, &[value]).unwrap());
        write(0x1000, 1);
        ram.digest();
        assert_eq!(ram.take_changes(), [], "nobody followed");
        write(0x2000, 2);
        ram.follow_changes();
        assert_eq!(ram.take_changes(), [1, 2], "all that is not zero");
        assert_eq!(ram.take_changes(), []);
        write(0x3000, 3);
        assert_eq!((ram.take_changes(), ram.digest()), (vec![3], twin.digest()), "changes first");
        write(0x1000, 4);
        assert_eq!((ram.digest(), ram.take_changes()), (twin.digest(), vec![1]), "digest first");
        write(0x1000, 5);
        assert_eq!(ram.take_changes(), [1]);
        write(0x2000, 0);
        assert_eq!((ram.take_changes(), ram.take_changes()), (vec![2], vec![]));
        assert_eq!(ram.used_pages().map(|(page, _)| page).collect::<Vec<_>>(), [1, 3]);
        assert_eq!(ram.digest(), twin.digest(), "both");
        assert_eq!(ram.take_changes(), []);
        write(0x4000, 6);
        ram.digest();
        ram.forget_changes();
        assert_eq!(ram.take_changes(), [], "nobody follows any more");
        let mut page = [0; PAGE_SIZE];
        ram.copy_page(4, &mut page);
        assert_eq!((page[0], &page[1..]), (6, &[0; PAGE_SIZE - 1][..]));
    }

    #[test]
    fn dma_outside_ram_is_an_error_and_marked_pages_are_reported() {
        let ram = GuestRam::new(1 << 20).unwrap();
        assert!(ram.write(0xf_ffff, &[1, 2]).is_err());
        assert!(ram.read(u64::MAX, &mut [0; 2]).is_err());
        ram.mark(3, CODE);
        ram.write(0x3800, &[5]).unwrap();
        ram.write(0x4800, &[5]).unwrap();
        assert!(ram.any_touched());
        assert_eq!(ram.take_touched(), [3]);
        assert!(!ram.any_touched());
    }
}
