//! The ways on this host's own KVM and PMU, where there are such.
#![allow(unsafe_code)] // Guest memory is handed to KVM by address, and the counter's signal needs a handler.

use crate::placement::{
    BranchEvent, ByBranches, ByBreakpoint, ByStep, Came, Counter, Guest, PerfCounter, Return, Skid, Target,
    Way,
};
use gemel_machine::EngineError;
use kvm_bindings::{
    KVM_GUESTDBG_ENABLE, KVM_GUESTDBG_SINGLESTEP, KVM_GUESTDBG_USE_HW_BP, kvm_guest_debug,
    kvm_guest_debug_arch, kvm_userspace_memory_region,
};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};
use std::io::{Error, Write, stderr};

/// Seven rounds in real mode at 0:1000, each with a store and a REP of five iterations, then an exit.
const ROUNDS: &[u8] = &[
    0xb9, 0x07, 0x00, // mov cx, 7
    0x31, 0xc0, // xor ax, ax
    0x40, // inc ax
    0xa3, 0x00, 0x05, // mov [0x500], ax
    0x51, // push cx
    0xb9, 0x05, 0x00, // mov cx, 5
    0xbf, 0x00, 0x06, // mov di, 0x600
    0xf3, 0xaa, // rep stosb
    0x59, // pop cx
    0x49, // dec cx
    0x75, 0xef, // jnz 1005
    0xe6, 0x80, // out 80h, al
];

/// 16 conditional branches a round for ever, and each way of writing one among them.
const ENDLESS: &[u8] = &[
    0xb9, 0x05, 0x00, // mov cx, 5
    0xe2, 0xfe, // loop 1003: 5 branches
    0xe3, 0x00, // jcxz 1007: 1
    0xb9, 0x0a, 0x00, // mov cx, 10
    0x49, // dec cx
    0x75, 0xfd, // jnz 100a: 10
    0xeb, 0xf1, // jmp 1000: none
];
const BRANCHES_A_ROUND: u64 = 16;

/// A VM with 64 KiB and one vCPU in real mode.
struct RealMode {
    vcpu: VcpuFd,
    _vm: VmFd,
    _memory: Box<Memory>,
}

#[repr(align(4096))]
struct Memory([u8; 0x1_0000]);

impl RealMode {
    fn with(code: &[u8]) -> Result<Self, kvm_ioctls::Error> {
        let vm = Kvm::new()?.create_vm()?;
        let mut memory = Box::new(Memory([0; 0x1_0000]));
        memory.0[0x1000..][..code.len()].copy_from_slice(code);
        let region = kvm_userspace_memory_region {
            memory_size: memory.0.len() as u64,
            userspace_addr: memory.0.as_mut_ptr() as u64,
            ..Default::default()
        };
        // SAFETY: the memory is boxed, page-aligned, and lives as long as the VM.
        unsafe { vm.set_user_memory_region(region)? };
        let vcpu = vm.create_vcpu(0)?;
        let mut sregs = vcpu.get_sregs()?;
        for segment in [&mut sregs.cs, &mut sregs.ds, &mut sregs.es, &mut sregs.ss] {
            (segment.base, segment.selector) = (0, 0);
        }
        vcpu.set_sregs(&sregs)?;
        let mut regs = vcpu.get_regs()?;
        (regs.rip, regs.rsp, regs.rflags) = (0x1000, 0x8000, 2);
        vcpu.set_regs(&regs)?;
        Ok(Self { vcpu, _vm: vm, _memory: memory })
    }

    /// What tells this guest's boundaries apart.
    fn state(&self) -> [u64; 5] {
        let regs = self.vcpu.get_regs().expect("registers");
        [regs.rip, regs.rax, regs.rcx, regs.rdi, regs.rsp]
    }

    fn run(&mut self, control: u32, debugreg: [u64; 8]) -> Result<Return, EngineError> {
        let debug = kvm_guest_debug { control, pad: 0, arch: kvm_guest_debug_arch { debugreg } };
        let trouble = |error: kvm_ioctls::Error| EngineError::Host {
            what: "running",
            source: Error::from_raw_os_error(error.errno()),
            advice: "this is a test",
        };
        self.vcpu.set_guest_debug(&debug).map_err(trouble)?;
        match self.vcpu.run() {
            Ok(VcpuExit::Debug(_)) => Ok(Return::Boundary),
            Ok(_) => Ok(Return::Exit),
            Err(error) if error.errno() == libc::EINTR => Ok(Return::Signal),
            Err(error) => Err(trouble(error)),
        }
    }
}

impl Guest for RealMode {
    fn rip(&mut self) -> Result<u64, EngineError> {
        Ok(self.state()[0])
    }

    fn resume(&mut self, breakpoint: Option<u64>) -> Result<Return, EngineError> {
        match breakpoint {
            // Length and kind in DR7 stay 0: an instruction.
            Some(rip) => {
                self.run(KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP, [rip, 0, 0, 0, 0, 0, 0, 0x402])
            }
            None => self.run(0, [0; 8]),
        }
    }

    fn step(&mut self) -> Result<Return, EngineError> {
        self.run(KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP, [0; 8])
    }
}

/// Every boundary of a run to its exit, in single steps.
fn boundaries(code: &[u8]) -> Vec<[u64; 5]> {
    let mut guest = RealMode::with(code).expect("a VM");
    let mut all = vec![guest.state()];
    loop {
        match guest.step().expect("a step") {
            Return::Exit => return all,
            Return::Boundary => all.push(guest.state()),
            Return::Signal => {}
        }
    }
}

/// Goes with a way to the boundary in a state.
fn reach(way: &mut dyn Way, guest: &mut RealMode, count: u64, state: [u64; 5]) {
    let target = Target { count, rip: state[0] };
    while guest.state() != state {
        let came = way.next(guest, &target).expect("KVM");
        assert!(matches!(came, Came::Here | Came::Kicked), "{came:?} on the way to {state:x?}");
    }
}

fn skipped_without_kvm() -> bool {
    let missing = RealMode::with(ROUNDS).err();
    if let Some(error) = &missing {
        skipped(&format!("no VM on /dev/kvm: {error}"));
    }
    missing.is_some()
}

fn skipped(reason: &str) {
    // What macros print is shown of tests that fail only.
    stderr().write_all(format!("SKIPPED: {reason}\n").as_bytes()).expect("standard error");
}

#[test]
fn breakpoint_and_steps_lead_to_every_boundary_of_a_real_guest() {
    if skipped_without_kvm() {
        return;
    }
    let all = boundaries(ROUNDS);
    // A CPU stops behind each iteration (SDM 3B 18.3.1.4), the last of which ends the instruction: five boundaries. A software KVM makes
    // one step of all that it emulates at once, and another of finding that none is left: two.
    let in_rep = all.iter().filter(|state| state[0] == 0x1010).count() / 7;
    println!("{} boundaries, {in_rep} of them at each REP", all.len());
    assert!(matches!(in_rep, 2 | 5), "{in_rep} boundaries at each REP");
    assert_eq!(all.len(), 1 + 2 + 7 * (8 + in_rep));
    for state in all.iter().skip(1) {
        reach(&mut ByStep, &mut RealMode::with(ROUNDS).expect("a VM"), 0, *state);
        reach(&mut ByBreakpoint::new(u32::MAX), &mut RealMode::with(ROUNDS).expect("a VM"), 0, *state);
    }
}

/// The counter of this thread, its signal without effect but for the interruption.
fn pmu() -> Result<(BranchEvent, PerfCounter), String> {
    extern "C" fn nothing(_: libc::c_int) {}
    let event = BranchEvent::of_this_cpu().map_err(|e| e.to_string())?;
    let signal = libc::SIGRTMIN() + 5;
    // SAFETY: the handler does nothing; the action is whole, all zeros but for it.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = nothing as extern "C" fn(libc::c_int) as usize;
        libc::sigaction(signal, &action, std::ptr::null_mut());
    }
    let counter = PerfCounter::open(&event, signal).map_err(|e| e.to_string())?;
    if event.zen && PerfCounter::overcounts().map_err(|e| e.to_string())? {
        return Err("this CPU counts branches behind locked instructions twice (SpecLockMap)".into());
    }
    Ok((event, counter))
}

#[test]
fn the_pmu_counts_a_real_guest_exactly_and_leads_to_its_boundaries() {
    if skipped_without_kvm() {
        return;
    }
    let (event, mut counter) = match pmu() {
        Ok(pmu) => pmu,
        Err(reason) => return skipped(&reason),
    };
    let before = counter.read().expect("a count");
    let mut guest = RealMode::with(ROUNDS).expect("a VM");
    while guest.resume(None).expect("a run") != Return::Exit {}
    assert_eq!(counter.read().expect("a count") - before, 7);

    let mut guest = RealMode::with(ENDLESS).expect("a VM");
    let skid = Skid::measure(&mut counter, &mut guest, 1_000, 50_000).expect("a measurement");
    println!("skid: {skid:?}");
    assert!(skid.samples > 0 && (event.zen || skid.worst <= event.margin), "{skid:?}");

    let mut way = ByBranches::new(counter, event.margin, true);
    for rounds in [1, 100, 10_000, 1_000_000] {
        let mut guest = RealMode::with(ENDLESS).expect("a VM");
        way.set_count(0).expect("a count");
        // Behind `mov cx, 10`, where the round has made 6.
        let count = (rounds - 1) * BRANCHES_A_ROUND + 6;
        let target = Target { count, rip: 0x100a };
        loop {
            match way.next(&mut guest, &target).expect("KVM") {
                Came::Here => break,
                Came::Kicked => {}
                other => panic!("{other:?} on the way to {count}"),
            }
        }
        assert_eq!((way.count().expect("a count"), guest.state()[0], guest.state()[2]), (count, 0x100a, 10));
    }
}
