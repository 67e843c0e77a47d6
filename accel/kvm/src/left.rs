#![allow(unsafe_code)] // the page that KVM shares is a union
//! Why KVM left the guest, read from the page that it shares with us.
//!
//! Not responsible for: what is done about it (`exits`).

use kvm_bindings::*;

/// Why KVM left the guest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Left {
    /// A port access.
    Port(PortAccess),
    /// An access to what is not RAM.
    Mmio(MmioAccess),
    /// RDMSR or WRMSR of a register that is not KVM's.
    Msr,
    /// HLT.
    Halted,
    /// An interrupt can be taken.
    Window,
    /// A triple fault.
    Shutdown,
    /// An instruction that KVM cannot emulate.
    CannotEmulate,
    /// Single step or breakpoint.
    Debug,
    /// A signal, or `immediate_exit`.
    Interrupted,
    /// The task priority was lowered.
    Priority,
    /// KVM's number for something that should not happen, and a detail.
    Unexpected(u32, u64),
}

/// A port access as KVM saw it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct PortAccess {
    pub port: u16,
    /// 1, 2 or 4.
    pub size: u8,
    /// Elements of a string instruction.
    pub count: u32,
    pub write: bool,
    /// What is written: the first element.
    pub value: u32,
}

/// An access to what is not RAM, as KVM saw it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct MmioAccess {
    pub address: u64,
    /// 1 to 8.
    pub len: u8,
    pub write: bool,
    /// What is written.
    pub value: u64,
}

/// Reads the reason after a KVM_RUN that succeeded.
pub(crate) fn reason(run: &kvm_run) -> Left {
    match run.exit_reason {
        KVM_EXIT_IO => {
            // SAFETY: the reason says which part of the union is set; all of them are plain numbers.
            let io = unsafe { run.__bindgen_anon_1.io };
            let mut bytes = [0; 4];
            let size = usize::from(io.size).min(bytes.len());
            // SAFETY: the data lies at this offset of the shared area (`kvm_run.rst`), which is mapped whole.
            unsafe {
                let data = std::ptr::from_ref(run).cast::<u8>().add(io.data_offset as usize);
                data.copy_to_nonoverlapping(bytes.as_mut_ptr(), size);
            }
            Left::Port(PortAccess {
                port: io.port,
                size: io.size,
                count: io.count,
                write: u32::from(io.direction) == KVM_EXIT_IO_OUT,
                value: u32::from_le_bytes(bytes),
            })
        }
        KVM_EXIT_MMIO => {
            // SAFETY: as above.
            let mmio = unsafe { run.__bindgen_anon_1.mmio };
            let len = mmio.len.min(8);
            let kept = if len == 8 { u64::MAX } else { (1 << (8 * len)) - 1 };
            Left::Mmio(MmioAccess {
                address: mmio.phys_addr,
                len: len as u8,
                write: mmio.is_write != 0,
                value: u64::from_le_bytes(mmio.data) & kept,
            })
        }
        KVM_EXIT_X86_RDMSR | KVM_EXIT_X86_WRMSR => Left::Msr,
        KVM_EXIT_HLT => Left::Halted,
        KVM_EXIT_IRQ_WINDOW_OPEN => Left::Window,
        KVM_EXIT_SHUTDOWN => Left::Shutdown,
        KVM_EXIT_INTERNAL_ERROR => {
            // SAFETY: as above.
            match unsafe { run.__bindgen_anon_1.internal.suberror } {
                KVM_INTERNAL_ERROR_EMULATION => Left::CannotEmulate,
                other => Left::Unexpected(KVM_EXIT_INTERNAL_ERROR, other.into()),
            }
        }
        KVM_EXIT_DEBUG => Left::Debug,
        KVM_EXIT_INTR => Left::Interrupted,
        KVM_EXIT_SET_TPR => Left::Priority,
        KVM_EXIT_FAIL_ENTRY => {
            // SAFETY: as above.
            let reason = unsafe { run.__bindgen_anon_1.fail_entry.hardware_entry_failure_reason };
            Left::Unexpected(KVM_EXIT_FAIL_ENTRY, reason)
        }
        other => Left::Unexpected(other, 0),
    }
}

/// Answers a port read.
pub(crate) fn answer_port(run: &mut kvm_run, size: u8, value: u32) {
    // SAFETY: called for an exit that is a port read: the offset is that of its data in the shared area, which has room for it.
    unsafe {
        let offset = run.__bindgen_anon_1.io.data_offset as usize;
        let data = std::ptr::from_mut(run).cast::<u8>().add(offset);
        data.copy_from_nonoverlapping(value.to_le_bytes().as_ptr(), usize::from(size.min(4)));
    }
}

/// Answers an MMIO read.
pub(crate) fn answer_mmio(run: &mut kvm_run, value: u64) {
    run.__bindgen_anon_1.mmio.data = value.to_le_bytes();
}
