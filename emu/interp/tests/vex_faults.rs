#![allow(unsafe_code)] // the bench can run the same bytes on the CPU under the test
#![allow(clippy::unwrap_used)] // a test that unwraps fails with the line
//! What raises #UD, #NM, #GP, #PF in VEX and EVEX instructions, and what those leave: against the manuals (SDM 2A 2.4, exception types 1 to 14).
//!
//! Not responsible for: results (`host_vex`), SIMD errors (`float_faults`).

mod bench;

use bench::{Bench, DATA, Ended, Guest, Random};
use gemel_x86::control::{CR0_EM, CR0_TS, CR4_OSFXSR, CR4_OSXSAVE, XCR0_AVX, XCR0_AVX512};
use gemel_x86::{CpuModel, Vector};

const UD: Ended = Ended::Fault(Vector::InvalidOpcode as u64);
const NM: Ended = Ended::Fault(Vector::DeviceNotAvailable as u64);
const GP: Ended = Ended::Fault(Vector::GeneralProtection as u64);
const PF: Ended = Ended::Fault(Vector::PageFault as u64);
const RETIRED: Ended = Ended::Retired;

/// VADDPS ymm0, ymm1, ymm2.
const VADDPS: &[u8] = &[0xc5, 0xf4, 0x58, 0xc2];
/// VADDPS ymm0, ymm1, [rdi+1].
const VADDPS_OFF_BY_1: &[u8] = &[0xc5, 0xf4, 0x58, 0x47, 0x01];

fn guest() -> Guest {
    Guest::of_model(CpuModel::x86_64_v3())
}

fn end_of(guest: &mut Guest, bytes: &[u8]) -> Ended {
    guest.run_or_fault(bytes, &mut Bench::random(&mut Random(7), false))
}

/// How the v3 model ends an instruction.
fn ends(bytes: &[u8]) -> Ended {
    end_of(&mut guest(), bytes)
}

/// The first address that the bench does not map.
const UNMAPPED: u64 = 0x20_0000;

#[test]
fn the_system_must_have_agreed() {
    for (cr0, cr4, xcr0, wanted) in [
        (0, 0, 0, RETIRED),
        (0, CR4_OSXSAVE, 0, UD),
        (0, 0, XCR0_AVX, UD),
        (CR0_TS, 0, 0, NM),
        // #UD comes first.
        (CR0_TS, CR4_OSXSAVE, 0, UD),
        (CR0_TS, 0, XCR0_AVX, UD),
        // Neither of these is asked (APM 4, exceptions of ADDPS: only its SSE form).
        (CR0_EM, 0, 0, RETIRED),
        (0, CR4_OSFXSR, 0, RETIRED),
    ] {
        let mut guest = guest();
        guest.state.cr0 ^= cr0;
        guest.state.cr4 ^= cr4;
        guest.state.xcr0 ^= xcr0;
        // VMOVAPS ymm, VZEROUPPER, VPTEST, VPEXTRD, VLDMXCSR, VGATHERDPS, VPMASKMOVD, VMASKMOVDQU too.
        let forms: [&[u8]; 9] = [
            VADDPS,
            &[0xc5, 0xfc, 0x28, 0xca],
            &[0xc5, 0xf8, 0x77],
            &[0xc4, 0xe2, 0x7d, 0x17, 0xca],
            &[0xc4, 0xe3, 0x79, 0x16, 0xc8, 0x01],
            &[0xc5, 0xf8, 0xae, 0x1f],
            &[0xc4, 0xe2, 0x69, 0x92, 0x04, 0x0f],
            &[0xc4, 0xe2, 0x75, 0x8c, 0x17],
            &[0xc5, 0xf9, 0xf7, 0xca],
        ];
        for bytes in forms {
            let mut bench = Bench::random(&mut Random(7), false);
            // No mask is set, so that no gather goes anywhere.
            (bench.fx.xmm, bench.upper) = ([0; 16], [0; 16]);
            assert_eq!(
                guest.run_or_fault(bytes, &mut bench),
                wanted,
                "{bytes:02x?} with CR0 {cr0:x}, CR4 {cr4:x}, XCR0 {xcr0:x} turned"
            );
        }
    }
}

#[test]
fn each_feature_is_withheld_alone() {
    let forms: &[(&str, &[u8])] = &[
        ("avx", VADDPS),
        // VPADDB ymm0, ymm1, ymm2; VBROADCASTSS ymm0, xmm1 (its memory form is AVX's).
        ("avx2", &[0xc5, 0xf5, 0xfc, 0xc2]),
        ("avx2", &[0xc4, 0xe2, 0x7d, 0x18, 0xc1]),
        // VFMADD231PD; VCVTPH2PS; VAESENC; VPCLMULQDQ on 128 bits.
        ("fma", &[0xc4, 0xe2, 0xf5, 0xb8, 0xc2]),
        ("f16c", &[0xc4, 0xe2, 0x7d, 0x13, 0xc1]),
        ("aes", &[0xc4, 0xe2, 0x71, 0xdc, 0xc2]),
        ("pclmulqdq", &[0xc4, 0xe3, 0x71, 0x44, 0xc2, 0x00]),
    ];
    for (feature, bytes) in forms {
        assert_eq!(ends(bytes), RETIRED, "{feature}");
        let without = CpuModel::parse(&format!("x86-64-v3,-{feature}")).unwrap();
        assert_eq!(end_of(&mut Guest::of_model(without), bytes), UD, "without {feature}");
        assert_eq!(end_of(&mut Guest::new(), bytes), UD, "{feature} on x86-64-v2");
    }
    // On 256 bits AES and PCLMULQDQ are features of their own, which the model leaves to a wish.
    for (feature, bytes) in
        [("vaes", &[0xc4, 0xe2, 0x75, 0xdc, 0xc2][..]), ("vpclmulqdq", &[0xc4, 0xe3, 0x75, 0x44, 0xc2, 0x00])]
    {
        assert_eq!(ends(bytes), UD, "{feature} unasked");
        let with = CpuModel::parse(&format!("x86-64-v3,+{feature}")).unwrap();
        assert_eq!(end_of(&mut Guest::of_model(with), bytes), RETIRED, "{feature}");
    }
}

#[test]
fn prefixes_and_fields_that_must_not_be() {
    // LOCK, 66, F2, F3, REX before VEX (SDM 2A 2.3.2 to 2.3.5).
    for prefix in [0xf0, 0x66, 0xf2, 0xf3, 0x40, 0x48] {
        assert_eq!(ends(&[&[prefix], VADDPS].concat()), UD, "prefix {prefix:x}");
    }
    // A segment and an address size may stand there.
    assert_eq!(ends(&[&[0x2e, 0x67], VADDPS].concat()), RETIRED);
    let table: &[(&str, &[u8], Ended)] = &[
        ("VSQRTPS with vvvv free", &[0xc5, 0xf8, 0x51, 0xc2], RETIRED),
        ("VSQRTPS with vvvv in use", &[0xc5, 0xf0, 0x51, 0xc2], UD),
        ("VMOVAPS with vvvv in use", &[0xc5, 0xf0, 0x28, 0xc2], UD),
        ("VPTEST with vvvv in use", &[0xc4, 0xe2, 0x71, 0x17, 0xca], UD),
        ("VZEROUPPER with vvvv in use", &[0xc5, 0xf0, 0x77], UD),
        ("VADDSS ignores L", &[0xc5, 0xf6, 0x58, 0xc2], RETIRED),
        ("VMOVHLPS with L", &[0xc5, 0xf4, 0x12, 0xc2], UD),
        ("VPEXTRD with L", &[0xc4, 0xe3, 0x7d, 0x16, 0xc8, 0x01], UD),
        ("VMOVD with L", &[0xc5, 0xfd, 0x6e, 0xc0], UD),
        ("VPHMINPOSUW with L", &[0xc4, 0xe2, 0x7d, 0x41, 0xc2], UD),
        ("VDPPD with L", &[0xc4, 0xe3, 0x75, 0x41, 0xc2, 0x11], UD),
        ("VINSERTF128 without L", &[0xc4, 0xe3, 0x71, 0x18, 0xc2, 0x01], UD),
        ("VPERMD without L", &[0xc4, 0xe2, 0x71, 0x36, 0xc2], UD),
        ("VPERMD with W", &[0xc4, 0xe2, 0xf5, 0x36, 0xc2], UD),
        // The manual says otherwise (SDM 2C VPERMQ); measured on Zen 4.
        ("VPERMQ without W", &[0xc4, 0xe3, 0x7d, 0x00, 0xc2, 0x1b], RETIRED),
        ("VPERMILPS with W", &[0xc4, 0xe2, 0xf5, 0x0c, 0xc2], UD),
        ("VPBLENDVB with W", &[0xc4, 0xe3, 0xf5, 0x4c, 0xc2, 0x30], UD),
        ("VTESTPS with W", &[0xc4, 0xe2, 0xfd, 0x0e, 0xc2], UD),
        ("VBROADCASTF128 of a register", &[0xc4, 0xe2, 0x7d, 0x1a, 0xc2], UD),
        ("VMASKMOVPS of a register", &[0xc4, 0xe2, 0x75, 0x2c, 0xc2], UD),
        ("VLDDQU of a register", &[0xc5, 0xfb, 0xf0, 0xc2], UD),
        ("VMOVNTDQ to a register", &[0xc5, 0xfd, 0xe7, 0xc2], UD),
        ("VMOVMSKPS of memory", &[0xc5, 0xfc, 0x50, 0x07], UD),
        ("VGATHERDPS, all different", &[0xc4, 0xe2, 0x69, 0x92, 0x04, 0x0f], RETIRED),
        ("VGATHERDPS, mask is the destination", &[0xc4, 0xe2, 0x79, 0x92, 0x04, 0x0f], UD),
        ("VGATHERDPS, mask is the index", &[0xc4, 0xe2, 0x71, 0x92, 0x04, 0x0f], UD),
        ("VGATHERDPS, index is the destination", &[0xc4, 0xe2, 0x69, 0x92, 0x0c, 0x0f], UD),
        ("VGATHERDPS of a register", &[0xc4, 0xe2, 0x69, 0x92, 0xc1], UD),
        ("VGATHERDPS without SIB", &[0xc4, 0xe2, 0x69, 0x92, 0x07], UD),
        ("map 4", &[0xc4, 0xe4, 0x71, 0x58, 0xc2], UD),
    ];
    for (name, bytes, wanted) in table {
        let mut bench = Bench::random(&mut Random(7), false);
        (bench.fx.xmm, bench.upper) = ([0; 16], [0; 16]);
        assert_eq!(guest().run_or_fault(bytes, &mut bench), *wanted, "{name}");
    }
}

#[test]
fn only_moves_that_say_so_must_be_aligned() {
    // All at RDI + 16, which is aligned for 16 bytes and not for 32, or at RDI + 8.
    let table: &[(&str, &[u8], Ended)] = &[
        ("VADDPS ymm", VADDPS_OFF_BY_1, RETIRED),
        ("VMOVAPS ymm, +16", &[0xc5, 0xfc, 0x28, 0x47, 0x10], GP),
        ("VMOVAPS ymm, +32", &[0xc5, 0xfc, 0x28, 0x47, 0x20], RETIRED),
        ("VMOVAPS xmm, +16", &[0xc5, 0xf8, 0x28, 0x47, 0x10], RETIRED),
        ("VMOVAPS xmm, +8", &[0xc5, 0xf8, 0x28, 0x47, 0x08], GP),
        ("VMOVAPS ymm stored, +16", &[0xc5, 0xfc, 0x29, 0x47, 0x10], GP),
        ("VMOVDQA ymm, +16", &[0xc5, 0xfd, 0x6f, 0x47, 0x10], GP),
        ("VMOVNTPS ymm, +16", &[0xc5, 0xfc, 0x2b, 0x47, 0x10], GP),
        ("VMOVNTDQA ymm, +16", &[0xc4, 0xe2, 0x7d, 0x2a, 0x47, 0x10], GP),
        ("VMOVUPS ymm, +8", &[0xc5, 0xfc, 0x10, 0x47, 0x08], RETIRED),
        ("VLDDQU ymm, +8", &[0xc5, 0xff, 0xf0, 0x47, 0x08], RETIRED),
        ("VBROADCASTF128, +8", &[0xc4, 0xe2, 0x7d, 0x1a, 0x47, 0x08], RETIRED),
        ("VPCMPISTRI, +8", &[0xc4, 0xe3, 0x79, 0x63, 0x47, 0x08, 0x00], RETIRED),
    ];
    for (name, bytes, wanted) in table {
        assert_eq!(ends(bytes), *wanted, "{name}");
    }
}

/// A bench whose XMM registers are zero but for `ymm1` (operand or index) and `ymm2` (mask).
fn bench_of(ymm1: [u128; 2], ymm2: [u128; 2]) -> Bench {
    let mut bench = Bench::random(&mut Random(11), false);
    (bench.fx.xmm, bench.upper) = ([0; 16], [0; 16]);
    (bench.fx.xmm[1], bench.upper[1]) = (ymm1[0], ymm1[1]);
    (bench.fx.xmm[2], bench.upper[2]) = (ymm2[0], ymm2[1]);
    bench
}

/// Runs with another RDI than the bench's: MOV RDI, imm64 stands before the instruction.
fn run_at(guest: &mut Guest, rdi: u64, bytes: &[u8], bench: &mut Bench) -> Ended {
    let code = [&[0x48, 0xbf], &rdi.to_le_bytes()[..], bytes].concat();
    guest.run_steps(&code, 2, bench)
}

#[test]
fn what_a_mask_leaves_out_cannot_fault() {
    let mut guest = guest();
    let edge = UNMAPPED - 16;
    let sign = 1u128 << 127 | 1 << 95 | 1 << 63 | 1 << 31;
    // VPMASKMOVD ymm0, ymm2, [rdi] and [rdi], ymm2, ymm0, with the upper half beyond the edge.
    for bytes in [[0xc4, 0xe2, 0x6d, 0x8c, 0x07], [0xc4, 0xe2, 0x6d, 0x8e, 0x07]] {
        let mut bench = bench_of([0; 2], [sign, 0]);
        assert_eq!(run_at(&mut guest, edge, &bytes, &mut bench), RETIRED);
        let mut bench = bench_of([0; 2], [sign, 1 << 31]);
        assert_eq!(run_at(&mut guest, edge, &bytes, &mut bench), PF);
        assert_eq!(guest.interp_state().cr2, edge + 16);
    }
    // VADDPS ymm0, ymm1, [rdi] has no choice.
    let mut bench = bench_of([0; 2], [0; 2]);
    assert_eq!(run_at(&mut guest, edge, &[0xc5, 0xf4, 0x58, 0x07], &mut bench), PF);
}

#[test]
fn a_gather_that_faults_keeps_what_it_has() {
    let mut guest = guest();
    // VPGATHERDD ymm0, [rdi + ymm1], ymm2: element 5 lies where nothing is mapped, element 2 is not wanted.
    let bytes = [0xc4, 0xe2, 0x6d, 0x90, 0x04, 0x0f];
    let far = 0x0100_0000u128;
    let indices = [0x0c << 96 | 0x08 << 64 | 0x04 << 32, 0x1c << 96 | 0x18 << 64 | far << 32 | 0x10];
    let ones = 0xffff_ffffu128;
    let mask = [ones << 96 | ones << 32 | ones, u128::MAX];
    let mut bench = bench_of(indices, mask);
    let words = std::array::from_fn::<u32, 8, _>(|n| 0x1111_1111 * (n as u32 + 1));
    for (slot, word) in bench.memory.0.chunks_exact_mut(4).zip(words) {
        slot.copy_from_slice(&word.to_le_bytes());
    }
    bench.fx.xmm[0] = 0xdead << 64;
    assert_eq!(guest.run_or_fault(&bytes, &mut bench), PF);
    assert_eq!(guest.interp_state().cr2, DATA + far as u64);
    assert_eq!(
        bench.fx.xmm[0], 0x4444_4444_0000_dead_2222_2222_1111_1111,
        "three of the first four, one kept"
    );
    assert_eq!(bench.upper[0], 0x5555_5555);
    assert_eq!((bench.fx.xmm[2], bench.upper[2]), (0, !ones), "what is there is not asked again");
    // The missing element gets a place, and the gather is run again.
    bench.upper[1] = bench.upper[1] & !(ones << 32) | 0x14 << 32;
    assert_eq!(guest.run_or_fault(&bytes, &mut bench), RETIRED);
    assert_eq!(bench.upper[0], 0x8888_8888_7777_7777_6666_6666_5555_5555);
    assert_eq!((bench.fx.xmm[2], bench.upper[2]), (0, 0));
}

#[test]
fn legacy_sse_keeps_upper_halves_and_vex_clears_them() {
    let mut guest = guest();
    for (bytes, kept) in [
        // ADDPS xmm0, xmm1; MOVAPS xmm0, [rdi]; PSLLDQ xmm0, 3; then VADDPS, VMOVAPS, VPSLLDQ on XMM0, VMOVD.
        (&[0x0f, 0x58, 0xc1][..], true),
        (&[0x0f, 0x28, 0x07], true),
        (&[0x66, 0x0f, 0x73, 0xf8, 0x03], true),
        (&[0xc5, 0xf8, 0x58, 0xc1], false),
        (&[0xc5, 0xf8, 0x28, 0x07], false),
        (&[0xc5, 0xf9, 0x73, 0xf8, 0x03], false),
        (&[0xc5, 0xf9, 0x6e, 0xc0], false),
    ] {
        let before = Bench::random(&mut Random(5), false);
        let mut after = before.clone();
        assert_eq!(guest.run_or_fault(bytes, &mut after), RETIRED, "{bytes:02x?}");
        assert_eq!(after.upper[0], if kept { before.upper[0] } else { 0 }, "{bytes:02x?}");
        assert_eq!(after.upper[1..], before.upper[1..], "{bytes:02x?}");
    }
}

/// XSAVE [rdi] and XRSTOR [rdi] with the components of EDX:EAX.
#[test]
fn xsave_has_a_component_for_upper_halves() {
    let (xsave, xrstor) = ([0x0f, 0xae, 0x27], [0x0f, 0xae, 0x2f]);
    let mut guest = guest();
    let mut before = Bench::random(&mut Random(9), false);
    before.general = [4, 0, 0];
    let mut saved = before.clone();
    guest.ram.write(DATA + 512, &[0; 64]).unwrap();
    assert_eq!(guest.run_or_fault(&xsave, &mut saved), RETIRED);
    assert_eq!(saved.memory.0[24..28], before.fx.mxcsr.to_le_bytes(), "MXCSR belongs to it too");
    assert_eq!(saved.memory.0[160..416], before.memory.0[160..416], "XMM was not asked for");
    assert_eq!(guest.ram.read_array::<8>(DATA + 512).unwrap(), [4, 0, 0, 0, 0, 0, 0, 0]);
    for (n, half) in before.upper.iter().enumerate() {
        let at = DATA + 576 + 16 * n as u64;
        assert_eq!(guest.ram.read_array::<16>(at).unwrap(), half.to_le_bytes());
    }
    let mut other = Bench::random(&mut Random(10), false);
    (other.general, other.memory) = ([4, 0, 0], saved.memory.clone());
    let xmm = other.fx.xmm;
    assert_eq!(guest.run_or_fault(&xrstor, &mut other), RETIRED);
    assert_eq!((other.upper, other.fx.mxcsr), (before.upper, before.fx.mxcsr));
    assert_eq!(other.fx.xmm, xmm);
    // Not in use: zeroes, whatever is in the area.
    guest.ram.write(DATA + 512, &[0; 8]).unwrap();
    other.general = [4, 0, 0];
    assert_eq!(guest.run_or_fault(&xrstor, &mut other), RETIRED);
    assert_eq!(other.upper, [0; 16]);
    assert_eq!(guest.run_or_fault(&xsave, &mut other), RETIRED);
    assert_eq!(guest.ram.read_array::<8>(DATA + 512).unwrap(), [0; 8], "zeroes are not in use");
    // A component that XCR0 lacks.
    guest.state.xcr0 = 3;
    guest.ram.write(DATA + 512, &[4]).unwrap();
    assert_eq!(guest.run_or_fault(&xrstor, &mut other), GP);
}

/// XSETBV with ECX zero and EDX:EAX.
#[test]
fn xcr0_takes_avx_only_with_sse() {
    let xsetbv = [0x0f, 0x01, 0xd1];
    for (value, wanted) in [(1, RETIRED), (3, RETIRED), (7, RETIRED), (5, GP), (6, GP), (0, GP), (0xf, GP)] {
        let mut bench = Bench::random(&mut Random(9), false);
        bench.general = [value, 0, 0];
        assert_eq!(guest().run_or_fault(&xsetbv, &mut bench), wanted, "{value}");
    }
    // A model without AVX has two components.
    let mut guest = Guest::of_model(CpuModel::parse("x86-64-v2,+xsave").unwrap());
    guest.state.cr4 |= CR4_OSXSAVE;
    let mut bench = Bench::random(&mut Random(9), false);
    bench.general = [7, 0, 0];
    assert_eq!(guest.run_or_fault(&xsetbv, &mut bench), GP);
}

/// VADDPS zmm0 {k1}, zmm1, [rdi] in EVEX's form; KMOVQ k1, k2; VMOVAPS zmm1, [rdi+64].
const EVEX_VADDPS: &[u8] = &[0x62, 0xf1, 0x74, 0x49, 0x58, 0x07];
const KMOVQ: &[u8] = &[0xc4, 0xe1, 0xf8, 0x90, 0xca];
const EVEX_VMOVAPS: &[u8] = &[0x62, 0xf1, 0x7c, 0x48, 0x28, 0x4f, 0x01];

/// SDM 2A 2.8: XCR0 must have all of AVX-512, and the model its features.
#[test]
fn evex_has_conditions_of_its_own() {
    for bytes in [EVEX_VADDPS, KMOVQ, EVEX_VMOVAPS] {
        assert_eq!(ends(bytes), UD, "not offered");
        for (cr0, xcr0, wanted) in
            [(0, 0, RETIRED), (CR0_TS, 0, NM), (0, XCR0_AVX512, UD), (0, 1 << 5, UD), (CR0_TS, 1 << 7, UD)]
        {
            let mut guest = Guest::of_model(CpuModel::x86_64_v4());
            guest.state.cr0 ^= cr0;
            guest.state.xcr0 ^= xcr0;
            assert_eq!(end_of(&mut guest, bytes), wanted, "{bytes:02x?} with CR0 {cr0:x}, XCR0 {xcr0:x}");
        }
    }
    let table: &[(&str, &[u8], Ended)] = &[
        ("VMOVAPS zmm, +32", &[0x62, 0xf1, 0x7c, 0x48, 0x28, 0x8f, 0x20, 0, 0, 0], GP),
        ("VMOVAPS zmm16 stored, +32", &[0x62, 0xe1, 0x7c, 0x48, 0x29, 0x87, 0x20, 0, 0, 0], GP),
        ("VMOVNTDQ zmm, +32", &[0x62, 0xf1, 0x7d, 0x48, 0xe7, 0x87, 0x20, 0, 0, 0], GP),
        ("VMOVUPS zmm, +1", &[0x62, 0xf1, 0x7c, 0x48, 0x10, 0x87, 1, 0, 0, 0], RETIRED),
        ("66 before EVEX", &[0x66, 0x62, 0xf1, 0x74, 0x49, 0x58, 0xc2], UD),
        ("zeroing without a mask", &[0x62, 0xf1, 0x74, 0xc8, 0x58, 0xc2], UD),
        ("zeroing of memory", &[0x62, 0xf1, 0x7c, 0xc9, 0x29, 0x07], UD),
        ("L'L of 3", &[0x62, 0xf1, 0x74, 0x68, 0x58, 0x07], UD),
        ("VGATHERDPS without a mask", &[0x62, 0xf2, 0x7d, 0x48, 0x92, 0x04, 0x0f], UD),
    ];
    for (name, bytes, wanted) in table {
        assert_eq!(end_of(&mut Guest::of_model(CpuModel::x86_64_v4()), bytes), *wanted, "{name}");
    }
}

/// SDM 2A 2.7.2: elements that the mask leaves out cannot fault, not those of a broadcast without any, and those of a store.
#[test]
fn evex_suppresses_faults_of_elements_left_out() {
    let mut guest = Guest::of_model(CpuModel::x86_64_v4());
    let edge = UNMAPPED - 16;
    let table: &[(&str, &[u8], u64, Ended)] = &[
        ("VADDPS, four elements there", EVEX_VADDPS, 0xf, RETIRED),
        ("VADDPS, a fifth", EVEX_VADDPS, 0x1f, PF),
        ("VMOVDQU8 stored", &[0x62, 0xf1, 0x7f, 0x49, 0x7f, 0x07], 0xffff, RETIRED),
        ("VMOVDQU8 stored, one too many", &[0x62, 0xf1, 0x7f, 0x49, 0x7f, 0x07], 0x1_ffff, PF),
        ("VPCOMPRESSD stored, four of sixteen", &[0x62, 0xf2, 0x7d, 0x49, 0x8b, 0x07], 0x8421, RETIRED),
        ("VPCOMPRESSD stored, five", &[0x62, 0xf2, 0x7d, 0x49, 0x8b, 0x07], 0x8423, PF),
        ("VPEXPANDD, four of sixteen", &[0x62, 0xf2, 0x7d, 0x49, 0x89, 0x07], 0x8421, RETIRED),
        ("VPMOVQB stored, eight", &[0x62, 0xf2, 0x7e, 0x49, 0x32, 0x07], 0xff, RETIRED),
        ("VPERMD knows no masks", &[0x62, 0xf2, 0x75, 0x49, 0x36, 0x07], 0xf, PF),
    ];
    for (name, bytes, mask, wanted) in table {
        let mut bench = bench_of([0; 2], [0; 2]);
        bench.masks[1] = *mask;
        assert_eq!(run_at(&mut guest, edge, bytes, &mut bench), *wanted, "{name}");
    }
    // VADDPS zmm0 {k1}, zmm1, dword [rdi] {1to16}: none wanted, one wanted.
    for (mask, wanted) in [(0, RETIRED), (0x8000, PF)] {
        let mut bench = bench_of([0; 2], [0; 2]);
        bench.masks[1] = mask;
        let broadcast = [0x62, 0xf1, 0x74, 0x59, 0x58, 0x07];
        assert_eq!(run_at(&mut guest, UNMAPPED, &broadcast, &mut bench), wanted, "broadcast under {mask:x}");
    }
}

/// VPSCATTERDD [rdi + zmm1] {k1}, zmm2: bits are cleared one by one; element 2 faults.
#[test]
fn a_scatter_that_faults_goes_on_where_it_was() {
    let mut guest = Guest::of_model(CpuModel::x86_64_v4());
    let scatter = [0x62, 0xf2, 0x7d, 0x49, 0xa0, 0x14, 0x0f];
    let far = 0x0100_0000u128;
    let mut bench = bench_of([0x0c << 96 | far << 64 | 0x04 << 32, 0], [4 << 96 | 3 << 64 | 2 << 32 | 1, 0]);
    bench.masks[1] = 0b1111;
    assert_eq!(guest.run_or_fault(&scatter, &mut bench), PF);
    assert_eq!((guest.interp_state().cr2, bench.masks[1]), (DATA + far as u64, 0b1100));
    assert_eq!(bench.memory.0[..8], [1, 0, 0, 0, 2, 0, 0, 0]);
    bench.fx.xmm[1] = 0x0c << 96 | 0x08 << 64;
    assert_eq!(guest.run_or_fault(&scatter, &mut bench), RETIRED);
    assert_eq!((bench.masks[1], bench.memory.0[8]), (0, 3));
}

/// XSAVE and XRSTOR of mask registers, upper halves of ZMM0 to ZMM15, ZMM16 to ZMM31, each where AMD's CPUs have it.
#[test]
fn xsave_has_components_for_avx512() {
    let (xsave, xrstor) = ([0x0f, 0xae, 0x27], [0x0f, 0xae, 0x2f]);
    let mut guest = Guest::of_model(CpuModel::x86_64_v4());
    let mut before = Bench::random(&mut Random(9), false);
    before.general = [0xe0, 0, 0];
    let mut saved = before.clone();
    guest.ram.write(DATA + 512, &[0; 64]).unwrap();
    assert_eq!(guest.run_or_fault(&xsave, &mut saved), RETIRED);
    assert_eq!(guest.ram.read_array::<8>(DATA + 512).unwrap(), [0xe0, 0, 0, 0, 0, 0, 0, 0]);
    let quad = |at: u64| u64::from_le_bytes(guest.ram.read_array(DATA + at).unwrap());
    assert_eq!((quad(832), quad(832 + 56)), (before.masks[0], before.masks[7]));
    assert_eq!(
        (quad(896), quad(896 + 504)),
        (before.zmm_upper[0][0] as u64, (before.zmm_upper[15][1] >> 64) as u64)
    );
    assert_eq!(
        (quad(1408), quad(2424)),
        (before.zmm_high[0][0] as u64, (before.zmm_high[15][3] >> 64) as u64)
    );
    let mut other = Bench::random(&mut Random(10), false);
    (other.general, other.memory) = ([0xe0, 0, 0], saved.memory.clone());
    assert_eq!(guest.run_or_fault(&xrstor, &mut other), RETIRED);
    assert_eq!(
        (other.masks, other.zmm_upper, other.zmm_high),
        (before.masks, before.zmm_upper, before.zmm_high)
    );
    // VZEROALL clears the first sixteen, all of them, and leaves the others.
    assert_eq!(guest.run_or_fault(&[0xc5, 0xfc, 0x77], &mut other), RETIRED);
    assert_eq!((other.zmm_upper, other.zmm_high), ([[0; 2]; 16], before.zmm_high));
    // XCR0 takes the three together, and only with AVX.
    for (value, wanted) in [(0xe7, RETIRED), (0x27, GP), (0xe3, GP), (0xc7, GP), (7, RETIRED)] {
        let mut bench = Bench::random(&mut Random(9), false);
        bench.general = [value, 0, 0];
        assert_eq!(guest.run_or_fault(&[0x0f, 0x01, 0xd1], &mut bench), wanted, "{value:x}");
    }
}
