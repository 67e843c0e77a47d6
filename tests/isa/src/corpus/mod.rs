//! The corpus: cases with what silicon left, in a file that any host can check the interpreter against.
//!
//! Not responsible for: choosing the cases (`make`), the bytes of the file (`format`).

mod format;
mod make;

pub use format::{read, write};
pub use make::{cpu, make, today};

use crate::case::{Case, Outcome};
use crate::compare::{self, Difference};
use crate::generate::decode;
use crate::interpreted::Interpreted;
use crate::vector;
use anyhow::{Context, Result};
use gemel_x86::CpuModel;
use iced_x86::Mnemonic;
use std::collections::BTreeMap;

/// Cases with what silicon left, and which silicon.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Corpus {
    /// What the CPU calls itself, with family, model and stepping.
    pub cpu: String,
    /// The day of the measurement.
    pub date: String,
    /// The vectors.
    pub vectors: Vec<(Case, Outcome)>,
}

/// What a check found.
#[derive(Debug, Default)]
pub struct Checked {
    /// Cases compared, by mnemonic.
    pub cases: BTreeMap<String, usize>,
    /// Cases left out because the host's own unit computes them, and is another vendor's.
    pub left_out: usize,
    /// Vectors whose outcome is another one in the interpreter.
    pub wrong: Vec<(String, Vec<Difference>)>,
}

/// Runs the corpus in the interpreter.
///
/// # Errors
/// When the interpreter breaks down.
pub fn check(corpus: &Corpus, model: &CpuModel) -> Result<Checked> {
    let like_cpus = compare::host_is_amd();
    let mut interpreted = Interpreted::new(model.clone())?;
    let mut checked = Checked::default();
    for (case, native) in &corpus.vectors {
        let mnemonic = decode(case).mnemonic();
        if !like_cpus && is_the_vendors(mnemonic) {
            checked.left_out += 1;
            continue;
        }
        let text = || vector::to_text(case, Some(native));
        let ours = interpreted.run(case).with_context(text)?;
        // The outcomes are a model's; only what the host's own unit computes can be the host's.
        let differences = compare::differences(case, native, &ours, true);
        if !differences.is_empty() {
            checked.wrong.push((text(), differences));
        }
        *checked.cases.entry(format!("{mnemonic:?}")).or_default() += 1;
    }
    Ok(checked)
}

/// Whether the host's own unit gives results that no manual defines to the last bit: approximations, and the x87 unit, whose
/// condition codes and transcendental functions are the vendor's.
fn is_the_vendors(mnemonic: Mnemonic) -> bool {
    let name = format!("{mnemonic:?}");
    let approximates = ["Rcp", "Rsqrt", "Vrcp", "Vrsqrt"].iter().any(|n| name.starts_with(n));
    approximates || name.starts_with('F') && !name.starts_with("Fx")
}
