//! A virtual machine of one page of code: loads a program in a mode, runs it, says how it left.
//!
//! Not responsible for: what that tells about the host (each probe).
#![allow(unsafe_code)] // hands memory to KVM, and reads the union that it answers in

use super::guests::Program;
use super::stage::{self, CODE, HANDLERS, Mode, RAM};
use super::watchdog::Watchdog;
use crate::processor_time::processor_time;
use gemel_x86::control::CR4_PGE;
use kvm_bindings::{
    KVM_GUESTDBG_ENABLE, KVM_MEM_LOG_DIRTY_PAGES, Msrs, kvm_guest_debug, kvm_msr_entry, kvm_regs, kvm_sregs,
    kvm_userspace_memory_region,
};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// A run that takes more processor time is given up.
const PATIENCE: Duration = Duration::from_millis(300);
/// So is one that takes this long, on a host that does not get to it.
const LONGEST: Duration = Duration::from_secs(2);

/// What a probe found, or why it could not find out.
pub type Probe<T> = Result<T, String>;

/// Guest memory. Atomic, because KVM reads and writes it while a vCPU runs.
#[repr(align(4096))]
struct Page([AtomicU64; 512]);

/// How a program left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Left {
    /// By the HLT at its end.
    Done,
    /// By a fault or a software interrupt of this vector.
    Trapped(u8),
    /// KVM cannot execute the instruction and hands it to user space.
    HandedOut,
    /// Port I/O.
    Port,
    /// A store or a load that is not RAM's.
    Memory,
    /// A model-specific register that user space answers for.
    Msr,
    /// A debug stop.
    Debug,
    /// The interrupt window that was asked for.
    Window,
    /// A triple fault, or a mode that KVM refuses in this way.
    Shutdown,
    /// `immediate_exit`, or a signal of a counter.
    Interrupted,
    /// It did not leave in time.
    TooLong,
    /// Something else: the number of the exit.
    Other(u32),
}

/// One VM with one vCPU and [`RAM`] bytes.
pub struct Sandbox<'a> {
    /// The vCPU.
    pub vcpu: VcpuFd,
    /// The VM.
    pub vm: VmFd,
    mode: Mode,
    end: u64,
    memory: Box<[Page]>,
    watchdog: &'a Watchdog,
}

/// What KVM said, as a reason why a probe has no result.
pub fn refused(what: &'static str) -> impl Fn(kvm_ioctls::Error) -> String {
    move |e| format!("{what}: {e}")
}

impl<'a> Sandbox<'a> {
    /// A VM whose CPUID is `cpuid`.
    ///
    /// # Errors
    /// What KVM refused.
    pub fn new(kvm: &Kvm, watchdog: &'a Watchdog, cpuid: &kvm_bindings::CpuId) -> Probe<Self> {
        let vm = kvm.create_vm().map_err(refused("no VM"))?;
        let memory: Box<[Page]> =
            (0..RAM / 4096).map(|_| Page(std::array::from_fn(|_| AtomicU64::new(0)))).collect();
        let region = kvm_userspace_memory_region {
            slot: 0,
            flags: KVM_MEM_LOG_DIRTY_PAGES,
            guest_phys_addr: 0,
            memory_size: RAM,
            userspace_addr: memory.as_ptr() as u64,
        };
        // SAFETY: the pages are RAM bytes long, page-aligned, atomic, and live as long as the VM does: they are dropped after it
        // (fields are dropped in their order).
        unsafe { vm.set_user_memory_region(region) }.map_err(refused("no guest memory"))?;
        let vcpu = vm.create_vcpu(0).map_err(refused("no vCPU"))?;
        vcpu.set_cpuid2(cpuid).map_err(refused("CPUID not taken"))?;
        Ok(Self { vcpu, vm, mode: Mode::Real, end: 0, memory, watchdog })
    }

    /// Puts a program in place and the vCPU before it. `change` has the last word on the registers.
    ///
    /// # Errors
    /// What KVM refused.
    pub fn load(
        &mut self,
        mode: Mode,
        program: Program,
        change: impl FnOnce(&mut kvm_regs, &mut kvm_sregs),
    ) -> Probe<()> {
        let code = mode.code(program);
        (self.mode, self.end) = (mode, CODE + code.len() as u64 - 1);
        self.memory.iter().flat_map(|page| &page.0).for_each(|word| word.store(0, Relaxed));
        stage::lay_out(mode, |at, value| self.write(at, value));
        for (at, bytes) in (CODE..).step_by(8).zip(code.chunks(8)) {
            let mut word = [0xf4; 8];
            word[..bytes.len()].copy_from_slice(bytes);
            self.write(at, u64::from_le_bytes(word));
        }
        self.debug(0, &[])?;
        self.start(change)
    }

    /// Puts the vCPU before the program that was loaded, and drops its translations. `change` has the last word on the registers.
    ///
    /// # Errors
    /// What KVM refused.
    pub fn start(&mut self, change: impl FnOnce(&mut kvm_regs, &mut kvm_sregs)) -> Probe<()> {
        let mut sregs = self.vcpu.get_sregs().map_err(refused("system registers not told"))?;
        let mut regs = stage::registers(self.mode, &mut sregs);
        change(&mut regs, &mut sregs);
        if self.mode.is_long() {
            // A change of CR4.PGE drops every translation (SDM 3A 4.10.4.1).
            let other = kvm_sregs { cr4: sregs.cr4 ^ CR4_PGE, ..sregs };
            self.vcpu.set_sregs(&other).map_err(refused("CR4.PGE not taken"))?;
        }
        self.vcpu.set_sregs(&sregs).map_err(refused("system registers not taken"))?;
        self.vcpu.set_regs(&regs).map_err(refused("registers not taken"))
    }

    /// Debug stops: flags of KVM_SET_GUEST_DEBUG beside KVM_GUESTDBG_ENABLE, and addresses to break at. None of both: off.
    ///
    /// # Errors
    /// What KVM refused.
    pub fn debug(&mut self, flags: u32, breakpoints: &[u64]) -> Probe<()> {
        let mut debug = kvm_guest_debug::default();
        if flags != 0 {
            debug.control = KVM_GUESTDBG_ENABLE | flags;
            debug.arch.debugreg[7] = 0x400;
        }
        for (n, at) in breakpoints.iter().enumerate() {
            debug.arch.debugreg[n] = *at;
            debug.arch.debugreg[7] |= 2 << (2 * n);
        }
        self.vcpu.set_guest_debug(&debug).map_err(refused("debug stops not taken"))
    }

    /// Eight bytes of guest memory.
    pub fn read(&self, at: u64) -> u64 {
        self.word(at).load(Relaxed)
    }

    /// Writes eight bytes of guest memory.
    pub fn write(&self, at: u64, value: u64) {
        self.word(at).store(value, Relaxed);
    }

    fn word(&self, at: u64) -> &AtomicU64 {
        &self.memory[(at / 4096) as usize].0[(at % 4096 / 8) as usize]
    }

    /// The general registers.
    ///
    /// # Errors
    /// What KVM refused.
    pub fn regs(&self) -> Probe<kvm_regs> {
        self.vcpu.get_regs().map_err(refused("registers not told"))
    }

    /// Sets model-specific registers.
    ///
    /// # Errors
    /// The first that KVM did not take.
    pub fn set_msrs(&self, values: &[(u32, u64)]) -> Probe<()> {
        let entries: Vec<_> =
            values.iter().map(|&(index, data)| kvm_msr_entry { index, data, ..Default::default() }).collect();
        let msrs = Msrs::from_entries(&entries).map_err(|e| format!("registers not listed: {e:?}"))?;
        match self.vcpu.set_msrs(&msrs) {
            Ok(n) if n == values.len() => Ok(()),
            Ok(n) => Err(format!("MSR {:#x} not taken", values[n].0)),
            Err(e) => Err(format!("MSRs not taken: {e}")),
        }
    }

    /// Pages of RAM that were written since the last call: bit n for page n.
    ///
    /// # Errors
    /// What KVM refused.
    pub fn dirty(&self) -> Probe<u64> {
        let words = self.vm.get_dirty_log(0, RAM as usize).map_err(refused("no dirty log"))?;
        Ok(words.first().copied().unwrap_or_default())
    }

    /// Runs until the program leaves.
    ///
    /// # Errors
    /// What KVM refused.
    pub fn run(&mut self) -> Probe<Left> {
        let (began, used) = (Instant::now(), processor_time());
        let left = loop {
            match self.leave_once()? {
                Left::Interrupted if self.watchdog.barked() => {
                    if processor_time() - used > PATIENCE || began.elapsed() > LONGEST {
                        return Ok(Left::TooLong);
                    }
                }
                left => break left,
            }
        };
        if left != Left::Other(kvm_bindings::KVM_EXIT_HLT) {
            return Ok(left);
        }
        let regs = self.regs()?;
        let at = regs.rip.wrapping_sub(1);
        Ok(match at.checked_sub(HANDLERS).map(|from| from / 16) {
            _ if at == self.end => Left::Done,
            Some(13) if self.mode.is_user() && self.trapped_at(&regs, 13) == self.end => Left::Done,
            Some(vector) if vector < 256 => Left::Trapped(vector as u8),
            _ => left,
        })
    }

    /// Where the instruction lies that a handler was entered for, in long mode.
    pub fn trapped_at(&self, regs: &kvm_regs, vector: u8) -> u64 {
        let pushes_code = matches!(vector, 8 | 10..=14 | 17);
        let frame = regs.rsp + if pushes_code { 8 } else { 0 };
        if frame.is_multiple_of(8) && frame < RAM { self.read(frame) } else { 0 }
    }

    /// One KVM_RUN. A HLT is `Other(KVM_EXIT_HLT)`.
    ///
    /// # Errors
    /// What KVM refused.
    pub fn leave_once(&mut self) -> Probe<Left> {
        Ok(match self.vcpu.run() {
            Ok(VcpuExit::Hlt) => Left::Other(kvm_bindings::KVM_EXIT_HLT),
            Ok(VcpuExit::IoIn(..) | VcpuExit::IoOut(..)) => Left::Port,
            Ok(VcpuExit::MmioRead(..) | VcpuExit::MmioWrite(..)) => Left::Memory,
            Ok(VcpuExit::X86Rdmsr(..) | VcpuExit::X86Wrmsr(..)) => Left::Msr,
            Ok(VcpuExit::Debug(_)) => Left::Debug,
            Ok(VcpuExit::IrqWindowOpen) => Left::Window,
            Ok(VcpuExit::Shutdown) => Left::Shutdown,
            Ok(VcpuExit::InternalError) => {
                // SAFETY: KVM_EXIT_INTERNAL_ERROR fills this member of the union.
                let suberror = unsafe { self.vcpu.get_kvm_run().__bindgen_anon_1.internal.suberror };
                match suberror {
                    kvm_bindings::KVM_INTERNAL_ERROR_EMULATION => Left::HandedOut,
                    _ => Left::Other(kvm_bindings::KVM_EXIT_INTERNAL_ERROR),
                }
            }
            Ok(_) => Left::Other(self.vcpu.get_kvm_run().exit_reason),
            Err(e) if matches!(e.errno(), libc::EINTR | libc::EAGAIN) => Left::Interrupted,
            Err(e) => return Err(format!("KVM_RUN: {e}")),
        })
    }
}
