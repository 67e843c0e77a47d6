//! Debian's Bochs 2.7 as a yardstick: boots a guest from a CD image without a screen and counts its instructions.
//!
//! Not responsible for fairness: Debian builds Bochs with its debugger and without handlers chaining, which makes it about 3.5
//! times slower than an optimised build. The numbers say what the package does.

use crate::cost;
use anyhow::{Context, Result, bail, ensure};
use gemel_system_tests::guest::Guest;
use gemel_system_tests::{child, results};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// cpu-int takes 150 s on a 2.6 GHz EPYC.
const LIMIT: Duration = Duration::from_secs(900);

/// What Bochs made of one guest
pub struct Run {
    /// Simulated ticks. With `clock: sync=none` one per instruction, and those that a halted CPU skips: never too few, so that
    /// the comparison errs in favour of Bochs
    pub ticks: u64,
    /// CPU seconds, start and BIOS included
    pub cpu: f64,
}

/// Boots `guest` to its end and checks its results.
pub fn run(guest: &Guest) -> Result<Run> {
    let folder = tempfile::tempdir()?;
    let folder = folder.path();
    make_cd(guest, folder)?;
    fs::write(folder.join("bochsrc"), configuration(guest))?;
    // The debugger waits for a command: continue, and leave once the guest has powered off.
    fs::write(folder.join("commands"), "c\nquit\n")?;
    // The term display wants a terminal: script(1) gives it one that nobody sees.
    let mut command = Command::new("script");
    command.args(["-qfec", "bochs -q -f bochsrc -rc commands", "/dev/null"]);
    command.env("TERM", "vt100").current_dir(folder);
    // The exit code is 1 after every power-off; the guest's own results tell.
    let (cpu, _) = cost::cpu_of(&mut command, LIMIT)?;
    results::check(&guest.expected, &fs::read(folder.join("serial.log"))?)?;
    Ok(Run { ticks: last_tick(&fs::read_to_string(folder.join("bochs.log"))?)?, cpu })
}

/// Puts kernel and initramfs on a CD that ISOLINUX boots: Bochs has no loader of its own.
fn make_cd(guest: &Guest, folder: &Path) -> Result<()> {
    let menu = folder.join("isolinux.cfg");
    let append = &guest.append;
    let text = format!(
        "SERIAL 0 115200\nDEFAULT guest\nPROMPT 0\nLABEL guest\n KERNEL vmlinuz\n APPEND initrd=initrd {append}\n"
    );
    fs::write(&menu, text)?;
    let mut xorriso = Command::new("xorriso");
    xorriso.args(["-as", "mkisofs", "-quiet", "-o"]).arg(folder.join("boot.iso"));
    xorriso.args(["-b", "isolinux/isolinux.bin", "-c", "isolinux/boot.cat"]);
    xorriso.args(["-no-emul-boot", "-boot-load-size", "4", "-boot-info-table", "-graft-points"]);
    xorriso.arg("isolinux/isolinux.bin=/usr/lib/ISOLINUX/isolinux.bin");
    xorriso.arg("isolinux/ldlinux.c32=/usr/lib/syslinux/modules/bios/ldlinux.c32");
    for (name, path) in [("vmlinuz", guest.kernel()), ("initrd", guest.initrd()), ("isolinux.cfg", menu)] {
        xorriso.arg(format!("isolinux/{name}={}", path.display()));
    }
    child::run(&mut xorriso, Duration::from_secs(60)).context("cannot make a CD image")?;
    Ok(())
}

fn configuration(guest: &Guest) -> String {
    let lines = [
        &format!("megs: {}", guest.memory),
        "romimage: file=/usr/share/bochs/BIOS-bochs-latest",
        "vgaromimage: file=/usr/share/vgabios/vgabios.bin",
        // The model that baselines for Bochs are usually given for.
        "cpu: model=corei7_haswell_4770, ips=100000000, reset_on_triple_fault=0",
        // As fast as it can: no waiting for the host's clock.
        "clock: sync=none",
        "ata0-master: type=cdrom, path=boot.iso, status=inserted",
        "boot: cdrom",
        "com1: enabled=1, mode=file, dev=serial.log",
        "display_library: term",
        "speaker: enabled=0",
        "log: bochs.log",
        // Each line of the log begins with the tick.
        "logprefix: %t%e%d",
    ];
    lines.join("\n") + "\n"
}

/// The tick at which Bochs stopped: the number before the last line of its log.
fn last_tick(log: &str) -> Result<u64> {
    let number =
        |line: &str| line.split(|c: char| !c.is_ascii_digit()).next().and_then(|digits| digits.parse().ok());
    let Some(tick) = log.lines().rev().find_map(number) else {
        bail!("no tick in the log of Bochs:\n{}", child::tail(log))
    };
    ensure!(tick > 0, "Bochs stopped before its first tick:\n{}", child::tail(log));
    Ok(tick)
}
