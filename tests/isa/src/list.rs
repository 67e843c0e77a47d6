//! The list of instructions: what was compared with silicon, how often, and what was not and why.
//!
//! Not responsible for: running (`run`).

use crate::case::Mode;
use crate::generate::forms;
use crate::native::excluded;
use crate::run::Report;
use gemel_x86::CpuModel;
use iced_x86::Code;
use std::collections::BTreeMap;
use std::fmt::Write;

/// What a run was.
pub struct About {
    /// The CPU.
    pub cpu: String,
    /// The day.
    pub date: String,
    /// Where its random numbers started.
    pub seed: u64,
    /// Cases a second.
    pub rate: f64,
}

#[derive(Default)]
struct Row {
    forms: usize,
    cases: u64,
    reason: Option<&'static str>,
}

/// The list as Markdown.
pub fn markdown(report: &Report, model: &CpuModel, about: &About) -> String {
    let mut rows: BTreeMap<String, Row> = BTreeMap::new();
    let exists = |code: &Code| {
        let form = code.op_code();
        form.mode64() || form.mode32() || form.mode16()
    };
    for code in Code::values().filter(|c| forms::listed(model, *c) && exists(c)) {
        let row = rows.entry(format!("{:?}", code.mnemonic()).to_uppercase()).or_default();
        row.cases += report.forms.get(&(code as u16)).copied().unwrap_or(0);
        match excluded::reason(code) {
            None => row.forms += 1,
            reason => row.reason = reason,
        }
    }
    let run: u64 = rows.values().map(|r| r.cases).sum();
    let compared = rows.values().filter(|r| r.forms != 0).count();
    let forms: usize = rows.values().map(|r| r.forms).sum();
    let invalid = report.forms.get(&(Code::INVALID as u16)).copied().unwrap_or(0);
    let differing: u64 = report.kinds.values().filter(|k| !k.vendor).map(|k| k.cases).sum();
    let modes = Mode::ALL.map(|m| m.bits().to_string()).join(", ");
    let mut text = String::new();
    let _ = write!(
        text,
        "# Instructions compared with silicon\n\n\
         Written by `gemel-isa list`: random cases in {modes}-bit code, each run by the CPU and by the interpreter (model \
         `{model}`), and everything compared ([tests/isa](../tests/isa/README.md)).\n\n\
         * CPU: {cpu}\n* Day: {date}\n* Seed: {seed}\n* Cases: {cases}, {rate:.0} a second\n\
         * Cases that differ: {differing}\n* Mnemonics compared: {compared}, in {forms} forms\n\
         * Cases of bytes that are no instruction: {invalid}\n\n\
         A case counts for the instruction that its bytes are, with whatever prefixes came on top.\n\n\
         | mnemonic | forms | cases |\n|---|--:|--:|\n",
        model = model.text(),
        cpu = about.cpu,
        date = about.date,
        seed = about.seed,
        cases = run + invalid,
        rate = about.rate,
    );
    for (name, row) in rows.iter().filter(|(_, r)| r.forms != 0) {
        let _ = writeln!(text, "| {name} | {} | {} |", row.forms, row.cases);
    }
    text.push_str("\n## Not compared\n\nTables in the interpreter's own tests take the place of these.\n\n");
    text.push_str("| mnemonic | why |\n|---|---|\n");
    for (name, row) in &rows {
        if let Some(reason) = row.reason {
            let which = if row.forms == 0 { "" } else { " (some forms)" };
            let _ = writeln!(text, "| {name}{which} | {reason} |");
        }
    }
    text
}
