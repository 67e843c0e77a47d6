//! How far two unlike CPUs may differ after one instruction: what the manuals leave undefined in just this execution, and nothing else.
//!
//! Not responsible for: what a CPU does with it (`undefined`), comparing runs. Two like CPUs have no latitude.

use super::undefined::{Case, Element, TABLE, Undefined};
use gemel_x86::CpuState;
use gemel_x86::control::EFER_LMA;
use gemel_x86::flags::{AF, CF, OF, PF, SF, STATUS, ZF};
use gemel_x86::segment::{CS, DS, ES, FS, GS, SS, attr};
use iced_x86::{Decoder, DecoderOptions, Instruction, Mnemonic, OpKind, Register};

/// Where a destination operand is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// These bits of a general register, by its number in the encoding.
    Register {
        /// RAX is 0, R15 15.
        number: usize,
        /// The bits.
        bits: u64,
    },
    /// Bytes of memory.
    Memory {
        /// Linear address of the first.
        linear: u64,
        /// How many.
        bytes: u64,
    },
}

/// What is undefined after one execution.
#[derive(Clone, Debug)]
pub struct Latitude {
    mnemonic: Mnemonic,
    /// The table's entries that apply.
    entries: Vec<&'static Undefined>,
    /// Where the destination is, if that is undefined.
    destination: Option<Place>,
    /// RIP afterwards, unless the instruction faulted or something else came in its place.
    next: u64,
}

impl Latitude {
    /// Of what stands at CS:RIP of a state. `read` is up to so many bytes from a linear address on, before it is executed.
    pub fn at(before: &CpuState, read: &dyn Fn(u64, usize) -> Vec<u8>) -> Self {
        let cs = &before.seg[CS];
        let long = before.efer & EFER_LMA != 0 && cs.has(attr::L);
        let (bits, linear) = match (long, cs.has(attr::DB)) {
            (true, _) => (64, before.rip),
            (false, wide) => (if wide { 32 } else { 16 }, cs.base.wrapping_add(before.rip) & 0xffff_ffff),
        };
        let code = read(linear, 15);
        let i = Decoder::with_ip(bits, &code, before.rip, DecoderOptions::AMD).decode();
        Self::of(before, &i, &mut |address| read(address, 1).first().copied())
    }

    /// Of executing `i` in the state `before`. `read` is the byte at a linear address, `None` where there is none.
    pub fn of(before: &CpuState, i: &Instruction, read: &mut dyn FnMut(u64) -> Option<u8>) -> Self {
        let mut latitude =
            Self { mnemonic: i.mnemonic(), entries: Vec::new(), destination: None, next: i.next_ip() };
        if !TABLE.iter().any(|entry| entry.mnemonics.contains(&i.mnemonic())) {
            return latitude;
        }
        let Some(case) = case(before, i, read) else { return latitude };
        let here = |entry: &&Undefined| entry.mnemonics.contains(&i.mnemonic()) && (entry.applies)(&case);
        latitude.entries = TABLE.iter().filter(here).collect();
        if latitude.entries.iter().any(|entry| entry.element == Element::Destination) {
            latitude.destination = destination(before, i);
        }
        latitude
    }

    /// The status flags that are undefined.
    pub fn flags(&self) -> u64 {
        self.entries.iter().fold(0, |flags, entry| flags | entry.flags())
    }

    /// Where the result is, if it is undefined.
    pub fn destination(&self) -> Option<Place> {
        self.destination
    }

    /// What the two states after it, which also differ in the bytes of `memory`, differ in, in words, if all of that is undefined. `None`:
    /// they do not differ, or in something that every CPU must do alike. `memory` has physical addresses; `physical` is that
    /// of a linear one.
    pub fn excuse(
        &self,
        a: &CpuState,
        b: &CpuState,
        memory: &[u64],
        physical: &dyn Fn(u64) -> Option<u64>,
    ) -> Option<String> {
        let in_destination = |address: &u64| match self.destination {
            Some(Place::Memory { linear, bytes }) => {
                (0..bytes).any(|n| physical(linear.wrapping_add(n)) == Some(*address))
            }
            _ => false,
        };
        if (a.rip, b.rip) != (self.next, self.next) || !memory.iter().all(in_destination) {
            return None;
        }
        let mut same = b.clone();
        let flags = (a.rflags ^ b.rflags) & self.flags();
        same.rflags ^= flags;
        let mut written = !memory.is_empty();
        if let Some(Place::Register { number, bits }) = self.destination {
            let other = (a.gpr[number] ^ b.gpr[number]) & bits;
            same.gpr[number] ^= other;
            written |= other != 0;
        }
        if (flags == 0 && !written) || !a.differences(&same, false).is_empty() {
            return None;
        }
        let mut parts: Vec<String> =
            FLAGS.iter().filter(|(f, _)| flags & f != 0).map(|(_, n)| (*n).into()).collect();
        if written {
            parts.push("the destination".into());
        }
        let used = |entry: &&&Undefined| match entry.element {
            Element::Flags(f) => f & flags != 0,
            Element::Destination => written,
        };
        let mut when: Vec<&str> = self.entries.iter().filter(used).map(|entry| entry.when).collect();
        when.dedup();
        let name = format!("{:?}", self.mnemonic).to_uppercase();
        Some(format!("{}: undefined after {name} ({})", parts.join(", "), when.join("; ")))
    }
}

const FLAGS: [(u64, &str); 6] = [(CF, "CF"), (PF, "PF"), (AF, "AF"), (ZF, "ZF"), (SF, "SF"), (OF, "OF")];

/// The execution as the table's conditions see it: they ask for width, count and second operand. `None` if that lies in memory
/// that cannot be read.
fn case(before: &CpuState, i: &Instruction, read: &mut dyn FnMut(u64) -> Option<u8>) -> Option<Case> {
    let width = match i.op_count() {
        0 => 16,
        _ => operand_size(i, 0) as u32 * 8,
    };
    let last = i.op_count().saturating_sub(1);
    let second = if i.op_count() > 1 { operand(before, i, 1, read)? } else { 0 };
    let count = if i.op_count() > 1 { operand(before, i, last, read)? } else { 1 };
    let count = count as u32 & if width == 64 { 63 } else { 31 };
    Some(Case { width, b: second, count, before: before.rflags & STATUS, ..Case::default() })
}

fn operand_size(i: &Instruction, n: u32) -> usize {
    match i.op_kind(n) {
        OpKind::Register => i.op_register(n).size(),
        OpKind::Memory => i.memory_size().size(),
        _ => 1,
    }
}

/// An operand's value, zero-extended.
fn operand(
    before: &CpuState,
    i: &Instruction,
    n: u32,
    read: &mut dyn FnMut(u64) -> Option<u8>,
) -> Option<u64> {
    match i.op_kind(n) {
        OpKind::Register => Some(register(before, i.op_register(n))),
        OpKind::Memory => {
            let at = address(before, i, n)?;
            (0..operand_size(i, n) as u64)
                .try_fold(0, |value, k| Some(value | u64::from(read(at.wrapping_add(k))?) << (8 * k)))
        }
        _ => Some(i.immediate(n)),
    }
}

/// The value of a general register or a part of one, zero-extended.
fn register(state: &CpuState, r: Register) -> u64 {
    if !r.is_gpr() {
        return 0;
    }
    let whole = state.gpr[r.full_register().number()];
    let high = matches!(r, Register::AH | Register::CH | Register::DH | Register::BH);
    (if high { whole >> 8 } else { whole }) & u64::MAX >> (64 - 8 * r.size())
}

fn address(before: &CpuState, i: &Instruction, n: u32) -> Option<u64> {
    let linear = i.virtual_address(n, 0, |r, _, _| {
        let segment = match r {
            Register::ES => ES,
            Register::CS => CS,
            Register::SS => SS,
            Register::DS => DS,
            Register::FS => FS,
            Register::GS => GS,
            _ => return Some(register(before, r)),
        };
        // In 64-bit code only FS and GS have a base (SDM 1 3.4.2.1).
        let flat = i.code_size() == iced_x86::CodeSize::Code64 && !matches!(segment, FS | GS);
        Some(if flat { 0 } else { before.seg[segment].base })
    })?;
    Some(if i.code_size() == iced_x86::CodeSize::Code64 { linear } else { linear & 0xffff_ffff })
}

fn destination(before: &CpuState, i: &Instruction) -> Option<Place> {
    if i.op_kind(0) == OpKind::Memory {
        return Some(Place::Memory { linear: address(before, i, 0)?, bytes: i.memory_size().size() as u64 });
    }
    let r = i.op_register(0);
    // A 32-bit result clears the upper half; what BSF and BSR leave of theirs if the source is 0 differs between CPUs.
    let bits = if r.size() == 4 { u64::MAX } else { u64::MAX >> (64 - 8 * r.size()) };
    Some(Place::Register { number: r.full_register().number(), bits })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(bits: u32, code: &[u8]) -> Instruction {
        Decoder::with_ip(bits, code, 0x1000, DecoderOptions::NONE).decode()
    }

    /// Linear addresses are mapped to the same but for one page.
    fn mapped(linear: u64) -> Option<u64> {
        Some(if linear >> 12 == 7 { linear | 0x10_0000 } else { linear })
    }

    fn latitude(code: &[u8], set: impl FnOnce(&mut CpuState)) -> (Latitude, CpuState) {
        let mut before = CpuState::default();
        set(&mut before);
        let i = decoded(64, code);
        let latitude = Latitude::of(&before, &i, &mut |_| Some(0));
        (latitude, CpuState { rip: i.next_ip(), ..before })
    }

    /// What the SDM says of each, in the section named like the instruction.
    #[test]
    fn exactly_what_the_manual_leaves_undefined_in_this_execution() {
        for (code, count, flags, destination) in [
            (&[0x48u8, 0x21, 0xd8][..], 0, AF, false),     // and rax, rbx
            (&[0x48, 0xd3, 0xe0], 0, 0, false),            // shl rax, cl by 0: no flag is touched
            (&[0x48, 0xd3, 0xe0], 1, AF, false),           // by 1: OF is defined
            (&[0x48, 0xd3, 0xe0], 2, AF | OF, false),      // by more: it is not
            (&[0x48, 0xd3, 0xe0], 64, 0, false),           // masked to 0
            (&[0xd2, 0xe0], 9, AF | OF | CF, false),       // shl al, cl beyond its width: nor is CF
            (&[0xd2, 0xf8], 9, AF | OF, false),            // sar al, cl: CF is the sign
            (&[0xd3, 0xc0], 5, OF, false),                 // rol eax, cl
            (&[0xd3, 0xc0], 1, 0, false),                  // by 1
            (&[0x66, 0x0f, 0xa5, 0xd8], 17, STATUS, true), // shld ax, bx, cl
            (&[0x66, 0x0f, 0xa5, 0xd8], 15, AF | OF, false),
            (&[0x48, 0x0f, 0xa5, 0xd8], 17, AF | OF, false), // shld rax, rbx, cl
            (&[0x48, 0xf7, 0xe3], 0, SF | ZF | AF | PF, false), // mul rbx
            (&[0x48, 0xf7, 0xf3], 0, STATUS, false),         // div rbx
            (&[0x48, 0x01, 0xd8], 0, 0, false),              // add rax, rbx
            (&[0x0f, 0xc8], 0, 0, false),                    // bswap eax
            (&[0x66, 0x0f, 0xc8], 0, 0, true),               // bswap ax
            (&[0x0f, 0xa3, 0xd8], 0, OF | SF | AF | PF, false), // bt eax, ebx
        ] {
            let (latitude, _) = latitude(code, |s| s.gpr[1] = count);
            let found = (latitude.flags(), latitude.destination().is_some());
            assert_eq!(found, (flags, destination), "{code:x?} by {count}");
        }
    }

    #[test]
    fn a_scan_of_nothing_leaves_its_destination_open_in_registers_and_memory() {
        let bsf = [0x48, 0x0f, 0xbc, 0xc3]; // bsf rax, rbx
        assert_eq!(latitude(&bsf, |s| s.gpr[3] = 4).0.destination(), None);
        let whole = Some(Place::Register { number: 0, bits: u64::MAX });
        assert_eq!(latitude(&bsf, |s| s.gpr[3] = 0).0.destination(), whole);
        let (i, before) = (decoded(64, &[0x0f, 0xbc, 0x43, 0x08]), CpuState::default()); // bsf eax, [rbx+8]
        for (byte, open) in [(Some(0), true), (Some(1), false), (None, false)] {
            let mut asked = Vec::new();
            let latitude = Latitude::of(&before, &i, &mut |at| {
                asked.push(at);
                byte
            });
            assert_eq!(latitude.destination().is_some(), open);
            assert_eq!(asked[0], 8);
        }
    }

    #[test]
    fn a_difference_is_excused_if_all_of_it_is_undefined_and_not_otherwise() {
        let (latitude, a) = latitude(&[0x48, 0xd3, 0xe0], |s| s.gpr[1] = 2); // shl rax, cl
        let differing = |change: fn(&mut CpuState)| {
            let mut b = a.clone();
            change(&mut b);
            latitude.excuse(&a, &b, &[], &mapped)
        };
        let said = differing(|b| b.rflags ^= AF);
        assert_eq!(said.as_deref(), Some("AF: undefined after SHL (count not 0)"));
        let said = differing(|b| b.rflags ^= AF | OF);
        assert_eq!(said.as_deref(), Some("AF, OF: undefined after SHL (count not 0; count beyond 1)"));
        assert_eq!(differing(|_| ()), None, "no difference");
        assert_eq!(differing(|b| b.rflags ^= ZF), None, "ZF is defined");
        assert_eq!(differing(|b| b.rflags ^= ZF | AF), None, "one of two is defined");
        assert_eq!(differing(|b| b.gpr[0] ^= 1), None, "the result is defined");
        assert_eq!(differing(|b| (b.rflags, b.gpr[9]) = (b.rflags ^ AF, 1)), None, "another register");
        assert_eq!(differing(|b| (b.rflags, b.rip) = (b.rflags ^ AF, 0)), None, "one of them went elsewhere");
        assert_eq!(latitude.excuse(&a, &a, &[0x500], &mapped), None, "memory");
    }

    #[test]
    fn an_undefined_result_in_memory_covers_its_bytes_and_no_others() {
        // shld [fs:rbx], ax, 17
        let code = [0x64, 0x66, 0x0f, 0xa4, 0x03, 17];
        let (latitude, a) = latitude(&code, |s| (s.gpr[3], s.seg[FS].base) = (0x10, 0x7000));
        assert_eq!(latitude.destination(), Some(Place::Memory { linear: 0x7010, bytes: 2 }));
        let said = latitude.excuse(&a, &a, &[0x10_7010, 0x10_7011], &mapped);
        let expected = "the destination: undefined after SHLD (count beyond the operand size)";
        assert_eq!(said.as_deref(), Some(expected));
        assert_eq!(latitude.excuse(&a, &a, &[0x10_7010, 0x10_7012], &mapped), None);
        assert_eq!(latitude.excuse(&a, &a, &[0x10_700f], &mapped), None);
        assert_eq!(latitude.excuse(&a, &a, &[0x7010], &mapped), None);
    }

    #[test]
    fn sixteen_bit_code_adds_the_segments_base() {
        let i = decoded(16, &[0x0f, 0xa4, 0x07, 17]); // shld [bx], ax, 17
        let mut before = CpuState::default();
        (before.gpr[3], before.seg[DS].base) = (0xffff_0020, 0x1230);
        let latitude = Latitude::of(&before, &i, &mut |_| None);
        // The operand's old value is not asked for: the condition is the count.
        assert_eq!(latitude.destination(), Some(Place::Memory { linear: 0x1250, bytes: 2 }));
    }
}
