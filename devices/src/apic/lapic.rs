//! The local APIC (SDM 3A chapter 10): one vCPU's interrupts by priority, its two pins, its timer.
//!
//! Not responsible for: the I/O APIC, the 8259 pair behind LINT0, other processors (there is one).
//!
//! The board has no firmware program, so reset leaves the state that firmware would (MP 1.4 3.6.2.2, virtual wire
//! mode): software-enabled, LINT0 = ExtINT, LINT1 = NMI. IA32_TSC_DEADLINE is compared with the machine's TSC; a
//! vCPU that adds an offset to it passes the deadline less that offset.

mod registers;
mod x2apic;

use super::message::{Delivery, Message};
use super::timer::Mode;
use gemel_machine::{Device, DeviceCx, Section, SectionError};
use gemel_x86::{CpuModel, Feature, msr};
use registers::*;

/// Where the registers lie. Moving them is not offered: another base in APIC_BASE is refused with #GP.
pub const BASE: u64 = 0xfee0_0000;
/// Bytes of the register window.
pub const WINDOW: u64 = 0x1000;
/// Pin number of LINT0 (the 8259 pair's INTR).
pub const LINT0_PIN: u8 = 0;
/// Pin number of LINT1 (the board's NMI).
pub const LINT1_PIN: u8 = 1;
/// The one vCPU's APIC id.
pub const APIC_ID: u8 = 0;

const NAME: &str = "lapic";
const STATE_VERSION: u16 = 1;
const TIMER: u8 = 0;

/// The chip.
pub struct LocalApic {
    // Configuration.
    offers_x2apic: bool,
    offers_tsc_deadline: bool,
    // State.
    state: State,
    /// Whether the vCPU has something to take: derived, kept because it is asked after every access.
    pending: bool,
}

impl LocalApic {
    /// The local APIC of a CPU model.
    pub fn new(cpu: &CpuModel) -> Self {
        Self {
            offers_x2apic: cpu.has(Feature::X2APIC),
            offers_tsc_deadline: cpu.has(Feature::TSC_DEADLINE),
            state: State::after_reset(),
            pending: false,
        }
    }

    fn globally_enabled(&self) -> bool {
        self.state.base & BASE_ENABLE != 0
    }

    fn software_enabled(&self) -> bool {
        self.state.svr & SVR_ENABLE != 0
    }

    fn x2apic(&self) -> bool {
        self.globally_enabled() && self.state.base & BASE_X2APIC != 0
    }

    /// Processor priority (SDM 3A 10.8.3.1): the higher class of task priority and interrupt in service.
    fn processor_priority(&self) -> u8 {
        let in_service = self.state.isr.highest().unwrap_or(0) & 0xf0;
        if self.state.tpr & 0xf0 >= in_service { self.state.tpr } else { in_service }
    }

    /// The vector that the vCPU would get from the APIC itself.
    fn deliverable(&self) -> Option<u8> {
        if !self.globally_enabled() || !self.software_enabled() {
            return None;
        }
        self.state.irr.highest().filter(|vector| vector & 0xf0 > self.processor_priority() & 0xf0)
    }

    /// Whether the 8259 pair's request passes through: over LINT0 as ExtINT, or straight when the APIC is off.
    fn external_request(&self) -> bool {
        let lint0 = self.state.lvt[LVT_LINT0];
        let passes = !self.globally_enabled()
            || lint0 & LVT_MASKED == 0 && Delivery::from_bits(lint0) == Delivery::ExtInt;
        passes && self.state.pins[usize::from(LINT0_PIN)]
    }

    fn refresh(&mut self) {
        self.pending = self.external_request() || self.deliverable().is_some();
    }

    fn error(&mut self, bit: u32) {
        let entry = self.state.lvt[LVT_ERROR];
        // Each kind of error is reported once until software has written the register (SDM 3A 10.5.3).
        if self.state.esr_gathered & bit == 0 {
            self.state.esr_gathered |= bit;
            let vector = entry as u8;
            if entry & LVT_MASKED == 0 && vector >= 16 {
                self.state.irr.insert(vector);
                self.state.tmr.remove(vector);
            }
        }
    }

    /// Accepts an interrupt (SDM 3A 10.8.4).
    fn accept(&mut self, cx: &mut DeviceCx<'_>, delivery: Delivery, vector: u8, level: bool) {
        match delivery {
            Delivery::Fixed | Delivery::LowestPriority => {
                if !self.globally_enabled() || !self.software_enabled() {
                    return;
                }
                if vector < 16 {
                    return self.error(ESR_RECEIVE_ILLEGAL);
                }
                self.state.irr.insert(vector);
                if level { self.state.tmr.insert(vector) } else { self.state.tmr.remove(vector) }
            }
            Delivery::Nmi => cx.nmi(),
            // SMI: there is no system management mode. INIT and start-up go to other processors than the one that
            // runs. ExtINT comes over LINT0 on this board.
            Delivery::Smi | Delivery::Init | Delivery::StartUp | Delivery::ExtInt | Delivery::Reserved => {}
        }
    }

    /// Whether a destination names this processor (SDM 3A 10.6.2).
    fn is_destination(&self, destination: u32, logical: bool) -> bool {
        let broadcast = if self.x2apic() { u32::MAX } else { 0xff };
        if destination == broadcast {
            return true;
        }
        if self.x2apic() {
            let me = self.x2apic_logical_id();
            return match logical {
                true => destination >> 16 == me >> 16 && destination & me & 0xffff != 0,
                false => destination == u32::from(APIC_ID),
            };
        }
        let destination = destination as u8;
        match (logical, self.state.dfr) {
            (false, _) => destination == APIC_ID,
            (true, 0xf) => destination & self.state.ldr != 0,
            (true, _) => {
                let cluster = destination >> 4;
                (cluster == self.state.ldr >> 4 || cluster == 0xf) && destination & self.state.ldr & 0xf != 0
            }
        }
    }

    /// Sends what the interrupt command register says (SDM 3A 10.6.1).
    fn send(&mut self, cx: &mut DeviceCx<'_>) {
        let low = self.state.icr as u32;
        let destination = if self.x2apic() { self.state.icr >> 32 } else { self.state.icr >> 56 } as u32;
        let delivery = Delivery::from_bits(low);
        let vector = low as u8;
        if vector < 16 && matches!(delivery, Delivery::Fixed | Delivery::LowestPriority) {
            return self.error(ESR_SEND_ILLEGAL);
        }
        let to_me = match low >> 18 & 3 {
            0 => self.is_destination(destination, low & 1 << 11 != 0),
            1 | 2 => true, // self; all including self
            _ => false,    // all excluding self
        };
        if to_me {
            self.accept(cx, delivery, vector, false);
        }
    }

    fn end_of_interrupt(&mut self, cx: &mut DeviceCx<'_>) {
        let Some(vector) = self.state.isr.highest() else { return };
        self.state.isr.remove(vector);
        if self.state.tmr.contains(vector) {
            cx.wires.end_of_interrupt(vector);
        }
        for pin in [LINT0_PIN, LINT1_PIN] {
            let entry = &mut self.state.lvt[LVT_LINT0 + usize::from(pin)];
            if *entry as u8 == vector && *entry & LVT_REMOTE_IRR != 0 {
                *entry &= !LVT_REMOTE_IRR;
                self.sample_pin(cx, pin, false);
            }
        }
    }

    /// Looks at a pin after its level, its entry or its remote IRR changed. `edge` is whether it has just become
    /// active. ExtINT is level-sensitive whatever the entry says and is handled in `external_request`. Wires are
    /// high when a chip asks: the polarity bit describes the line on a real board and changes nothing here.
    fn sample_pin(&mut self, cx: &mut DeviceCx<'_>, pin: u8, edge: bool) {
        let at = LVT_LINT0 + usize::from(pin);
        let entry = self.state.lvt[at];
        let active = self.state.pins[usize::from(pin)];
        if !self.globally_enabled() || entry & LVT_MASKED != 0 || !active {
            return;
        }
        let delivery = Delivery::from_bits(entry);
        let by_level = delivery == Delivery::Fixed && entry & LVT_LEVEL != 0;
        let asks = match by_level {
            true => entry & LVT_REMOTE_IRR == 0,
            false => edge && delivery != Delivery::ExtInt,
        };
        if asks {
            if by_level {
                self.state.lvt[at] |= LVT_REMOTE_IRR;
            }
            // The I/O APIC has no part in it, so the trigger mode register says "edge" either way.
            self.accept(cx, delivery, entry as u8, false);
        }
    }

    fn write_lvt(&mut self, cx: &mut DeviceCx<'_>, index: usize, value: u32) {
        let keep = self.state.lvt[index] & LVT_REMOTE_IRR;
        let mut entry = value & LVT_WRITABLE[index] | keep;
        if !self.software_enabled() {
            entry |= LVT_MASKED; // SDM 3A 10.4.7.2
        }
        if entry & LVT_LEVEL == 0 {
            entry &= !LVT_REMOTE_IRR;
        }
        self.state.lvt[index] = entry;
        match index {
            LVT_TIMER => {
                let mode = match value >> 17 & 3 {
                    1 => Mode::Periodic,
                    2 if self.offers_tsc_deadline => Mode::TscDeadline,
                    _ => Mode::OneShot,
                };
                if mode != self.state.timer.mode() {
                    self.state.timer.set_mode(cx.now, mode);
                }
                self.arm_timer(cx);
            }
            LVT_LINT0 => self.sample_pin(cx, LINT0_PIN, false),
            4 => self.sample_pin(cx, LINT1_PIN, false),
            _ => {}
        }
    }

    /// A masked timer counts on but needs no deadline: nobody would hear it.
    fn arm_timer(&mut self, cx: &mut DeviceCx<'_>) {
        let heard = self.globally_enabled() && self.state.lvt[LVT_TIMER] & LVT_MASKED == 0;
        if heard { cx.arm(TIMER, self.state.timer.deadline(cx.now)) } else { cx.cancel(TIMER) }
    }

    fn write_svr(&mut self, cx: &mut DeviceCx<'_>, value: u32) {
        self.state.svr = value & 0x3ff;
        if !self.software_enabled() {
            self.state.lvt.iter_mut().for_each(|entry| *entry |= LVT_MASKED);
            self.arm_timer(cx);
        }
    }

    fn read(&mut self, cx: &mut DeviceCx<'_>, number: u32) -> u32 {
        use register as r;
        match number {
            r::ID if self.x2apic() => u32::from(APIC_ID),
            r::ID => u32::from(APIC_ID) << 24,
            r::VERSION => VERSION,
            r::TPR => u32::from(self.state.tpr),
            r::APR | r::RRD => 0, // no arbitration bus, no remote read
            r::PPR => u32::from(self.processor_priority()),
            r::EOI => 0,
            r::LDR if self.x2apic() => self.x2apic_logical_id(),
            r::LDR => u32::from(self.state.ldr) << 24,
            r::DFR => u32::from(self.state.dfr) << 28 | 0x0fff_ffff,
            r::SVR => self.state.svr,
            r::ISR..r::TMR => self.state.isr.word((number - r::ISR) as usize),
            r::TMR..r::IRR => self.state.tmr.word((number - r::TMR) as usize),
            r::IRR..r::ESR => self.state.irr.word((number - r::IRR) as usize),
            r::ESR => self.state.esr,
            r::ICR_LOW => self.state.icr as u32,
            r::ICR_HIGH => (self.state.icr >> 32) as u32,
            r::LVT..=r::LVT_LAST => self.state.lvt[(number - r::LVT) as usize],
            r::INITIAL_COUNT => self.state.timer.initial(),
            r::CURRENT_COUNT => self.state.timer.current(cx.now),
            r::DIVIDE => self.state.timer.divide(),
            _ => {
                self.error(ESR_ILLEGAL_REGISTER);
                0
            }
        }
    }

    fn write(&mut self, cx: &mut DeviceCx<'_>, number: u32, value: u32) {
        use register as r;
        match number {
            r::TPR => self.state.tpr = value as u8,
            r::EOI => self.end_of_interrupt(cx),
            r::LDR if !self.x2apic() => self.state.ldr = (value >> 24) as u8,
            r::DFR if !self.x2apic() => self.state.dfr = (value >> 28) as u8,
            r::SVR => self.write_svr(cx, value),
            r::ESR => self.state.esr = std::mem::take(&mut self.state.esr_gathered),
            r::ICR_LOW => {
                // Delivery status (bit 12) is idle again before anybody can look.
                self.state.icr = self.state.icr & !0xffff_ffff | u64::from(value & 0xc_cfff);
                self.send(cx);
            }
            r::ICR_HIGH => self.state.icr = self.state.icr & 0xffff_ffff | u64::from(value) << 32,
            r::LVT..=r::LVT_LAST => self.write_lvt(cx, (number - r::LVT) as usize, value),
            r::INITIAL_COUNT => {
                self.state.timer.set_initial(cx.now, value);
                self.arm_timer(cx);
            }
            r::DIVIDE => {
                self.state.timer.set_divide(cx.now, value);
                self.arm_timer(cx);
            }
            // Read-only registers.
            r::ID
            | r::VERSION
            | r::APR
            | r::PPR
            | r::RRD
            | r::LDR
            | r::DFR
            | r::ISR..r::ESR
            | r::CURRENT_COUNT => {}
            _ => self.error(ESR_ILLEGAL_REGISTER),
        }
        self.refresh();
    }
}

impl Device for LocalApic {
    fn name(&self) -> &'static str {
        NAME
    }

    fn reset(&mut self, cx: &mut DeviceCx<'_>) {
        cx.cancel(TIMER);
        let pins = self.state.pins; // driven from outside
        self.state = State { pins, ..State::after_reset() };
        self.refresh();
    }

    fn save(&self) -> Section {
        Section::of(STATE_VERSION, &self.state)
    }

    fn restore(&mut self, section: &Section) -> Result<(), SectionError> {
        self.state = section.read(NAME, STATE_VERSION)?;
        self.refresh();
        Ok(())
    }

    fn mmio_read(&mut self, cx: &mut DeviceCx<'_>, address: u64, size: u8) -> u64 {
        if !self.globally_enabled() || self.x2apic() {
            return u64::MAX;
        }
        // Only aligned 32-bit accesses are defined (SDM 3A 10.4.1); others see nothing.
        if size != 4 || address & 0xf != 0 {
            return 0;
        }
        let value = self.read(cx, ((address - BASE) >> 4) as u32);
        self.refresh();
        u64::from(value)
    }

    fn mmio_write(&mut self, cx: &mut DeviceCx<'_>, address: u64, size: u8, value: u64) {
        if self.globally_enabled() && !self.x2apic() && size == 4 && address & 0xf == 0 {
            self.write(cx, ((address - BASE) >> 4) as u32, value as u32);
        }
    }

    fn on_timer(&mut self, cx: &mut DeviceCx<'_>, _index: u8) {
        self.state.timer.expire();
        let entry = self.state.lvt[LVT_TIMER];
        if entry & LVT_MASKED == 0 {
            self.accept(cx, Delivery::Fixed, entry as u8, false);
        }
        self.arm_timer(cx);
        self.refresh();
    }

    fn on_wire(&mut self, cx: &mut DeviceCx<'_>, pin: u8, level: bool) {
        let Some(now) = self.state.pins.get_mut(usize::from(pin)) else { return };
        *now = level;
        self.sample_pin(cx, pin, true);
        self.refresh();
    }

    fn on_message(&mut self, cx: &mut DeviceCx<'_>, address: u64, data: u32) {
        let Some(m) = Message::decode(address, data) else { return };
        // A message has eight bits of destination in either mode; FFh is everybody.
        let destination =
            if m.destination == 0xff && self.x2apic() { u32::MAX } else { m.destination.into() };
        if self.is_destination(destination, m.logical) {
            self.accept(cx, m.delivery, m.vector, m.level);
            self.refresh();
        }
    }

    fn interrupt_pending(&self) -> bool {
        self.pending
    }

    fn acknowledge(&mut self, _cx: &mut DeviceCx<'_>) -> Option<u8> {
        let vector = match self.deliverable() {
            Some(vector) => {
                self.state.irr.remove(vector);
                self.state.isr.insert(vector);
                vector
            }
            None if self.external_request() => return None,
            None => self.state.svr as u8, // the request went away (SDM 3A 10.9)
        };
        self.refresh();
        Some(vector)
    }

    fn msr_read(&mut self, cx: &mut DeviceCx<'_>, number: u32) -> Option<u64> {
        match number {
            msr::APIC_BASE => Some(self.state.base),
            msr::TSC_DEADLINE if self.offers_tsc_deadline => Some(self.state.timer.tsc_deadline()),
            msr::X2APIC_FIRST..=msr::X2APIC_LAST if self.x2apic() => {
                self.x2apic_read(cx, number - msr::X2APIC_FIRST)
            }
            _ => None,
        }
    }

    fn msr_write(&mut self, cx: &mut DeviceCx<'_>, number: u32, value: u64) -> Option<()> {
        match number {
            msr::APIC_BASE => self.write_base(cx, value),
            msr::TSC_DEADLINE if self.offers_tsc_deadline => {
                self.state.timer.set_tsc_deadline(value);
                self.arm_timer(cx);
                Some(())
            }
            msr::X2APIC_FIRST..=msr::X2APIC_LAST if self.x2apic() => {
                self.x2apic_write(cx, number - msr::X2APIC_FIRST, value)
            }
            _ => None,
        }
    }

    fn task_priority(&self) -> u8 {
        self.state.tpr >> 4
    }

    fn set_task_priority(&mut self, _cx: &mut DeviceCx<'_>, priority: u8) {
        self.state.tpr = (priority & 0xf) << 4;
        self.refresh();
    }
}

#[cfg(test)]
mod tests;
