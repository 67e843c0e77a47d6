//! How an instruction ends other than by retiring.
//!
//! Not responsible for: delivery to the guest's handler (`interrupt`).

use crate::cpu::Cpu;
use gemel_x86::{Exception, Vector};

/// An exception is pending in [`Cpu::fault`]; the instruction did not retire. A marker without content, so that
/// results of handlers stay in registers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fault;

/// What a step of an instruction returns.
pub type R<T = ()> = Result<T, Fault>;

impl Cpu {
    /// Makes an exception pending. `return Err(cpu.raise(..))`, or `return cpu.fail(..)`.
    #[cold]
    pub fn raise(&mut self, exception: Exception) -> Fault {
        self.fault = exception;
        Fault
    }

    /// [`Cpu::raise`] as a result of any type.
    #[cold]
    pub fn fail<T>(&mut self, exception: Exception) -> R<T> {
        Err(self.raise(exception))
    }

    /// #UD.
    #[cold]
    pub fn undefined<T>(&mut self) -> R<T> {
        self.fail(Exception::new(Vector::InvalidOpcode))
    }

    /// #GP with an error code (a selector, or zero).
    #[cold]
    pub fn general_protection<T>(&mut self, error: u32) -> R<T> {
        self.fail(Exception::with_error(Vector::GeneralProtection, error))
    }

    /// #GP(0) unless at ring 0.
    #[inline]
    pub fn require_ring0(&mut self) -> R {
        if self.s.cpl == 0 { Ok(()) } else { self.general_protection(0) }
    }
}
