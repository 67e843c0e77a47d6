//! Segments, descriptor tables, control registers, EFER.
//!
//! Not responsible for: PDPTE registers, which have a request of their own; CR8, which is the board's.

use gemel_x86::control::CR0_PE;
use gemel_x86::flags::VM;
use gemel_x86::segment::{CS, SS, attr};
use gemel_x86::{CpuState, Segment, TableRegister};
use kvm_bindings::{kvm_dtable, kvm_segment, kvm_sregs};

fn segment_of(s: &Segment) -> kvm_segment {
    let bit = |mask| u8::from(s.has(mask));
    kvm_segment {
        base: s.base,
        limit: s.limit,
        selector: s.selector,
        type_: (s.attr & 0xf) as u8,
        present: bit(attr::P),
        dpl: s.dpl(),
        db: bit(attr::DB),
        s: bit(attr::S),
        l: bit(attr::L),
        g: bit(attr::G),
        avl: bit(attr::AVL),
        unusable: u8::from(!s.has(attr::P)),
        padding: 0,
    }
}

fn save_segment(k: &kvm_segment) -> Segment {
    let bit = |value: u8, mask| if value != 0 { mask } else { 0 };
    let attr = u16::from(k.type_ & 0xf)
        | bit(k.s, attr::S)
        | u16::from(k.dpl & 3) << attr::DPL_SHIFT
        | bit(k.present, attr::P)
        | bit(k.avl, attr::AVL)
        | bit(k.l, attr::L)
        | bit(k.db, attr::DB)
        | bit(k.g, attr::G);
    Segment { selector: k.selector, attr, limit: k.limit, base: k.base }
}

/// Protected mode, virtual-8086 not counted.
fn is_protected(cr0: u64, rflags: u64) -> bool {
    cr0 & CR0_PE != 0 && rflags & VM == 0
}

/// A data segment. A null selector leaves a segment of which only the base counts, and hosts differ in what else they keep.
fn save_data_segment(k: &kvm_segment) -> Segment {
    if is_unusable(k) || k.selector & !3 == 0 { nothing(k) } else { save_segment(k) }
}

fn is_unusable(k: &kvm_segment) -> bool {
    k.unusable != 0 || k.present == 0
}

fn nothing(k: &kvm_segment) -> Segment {
    Segment { selector: k.selector, attr: 0, limit: 0, base: k.base }
}

/// A segment in real mode, where a load sets selector and base and nobody can see the type: what was not loaded keeps its own, what was
/// is data.
fn save_real_segment(k: &kvm_segment, old: &Segment) -> Segment {
    let new = save_segment(k);
    let loaded = (new.selector, new.base) != (old.selector, old.base);
    let attr = if loaded { 0x93 | new.attr & (attr::DB | attr::G) } else { old.attr };
    Segment { attr, ..new }
}

/// SS. KVM's DPL there is the privilege level, which need not be the segment's: AMD's SYSRET leaves the DPL of ring 0 (APM 3, SYSRET). Where
/// nothing else of it changed, the DPL is what it was. Reloading the same descriptor after SYSRET is not told apart.
fn save_stack_segment(k: &kvm_segment, old: &Segment) -> Segment {
    let new = save_data_segment(k);
    let dpl = 3 << attr::DPL_SHIFT;
    let same = new == Segment { attr: old.attr & !dpl | new.attr & dpl, ..*old };
    if same { *old } else { new }
}

fn table_of(t: &TableRegister) -> kvm_dtable {
    kvm_dtable { base: t.base, limit: t.limit, padding: [0; 3] }
}

fn save_table(t: &kvm_dtable) -> TableRegister {
    TableRegister { base: t.base, limit: t.limit }
}

/// KVM's form. `cr8` and `apic_base` are the board's.
pub(crate) fn of(state: &CpuState, cr8: u64, apic_base: u64) -> kvm_sregs {
    let [es, cs, mut ss, ds, fs, gs] = state.seg.each_ref().map(segment_of);
    // KVM takes the privilege level from here, whether the segment can be used or not.
    if is_protected(state.cr0, state.rflags) {
        ss.dpl = state.cpl;
    }
    kvm_sregs {
        cs,
        ds,
        es,
        fs,
        gs,
        ss,
        tr: segment_of(&state.tr),
        ldt: segment_of(&state.ldtr),
        gdt: table_of(&state.gdtr),
        idt: table_of(&state.idtr),
        cr0: state.cr0,
        cr2: state.cr2,
        cr3: state.cr3,
        cr4: state.cr4,
        cr8,
        efer: state.efer,
        apic_base,
        interrupt_bitmap: [0; 4],
    }
}

/// The privilege level: SS holds it.
pub(crate) fn privilege(sregs: &kvm_sregs, rflags: u64) -> u8 {
    match () {
        () if sregs.cr0 & CR0_PE == 0 => 0,
        () if rflags & VM != 0 => 3,
        () => sregs.ss.dpl & 3,
    }
}

/// The segment registers and the privilege level. `state` still has what was there before.
pub(crate) fn save_segments(sregs: &kvm_sregs, rflags: u64, state: &mut CpuState) {
    let s = sregs;
    let segments = [&s.es, &s.cs, &s.ss, &s.ds, &s.fs, &s.gs];
    let protected = is_protected(s.cr0, rflags);
    for (i, (place, k)) in state.seg.iter_mut().zip(segments).enumerate() {
        *place = match () {
            () if s.cr0 & CR0_PE == 0 => save_real_segment(k, place),
            () if protected && i == SS => save_stack_segment(k, place),
            () if protected && i != CS => save_data_segment(k),
            () => save_segment(k),
        };
    }
    state.cpl = privilege(s, rflags);
}

/// Ours, all of it.
pub(crate) fn save(sregs: &kvm_sregs, rflags: u64, state: &mut CpuState) {
    let s = sregs;
    save_segments(s, rflags, state);
    state.tr = save_segment(&s.tr);
    state.ldtr = if is_unusable(&s.ldt) { nothing(&s.ldt) } else { save_segment(&s.ldt) };
    (state.gdtr, state.idtr) = (save_table(&s.gdt), save_table(&s.idt));
    (state.cr0, state.cr2, state.cr3, state.cr4, state.efer) = (s.cr0, s.cr2, s.cr3, s.cr4, s.efer);
}
