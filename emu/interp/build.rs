//! Assembles the thunks of VEX and EVEX instructions: every form of iced's list whose operands can all be registers, once or, with an
//! immediate byte, 256 times; and again with zeroing where a form has it.
//!
//! Not responsible for: which of them are offered (`isa::vex`, `isa::evex`), how they are called (`thunk`).
//!
//! Operand n stands in XMM, YMM or ZMM n+1, or in K n+2; a general register is EAX as the first operand and ECX as another; K1 is the
//! mask. What can lie in memory stands in a register too: the interpreter has loaded it.

#![allow(clippy::disallowed_methods)] // where a build script writes is told by the environment

use iced_x86::{Code, CpuidFeature, Encoder, EncodingKind, Instruction, OpCodeOperandKind, OpKind, Register};
use std::fmt::Write;
use std::path::PathBuf;

/// Bytes from one thunk to the next: the longest EVEX instruction on registers has seven, then comes RET.
const SLOT: usize = 8;
const RET: u8 = 0xc3;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> Outcome<()> {
    println!("cargo::rerun-if-changed=build.rs");
    let mut thunks = Vec::new();
    let mut rows = String::new();
    for code in Code::values().filter(|code| is_vector(*code)) {
        let Some((mut instruction, immediate)) = on_fixed_registers(code) else { continue };
        let (first, form) = (thunks.len() / SLOT, code.op_code());
        if form.can_use_op_mask_register() {
            instruction.set_op_mask(Register::K1);
        }
        let mut zeroing = 0;
        for zeroes in [false, true] {
            if zeroes && !form.can_use_zeroing_masking() {
                continue;
            }
            zeroing = thunks.len() / SLOT - first;
            instruction.set_zeroing_masking(zeroes);
            for value in 0..if immediate { 256 } else { 1 } {
                thunks.extend(thunk(instruction, immediate.then_some(value as u8))?);
            }
        }
        writeln!(rows, "Code::{code:?} => ({first}, {immediate}, {zeroing}),")?;
    }
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("vex_thunks.bin"), thunks)?;
    std::fs::write(out.join("vex_rows.rs"), format!("match code {{\n{rows}_ => return None,\n}}\n"))?;
    Ok(())
}

/// VEX and EVEX encodings on vector and mask registers that some model offers.
fn is_vector(code: Code) -> bool {
    use CpuidFeature::*;
    let known = [
        AVX, AVX2, FMA, F16C, AES, PCLMULQDQ, VAES, VPCLMULQDQ, AVX512F, AVX512CD, AVX512BW, AVX512DQ,
        AVX512VL,
    ];
    matches!(code.op_code().encoding(), EncodingKind::VEX | EncodingKind::EVEX)
        && code.cpuid_features().iter().all(|f| known.contains(f))
}

/// The instruction on fixed registers and whether it has an immediate byte; `None` where an operand is always memory.
fn on_fixed_registers(code: Code) -> Option<(Instruction, bool)> {
    use OpCodeOperandKind as K;
    let form = code.op_code();
    let mut instruction = Instruction::default();
    instruction.set_code(code);
    let mut immediate = false;
    for n in 0..form.op_count() {
        let register = match form.op_kind(n) {
            K::xmm_reg | K::xmm_vvvv | K::xmm_rm | K::xmm_or_mem | K::xmm_is4 => Register::XMM1 + n,
            K::ymm_reg | K::ymm_vvvv | K::ymm_rm | K::ymm_or_mem | K::ymm_is4 => Register::YMM1 + n,
            K::zmm_reg | K::zmm_vvvv | K::zmm_rm | K::zmm_or_mem => Register::ZMM1 + n,
            K::k_reg | K::k_vvvv | K::k_rm | K::k_or_mem => Register::K2 + n,
            K::r32_reg | K::r32_rm | K::r32_or_mem => Register::EAX + u32::from(n > 0),
            K::r64_reg | K::r64_rm | K::r64_or_mem => Register::RAX + u32::from(n > 0),
            K::imm8 => {
                instruction.set_op_kind(n, OpKind::Immediate8);
                immediate = true;
                continue;
            }
            _ => return None,
        };
        instruction.set_op_register(n, register);
    }
    Some((instruction, immediate))
}

fn thunk(mut instruction: Instruction, immediate: Option<u8>) -> Outcome<[u8; SLOT]> {
    if let Some(value) = immediate {
        instruction.set_immediate8(value);
    }
    let mut encoder = Encoder::new(64);
    encoder.encode(&instruction, 0)?;
    let mut slot = [RET; SLOT];
    let bytes = encoder.take_buffer();
    let room = slot.get_mut(..bytes.len()).filter(|room| room.len() < SLOT);
    room.ok_or_else(|| format!("{:?} does not fit its slot", instruction.code()))?.copy_from_slice(&bytes);
    Ok(slot)
}
