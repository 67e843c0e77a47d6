//! Debug registers: what DR7 arms, and what of it an instruction or an access hits (SDM 3B 17.2).
//!
//! Not responsible for: delivery of #DB (`interrupt`), when breakpoints are looked at (`exec`, `mmu`).

use crate::cpu::Cpu;
use crate::fault::R;
use gemel_x86::Exception;
use gemel_x86::control::{CR4_DE, DR6_FIXED, DR7_FIXED};
use gemel_x86::flags::{CF, OF, PF, SF, ZF};
use gemel_x86::segment::CS;
use iced_x86::{Code, ConditionCode, FlowControl};

/// DEBUGCTL: last branches are noted, single step on branches.
const LBR: u64 = 1 << 0;
const BTF: u64 = 1 << 1;

/// What a breakpoint waits for (the R/W fields of DR7).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Watch {
    Execute,
    Write,
    Port,
    Access,
}

impl Cpu {
    /// Whether a single step ends at the next taken branch and not at the next instruction (SDM 3B 17.4.3).
    pub(crate) fn steps_on_branches(&self) -> bool {
        self.s.debug_ctl & BTF != 0
    }

    /// #DB turns the noting of branches and stepping on them off (APM 2 13.1.1.5; SDM 3B 17.4.3).
    pub(crate) fn branch_debugging_off(&mut self) {
        self.s.debug_ctl &= !(LBR | BTF);
    }

    /// Whether an instruction of this `Code`, about to run, is a branch that will be taken.
    pub(crate) fn is_taken_branch(&self, code: u16) -> bool {
        let Ok(code) = Code::try_from(usize::from(code)) else { return false };
        match code.flow_control() {
            FlowControl::UnconditionalBranch
            | FlowControl::IndirectBranch
            | FlowControl::Call
            | FlowControl::IndirectCall
            | FlowControl::Return => true,
            FlowControl::ConditionalBranch => {
                let counter = self.regs[1] & crate::isa::control_transfer::counter_mask(code);
                if code.is_jcx_short() {
                    return counter == 0;
                }
                let counts_on = !(code.is_loop() || code.is_loopcc()) || counter != 1;
                counts_on && self.holds(code.condition_code())
            }
            _ => false,
        }
    }

    /// Whether a condition holds; none always does.
    fn holds(&self, condition: ConditionCode) -> bool {
        use ConditionCode as C;
        let flags = self.flags.bits();
        let set = |flag: u64| flags & flag != 0;
        let less = set(SF) != set(OF);
        match condition {
            C::None => true,
            C::o => set(OF),
            C::no => !set(OF),
            C::b => set(CF),
            C::ae => !set(CF),
            C::e => set(ZF),
            C::ne => !set(ZF),
            C::be => set(CF | ZF),
            C::a => !set(CF | ZF),
            C::s => set(SF),
            C::ns => !set(SF),
            C::p => set(PF),
            C::np => !set(PF),
            C::l => less,
            C::ge => !less,
            C::le => less || set(ZF),
            C::g => !less && !set(ZF),
        }
    }

    /// Breakpoint `n` when it is armed: what it waits for, its first address, its length.
    fn breakpoint(&self, n: usize) -> Option<(Watch, u64, u64)> {
        if self.s.dr7 >> (2 * n) & 3 == 0 {
            return None;
        }
        let control = self.s.dr7 >> (16 + 4 * n);
        let length = [1, 2, 8, 4][(control >> 2 & 3) as usize];
        let watch = match control & 3 {
            0 => Watch::Execute,
            1 => Watch::Write,
            // Without CR4.DE this encoding is undefined; it then watches nothing.
            2 if self.s.cr4 & CR4_DE == 0 => return None,
            2 => Watch::Port,
            _ => Watch::Access,
        };
        Some((watch, self.s.dr[n] & !(length - 1), length))
    }

    /// The DR6 bits of the breakpoints that an access to `bytes` bytes at `address` hits.
    fn breakpoints_hit(&self, address: u64, bytes: u64, wanted: &[Watch]) -> u64 {
        (0..4)
            .filter(|n| {
                self.breakpoint(*n).is_some_and(|(watch, start, length)| {
                    wanted.contains(&watch)
                        && address < start.wrapping_add(length)
                        && start < address.wrapping_add(bytes)
                })
            })
            .fold(0, |bits, n| bits | 1 << n)
    }

    /// Whether an instruction breakpoint stands at RIP: then #DB is pending, a fault before the instruction. RF is the
    /// caller's business.
    pub fn code_breakpoint(&mut self) -> bool {
        let lin = self.seg_base[CS].wrapping_add(self.rip);
        let lin = if self.is_64() { lin } else { lin & 0xffff_ffff };
        let hit = self.breakpoints_hit(lin, 1, &[Watch::Execute]);
        if hit != 0 {
            self.fault = Exception::debug(hit);
        }
        hit != 0
    }

    /// A data access: what it hits is a trap after the instruction.
    pub fn data_breakpoint(&mut self, lin: u64, bytes: usize, write: bool) {
        let wanted: &[Watch] = if write { &[Watch::Write, Watch::Access] } else { &[Watch::Access] };
        self.trap_on(self.breakpoints_hit(lin, bytes as u64, wanted));
    }

    /// What breakpoints hit is due at the next boundary, and in a repetition that is the end of this iteration.
    fn trap_on(&mut self, hit: u64) {
        if hit != 0 {
            self.debug_traps |= hit;
            self.limit = 0;
        }
    }

    /// An access to a port: likewise.
    pub(crate) fn port_breakpoint(&mut self, port: u16, bytes: u8) {
        self.trap_on(self.breakpoints_hit(port.into(), bytes.into(), &[Watch::Port]));
    }

    /// MOV to DR0 to DR3, DR6, DR7.
    pub(crate) fn write_debug(&mut self, n: u8, value: u64) -> R {
        match n {
            6 | 7 if value >> 32 != 0 => return self.general_protection(0),
            // The bits that are not reserved (APM 2 13.1.1.3, 13.1.1.4).
            6 => self.s.dr6 = value & 0xe00f | DR6_FIXED,
            7 => self.s.dr7 = value & 0xffff_23ff | DR7_FIXED,
            _ => self.s.dr[n as usize & 3] = value,
        }
        self.limit = 0;
        self.mmu_mode_changed();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gemel_machine::GuestRam;
    use gemel_x86::CpuModel;
    use std::sync::Arc;

    fn cpu_with(dr0: u64, dr7: u64) -> Cpu {
        let ram = Arc::new(GuestRam::new(1 << 20).unwrap());
        let mut cpu = Cpu::new(CpuModel::x86_64_v2(), ram);
        cpu.s.dr[0] = dr0;
        cpu.s.dr7 = dr7;
        cpu
    }

    /// SDM 3B table 17-2 (breakpoint examples): a word at A0001 is watched as A0000 to A0001.
    #[test]
    fn data_breakpoints_cover_their_aligned_range() {
        let write_two = 0b01_01 << 16 | 1;
        for (lin, bytes, write, hit) in [
            (0x1000, 1, true, 1),
            (0x1001, 4, true, 1),
            (0x1002, 1, true, 0),
            (0xffe, 4, true, 1),
            (0x1000, 1, false, 0),
        ] {
            let mut cpu = cpu_with(0x1001, write_two);
            cpu.data_breakpoint(lin, bytes, write);
            assert_eq!(cpu.debug_traps, hit, "{lin:#x} {bytes} {write}");
        }
    }

    #[test]
    fn port_breakpoints_need_cr4_de() {
        let mut cpu = cpu_with(0x3f8, 0b10 << 16 | 1);
        cpu.port_breakpoint(0x3f8, 1);
        assert_eq!(cpu.debug_traps, 0);
        cpu.s.cr4 |= CR4_DE;
        cpu.port_breakpoint(0x3f8, 1);
        assert_eq!(cpu.debug_traps, 1);
    }
}
