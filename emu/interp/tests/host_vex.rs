#![allow(unsafe_code)] // runs the same bytes on the CPU under the test
#![allow(clippy::unwrap_used)] // a test that unwraps fails with the line
//! VEX and EVEX instructions on vector and mask registers against the CPU that runs the test, which must have them: every form that the
//! indices know; all of the registers, general registers, memory, status flags and MXCSR must be the same.
//!
//! Not responsible for: SIMD errors that are not masked (`float_faults`), what raises #UD or #GP (`vex_faults`).

mod bench;

use bench::native::Native;
use bench::{Bench, Guest, Random};
use gemel_interp::{isa, lower, missing_on_host};
use gemel_x86::CpuModel;
use iced_x86::{Code, Decoder, DecoderOptions, EncodingKind, Mnemonic};

const CASES: usize = 60;

/// Makes memory and registers such that this CPU does not fault on them.
fn prepare(code: Code, bytes: &[u8], bench: &mut Bench, random: &mut Random) {
    if code.mnemonic() == Mnemonic::Vldmxcsr {
        bench.memory.0[..4].copy_from_slice(&bench.fx.mxcsr.to_le_bytes());
    }
    let instruction = Decoder::new(64, bytes, DecoderOptions::NONE).decode();
    if instruction.is_vsib() {
        let index = instruction.memory_index().number();
        let size = if instruction.is_vsib32() { 4 } else { 8 };
        bench.set_vector(index, std::array::from_fn(|_| random.offsets(size)));
    }
}

/// Compares every form that is wanted, on a model, which the CPU under the test must be able to run.
fn compare(model: CpuModel, wanted: impl Fn(Code) -> bool, at_least: usize) {
    let mut guest = Guest::of_model(model);
    let mut random = Random(0x853c_49e6_748f_ea9b);
    let (mut compared, mut unbuilt, mut wrong) = (0, Vec::new(), Vec::new());
    for code in Code::values().filter(|code| wanted(*code)) {
        for case in 0..CASES {
            let Some(bytes) = bench::instance(code, &mut random) else {
                unbuilt.push(code);
                break;
            };
            let mut before = Bench::random(&mut random, false);
            prepare(code, &bytes, &mut before, &mut random);
            let (mut native, mut ours) = (before.clone(), before.clone());
            Native::new(&bytes).run(&mut native);
            let retired = guest.run(&bytes, &mut ours);
            compared += 1;
            if !retired || native != ours {
                println!("{code:?} case {case} {bytes:02x?} retired {retired} MXCSR {:x}", before.fx.mxcsr);
                native.print_differences(&ours);
                wrong.push(code);
                break;
            }
        }
    }
    assert!(wrong.is_empty(), "{} forms differ: {wrong:?}", wrong.len());
    assert!(unbuilt.is_empty(), "no instance of {unbuilt:?}");
    assert!(compared > at_least * CASES, "only {compared} cases");
}

#[test]
fn vex_forms_agree_with_this_cpu() {
    let indexed = |code: Code| {
        isa::vex::index::entry(code.mnemonic()).is_some()
            && code.op_code().encoding() == EncodingKind::VEX
            && bench::host_has(code)
    };
    // Older CPUs have AES and PCLMULQDQ on 128 bits only.
    let wide = CpuModel::parse("x86-64-v3,+vaes,+vpclmulqdq").unwrap();
    let model = if missing_on_host(&wide).is_none() { wide } else { CpuModel::x86_64_v3() };
    compare(model, indexed, 600);
}

#[test]
fn evex_forms_and_masks_agree_with_this_cpu() {
    let model = CpuModel::x86_64_v4();
    let indexed = |code: Code| {
        let form = code.op_code();
        let encoded = match form.encoding() {
            EncodingKind::VEX => isa::vex::index::entry(code.mnemonic()).is_none(),
            kind => kind == EncodingKind::EVEX,
        };
        encoded
            && isa::evex::index::entry(code.mnemonic()).is_some()
            && lower::offered(&model, code)
            && form.mode64()
    };
    compare(CpuModel::x86_64_v4(), indexed, 1300);
}
