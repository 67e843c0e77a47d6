//! What a run came to, in figures.
//!
//! Not responsible for: measuring the guest (the machine counts).

use crate::exit::Ending;
use crate::options::ReportOptions;
use crate::world::unit;
use anyhow::{Context, Result};
use gemel_kvm::placement::Choice;
use gemel_kvm::{Assist, Figures, Leaving};
use gemel_machine::{At, Digest, Reckoning};
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Map, Value, json};
use std::time::Instant;

/// Host and processor time since some moment.
pub struct Stopwatch {
    started: Instant,
    cpu: f64,
}

/// Seconds of processor time that this process has used, all threads together.
fn cpu_seconds() -> f64 {
    let used = clock_gettime(ClockId::ProcessCPUTime);
    used.tv_sec as f64 + used.tv_nsec as f64 / 1e9
}

impl Stopwatch {
    /// Starts now.
    pub fn start() -> Self {
        Self { started: Instant::now(), cpu: cpu_seconds() }
    }

    /// Seconds of host time and of processor time so far.
    pub fn read(&self) -> (f64, f64) {
        (self.started.elapsed().as_secs_f64(), cpu_seconds() - self.cpu)
    }
}

/// What a run came to.
pub struct Report<'a> {
    /// The subcommand.
    pub command: &'static str,
    /// What positions count.
    pub reckoning: Reckoning,
    /// Where the run ended.
    pub at: At,
    /// The machine's digest there.
    pub digest: Digest,
    /// Seconds of host time and of processor time.
    pub seconds: (f64, f64),
    /// Bytes that left the serial ports.
    pub serial_bytes: u64,
    /// How it ended.
    pub ending: &'a Ending,
    /// KVM's counters, where it executed the guest.
    pub figures: Option<&'a Figures>,
    /// Figures of this subcommand alone.
    pub more: Map<String, Value>,
}

/// Rounded, so that figures stay readable.
fn rounded(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}

/// KVM's counters as JSON.
fn kvm(figures: &Figures) -> Value {
    let exits: Map<_, _> =
        Leaving::ALL.iter().map(|kind| (kind.text().into(), figures.leavings(*kind).into())).collect();
    let assists: Map<_, _> =
        Assist::ALL.iter().map(|cause| (cause.text().into(), figures.assists(*cause).into())).collect();
    let aims: Map<_, _> =
        Choice::ALL.iter().map(|way| (way.text().into(), figures.placements(*way).into())).collect();
    json!({
        "exits": exits,
        "assists": assists,
        "aims": aims,
        "interrupts": figures.interrupts(),
        "kicks": figures.kicks(),
        "moves": figures.moves(),
        "unplaced": figures.unplaced(),
    })
}

impl Report<'_> {
    fn mips(&self) -> f64 {
        self.at.position.count as f64 / self.seconds.1.max(1e-9) / 1e6
    }

    /// The JSON object.
    pub fn json(&self) -> Value {
        let Digest { cpu, devices, ram } = self.digest;
        let hex = |part: u64| format!("{part:016x}");
        let mut object = json!({
            "command": self.command,
            unit(self.reckoning): self.at.position.count,
            "rip": format!("{:#x}", self.at.position.rip),
            "guest_time_s": self.at.time.0 as f64 / 1e9,
            "host_seconds": rounded(self.seconds.0),
            "cpu_seconds": rounded(self.seconds.1),
            "digest": { "cpu": hex(cpu), "devices": hex(devices), "ram": hex(ram) },
            "serial_bytes": self.serial_bytes,
            "exit": self.ending.name(),
            "exit_code": self.ending.code(),
            "message": self.ending.to_string(),
        });
        if let Value::Object(fields) = &mut object {
            if self.reckoning != Reckoning::Exits {
                fields.insert("mips".into(), json!(rounded(self.mips())));
            }
            if let Some(figures) = self.figures {
                fields.insert("kvm".into(), kvm(figures));
            }
            fields.extend(self.more.clone());
        }
        object
    }

    /// Tells the figures as the options say: JSON where asked for, and one line for people on standard error
    /// otherwise, or when the run did not end well.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn tell(&self, options: &ReportOptions, stdout_taken: bool) -> Result<()> {
        if options.json.is_none() || self.ending.code() != 0 {
            let speed = match self.reckoning {
                Reckoning::Instructions(_) => format!("{:.1} million instructions", self.mips()),
                Reckoning::Exits => format!("{:.0} exits", self.mips() * 1e6),
            };
            eprintln!(
                "gemel: {} at {} {}, {:.3} s of guest time ({speed} per CPU second)",
                self.ending,
                self.at.position.count,
                unit(self.reckoning),
                self.at.time.0 as f64 / 1e9,
            );
        }
        if let (Some(figures), None) = (self.figures, &options.json) {
            eprintln!("gemel: KVM: {figures}");
        }
        options.write(&self.json(), stdout_taken)
    }
}

impl ReportOptions {
    /// Writes figures where `--json` says, if it does.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn write(&self, figures: &Value, stdout_taken: bool) -> Result<()> {
        match &self.json {
            None => {}
            Some(Some(path)) => std::fs::write(path, format!("{figures}\n"))
                .with_context(|| format!("cannot write the figures to {}", path.display()))?,
            Some(None) if stdout_taken => eprintln!("{figures}"),
            Some(None) => println!("{figures}"),
        }
        Ok(())
    }
}
