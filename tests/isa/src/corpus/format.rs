//! The corpus as bytes.
//!
//! Not responsible for: what is in it.
//!
//! ```text
//! file     = "gemel-isa corpus 1\n" cpu "\n" date "\n" palette count vector*
//! palette  = count value-as-16-bytes*
//! vector   = mode-and-length code registers patch-count patch* registers fault line-count line*
//!            mode-and-length: mode << 4 | length of the code
//! registers = bits of those that differ (the first from the default state, the second from the first) number*
//!            none that AVX-512 adds; a corpus is for models without it
//!            a YMM register is two numbers, low half first; every other one is one
//! patch    = address length bytes
//! line     = address runs run*          a line of 64 bytes of which runs differ from memory before
//! run      = start length bytes
//! fault    = 0 | vector + 1, error code, CR2
//! bytes    = numbers of 16 bytes each, the last one shorter
//! number   = n, n bytes (n up to 16)  |  17 + place in the palette
//! ```
//!
//! Counts, addresses (from the arena's base), bits, and all that is not said to be bytes: LEB128.

use super::Corpus;
use crate::arena::{self, BASE};
use crate::case::{Case, Fault, Line, Mode, Outcome, Patch, Registers};
use crate::fields::{self, AVX512, YMM};
use anyhow::{Context, Result, bail, ensure};
use std::collections::BTreeMap;

const MAGIC: &str = "gemel-isa corpus 1";
/// Numbers of up to so many bytes are not worth a place in the palette.
const SMALL: usize = 2;
const WIDEST: usize = 16;

/// Writes a corpus.
pub fn write(corpus: &Corpus) -> Vec<u8> {
    // Once to count numbers, once to write them.
    let mut counting = Writer::default();
    corpus.vectors.iter().for_each(|(case, outcome)| counting.vector(case, outcome));
    let mut palette: Vec<_> = counting.seen.into_iter().filter(|(_, n)| *n > 1).collect();
    palette.sort_by_key(|(number, n)| (std::cmp::Reverse(*n), *number));
    let mut out = format!("{MAGIC}\n{}\n{}\n", corpus.cpu, corpus.date).into_bytes();
    let mut writer = Writer::default();
    writer.varint(palette.len() as u64);
    for (place, (number, _)) in palette.into_iter().enumerate() {
        writer.out.extend_from_slice(&number.to_le_bytes());
        writer.places.insert(number, place as u64);
    }
    writer.varint(corpus.vectors.len() as u64);
    corpus.vectors.iter().for_each(|(case, outcome)| writer.vector(case, outcome));
    out.append(&mut writer.out);
    out
}

#[derive(Default)]
struct Writer {
    out: Vec<u8>,
    seen: BTreeMap<u128, u32>,
    places: BTreeMap<u128, u64>,
}

fn width(number: u128) -> usize {
    WIDEST - number.leading_zeros() as usize / 8
}

impl Writer {
    fn varint(&mut self, mut value: u64) {
        while value > 0x7f {
            self.out.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.out.push(value as u8);
    }

    fn number(&mut self, number: u128) {
        let width = width(number);
        if width > SMALL {
            *self.seen.entry(number).or_default() += 1;
        }
        match self.places.get(&number).copied() {
            Some(place) => self.varint(WIDEST as u64 + 1 + place),
            None => {
                self.out.push(width as u8);
                self.out.extend_from_slice(&number.to_le_bytes()[..width]);
            }
        }
    }

    fn bytes(&mut self, bytes: &[u8]) {
        for piece in bytes.chunks(WIDEST) {
            let mut whole = [0; WIDEST];
            whole[..piece.len()].copy_from_slice(piece);
            self.number(u128::from_le_bytes(whole));
        }
    }

    fn registers(&mut self, from: &Registers, to: &Registers) {
        let changed = (0..AVX512).filter(|n| fields::get(from, *n) != fields::get(to, *n));
        self.varint(changed.clone().fold(0, |bits, n| bits | 1 << n));
        for n in changed {
            let [a, b, c, d] = fields::get(to, n).map(u128::from);
            self.number(a | b << 64);
            if n >= YMM {
                self.number(c | d << 64);
            }
        }
    }

    fn vector(&mut self, case: &Case, outcome: &Outcome) {
        self.out.push((case.mode as u8) << 4 | case.code().len() as u8);
        self.out.extend_from_slice(case.code());
        self.registers(&Registers::default(), &case.before);
        let patches: Vec<_> = case.patches.iter().filter(|p| p.length != 0).collect();
        self.varint(patches.len() as u64);
        for patch in patches {
            self.varint(u64::from(patch.address - BASE));
            self.varint(patch.length.into());
            self.bytes(&patch.bytes[..usize::from(patch.length)]);
        }
        self.registers(&case.before, &outcome.after);
        match outcome.fault {
            None => self.varint(0),
            Some(Fault { vector, error_code, cr2 }) => {
                self.varint(u64::from(vector) + 1);
                self.varint(error_code.into());
                self.varint(cr2);
            }
        }
        self.varint(outcome.changes.len() as u64);
        for line in &outcome.changes {
            let runs = runs(&line_before(case, line.address), &line.bytes);
            self.varint(u64::from(line.address - BASE));
            self.varint(runs.len() as u64);
            for (start, end) in runs {
                self.varint(start as u64);
                self.varint((end - start) as u64);
                self.bytes(&line.bytes[start..end]);
            }
        }
    }
}

/// A line of memory as a case finds it.
fn line_before(case: &Case, address: u32) -> [u8; 64] {
    let mut line = [0; 64];
    for (byte, at) in line.iter_mut().zip(address..) {
        *byte = arena::background().get(at.wrapping_sub(BASE) as usize).copied().unwrap_or(0);
        for patch in &case.patches {
            let offset = at.wrapping_sub(patch.address) as usize;
            if offset < usize::from(patch.length) {
                *byte = patch.bytes[offset];
            }
        }
    }
    line
}

/// Where bytes differ, as (start, end); gaps of two are not worth a new run.
fn runs(before: &[u8; 64], after: &[u8; 64]) -> Vec<(usize, usize)> {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for n in (0..64).filter(|n| before[*n] != after[*n]) {
        match runs.last_mut() {
            Some((_, end)) if n - *end <= 2 => *end = n + 1,
            _ => runs.push((n, n + 1)),
        }
    }
    runs
}

/// Reads a corpus.
///
/// # Errors
/// When the bytes are none.
pub fn read(bytes: &[u8]) -> Result<Corpus> {
    let mut reader = Reader { bytes, palette: Vec::new() };
    ensure!(reader.line()? == MAGIC, "this is no corpus of version 1");
    let (cpu, date) = (reader.line()?, reader.line()?);
    for _ in 0..reader.varint()? {
        let number = reader.take(WIDEST)?.try_into().map(u128::from_le_bytes)?;
        reader.palette.push(number);
    }
    let mut vectors = Vec::new();
    for _ in 0..reader.varint()? {
        vectors.push(reader.vector().with_context(|| format!("vector {}", vectors.len()))?);
    }
    ensure!(reader.bytes.is_empty(), "the corpus goes on behind its last vector");
    Ok(Corpus { cpu, date, vectors })
}

struct Reader<'a> {
    bytes: &'a [u8],
    palette: Vec<u128>,
}

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.bytes.split_at_checked(n).context("the corpus ends too early")?;
        self.bytes = rest;
        Ok(taken)
    }

    fn line(&mut self) -> Result<String> {
        let end = self.bytes.iter().position(|b| *b == b'\n').context("a line of the header is missing")?;
        let text = str::from_utf8(self.take(end)?)?.to_string();
        self.take(1)?;
        Ok(text)
    }

    fn varint(&mut self) -> Result<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        bail!("a number of more than 64 bits")
    }

    fn number(&mut self) -> Result<u128> {
        let tag = self.varint()? as usize;
        if tag > WIDEST {
            let number = self.palette.get(tag - WIDEST - 1);
            return number.copied().context("a place behind the palette's end");
        }
        let mut whole = [0; WIDEST];
        whole[..tag].copy_from_slice(self.take(tag)?);
        Ok(u128::from_le_bytes(whole))
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<()> {
        for piece in bytes.chunks_mut(WIDEST) {
            let length = piece.len();
            piece.copy_from_slice(&self.number()?.to_le_bytes()[..length]);
        }
        Ok(())
    }

    fn registers(&mut self, registers: &mut Registers) -> Result<()> {
        let changed = self.varint()?;
        ensure!(changed >> AVX512 == 0, "a register that is not there");
        for n in (0..AVX512).filter(|n| changed >> n & 1 != 0) {
            let low = self.number()?;
            let high = if n >= YMM { self.number()? } else { 0 };
            fields::set(registers, n, [low as u64, (low >> 64) as u64, high as u64, (high >> 64) as u64]);
        }
        Ok(())
    }

    fn address(&mut self) -> Result<u32> {
        let offset = self.varint()?;
        ensure!(offset < arena::SPAN.into(), "an address outside of the arena");
        Ok(BASE + offset as u32)
    }

    fn vector(&mut self) -> Result<(Case, Outcome)> {
        let first = self.take(1)?[0];
        let mode = *Mode::ALL.get(usize::from(first >> 4)).context("a mode that is not there")?;
        let mut case = Case { mode, length: first & 0xf, ..Case::default() };
        let length = usize::from(case.length);
        case.code[..length].copy_from_slice(self.take(length)?);
        self.registers(&mut case.before)?;
        let patches = self.varint()? as usize;
        for patch in case.patches.get_mut(..patches).context("too many patches")? {
            let (address, length) = (self.address()?, self.varint()?);
            *patch = Patch { address, length: length as u8, bytes: [0; 64] };
            self.fill(patch.bytes.get_mut(..length as usize).context("a patch of more than 64 bytes")?)?;
        }
        let mut outcome = Outcome { after: case.before, changes: Vec::new(), fault: None };
        self.registers(&mut outcome.after)?;
        if let vector @ 1.. = self.varint()? {
            let (error_code, cr2) = (self.varint()? as u32, self.varint()?);
            outcome.fault = Some(Fault { vector: (vector - 1) as u8, error_code, cr2 });
        }
        for _ in 0..self.varint()? {
            let address = self.address()?;
            let mut line = Line { address, bytes: line_before(&case, address) };
            for _ in 0..self.varint()? {
                let (start, length) = (self.varint()? as usize, self.varint()? as usize);
                let run = line.bytes.get_mut(start..).and_then(|rest| rest.get_mut(..length));
                self.fill(run.context("a run outside of its line")?)?;
            }
            outcome.changes.push(line);
        }
        Ok((case, outcome))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::Generator;
    use crate::interpreted::Interpreted;
    use gemel_x86::CpuModel;

    #[test]
    fn a_corpus_comes_back_and_no_part_of_one_is_one() {
        let model = CpuModel::x86_64_v3();
        let mut interpreted = Interpreted::new(model.clone()).unwrap();
        let mut corpus = Corpus { cpu: "a CPU".into(), date: "a day".into(), vectors: Vec::new() };
        for mode in Mode::ALL {
            let mut generator = Generator::new(mode, model.clone(), 3, None);
            for (case, _) in std::iter::repeat_with(|| generator.case()).flatten().take(200) {
                corpus.vectors.push((case, interpreted.run(&case).unwrap()));
            }
        }
        let bytes = write(&corpus);
        assert!(read(&bytes).unwrap() == corpus);
        for length in (0..bytes.len()).step_by(97) {
            assert!(read(&bytes[..length]).is_err(), "{length}");
        }
    }
}
