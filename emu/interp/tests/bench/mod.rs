//! The bench of the floating point tests: one instruction, run by the CPU under the test and by the interpreter on the same
//! random state.
//!
//! Not responsible for: which instructions (`host_float`, `float_faults`, `x87_environment`).
#![allow(dead_code)] // each test crate uses a part

pub mod native;

use gemel_interp::{Interp, missing_on_host};
use gemel_machine::{GuestRam, Nothing, Vcpu};
use gemel_x86::control::CR4_OSXSAVE;
use gemel_x86::segment::{CS, DS, ES, SS};
use gemel_x86::{CpuModel, CpuState, Feature, Segment};
use iced_x86::{
    Code, CpuidFeature, Encoder, EncodingKind, Instruction, OpCodeOperandKind, OpKind, Register,
    RoundingControl,
};
use std::sync::Arc;

/// Where the instruction is.
pub const CODE: u64 = 0x1_0000;
/// Where its memory operand is; RDI points there.
pub const DATA: u64 = 0x2_0000;
const GDT: u64 = 0x4000;
const IDT: u64 = 0x5000;
const STACK: u64 = 0x8000;
/// The handler of vector n is at 16 n from here.
const HANDLERS: u64 = 0x9_0000;
const STATUS: u64 = 0x8d5;

/// How a step of the interpreter ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ended {
    Retired,
    /// At the handler of this vector.
    Fault(u64),
}

/// Whether the CPU under the test has what a form needs, of what came after SSE4.2.
pub fn host_has(code: Code) -> bool {
    code.cpuid_features().iter().all(|feature| match feature {
        CpuidFeature::AES => is_x86_feature_detected!("aes"),
        CpuidFeature::PCLMULQDQ => is_x86_feature_detected!("pclmulqdq"),
        CpuidFeature::SHA => is_x86_feature_detected!("sha"),
        CpuidFeature::BMI1 => is_x86_feature_detected!("bmi1"),
        CpuidFeature::BMI2 => is_x86_feature_detected!("bmi2"),
        CpuidFeature::LZCNT => is_x86_feature_detected!("lzcnt"),
        CpuidFeature::MOVBE => is_x86_feature_detected!("movbe"),
        CpuidFeature::AVX => is_x86_feature_detected!("avx"),
        CpuidFeature::AVX2 => is_x86_feature_detected!("avx2"),
        CpuidFeature::FMA => is_x86_feature_detected!("fma"),
        CpuidFeature::F16C => is_x86_feature_detected!("f16c"),
        CpuidFeature::VAES => is_x86_feature_detected!("vaes"),
        CpuidFeature::VPCLMULQDQ => is_x86_feature_detected!("vpclmulqdq"),
        CpuidFeature::AVX512F => is_x86_feature_detected!("avx512f"),
        CpuidFeature::AVX512CD => is_x86_feature_detected!("avx512cd"),
        CpuidFeature::AVX512BW => is_x86_feature_detected!("avx512bw"),
        CpuidFeature::AVX512DQ => is_x86_feature_detected!("avx512dq"),
        CpuidFeature::AVX512VL => is_x86_feature_detected!("avx512vl"),
        _ => true,
    })
}

/// The richest model that the CPU under the test can run.
pub fn richest_model() -> CpuModel {
    let runs = |model: &CpuModel| missing_on_host(model).is_none();
    [CpuModel::x86_64_v4(), CpuModel::x86_64_v3()].into_iter().find(runs).unwrap_or(CpuModel::x86_64_v2())
}

/// Whether the CPU under the test is of the models' vendor.
pub fn host_is_amd() -> bool {
    let leaf = std::arch::x86_64::__cpuid(0);
    [leaf.ebx, leaf.edx, leaf.ecx].map(u32::to_le_bytes).concat() == b"AuthenticAMD"
}

/// What an instruction sees and leaves.
#[derive(Clone, PartialEq, Debug)]
pub struct Bench {
    pub fx: Fx,
    /// Upper halves of the YMM registers.
    pub upper: [u128; 16],
    /// Upper halves of ZMM0 to ZMM15; ZMM16 to ZMM31; K0 to K7.
    pub zmm_upper: [[u128; 2]; 16],
    pub zmm_high: [[u128; 4]; 16],
    pub masks: [u64; 8],
    /// RAX, RCX, RDX.
    pub general: [u64; 3],
    pub flags: u64,
    pub memory: Memory,
}

/// The memory operand and what follows it.
#[derive(Clone, PartialEq, Debug)]
#[repr(C, align(64))]
pub struct Memory(pub [u8; 512]);

/// FXSAVE64's image.
#[derive(Clone, PartialEq, Debug)]
#[repr(C, align(64))]
pub struct Fx {
    pub fcw: u16,
    pub fsw: u16,
    pub ftw: u16,
    pub fop: u16,
    pub pointers: [u64; 2],
    pub mxcsr: u32,
    pub mask: u32,
    pub st: [u128; 8],
    pub xmm: [u128; 16],
    pub rest: [u64; 12],
}

/// The interpreter in 64-bit mode, with the first 2 MiB mapped to themselves and a handler for every exception.
pub struct Guest {
    pub interp: Interp,
    pub ram: Arc<GuestRam>,
    pub state: CpuState,
}

impl Guest {
    pub fn new() -> Self {
        Self::of_model(CpuModel::x86_64_v2())
    }

    /// With the YMM registers switched on where the model has them.
    pub fn of_model(model: CpuModel) -> Self {
        assert_eq!(missing_on_host(&model), None, "the CPU under the test cannot run {}", model.text());
        let has_avx = model.has(Feature::AVX);
        let ram = Arc::new(GuestRam::new(1 << 20).unwrap());
        ram.write(0x1000, &0x2003u64.to_le_bytes()).unwrap();
        ram.write(0x2000, &0x3003u64.to_le_bytes()).unwrap();
        ram.write(0x3000, &0x83u64.to_le_bytes()).unwrap();
        let mut state = CpuState {
            cr0: 0x8000_0031,
            cr3: 0x1000,
            cr4: 0x620,
            efer: 0x500,
            rip: CODE,
            ..CpuState::default()
        };
        if has_avx {
            state.cr4 |= CR4_OSXSAVE;
            state.xcr0 = model.xcr0_mask();
        }
        let data = Segment { selector: 0x18, attr: 0xc93, limit: u32::MAX, base: 0 };
        for s in [DS, ES, SS] {
            state.seg[s] = data;
        }
        state.seg[CS] = Segment { selector: 0x10, attr: 0xa9b, limit: u32::MAX, base: 0 };
        ram.write(GDT + 0x10, &0x00af_9b00_0000_ffffu64.to_le_bytes()).unwrap();
        ram.write(GDT + 0x18, &0x00cf_9300_0000_ffffu64.to_le_bytes()).unwrap();
        (state.gdtr.base, state.gdtr.limit) = (GDT, 0x1f);
        for vector in 0..32 {
            let handler = HANDLERS + 16 * vector;
            let gate = handler & 0xffff | 0x10 << 16 | 0x8e00 << 32 | handler >> 16 << 48;
            ram.write(IDT + 16 * vector, &gate.to_le_bytes()).unwrap();
        }
        (state.idtr.base, state.idtr.limit) = (IDT, 0x1ff);
        state.gpr[4] = STACK;
        let interp = Interp::new(model, ram.clone());
        Self { interp, ram, state }
    }

    /// The state after a run.
    pub fn interp_state(&mut self) -> CpuState {
        self.interp.save().unwrap()
    }

    /// Runs the instruction. False when it did not retire.
    pub fn run(&mut self, bytes: &[u8], bench: &mut Bench) -> bool {
        self.run_or_fault(bytes, bench) == Ended::Retired
    }

    /// Runs the instruction, or the delivery of the exception that it raises.
    pub fn run_or_fault(&mut self, bytes: &[u8], bench: &mut Bench) -> Ended {
        self.run_steps(bytes, 1, bench)
    }

    /// Runs `n` instructions, of which the last may raise an exception.
    pub fn run_steps(&mut self, bytes: &[u8], n: u64, bench: &mut Bench) -> Ended {
        let s = &mut self.state;
        let top = usize::from(bench.fx.fsw >> 11 & 7);
        (s.fcw, s.fsw, s.ftw, s.mxcsr) = (bench.fx.fcw, bench.fx.fsw, bench.fx.ftw as u8, bench.fx.mxcsr);
        for i in 0..8 {
            s.st[(top + i) & 7] = bench.fx.st[i];
        }
        (s.xmm, s.ymm_upper) = (bench.fx.xmm, bench.upper);
        (s.zmm_upper, s.zmm_high, s.opmask) = (bench.zmm_upper, bench.zmm_high, bench.masks);
        (s.gpr[0], s.gpr[1], s.gpr[2], s.gpr[7]) =
            (bench.general[0], bench.general[1], bench.general[2], DATA);
        s.rflags = bench.flags & STATUS | 2;
        self.ram.write(CODE, bytes).unwrap();
        self.ram.write(DATA, &bench.memory.0).unwrap();
        self.interp.restore(s).unwrap();
        self.interp.run(&mut Nothing { stop: s.count + n }).unwrap();
        let after = self.interp.save().unwrap();
        self.ram.read(DATA, &mut bench.memory.0).unwrap();
        let top = usize::from(after.fsw >> 11 & 7);
        (bench.fx.fcw, bench.fx.fsw, bench.fx.ftw, bench.fx.mxcsr) =
            (after.fcw, after.fsw, after.ftw.into(), after.mxcsr);
        for i in 0..8 {
            bench.fx.st[i] = after.st[(top + i) & 7];
        }
        (bench.fx.xmm, bench.upper) = (after.xmm, after.ymm_upper);
        (bench.zmm_upper, bench.zmm_high, bench.masks) = (after.zmm_upper, after.zmm_high, after.opmask);
        bench.general = [after.gpr[0], after.gpr[1], after.gpr[2]];
        bench.flags = after.rflags & STATUS;
        bench.forget_pointers();
        match after.rip {
            rip if rip == CODE + bytes.len() as u64 => Ended::Retired,
            rip if rip >= HANDLERS => Ended::Fault((rip - HANDLERS) / 16),
            rip => panic!("ended at {rip:#x}"),
        }
    }
}

/// xorshift64*: seeded, so that a failure comes again.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        (self.next() >> 33) % n
    }

    pub fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }

    /// Elements from a small choice: offsets of a gather.
    pub fn offsets(&mut self, bytes: usize) -> u128 {
        (0..16 / bytes).fold(0, |all, n| all | u128::from(self.next() & 0xf8) << (8 * bytes * n))
    }

    fn single(&mut self) -> u32 {
        let special = [
            0,
            0x8000_0000,
            0x3f80_0000,
            0xbf80_0000,
            1,
            0x807f_ffff,
            0x0080_0000,
            0x7f7f_ffff,
            0x7f80_0000,
            0xff80_0000,
            0x7fc0_0001,
            0x7f80_0001,
            0xffc0_0000,
            0x4f00_0000,
            0xcf00_0000,
            0x3f00_0000,
            0x3eff_ffff,
        ];
        match self.below(4) {
            0 => self.next() as u32,
            1 => (100 + self.below(60) as u32) << 23 | self.next() as u32 & 0x807f_ffff,
            _ => self.of(&special),
        }
    }

    fn double(&mut self) -> u64 {
        let special = [
            0,
            1 << 63,
            0x3ff << 52,
            0xbff << 52,
            1,
            0x800f_ffff_ffff_ffff,
            1 << 52,
            0x7fef_ffff_ffff_ffff,
            0x7ff << 52,
            0xfff << 52,
            0x7ff8_0000_0000_0001,
            0x7ff0_0000_0000_0001,
            0xfff8 << 48,
            0x43e << 52,
            0xc3e << 52,
            0x41e << 52,
            0x3fe << 52,
            0x3fdf_ffff_ffff_ffff,
            0x36a0_0000_0000_0001,
            0x47ef_ffff_f000_0000,
        ];
        match self.below(4) {
            0 => self.next(),
            1 => (960 + self.below(128)) << 52 | self.next() & 0x800f_ffff_ffff_ffff,
            _ => self.of(&special),
        }
    }

    fn vector(&mut self) -> u128 {
        let pair = |a: u64, b: u64| u128::from(a) << 64 | u128::from(b);
        match self.below(4) {
            0 => pair(self.next(), self.next()),
            1 => pair(self.double(), self.double()),
            2 => (0..4).fold(0, |v, _| v << 32 | u128::from(self.single())),
            // Ends of strings and bytes at their limits.
            _ => (0..16)
                .fold(0, |v, _| v << 8 | u128::from(self.of(&[0u8, 1, 0x7f, 0x80, 0xff, 0x41, 0x42, 0x61]))),
        }
    }

    fn extended(&mut self) -> u128 {
        let special = [
            (0, 0),
            (0x8000, 0),
            (0x3fff, 1 << 63),
            (0xbfff, 1 << 63),
            (0, 1),
            (0, 1 << 63),
            (1, 1 << 63),
            (0x7ffe, u64::MAX),
            (0x7fff, 1 << 63),
            (0xffff, 1 << 63),
            (0x7fff, 0xc << 60),
            (0x7fff, 0xa << 60),
            (0x3fff, 0x4 << 60),
            (0x7fff, 0),
            (0x403e, 1 << 63),
            (0xc03d, u64::MAX),
            (0x3ffe, 1 << 63),
            (0x4000, 0xc90f_daa2_2168_c235),
        ];
        let (high, mantissa) = match self.below(5) {
            0 => (self.next() & 0xffff, self.next()),
            1 | 2 => ((0x3ff0 + self.below(40)) | self.below(2) << 15, self.next() | 1 << 63),
            _ => self.of(&special),
        };
        u128::from(high) << 64 | u128::from(mantissa)
    }
}

impl Bench {
    /// A random state; SIMD errors are always masked, x87 errors unless `x87_unmasked`.
    pub fn random(r: &mut Random, x87_unmasked: bool) -> Self {
        let top = r.below(8) as u16;
        // Most stacks are full or half full, so that most operands are there.
        let some = r.below(256) as u16;
        let ftw = r.of(&[0xff, 0xff, some, 0x0f, 0xf0, 0]);
        let masks = if x87_unmasked { r.below(64) as u16 } else { 0x3f };
        let fcw = 0x40 | masks | r.of(&[3u16, 3, 0, 2]) << 8 | (r.below(4) as u16) << 10;
        let sticky = r.below(64) as u16 & masks;
        let general = [r.next(), r.next(), r.next()].map(|v| if v & 1 != 0 { v } else { v >> 59 });
        let mut memory = Memory([0; 512]);
        for slot in memory.0.chunks_exact_mut(16) {
            slot.copy_from_slice(&r.vector().to_le_bytes());
        }
        if r.below(3) == 0 {
            memory.0[..16].copy_from_slice(&r.extended().to_le_bytes());
        }
        let mxcsr = 0x1f80
            | (r.below(64) & r.next()) as u32
            | r.of(&[0, 0, 0x40, 0x8000, 0x8040])
            | (r.below(4) as u32) << 13;
        Self {
            fx: Fx {
                fcw,
                fsw: top << 11 | sticky | r.next() as u16 & 0x4700,
                ftw,
                fop: 0,
                pointers: [0; 2],
                mxcsr,
                mask: 0,
                st: std::array::from_fn(|_| r.extended()),
                xmm: std::array::from_fn(|_| r.vector()),
                rest: [0; 12],
            },
            upper: std::array::from_fn(|_| r.vector()),
            zmm_upper: std::array::from_fn(|_| [r.vector(), r.vector()]),
            zmm_high: std::array::from_fn(|_| std::array::from_fn(|_| r.vector())),
            masks: std::array::from_fn(|_| r.next() & r.next().rotate_left(7) | r.below(3)),
            general,
            flags: r.next() & STATUS | 0x202,
            memory,
        }
    }

    /// Sets a vector register, all of it.
    pub fn set_vector(&mut self, n: usize, value: [u128; 4]) {
        if n >= 16 {
            self.zmm_high[n - 16] = value;
        } else {
            let [low, upper, a, b] = value;
            (self.fx.xmm[n], self.upper[n], self.zmm_upper[n]) = (low, upper, [a, b]);
        }
    }

    /// Prints what differs from what the interpreter left.
    pub fn print_differences(&self, ours: &Self) {
        let show = |name: &str, native: u128, ours: u128| {
            if native != ours {
                println!("  {name}: native {native:x}, ours {ours:x}");
            }
        };
        show("fcw", self.fx.fcw.into(), ours.fx.fcw.into());
        show("fsw", self.fx.fsw.into(), ours.fx.fsw.into());
        show("ftw", self.fx.ftw.into(), ours.fx.ftw.into());
        show("mxcsr", self.fx.mxcsr.into(), ours.fx.mxcsr.into());
        show("flags", self.flags.into(), ours.flags.into());
        for i in 0..8 {
            show(&format!("st{i}"), self.fx.st[i], ours.fx.st[i]);
        }
        for i in 0..16 {
            show(&format!("xmm{i}"), self.fx.xmm[i], ours.fx.xmm[i]);
            show(&format!("ymm{i} upper"), self.upper[i], ours.upper[i]);
            for part in 0..2 {
                let name = format!("zmm{i} upper, part {part}");
                show(&name, self.zmm_upper[i][part], ours.zmm_upper[i][part]);
            }
            for part in 0..4 {
                let name = format!("zmm{}, part {part}", i + 16);
                show(&name, self.zmm_high[i][part], ours.zmm_high[i][part]);
            }
        }
        for i in 0..8 {
            show(&format!("k{i}"), self.masks[i].into(), ours.masks[i].into());
        }
        for i in 0..3 {
            show(["rax", "rcx", "rdx"][i], self.general[i].into(), ours.general[i].into());
        }
        if self.memory != ours.memory {
            println!(
                "  memory: native {:02x?}\n            ours {:02x?}",
                &self.memory.0[..32],
                &ours.memory.0[..32]
            );
        }
    }

    /// Drops what FXSAVE leaves of the last instruction's place, and what it does not write.
    fn forget_pointers(&mut self) {
        self.fx.fop = 0;
        self.fx.pointers = [0; 2];
        self.fx.mask = 0;
        self.fx.rest = [0; 12];
    }
}

/// An instance of a form with random operands, or `None` when a form needs more than this bench gives.
pub fn instance(code: Code, random: &mut Random) -> Option<Vec<u8>> {
    use OpCodeOperandKind as K;
    let mut instruction = Instruction::default();
    instruction.set_code(code);
    let form = code.op_code();
    let mut memory = false;
    let gathers = (0..form.op_count()).any(|n| format!("{:?}", form.op_kind(n)).contains("vsib"));
    // The registers of a gather must differ.
    let registers = if form.encoding() == EncodingKind::EVEX { 32 } else { 16 };
    let first = random.below(registers) as u32;
    let gather = [first, first ^ (1 + random.below(7) as u32), first ^ 8];
    for n in 0..form.op_count() {
        let in_memory = random.below(2) == 0;
        let register = match form.op_kind(n) {
            K::mem => None,
            K::xmm_or_mem
            | K::ymm_or_mem
            | K::mm_or_mem
            | K::r8_or_mem
            | K::r16_or_mem
            | K::r32_or_mem
            | K::r64_or_mem
                if in_memory =>
            {
                None
            }
            K::mem_vsib32x | K::mem_vsib64x => {
                instruction.set_memory_index(Register::XMM0 + gather[0]);
                None
            }
            K::mem_vsib32z | K::mem_vsib64z => {
                instruction.set_memory_index(Register::ZMM0 + gather[0]);
                None
            }
            K::mem_vsib32y | K::mem_vsib64y => {
                instruction.set_memory_index(Register::YMM0 + gather[0]);
                None
            }
            K::xmm_reg | K::xmm_vvvv if gathers => Some(Register::XMM0 + gather[1 + n as usize / 2]),
            K::ymm_reg | K::ymm_vvvv if gathers => Some(Register::YMM0 + gather[1 + n as usize / 2]),
            K::zmm_reg if gathers => Some(Register::ZMM0 + gather[1 + n as usize / 2]),
            K::zmm_reg | K::zmm_rm | K::zmm_or_mem | K::zmm_vvvv => {
                Some(Register::ZMM0 + random.below(registers) as u32)
            }
            K::k_reg | K::k_rm | K::k_vvvv | K::k_or_mem => Some(Register::K0 + random.below(8) as u32),
            K::ymm_reg | K::ymm_rm | K::ymm_or_mem | K::ymm_vvvv | K::ymm_is4 => {
                Some(Register::YMM0 + random.below(registers) as u32)
            }
            K::xmm_reg | K::xmm_rm | K::xmm_or_mem | K::xmm_vvvv | K::xmm_is4 => {
                Some(Register::XMM0 + random.below(registers) as u32)
            }
            K::mm_reg | K::mm_rm | K::mm_or_mem => Some(Register::MM0 + random.below(8) as u32),
            K::r8_reg | K::r8_opcode | K::r8_or_mem => {
                Some(random.of(&[Register::AL, Register::CL, Register::DL]))
            }
            K::r16_reg | K::r16_opcode | K::r16_or_mem => {
                Some(random.of(&[Register::AX, Register::CX, Register::DX]))
            }
            K::r32_reg | K::r32_rm | K::r32_opcode | K::r32_or_mem | K::r32_vvvv => {
                Some(random.of(&[Register::EAX, Register::ECX, Register::EDX]))
            }
            K::r64_reg | K::r64_rm | K::r64_opcode | K::r64_or_mem | K::r64_vvvv => {
                Some(random.of(&[Register::RAX, Register::RCX, Register::RDX]))
            }
            K::st0 => Some(Register::ST0),
            K::sti_opcode => Some(Register::ST0 + random.below(8) as u32),
            K::al => Some(Register::AL),
            K::cl => Some(Register::CL),
            K::ax => Some(Register::AX),
            K::eax => Some(Register::EAX),
            K::rax => Some(Register::RAX),
            K::imm8 | K::imm8_const_1 => {
                let only_one = form.op_kind(n) == K::imm8_const_1;
                instruction.set_op_kind(n, OpKind::Immediate8);
                instruction.set_immediate8(if only_one { 1 } else { random.next() as u8 });
                continue;
            }
            kind @ (K::imm8sex16
            | K::imm8sex32
            | K::imm8sex64
            | K::imm16
            | K::imm32
            | K::imm32sex64
            | K::imm64) => {
                let value = random.next();
                let (kind, value) = match kind {
                    K::imm8sex16 => (OpKind::Immediate8to16, value as i8 as i64),
                    K::imm8sex32 => (OpKind::Immediate8to32, value as i8 as i64),
                    K::imm8sex64 => (OpKind::Immediate8to64, value as i8 as i64),
                    K::imm16 => (OpKind::Immediate16, value as u16 as i64),
                    K::imm32 => (OpKind::Immediate32, value as u32 as i64),
                    K::imm32sex64 => (OpKind::Immediate32to64, value as i32 as i64),
                    _ => (OpKind::Immediate64, value as i64),
                };
                instruction.set_op_kind(n, kind);
                instruction.set_immediate_i64(n, value);
                continue;
            }
            K::seg_rDI => {
                instruction.set_op_kind(n, OpKind::MemorySegRDI);
                continue;
            }
            _ => return None,
        };
        match register {
            Some(r) => instruction.set_op_register(n, r),
            None => {
                memory = true;
                instruction.set_op_kind(n, OpKind::Memory);
            }
        }
    }
    if memory {
        instruction.set_memory_base(Register::RDI);
        instruction.set_is_broadcast(form.can_broadcast() && random.below(2) == 0);
    }
    if form.can_use_op_mask_register() && (form.require_op_mask_register() || random.below(4) != 0) {
        instruction.set_op_mask(Register::K1 + random.below(7) as u32);
        let stores = instruction.op0_kind() == OpKind::Memory;
        instruction.set_zeroing_masking(form.can_use_zeroing_masking() && !stores && random.below(2) == 0);
    }
    if !memory && random.below(3) == 0 {
        if form.can_use_rounding_control() {
            let rounding = [
                RoundingControl::RoundToNearest,
                RoundingControl::RoundDown,
                RoundingControl::RoundUp,
                RoundingControl::RoundTowardZero,
            ];
            instruction.set_rounding_control(random.of(&rounding));
        } else if form.can_suppress_all_exceptions() {
            instruction.set_suppress_all_exceptions(true);
        }
    }
    let mut encoder = Encoder::new(64);
    encoder.encode(&instruction, 0).ok()?;
    Some(encoder.take_buffer())
}
