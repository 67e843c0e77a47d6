//! Chooses the cases of a corpus and asks silicon.
//!
//! Not responsible for: the file (`format`).
//!
//! A case loses what it does not need before it is measured: registers and patches without which the interpreter does the
//! same. Vectors come from a small set, so that a file can name them by their place.

use super::Corpus;
use crate::case::{Case, Mode, Outcome, Patch, Registers};
use crate::fields::{self, NAMES, RIP};
use crate::generate::random::Random;
use crate::generate::{Generator, decode};
use crate::interpreted::Interpreted;
use crate::native::Native;
use anyhow::{Context, Result};
use gemel_x86::CpuModel;
use iced_x86::{Code, Mnemonic};
use std::collections::BTreeMap;

/// Vectors to choose from.
const CHOICES: usize = 256;
/// Tries for a case before a mnemonic is given up.
const TRIES: usize = 200;

/// Measures `each` cases of every mnemonic that runs, spread over its modes and forms. Of faults there are fewer than of the rest.
///
/// # Errors
/// When silicon can't be asked, or loses a case.
pub fn make(model: &CpuModel, each: usize, seed: u64) -> Result<Corpus> {
    let mut native = Native::start().context("silicon cannot be asked")?;
    let mut interpreted = Interpreted::new(model.clone())?;
    let mut random = Random::new(seed);
    let choices: Vec<_> = (0..CHOICES).map(|_| random.vector()).collect();
    let mut generators = Mode::ALL.map(|mode| Generator::new(mode, model.clone(), seed, None));
    let mut forms: BTreeMap<String, (Mnemonic, Vec<(usize, Code)>)> = BTreeMap::new();
    for (n, generator) in generators.iter().enumerate() {
        for family in generator.families() {
            let name = format!("{:?}", family.mnemonic);
            let (_, all) = forms.entry(name).or_insert((family.mnemonic, Vec::new()));
            all.extend(family.forms.iter().map(|code| (n, *code)));
        }
    }
    let mut vectors = Vec::new();
    for (mnemonic, forms) in forms.values() {
        let mut cases = Vec::new();
        let mut faults = 0;
        for (mode, code) in forms.iter().cycle().take(each * TRIES) {
            if cases.len() == each {
                break;
            }
            let Some((mut case, seen)) = generators[*mode].case_of(*code) else { continue };
            if seen.mnemonic() != *mnemonic {
                continue;
            }
            choose(&mut case, &choices, &mut random);
            let fault = interpreted.run(&case)?.fault.is_some();
            // A fifth may fault as long as others do not; some instructions do nothing else.
            if fault && faults * 5 > cases.len() && !random.one_in(40) {
                continue;
            }
            faults += usize::from(fault);
            cases.push(smallest(case, &mut interpreted)?);
        }
        for (case, answer) in cases.iter().zip(native.run(&cases)?) {
            let outcome = answer.map_err(|lost| anyhow::anyhow!("{mnemonic:?}: {lost}"))?;
            vectors.push((*case, outcome));
        }
    }
    Ok(Corpus { cpu: cpu(), date: today(), vectors })
}

/// Replaces vectors by some of the choices, but for those that address memory.
fn choose(case: &mut Case, choices: &[u128], random: &mut Random) {
    let wide = if case.mode == Mode::Long64 { 16 } else { 8 };
    if !decode(case).is_vsib() {
        for register in &mut case.before.ymm[..wide] {
            let (low, high) = (random.of(choices), random.of(choices));
            *register = [low as u64, (low >> 64) as u64, high as u64, (high >> 64) as u64];
        }
    }
}

/// The case without what it does not need.
fn smallest(mut case: Case, interpreted: &mut Interpreted) -> Result<Case> {
    let mut outcome = interpreted.run(&case)?;
    let plain = Registers::default();
    for n in (0..NAMES.len()).filter(|n| *n != RIP) {
        let mut without = case;
        fields::set(&mut without.before, n, fields::get(&plain, n));
        if without == case {
            continue;
        }
        let then = interpreted.run(&without)?;
        if same(&case, &outcome, &without, &then) {
            (case, outcome) = (without, then);
        }
    }
    for n in 0..case.patches.len() {
        for length in [0, 1, 2, 4, 8, 16, 32] {
            if length >= case.patches[n].length {
                break;
            }
            let mut without = case;
            let kept = &mut without.patches[n];
            kept.length = length;
            kept.bytes[usize::from(length)..].fill(0);
            if length == 0 {
                *kept = Patch::default();
            }
            let then = interpreted.run(&without)?;
            if then == outcome {
                case = without;
                break;
            }
        }
    }
    case.patches.sort_by_key(|patch| patch.length == 0);
    Ok(case)
}

/// Whether two cases do the same, but for registers that keep what they had.
fn same(a: &Case, left_a: &Outcome, b: &Case, left_b: &Outcome) -> bool {
    left_a.fault == left_b.fault
        && left_a.changes == left_b.changes
        && (0..NAMES.len()).all(|n| {
            let (from_a, to_a) = (fields::get(&a.before, n), fields::get(&left_a.after, n));
            let (from_b, to_b) = (fields::get(&b.before, n), fields::get(&left_b.after, n));
            to_a == to_b || from_a == to_a && from_b == to_b
        })
}

/// What the CPU under us calls itself, with family, model and stepping.
pub fn cpu() -> String {
    let leaf = |n| std::arch::x86_64::__cpuid(n);
    let mut name = Vec::new();
    for n in 0x8000_0002..=0x8000_0004 {
        let part = leaf(n);
        [part.eax, part.ebx, part.ecx, part.edx].iter().for_each(|r| name.extend(r.to_le_bytes()));
    }
    let version = leaf(1).eax;
    let family = (version >> 8 & 0xf) + (version >> 20 & 0xff);
    let model = version >> 4 & 0xf | version >> 12 & 0xf0;
    let name = String::from_utf8_lossy(&name).trim_matches(['\0', ' ']).to_string();
    format!("{name}, family {family} model {model} stepping {}", version & 0xf)
}

/// Today's date, UTC.
pub fn today() -> String {
    let seconds = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let days = seconds.map_or(0, |s| s.as_secs() / 86400) as i64;
    // Days since 1 March of the year 0, in cycles of 400 years.
    let shifted = days + 719_468;
    let (cycle, day) = (shifted / 146_097, shifted % 146_097);
    let year = (day - day / 1460 + day / 36524 - day / 146_096) / 365;
    let rest = day - (365 * year + year / 4 - year / 100);
    let month = (5 * rest + 2) / 153;
    let date = rest - (153 * month + 2) / 5 + 1;
    let (month, late) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    format!("{:04}-{month:02}-{date:02}", year + cycle * 400 + late)
}
