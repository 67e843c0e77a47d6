//! A machine's state apart from its RAM, kept in memory: with RAM's pages kept beside it, a cheap place to go back to.
//!
//! Not responsible for: states that leave the process (`snapshot`).

use crate::clock::{Clock, Reckoning};
use crate::device::Section;
use crate::machine::Machine;
use crate::snapshot::SnapshotError;
use crate::vcpu::EngineError;
use gemel_x86::CpuState;

/// Everything of a machine but its RAM at one boundary.
#[derive(Clone, Debug)]
pub struct MachineState {
    machine: u64,
    cpu: CpuState,
    clock: Clock,
    wiring: Section,
    devices: Vec<(&'static str, Section)>,
}

impl MachineState {
    /// The CPU's part.
    pub fn cpu(&self) -> &CpuState {
        &self.cpu
    }

    /// Whether positions of the machine count exits, so that a count names the boundary behind one.
    pub fn counts_exits(&self) -> bool {
        self.clock.reckoning() == Reckoning::Exits
    }

    /// Whether nothing differs that a [`crate::Digest`] would tell.
    pub fn same_as(&self, other: &Self) -> bool {
        let like_cpus = !self.counts_exits();
        let cpu = self.cpu == other.cpu || !like_cpus && self.cpu.digest(false) == other.cpu.digest(false);
        cpu && self.clock.time_at(self.cpu.count) == other.clock.time_at(other.cpu.count)
            && self.wiring == other.wiring
            && self.devices == other.devices
    }
}

impl Machine {
    /// The state apart from RAM at this boundary.
    ///
    /// # Errors
    /// Host trouble of the engine.
    pub fn state(&mut self) -> Result<MachineState, EngineError> {
        Ok(MachineState {
            machine: self.id,
            cpu: self.vcpu.save()?,
            clock: self.clock,
            wiring: self.bus.save_wiring(),
            devices: self.bus.save(),
        })
    }

    /// Takes a state on that a machine of the same configuration was in. RAM must be what it was there, before this call.
    ///
    /// # Errors
    /// [`SnapshotError::Machine`] for a state of another machine; what a device or the engine says to it.
    pub fn resume(&mut self, state: &MachineState) -> Result<(), SnapshotError> {
        if state.machine != self.id {
            return Err(SnapshotError::Machine { wanted: self.id, found: state.machine });
        }
        self.clock = state.clock;
        self.bus.restore_wiring(&state.wiring)?;
        for (name, section) in &state.devices {
            self.bus.restore(name, section)?;
        }
        Ok(self.vcpu.restore(&state.cpu)?)
    }
}
