//! Random cases: instructions of every form that the interpreter's index lists, with the state that they meet.
//!
//! Not responsible for: running them, or saying what is right.
//!
//! The order of making: a form, its encoding, prefixes on top; then the bytes are decoded as they came to be, and registers
//! and memory get what that instruction needs.

mod contents;
pub mod forms;
mod instruction;
mod place;
mod prefixes;
pub mod random;
mod selectors;
mod state;
mod target;
mod values;

use crate::arena::{BASE, CODE, PAGE};
use crate::case::{Case, Mode};
use crate::native::excluded;
use forms::Family;
use gemel_x86::{CpuModel, Feature};
use iced_x86::{Code, Decoder, DecoderOptions, Instruction, Mnemonic, OpKind};
use instruction::Assembler;
pub use place::operand_address;
use random::Random;

/// Makes cases for one mode.
pub struct Generator {
    mode: Mode,
    model: CpuModel,
    families: Vec<Family>,
    assembler: Assembler,
    random: Random,
}

impl Generator {
    /// Cases of a mode for what a model offers; of `only` one mnemonic if wanted.
    pub fn new(mode: Mode, model: CpuModel, seed: u64, only: Option<Mnemonic>) -> Self {
        let mut families = forms::families(&model, mode);
        families.retain(|f| only.is_none_or(|m| m == f.mnemonic));
        Self { mode, model, families, assembler: Assembler::new(mode.bits()), random: Random::new(seed) }
    }

    /// Every family that cases are made of. Empty when the mode lacks the wanted mnemonic.
    pub fn families(&self) -> &[Family] {
        &self.families
    }

    /// The next case, and the instruction that a decoder sees in it (invalid ones included); `None` when this try made
    /// nothing that may be run.
    pub fn case(&mut self) -> Option<(Case, Code)> {
        let family = self.random.below(self.families.len() as u64) as usize;
        let form = self.random.below(self.families[family].forms.len() as u64) as usize;
        self.case_of(self.families[family].forms[form])
    }

    /// A case that begins as an instance of a form.
    pub fn case_of(&mut self, form: Code) -> Option<(Case, Code)> {
        let random = &mut self.random;
        let size = form.op_code().memory_size().size() as u64;
        let target = target::operand(self.mode, size, random);
        let segment_base = if self.mode == Mode::Protected16 { u64::from(BASE) } else { 0 };
        let rip = u64::from(CODE) - segment_base + 0x800;
        let mut bytes = self.assembler.instance(form, rip, target.wrapping_sub(segment_base), random)?;
        prefixes::season(&mut bytes, self.mode.bits(), random);
        let mut case = Case { mode: self.mode, length: bytes.len() as u8, ..Case::default() };
        case.code[..bytes.len()].copy_from_slice(&bytes);
        case.before = state::registers(self.mode, self.model.has(Feature::AVX512F), random);
        case.before.rip = match random.below(32) {
            // Code that ends with its page.
            0 => u64::from(CODE + PAGE) - segment_base - bytes.len() as u64,
            _ => rip,
        };
        let instruction = decode(&case);
        if !may_run(&self.model, &case, &instruction) {
            return None;
        }
        let places = place::place(&mut case, &instruction, target, random);
        contents::fill(&mut case, &instruction, places, random);
        load_selector(&mut case, &instruction, random);
        Some((case, instruction.code()))
    }
}

/// What a decoder sees in a case. What follows the code in memory belongs to it.
pub fn decode(case: &Case) -> Instruction {
    let mut bytes = [crate::arena::FILLING; 32];
    bytes[..case.code().len()].copy_from_slice(case.code());
    let mut decoder = Decoder::with_ip(case.mode.bits(), &bytes, case.before.rip, DecoderOptions::AMD);
    decoder.decode()
}

/// Whether a case, in which the decoder sees this instruction, may be run natively, and means the same to the model.
pub fn may_run(model: &CpuModel, case: &Case, i: &Instruction) -> bool {
    if i.is_invalid() {
        return !excluded::may_be_more(case.code());
    }
    // The host may have what the model lacks.
    let known = forms::offered(model, i.code());
    let system_call = i.mnemonic() == Mnemonic::Int && i.immediate8() == 0x80;
    let leaves = matches!(i.op0_kind(), OpKind::FarBranch16 | OpKind::FarBranch32)
        && !selectors::is_refused(i.far_branch_selector());
    known && !system_call && !leaves && excluded::reason(i.code()).is_none()
}

/// A segment register loaded from a general one gets a selector that is refused.
fn load_selector(case: &mut Case, i: &Instruction, random: &mut Random) {
    let loads =
        i.op_count() == 2 && i.op0_kind() == OpKind::Register && i.op0_register().is_segment_register();
    if loads && i.op1_kind() == OpKind::Register {
        let register = &mut case.before.gpr[i.op1_register().full_register().number()];
        *register = *register & !0xffff | u64::from(selectors::refused(random));
    }
}
