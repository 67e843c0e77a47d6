//! Probe of the performance counter that could place events inside a stretch without exits: conditional branches that retire in guest
//! mode, how exact their count is, and how far after an overflow the guest stops.
//!
//! Not responsible for: placing anything (`placement`).
#![allow(unsafe_code)] // perf_event_open has no wrapper that knows guest mode

use super::facts::CounterFindings;
use super::guests;
use super::probes::{Bench, unexpected};
use super::sandbox::{Left, Probe};
use super::stage::Mode;
use super::watchdog;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, FromRawFd};

/// Branches that the guest makes to test the count.
const BRANCHES: u64 = 100_000;
/// Branches until an overflow.
const PERIOD: u64 = 20_000;
/// Overflows that are measured.
const SAMPLES: u32 = 50;

/// perf's description of a counter, as far as it is used: version 0 of `struct perf_event_attr` (linux/perf_event.h).
#[repr(C)]
struct Attributes {
    kind: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup_events: u32,
    breakpoint_type: u32,
    breakpoint_address: u64,
}

/// PERF_FLAG_FD_CLOEXEC.
const CLOSE_ON_EXEC: libc::c_ulong = 1 << 3;
/// PERF_TYPE_RAW.
const RAW: u32 = 4;
/// Bits of `flags`: pinned, exclude_host.
const PINNED: u64 = 1 << 2;
const EXCLUDE_HOST: u64 = 1 << 19;

/// The event that counts retired conditional branches exactly, with the bits that restrict it to guest mode where the PMU has
/// them (Intel before and from Ice Lake; AMD from Zen), as rr's table has it.
fn event(vendor: &str, signature: [u32; 3]) -> Option<u64> {
    match (vendor, signature) {
        // BR_INST_RETIRED.CONDITIONAL became .COND with another unit mask in Ice Lake (model 0x7d and later but the Cascade,
        // Comet and Kaby Lakes 0x8e, 0x9e, 0xa5, 0xa6).
        ("GenuineIntel", [6, 0x8e | 0x9e | 0xa5 | 0xa6, _]) => Some(0x51_01c4),
        ("GenuineIntel", [6, model, _]) if model >= 0x6a => Some(0x51_11c4),
        ("GenuineIntel", [6, ..]) => Some(0x51_01c4),
        ("AuthenticAMD" | "HygonGenuine", [family, ..]) if family >= 0x17 => Some(0x51_00d1),
        _ => None,
    }
}

fn open(config: u64, period: u64) -> io::Result<File> {
    let attributes = Attributes {
        kind: RAW,
        size: size_of::<Attributes>() as u32,
        config,
        sample_period: period,
        sample_type: 0,
        read_format: 0,
        flags: PINNED | EXCLUDE_HOST,
        wakeup_events: 1,
        breakpoint_type: 0,
        breakpoint_address: 0,
    };
    // SAFETY: the structure is version 0 of the kernel's and outlives the call; the descriptor that comes back is ours alone.
    unsafe {
        let fd = libc::syscall(libc::SYS_perf_event_open, &attributes, 0, -1, -1, CLOSE_ON_EXEC);
        if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(File::from_raw_fd(fd as i32)) }
    }
}

fn read(mut counter: &File) -> Probe<u64> {
    let mut value = [0; 8];
    counter.read_exact(&mut value).map_err(|e| format!("the counter cannot be read: {e}"))?;
    Ok(u64::from_le_bytes(value))
}

/// Counts a known number of branches, then measures the skid of overflows.
///
/// # Errors
/// Why there is no such counter: mostly that the host has no PMU.
pub fn measure(bench: &Bench, vendor: &str, signature: [u32; 3]) -> Probe<CounterFindings> {
    let event =
        event(vendor, signature).ok_or_else(|| format!("no event is known for {vendor} {signature:x?}"))?;
    let absent = |e| format!("perf_event_open({event:#x}, guest only): {e}; the host has no PMU for us");
    let mode = Mode::LongRing3;
    let mut sandbox = bench.sandbox()?;

    let counter = open(event, 0).map_err(absent)?;
    sandbox.load(mode, guests::countdown(), |regs, _| regs.rcx = BRANCHES)?;
    let before = read(&counter)?;
    let left = sandbox.run()?;
    if left != Left::Done {
        return unexpected(left);
    }
    let counted = [BRANCHES, read(&counter)? - before];
    drop(counter);

    let mut skid = BTreeMap::new();
    for _ in 0..SAMPLES {
        let counter = open(event, PERIOD).map_err(absent)?;
        signal_me(&counter).map_err(|e| format!("no signal on overflow: {e}"))?;
        sandbox.load(mode, guests::countdown(), |regs, _| regs.rcx = BRANCHES)?;
        loop {
            let left = sandbox.leave_once()?;
            let made = BRANCHES - sandbox.regs()?.rcx.min(BRANCHES);
            match left {
                // Other signals come too; only an overflow has counted a period.
                Left::Interrupted if read(&counter)? >= PERIOD => {
                    *skid.entry(made as i64 - PERIOD as i64).or_insert(0) += 1;
                    break;
                }
                Left::Interrupted => {}
                // The overflow was lost, or its signal came after the last branch.
                _ => break,
            }
        }
    }
    Ok(CounterFindings { event, counted, skid: skid.into_iter().collect() })
}

/// Lets overflows send the watchdog's signal to this thread: its handler does nothing, which is enough to leave KVM_RUN.
fn signal_me(counter: &File) -> io::Result<()> {
    /// `struct f_owner_ex` (fcntl(2)).
    #[repr(C)]
    struct Owner {
        kind: libc::c_int,
        id: libc::pid_t,
    }
    const F_SETSIG: libc::c_int = 10;
    const F_SETOWN_EX: libc::c_int = 15;
    const F_OWNER_TID: libc::c_int = 0;
    let fd = counter.as_raw_fd();
    // SAFETY: the descriptor is open, and the structure outlives the call.
    let done = unsafe {
        let owner = Owner { kind: F_OWNER_TID, id: libc::gettid() };
        [
            libc::fcntl(fd, F_SETOWN_EX, &owner),
            libc::fcntl(fd, F_SETSIG, watchdog::signal()),
            libc::fcntl(fd, libc::F_SETFL, libc::O_ASYNC),
        ]
    };
    if done.contains(&-1) { Err(io::Error::last_os_error()) } else { Ok(()) }
}
