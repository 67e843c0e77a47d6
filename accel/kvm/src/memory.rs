#![allow(unsafe_code)] // hands the machine's own mapping to KVM
//! Guest RAM as KVM sees it: memory slots on the machine's own mapping, and their dirty log.
//!
//! Not responsible for: what lies outside RAM, which KVM leaves the guest for.

use crate::error::{Asked, KvmError};
use gemel_machine::GuestRam;
use gemel_machine::ram::{DIRTY, PAGE_SIZE};
use kvm_bindings::{KVM_MEM_LOG_DIRTY_PAGES, kvm_userspace_memory_region};
use kvm_ioctls::VmFd;
use std::sync::Arc;

struct Slot {
    first_page: u32,
    bytes: u64,
}

/// The slots of one machine's RAM.
pub(crate) struct Memory {
    ram: Arc<GuestRam>,
    slots: Vec<Slot>,
}

/// An address above all RAM, where a slot comes and goes to make KVM drop its shadow of the guest's page tables.
const NOWHERE: u64 = 0xff_0000_0000;

impl Memory {
    /// Gives the VM its memory.
    pub(crate) fn new(vm: &VmFd, ram: Arc<GuestRam>) -> Result<Self, KvmError> {
        let mut slots = Vec::new();
        for (start, end) in ram.ranges() {
            let Some(first_page) = ram.page_at(start) else { continue };
            let region = kvm_userspace_memory_region {
                slot: slots.len() as u32,
                flags: KVM_MEM_LOG_DIRTY_PAGES,
                guest_phys_addr: start,
                memory_size: end - start,
                userspace_addr: ram.host_page(first_page).addr() as u64,
            };
            // SAFETY: the range lies in the mapping of `ram`, which lives as long as `self`, and so as long as the VM (`Guest`).
            unsafe { vm.set_user_memory_region(region) }.asked("giving the guest its RAM")?;
            slots.push(Slot { first_page, bytes: end - start });
        }
        Ok(Self { ram, slots })
    }

    /// Marks what the guest wrote since the last call.
    pub(crate) fn collect_dirty(&self, vm: &VmFd) -> Result<(), KvmError> {
        for (number, slot) in self.slots.iter().enumerate() {
            let log = vm.get_dirty_log(number as u32, slot.bytes as usize).asked("KVM_GET_DIRTY_LOG")?;
            for (word, bits) in (0u32..).zip(log) {
                let mut bits = bits;
                while bits != 0 {
                    let page = slot.first_page + word * u64::BITS + bits.trailing_zeros();
                    if u64::from(page - slot.first_page) * (PAGE_SIZE as u64) < slot.bytes {
                        self.ram.mark(page, DIRTY);
                    }
                    bits &= bits - 1;
                }
            }
        }
        Ok(())
    }

    /// Makes KVM forget everything that it derived from the guest's page tables. The removal of any slot does that (Linux,
    /// `kvm_arch_flush_shadow_memslot`, KVM_X86_QUIRK_SLOT_ZAP_ALL), so a slot that no guest sees comes and goes.
    pub(crate) fn forget_shadows(&self, vm: &VmFd) -> Result<(), KvmError> {
        let mut region = kvm_userspace_memory_region {
            slot: self.slots.len() as u32,
            flags: 0,
            guest_phys_addr: NOWHERE,
            memory_size: PAGE_SIZE as u64,
            userspace_addr: self.ram.host_page(0).addr() as u64,
        };
        for size in [PAGE_SIZE as u64, 0] {
            region.memory_size = size;
            // SAFETY: one page of the mapping, as above; it is gone again before the guest runs.
            unsafe { vm.set_user_memory_region(region) }.asked("dropping shadow page tables")?;
        }
        Ok(())
    }
}
