//! Puts the machine together: images, RAM, board, engine, kernel.
//!
//! Not responsible for: any of the parts.

use crate::net;
use crate::options::{Clock, MachineOptions, RtcBase};
use anyhow::{Context, Result, bail};
use gemel_devices::{board, boot};
use gemel_host::{Disks, DriveSpec};
use gemel_interp::{Interp, missing_on_host};
use gemel_kvm::{Figures, Kvm};
use gemel_log::Engine;
use gemel_machine::{BootSpec, DiskSpec, GuestRam, Machine, MachineSpec, Reckoning, Vcpu, image_digest};
use gemel_x86::CpuModel;
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// Power-on of a free-running machine: 2026-01-01 00:00:00 UTC.
const FREE_RTC_BASE: u64 = 1_767_225_600;

/// The files that a machine starts from.
pub struct Images {
    /// The kernel's content.
    pub kernel: Vec<u8>,
    /// The initrd's content; empty without one.
    pub initrd: Vec<u8>,
    /// The disks.
    pub disks: Disks,
}

fn read(what: &str, path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("cannot read the {what} {}", path.display()))
}

impl Images {
    /// Reads the kernel and the initrd and opens the disks.
    ///
    /// # Errors
    /// A file that is missing, in use, or not what it must be.
    pub fn open(kernel: &Path, initrd: Option<&Path>, drives: &[DriveSpec]) -> Result<Self> {
        Ok(Self {
            kernel: read("kernel", kernel)?,
            initrd: initrd.map_or(Ok(Vec::new()), |path| read("initrd", path))?,
            disks: Disks::open(drives)?,
        })
    }
}

/// A machine, and the counters of its engine where that has any.
pub struct Built {
    /// The machine.
    pub machine: Machine,
    /// KVM's counters.
    pub figures: Option<Arc<Figures>>,
}

/// The spec of the machine that the options and these images make. `identify` reads the disks once to know them by
/// their digest; without it they count as unknown, which is good enough when nothing will compare.
///
/// # Errors
/// An unknown CPU model, a disk that cannot be read, or networks that a machine cannot have.
pub fn spec(
    options: &MachineOptions,
    reckoning: Reckoning,
    images: &mut Images,
    identify: bool,
) -> Result<MachineSpec> {
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let rtc_base = match (options.rtc_base, options.clock) {
        (Some(RtcBase::Epoch(seconds)), _) => seconds,
        (Some(RtcBase::Utc), _) | (None, Clock::Paced) => now(),
        (None, Clock::Free) => FREE_RTC_BASE,
    };
    let mut disks = Vec::new();
    for (disk, drive) in images.disks.disks().iter_mut().zip(&options.drive) {
        let read = || format!("cannot read the disk image {}", drive.file.display());
        let digest = if identify { disk.digest().with_context(read)? } else { 0 };
        disks.push(DiskSpec { sectors: disk.sectors(), read_only: disk.read_only(), digest });
    }
    let initrd = if images.initrd.is_empty() { 0 } else { image_digest(&images.initrd) };
    Ok(MachineSpec {
        board: board::BOARD,
        ram: options.memory,
        cpu: CpuModel::parse(&options.cpu).map_err(anyhow::Error::msg)?.text(),
        reckoning,
        rtc_base,
        seed: options.seed,
        disks,
        nics: net::nics(options)?,
        boot: BootSpec {
            kernel: image_digest(&images.kernel),
            initrd,
            append: options.append.clone(),
            reboots: !options.no_reboot,
        },
    })
}

/// The machine at power-on, with the kernel loaded.
///
/// # Errors
/// A spec that this build or this host cannot make, no memory, or a file that is not a kernel.
pub fn build(spec: &MachineSpec, engine: Engine, kernel: &[u8], initrd: &[u8]) -> Result<Built> {
    let Built { mut machine, figures } = bare(spec, engine)?;
    let initrd = (!initrd.is_empty()).then_some(initrd);
    let state = boot::load(kernel, initrd, &spec.boot.append, machine.ram(), board::RSDP)?;
    machine.vcpu().restore(&state)?;
    let machine = if spec.boot.reboots { machine.rebooting()? } else { machine };
    Ok(Built { machine, figures })
}

/// The machine at power-on with nothing loaded: for a snapshot to be restored into. A reset ends its run, since it does not have
/// what it would start again with.
///
/// # Errors
/// A spec that this build cannot make, or no memory.
pub fn bare(spec: &MachineSpec, engine: Engine) -> Result<Built> {
    let model = CpuModel::parse(&spec.cpu).map_err(anyhow::Error::msg)?;
    if let Some(feature) = missing_on_host(&model) {
        bail!(
            "CPU model {} needs {feature}, which this host's CPU lacks: choose another with --cpu, or leave the feature out \
             as in --cpu {},-{feature}",
            spec.cpu,
            spec.cpu
        );
    }
    let ram = Arc::new(GuestRam::new(spec.ram)?);
    let bus = board::build(spec, &model, Arc::clone(&ram))?;
    let interp = Interp::new(model.clone(), Arc::clone(&ram)).counting(spec.reckoning.count_kind());
    let (vcpu, figures): (Box<dyn Vcpu>, _) = match engine {
        Engine::Interp => (Box::new(interp), None),
        Engine::Kvm => {
            let kvm = Kvm::new(model, Arc::clone(&ram), Box::new(interp))?;
            let figures = kvm.figures();
            (Box::new(kvm), Some(figures))
        }
    };
    Ok(Built { machine: Machine::new(vcpu, bus, ram, spec.reckoning, spec.id()), figures })
}
