//! The CPU state goes into KVM and comes back the same, element by element.

#![allow(clippy::unwrap_used)] // a host that refuses fails the test

mod board;

use board::*;
use gemel_kvm::{Kvm, Native, Quirks};
use gemel_machine::{Exit, Vcpu};
use gemel_x86::{CpuModel, CpuState, Feature, Segment};

/// Numbers that are the same in every run.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 ^ self.0 >> 29
    }

    fn wide(&mut self) -> u128 {
        u128::from(self.next()) << 64 | u128::from(self.next())
    }

    /// An address that is canonical.
    fn address(&mut self) -> u64 {
        (self.next() as i64 >> 17) as u64
    }
}

/// A state in 64-bit mode with everything in it that a model has and that can be anything.
fn some_state(n: &mut Numbers, model: &CpuModel) -> CpuState {
    let mut s = long_mode(0x1000);
    s.gpr = std::array::from_fn(|_| n.next());
    s.rflags = 0x2 | n.next() & 0x20_0cd5;
    s.count = n.next() >> 20;
    for i in [0, 3, 4, 5] {
        s.seg[i] = Segment { selector: 0x10, attr: 0xc93, limit: u32::MAX, base: 0 };
    }
    s.seg[4].base = n.address();
    s.seg[5].base = n.address();
    s.cr2 = n.next();
    s.dr = std::array::from_fn(|_| n.address());
    s.dr6 = 0xffff_0ff0 | n.next() & 0xf;
    (s.star, s.sfmask) = (n.next(), n.next() & 0xffff_ffff);
    (s.lstar, s.cstar, s.kernel_gs_base) = (n.address(), n.address(), n.address());
    (s.sysenter_cs, s.sysenter_esp, s.sysenter_eip) = (n.next() & 0xffff, n.address(), n.address());
    s.tsc_aux = n.next() & 0xffff_ffff;
    // These never enter KVM, and still come back.
    (s.tsc_offset, s.mtrr_def_type, s.debug_ctl) = (n.next(), 0xc06, n.next() & 1);
    s.mtrr_fixed = std::array::from_fn(|_| n.next());
    (s.pat, s.mcg_status) = (0x0001_0406_0007_0406, 4);
    s.fcw = 0x40 | n.next() as u16 & 0xf3f;
    // No error waits: KVM delivers one that does at the next x87 instruction, as any CPU does.
    s.fcw |= 0x3f;
    s.fsw = n.next() as u16 & 0x7f7f;
    s.ftw = n.next() as u8;
    s.st = std::array::from_fn(|_| n.wide() & ((1 << 80) - 1));
    s.xmm = std::array::from_fn(|_| n.wide());
    s.mxcsr = 0x1f80 | n.next() as u32 & 0x3f;
    if model.has(Feature::XSAVE) {
        s.cr4 |= 1 << 18;
        s.xcr0 = model.xcr0_mask();
    }
    if model.has(Feature::AVX) {
        s.ymm_upper = std::array::from_fn(|_| n.wide());
    }
    if model.has(Feature::AVX512F) {
        s.zmm_upper = std::array::from_fn(|_| [n.wide(), n.wide()]);
        s.zmm_high = std::array::from_fn(|_| [n.wide(), n.wide(), n.wide(), n.wide()]);
        s.opmask = std::array::from_fn(|_| n.next());
    }
    s.nmi_blocked = n.next() & 1 != 0;
    s
}

/// One OUT in KVM, from and to a state that goes through it whole.
fn goes_through(kvm: &mut Kvm, state: &CpuState) {
    kvm.restore(state).unwrap();
    let mut board = Board::new();
    board.stop = state.count + 1;
    while kvm.position().count < board.stop {
        assert!(matches!(kvm.run(&mut board).unwrap(), Exit::Stop | Exit::Yield));
    }
    let found = kvm.save().unwrap();
    let wanted = CpuState { count: state.count + 1, rip: state.rip + 2, ..state.clone() };
    assert_eq!(found.differences(&wanted, true), [], "KVM's is left");
}

#[test]
fn every_element_comes_back() {
    let mut n = Numbers(7);
    for model in [CpuModel::x86_64_v2(), CpuModel::x86_64_v3(), CpuModel::x86_64_v4()] {
        let mut memory = long_mode_memory();
        memory.push((0x1000, vec![0xe6, 0x50, 0xf4]));
        let ram = Program { model: model.clone(), memory, state: CpuState::default() }.ram();
        let quirks = Quirks { native: Native::All, ..Quirks::of_host() };
        let mut kvm = match kvm(&model, &ram, quirks) {
            Ok(kvm) => kvm,
            Err(error) => return skipped(&error),
        };
        for _ in 0..200 {
            let state = some_state(&mut n, &model);
            goes_through(&mut kvm, &state);
        }
        assert_eq!(kvm.figures().all_assists(), 0, "KVM executed it: {}", kvm.figures());
    }
}

#[test]
fn reset_comes_back() {
    let model = CpuModel::x86_64_v2();
    // The reset vector lies in ROM, which this board has not: OUT where real mode reaches it.
    let ram = ram(1 << 20, &[(0xf_fff0, &[0xe6, 0x50, 0xf4])]);
    let mut kvm = match kvm(&model, &ram, Quirks { native: Native::All, ..Quirks::of_host() }) {
        Ok(kvm) => kvm,
        Err(error) => return skipped(&error),
    };
    let mut state = CpuState::default();
    state.seg[1].base = 0xf_0000;
    goes_through(&mut kvm, &state);
}
