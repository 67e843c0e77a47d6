//! A kernel's run, recorded in memory, and machines to replay it on.
//!
//! Not responsible for which engines there are.

use anyhow::{Context, Result, anyhow, bail};
use gemel_devices::{board, boot};
use gemel_host::outputs::{ByteSink, Null};
use gemel_host::{ClockMode, Disks, Inbox, Inputs, Live, Outputs, Pacer};
use gemel_log::{ClockKind, Header, LogReader, LogWriter};
use gemel_machine::{
    BootSpec, DiskSpec, GuestRam, Machine, MachineSpec, Pause, PowerEvent, Reckoning, RunError, Vcpu,
    image_digest,
};
use gemel_replay::{LogSource, NoDisks, NoOutput, Record, Replay};
use gemel_system_tests::kernel::Kernel;
use gemel_x86::CpuModel;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

const MEMORY: u64 = 64 << 20;
/// Counts between two digests.
const EPOCH: u64 = 100;
/// What a kernel writes to the debug-exit port when all went as it should.
const CONTENT: u32 = 0;

/// Makes an engine.
pub type Make<'a> = &'a dyn Fn(&CpuModel, &Arc<GuestRam>) -> Result<Box<dyn Vcpu>>;

/// A machine that counts exits.
pub fn spec(disks: Vec<DiskSpec>, boot: BootSpec) -> MachineSpec {
    MachineSpec {
        board: board::BOARD,
        ram: MEMORY,
        cpu: "x86-64-v2".into(),
        reckoning: Reckoning::Exits,
        rtc_base: 0,
        seed: 0,
        disks,
        nics: Vec::new(),
        boot,
    }
}

/// A kernel and the log of its run
pub struct Recorded {
    kernel: Vec<u8>,
    spec: MachineSpec,
    log: Vec<u8>,
    exits: u64,
}

impl Recorded {
    /// Records a kernel on a machine that counts exits, with an engine of this making.
    pub fn new(kernel: &Kernel, engine: Make<'_>) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let mut disks = Disks::open(
            &kernel.drive(folder.path())?.iter().map(|d| d.parse()).collect::<Result<Vec<_>, _>>()?,
        )?;
        let disk = |disk: &mut gemel_host::Disk| DiskSpec {
            sectors: disk.sectors(),
            read_only: disk.read_only(),
            digest: 0,
        };
        let content = std::fs::read(&kernel.file)?;
        let boot =
            BootSpec { kernel: image_digest(&content), append: kernel.append.clone(), ..BootSpec::default() };
        let spec = spec(disks.disks().iter_mut().map(disk).collect(), boot);
        let mut recorded = Self { kernel: content, spec, log: Vec::new(), exits: 0 };
        let mut machine = recorded.machine(engine)?;
        let mut header = Header::new(recorded.spec.clone(), ClockKind::Paced);
        header.epoch = EPOCH;
        let printed = Printed::default();
        let outputs = Outputs::new([Box::new(printed.clone()), Box::new(Null)], Box::new(Null));
        let inputs = Inputs::new(Inbox::new());
        let live = Live::new(Pacer::new(ClockMode::Paced), inputs, disks, Box::new(outputs), 0)
            .reckoning(Reckoning::Exits);
        let mut world = Record::new(live, LogWriter::new(&mut recorded.log, &header)?, &header);
        let outcome = machine.run(&mut world);
        world.conclude(&mut machine, &outcome).map_err(describe)?;
        match outcome.map_err(describe).with_context(|| printed.text())? {
            Pause::Power(PowerEvent::DebugExit(CONTENT)) => {}
            other => bail!("the kernel ended by {other:?} and printed:\n{}", printed.text()),
        }
        drop(world);
        recorded.exits = machine.at().position.count;
        Ok(recorded)
    }

    /// How many there were.
    pub fn exits(&self) -> u64 {
        self.exits
    }

    /// The machine at power-on.
    pub fn machine(&self, engine: Make<'_>) -> Result<Machine> {
        let spec = &self.spec;
        let model = CpuModel::parse(&spec.cpu).map_err(|e| anyhow!("{e}"))?;
        let ram = Arc::new(GuestRam::new(spec.ram)?);
        let bus = board::build(spec, &model, Arc::clone(&ram))?;
        let engine = engine(&model, &ram)?;
        let mut machine = Machine::new(engine, bus, ram, spec.reckoning, spec.id());
        let state = boot::load(&self.kernel, None, &spec.boot.append, machine.ram(), board::RSDP)?;
        machine.vcpu().restore(&state)?;
        Ok(machine)
    }

    /// The log as a world.
    pub fn replay(&self) -> Result<Replay<LogSource<&[u8]>, NoOutput>> {
        let reader = LogReader::new(self.log.as_slice()).context("the log")?;
        Ok(Replay::new(LogSource::new(reader), NoOutput, Box::new(NoDisks)))
    }
}

/// What a kernel printed
#[derive(Clone, Default)]
struct Printed(Arc<Mutex<Vec<u8>>>);

impl Printed {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }
}

impl ByteSink for Printed {
    fn name(&self) -> String {
        "the transcript".into()
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(())
    }
}

/// What ended a run, in words.
pub fn describe(error: RunError) -> anyhow::Error {
    match error {
        RunError::Engine(e) => e.into(),
        RunError::World(gemel_machine::Stop::Diverged(e) | gemel_machine::Stop::Host(e)) => anyhow!("{e}"),
        RunError::World(stop) => anyhow!("{stop:?}"),
    }
}
