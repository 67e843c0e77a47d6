#![allow(unsafe_code)] // runs the same bytes on the CPU under the test
#![allow(clippy::unwrap_used)] // a test that unwraps fails with the line
//! x87, MMX and SIMD instructions against the CPU that runs the test: every form that the index knows, with random and
//! special operands; registers, memory, status flags, MXCSR and FSW must be the same.
//!
//! Not responsible for: faults, SIMD errors that are not masked (`float_faults`).

mod bench;

use bench::native::Native;
use bench::{Bench, Guest, Random};
use gemel_interp::isa;
use gemel_x86::CpuModel;
use iced_x86::{Code, EncodingKind, Mnemonic};

const CASES: usize = 50;

/// Left to other tests: components of XSAVE, hints.
fn is_compared_elsewhere(m: Mnemonic) -> bool {
    use Mnemonic::*;
    matches!(m, Xsave | Xsave64 | Xrstor | Xrstor64 | Clflush | Prefetch | Prefetchw)
}

/// Makes memory such that this CPU does not fault on it.
fn prepare(code: Code, bench: &mut Bench) {
    if matches!(code.mnemonic(), Mnemonic::Fxrstor | Mnemonic::Fxrstor64 | Mnemonic::Ldmxcsr) {
        let at = if code.mnemonic() == Mnemonic::Ldmxcsr { 0 } else { 24 };
        bench.memory.0[at..at + 4].copy_from_slice(&bench.fx.mxcsr.to_le_bytes());
    }
}

/// Clears what is stored of the last instruction's place, which is another on the two sides, and the mask of MXCSR, which
/// follows the model.
fn forget(code: Code, bench: &mut Bench) {
    match code {
        Code::Fxsave_m512byte | Code::Fxsave64_m512byte => {
            bench.memory.0[6..24].fill(0);
            bench.memory.0[28..32].fill(0);
        }
        Code::Fnstenv_m28byte | Code::Fnsave_m108byte => bench.memory.0[12..26].fill(0),
        Code::Fnstenv_m14byte | Code::Fnsave_m94byte => bench.memory.0[6..14].fill(0),
        _ => {}
    }
    if !bench::host_is_amd() && is_x87(code) {
        // Condition codes that the manuals leave undefined are another vendor's there.
        bench.fx.fsw &= !0x4700;
    }
}

/// Every form of the index that runs in 64-bit mode.
fn forms() -> impl Iterator<Item = Code> {
    Code::values().filter(|code| {
        let m = code.mnemonic();
        let form = code.op_code();
        let string = matches!(code, Code::Movsd_m32_m32 | Code::Cmpsd_m32_m32);
        let indexed =
            isa::floating_index::entry(m).is_some() || matches!(m, Mnemonic::Movsd | Mnemonic::Cmpsd);
        indexed
            && !string
            && !is_compared_elsewhere(m)
            && form.mode64()
            && form.encoding() == EncodingKind::Legacy
            && bench::host_has(*code)
    })
}

fn compare(x87_unmasked: bool, wanted: impl Fn(Code) -> bool) {
    let mut guest = Guest::of_model(CpuModel::x86_64_v3());
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let (mut compared, mut unbuilt, mut wrong) = (0, Vec::new(), Vec::new());
    for code in forms().filter(|c| wanted(*c)) {
        for case in 0..CASES {
            let Some(bytes) = bench::instance(code, &mut random) else {
                unbuilt.push(code);
                break;
            };
            let mut before = Bench::random(&mut random, x87_unmasked);
            prepare(code, &mut before);
            let (mut native, mut ours) = (before.clone(), before.clone());
            Native::new(&bytes).run(&mut native);
            let retired = guest.run(&bytes, &mut ours);
            forget(code, &mut native);
            forget(code, &mut ours);
            compared += 1;
            if !retired || native != ours {
                wrong.push((code, case, bytes, retired, before, native, ours));
                break;
            }
        }
    }
    for (code, case, bytes, retired, before, native, ours) in wrong.iter().take(6) {
        println!("{code:?} case {case} {bytes:02x?} retired {retired}");
        println!(" before {:x?}", before.fx);
        native.print_differences(ours);
    }
    let names: Vec<_> = wrong.iter().map(|w| w.0).collect();
    assert!(wrong.is_empty(), "{} forms differ: {names:?}", wrong.len());
    assert!(unbuilt.is_empty(), "no instance of {unbuilt:?}");
    assert!(compared > 1000, "only {compared} cases");
}

fn is_x87(code: Code) -> bool {
    let name = format!("{:?}", code.mnemonic());
    name.starts_with('F') && !name.starts_with("Fx") || name == "Wait"
}

#[test]
fn simd_and_mmx_agree_with_this_cpu() {
    compare(false, |code| !is_x87(code));
}

#[test]
fn x87_agrees_with_this_cpu_when_errors_are_masked() {
    compare(false, is_x87);
}

#[test]
fn x87_agrees_with_this_cpu_when_errors_are_not_masked() {
    compare(true, is_x87);
}
