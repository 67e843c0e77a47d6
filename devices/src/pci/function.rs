//! The contract of a PCI function: what the host bridge asks of it.
//!
//! Not responsible for: routing (`host`).

use super::ConfigSpace;
use gemel_machine::{DeviceCx, Input, Section, SectionError};

/// A function behind the host bridge. The rules of [`gemel_machine::Device`] hold for it too.
pub trait PciFunction: Send {
    /// Its configuration space.
    fn config(&self) -> &ConfigSpace;

    /// The same, for the bridge and firmware to write.
    fn config_mut(&mut self) -> &mut ConfigSpace;

    /// Reads the configuration space.
    fn config_read(&mut self, _cx: &mut DeviceCx<'_>, offset: usize, size: usize) -> u32 {
        self.config().read(offset, size)
    }

    /// Writes the configuration space.
    fn config_write(&mut self, _cx: &mut DeviceCx<'_>, offset: usize, size: usize, value: u32) {
        self.config_mut().write(offset, size, value);
    }

    /// A load from a BAR.
    fn bar_read(&mut self, _cx: &mut DeviceCx<'_>, _bar: usize, _offset: u64, _size: u8) -> u64 {
        u64::MAX
    }

    /// A store to a BAR.
    fn bar_write(&mut self, _cx: &mut DeviceCx<'_>, _bar: usize, _offset: u64, _size: u8, _value: u64) {}

    /// Whether interrupt pin A is to be asserted. Asked after each call.
    fn interrupt(&mut self) -> bool {
        false
    }

    /// Something came in from the world; the bridge knows that it is for this function.
    fn on_input(&mut self, _cx: &mut DeviceCx<'_>, _input: Input) {}

    /// System reset. BARs keep what firmware assigned.
    fn reset(&mut self, _cx: &mut DeviceCx<'_>) {}

    /// The whole state, configuration space included.
    fn save(&self) -> Section;

    /// Takes a saved state on.
    ///
    /// # Errors
    /// See [`SectionError`]; the function is then unchanged.
    fn restore(&mut self, section: &Section) -> Result<(), SectionError>;
}
