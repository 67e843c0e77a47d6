//! The child's system calls while cases run, and the filter that refuses every other.
//!
//! Not responsible for: calls that set the child up (`child`).

#![allow(unsafe_code)] // system calls without the C library, whose errno would need thread-local storage

use std::arch::asm;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

/// futex(2) on memory that other processes share. The result is left out: whoever waits looks again.
///
/// # Safety
/// `operation` is FUTEX_WAIT or FUTEX_WAKE.
pub unsafe fn futex(word: &AtomicU32, operation: u64, value: u32, limit: Option<Duration>) {
    let limit =
        limit.map(|l| libc::timespec { tv_sec: l.as_secs() as i64, tv_nsec: i64::from(l.subsec_nanos()) });
    let timeout: *const libc::timespec = limit.as_ref().map_or(std::ptr::null(), |l| l);
    // SAFETY: the kernel reads the word and the timeout, which outlive the call, and changes neither.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") libc::SYS_futex => _,
            in("rdi") word.as_ptr(),
            in("rsi") operation,
            in("rdx") u64::from(value),
            in("r10") timeout,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
}

/// Ends the process.
pub fn exit(status: i32) -> ! {
    // SAFETY: exit_group(2) takes no memory and does not return.
    unsafe {
        asm!(
            "syscall",
            in("rax") libc::SYS_exit_group,
            in("rdi") i64::from(status),
            options(noreturn, nostack),
        );
    }
}

/// From now on the process may return from signals, wait and wake, and end. A system call from below 4 GiB, where cases are,
/// becomes SIGSYS; anything else ends the process. 0, or -1 as prctl(2).
pub fn allow_only_these() -> i32 {
    // Offsets in struct seccomp_data: nr 0, arch 4, instruction_pointer 8.
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    /// AUDIT_ARCH_X86_64: EM_X86_64, 64 bits, little-endian (linux/audit.h).
    const X86_64: u32 = 0xc000_003e;
    let step = |code, k, jt, jf| libc::sock_filter { code, jt, jf, k };
    let filter = [
        step(LOAD, 12, 0, 0),
        step(EQUAL, 0, 7, 0),
        step(LOAD, 4, 0, 0),
        step(EQUAL, X86_64, 0, 6),
        step(LOAD, 0, 0, 0),
        step(EQUAL, libc::SYS_rt_sigreturn as u32, 2, 0),
        step(EQUAL, libc::SYS_futex as u32, 1, 0),
        step(EQUAL, libc::SYS_exit_group as u32, 0, 2),
        step(RETURN, libc::SECCOMP_RET_ALLOW, 0, 0),
        step(RETURN, libc::SECCOMP_RET_TRAP, 0, 0),
        step(RETURN, libc::SECCOMP_RET_KILL_PROCESS, 0, 0),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
    // SAFETY: the kernel copies the program, which lives until then.
    unsafe {
        if libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 {
            return -1;
        }
        libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program)
    }
}
