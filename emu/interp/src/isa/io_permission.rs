//! Who may use which port: IOPL and the I/O permission map of the TSS (SDM 1 19.5).
//!
//! Not responsible for: IN, OUT, INS, OUTS themselves.

use crate::cpu::Cpu;
use crate::fault::R;
use crate::segmentation::system_type;
use gemel_machine::CpuIo;
use gemel_x86::segment::attr;

impl Cpu {
    /// #GP(0) unless the current code may use `size` ports from `port` on. I/O breakpoints on them become pending.
    pub fn io_permission(&mut self, port: u16, size: u8, io: &mut dyn CpuIo) -> R {
        if !self.real() && (self.v86() || self.s.cpl > self.iopl()) && !self.map_permits(port, size, io)? {
            return self.general_protection(0);
        }
        if self.breakpoints_armed() {
            self.port_breakpoint(port, size);
        }
        Ok(())
    }

    /// The map of a 32- or 64-bit TSS: all bits clear. Two bytes are always read, and both must lie inside the TSS.
    fn map_permits(&mut self, port: u16, size: u8, io: &mut dyn CpuIo) -> R<bool> {
        const MAP_BASE: u64 = 0x66;
        let tr = self.s.tr;
        let wide = tr.has(attr::P) && tr.attr & system_type::WIDE != 0;
        if !wide || u64::from(tr.limit) < MAP_BASE + 1 {
            return Ok(false);
        }
        let map = self.read_system::<u16>(self.system_linear(tr.base, MAP_BASE), io)?;
        let at = u64::from(map) + u64::from(port / 8);
        if at + 1 > u64::from(tr.limit) {
            return Ok(false);
        }
        let bits = self.read_system::<u16>(self.system_linear(tr.base, at), io)?;
        Ok(bits >> (port % 8) & ((1 << size) - 1) == 0)
    }
}
