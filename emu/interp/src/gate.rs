//! Gate descriptors: the doors of the IDT, and call and task gates of GDT and LDT (SDM 3A 5.8.3, 6.11, 6.14.1).
//!
//! Not responsible for: who may go through, and what happens then (`interrupt`, `isa/far_transfer`, `task`).

/// A gate, split into its fields.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Gate {
    /// The type field with the S bit above it: 0 to 15 are system types.
    pub kind: u16,
    pub dpl: u8,
    pub present: bool,
    /// Target code segment, or TSS of a task gate.
    pub selector: u16,
    /// Entry point; bits 63:32 come with [`Gate::with_upper`], bits 31:16 do not count in 16-bit gates.
    pub offset: u64,
    /// Words or doublewords that a call gate copies.
    pub parameters: u8,
    /// Interrupt stack table index of a 64-bit gate.
    pub ist: u8,
}

impl Gate {
    /// Splits the first eight bytes.
    pub(crate) const fn from_raw(raw: u64) -> Self {
        let kind = (raw >> 40 & 0x1f) as u16;
        let wide = kind & super::segmentation::system_type::WIDE != 0;
        let high = if wide { raw >> 32 & 0xffff_0000 } else { 0 };
        Self {
            kind,
            dpl: (raw >> 45 & 3) as u8,
            present: raw >> 47 & 1 != 0,
            selector: (raw >> 16) as u16,
            offset: high | raw & 0xffff,
            parameters: (raw >> 32 & 0x1f) as u8,
            ist: (raw >> 32 & 7) as u8,
        }
    }

    /// Adds the upper half of a 16-byte gate.
    pub(crate) const fn with_upper(mut self, upper: u64) -> Self {
        self.offset |= upper << 32;
        self
    }

    /// Whether the gate is a 32-bit (or, in long mode, 64-bit) one.
    pub(crate) const fn is_wide(&self) -> bool {
        self.kind & super::segmentation::system_type::WIDE != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_a_64_bit_interrupt_gate_with_ist() {
        let g = Gate::from_raw(0x8160_8e02_0010_2340).with_upper(0xffff_ffff);
        assert_eq!((g.kind, g.dpl, g.present, g.selector, g.ist), (14, 0, true, 0x10, 2));
        assert_eq!(g.offset, 0xffff_ffff_8160_2340);
    }

    #[test]
    fn a_16_bit_call_gate_has_16_bits_of_offset() {
        let g = Gate::from_raw(0xffff_e403_0008_1234);
        assert_eq!((g.kind, g.dpl, g.present, g.offset, g.parameters), (4, 3, true, 0x1234, 3));
    }
}
