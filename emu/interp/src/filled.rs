//! Which places of a table were filled since it was last blank.
//!
//! Not responsible for: the tables (`mmu`, `blocks`).
//!
//! Caches have many places and are dropped whole. A guest that makes each of its instructions drop them, as by storing into a page
//! that it uses as a page table of several levels, would pay for all places each time; so it pays for what it filled.

/// More places than this are not listed: filling them took longer than blanking the table does.
const FEW: usize = 256;

/// The places, as long as they are few. A place can be listed twice, and stays listed when it alone is blanked.
#[derive(Default)]
pub(crate) struct Filled(Vec<u32>);

impl Filled {
    /// A place is being filled.
    #[inline]
    pub(crate) fn note(&mut self, place: usize) {
        if self.0.len() < FEW {
            self.0.push(place as u32);
        }
    }

    /// Makes the whole table blank.
    pub(crate) fn blank<T: Copy>(&mut self, table: &mut [T], value: T) {
        if self.0.len() < FEW {
            self.0.iter().for_each(|place| table[*place as usize] = value);
        } else {
            table.fill(value);
        }
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_and_many_places_are_blank_afterwards() {
        for places in [0, 1, FEW - 1, FEW, FEW + 1, 2 * FEW] {
            let (mut table, mut filled) = (vec![0; 4 * FEW], Filled::default());
            for _ in 0..2 {
                for place in (0..places).map(|n| n * 7 % (4 * FEW)) {
                    filled.note(place);
                    table[place] = 1;
                }
                filled.blank(&mut table, 0);
                assert!(table.iter().all(|v| *v == 0), "{places} places");
            }
        }
    }
}
