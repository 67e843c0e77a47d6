//! The local APIC's registers: their numbers, their bits, and what they hold (SDM 3A 10.4 to 10.9).
//!
//! Not responsible for: what a read or a write does (`lapic`).

use super::BASE;
use crate::apic::timer::Timer;
use crate::apic::vectors::Vectors;
use serde::{Deserialize, Serialize};

/// APIC_BASE: the bootstrap processor, x2APIC mode, global enable.
pub(super) const BASE_BSP: u64 = 1 << 8;
pub(super) const BASE_X2APIC: u64 = 1 << 10;
pub(super) const BASE_ENABLE: u64 = 1 << 11;

/// Local vector table entries, in register order from 320h on.
pub(super) const LVT_TIMER: usize = 0;
pub(super) const LVT_LINT0: usize = 3;
pub(super) const LVT_ERROR: usize = 5;
/// Bits that each entry has (SDM 3A figure 10-8); delivery status and remote IRR are read-only and apart.
pub(super) const LVT_WRITABLE: [u32; 6] = [0x7_00ff, 0x1_07ff, 0x1_07ff, 0x1_a7ff, 0x1_a7ff, 0x1_00ff];
pub(super) const LVT_MASKED: u32 = 1 << 16;
pub(super) const LVT_LEVEL: u32 = 1 << 15;
pub(super) const LVT_REMOTE_IRR: u32 = 1 << 14;

/// Spurious vector register: software enable.
pub(super) const SVR_ENABLE: u32 = 1 << 8;
/// Integrated APIC of version 14h, highest LVT entry 5.
pub(super) const VERSION: u32 = 0x0005_0014;

/// Error status bits.
pub(super) const ESR_SEND_ILLEGAL: u32 = 1 << 5;
pub(super) const ESR_RECEIVE_ILLEGAL: u32 = 1 << 6;
pub(super) const ESR_ILLEGAL_REGISTER: u32 = 1 << 7;

/// Registers by offset / 16: the number is the same in xAPIC and x2APIC mode (SDM 3A tables 10-1, 10-6).
pub(super) mod register {
    pub const ID: u32 = 0x02;
    pub const VERSION: u32 = 0x03;
    pub const TPR: u32 = 0x08;
    pub const APR: u32 = 0x09;
    pub const PPR: u32 = 0x0a;
    pub const EOI: u32 = 0x0b;
    pub const RRD: u32 = 0x0c;
    pub const LDR: u32 = 0x0d;
    pub const DFR: u32 = 0x0e;
    pub const SVR: u32 = 0x0f;
    pub const ISR: u32 = 0x10;
    pub const TMR: u32 = 0x18;
    pub const IRR: u32 = 0x20;
    pub const ESR: u32 = 0x28;
    pub const ICR_LOW: u32 = 0x30;
    pub const ICR_HIGH: u32 = 0x31;
    pub const LVT: u32 = 0x32;
    pub const LVT_LAST: u32 = 0x37;
    pub const INITIAL_COUNT: u32 = 0x38;
    pub const CURRENT_COUNT: u32 = 0x39;
    pub const DIVIDE: u32 = 0x3e;
    /// x2APIC only.
    pub const SELF_IPI: u32 = 0x3f;
}

/// The registers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct State {
    pub base: u64,
    pub tpr: u8,
    /// Logical destination, bits 31:24 of the xAPIC register.
    pub ldr: u8,
    /// Destination format: bits 31:28, all ones for the flat model.
    pub dfr: u8,
    pub svr: u32,
    pub irr: Vectors,
    pub isr: Vectors,
    pub tmr: Vectors,
    pub icr: u64,
    /// What a read of the error status gives, and what the next write moves there.
    pub esr: u32,
    pub esr_gathered: u32,
    pub lvt: [u32; 6],
    pub pins: [bool; 2],
    pub timer: Timer,
}

impl State {
    /// As firmware leaves them.
    pub fn after_reset() -> Self {
        Self {
            base: BASE | BASE_BSP | BASE_ENABLE,
            tpr: 0,
            ldr: 0,
            dfr: 0xf,
            svr: SVR_ENABLE | 0xff,
            irr: Vectors::default(),
            isr: Vectors::default(),
            tmr: Vectors::default(),
            icr: 0,
            esr: 0,
            esr_gathered: 0,
            lvt: [LVT_MASKED, LVT_MASKED, LVT_MASKED, 0x700, 0x400, LVT_MASKED],
            pins: [false; 2],
            timer: Timer::default(),
        }
    }
}
