//! A case and what silicon left of it, as one line of text.
//!
//! Not responsible for: many of them (`corpus`).
//!
//! ```text
//!     64 4801c8 rip=12342800 rax=1 @12345000=00ff > rip=12342803 rax=2 rflags=302 #14:2:12344000 @12345000=01
//! ```
//!
//! Mode by its width, code, then every register that is not as in [`Registers::default`], and patches by address; behind `>`
//! registers that changed, the fault as vector, error code and CR2, and changed lines. Numbers are hexadecimal; bytes of
//! memory are in their order.

use crate::case::{Case, Fault, Line, Mode, Outcome, Patch, Registers};
use crate::fields::{self, NAMES, Value};
use anyhow::{Context, Result, bail, ensure};
use std::fmt::Write;

/// Writes a line. Without an outcome it ends before `>`.
pub fn to_text(case: &Case, outcome: Option<&Outcome>) -> String {
    let mut text = format!("{} ", case.mode.bits());
    put_bytes(&mut text, case.code());
    put_registers(&mut text, &Registers::default(), &case.before);
    for patch in case.patches.iter().filter(|p| p.length != 0) {
        put_memory(&mut text, patch.address, &patch.bytes[..usize::from(patch.length)]);
    }
    if let Some(outcome) = outcome {
        text.push_str(" >");
        put_registers(&mut text, &case.before, &outcome.after);
        if let Some(Fault { vector, error_code, cr2 }) = outcome.fault {
            let _ = write!(text, " #{vector:x}:{error_code:x}:{cr2:x}");
        }
        outcome.changes.iter().for_each(|line| put_memory(&mut text, line.address, &line.bytes));
    }
    text
}

fn put_bytes(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
}

fn put_memory(text: &mut String, address: u32, bytes: &[u8]) {
    let _ = write!(text, " @{address:x}=");
    put_bytes(text, bytes);
}

fn put_registers(text: &mut String, from: &Registers, to: &Registers) {
    for (n, name) in NAMES.iter().enumerate() {
        let value = fields::get(to, n);
        if value != fields::get(from, n) {
            let [a, b, c, d] = value;
            let digits = format!("{d:016x}{c:016x}{b:016x}{a:016x}");
            let short = digits.trim_start_matches('0');
            let _ = write!(text, " {name}={}", if short.is_empty() { "0" } else { short });
        }
    }
}

/// Reads a line: the case, and the outcome where there is one.
///
/// # Errors
/// Names the word that is wrong.
pub fn parse(text: &str) -> Result<(Case, Option<Outcome>)> {
    let (before, after) = match text.split_once('>') {
        Some((before, after)) => (before, Some(after)),
        None => (text, None),
    };
    let mut words = before.split_whitespace();
    let width = words.next().context("an empty line is no vector")?;
    let mode = Mode::ALL.into_iter().find(|m| m.bits().to_string() == width);
    let mode = mode.with_context(|| format!("'{width}' is no mode: 64, 32, 16"))?;
    let code = bytes(words.next().context("the code is missing")?)?;
    ensure!((1..=15).contains(&code.len()), "the code has {} bytes, not 1 to 15", code.len());
    let mut case = Case { mode, length: code.len() as u8, ..Case::default() };
    case.code[..code.len()].copy_from_slice(&code);
    let mut patches = 0;
    for word in words {
        if let Some((address, content)) = memory(word)? {
            let patch = case.patches.get_mut(patches).context("more than four patches")?;
            ensure!(content.len() <= patch.bytes.len(), "the patch at {address:x} is longer than 64 bytes");
            *patch = Patch { address, length: content.len() as u8, bytes: [0; 64] };
            patch.bytes[..content.len()].copy_from_slice(&content);
            patches += 1;
        } else {
            register(&mut case.before, word)?;
        }
    }
    let outcome = after.map(|text| outcome(text, &case.before)).transpose()?;
    Ok((case, outcome))
}

fn outcome(text: &str, before: &Registers) -> Result<Outcome> {
    let mut outcome = Outcome { after: *before, changes: Vec::new(), fault: None };
    for word in text.split_whitespace() {
        if let Some((address, content)) = memory(word)? {
            let content = content.try_into();
            let content =
                content.ok().with_context(|| format!("the line at {address:x} has not 64 bytes"))?;
            outcome.changes.push(Line { address, bytes: content });
        } else if let Some(fault) = word.strip_prefix('#') {
            let parts: Vec<_> = fault.split(':').map(|p| u64::from_str_radix(p, 16)).collect();
            let [Ok(vector), Ok(error_code), Ok(cr2)] = parts[..] else {
                bail!("'{word}' is no fault: #vector:error:cr2")
            };
            outcome.fault = Some(Fault { vector: vector as u8, error_code: error_code as u32, cr2 });
        } else {
            register(&mut outcome.after, word)?;
        }
    }
    Ok(outcome)
}

fn memory(word: &str) -> Result<Option<(u32, Vec<u8>)>> {
    let Some((address, content)) = word.strip_prefix('@').and_then(|w| w.split_once('=')) else {
        return Ok(None);
    };
    let address = u32::from_str_radix(address, 16).with_context(|| format!("no address in '{word}'"))?;
    Ok(Some((address, bytes(content)?)))
}

fn bytes(text: &str) -> Result<Vec<u8>> {
    ensure!(text.is_ascii() && text.len().is_multiple_of(2), "'{text}' is no string of bytes");
    let pairs = (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16));
    pairs.collect::<Result<_, _>>().with_context(|| format!("'{text}' is no string of bytes"))
}

fn register(registers: &mut Registers, word: &str) -> Result<()> {
    let field = word.split_once('=').and_then(|(name, digits)| {
        let n = NAMES.iter().position(|n| *n == name)?;
        Some((n, digits))
    });
    let (n, digits) = field.with_context(|| format!("'{word}' is no register"))?;
    ensure!(digits.is_ascii() && (1..=64).contains(&digits.len()), "'{word}' is no value of a register");
    let padded = format!("{digits:0>64}");
    let mut value: Value = [0; 4];
    for (part, at) in value.iter_mut().rev().zip((0..64).step_by(16)) {
        *part = u64::from_str_radix(&padded[at..at + 16], 16)
            .with_context(|| format!("no number in '{word}'"))?;
    }
    fields::set(registers, n, value);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::Generator;
    use gemel_x86::CpuModel;

    #[test]
    fn cases_come_back_from_their_text() {
        for mode in Mode::ALL {
            let mut generator = Generator::new(mode, CpuModel::x86_64_v4(), 7, None);
            for _ in 0..300 {
                let Some((case, _)) = generator.case() else { continue };
                let mut after = case.before;
                (after.gpr[3], after.ymm[2][3], after.st[1]) = (0, 1, 2);
                let changes = vec![Line { address: 0x1234_5000, bytes: [7; 64] }];
                let outcome =
                    Outcome { after, changes, fault: Some(Fault { vector: 14, error_code: 6, cr2: 9 }) };
                let text = to_text(&case, Some(&outcome));
                assert_eq!(parse(&text).unwrap(), (case, Some(outcome)), "{text}");
            }
        }
    }

    #[test]
    fn what_is_no_vector_is_refused() {
        for text in
            ["", "8 90", "64", "64 9", "64 90 rex=1", "64 90 rax=", "64 90 @1=0", "64 90 > #1", "64 é"]
        {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
