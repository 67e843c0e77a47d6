//! A step as a test vector: one instruction with all that it sees and what each machine left of it, in the lines that `gemel-isa`
//! reads (tests/isa/src/vector.rs), so that silicon can be asked who is right.
//!
//! Not responsible for: moving the instruction to where vectors run (`moved`).

mod moved;

use crate::linear;
use gemel_machine::GuestRam;
use gemel_x86::CpuState;
use gemel_x86::flags::{DF, FIXED, IF, RF, STATUS, TF};
pub use moved::ARENA;
use moved::Moved;
use std::fmt::Write;

/// Where cases have their code: an offset in the arena's code page.
const RIP: u64 = moved::CODE + 0x800;
const LINE: usize = 64;
#[rustfmt::skip]
const GENERAL: [&str; 16] = [
    "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
];
/// Elements of the CPU that user code has, by the beginnings of their names.
const USER: [&str; 14] = [
    "gpr[",
    "rip",
    "rflags",
    "fcw",
    "fsw",
    "ftw",
    "fop",
    "fip",
    "fcs",
    "fdp",
    "fds",
    "st[",
    "xmm[",
    "ymm_upper[",
];

/// Registers by name, as wide as the widest: quadwords, lowest first.
type Shown = Vec<(String, [u64; 4])>;

/// The step, seen as a case.
pub(crate) struct Case {
    before: CpuState,
    moved: Moved,
}

impl Case {
    /// The instruction at CS:RIP as a case; otherwise why it is none.
    pub(crate) fn of(ram: &GuestRam, before: &CpuState) -> Result<Self, &'static str> {
        let code = linear::instruction(ram, before).ok_or("nothing can be fetched there")?;
        Ok(Self { before: before.clone(), moved: Moved::of(ram, before, &code)? })
    }

    /// The memory that it sees, in lines.
    pub(crate) fn memory(&self, ram: &GuestRam) -> Vec<[u8; LINE]> {
        let line = |(_, physical): &(u64, u64)| ram.read_array(*physical).unwrap_or([0; LINE]);
        self.moved.lines.iter().map(line).collect()
    }

    /// Whether a byte of RAM is among it.
    pub(crate) fn covers(&self, address: u64) -> bool {
        self.moved.lines.iter().any(|(_, physical)| (*physical..*physical + LINE as u64).contains(&address))
    }

    /// The vector's text: a line for each machine, under its name. `memory` is before the step and after it in each machine.
    pub(crate) fn text(
        &self,
        names: &[String; 2],
        after: [&CpuState; 2],
        memory: [Vec<[u8; LINE]>; 3],
    ) -> Result<String, &'static str> {
        let differences = after[0].differences(after[1], false);
        let mxcsr = |element: &str| element == "mxcsr" || USER.iter().any(|user| element.starts_with(user));
        if differences.iter().any(|d| !mxcsr(&d.element)) {
            return Err("what differs is not all user code's");
        }
        if (after[0].rflags ^ after[1].rflags) & !(STATUS | DF) != 0 {
            return Err("a flag differs that is not user code's");
        }
        let went_on = after.map(|state| self.moved.went_on(&self.before, state));
        if went_on == [false; 2] {
            return Err("the step was the delivery of an interrupt or an exception");
        }
        let [memory, left, right] = memory;
        let mut text = String::new();
        for (name, (state, (went_on, lines))) in
            names.iter().zip(after.into_iter().zip(went_on.into_iter().zip([left, right])))
        {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "# {name}");
            self.before(&mut text, after, &memory);
            if went_on {
                self.after(&mut text, after, state, &memory, &lines);
            }
            text.push('\n');
        }
        Ok(text)
    }

    fn before(&self, text: &mut String, after: [&CpuState; 2], memory: &[[u8; LINE]]) {
        let _ = write!(text, "{} {}", self.moved.bits, hex(&self.moved.code));
        put(text, &Shown::new(), &self.shown(after, &self.before, RIP, 0));
        for ((address, _), content) in self.moved.lines.iter().zip(memory) {
            let _ = write!(text, " @{address:x}={}", hex(content));
        }
    }

    fn after(
        &self,
        text: &mut String,
        after: [&CpuState; 2],
        state: &CpuState,
        memory: &[[u8; LINE]],
        lines: &[[u8; LINE]],
    ) {
        let rip = RIP.wrapping_add(state.rip.wrapping_sub(self.before.rip)) & self.moved.address_mask();
        // Between the iterations of a repetition a single step shows RF (SDM 3B 17.3.1.1).
        let resume = if state.rip == self.before.rip { RF } else { 0 };
        text.push_str(" >");
        let before = self.shown(after, &self.before, RIP, 0);
        put(text, &before, &self.shown(after, state, rip, resume));
        let mut changed: Vec<_> =
            self.moved.lines.iter().zip(memory.iter().zip(lines)).filter(|(_, (x, y))| x != y).collect();
        changed.sort_by_key(|((address, _), _)| *address);
        for ((address, _), (_, content)) in changed {
            let _ = write!(text, " @{address:x}={}", hex(content));
        }
    }

    /// The registers of a state that the instruction uses, or that change in either machine.
    fn shown(&self, after: [&CpuState; 2], state: &CpuState, rip: u64, flags: u64) -> Shown {
        let changed = |of: &dyn Fn(&CpuState) -> bool| after.iter().any(|state| of(state));
        let (moved, before) = (&self.moved, &self.before);
        let mut shown = Shown::new();
        let registers = if moved.bits == 64 { 16 } else { 8 };
        for (n, name) in GENERAL.into_iter().enumerate().take(registers) {
            if moved.general & 1 << n != 0 || changed(&|s| s.gpr[n] != before.gpr[n]) {
                shown.push((name.into(), [moved.general(n, state, before), 0, 0, 0]));
            }
        }
        shown.push(("rip".into(), [rip, 0, 0, 0]));
        shown.push(("rflags".into(), [state.rflags & (STATUS | DF) | TF | IF | FIXED | flags, 0, 0, 0]));
        shown.push(("mxcsr".into(), [state.mxcsr.into(), 0, 0, 0]));
        let float =
            |s: &CpuState| (s.fcw, s.fsw, s.ftw, s.st) != (before.fcw, before.fsw, before.ftw, before.st);
        if moved.float || changed(&float) {
            for (name, value) in [("fcw", state.fcw), ("fsw", state.fsw), ("ftw", state.ftw.into())] {
                shown.push((name.into(), [value.into(), 0, 0, 0]));
            }
            let top = usize::from(state.fsw >> 11 & 7);
            for n in 0..8 {
                let value = state.st[(top + n) & 7];
                shown.push((format!("st{n}"), [value as u64, (value >> 64) as u64, 0, 0]));
            }
        }
        let vector = |s: &CpuState, n: usize| (s.xmm[n], s.ymm_upper[n]);
        for n in 0..registers {
            if moved.vector & 1 << n != 0 || changed(&|s| vector(s, n) != vector(before, n)) {
                let (low, high) = vector(state, n);
                let value = [low as u64, (low >> 64) as u64, high as u64, (high >> 64) as u64];
                shown.push((format!("ymm{n}"), value));
            }
        }
        shown
    }
}

/// What a register is in a case that does not name it.
fn default(name: &str) -> [u64; 4] {
    let low = match name {
        "rflags" => TF | IF | FIXED,
        "mxcsr" => 0x1f80,
        "fcw" => 0x37f,
        _ => 0,
    };
    [low, 0, 0, 0]
}

fn put(text: &mut String, from: &Shown, to: &Shown) {
    for (n, (name, value)) in to.iter().enumerate() {
        if *value != from.get(n).map_or_else(|| default(name), |(_, value)| *value) {
            let [a, b, c, d] = value;
            let digits = format!("{d:016x}{c:016x}{b:016x}{a:016x}");
            let short = digits.trim_start_matches('0');
            let _ = write!(text, " {name}={}", if short.is_empty() { "0" } else { short });
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |hex, b| hex + &format!("{b:02x}"))
}
