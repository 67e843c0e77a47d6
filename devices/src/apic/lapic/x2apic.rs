//! The local APIC's modes and its x2APIC face: APIC_BASE and the MSRs that stand in for the window (SDM 3A 10.12).
//!
//! Not responsible for: what the registers do (`lapic`): the numbers are the same in both modes.

use super::registers::*;
use super::{APIC_ID, BASE, LocalApic};
use gemel_machine::DeviceCx;

impl LocalApic {
    /// The logical id follows from the id (10.12.10.2).
    pub(super) fn x2apic_logical_id(&self) -> u32 {
        u32::from(APIC_ID >> 4) << 16 | 1 << (APIC_ID & 0xf)
    }

    /// WRMSR to APIC_BASE (SDM 3A 10.12.5 for the transitions).
    pub(super) fn write_base(&mut self, cx: &mut DeviceCx<'_>, value: u64) -> Option<()> {
        let offered = BASE_BSP | BASE_ENABLE | if self.offers_x2apic { BASE_X2APIC } else { 0 };
        if value & !offered != BASE {
            return None;
        }
        let mode = |base: u64| (base & BASE_ENABLE != 0, base & BASE_X2APIC != 0);
        let (old, new) = (mode(self.state.base), mode(value));
        match (old, new) {
            (_, (false, true)) | ((true, true), (true, false)) | ((false, _), (true, true)) => return None,
            _ => {}
        }
        if old.0 && !new.0 {
            // "When IA32_APIC_BASE[11] is set to 0, ... the APIC is returned to its state after reset": the pins stay.
            let pins = self.state.pins;
            self.state = State::after_reset();
            self.state.pins = pins;
            self.state.svr = 0xff;
            self.state.lvt = [LVT_MASKED; 6];
        }
        self.state.base = value & !BASE_BSP | BASE_BSP;
        self.arm_timer(cx);
        self.refresh();
        Some(())
    }

    pub(super) fn x2apic_read(&mut self, cx: &mut DeviceCx<'_>, number: u32) -> Option<u64> {
        use register as r;
        match number {
            r::ICR_LOW => Some(self.state.icr),
            r::ID | r::VERSION | r::TPR | r::PPR | r::LDR | r::SVR | r::ISR..=r::ESR => {
                Some(u64::from(self.read(cx, number)))
            }
            r::LVT..=r::CURRENT_COUNT | r::DIVIDE => Some(u64::from(self.read(cx, number))),
            _ => None,
        }
    }

    pub(super) fn x2apic_write(&mut self, cx: &mut DeviceCx<'_>, number: u32, value: u64) -> Option<()> {
        use register as r;
        if number == r::ICR_LOW {
            self.state.icr = value & !(1 << 12);
            self.send(cx);
            self.refresh();
            return Some(());
        }
        let low = u32::try_from(value).ok()?;
        match number {
            r::EOI | r::ESR if low != 0 => return None,
            r::SELF_IPI => {
                self.state.icr = u64::from(low & 0xff) | 1 << 18;
                self.send(cx);
                self.refresh();
            }
            r::TPR | r::EOI | r::SVR | r::ESR | r::LVT..=r::INITIAL_COUNT | r::DIVIDE => {
                self.write(cx, number, low)
            }
            _ => return None,
        }
        Some(())
    }
}
