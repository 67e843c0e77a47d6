//! The networks that `--net` names.
//!
//! Not responsible for: the backends (`gemel-host`), what frames mean to a recording.

use crate::options::{Clock, MachineOptions};
use anyhow::{Result, bail};
use gemel_host::{Inbox, NetSpec, Nics};
use gemel_machine::NicSpec;
use std::sync::Arc;

/// The interfaces of the machine that the options describe.
///
/// # Errors
/// More than the board can have; a clock that no network can keep up with.
pub fn nics(options: &MachineOptions) -> Result<Vec<NicSpec>> {
    if options.clock == Clock::Free && !options.net.is_empty() {
        bail!(
            "--net needs --clock paced: with the free clock a guest's idle time passes at once, every answer from a network would \
             come too late, and a run could not be repeated without a log"
        );
    }
    let mut nics: Vec<NicSpec> = Vec::new();
    for (number, spec) in options.net.iter().enumerate() {
        let Ok(number) = u8::try_from(number) else { bail!("--net is given too often") };
        let mac = spec.mac(number);
        if nics.iter().any(|nic| nic.mac == mac) {
            bail!("two of --net have the same address: give one of them another with mac=");
        }
        nics.push(NicSpec { mac });
    }
    Ok(nics)
}

/// Connects the interfaces.
///
/// # Errors
/// A network that this host does not have.
pub fn connect(specs: &[NetSpec], inbox: &Arc<Inbox>) -> Result<Nics> {
    let mut backends = Vec::new();
    for (number, spec) in specs.iter().enumerate() {
        match spec.open(number as u8, inbox)? {
            Some(backend) => backends.push(backend),
            None => bail!("--net user is not there yet: use tap or stream"),
        }
    }
    Ok(Nics::new(backends))
}
