//! The host's PMU, by perf_event_open(2), as a counter of what the guest does.
//!
//! Not responsible for: which event (`event`), where the guest is stopped (`branches`).
//!
//! Two events in one group. The first only counts and is the truth. The second interrupts: it is opened disabled, and its period is set
//! each time that it is armed. Were they one, an interrupt taken while the kernel throttles (more samples than `perf_event_max_sample_rate`)
//! would stop the count as well.
#![allow(unsafe_code)] // perf_event_open, its ioctls and its page are not in libc or std.

use super::{BranchEvent, Counter};
use gemel_machine::EngineError;
use std::fs::File;
use std::io::{Error, Read};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

/// `struct perf_event_attr` as it was first (`PERF_ATTR_SIZE_VER0`): nothing later is needed.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Attr {
    kind: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup_events: u32,
    bp_type: u32,
    config1: u64,
}

/// Bits of `Attr::flags`, in the order of the declaration in linux/perf_event.h.
mod flag {
    pub(super) const DISABLED: u64 = 1 << 0;
    /// Always on the PMU or in error, never multiplexed with others' events.
    pub(super) const PINNED: u64 = 1 << 2;
    pub(super) const EXCLUDE_KERNEL: u64 = 1 << 5;
    pub(super) const EXCLUDE_HV: u64 = 1 << 6;
    /// Nothing that is not between VM entry and VM exit.
    pub(super) const EXCLUDE_HOST: u64 = 1 << 19;
    pub(super) const EXCLUDE_GUEST: u64 = 1 << 20;
}

const PERF_TYPE_RAW: u32 = 4;
const PERF_FLAG_FD_CLOEXEC: libc::c_ulong = 1 << 3;
const PERF_EVENT_IOC_ENABLE: libc::c_ulong = 0x2400;
const PERF_EVENT_IOC_DISABLE: libc::c_ulong = 0x2401;
const PERF_EVENT_IOC_PERIOD: libc::c_ulong = 0x4008_2404;
const F_SETSIG: libc::c_int = 10;
const F_SETOWN_EX: libc::c_int = 15;
const F_OWNER_TID: libc::c_int = 0;
/// A period that no run comes to the end of. The kernel refuses those with bit 63 set.
const NEVER: u64 = 1 << 62;
/// Branches made in the host to see that they are not counted.
const HOST_BRANCHES: u64 = 100_000;

#[repr(C)]
struct Owner {
    kind: libc::c_int,
    pid: libc::pid_t,
}

/// Counts the conditional branches that the guest of one vCPU thread retires, in every privilege level, and none of the host's.
pub struct PerfCounter {
    count: File,
    watch: OwnedFd,
    page: WatchPage,
    /// The page's head when the watch was last armed.
    seen: u64,
}

impl PerfCounter {
    /// A counter for the calling thread, which is to be the vCPU's. Its interrupts reach the thread as `signal`.
    ///
    /// # Errors
    /// [`EngineError::Host`]: no PMU (ENOENT, EOPNOTSUPP), no rights (EACCES), or one that counts the host's branches with the guest's.
    pub fn open(event: &BranchEvent, signal: libc::c_int) -> Result<Self, EngineError> {
        let attr = Attr {
            kind: PERF_TYPE_RAW,
            size: size_of::<Attr>() as u32,
            config: event.config,
            flags: flag::PINNED | flag::EXCLUDE_HOST | flag::EXCLUDE_HV,
            ..Attr::default()
        };
        let count = open(&attr, None)?;
        let watching = Attr {
            sample_period: NEVER,
            flags: attr.flags & !flag::PINNED | flag::DISABLED,
            wakeup_events: 1,
            ..attr
        };
        let watch = open(&watching, Some(&count))?;
        let page = WatchPage::of(&watch)?;
        signal_to_this_thread(&watch, signal)?;
        let mut counter = Self { count: count.into(), watch, page, seen: 0 };
        counter.refuse_what_counts_the_host()?;
        Ok(counter)
    }

    /// A PMU that a hypervisor lends can take guest and host for one: on nested SVM the bits that tell them apart have no
    /// effect, while the same kernel on the metal counts a guest's loop exactly.
    fn refuse_what_counts_the_host(&mut self) -> Result<(), EngineError> {
        let before = self.read()?;
        branch(HOST_BRANCHES);
        if self.read()? == before {
            return Ok(());
        }
        Err(EngineError::Host {
            what: "telling the guest's branches from the host's",
            source: Error::other("the PMU counts both"),
            advice: "events are placed without it; on a nested host this is how its hypervisor lends the PMU",
        })
    }

    /// Whether this CPU counts too much: AMD Zen runs ahead past a locked instruction (SpecLockMap), and when it has to go back, what
    /// was counted stays counted. Bit 54 of MSR C001_1020 turns that off; a kernel that switches SSBD in the same register
    /// on Zen and Zen+ can turn it on again. One locked instruction shows it (rr issue 2034, rr's wiki page "Zen").
    ///
    /// # Errors
    /// The event cannot be opened.
    pub fn overcounts() -> Result<bool, EngineError> {
        let attr = Attr {
            kind: PERF_TYPE_RAW,
            size: size_of::<Attr>() as u32,
            // PMCx025, retired lock instructions, umask 8: committed by SpecLockMap.
            config: 0x51_0825,
            flags: flag::PINNED | flag::EXCLUDE_KERNEL | flag::EXCLUDE_GUEST | flag::EXCLUDE_HV,
            ..Attr::default()
        };
        let mut event = File::from(open(&attr, None)?);
        let before = value(&mut event)?;
        let locked = AtomicU64::new(0);
        locked.fetch_add(1, Ordering::SeqCst);
        std::hint::black_box(&locked);
        Ok(value(&mut event)? != before)
    }

    fn ioctl(&self, request: libc::c_ulong, argument: *const u64) -> Result<(), EngineError> {
        // SAFETY: the descriptor is an open perf event; `argument` is null or points to a u64 that outlives the call.
        if unsafe { libc::ioctl(self.watch.as_raw_fd(), request, argument) } < 0 {
            return Err(trouble("arming the branch counter"));
        }
        Ok(())
    }
}

impl Counter for PerfCounter {
    fn read(&mut self) -> Result<u64, EngineError> {
        value(&mut self.count)
    }

    fn arm(&mut self, after: u64) -> Result<(), EngineError> {
        self.disarm()?;
        self.seen = self.page.head();
        self.ioctl(PERF_EVENT_IOC_PERIOD, &after.clamp(1, NEVER))?;
        self.ioctl(PERF_EVENT_IOC_ENABLE, std::ptr::null())
    }

    fn disarm(&mut self) -> Result<(), EngineError> {
        self.ioctl(PERF_EVENT_IOC_DISABLE, std::ptr::null())
    }

    fn overflowed(&self) -> bool {
        self.page.head() != self.seen
    }
}

/// The page that the kernel shares for an event. Mapped read-only, so that the kernel never waits for a reader, its head moves on with
/// every interrupt.
struct WatchPage {
    /// `struct perf_event_mmap_page`.
    address: NonNull<u8>,
    length: usize,
}

// SAFETY: the mapping belongs to this value alone, and is only read, atomically.
unsafe impl Send for WatchPage {}

impl WatchPage {
    /// Where `data_head` is in `struct perf_event_mmap_page`.
    const DATA_HEAD: usize = 1024;

    fn of(watch: &OwnedFd) -> Result<Self, EngineError> {
        // One page of state and one for samples.
        let length = 2 * 4096;
        // SAFETY: a new mapping of an open perf event, at an address of the kernel's choice.
        let at = unsafe {
            let fd = watch.as_raw_fd();
            libc::mmap(std::ptr::null_mut(), length, libc::PROT_READ, libc::MAP_SHARED, fd, 0)
        };
        match NonNull::new(at.cast()) {
            Some(address) if at != libc::MAP_FAILED => Ok(Self { address, length }),
            _ => Err(trouble("mapping the branch counter's page")),
        }
    }

    fn head(&self) -> u64 {
        // SAFETY: inside the mapping and aligned; the kernel writes it as one word.
        unsafe { (*self.address.add(Self::DATA_HEAD).cast::<AtomicU64>().as_ptr()).load(Ordering::Acquire) }
    }
}

impl Drop for WatchPage {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `of`, which nothing refers to any more.
        unsafe { libc::munmap(self.address.as_ptr().cast(), self.length) };
    }
}

fn open(attr: &Attr, leader: Option<&OwnedFd>) -> Result<OwnedFd, EngineError> {
    let group = leader.map_or(-1, AsRawFd::as_raw_fd);
    // SAFETY: `attr` is as long as it says; the thread is this one, on any CPU.
    let fd = unsafe { libc::syscall(libc::SYS_perf_event_open, attr, 0, -1, group, PERF_FLAG_FD_CLOEXEC) };
    if fd < 0 {
        return Err(trouble("opening the branch counter"));
    }
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

fn value(event: &mut File) -> Result<u64, EngineError> {
    let mut bytes = [0; 8];
    match event.read(&mut bytes) {
        Ok(8) => Ok(u64::from_le_bytes(bytes)),
        // A pinned event that could not stay on the PMU reads as end of file, and what it missed is lost.
        Ok(_) => Err(EngineError::Host {
            what: "reading the branch counter",
            source: Error::other("it was taken away"),
            advice: "no other profiler or NMI watchdog may use the PMU (sysctl kernel.nmi_watchdog=0)",
        }),
        Err(_) => Err(trouble("reading the branch counter")),
    }
}

fn signal_to_this_thread(watch: &OwnedFd, signal: libc::c_int) -> Result<(), EngineError> {
    let fd = watch.as_raw_fd();
    // SAFETY: plain requests on an open descriptor; `owner` outlives its call.
    let done = unsafe {
        let owner = Owner { kind: F_OWNER_TID, pid: libc::gettid() };
        libc::fcntl(fd, F_SETOWN_EX, &owner) >= 0
            && libc::fcntl(fd, F_SETSIG, signal) >= 0
            && libc::fcntl(fd, libc::F_SETFL, libc::fcntl(fd, libc::F_GETFL) | libc::O_ASYNC) >= 0
    };
    if done { Ok(()) } else { Err(trouble("sending the branch counter's interrupts to the vCPU")) }
}

/// At least `times` conditional branches.
fn branch(times: u64) {
    for n in 0..times {
        std::hint::black_box(n);
    }
}

fn trouble(what: &'static str) -> EngineError {
    let source = Error::last_os_error();
    let advice = match source.raw_os_error() {
        Some(libc::ENOENT | libc::EOPNOTSUPP | libc::ENODEV) => {
            "this host has no PMU to count with (a VM often has none)"
        }
        Some(libc::EACCES | libc::EPERM) => {
            "counting a guest's ring 0 takes CAP_PERFMON, or kernel.perf_event_paranoid below 2"
        }
        Some(libc::EBUSY | libc::EMFILE) => "others use the PMU; end them, or set kernel.nmi_watchdog=0",
        _ => "events can be placed without the PMU",
    };
    EngineError::Host { what, source, advice }
}
