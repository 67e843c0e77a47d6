//! Says where two outcomes of a case differ: every bit of everything.
//!
//! Not responsible for: what is done about it (`run`).
//!
//! Three things are not compared. Zen 4's MXCSR has bit 17, which lets SSE operands be unaligned; no model offers it, so that the
//! mask that FXSAVE stores is the model's (the generator leaves the bit clear). A page fault at an address of the kernel's half has the P bit of its error code as the host's
//! kernel likes (it hides its own page tables, arch/x86/mm/fault.c `sanitize_error_code`). And where the host's vendor is not
//! the models' (AMD), flags that the manuals leave undefined and x87's last-instruction pointers are that vendor's.

use crate::case::{Case, Fault, Outcome, Registers};
use crate::fields::{self, NAMES, RFLAGS, Value};
use crate::generate::{decode, operand_address};
use gemel_interp::isa;
use gemel_x86::Vector;
use iced_x86::Mnemonic;
use std::fmt::{self, Write};

/// MXCSR bit 17 in its third byte.
const MISALIGNED: u8 = 1 << 1;
/// End of user addresses in Linux's four-level paging.
const USER_END: u64 = (1 << 47) - 4096;
const FLAGS: [(u32, &str); 11] = [
    (0, "CF"),
    (2, "PF"),
    (4, "AF"),
    (6, "ZF"),
    (7, "SF"),
    (8, "TF"),
    (9, "IF"),
    (10, "DF"),
    (11, "OF"),
    (16, "RF"),
    (18, "AC"),
];

/// Whether the host's vendor is the models'.
pub fn host_is_amd() -> bool {
    let leaf = std::arch::x86_64::__cpuid(0);
    [leaf.ebx, leaf.edx, leaf.ecx].map(u32::to_le_bytes).concat() == b"AuthenticAMD"
}

/// One element that differs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Difference {
    /// The element, as in `rax`, `AF`, `fault`, `memory`.
    pub element: String,
    /// Whether it is a kind of result that the manuals leave to the vendor, and the host is of another one.
    pub vendor: bool,
    /// What silicon left.
    pub native: String,
    /// What the interpreter left.
    pub ours: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: silicon {}, interpreter {}", self.element, self.native, self.ours)
    }
}

/// Compares outcomes. `like_cpus` is whether the host is of the models' vendor.
pub fn differences(case: &Case, native: &Outcome, ours: &Outcome, like_cpus: bool) -> Vec<Difference> {
    let mut out = Vec::new();
    if equal(native, ours) {
        return out;
    }
    let native = &with_our_mask(case, native);
    if masked(native.fault) != masked(ours.fault) {
        out.push(Difference {
            element: format!("fault {} for {}", name(native.fault), name(ours.fault)),
            vendor: false,
            native: fault_text(native.fault),
            ours: fault_text(ours.fault),
        });
    }
    registers(case, &native.after, &ours.after, like_cpus, &mut out);
    memory(native, ours, &mut out);
    out
}

fn equal(native: &Outcome, ours: &Outcome) -> bool {
    native.after == ours.after && masked(native.fault) == masked(ours.fault) && native.changes == ours.changes
}

/// The outcome as it were with the model's MXCSR_MASK.
fn with_our_mask(case: &Case, native: &Outcome) -> Outcome {
    let (mut native, i) = (native.clone(), decode(case));
    if !matches!(i.mnemonic(), Mnemonic::Fxsave | Mnemonic::Fxsave64) {
        return native;
    }
    let Some(area) = operand_address(case, &i) else { return native };
    // Byte 2 of MXCSR_MASK; the area is aligned to 16, so it lies in the line of its first byte or the next one.
    let at = (area as u32).wrapping_add(30);
    if let Some(line) = native.changes.iter_mut().find(|l| l.address == at & !63) {
        line.bytes[at as usize & 63] &= !MISALIGNED;
    }
    native
}

/// Without the P bit of kernel addresses.
fn masked(fault: Option<Fault>) -> Option<Fault> {
    fault.map(|f| {
        let hidden = f.vector == Vector::PageFault as u8 && f.cr2 >= USER_END;
        Fault { error_code: f.error_code & if hidden { !1 } else { !0 }, ..f }
    })
}

fn name(fault: Option<Fault>) -> String {
    fault.map_or("none".into(), |f| f.vector.to_string())
}

fn fault_text(fault: Option<Fault>) -> String {
    fault.map_or("none".into(), |f| format!("{} error {:#x} cr2 {:#x}", f.vector, f.error_code, f.cr2))
}

fn registers(case: &Case, native: &Registers, ours: &Registers, like_cpus: bool, out: &mut Vec<Difference>) {
    for (n, name) in NAMES.iter().enumerate() {
        let (a, b) = (fields::get(native, n), fields::get(ours, n));
        if a == b {
            continue;
        }
        if n == RFLAGS {
            flags(case, a[0], b[0], like_cpus, out);
            continue;
        }
        let vendor = !like_cpus && ["fop", "fip", "fdp"].contains(name);
        out.push(Difference { element: (*name).into(), vendor, native: hex(a), ours: hex(b) });
    }
}

fn flags(case: &Case, native: u64, ours: u64, like_cpus: bool, out: &mut Vec<Difference>) {
    let undefined = isa::find(decode(case).mnemonic()).map_or(0, |entry| entry.undefined);
    for bit in (0..64).filter(|bit| (native ^ ours) >> bit & 1 != 0) {
        let name = FLAGS.iter().find(|(n, _)| *n == bit);
        out.push(Difference {
            element: name.map_or(format!("flag {bit}"), |(_, name)| (*name).into()),
            vendor: !like_cpus && undefined >> bit & 1 != 0,
            native: (native >> bit & 1).to_string(),
            ours: (ours >> bit & 1).to_string(),
        });
    }
}

fn hex(value: Value) -> String {
    let [a, b, c, d] = value;
    match value {
        [_, 0, 0, 0] => format!("{a:#x}"),
        [_, _, 0, 0] => format!("{b:#x}_{a:016x}"),
        _ => format!("{d:#x}_{c:016x}_{b:016x}_{a:016x}"),
    }
}

fn memory(native: &Outcome, ours: &Outcome, out: &mut Vec<Difference>) {
    if native.changes == ours.changes {
        return;
    }
    let text = |outcome: &Outcome, other: &Outcome| {
        let mut text = String::new();
        for line in outcome.changes.iter().filter(|l| !other.changes.contains(l)) {
            let _ = write!(text, "{:#x}:", line.address);
            for byte in line.bytes {
                let _ = write!(text, "{byte:02x}");
            }
            text.push(' ');
        }
        text
    };
    out.push(Difference {
        element: "memory".into(),
        vendor: false,
        native: text(native, ours),
        ours: text(ours, native),
    });
}
