//! One 8259A: request, service and mask registers, priorities, command words.
//!
//! Not responsible for: the cascade, ports and wires (`pic`).
//!
//! Headings in brackets are those of the Intel 8259A datasheet (231468).

use serde::{Deserialize, Serialize};

/// One interrupt controller.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Chip {
    /// Levels of the inputs.
    lines: u8,
    /// Interrupt requests (IRR).
    requests: u8,
    /// Interrupts in service (ISR).
    in_service: u8,
    /// Masked inputs (IMR).
    mask: u8,
    /// Level-triggered inputs (ELCR of the south bridge, in place of the chip's own LTIM bit; 82371AB datasheet, ICW1).
    level_triggered: u8,
    /// Vector of input 0; a multiple of eight.
    base: u8,
    /// The input of lowest priority; the next one has the highest.
    lowest: u8,
    expects: Expects,
    /// ICW1 announced an ICW4.
    has_icw4: bool,
    /// ICW1 said that there is no cascade, so no ICW3 either.
    single: bool,
    auto_eoi: bool,
    rotate_on_auto_eoi: bool,
    /// Special fully nested mode: a slave in service does not hold off its own further requests.
    nested_slave: bool,
    special_mask: bool,
    /// Reads at the even port give ISR, not IRR.
    read_in_service: bool,
    /// The next read is a poll.
    poll: bool,
}

/// What the next write to the odd port is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
enum Expects {
    Mask,
    Icw2,
    Icw3,
    Icw4,
}

impl Chip {
    /// A chip that nobody has initialised: everything masked, so that it stays silent.
    pub(super) const fn new() -> Self {
        Self {
            lines: 0,
            requests: 0,
            in_service: 0,
            mask: 0xff,
            level_triggered: 0,
            base: 0,
            lowest: 7,
            expects: Expects::Mask,
            has_icw4: false,
            single: false,
            auto_eoi: false,
            rotate_on_auto_eoi: false,
            nested_slave: false,
            special_mask: false,
            read_in_service: false,
            poll: false,
        }
    }

    /// Whether a restored chip is one that this code can have saved.
    pub(super) const fn is_sound(&self) -> bool {
        self.lowest < 8 && self.base & 7 == 0
    }

    /// An input goes to a level. An edge-triggered request lasts while the input stays high [Interrupt Sequence]: one that falls
    /// before the acknowledge is gone, and the vCPU gets input 7's vector instead.
    pub(super) fn set_line(&mut self, input: u8, level: bool) {
        let bit = 1 << input;
        let rises = level && self.lines & bit == 0;
        if !level {
            self.lines &= !bit;
            self.requests &= !bit;
        } else {
            self.lines |= bit;
            if rises || self.level_triggered & bit != 0 {
                self.requests |= bit;
            }
        }
    }

    pub(super) const fn level_triggered(&self) -> u8 {
        self.level_triggered
    }

    pub(super) fn set_level_triggered(&mut self, inputs: u8) {
        self.level_triggered = inputs;
        self.requests |= self.lines & inputs;
    }

    /// Inputs from the highest priority to the lowest.
    fn by_priority(&self) -> impl Iterator<Item = u8> + use<> {
        let lowest = self.lowest;
        (1..=8).map(move |i| (lowest + i) & 7)
    }

    /// The input for which INT is raised, if any. `slave` is the input that a cascaded chip is on.
    pub(super) fn pending(&self, slave: Option<u8>) -> Option<u8> {
        let wanted = self.requests & !self.mask;
        if wanted == 0 {
            return None;
        }
        for input in self.by_priority() {
            let bit = 1 << input;
            let served = self.in_service & bit != 0;
            let again = self.nested_slave && slave == Some(input);
            if wanted & bit != 0 && (!served || again) {
                return Some(input);
            }
            // In special mask mode what is in service holds off only itself [Special Mask Mode].
            if served && !self.special_mask {
                return None;
            }
        }
        None
    }

    /// INTA: the request moves into service.
    pub(super) fn take(&mut self, input: u8) {
        let bit = 1 << input;
        if self.level_triggered & bit == 0 {
            self.requests &= !bit;
        }
        if !self.auto_eoi {
            self.in_service |= bit;
        } else if self.rotate_on_auto_eoi {
            self.lowest = input;
        }
    }

    /// The vector of an input.
    pub(super) const fn vector(&self, input: u8) -> u8 {
        self.base | input
    }

    /// A byte written to the even port: ICW1, OCW2 or OCW3.
    pub(super) fn write_command(&mut self, value: u8) {
        if value & 0x10 != 0 {
            self.icw1(value);
        } else if value & 0x08 != 0 {
            // OCW3.
            self.poll = value & 0x04 != 0;
            if value & 0x02 != 0 {
                self.read_in_service = value & 0x01 != 0;
            }
            if value & 0x40 != 0 {
                self.special_mask = value & 0x20 != 0;
            }
        } else {
            self.ocw2(value);
        }
    }

    /// ICW1 [Initialization Command Words]: edges are forgotten, the mask is cleared, input 7 has the lowest priority.
    fn icw1(&mut self, value: u8) {
        *self = Self {
            lines: self.lines,
            requests: self.lines & self.level_triggered,
            mask: 0,
            level_triggered: self.level_triggered,
            base: self.base,
            expects: Expects::Icw2,
            has_icw4: value & 0x01 != 0,
            single: value & 0x02 != 0,
            ..Self::new()
        };
    }

    /// OCW2 [Operation Command Words]: end of interrupt, rotation, priority.
    fn ocw2(&mut self, value: u8) {
        let level = value & 7;
        match value >> 5 {
            0 => self.rotate_on_auto_eoi = false,
            4 => self.rotate_on_auto_eoi = true,
            command @ (1 | 5) => {
                // Non-specific: the highest in service, but in special mask mode none that is masked [End of Interrupt].
                let ended = if self.special_mask { self.in_service & !self.mask } else { self.in_service };
                if let Some(input) = self.by_priority().find(|i| ended & 1 << i != 0) {
                    self.in_service &= !(1 << input);
                    if command == 5 {
                        self.lowest = input;
                    }
                }
            }
            3 => self.in_service &= !(1 << level),
            6 => self.lowest = level,
            7 => {
                self.in_service &= !(1 << level);
                self.lowest = level;
            }
            _ => {}
        }
    }

    /// A byte written to the odd port: the next ICW, or OCW1.
    pub(super) fn write_data(&mut self, value: u8) {
        let last = if self.has_icw4 { Expects::Icw4 } else { Expects::Mask };
        self.expects = match self.expects {
            Expects::Mask => {
                self.mask = value;
                Expects::Mask
            }
            Expects::Icw2 => {
                self.base = value & 0xf8;
                if self.single { last } else { Expects::Icw3 }
            }
            // Who is cascaded where is wired on a PC; what ICW3 says is not looked at.
            Expects::Icw3 => last,
            Expects::Icw4 => {
                self.auto_eoi = value & 0x02 != 0;
                self.nested_slave = value & 0x10 != 0;
                Expects::Mask
            }
        };
    }

    /// Whether the next read polls; the pair answers it, as it may concern the slave.
    pub(super) fn take_poll(&mut self) -> bool {
        std::mem::take(&mut self.poll)
    }

    /// A byte read from the even port.
    pub(super) const fn read_command(&self) -> u8 {
        if self.read_in_service { self.in_service } else { self.requests }
    }

    /// A byte read from the odd port.
    pub(super) const fn read_data(&self) -> u8 {
        self.mask
    }
}
