//! What `gemel primary` and `gemel secondary` have in common.
//!
//! Not responsible for: the pair itself (`gemel-pair`).

use crate::accel::AccelOptions;
use crate::checker::growing;
use crate::exit::{Ending, one_line};
use crate::figures::metrics;
use crate::logged;
use crate::net;
use crate::options::{Clock, EpochOptions, MachineOptions, ReportOptions};
use crate::replay::keep_evidence;
use crate::report::{Report, Stopwatch};
use crate::trust::TrustOptions;
use crate::world::{self, Connections};
use anyhow::{Context, Result, bail};
use gemel_host::control::{Attendant, Control};
use gemel_host::inbox::Source;
use gemel_host::net::Port;
use gemel_host::outputs::Null;
use gemel_host::{Disks, Inbox, Live, Outputs, QuitReason, signals};
use gemel_kvm::Figures;
use gemel_log::{Header, LogWriter};
use gemel_machine::{At, Machine, MachineSpec};
use gemel_pair::protocol::{NicFrame, Phase, StopReason, Timing};
use gemel_pair::shell::{
    Address, ArbiterAddress, DiskBlocks, Ended, Options, PairError, ReportFn, Side, Surroundings,
};
use gemel_replay::{Handover, NoOutput, Start};
use serde_json::{Value, json};
use std::fs::File;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// Options of both sides.
#[derive(clap::Args)]
pub struct PairOptions {
    /// Where clients of the console find this side: HOST:PORT or unix:PATH
    #[arg(long, value_name = "ADDR")]
    pub console: Address,
    /// What decides which side lives: a directory that all sides reach, or etcd:http://HOST:PORT[,http://HOST:PORT...]
    #[arg(long, value_name = "DIR|etcd:URL")]
    pub arbiter: ArbiterAddress,
    /// The VM's name
    #[arg(long, value_name = "NAME", default_value = "gemel")]
    pub vm: String,
    /// Writes the log to a file as well; it goes on when this side goes live
    #[arg(long, value_name = "FILE")]
    pub log: Option<PathBuf>,
    /// Writes down every output that leaves, what let it leave, and what this side acknowledged, for gemel verify-outputs
    #[arg(long, value_name = "FILE")]
    pub ledger: Option<PathBuf>,
    /// Milliseconds of silence after which a secondary suspects its primary
    #[arg(long, value_name = "MS", default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..))]
    pub silence: u64,
    /// Milliseconds of silence after which a primary goes on without its secondary
    #[arg(long, value_name = "MS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..))]
    pub drop: u64,
    /// Milliseconds of guest time that a secondary may be behind, idle time not counted, before the primary's guest is slowed; at
    /// twice that it waits
    #[arg(long, value_name = "MS", default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..))]
    pub max_lag: u64,
    /// The gateway of the guest's interfaces (--net gateway), where gemel net listens: HOST:PORT or unix:PATH
    #[arg(long, value_name = "ADDR")]
    pub gateway: Option<Address>,
    /// Where standbys wait (gemel standby) that this side takes once it leads and has no secondary: the first that answers
    #[arg(long, value_name = "ADDR,...", value_delimiter = ',')]
    pub standby: Vec<Address>,
    /// Milliseconds that the guest may stand still while the rest of its machine is copied for a standby; one that changes its
    /// memory too fast for that is slowed before
    #[arg(long, value_name = "MS", default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..))]
    pub max_pause: u64,
    /// A control socket: JSON lines (status, key, powerdown, poweroff, reset, quit, protect, unprotect, failover). Keys for a side that is
    /// not live wait until it is
    #[arg(long, value_name = "SOCKET")]
    pub control: Option<PathBuf>,
    /// Serves the figures to Prometheus at http://HOST:PORT/metrics, in plain text and to everybody who reaches it
    #[arg(long, value_name = "HOST:PORT")]
    pub metrics: Option<String>,
    #[command(flatten)]
    pub trust: TrustOptions,
    #[command(flatten)]
    pub machine: MachineOptions,
    #[command(flatten)]
    pub accel: AccelOptions,
    #[command(flatten)]
    pub epochs: EpochOptions,
    #[command(flatten)]
    pub report: ReportOptions,
}

impl PairOptions {
    /// What the pair needs to know.
    ///
    /// # Errors
    /// An arbiter or keys that cannot be used.
    pub fn shell(&self) -> Result<Options> {
        const MS: u64 = 1_000_000;
        net::check_pair(&self.machine.net, self.gateway.is_some())?;
        if self.vm.is_empty() || self.vm.contains(['/', '.']) {
            bail!("--vm '{}': the name becomes a file's: leave out '/' and '.'", self.vm);
        }
        let defaults = Timing::default();
        let silence = self.silence * MS;
        Ok(Options {
            vm: self.vm.clone(),
            timing: Timing {
                silence,
                drop: self.drop * MS,
                max_lag: self.max_lag * MS,
                heartbeat: defaults.heartbeat.min(silence / 4),
                tick: defaults.tick.min(silence / 8),
                ..defaults
            },
            console: self.console.clone(),
            gateway: self.gateway.clone(),
            arbiter: self.arbiter.open()?,
            trust: self.trust.trust()?,
            standbys: self.standby.clone(),
            max_pause: Duration::from_millis(self.max_pause),
            ledger: self.ledger.clone(),
        })
    }

    /// Makes the log file, if one is asked for.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn open_log(&self, header: &Header) -> Result<Option<LogWriter<File>>> {
        let Some(path) = &self.log else { return Ok(None) };
        let file = File::create(path).with_context(|| format!("cannot write the log {}", path.display()))?;
        growing::hold(&file);
        Ok(Some(LogWriter::new(file, header)?))
    }

    /// Makes the log file of a copied machine and the file with its start, if they are asked for.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn open_log_from(
        &self,
        header: &Header,
        start: &mut dyn FnMut() -> Result<Start, PairError>,
    ) -> Result<Option<LogWriter<File>>, PairError> {
        let Some(path) = &self.log else { return Ok(None) };
        let beside = logged::start_beside(path);
        std::fs::write(&beside, start()?.to_bytes())
            .map_err(|e| PairError::Run(format!("cannot write {}: {e}", beside.display())))?;
        self.open_log(header).map_err(|e| PairError::Run(one_line(&e)))
    }

    /// Says how it ended.
    ///
    /// # Errors
    /// Figures that cannot be written.
    pub fn tell(
        &self,
        command: &'static str,
        machine: &mut Machine,
        figures: Option<&Figures>,
        ended: &Ended,
        quit: Option<QuitReason>,
        stopwatch: &Stopwatch,
    ) -> Result<ExitCode> {
        if let Some(diverged) = &ended.diverged {
            let log = self.log.clone().unwrap_or_else(|| PathBuf::from(&self.vm));
            keep_evidence(&log, diverged, machine);
        }
        let ending = match (&ended.reason, ended.pause, quit) {
            _ if ended.diverged.is_some() || ended.reason == Some(StopReason::Diverged) => Ending::Diverged(
                ended.diverged.as_ref().map_or_else(|| "diverged".into(), ToString::to_string),
            ),
            (Some(StopReason::GuestEnded | StopReason::PeerEnded), Some(pause), _) => Ending::Guest(pause),
            (Some(StopReason::PeerEnded), None, _) => Ending::PeerEnded,
            (None, _, Some(quit)) => Ending::Quit(quit),
            _ => Ending::Lost,
        };
        let more = serde_json::to_value(&ended.report)?;
        let report = Report {
            command,
            reckoning: machine.reckoning(),
            at: machine.at(),
            digest: machine.digest()?,
            seconds: stopwatch.read(),
            serial_bytes: ended.report.figures.outputs,
            ending: &ending,
            figures,
            more: more.as_object().cloned().unwrap_or_default(),
        };
        report.tell(&self.report, false)?;
        Ok(ExitCode::from(ending.code()))
    }
}

/// The side's inbox and control socket, as the pair uses them.
pub struct Surround {
    inbox: Arc<Inbox>,
    report: Arc<OnceLock<ReportFn>>,
    side: Arc<OnceLock<Arc<Side>>>,
    disks: Vec<Arc<dyn DiskBlocks>>,
    /// The console can always send something: the guest may sleep for as long as it likes.
    _console: Source,
    _control: Option<Control>,
}

impl Surround {
    /// Catches signals, too: from here on they end the side in good order.
    ///
    /// # Errors
    /// No signal handlers, or a control socket or an address for metrics that cannot be made.
    pub fn new(
        inbox: &Arc<Inbox>,
        role: &'static str,
        options: &PairOptions,
        disks: Vec<Arc<dyn DiskBlocks>>,
    ) -> Result<Self> {
        signals::install(inbox)?;
        let (report, side): (Arc<OnceLock<ReportFn>>, Arc<OnceLock<Arc<Side>>>) = Default::default();
        if let Some(address) = &options.metrics {
            metrics::serve(address, Arc::clone(&report))?;
        }
        let attended = Arc::new(Attended { role, report: Arc::clone(&report), side: Arc::clone(&side) });
        let control =
            options.control.as_ref().map(|path| Control::open(path, inbox, attended)).transpose()?;
        let inbox = Arc::clone(inbox);
        Ok(Self { _console: inbox.source(), inbox, report, side, disks, _control: control })
    }
}

/// What the control socket can tell of a side, and do with it.
struct Attended {
    role: &'static str,
    report: Arc<OnceLock<ReportFn>>,
    side: Arc<OnceLock<Arc<Side>>>,
}

impl Attendant for Attended {
    fn status(&self) -> Value {
        let figures = self.report.get().and_then(|report| serde_json::to_value(report()).ok());
        json!({ "role": self.role, "pair": figures })
    }

    fn takes_inputs(&self) -> Result<(), String> {
        match self.report.get().map(|report| report().figures.phase) {
            Some(Phase::Primary | Phase::Live) => Ok(()),
            _ => Err("this side does not have the guest now; ask the side that does".into()),
        }
    }

    fn execute(&self, word: &str, command: &Value) -> Option<Result<Value, String>> {
        if !matches!(word, "protect" | "unprotect" | "failover") {
            return None;
        }
        let order = || {
            self.takes_inputs()?;
            let side = self.side.get().ok_or("this side has no guest yet")?;
            match word {
                "protect" => {
                    let standby = command["standby"].as_str().map(str::parse).transpose();
                    side.protect(standby.map_err(|e: PairError| e.to_string())?);
                }
                "unprotect" => side.unprotect(),
                _ => side.fail_over(),
            }
            Ok(json!({}))
        };
        Some(order())
    }
}

impl Surroundings for Surround {
    fn observe(&self, report: ReportFn) {
        // Called once.
        let _ = self.report.set(report);
    }

    fn input(&self, bytes: &[u8]) {
        self.inbox.serial(0, bytes);
    }

    fn frames(&self, frames: Vec<NicFrame>) {
        for (nic, frame) in frames {
            // The window of unconsumed frames is smaller than the inbox.
            Port::new(&self.inbox, nic).offer(&mut Some(frame));
        }
    }

    fn nudge(&self) {
        self.inbox.nudge();
    }

    fn asked_to_quit(&self) -> bool {
        self.inbox.quit_reason().is_some()
    }

    fn obey(&self, side: Arc<Side>) {
        // Called once, too.
        let _ = self.side.set(side);
    }

    fn disks(&self) -> &[Arc<dyn DiskBlocks>] {
        &self.disks
    }

    fn say(&self, news: &str) {
        eprintln!("gemel: {news}");
    }
}

/// Lines for a live world whose outputs the pair keeps.
pub fn no_lines() -> Outputs {
    Outputs::new(std::array::from_fn(|_| Box::new(Null) as _), Box::new(Null))
}

/// The live world of a machine that followed and leads from `at` on.
pub fn take_over(
    handover: Handover<NoOutput>,
    at: At,
    inbox: Arc<Inbox>,
    clock: Clock,
    disks: Disks,
    spec: &MachineSpec,
) -> Live {
    let connections = Connections { inbox, outputs: no_lines() };
    let mut live = world::live(connections, clock, disks, spec);
    live.disks.take_over(at.time, &handover.unflushed, handover.requests);
    for (port, count) in handover.serial_in_flight {
        live.inputs.resume_in_flight(port, count as usize);
    }
    live
}
