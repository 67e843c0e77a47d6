#![allow(unsafe_code)] // runs the same bytes on the CPU under the test
#![allow(clippy::unwrap_used)] // a test that unwraps fails with the line
//! VEX instructions on vector registers against the CPU that runs the test, which must have AVX2, FMA and F16C: every form that the
//! index knows; both halves of the registers, general registers, memory, status flags and MXCSR must be the same.
//!
//! Not responsible for: SIMD errors that are not masked (`float_faults`), what raises #UD or #GP (`vex_faults`).

mod bench;

use bench::{Bench, Guest, Native, Random};
use gemel_interp::isa;
use gemel_x86::CpuModel;
use iced_x86::{Code, Decoder, DecoderOptions, EncodingKind, Mnemonic};

const CASES: usize = 60;

/// Every form of the index.
fn forms() -> impl Iterator<Item = Code> {
    Code::values().filter(|code| {
        isa::vex::index::entry(code.mnemonic()).is_some() && code.op_code().encoding() == EncodingKind::VEX
    })
}

/// Makes memory and registers such that this CPU does not fault on them.
fn prepare(code: Code, bytes: &[u8], bench: &mut Bench, random: &mut Random) {
    if code.mnemonic() == Mnemonic::Vldmxcsr {
        bench.memory.0[..4].copy_from_slice(&bench.fx.mxcsr.to_le_bytes());
    }
    let instruction = Decoder::new(64, bytes, DecoderOptions::NONE).decode();
    if instruction.is_vsib() {
        let index = instruction.memory_index().number();
        let size = if instruction.is_vsib32() { 4 } else { 8 };
        bench.fx.xmm[index] = random.offsets(size);
        bench.upper[index] = random.offsets(size);
    }
}

#[test]
fn vex_forms_agree_with_this_cpu() {
    let mut guest = Guest::of_model(CpuModel::parse("x86-64-v3,+vaes,+vpclmulqdq").unwrap());
    let mut random = Random(0x853c_49e6_748f_ea9b);
    let (mut compared, mut unbuilt, mut wrong) = (0, Vec::new(), Vec::new());
    for code in forms() {
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
    assert!(compared > 600 * CASES, "only {compared} cases");
}
