//! Control registers, MSRs, and what needs ring 0.

use crate::board::*;
use crate::case::{Case, cases};
use gemel_x86::control::*;
use gemel_x86::msr;
use gemel_x86::segment::{FS, GS};

/// Runs one instruction; the vector of the fault that it raised, if any.
fn one(mut g: Guest, code: &[u8]) -> (Guest, Option<u8>) {
    g.poke(g.state.rip, code);
    g.run_for(1);
    if g.state.rip == CODE + code.len() as u64 {
        return (g, None);
    }
    g.run_for(1);
    let vector = g.vector();
    (g, Some(vector))
}

const MOV_CR0_RAX: &[u8] = &[0x0f, 0x22, 0xc0];
const MOV_CR3_RAX: &[u8] = &[0x0f, 0x22, 0xd8];
const MOV_CR4_RAX: &[u8] = &[0x0f, 0x22, 0xe0];

/// SDM 2A MOV CRn: the combinations that are #GP(0).
fn control_register_values_that_refuse() {
    let long = |code: &[u8], value: u64| {
        let mut g = Guest::long(0);
        g.state.gpr[0] = value;
        one(g, code).1
    };
    let cr0 = CR0_PE | CR0_PG | CR0_ET;
    for (value, fault) in [
        (cr0 | CR0_WP, None),
        (CR0_PG, Some(13)),
        (cr0 | CR0_NW, Some(13)),
        (cr0 | CR0_NW | CR0_CD, None),
        (cr0 | 1 << 32, Some(13)),
        // Paging off in 64-bit mode.
        (CR0_PE, Some(13)),
    ] {
        assert_eq!(long(MOV_CR0_RAX, value), fault, "CR0 {value:#x}");
    }
    for (value, fault) in [
        (CR4_PAE | CR4_PGE, None),
        (0, Some(13)),
        (CR4_PAE | 1 << 30, Some(13)),
        // Not offered by the model.
        (CR4_PAE | CR4_PCIDE, Some(13)),
    ] {
        assert_eq!(long(MOV_CR4_RAX, value), fault, "CR4 {value:#x}");
    }
    assert_eq!(long(MOV_CR3_RAX, 1 << 40), Some(13));
    assert_eq!(long(MOV_CR3_RAX, 1 << 63), Some(13));
    assert_eq!(long(MOV_CR3_RAX, 0x10000), None);
}

/// SDM 3A 9.8.5: LME and then PG make LMA; PG off clears it.
fn into_long_mode_and_out() {
    let mut g = Guest::long(0);
    // The same tables, seen from 32-bit code with paging still off.
    g.state.cr0 &= !CR0_PG;
    g.state.efer = EFER_LME;
    g.set_descriptor(FREE, flat(TYPE_CODE, 0));
    g.state.seg[1] = gemel_x86::Segment::from_descriptor(FREE, flat(TYPE_CODE, 0));
    g.state.gpr[0] = CR0_PE | CR0_PG;
    let (g, fault) = one(g, MOV_CR0_RAX);
    assert_eq!((fault, g.state.efer), (None, EFER_LME | EFER_LMA));
    let mut g = g;
    g.state.rip = CODE;
    g.state.gpr[0] = CR0_PE;
    let (g, fault) = one(g, MOV_CR0_RAX);
    assert_eq!((fault, g.state.efer), (None, EFER_LME));
    // Without PAE: #GP.
    let mut g = g;
    g.state.rip = CODE;
    g.state.cr4 = 0;
    g.state.gpr[0] = CR0_PE | CR0_PG;
    g.set_gate(13, gate(14, 0, CODE0, HANDLERS + 13 * 16, 0));
    g.set_descriptor(CODE0, flat(TYPE_CODE, 0));
    assert_eq!(one(g, MOV_CR0_RAX).1, Some(13));
}

/// PAE paging loads four registers from the table, all or none (SDM 3A 4.4.1).
fn pae_pointers() {
    let start = |third: u64| {
        let g = Guest::protected(0);
        for (n, value) in [0x5001, 0x6001, third, 0].into_iter().enumerate() {
            g.poke64(0x5020 + 8 * n as u64, value);
        }
        // The code's page directory: one page table with the first 256 pages.
        g.poke64(0x5000, 0x10003);
        for page in 0..256 {
            g.poke64(0x10000 + 8 * page, page << 12 | 3);
        }
        let mut g = g;
        g.state.cr4 |= CR4_PAE;
        g.state.cr3 = 0x5020;
        g.state.gpr[0] = CR0_PE | CR0_PG;
        one(g, MOV_CR0_RAX)
    };
    let (g, fault) = start(0x7001);
    assert_eq!((fault, g.state.pdpte), (None, [0x5001, 0x6001, 0x7001, 0]));
    let (g, fault) = start(0x7003);
    assert_eq!((fault, g.state.pdpte, g.state.cr0 & CR0_PG), (Some(13), [0; 4], 0));
}

fn lmsw_cannot_leave_protected_mode() {
    let mut g = Guest::protected(0);
    g.state.gpr[0] = CR0_TS | CR0_MP;
    let (mut g, _) = one(g, &[0x0f, 0x01, 0xf0]);
    assert_eq!(g.state.cr0, CR0_ET | CR0_PE | CR0_TS | CR0_MP);
    g.state.rip = CODE;
    let (g, _) = one(g, &[0x0f, 0x06]);
    assert_eq!(g.state.cr0, CR0_ET | CR0_PE | CR0_MP);
}

/// Everything that needs ring 0 (SDM 3A 5.9), and UMIP's five.
fn privileged_instructions() {
    for code in [
        &[0xf4][..],         // hlt
        &[0x0f, 0x06],       // clts
        &[0x0f, 0x08],       // invd
        &[0x0f, 0x09],       // wbinvd
        &[0x0f, 0x01, 0x3b], // invlpg [rbx]
        &[0x0f, 0x01, 0x13], // lgdt [rbx]
        &[0x0f, 0x01, 0x1b], // lidt [rbx]
        &[0x0f, 0x00, 0xd0], // lldt ax
        &[0x0f, 0x00, 0xd8], // ltr ax
        &[0x0f, 0x01, 0xf0], // lmsw ax
        &[0x0f, 0x20, 0xc0], // mov rax, cr0
        &[0x0f, 0x22, 0xd8], // mov cr3, rax
        &[0x0f, 0x21, 0xf8], // mov rax, dr7
        &[0x0f, 0x32],       // rdmsr
        &[0x0f, 0x30],       // wrmsr
    ] {
        let (g, fault) = one(Guest::long(3), code);
        assert_eq!((fault, g.frame::<8>(2)), (Some(13), vec![0, CODE]), "{code:x?}");
    }
    for code in [
        &[0x0f, 0x01, 0x03][..], // sgdt [rbx]
        &[0x0f, 0x01, 0x0b],     // sidt [rbx]
        &[0x0f, 0x00, 0xc0],     // sldt eax
        &[0x0f, 0x00, 0xc8],     // str eax
        &[0x0f, 0x01, 0xe0],     // smsw eax
    ] {
        let mut g = Guest::long(3);
        g.state.gpr[3] = 0x8000;
        assert_eq!(one(g, code).1, None, "{code:x?}");
        let mut g = Guest::long(3);
        g.state.cr4 |= CR4_UMIP;
        assert_eq!(one(g, code).1, Some(13), "{code:x?}");
    }
}

/// Not offered, or no register of that number: #UD.
fn undefined_instructions() {
    for code in [
        &[0x0f, 0x0b][..],               // ud2
        &[0x0f, 0xb9, 0xc0],             // ud1
        &[0x0f, 0x01, 0xc8],             // monitor
        &[0x0f, 0x01, 0xc9],             // mwait
        &[0x0f, 0xaa],                   // rsm
        &[0x0f, 0x01, 0xd0],             // xgetbv without OSXSAVE
        &[0x0f, 0x20, 0xc8],             // mov rax, cr1
        &[0x8e, 0xc8],                   // mov cs, ax
        &[0xf3, 0x48, 0x0f, 0xae, 0xc0], // rdfsbase without CR4.FSGSBASE
    ] {
        assert_eq!(one(Guest::long(0), code).1, Some(6), "{code:x?}");
    }
    let mut g = Guest::long(0);
    g.state.cr4 |= CR4_DE;
    assert_eq!(one(g, &[0x0f, 0x21, 0xe0]).1, Some(6), "mov rax, dr4 under DE");
    assert_eq!(one(Guest::long(0), &[0x0f, 0x21, 0xe0]).1, None, "mov rax, dr4");
}

fn wrmsr(number: u32, value: u64) -> (Guest, Option<u8>) {
    let mut g = Guest::long(0);
    g.outside.tsc = 1000;
    g.outside.msrs.insert(msr::TSC_DEADLINE, 0);
    (g.state.gpr[1], g.state.gpr[0], g.state.gpr[2]) = (number.into(), value & 0xffff_ffff, value >> 32);
    one(g, &[0x0f, 0x30])
}

fn rdmsr(mut g: Guest, number: u32) -> Option<u64> {
    g.state.rip = CODE;
    g.state.gpr[1] = number.into();
    let (g, fault) = one(g, &[0x0f, 0x32]);
    fault.is_none().then(|| g.state.gpr[2] << 32 | g.state.gpr[0])
}

/// What is written reads back; what the manual reserves is refused.
fn model_specific_registers() {
    let wild = 1u64 << 63;
    for (number, good, bad) in [
        (msr::LSTAR, 0xffff_8000_0000_1234, wild),
        (msr::FS_BASE, 0x1234_5678, wild),
        (msr::GS_BASE, 0xffff_8000_0000_0000, wild),
        (msr::KERNEL_GS_BASE, 0x1000, wild),
        (msr::SYSENTER_CS, 0x10, 1 << 32),
        (msr::SYSENTER_EIP, 0x1000, wild),
        (msr::SFMASK, 0x4_7700, 1 << 32),
        (msr::TSC_AUX, 7, 1 << 32),
        (msr::PAT, 0x0007_0406_0007_0406, 2),
        (msr::MTRR_DEF_TYPE, 0xc06, 0x1000),
        (msr::MTRR_PHYS_BASE0, 0x1000_0006, 1 << 40),
        (msr::MTRR_PHYS_BASE0 + 1, 0xff_f000_0800, 1),
        (msr::MTRR_FIX_4K + 7, 0x0606_0606_0606_0606, 2),
        (msr::EFER, EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE, EFER_SCE | EFER_LME | EFER_LMA | 1 << 12),
    ] {
        let (g, fault) = wrmsr(number, good);
        assert_eq!(fault, None, "{number:#x}");
        assert_eq!(rdmsr(g, number), Some(good), "{number:#x}");
        assert_eq!(wrmsr(number, bad).1, Some(13), "{number:#x}");
    }
    // LME cannot change under paging.
    assert_eq!(wrmsr(msr::EFER, EFER_SCE).1, Some(13));
    assert_eq!(wrmsr(0x1234_5678, 0).1, Some(13));
    assert_eq!(rdmsr(Guest::long(0), 0x1234_5678), None);
    assert_eq!(rdmsr(Guest::long(0), msr::HWCR), Some(0));
    // Performance counters are there and count nothing (APM 2 13.2.1).
    let (g, fault) = wrmsr(0xc001_0004, 0x1234);
    assert_eq!((fault, rdmsr(g, 0xc001_0004)), (None, Some(0)));
    let (g, _) = wrmsr(msr::FS_BASE, 0x8000);
    assert_eq!((g.state.seg[FS].base, g.state.seg[GS].base), (0x8000, 0));
}

/// RDPMC is for ring 0, or everybody under PCE; there are four counters (APM 3 RDPMC).
fn performance_counters() {
    for (ring, cr4, counter, fault) in
        [(0, 0, 3, None), (3, 0, 0, Some(13)), (3, CR4_PCE, 0, None), (0, CR4_PCE, 4, Some(13))]
    {
        let mut g = Guest::long(ring);
        g.state.cr4 |= cr4;
        g.state.gpr[1] = counter;
        assert_eq!(one(g, &[0x0f, 0x33]).1, fault, "ring {ring}, counter {counter}");
    }
}

/// The TSC is the machine's plus an offset that WRMSR moves; the deadline's unit is the guest's TSC.
fn time_stamp_counter() {
    let (g, _) = wrmsr(msr::TSC, 5000);
    assert_eq!(g.state.tsc_offset, 4000);
    assert_eq!(rdmsr(g, msr::TSC_ADJUST), Some(4000));
    let (mut g, _) = wrmsr(msr::TSC_ADJUST, 50);
    g.outside.tsc = 2000;
    g.state.rip = CODE;
    let (mut g, _) = one(g, &[0x0f, 0x31]);
    assert_eq!(g.state.gpr[0], 2050);
    g.state.rip = CODE;
    (g.state.gpr[1], g.state.gpr[0], g.state.gpr[2]) = (msr::TSC_DEADLINE.into(), 3050, 0);
    let (g, _) = one(g, &[0x0f, 0x30]);
    assert_eq!(g.outside.msrs[&msr::TSC_DEADLINE], 3000);
    assert_eq!(rdmsr(g, msr::TSC_DEADLINE), Some(3050));
    // TSD keeps RDTSC to ring 0.
    let mut g = Guest::long(3);
    g.state.cr4 |= CR4_TSD;
    assert_eq!(one(g, &[0x0f, 0x31]).1, Some(13));
}

/// CPUID follows APIC_BASE's enable bit.
fn cpuid_shows_the_apic() {
    for (base, bit) in [(0xfee0_0900u64, 1), (0xfee0_0100, 0)] {
        let mut g = Guest::long(3);
        g.outside.msrs.insert(msr::APIC_BASE, base);
        g.state.gpr[0] = 1;
        let (g, _) = one(g, &[0x0f, 0xa2]);
        assert_eq!(g.state.gpr[2] >> 9 & 1, bit);
    }
}

/// Every case of this table.
pub const CASES: &[Case] = cases![
    control_register_values_that_refuse,
    into_long_mode_and_out,
    pae_pointers,
    lmsw_cannot_leave_protected_mode,
    privileged_instructions,
    undefined_instructions,
    model_specific_registers,
    performance_counters,
    time_stamp_counter,
    cpuid_shows_the_apic
];
