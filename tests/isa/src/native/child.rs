//! The child process: it sets itself up, and from then on lives in its signal handler, which is where every case ends and
//! where the next begins.
//!
//! Cases own FS.base, which the C library needs for its thread-local storage. So once the first case is loaded nothing here
//! may touch any: no errno, no allocation, no panic, no standard library beyond plain memory.
//!
//! Not responsible for: the frame's layout (`frame`), nor for the arena (`memory`).

#![allow(unsafe_code)] // a process that is all signal handler

use super::frame::{Frame, Places};
use super::memory::Memory;
use super::ring::{RETIRED, Ring, SYSTEM_CALL, Slot};
use super::syscalls;
use crate::arena;
use crate::case::Mode;
use gemel_x86::Segment;
use gemel_x86::segment::{DS, ES, FS, GS, attr};
use std::arch::{asm, naked_asm};
use std::ptr;

/// Everything that a case can raise, and what a refused system call raises.
const SIGNALS: [libc::c_int; 6] =
    [libc::SIGTRAP, libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGSYS];
/// The handler's stack, with room for the frame of a CPU with AVX-512 and AMX.
const STACK: usize = 256 << 10;
/// si_code of a single step; INT1 raises the same vector with another (asm-generic/siginfo.h).
const TRAP_TRACE: libc::c_int = 2;

/// What the handler knows.
struct Child {
    ring: *const Ring,
    memory: Memory,
    places: Option<Places>,
    /// The case that runs.
    slot: *mut Slot,
}

/// The process's one child state. Only its single thread uses it.
static mut CHILD: Option<Child> = None;

/// Runs cases from the ring until the process is ended.
pub fn main(ring: &Ring) -> ! {
    // The parent's end ends this process too, if it could not do so itself.
    // SAFETY: takes no memory.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    let steps: [fn(&Ring) -> std::io::Result<()>; 4] =
        [map, load_segments, handle_signals, |_| ok(syscalls::allow_only_these())];
    for (number, step) in steps.into_iter().enumerate() {
        if let Err(error) = step(ring) {
            ring.fail(number as i32 + 1, error.raw_os_error().unwrap_or(0));
            syscalls::exit(1);
        }
    }
    // SAFETY: the handler takes it from here and does not come back.
    unsafe { asm!("int3") };
    syscalls::exit(2);
}

fn ok(result: libc::c_int) -> std::io::Result<()> {
    if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

fn map(ring: &Ring) -> std::io::Result<()> {
    let (memory, places) = (Memory::map()?, Places::of_this_cpu());
    // SAFETY: one thread, and the handler is not there yet.
    unsafe { (&raw mut CHILD).write(Some(Child { ring, memory, places, slot: ptr::null_mut() })) };
    Ok(())
}

/// Writes the LDT that [`arena::segment`] speaks of.
fn load_segments(_: &Ring) -> std::io::Result<()> {
    for mode in Mode::ALL {
        for segment in (ES..=GS).map(|register| arena::segment(mode, register)) {
            if segment.selector & 4 != 0 {
                let entry = descriptor(segment);
                // SAFETY: the kernel reads the 16 bytes; 0x11 writes one entry (modify_ldt(2)).
                let result = unsafe {
                    libc::syscall(libc::SYS_modify_ldt, 0x11, &raw const entry, size_of_val(&entry))
                };
                ok(result as libc::c_int)?;
            }
        }
    }
    Ok(())
}

/// A segment as `struct user_desc`: entry, base, limit, and bits.
fn descriptor(segment: Segment) -> [u32; 4] {
    let has = |bit: u16| u32::from(segment.attr & bit != 0);
    let large = has(attr::G);
    let limit = if large != 0 { segment.limit >> 12 } else { segment.limit };
    let contents = has(attr::CODE) << 1;
    let read_only = 1 - has(attr::READ_WRITE);
    let usable = 1 << 6;
    let bits = has(attr::DB) | contents << 1 | read_only << 3 | large << 4 | usable;
    [u32::from(segment.selector >> 3), segment.base as u32, limit, bits]
}

fn handle_signals(_: &Ring) -> std::io::Result<()> {
    // SAFETY: a new mapping becomes the handlers' stack and stays; the action and the set are the kernel's own types, for
    // which zero is a value; `enter` is a handler for SA_SIGINFO.
    unsafe {
        let stack = libc::mmap(
            ptr::null_mut(),
            STACK,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE,
            -1,
            0,
        );
        if stack == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error());
        }
        let stack = libc::stack_t { ss_sp: stack, ss_flags: 0, ss_size: STACK };
        ok(libc::sigaltstack(&raw const stack, ptr::null_mut()))?;
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = enter as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        // A fault of the handler itself is then the end of the process, not another case.
        libc::sigfillset(&raw mut action.sa_mask);
        for signal in SIGNALS {
            ok(libc::sigaction(signal, &raw const action, ptr::null_mut()))?;
        }
        // The parent may have had some of them blocked.
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        ok(libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut()))
    }
}

/// Where the kernel enters. AC, ID and NT are still the case's: AC would make the handler's own accesses fault, and the
/// others would stay for the next case, since returning does not set them.
#[unsafe(naked)]
unsafe extern "C" fn enter(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::ucontext_t) {
    naked_asm!("push 2", "popfq", "jmp {}", sym on_signal)
}

/// Ends a case and begins the next.
unsafe extern "C" fn on_signal(
    signal: libc::c_int,
    info: *mut libc::siginfo_t,
    context: *mut libc::ucontext_t,
) {
    // SAFETY: the one thread is here, all signals are blocked, so this is the only reference; the arguments are the kernel's;
    // slots are this process's between `next` and `advance`.
    unsafe {
        let Some(Some(child)) = (&raw mut CHILD).as_mut() else { syscalls::exit(3) };
        let ring = &*child.ring;
        let mut frame = Frame::new(context, child.places);
        if let Some(Slot { case, left }) = child.slot.as_mut() {
            frame.store(case.mode, &mut left.after);
            (left.how, left.error_code, left.cr2) = frame.exception();
            if signal == libc::SIGSYS {
                left.how = SYSTEM_CALL;
            } else if left.how == 1 && (*info).si_code == TRAP_TRACE {
                (left.how, left.error_code) = (RETIRED, 0);
            }
            child.memory.compare_and_reset(case, Memory::code_address(case), left);
            ring.advance();
        }
        child.slot = ring.next();
        let case = &(*child.slot).case;
        child.memory.place(case, Memory::code_address(case));
        load_data_segments(case.mode);
        frame.load(case.mode, &case.before);
    }
}

/// Sees that DS, ES, FS and GS are those of a mode: returning from a signal leaves them as the last case did.
///
/// # Safety
/// Thread-local storage is gone afterwards.
unsafe fn load_data_segments(mode: Mode) {
    let wanted = [DS, ES, FS, GS].map(|register| arena::segment(mode, register));
    let selectors = wanted.map(|segment| u32::from(segment.selector));
    let mut loaded = [0u32; 4];
    let [ds, es, fs, gs] = &mut loaded;
    // SAFETY: the selectors are null, the kernel's flat data segment, or in the LDT written above. 64-bit code uses none of
    // them but for the bases.
    unsafe {
        asm!(
            "mov {:e}, ds",
            "mov {:e}, es",
            "mov {:e}, fs",
            "mov {:e}, gs",
            out(reg) * ds,
            out(reg) * es,
            out(reg) * fs,
            out(reg) * gs,
            options(nomem, nostack, preserves_flags),
        );
        if loaded != selectors {
            let [ds, es, fs, gs] = selectors;
            asm!(
                "mov ds, {:e}", "mov es, {:e}", "mov fs, {:e}", "mov gs, {:e}",
                in(reg) ds, in(reg) es, in(reg) fs, in(reg) gs,
                options(nostack, preserves_flags),
            );
        }
        if mode == Mode::Long64 {
            let [.., fs, gs] = wanted;
            asm!("wrfsbase {}", "wrgsbase {}", in(reg) fs.base, in(reg) gs.base, options(nostack, preserves_flags));
        }
    }
}
