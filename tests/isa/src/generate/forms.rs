//! The forms that cases are made of: what the interpreter's index lists and the CPU model offers, by mnemonic.
//!
//! Not responsible for: building an instance (`instruction`).

use crate::case::Mode;
use crate::native::excluded;
use gemel_interp::{isa, lower};
use gemel_x86::CpuModel;
use iced_x86::{Code, EncodingKind, Mnemonic};

/// One mnemonic and its forms in one mode.
pub struct Family {
    /// The mnemonic.
    pub mnemonic: Mnemonic,
    /// Its forms, at least one.
    pub forms: Vec<Code>,
}

/// Whether the model offers all that a form needs.
pub fn offered(model: &CpuModel, code: Code) -> bool {
    lower::offered(model, code)
}

/// Whether the index lists a form, and the model offers it.
pub fn listed(model: &CpuModel, code: Code) -> bool {
    let encoding = code.op_code().encoding();
    matches!(encoding, EncodingKind::Legacy | EncodingKind::VEX | EncodingKind::EVEX)
        && isa::find(code.mnemonic()).is_some()
        && offered(model, code)
}

/// Every family of a mode.
pub fn families(model: &CpuModel, mode: Mode) -> Vec<Family> {
    let mut families: Vec<Family> = Vec::new();
    for code in Code::values().filter(|c| listed(model, *c)) {
        let form = code.op_code();
        let exists = match mode {
            Mode::Long64 => form.mode64(),
            Mode::Protected32 => form.mode32(),
            Mode::Protected16 => form.mode16(),
        };
        if !exists || excluded::reason(code).is_some() {
            continue;
        }
        match families.iter_mut().find(|f| f.mnemonic == code.mnemonic()) {
            Some(family) => family.forms.push(code),
            None => families.push(Family { mnemonic: code.mnemonic(), forms: vec![code] }),
        }
    }
    families
}
