#![allow(unsafe_code)] // runs the same bytes on the CPU under the test, which may raise SIGFPE
#![allow(clippy::unwrap_used)] // a test that unwraps fails with the line
//! What x87, MMX and SIMD instructions raise: SIMD errors that are not masked, against the CPU that runs the test;
//! alignment, CR0 and CR4, pending x87 errors, against the manuals.
//!
//! Not responsible for: results (`host_float`).

mod bench;

use bench::native::Native;
use bench::{Bench, Ended, Guest, Random, instance};
use gemel_interp::{isa, lower};
use gemel_x86::control::{CR0_EM, CR0_MP, CR0_TS, CR4_OSFXSR, CR4_OSXMMEXCPT, CR4_OSXSAVE};
use gemel_x86::{CpuModel, Vector};
use iced_x86::{Code, EncodingKind};
use std::cell::Cell;
use std::sync::Once;

const CASES: usize = 200;

thread_local! {
    /// Where the trapping instruction's RET is; MXCSR when it trapped.
    static RESUME: Cell<u64> = const { Cell::new(0) };
    static TRAPPED: Cell<Option<u32>> = const { Cell::new(None) };
}

/// Notes MXCSR, masks all errors and goes on behind the instruction.
extern "C" fn on_sigfpe(_: libc::c_int, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel gives a valid context, and the FPU state is there on x86-64.
    unsafe {
        let context = &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext;
        TRAPPED.set(Some((*context.fpregs).mxcsr));
        (*context.fpregs).mxcsr = 0x1f80;
        context.gregs[libc::REG_RIP as usize] = RESUME.get() as i64;
    }
}

/// Runs an instruction that may trap. MXCSR of the bench is the one that it left or trapped with.
fn run_trapping(native: &Native, len: usize, bench: &mut Bench) -> bool {
    static HANDLER: Once = Once::new();
    HANDLER.call_once(|| {
        // SAFETY: the handler is async-signal-safe: it touches its context and two cells of its thread.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = on_sigfpe as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO;
            assert_eq!(libc::sigaction(libc::SIGFPE, &action, std::ptr::null_mut()), 0);
        }
    });
    RESUME.set(native.address() + len as u64);
    TRAPPED.set(None);
    native.run(bench);
    let trapped = TRAPPED.take();
    if let Some(mxcsr) = trapped {
        bench.fx.mxcsr = mxcsr;
    }
    trapped.is_some()
}

/// Forms that obey MXCSR: the SIMD floating point instructions of iced's list.
fn obeys_mxcsr(code: Code) -> bool {
    let name = format!("{:?}", code.mnemonic());
    let name = name.strip_prefix('V').unwrap_or(&name).to_ascii_lowercase();
    let arithmetic = [
        "scalef", "getexp", "getmant", "fixupimm", "range", "reduce", "rndscale", "add", "sub", "mul", "div",
        "min", "max", "sqrt", "cvt", "cmp", "round", "dp", "hadd", "hsub", "com", "ucom", "fm", "fnm",
    ];
    let ends = ["s", "d", "i", "q", "ps2ph"];
    let form = code.op_code();
    let vectors = (0..form.op_count())
        .any(|n| ["xmm", "ymm", "zmm"].iter().any(|v| format!("{:?}", form.op_kind(n)).contains(v)));
    let encoded = match form.encoding() {
        EncodingKind::Legacy => true,
        EncodingKind::VEX => isa::vex::index::entry(code.mnemonic()).is_some(),
        EncodingKind::EVEX => isa::evex::index::entry(code.mnemonic()).is_some(),
        _ => false,
    };
    arithmetic.iter().any(|a| name.starts_with(a))
        && ends.iter().any(|e| name.ends_with(e))
        && vectors
        && encoded
        && form.mode64()
        && lower::offered(&bench::richest_model(), code)
}

#[test]
fn unmasked_simd_errors_trap_as_on_this_cpu() {
    let mut guest = Guest::of_model(bench::richest_model());
    let mut random = Random(0x0123_4567_89ab_cdef);
    let (mut trapped, mut wrong) = (0, Vec::new());
    for code in Code::values().filter(|c| obeys_mxcsr(*c)) {
        for case in 0..CASES {
            let bytes = instance(code, &mut random).unwrap();
            let mut before = Bench::random(&mut random, false);
            // Few errors are unmasked at a time, and none is pending.
            let unmasked = random.of(&[1, 2, 4, 8, 0x10, 0x20, 0x18, 0x30, 0x3f]) << 7;
            before.fx.mxcsr = before.fx.mxcsr & !unmasked & !(unmasked >> 7);
            let (mut native, mut ours) = (before.clone(), before.clone());
            let traps = run_trapping(&Native::new(&bytes), bytes.len(), &mut native);
            let ended = guest.run_or_fault(&bytes, &mut ours);
            trapped += usize::from(traps);
            let wanted = if traps { Ended::Fault(Vector::Simd as u64) } else { Ended::Retired };
            if ended != wanted || native != ours {
                println!(
                    "{code:?} case {case} {bytes:02x?} ended {ended:?}, wanted {wanted:?}, MXCSR {:x}",
                    before.fx.mxcsr
                );
                native.print_differences(&ours);
                wrong.push(code);
                break;
            }
        }
    }
    assert!(wrong.is_empty(), "{} forms differ: {wrong:?}", wrong.len());
    assert!(trapped > 1000, "only {trapped} traps");
}

/// Runs `bytes` on a random bench and says how it ended.
fn end_of(guest: &mut Guest, bytes: &[u8]) -> Ended {
    guest.run_or_fault(bytes, &mut Bench::random(&mut Random(7), false))
}

const ADDPS: &[u8] = &[0x0f, 0x58, 0xc1];
const ADDPS_OFF_BY_8: &[u8] = &[0x0f, 0x58, 0x47, 0x08];
const MOVUPS_OFF_BY_8: &[u8] = &[0x0f, 0x10, 0x47, 0x08];
const MOVNTDQ_OFF_BY_8: &[u8] = &[0x66, 0x0f, 0xe7, 0x47, 0x08];
const PCMPISTRI_OFF_BY_8: &[u8] = &[0x66, 0x0f, 0x3a, 0x63, 0x47, 0x08, 0x00];
const ADDSD_OFF_BY_8: &[u8] = &[0xf2, 0x0f, 0x58, 0x47, 0x08];
const FXSAVE_OFF_BY_8: &[u8] = &[0x0f, 0xae, 0x47, 0x08];
const PADDB_MM: &[u8] = &[0x0f, 0xfc, 0xc1];
const CRC32: &[u8] = &[0xf2, 0x0f, 0x38, 0xf1, 0xc1];
const FADD: &[u8] = &[0xd8, 0xc1];
const FNSTSW_AX: &[u8] = &[0xdf, 0xe0];
const FNCLEX: &[u8] = &[0xdb, 0xe2];
const WAIT: &[u8] = &[0x9b];
const LDMXCSR: &[u8] = &[0x0f, 0xae, 0x17];
const SFENCE: &[u8] = &[0x0f, 0xae, 0xf8];

#[test]
fn sixteen_bytes_must_be_aligned_but_for_the_exceptions() {
    let mut guest = Guest::new();
    let gp = Ended::Fault(Vector::GeneralProtection as u64);
    for bytes in [ADDPS_OFF_BY_8, MOVNTDQ_OFF_BY_8, FXSAVE_OFF_BY_8] {
        assert_eq!(end_of(&mut guest, bytes), gp, "{bytes:02x?}");
    }
    for bytes in [MOVUPS_OFF_BY_8, PCMPISTRI_OFF_BY_8, ADDSD_OFF_BY_8] {
        assert_eq!(end_of(&mut guest, bytes), Ended::Retired, "{bytes:02x?}");
    }
}

#[test]
fn control_registers_withhold_the_units() {
    use Vector::{DeviceNotAvailable as NM, InvalidOpcode as UD};
    let mut table: Vec<(u64, u64, &[u8], Option<Vector>)> = Vec::new();
    // CR0 and CR4 bits that are turned: SDM 2A table 2-18 (SSE), SDM 3A table 13-1 (MMX), table 2-2 (x87).
    for (cr0, cr4, sse, mmx, x87) in [
        (CR0_TS, 0, Some(NM), Some(NM), Some(NM)),
        (CR0_EM, 0, Some(UD), Some(UD), Some(NM)),
        (CR0_EM | CR0_TS, 0, Some(UD), Some(UD), Some(NM)),
        (0, CR4_OSFXSR, Some(UD), None, None),
        (0, 0, None, None, None),
    ] {
        table.push((cr0, cr4, ADDPS, sse));
        table.push((cr0, cr4, PADDB_MM, mmx));
        table.push((cr0, cr4, FADD, x87));
        table.push((cr0, cr4, FNSTSW_AX, x87));
        // Neither obeys either register.
        table.push((cr0, cr4, CRC32, None));
        table.push((cr0, cr4, SFENCE, None));
    }
    table.push((CR0_TS, 0, WAIT, None));
    table.push((CR0_TS | CR0_MP, 0, WAIT, Some(NM)));
    for (cr0, cr4, bytes, fault) in table {
        let mut guest = Guest::new();
        guest.state.cr0 ^= cr0;
        guest.state.cr4 ^= cr4;
        let wanted = fault.map_or(Ended::Retired, |v| Ended::Fault(v as u64));
        assert_eq!(end_of(&mut guest, bytes), wanted, "{bytes:02x?} under CR0 {cr0:x}, CR4 {cr4:x} turned");
    }
}

#[test]
fn pending_x87_errors_wait_for_the_next_waiting_instruction() {
    let mut guest = Guest::new();
    let mut bench = Bench::random(&mut Random(3), false);
    // Divide error: flag, summary and busy set, unmasked.
    (bench.fx.fcw, bench.fx.fsw) = (0x37b, 0x8084);
    for bytes in [FADD, PADDB_MM, WAIT] {
        assert_eq!(
            guest.run_or_fault(bytes, &mut bench.clone()),
            Ended::Fault(Vector::X87 as u64),
            "{bytes:02x?}"
        );
    }
    for bytes in [FNSTSW_AX, FNCLEX, ADDPS] {
        assert_eq!(guest.run_or_fault(bytes, &mut bench.clone()), Ended::Retired, "{bytes:02x?}");
    }
}

#[test]
fn simd_errors_are_undefined_opcodes_when_the_system_does_not_expect_them() {
    let mut guest = Guest::new();
    guest.state.cr4 &= !CR4_OSXMMEXCPT;
    let mut bench = Bench::random(&mut Random(3), false);
    // 1.0 / 0.0, zero divide unmasked.
    bench.fx.mxcsr = 0x1d80;
    (bench.fx.xmm[0], bench.fx.xmm[1]) = (0x3ff << 52, 0);
    let divsd = [0xf2, 0x0f, 0x5e, 0xc1];
    assert_eq!(guest.run_or_fault(&divsd, &mut bench), Ended::Fault(Vector::InvalidOpcode as u64));
}

#[test]
fn reserved_bits_of_mxcsr_are_refused() {
    let mut guest = Guest::new();
    let mut bench = Bench::random(&mut Random(3), false);
    bench.memory.0[..4].copy_from_slice(&0x1_1f80u32.to_le_bytes());
    assert_eq!(guest.run_or_fault(LDMXCSR, &mut bench), Ended::Fault(Vector::GeneralProtection as u64));
}

/// XSAVE [rdi], then XRSTOR [rdi], with EDX:EAX = 3.
#[test]
fn xsave_and_xrstor_carry_what_is_in_use() {
    let (xsave, xrstor) = ([0x0f, 0xae, 0x27], [0x0f, 0xae, 0x2f]);
    assert_eq!(end_of(&mut Guest::new(), &xsave), Ended::Fault(Vector::InvalidOpcode as u64), "not offered");
    let mut guest = Guest::of_model(CpuModel::parse("x86-64-v2,+xsave").unwrap());
    assert_eq!(end_of(&mut guest, &xsave), Ended::Fault(Vector::InvalidOpcode as u64), "CR4.OSXSAVE clear");
    guest.state.cr4 |= CR4_OSXSAVE;
    guest.state.xcr0 = 3;
    let mut bench = Bench::random(&mut Random(3), false);
    bench.general = [3, 0, 0];
    bench.fx.xmm = [0; 16];
    let saved = bench.clone();
    assert_eq!(guest.run_or_fault(&xsave, &mut bench), Ended::Retired);
    let header = guest.ram.read_array::<8>(bench::DATA + 512).unwrap();
    assert_eq!(header, [1, 0, 0, 0, 0, 0, 0, 0], "x87 is in use, XMM is not");
    let mut other = Bench::random(&mut Random(4), false);
    other.general = [3, 0, 0];
    other.memory = bench.memory;
    assert_eq!(guest.run_or_fault(&xrstor, &mut other), Ended::Retired);
    assert_eq!(other.fx, saved.fx);
}
