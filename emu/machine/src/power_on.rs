//! What CPU and RAM are at power-on, kept for a reset.
//!
//! Not responsible for: devices (each resets itself), loading (what the loader left is simply kept).

use crate::position::Position;
use crate::ram::GuestRam;
use crate::vcpu::{EngineError, Vcpu};
use gemel_x86::CpuState;

/// CPU and RAM as a reset leaves them. Costs as much memory as the loader filled.
pub(crate) struct PowerOn {
    cpu: CpuState,
    /// Every page that is not all zeros.
    ram: Vec<(u32, Vec<u8>)>,
}

impl PowerOn {
    /// What they are now.
    pub(crate) fn of(vcpu: &mut dyn Vcpu, ram: &GuestRam) -> Result<Self, EngineError> {
        Ok(Self { cpu: vcpu.save()?, ram: ram.used_pages().collect() })
    }

    /// Makes them so again; the position goes on from `at`, since a count never goes back.
    pub(crate) fn apply(&self, at: Position, vcpu: &mut dyn Vcpu, ram: &GuestRam) -> Result<(), EngineError> {
        ram.clear();
        for (page, content) in &self.ram {
            let written = ram.write(ram.address_of(*page), content);
            written.map_err(|e| EngineError::State(format!("RAM is not what it was at power-on: {e}")))?;
        }
        vcpu.restore(&CpuState { count: at.count, ..self.cpu.clone() })
    }
}
