//! A copy of a machine's RAM that follows it from boundary to boundary, at the cost of the pages that change.
//!
//! Not responsible for: the rest of a machine's state (`place`).
//!
//! Pages are told apart by their digests, so the RAM's digest must have been taken at the boundary in question.

use gemel_machine::{GuestRam, PAGE_SIZE};
use std::collections::BTreeMap;

type Page = Box<[u8; PAGE_SIZE]>;
const ZEROS: [u8; PAGE_SIZE] = [0; PAGE_SIZE];

/// RAM as it was at the last boundary that was followed, and what it takes to have it as at the boundary that was marked.
pub(crate) struct Mirror {
    /// `None` is all zeros.
    pages: Vec<Option<Page>>,
    digests: Vec<u64>,
    /// Pages that changed since the mark: content and digest there.
    marked: BTreeMap<u32, (Option<Page>, u64)>,
}

impl Mirror {
    /// A copy of RAM, marked here.
    pub(crate) fn of(ram: &GuestRam) -> Self {
        let pages = ram.pages();
        let mut mirror = Self {
            pages: (0..pages).map(|_| None).collect(),
            digests: vec![0; pages],
            marked: BTreeMap::new(),
        };
        mirror.follow(ram);
        mirror.mark();
        mirror
    }

    /// Becomes what RAM is.
    pub(crate) fn follow(&mut self, ram: &GuestRam) {
        for page in 0..self.digests.len() as u32 {
            let (digest, known) = (ram.digest_of(page), &mut self.digests[page as usize]);
            if digest == *known {
                continue;
            }
            let content = (digest != 0).then(|| copy(ram, page));
            let before = std::mem::replace(&mut self.pages[page as usize], content);
            self.marked.entry(page).or_insert((before, *known));
            *known = digest;
        }
    }

    /// Marks this boundary.
    pub(crate) fn mark(&mut self) {
        self.marked.clear();
    }

    /// Makes RAM what it was at the last boundary.
    pub(crate) fn put_back(&self, ram: &GuestRam) {
        let page = |page: u32| (self.pages[page as usize].as_ref(), self.digests[page as usize]);
        self.put(ram, page);
    }

    /// Makes RAM what it was at the mark.
    pub(crate) fn put_marked_back(&self, ram: &GuestRam) {
        self.put(ram, |page| match self.marked.get(&page) {
            Some((content, digest)) => (content.as_ref(), *digest),
            None => (self.pages[page as usize].as_ref(), self.digests[page as usize]),
        });
    }

    fn put<'s>(&'s self, ram: &GuestRam, wanted: impl Fn(u32) -> (Option<&'s Page>, u64)) {
        ram.digest();
        for page in 0..self.digests.len() as u32 {
            let (content, digest) = wanted(page);
            if ram.digest_of(page) != digest {
                let bytes = content.map_or(&ZEROS, |page| &**page);
                // Pages that differ were written to, so they are RAM.
                let _ = ram.write(ram.address_of(page), bytes);
            }
        }
    }
}

fn copy(ram: &GuestRam, page: u32) -> Page {
    let mut content = Box::new(ZEROS);
    // A page with a digest was written to, so it is RAM.
    let _ = ram.read(ram.address_of(page), content.as_mut_slice());
    content
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test that unwraps fails with the line
    use super::*;

    #[test]
    fn ram_comes_back_as_it_was_at_the_last_boundary_and_at_the_mark() {
        let ram = GuestRam::new(1 << 20).unwrap();
        let at = |ram: &GuestRam, address| ram.read_array::<1>(address).unwrap()[0];
        ram.write(0x1000, &[1]).unwrap();
        ram.write(0x2000, &[2]).unwrap();
        let first = ram.digest();
        let mut mirror = Mirror::of(&ram);
        ram.write(0x2000, &[0]).unwrap();
        ram.write(0x3000, &[3]).unwrap();
        let second = ram.digest();
        mirror.follow(&ram);
        ram.write(0x1000, &[9, 9]).unwrap();
        ram.write(0x4000, &[9]).unwrap();

        mirror.put_back(&ram);
        assert_eq!([0x1000, 0x1001, 0x2000, 0x3000, 0x4000].map(|a| at(&ram, a)), [1, 0, 0, 3, 0]);
        assert_eq!(ram.digest(), second);
        mirror.put_marked_back(&ram);
        assert_eq!([0x1000, 0x2000, 0x3000].map(|a| at(&ram, a)), [1, 2, 0]);
        assert_eq!(ram.digest(), first);
        mirror.mark();
        mirror.put_marked_back(&ram);
        assert_eq!(ram.digest(), second, "the mark has moved");
    }
}
