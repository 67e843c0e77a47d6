//! x87 errors the PC's way, with CR0.NE clear: FERR#, an interrupt from outside, IGNNE# (SDM 1 8.7.2 and appendix D; APM 2
//! 3.1.1, CR0.NE).
//!
//! Not responsible for: the board's logic between the two pins (a device), #MF (`interrupt`).
//!
//! The error is reported by the next waiting instruction (deferred reporting, SDM 1 D.2.1): FERR# rises, and the processor stops
//! before that instruction until an interrupt comes. With IGNNE# the instruction runs in spite of the error.

use crate::cpu::Cpu;
use crate::op::Op;
use gemel_machine::CpuIo;
use gemel_x86::Vector;
use gemel_x86::control::CR0_NE;

impl Cpu {
    /// Whether the pending exception is an x87 error that goes out by FERR#.
    pub(crate) fn is_float_error_outside(&self) -> bool {
        self.fault.vector == Vector::X87 && self.s.cr0 & CR0_NE == 0
    }

    /// The instruction at RIP met a waiting error. Runs it if the board says so, or waits. Whether it retired.
    pub(crate) fn report_float_error(&mut self, io: &mut dyn CpuIo) -> bool {
        let (ignored, attention) = io.float_error(self.position(), true);
        self.attend(attention);
        if !ignored {
            self.halted = true;
            return false;
        }
        if self.count >= self.attention.stop {
            return false;
        }
        self.float_errors_ignored = true;
        let retired = self.run_block(1, io);
        self.float_errors_ignored = false;
        retired
    }

    /// To be called after an instruction that can clear or mask errors: FERR# falls with the last of them.
    pub(crate) fn float_error_settled(&mut self, op: &Op, io: &mut dyn CpuIo) {
        if self.s.cr0 & CR0_NE == 0 && crate::isa::x87::waiting_errors(self) == 0 {
            let (_, attention) = io.float_error(self.at(op), false);
            self.attend(attention);
        }
    }
}
