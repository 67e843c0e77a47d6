//! What is compared.
//!
//! Not responsible for: running it (`lane`).

use gemel_machine::Machine;
use gemel_replay::{LogSource, Progress, ReplayDisks};
use std::error::Error;
use std::io::Read;

/// A log with a machine that can follow it, as often as wanted.
pub trait Subject {
    /// How it is called in reports: its engine, its file.
    fn name(&self) -> &str;

    /// A machine where the log begins.
    ///
    /// # Errors
    /// Files that are not there, a spec that this build cannot make.
    fn machine(&self) -> Result<Machine, Box<dyn Error + Send + Sync>>;

    /// The log from its first entry.
    ///
    /// # Errors
    /// The log's.
    fn source(&self) -> Result<LogSource<Box<dyn Read>>, Box<dyn Error + Send + Sync>>;

    /// The disks as they were where the log begins.
    ///
    /// # Errors
    /// The host's.
    fn disks(&self) -> Result<Box<dyn ReplayDisks>, Box<dyn Error + Send + Sync>>;

    /// What the log's first entries may refer to: nothing at power-on.
    ///
    /// # Errors
    /// As for the machine.
    fn progress(&self) -> Result<Progress, Box<dyn Error + Send + Sync>> {
        Ok(Progress::default())
    }
}
