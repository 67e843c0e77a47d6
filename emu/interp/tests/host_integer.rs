#![allow(unsafe_code)] // runs the same bytes on the CPU under the test
#![allow(clippy::unwrap_used)] // a test that unwraps fails with the line
//! Integer instructions on registers, against the CPU that runs the test: results and every status flag, the undefined
//! ones included where the model's vendor is the host's.
//!
//! Not responsible for: memory operands, faults, modes.

mod bench;

use bench::host_is_amd;
use gemel_interp::{Interp, isa};
use gemel_machine::{GuestRam, Nothing, Vcpu};
use gemel_x86::segment::{CS, DS, ES, SS};
use gemel_x86::{CpuModel, CpuState, Segment};
use iced_x86::{Code, CpuidFeature};
use std::sync::Arc;

const CODE: u64 = 0x1_0000;
const STATUS: u64 = 0x8d5;

struct Guest {
    interp: Interp,
    ram: Arc<GuestRam>,
    state: CpuState,
}

impl Guest {
    fn new() -> Self {
        let ram = Arc::new(GuestRam::new(1 << 20).unwrap());
        ram.write(0x1000, &0x2003u64.to_le_bytes()).unwrap();
        ram.write(0x2000, &0x3003u64.to_le_bytes()).unwrap();
        ram.write(0x3000, &0x83u64.to_le_bytes()).unwrap();
        let mut state = CpuState {
            cr0: 0x8000_0011,
            cr3: 0x1000,
            cr4: 0x620,
            efer: 0x500,
            rip: CODE,
            ..CpuState::default()
        };
        let data = Segment { selector: 0x18, attr: 0xc93, limit: u32::MAX, base: 0 };
        state.seg[DS] = data;
        state.seg[ES] = data;
        state.seg[SS] = data;
        state.seg[CS] = Segment { selector: 0x10, attr: 0xa9b, limit: u32::MAX, base: 0 };
        let interp = Interp::new(CpuModel::x86_64_v2(), ram.clone());
        Self { interp, ram, state }
    }

    /// RAX, RCX, RDX and RFLAGS after one instruction.
    fn run(&mut self, code: &[u8], input: [u64; 4]) -> [u64; 4] {
        self.ram.write(CODE, code).unwrap();
        self.state.gpr[..3].copy_from_slice(&input[..3]);
        self.state.rflags = input[3] | 2;
        self.state.count = 0;
        self.interp.restore(&self.state).unwrap();
        self.interp.run(&mut Nothing { stop: 1 }).unwrap();
        let s = self.interp.save().unwrap();
        assert_eq!(s.rip, CODE + code.len() as u64, "{code:02x?} did not retire");
        [s.gpr[0], s.gpr[1], s.gpr[2], s.rflags & STATUS]
    }
}

/// An executable page of this process.
struct Native(memmap2::Mmap);

impl Native {
    fn new(code: &[u8]) -> Self {
        let mut page = memmap2::MmapMut::map_anon(4096).unwrap();
        page[..code.len()].copy_from_slice(code);
        page[code.len()] = 0xc3;
        Self(page.make_exec().unwrap())
    }

    fn run(&self, input: [u64; 4]) -> [u64; 4] {
        let [mut a, mut c, mut d, mut f] = input;
        // SAFETY: the page holds one instruction on RAX, RCX, RDX and a RET. The stack is used below the red zone only by
        // the pushes and the call, which the compiler allows for without `nostack`.
        unsafe {
            std::arch::asm!(
                "push {f}", "popfq", "call {page}", "pushfq", "pop {f}",
                f = inout(reg) f,
                page = in(reg) self.0.as_ptr(),
                inout("rax") a, inout("rcx") c, inout("rdx") d,
            );
        }
        f &= STATUS;
        [a, c, d, f]
    }
}

/// xorshift64*: seeded, so that a failure comes again.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Boundary values as often as others.
    fn operand(&mut self) -> u64 {
        const EDGES: [u64; 12] =
            [0, 1, 2, 0x7f, 0x80, 0xff, 0x7fff, 0x8000, 0x7fff_ffff, 0x8000_0000, 1 << 63, u64::MAX];
        let r = self.next();
        match r % 4 {
            0 => EDGES[(r >> 8) as usize % EDGES.len()],
            1 => r >> 32 & 0x3f,
            _ => self.next(),
        }
    }
}

/// Compares one instruction over many operands; `ignore` are flags not compared.
fn compare(guest: &mut Guest, random: &mut Random, code: &[u8], ignore: u64, cases: usize) -> Vec<String> {
    let native = Native::new(code);
    let mut out = Vec::new();
    for _ in 0..cases {
        let input = [random.operand(), random.operand(), random.operand(), random.next() & STATUS];
        let (want, got) = (native.run(input), guest.run(code, input));
        let same = want[..3] == got[..3] && (want[3] ^ got[3]) & !ignore == 0;
        if !same {
            out.push(format!("{code:02x?} on {input:x?}: host {want:x?}, here {got:x?}"));
        }
    }
    out
}

#[test]
fn integer_instructions_agree_with_the_host() {
    let mut guest = Guest::new();
    let mut random = Random(0x5eed_0001);
    let mut failed = Vec::new();
    let mut check = |code: &[u8], undefined: u64| {
        let ignore = if host_is_amd() { 0 } else { undefined };
        failed.extend(compare(&mut guest, &mut random, code, ignore, 300).into_iter().take(2));
    };
    const OF: u64 = 1 << 11;
    const AF: u64 = 1 << 4;
    const SZAP: u64 = 0xd4;
    // ModRM c8: rax, rcx. Prefixes for 16, 32 and 64 bits.
    for prefix in [&[0x66u8][..], &[], &[0x48]] {
        let with = |tail: &[u8]| [prefix, tail].concat();
        for alu in 0..8u8 {
            check(&with(&[alu * 8 + 1, 0xc8]), AF);
            check(&with(&[alu * 8 + 3, 0xc1]), AF);
            check(&with(&[0x83, 0xc0 + alu * 8, 0x85]), AF);
        }
        for group in [2u8, 3] {
            check(&with(&[0xf7, 0xc1 + group * 8]), 0);
        }
        check(&with(&[0xf7, 0xe1]), SZAP);
        check(&with(&[0xf7, 0xe9]), SZAP);
        check(&with(&[0x0f, 0xaf, 0xc1]), SZAP);
        check(&with(&[0x6b, 0xc1, 0x91]), SZAP);
        check(&with(&[0xff, 0xc0]), 0);
        check(&with(&[0xff, 0xc8]), 0);
        for shift in 0..8u8 {
            check(&with(&[0xd3, 0xc0 + shift * 8]), OF | AF);
            check(&with(&[0xd1, 0xc0 + shift * 8]), AF);
            check(&with(&[0xc1, 0xc0 + shift * 8, 5]), OF | AF);
        }
        check(&with(&[0x0f, 0xa5, 0xd0]), OF | AF);
        check(&with(&[0x0f, 0xad, 0xd0]), OF | AF);
        check(&with(&[0x0f, 0xa4, 0xd0, 3]), OF | AF);
        check(&with(&[0x0f, 0xac, 0xd0, 1]), OF | AF);
        for bit in [0xa3u8, 0xab, 0xb3, 0xbb] {
            check(&with(&[0x0f, bit, 0xc8]), OF | SZAP);
        }
        check(&with(&[0x0f, 0xbc, 0xc1]), 0x895);
        check(&with(&[0x0f, 0xbd, 0xc1]), 0x895);
        check(&[&[0xf3], prefix, &[0x0f, 0xb8, 0xc1]].concat(), 0);
        check(&with(&[0x0f, 0xc1, 0xc8]), 0);
        check(&with(&[0x0f, 0xb1, 0xd1]), 0);
        check(&with(&[0x87, 0xc8]), 0);
        check(&with(&[0x98]), 0);
        check(&with(&[0x99]), 0);
        check(&with(&[0x0f, 0xb6, 0xc1]), 0);
        check(&with(&[0x0f, 0xbe, 0xc1]), 0);
        check(&with(&[0x8d, 0x44, 0x91, 0x81]), 0);
        for cc in 0..16u8 {
            check(&with(&[0x0f, 0x40 + cc, 0xc1]), 0);
        }
    }
    for alu in 0..8u8 {
        check(&[alu * 8, 0xe0], AF);
        check(&[0x80, 0xc4 + alu * 8, 0x7f], AF);
        check(&[0xd2, 0xc4 + alu * 8], OF | AF);
        check(&[0xc0, 0xc0 + alu * 8, 3], OF | AF);
    }
    check(&[0x0f, 0xb6, 0xc5], 0);
    check(&[0x0f, 0xbe, 0xc6], 0);
    check(&[0xf6, 0xe1], SZAP);
    check(&[0xf6, 0xed], SZAP);
    for cc in 0..16u8 {
        check(&[0x0f, 0x90 + cc, 0xc4], 0);
    }
    for one in [0x9fu8, 0x9e, 0xf5, 0xf8, 0xf9] {
        check(&[one], 0);
    }
    check(&[0x0f, 0xc8], 0);
    check(&[0x48, 0x0f, 0xc8], 0);
    assert!(failed.is_empty(), "{} forms differ:\n{}", failed.len(), failed.join("\n"));
}

/// ANDN to SHRX, LZCNT, TZCNT and MOVBE, on registers and in memory.
#[test]
fn bit_manipulation_agrees_with_the_host() {
    let mut guest = bench::Guest::of_model(CpuModel::x86_64_v3());
    let mut random = bench::Random(0x5eed_0002);
    let mut failed = Vec::new();
    let wanted = [CpuidFeature::BMI1, CpuidFeature::BMI2, CpuidFeature::LZCNT, CpuidFeature::MOVBE];
    let forms = Code::values().filter(|code| {
        code.cpuid_features().iter().any(|f| wanted.contains(f))
            && code.op_code().mode64()
            && bench::host_has(*code)
    });
    for code in forms {
        let undefined = isa::entry(code.mnemonic()).unwrap().undefined;
        for _ in 0..500 {
            let bytes = bench::instance(code, &mut random).unwrap();
            let mut before = bench::Bench::random(&mut random, false);
            for slot in before.memory.0.chunks_exact_mut(8).step_by(3) {
                slot.copy_from_slice(&(random.next() >> (random.next() & 63)).to_le_bytes());
            }
            let (mut native, mut ours) = (before.clone(), before.clone());
            bench::native::Native::new(&bytes).run(&mut native);
            let retired = guest.run(&bytes, &mut ours);
            if !host_is_amd() {
                native.flags &= !undefined;
                ours.flags &= !undefined;
            }
            if !retired || native != ours {
                failed.push(format!(
                    "{code:?} {bytes:02x?}, flags {:x} -> {:x}, here {:x}",
                    before.flags, native.flags, ours.flags
                ));
                break;
            }
        }
    }
    assert!(failed.is_empty(), "{} forms differ:\n{}", failed.len(), failed.join("\n"));
}

/// Where the model does not offer TZCNT and LZCNT, their prefix means nothing and they are BSF and BSR.
#[test]
fn the_older_model_scans_where_the_newer_counts() {
    for (code, older, newer) in
        [([0xf3, 0x48, 0x0f, 0xbc, 0xc1], 0x77, 64), ([0xf3, 0x48, 0x0f, 0xbd, 0xc1], 0x77, 64)]
    {
        for (model, want) in [(CpuModel::x86_64_v2(), older), (CpuModel::x86_64_v3(), newer)] {
            let mut guest = bench::Guest::of_model(model);
            let mut bench = bench::Bench::random(&mut bench::Random(1), false);
            bench.general = [0x77, 0, 0];
            assert!(guest.run(&code, &mut bench));
            assert_eq!(bench.general[0], want, "{code:02x?}");
        }
    }
}
