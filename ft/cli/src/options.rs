//! Options that several subcommands share, named as QEMU's users know them.
//!
//! Not responsible for: what they lead to (`machine`, `world`, `report`).

use clap::ValueEnum;
use gemel_host::{ClockMode, DriveSpec, NetSpec, SerialSpec};
use gemel_machine::Reckoning;
use std::path::PathBuf;

/// What the machine is made of.
#[derive(clap::Args, Clone, Debug)]
pub struct MachineOptions {
    /// Guest memory in MiB (or with a suffix, as in 1G)
    #[arg(short, value_name = "MIB", default_value = "256", value_parser = memory)]
    pub memory: u64,
    /// The kernel: a bzImage, an ELF with a PVH entry, or a multiboot ELF
    #[arg(long, value_name = "FILE")]
    pub kernel: PathBuf,
    /// The initial RAM disk
    #[arg(long, value_name = "FILE")]
    pub initrd: Option<PathBuf>,
    /// The kernel's command line
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true,
        allow_hyphen_values = true
    )]
    pub append: String,
    /// A disk: file=PATH,if=virtio[,snapshot=on|,overlay=PATH|,readonly=on]; repeatable
    #[arg(long, value_name = "SPEC")]
    pub drive: Vec<DriveSpec>,
    /// A network interface: user[,hostfwd=tcp:[ADDR]:PORT-[GUEST]:PORT...] (needs no privilege), tap,ifname=NAME, or
    /// stream,addr=unix:PATH|tcp:HOST:PORT[,server] (QEMU's and passt's frames behind their lengths); for a pair gateway (gemel net); each with
    /// mac=XX:XX:XX:XX:XX:XX where two guests share a network; repeatable
    #[arg(long, value_name = "SPEC")]
    pub net: Vec<NetSpec>,
    /// CPU model and features, as in x86-64-v2,+pcid: x86-64-v2; x86-64-v3 with AVX2, FMA, BMI, AES, SHA, RDRAND; x86-64-v4 with AVX-512
    #[arg(long, value_name = "MODEL", default_value = "x86-64-v2")]
    pub cpu: String,
    /// How guest time passes
    #[arg(long, value_enum, default_value = "paced")]
    pub clock: Clock,
    /// What the guest's clock says at power-on: seconds since 1970, or utc for now. Default: utc when paced,
    /// 1767225600 (2026-01-01) when free
    #[arg(long, value_name = "EPOCH|utc", value_parser = rtc_base)]
    pub rtc_base: Option<RtcBase>,
    /// A reset by the guest (also a triple fault) ends the run with exit code 3 instead of starting the guest again
    #[arg(long)]
    pub no_reboot: bool,
    /// What positions count: instructions, of which guest time is a function; or exits, as hypervisors count, with guest time sampled at
    /// each of them. Default: what the engine can count, instructions where it can both
    #[arg(long, value_enum)]
    pub reckoning: Option<Counted>,
    /// Seed of all that is random by configuration, and of RDRAND and RDSEED when free
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
}

/// The machine's lines out.
#[derive(clap::Args, Clone, Debug)]
pub struct LineOptions {
    /// A serial line: stdio, null, file:PATH, unix:PATH[,server] or tcp:HOST:PORT[,server]. First ttyS0 (default
    /// stdio), then ttyS1 (default null). Sockets are at-least-once
    #[arg(long, value_name = "SPEC")]
    pub serial: Vec<SerialSpec>,
    /// Where the debug console (port 0xe9) goes: as for --serial
    #[arg(long, value_name = "SPEC", default_value = "null")]
    pub debugcon: SerialSpec,
}

/// What is connected to a live machine.
#[derive(clap::Args, Clone, Debug)]
pub struct WorldOptions {
    /// Its lines.
    #[command(flatten)]
    pub lines: LineOptions,
    /// A control socket: JSON lines (status, key, powerdown, poweroff, reset, quit); gemel control speaks to it
    #[arg(long, value_name = "SOCKET")]
    pub control: Option<PathBuf>,
}

/// Where the run ends early, and what is written down on the way.
#[derive(clap::Args, Clone, Debug)]
pub struct LimitOptions {
    /// Stops at this count of instructions, or of exits where those are counted
    #[arg(long, value_name = "COUNT")]
    pub stop_after: Option<u64>,
    /// Writes the machine's digest at every epoch, and at the end, to a file
    #[arg(long, value_name = "FILE")]
    pub digests: Option<PathBuf>,
}

/// Length of an epoch.
#[derive(clap::Args, Clone, Debug)]
pub struct EpochOptions {
    /// Instructions between two digests (default: 16777216), or exits where those are counted (8192)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    epoch: Option<u64>,
}

impl LimitOptions {
    /// Whether counts are asked for.
    pub fn asks_for_counts(&self) -> bool {
        self.stop_after.is_some() || self.digests.is_some()
    }
}

impl EpochOptions {
    /// Whether a length is asked for.
    pub fn asks_for_counts(&self) -> bool {
        self.epoch.is_some()
    }

    /// Counts between two digests of a machine.
    pub fn length(&self, reckoning: Reckoning) -> u64 {
        self.epoch.unwrap_or(gemel_log::default_epoch(reckoning))
    }
}

/// `--reckoning`.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum Counted {
    /// Instructions
    Instructions,
    /// Instructions that leave the guest
    Exits,
}

impl From<Counted> for Reckoning {
    fn from(counted: Counted) -> Self {
        match counted {
            Counted::Instructions => Self::default(),
            Counted::Exits => Self::Exits,
        }
    }
}

/// How figures are told.
#[derive(clap::Args, Clone, Debug)]
pub struct ReportOptions {
    /// Tells the figures as one JSON object at the end: on standard output, or on standard error when that is the
    /// guest's console, or with --json=FILE in a file
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true)]
    pub json: Option<Option<PathBuf>>,
}

/// `--clock`.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum Clock {
    /// Never ahead of the host's clock; a guest that is behind catches up while it idles
    Paced,
    /// As fast as the guest computes, idle time at once: reproducible without a log
    Free,
}

impl From<Clock> for ClockMode {
    fn from(clock: Clock) -> Self {
        match clock {
            Clock::Paced => Self::Paced,
            Clock::Free => Self::Free,
        }
    }
}

/// `--rtc-base`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RtcBase {
    /// The host's time at power-on.
    Utc,
    /// Seconds since 1970.
    Epoch(u64),
}

fn memory(text: &str) -> Result<u64, String> {
    let (number, shift) = match text.as_bytes().last() {
        Some(b'G' | b'g') => (&text[..text.len() - 1], 30),
        Some(b'M' | b'm') => (&text[..text.len() - 1], 20),
        _ => (text, 20),
    };
    let number =
        number.parse::<u64>().map_err(|_| "a number of MiB is wanted, as in 256 or 1G".to_string())?;
    number.checked_mul(1 << shift).ok_or_else(|| "that is too much".to_string())
}

fn rtc_base(text: &str) -> Result<RtcBase, String> {
    match text {
        "utc" => Ok(RtcBase::Utc),
        _ => {
            text.parse().map(RtcBase::Epoch).map_err(|_| "seconds since 1970 are wanted, or utc".to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_in_mib_unless_it_says_otherwise() {
        assert_eq!(memory("256"), Ok(256 << 20));
        assert_eq!(memory("1G"), Ok(1 << 30));
        assert_eq!(memory("64m"), Ok(64 << 20));
        assert!(memory("").is_err() && memory("lots").is_err() && memory("99999999999G").is_err());
    }
}
