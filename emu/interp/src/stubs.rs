//! Placeholders until interrupt delivery, permissions and breakpoints are here.

use crate::cpu::Cpu;
use crate::fault::R;
use gemel_machine::CpuIo;

impl Cpu {
    pub(crate) fn deliver_fault(&mut self, _io: &mut dyn CpuIo) {
        self.shutdown = true;
    }
    pub(crate) fn deliver_debug_trap(&mut self, _io: &mut dyn CpuIo) {}
    pub(crate) fn deliver_nmi(&mut self, _io: &mut dyn CpuIo) {}
    pub(crate) fn deliver_external(&mut self, _vector: u8, _io: &mut dyn CpuIo) {}
    pub(crate) fn code_breakpoint(&mut self) -> bool {
        false
    }
    pub(crate) fn data_breakpoint(&mut self, _lin: u64, _bytes: usize, _write: bool) {}
    pub(crate) fn io_permission(&mut self, _port: u16, _size: u8, _io: &mut dyn CpuIo) -> R {
        Ok(())
    }
}
