//! The live world that options ask for.
//!
//! Not responsible for: the live world itself (`gemel-host`).

use crate::options::{Clock, LineOptions, WorldOptions};
use anyhow::{Result, bail};
use gemel_host::control::{Attendant, Control};
use gemel_host::outputs::{ByteSink, Null};
use gemel_host::{
    Disks, HostError, Inbox, Inputs, Live, Outputs, Pacer, SERIAL_PORTS, SerialSpec, Status, signals,
};
use gemel_machine::{MachineSpec, Reckoning};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// What is connected: the lines' ends and the place where inputs meet.
pub struct Connections {
    /// Where threads leave what comes in.
    pub inbox: Arc<Inbox>,
    /// The lines out.
    pub outputs: Outputs,
}

impl LineOptions {
    /// What each serial port is connected to.
    ///
    /// # Errors
    /// More lines than the board has ports, or standard input for two of them.
    pub fn ports(&self) -> Result<[SerialSpec; SERIAL_PORTS]> {
        if self.serial.len() > SERIAL_PORTS {
            bail!("--serial is given {} times, the machine has {SERIAL_PORTS} ports", self.serial.len());
        }
        if self.serial.iter().filter(|spec| spec.is_stdio()).count() > 1 {
            bail!("--serial stdio is given twice, standard input can only be for one port");
        }
        let given = |port| self.serial.get(port).cloned();
        Ok(std::array::from_fn(|port| {
            given(port).unwrap_or(if port == 0 { SerialSpec::Stdio } else { SerialSpec::Null })
        }))
    }

    /// Whether standard output belongs to the guest.
    pub fn use_stdout(&self) -> bool {
        self.debugcon.is_stdio() || self.ports().is_ok_and(|ports| ports.iter().any(SerialSpec::is_stdio))
    }

    /// Opens the lines with what `open` makes of each serial port's.
    fn open(
        &self,
        mut open: impl FnMut(usize, &SerialSpec) -> Result<Box<dyn ByteSink>, HostError>,
    ) -> Result<Outputs> {
        let ports = self.ports()?;
        let mut sinks: [Box<dyn ByteSink>; SERIAL_PORTS] = std::array::from_fn(|_| Box::new(Null) as _);
        for (port, (sink, spec)) in sinks.iter_mut().zip(&ports).enumerate() {
            *sink = open(port, spec)?;
        }
        Ok(Outputs::new(sinks, self.debugcon.open_output()?))
    }

    /// Opens the lines for output alone: nothing that comes in is heard.
    ///
    /// # Errors
    /// A line that cannot be opened.
    pub fn open_outputs(&self) -> Result<Outputs> {
        self.open(|_, spec| spec.open_output())
    }

    /// Opens the lines and catches signals. From here on files are made, so it comes after all other checks.
    ///
    /// # Errors
    /// A line that cannot be opened.
    pub fn connect(&self) -> Result<Connections> {
        let inbox = Inbox::new();
        let outputs = self.open(|port, spec| spec.open(port, &inbox))?;
        signals::install(&inbox)?;
        Ok(Connections { inbox, outputs })
    }
}

impl WorldOptions {
    /// Opens the control socket, if one is asked for.
    ///
    /// # Errors
    /// A path that cannot be used.
    pub fn open_control(&self, inbox: &Arc<Inbox>, attendant: Arc<dyn Attendant>) -> Result<Option<Control>> {
        Ok(self.control.as_ref().map(|path| Control::open(path, inbox, attendant)).transpose()?)
    }
}

/// The live world of a machine over these connections.
pub fn live(connections: Connections, clock: Clock, disks: Disks, spec: &MachineSpec) -> Live {
    let Connections { inbox, outputs } = connections;
    Live::new(Pacer::new(clock.into()), Inputs::new(inbox), disks, Box::new(outputs), spec.seed)
        .reckoning(spec.reckoning)
}

/// What the unit of a machine's counts is called in figures.
pub const fn unit(reckoning: Reckoning) -> &'static str {
    match reckoning {
        Reckoning::Instructions(_) => "instructions",
        Reckoning::Exits => "exits",
    }
}

/// What the control socket's `status` says of a run.
pub fn status(role: &'static str, reckoning: Reckoning, status: &Status) -> serde_json::Value {
    serde_json::json!({
        "role": role,
        unit(reckoning): status.count.load(Relaxed),
        "guest_time_s": status.time.load(Relaxed) as f64 / 1e9,
        "serial_bytes": status.serial_bytes.load(Relaxed),
        "disk_requests": status.disk_requests.load(Relaxed),
        "frames_in": status.frames_in.load(Relaxed),
        "frames_out": status.frames_out.load(Relaxed),
    })
}
