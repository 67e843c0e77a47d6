//! Segment registers with their hidden parts, descriptors, and descriptor tables (SDM 3A 3.4; APM 2 4.7).
//!
//! Not responsible for: the checks of a load (`emu/interp`).

/// Index of ES in [`crate::CpuState::seg`]; the order is the instruction encoding's.
pub const ES: usize = 0;
/// Index of CS.
pub const CS: usize = 1;
/// Index of SS.
pub const SS: usize = 2;
/// Index of DS.
pub const DS: usize = 3;
/// Index of FS.
pub const FS: usize = 4;
/// Index of GS.
pub const GS: usize = 5;

/// Attribute bits in the layout of descriptor bytes 5 and 6 (`type` 0-3, S 4, DPL 5-6, P 7, AVL 8, L 9, D/B 10, G 11).
pub mod attr {
    /// Accessed (code and data).
    pub const ACCESSED: u16 = 1 << 0;
    /// Writable data, or readable code.
    pub const READ_WRITE: u16 = 1 << 1;
    /// Expand-down data, or conforming code.
    pub const DOWN_CONFORMING: u16 = 1 << 2;
    /// Code, not data.
    pub const CODE: u16 = 1 << 3;
    /// Code or data, not a system descriptor.
    pub const S: u16 = 1 << 4;
    /// Where the descriptor privilege level starts.
    pub const DPL_SHIFT: u32 = 5;
    /// Present.
    pub const P: u16 = 1 << 7;
    /// Free for software.
    pub const AVL: u16 = 1 << 8;
    /// 64-bit code.
    pub const L: u16 = 1 << 9;
    /// 32-bit default, or big stack.
    pub const DB: u16 = 1 << 10;
    /// The limit counts pages.
    pub const G: u16 = 1 << 11;
}

/// A segment register: the selector and the hidden part that the last load left.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Segment {
    /// The visible selector.
    pub selector: u16,
    /// Attributes, see [`attr`]. A null segment has P clear.
    pub attr: u16,
    /// Limit in bytes, granularity applied.
    pub limit: u32,
    /// Linear base.
    pub base: u64,
}

impl Segment {
    /// A real-mode style segment: base is sixteen times the selector, 64 KiB, read and write.
    pub const fn real(selector: u16) -> Self {
        Self { selector, attr: 0x93, limit: 0xffff, base: (selector as u64) << 4 }
    }

    /// The descriptor privilege level, 0 to 3.
    pub const fn dpl(&self) -> u8 {
        ((self.attr >> attr::DPL_SHIFT) & 3) as u8
    }

    /// Whether all bits of `mask` are set in the attributes.
    pub const fn has(&self, mask: u16) -> bool {
        self.attr & mask == mask
    }

    /// Splits an eight-byte descriptor; `selector` becomes the visible part. System descriptors of 16 bytes keep
    /// bits 63:32 of their base in the second half: see [`Segment::with_upper`].
    pub const fn from_descriptor(selector: u16, d: u64) -> Self {
        let attr = ((d >> 40) & 0xff) as u16 | (((d >> 52) & 0xf) as u16) << 8;
        let raw = (d & 0xffff) as u32 | ((d >> 32) & 0xf_0000) as u32;
        let limit = if attr & attr::G != 0 { (raw << 12) | 0xfff } else { raw };
        let base = ((d >> 16) & 0xff_ffff) | ((d >> 56) << 24);
        Self { selector, attr, limit, base }
    }

    /// Adds the upper half of a 16-byte system descriptor's base.
    pub const fn with_upper(mut self, upper: u64) -> Self {
        self.base |= (upper & 0xffff_ffff) << 32;
        self
    }

    /// Whether the segment is the whole 4 GiB from zero, present, readable and (for data) writable: then no access
    /// through it needs a check.
    pub const fn is_flat(&self) -> bool {
        self.base == 0
            && self.limit == u32::MAX
            && self.has(attr::P | attr::S | attr::READ_WRITE)
            && self.attr & (attr::CODE | attr::DOWN_CONFORMING) == 0
    }
}

/// GDTR or IDTR.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TableRegister {
    /// Linear base.
    pub base: u64,
    /// Last valid byte offset.
    pub limit: u16,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_the_flat_code_descriptor_of_every_boot_loader() {
        let s = Segment::from_descriptor(0x10, 0x00cf_9a00_0000_ffff);
        assert_eq!((s.base, s.limit, s.attr), (0, u32::MAX, 0xc9a));
        assert_eq!(s.dpl(), 0);
    }

    #[test]
    fn splits_a_base_over_three_fields() {
        let s = Segment::from_descriptor(0, 0x1240_f334_5678_abcd);
        assert_eq!((s.base, s.limit), (0x1234_5678, 0xabcd));
        assert_eq!(s.dpl(), 3);
    }
}
