//! The guest inside KVM: one VM with one vCPU, its memory, and the way of the CPU state in and out.
//!
//! Not responsible for: when the guest runs there (`run`), what is done when it leaves (`exits`).
//!
//! Registers, system registers and events come with every exit in the page that KVM shares (KVM_CAP_SYNC_REGS), so that a position
//! costs no request. The rest is asked for when the state is saved.

use crate::before::View;
use crate::error::{Asked, KvmError};
use crate::left::{self, Left};
use crate::memory::Memory;
use crate::quirks::{Native, Quirks};
use crate::state::extended::Layout;
use crate::state::{debug, events, extended, msrs, registers, system};
use crate::{cpuid, ioctl, msr_filter, user};
use gemel_machine::GuestRam;
use gemel_machine::ram::PAGE_SIZE;
use gemel_x86::control::{CR0_PG, CR4_PAE, CR4_PGE, EFER_LMA};
use gemel_x86::flags::RF;
use gemel_x86::{CpuModel, CpuState};
use kvm_bindings::{KVM_API_VERSION, kvm_regs, kvm_sregs, kvm_vcpu_events, kvm_xcr, kvm_xcrs};
use kvm_bindings::{
    KVM_GUESTDBG_ENABLE, KVM_GUESTDBG_SINGLESTEP, KVM_GUESTDBG_USE_HW_BP, KVM_MAX_CPUID_ENTRIES,
    kvm_guest_debug,
};
use kvm_ioctls::{Cap, SyncReg, VcpuFd, VmFd};
use std::borrow::Cow;
use std::io;
use std::sync::Arc;

/// Where KVM may put the page tables and the task state segment that VT-x wants for real mode: in the PCI hole, where no RAM is and
/// no device of the board.
const IDENTITY_MAP: u64 = 0xfffb_c000;
const TASK_STATE: usize = 0xfffb_d000;

/// Where the guest stops by itself and says so.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Halting {
    Nowhere,
    /// After each step.
    EachStep,
    /// Before the instruction at this linear address.
    At(u64),
}

/// A VM with one vCPU.
pub(crate) struct Guest {
    vcpu: VcpuFd,
    vm: VmFd,
    memory: Memory,
    ram: Arc<GuestRam>,
    layout: Layout,
    quirks: Quirks,
    has_xcr0: bool,
    pub regs: kvm_regs,
    pub sregs: kvm_sregs,
    pub events: kvm_vcpu_events,
    /// What KVM was last given or asked for; what KVM does not hold stays here as it is.
    known: CpuState,
    /// The guest ran since.
    ran: bool,
    /// The guest ran since its dirty log was last read.
    wrote: bool,
    /// Nothing was given yet.
    empty: bool,
    halting: Halting,
}

impl Guest {
    pub(crate) fn new(model: &CpuModel, ram: Arc<GuestRam>, quirks: Quirks) -> Result<Self, KvmError> {
        let kvm = kvm_ioctls::Kvm::new()
            .map_err(|e| KvmError::Open { source: io::Error::from_raw_os_error(e.errno()) })?;
        if kvm.get_api_version() != KVM_API_VERSION as i32 {
            return Err(KvmError::Lacks("its stable interface"));
        }
        let needs = [
            (Cap::UserMemory, "KVM_CAP_USER_MEMORY"),
            (Cap::ImmediateExit, "KVM_CAP_IMMEDIATE_EXIT"),
            (Cap::SyncRegs, "KVM_CAP_SYNC_REGS"),
            (Cap::X86UserSpaceMsr, "KVM_CAP_X86_USER_SPACE_MSR"),
            (Cap::X86MsrFilter, "KVM_CAP_X86_MSR_FILTER"),
            (Cap::VcpuEvents, "KVM_CAP_VCPU_EVENTS"),
            (Cap::Xsave, "KVM_CAP_XSAVE"),
            (Cap::Xcrs, "KVM_CAP_XCRS"),
        ];
        if let Some((_, name)) = needs.iter().find(|(cap, _)| !kvm.check_extension(*cap)) {
            return Err(KvmError::Lacks(name));
        }
        let host = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES).asked("KVM_GET_SUPPORTED_CPUID")?;
        let layout = Layout::new(&host, model.xcr0_mask())?;
        let vm = kvm.create_vm().asked("KVM_CREATE_VM")?;
        // Only VT-x without unrestricted guests needs them, and only there a refusal matters, which the first entry then reports.
        let _ = vm.set_identity_map_address(IDENTITY_MAP);
        let _ = vm.set_tss_address(TASK_STATE);
        msr_filter::install(&vm)?;
        let memory = Memory::new(&vm, ram.clone())?;
        let mut vcpu = vm.create_vcpu(0).asked("KVM_CREATE_VCPU")?;
        cpuid::set(&vcpu, model)?;
        for part in [SyncReg::Register, SyncReg::SystemRegister, SyncReg::VcpuEvents] {
            vcpu.set_sync_valid_reg(part);
        }
        Ok(Self {
            vcpu,
            vm,
            memory,
            ram,
            layout,
            quirks,
            has_xcr0: model.has(gemel_x86::Feature::XSAVE),
            regs: kvm_regs::default(),
            sregs: kvm_sregs::default(),
            events: kvm_vcpu_events::default(),
            known: CpuState::default(),
            ran: false,
            wrote: false,
            empty: true,
            halting: Halting::Nowhere,
        })
    }

    /// Lets the guest run until it leaves.
    pub(crate) fn enter(&mut self) -> Result<Left, KvmError> {
        (self.ran, self.wrote) = (true, true);
        let left = self.run()?;
        self.read_shared();
        Ok(left)
    }

    /// Finishes the access that the guest left for, without letting it go on: [`Left::Interrupted`] when nothing more is to do.
    pub(crate) fn complete(&mut self) -> Result<Left, KvmError> {
        self.vcpu.set_kvm_immediate_exit(1);
        let left = self.run();
        self.vcpu.set_kvm_immediate_exit(0);
        self.read_shared();
        left
    }

    fn run(&mut self) -> Result<Left, KvmError> {
        match self.vcpu.run().map(drop) {
            Ok(()) => {}
            Err(e) if e.errno() == libc::EINTR || e.errno() == libc::EAGAIN => return Ok(Left::Interrupted),
            Err(e) => {
                let source = io::Error::from_raw_os_error(e.errno());
                return Err(KvmError::Refused { what: "KVM_RUN", source });
            }
        }
        Ok(left::reason(self.vcpu.get_kvm_run()))
    }

    fn read_shared(&mut self) {
        let shared = self.vcpu.sync_regs();
        (self.regs, self.sregs, self.events) = (shared.regs, shared.sregs, shared.events);
        if self.quirks.native == Native::User64 {
            // The CPU's own fault on a shadow page table sets it, and the guest had none: with RF set it does not come here (`run`).
            self.regs.rflags &= !RF;
        }
    }

    /// Answers the port read that the guest left for.
    pub(crate) fn answer_port(&mut self, size: u8, value: u32) {
        left::answer_port(self.vcpu.get_kvm_run(), size, value);
    }

    /// Answers the MMIO read that the guest left for.
    pub(crate) fn answer_mmio(&mut self, value: u64) {
        left::answer_mmio(self.vcpu.get_kvm_run(), value);
    }

    /// Changes registers. The guest has no access open.
    pub(crate) fn set_regs(&mut self, regs: kvm_regs) {
        self.regs = regs;
        self.vcpu.sync_regs_mut().regs = regs;
        self.vcpu.set_sync_dirty_reg(SyncReg::Register);
    }

    /// The task priority as the guest left it.
    pub(crate) fn cr8(&mut self) -> u8 {
        self.vcpu.get_kvm_run().cr8 as u8 & 0xf
    }

    /// The task priority that the guest goes on with.
    pub(crate) fn set_cr8(&mut self, priority: u8) {
        self.vcpu.get_kvm_run().cr8 = priority.into();
    }

    /// Whether to leave as soon as an interrupt can be taken.
    pub(crate) fn want_window(&mut self, wanted: bool) {
        self.vcpu.get_kvm_run().request_interrupt_window = wanted.into();
    }

    /// Where to stop from now on.
    pub(crate) fn halt_at(&mut self, halting: Halting) -> Result<(), KvmError> {
        // A step is armed for the place where the guest stands when it is asked for.
        if self.halting == halting && halting != Halting::EachStep {
            return Ok(());
        }
        let mut debug = kvm_guest_debug::default();
        match halting {
            Halting::Nowhere => {}
            Halting::EachStep => debug.control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP,
            Halting::At(linear) => {
                debug.control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP;
                // Global, and bit 10, which is always set; length and kind stay 0: an instruction (SDM 3B 18.2.4).
                (debug.arch.debugreg[0], debug.arch.debugreg[7]) = (linear, 0x402);
            }
        }
        self.vcpu.set_guest_debug(&debug).asked("KVM_SET_GUEST_DEBUG")?;
        self.halting = halting;
        Ok(())
    }

    /// Queues an interrupt, which the next entry delivers.
    pub(crate) fn interrupt(&self, vector: u8) -> Result<(), KvmError> {
        ioctl::interrupt(&self.vcpu, vector)
    }

    /// Registers and memory, to look instructions up in.
    pub(crate) fn view(&self) -> View<'_> {
        View { ram: &self.ram, regs: &self.regs, sregs: &self.sregs }
    }

    /// The state as it is. An access that is open does not show.
    pub(crate) fn save(&mut self) -> Result<&mut CpuState, KvmError> {
        let state = &mut self.known;
        registers::save(&self.regs, state);
        if self.quirks.native == Native::User64 {
            // Ring 3 can change no more than this, and the rest is not the guest's own (`user`).
            system::save_segments(&self.sregs, self.regs.rflags, state);
            if self.ran {
                self.layout.save(&self.vcpu.get_xsave().asked("KVM_GET_XSAVE")?, state);
                self.ran = false;
            }
            return Ok(state);
        }
        system::save(&self.sregs, self.regs.rflags, state);
        events::save(&self.events, state);
        if self.ran {
            self.layout.save(&self.vcpu.get_xsave().asked("KVM_GET_XSAVE")?, state);
            msrs::save(&self.vcpu, state)?;
            debug::save(&self.vcpu.get_debug_regs().asked("KVM_GET_DEBUGREGS")?, state);
            if self.has_xcr0 {
                let xcrs = self.vcpu.get_xcrs().asked("KVM_GET_XCRS")?;
                state.xcr0 = xcrs.xcrs[0].value;
            }
            if state.cr0 & CR0_PG != 0 && state.cr4 & CR4_PAE != 0 && state.efer & EFER_LMA == 0 {
                state.pdpte = ioctl::pdptes(&self.vcpu)?;
            }
            self.ran = false;
        }
        Ok(state)
    }

    /// Takes a state on. What memory was written to by others since the guest last ran here is heeded, page tables too.
    pub(crate) fn load(&mut self, state: &CpuState, cr8: u8, apic_base: u64) -> Result<(), KvmError> {
        if self.quirks.shadow_paging {
            self.memory.forget_shadows(&self.vm)?;
        }
        let all = std::mem::take(&mut self.empty);
        let known = if self.ran { self.save()?.clone() } else { self.known.clone() };
        let mut sregs = system::of(state, cr8.into(), apic_base);
        let mut held = Cow::Borrowed(state);
        if self.quirks.native == Native::User64 {
            user::close_ring_0(&mut sregs, held.to_mut());
        }
        if !self.quirks.shadow_paging && state.cr0 & CR0_PG != 0 {
            // A change of CR4.PGE drops every translation (SDM 3A 4.10.4.1), KVM's own requests included.
            let other = kvm_sregs { cr4: sregs.cr4 ^ CR4_PGE, ..sregs };
            self.vcpu.set_sregs(&other).asked("KVM_SET_SREGS")?;
        }
        self.vcpu.set_sregs(&sregs).asked("KVM_SET_SREGS")?;
        self.regs = registers::of(state);
        self.vcpu.set_regs(&self.regs).asked("KVM_SET_REGS")?;
        if self.has_xcr0 && (all || known.xcr0 != state.xcr0) {
            let mut xcrs = kvm_xcrs { nr_xcrs: 1, ..Default::default() };
            xcrs.xcrs[0] = kvm_xcr { xcr: 0, reserved: 0, value: state.xcr0 };
            self.vcpu.set_xcrs(&xcrs).asked("KVM_SET_XCRS")?;
        }
        if all || !extended::same(&known, state) {
            ioctl::set_xsave(&self.vcpu, &self.layout.area(state))?;
        }
        if all || !msrs::same(&known, state) {
            msrs::load(&self.vcpu, &held)?;
        }
        if all || (known.dr, known.dr6, known.dr7) != (state.dr, state.dr6, state.dr7) {
            self.vcpu.set_debug_regs(&debug::of(state)).asked("KVM_SET_DEBUGREGS")?;
        }
        self.events = events::of(state);
        self.vcpu.set_vcpu_events(&self.events).asked("KVM_SET_VCPU_EVENTS")?;
        self.sregs = sregs;
        self.known.clone_from(state);
        self.set_cr8(cr8);
        Ok(())
    }

    /// Marks what the guest wrote to RAM.
    pub(crate) fn collect_dirty(&mut self) -> Result<(), KvmError> {
        if std::mem::take(&mut self.wrote) { self.memory.collect_dirty(&self.vm) } else { Ok(()) }
    }

    /// The pages that an instruction with an access open may write to: where its string goes, and the top of the stack.
    pub(crate) fn destinations(&self) -> Vec<(u64, Vec<u8>)> {
        let mut pages = std::collections::BTreeSet::new();
        for (segment, offset) in [(&self.sregs.es, self.regs.rdi), (&self.sregs.ss, self.regs.rsp)] {
            for neighbour in [0x1000u64.wrapping_neg(), 0, 0x1000] {
                let linear = segment.base.wrapping_add(offset).wrapping_add(neighbour);
                pages.extend(self.view().physical(linear).map(|address| address & !0xfff));
            }
        }
        let content = |address| {
            let mut bytes = vec![0; PAGE_SIZE];
            self.ram.read(address, &mut bytes).ok().map(|()| (address, bytes))
        };
        pages.into_iter().filter_map(content).collect()
    }

    /// Puts pages back as they were.
    pub(crate) fn put_back(&self, kept: &[(u64, Vec<u8>)]) {
        for (address, bytes) in kept {
            let mut now = vec![0; bytes.len()];
            if self.ram.read(*address, &mut now).is_ok() && now != *bytes {
                // It was read from there, so it is RAM.
                let _ = self.ram.write(*address, bytes);
            }
        }
    }
}
