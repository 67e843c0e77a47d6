//! Measures the interpreter's table of undefined results on this CPU.
//!
//! Not responsible for: the table (`gemel_interp::isa::undefined`).

use crate::case::{Case, Mode, Outcome};
use crate::generate::{Generator, decode};
use crate::native::Native;
use anyhow::{Context, Result};
use gemel_interp::isa::undefined::{self, Element, Undefined};
use gemel_x86::CpuModel;
use gemel_x86::flags::STATUS;
use iced_x86::{Instruction, Mnemonic, OpKind, Register};

/// What was found of an entry with one of its instructions.
pub struct Measured {
    /// The entry.
    pub entry: &'static Undefined,
    /// The instruction.
    pub mnemonic: Mnemonic,
    /// Cases in which the result is undefined.
    pub cases: u64,
    /// Those of them in which this CPU does not do what the table says.
    pub others: u64,
    /// One of those: what it is, what the table says, what the CPU did.
    pub example: Option<(String, u64, u64)>,
}

/// Runs about `cases` cases for each entry and instruction.
///
/// # Errors
/// When silicon can't be asked.
pub fn measure(model: &CpuModel, cases: usize, seed: u64) -> Result<Vec<Measured>> {
    let mut native = Native::start().context("silicon cannot be asked")?;
    let mut found = Vec::new();
    for entry in undefined::TABLE {
        for &mnemonic in entry.mnemonics {
            let mut measured = Measured { entry, mnemonic, cases: 0, others: 0, example: None };
            for mode in [Mode::Long64, Mode::Protected32] {
                let mut generator = Generator::new(mode, model.clone(), seed, Some(mnemonic));
                if generator.families().is_empty() {
                    continue;
                }
                let tries = std::iter::repeat_with(|| generator.case()).take(cases).flatten();
                let all: Vec<_> =
                    tries.filter(|(_, code)| code.mnemonic() == mnemonic).map(|(case, _)| case).collect();
                for (case, answer) in all.iter().zip(native.run(&all)?) {
                    if let Ok(outcome) = answer {
                        measured.add(case, &outcome);
                    }
                }
                // Decimal arithmetic is there in 32-bit code only.
                if measured.cases != 0 {
                    break;
                }
            }
            found.push(measured);
        }
    }
    Ok(found)
}

impl Measured {
    fn add(&mut self, case: &Case, outcome: &Outcome) {
        let i = decode(case);
        let Some(seen) = execution(case, &i, outcome).filter(|seen| (self.entry.applies)(seen)) else {
            return;
        };
        let predicted = self.entry.predict(&seen);
        let left = match self.entry.element {
            Element::Flags(flags) => outcome.after.rflags & flags,
            Element::Destination => seen.result,
        };
        self.cases += 1;
        if left != predicted {
            self.others += 1;
            let text = || crate::vector::to_text(case, Some(outcome));
            self.example.get_or_insert_with(|| (text(), predicted, left));
        }
    }
}

/// An execution as the table sees it; `None` for those with a memory operand or a fault.
fn execution(case: &Case, i: &Instruction, outcome: &Outcome) -> Option<undefined::Case> {
    if outcome.fault.is_some() || (0..i.op_count()).any(|n| i.op_kind(n) == OpKind::Memory) {
        return None;
    }
    let part = |gpr: &[u64; 16], r: Register| {
        let whole = gpr[r.full_register().number()];
        let high = matches!(r, Register::AH | Register::CH | Register::DH | Register::BH);
        (if high { whole >> 8 } else { whole }) & u64::MAX >> (64 - 8 * r.size())
    };
    let operand = |n: u32| match (n < i.op_count()).then(|| i.op_kind(n)) {
        Some(OpKind::Register) => Some(part(&case.before.gpr, i.op_register(n))),
        None => None,
        Some(_) => Some(i.immediate(n)),
    };
    let decimal = matches!(
        i.mnemonic(),
        Mnemonic::Daa | Mnemonic::Das | Mnemonic::Aaa | Mnemonic::Aas | Mnemonic::Aam | Mnemonic::Aad
    );
    let destination = if decimal { Register::AX } else { i.op0_register() };
    if destination == Register::None || !destination.is_gpr() {
        return None;
    }
    let width = destination.size() as u32 * 8;
    // The source of a shift is its count; of a scan and of decimal arithmetic, the last operand.
    let last = i.op_count().checked_sub(1).and_then(operand);
    let second = if decimal { last } else { operand(1) };
    let count = last.unwrap_or(1) as u32 & if width == 64 { 63 } else { 31 };
    Some(undefined::Case {
        width,
        a: part(&case.before.gpr, destination),
        b: second.or(last).unwrap_or(1),
        count,
        before: case.before.rflags & STATUS,
        result: part(&outcome.after.gpr, destination),
        after: outcome.after.rflags & STATUS,
    })
}
