//! The form of an interrupt message: what a write to FEExxxxxh says (SDM 3A 10.11), in which the I/O APIC sends too.
//!
//! Not responsible for: accepting it (`lapic`).

/// How an interrupt is delivered (SDM 3A 10.6.1, table 10-2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Delivery {
    /// To the vector.
    Fixed,
    /// To the vector, at the vCPU that runs at the lowest priority; with one vCPU that is [`Delivery::Fixed`].
    LowestPriority,
    /// System management interrupt.
    Smi,
    /// Non-maskable interrupt.
    Nmi,
    /// INIT.
    Init,
    /// Start-up IPI.
    StartUp,
    /// The vector comes from the 8259 pair.
    ExtInt,
    /// A code that means nothing.
    Reserved,
}

impl Delivery {
    /// Reads the three bits at 10:8, where they stand in messages, in the ICR and in the LVT.
    pub(super) fn from_bits(register: u32) -> Self {
        match register >> 8 & 7 {
            0 => Self::Fixed,
            1 => Self::LowestPriority,
            2 => Self::Smi,
            4 => Self::Nmi,
            5 => Self::Init,
            6 => Self::StartUp,
            7 => Self::ExtInt,
            _ => Self::Reserved,
        }
    }
}

/// An interrupt message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Message {
    /// Whom it is for.
    pub destination: u8,
    /// Whether the destination is a logical one.
    pub logical: bool,
    /// How it is delivered.
    pub delivery: Delivery,
    /// The vector.
    pub vector: u8,
    /// Level-triggered: the end of the interrupt is announced to the I/O APIC.
    pub level: bool,
}

/// The 1 MiB of the address space that means messages.
pub(super) const MESSAGE_AREA: u64 = 0xfee;

impl Message {
    /// Reads a message; `None` for an address outside the message area.
    pub(super) fn decode(address: u64, data: u32) -> Option<Self> {
        (address >> 20 == MESSAGE_AREA).then_some(Self {
            destination: (address >> 12) as u8,
            logical: address & 1 << 2 != 0,
            delivery: Delivery::from_bits(data),
            vector: data as u8,
            level: data & 1 << 15 != 0,
        })
    }
}

/// The address and data that say what an I/O APIC redirection entry says (82093AA 3.2.4).
pub(super) fn encode_redirection(entry: u64) -> (u64, u32) {
    let logical = entry >> 11 & 1;
    let address = MESSAGE_AREA << 20 | (entry >> 56) << 12 | logical << 2;
    let level = (entry >> 15 & 1) as u32;
    // Bit 14, "assert", accompanies every level-triggered message of an I/O APIC.
    (address, (entry & 0x7ff) as u32 | level << 15 | level << 14)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirection_entry_comes_through_as_it_is() {
        let entry = 0x5a << 56 | 1 << 15 | 1 << 11 | 1 << 8 | 0x41;
        let (address, data) = encode_redirection(entry);
        let message = Message::decode(address, data).unwrap();
        let wanted = Message {
            destination: 0x5a,
            logical: true,
            delivery: Delivery::LowestPriority,
            vector: 0x41,
            level: true,
        };
        assert_eq!(message, wanted);
        assert_eq!(Message::decode(0xfed0_0000, 0x41), None);
    }
}
