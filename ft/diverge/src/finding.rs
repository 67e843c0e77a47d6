//! What is known of the step at which two machines part.
//!
//! Not responsible for: files (`bundle`), exit codes and where the report goes (`ft/cli`).

use crate::bundle::Evidence;
use crate::entries::{EntryDifference, difference_ahead};
use crate::error::Error;
use crate::lane::{Arrival, Lane};
use crate::narrow::Parting;
use crate::place::Back;
use crate::unlike::{Excuse, Step};
use crate::vector::Case;
use crate::{linear, memory, writer};
use gemel_log::OutputSummary;
use gemel_machine::{At, GuestRam};
use gemel_x86::CpuState;
use iced_x86::{Decoder, DecoderOptions, FastFormatter};
use serde::Serialize;

/// Differing bytes of memory that a report lists.
const MOST_BYTES: usize = 64;
/// Those of them whose last change is looked for: each costs some runs through the interval.
pub(crate) const MOST_WRITERS: usize = 4;

/// An instruction where the CPU stood.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Instruction {
    /// Its linear address.
    pub linear: u64,
    /// Its bytes, in hexadecimal.
    pub bytes: String,
    /// Disassembly.
    pub text: String,
}

impl Instruction {
    /// The instruction at CS:RIP; `None` where nothing can be fetched.
    pub(crate) fn at(ram: &GuestRam, s: &CpuState) -> Option<Self> {
        let (linear, bits) = (s.linear_rip(), linear::width(s));
        let bytes = linear::instruction(ram, s)?;
        let instruction = Decoder::with_ip(bits, &bytes, s.rip, DecoderOptions::NONE).iter().next()?;
        let mut text = String::new();
        FastFormatter::new().format(&instruction, &mut text);
        let hex = bytes[..instruction.len()].iter().fold(String::new(), |hex, b| hex + &format!("{b:02x}"));
        Some(Self { linear, bytes: hex, text })
    }
}

/// The step that changed a byte last.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct LastChange {
    /// The boundary before it.
    pub at: At,
    /// What stood there. What happened can also be the delivery of an interrupt, or DMA.
    pub instruction: Option<Instruction>,
}

/// A register, flag or other element of the CPU that differs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ElementDifference {
    /// Its name in the table of CPU state.
    pub element: String,
    /// Before the step, in both.
    pub before: String,
    /// The two values.
    pub values: [String; 2],
}

/// A device whose state differs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct DeviceDifference {
    /// Its name on the board.
    pub device: String,
    /// The first byte of its saved state that differs.
    pub offset: usize,
    /// Both states from there on, up to 16 bytes, in hexadecimal.
    pub values: [String; 2],
}

/// A byte of guest RAM that differs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ByteDifference {
    /// Its guest physical address.
    pub address: u64,
    /// Before the step, in both.
    pub before: u8,
    /// The two values.
    pub values: [u8; 2],
    /// What changed it last before this step, as far back as the checkpoint that the search began at; looked for only for
    /// the first few bytes.
    pub last_change: Option<LastChange>,
}

/// The first step after which two runs differ, and everything that differs after it.
#[derive(Debug, Serialize)]
pub struct Finding {
    /// How the two are called.
    pub names: [String; 2],
    /// The boundary before the step. There both machines are the same.
    pub at: At,
    /// What stood there. The step can also be the delivery of an interrupt that is pending.
    pub instruction: Option<Instruction>,
    /// Where each is after the step.
    pub after: [At; 2],
    /// How each came there, where it did not just stop: its log's end, or a disagreement with its log.
    pub ended: [Option<String>; 2],
    /// The last log entry that each had consumed before the step.
    pub last_entry: [Option<String>; 2],
    /// The first entry by which the two logs differ, where that is what parts the machines.
    pub entry: Option<EntryDifference>,
    /// What each said up to after the step, if that differs.
    pub outputs: Option<[OutputSummary; 2]>,
    /// Elements of the CPU.
    pub cpu: Vec<ElementDifference>,
    /// Devices.
    pub devices: Vec<DeviceDifference>,
    /// Bytes of memory, the first few.
    pub memory: Vec<ByteDifference>,
    /// How many bytes of memory differ.
    pub memory_bytes: u64,
    /// The step as a test vector for `gemel-isa try`, where the CPU alone explains the difference.
    #[serde(skip)]
    pub vector: Result<String, &'static str>,
    /// What differs, in words, if the two run on unlike CPUs and all of it is what the manuals leave undefined.
    pub undefined: Option<String>,
    /// Since where last changes were looked for.
    pub since: At,
    /// What it took to find.
    pub work: Work,
    /// What the bundle takes.
    #[serde(skip)]
    pub(crate) evidence: Evidence,
}

/// What it took to find a parting, in counts that machines executed, each machine's for itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Work {
    /// From the beginning of the interval to the step.
    pub distance: u64,
    /// Until the step was named, from the beginning of the interval on.
    pub verdict: u64,
    /// After that, for the history of what differs.
    pub history: u64,
}

fn ending(arrival: &Arrival) -> Option<String> {
    match arrival {
        Arrival::Boundary => None,
        Arrival::End(conclusion) => Some(format!("end of the run: {conclusion:?}")),
        Arrival::Diverged(diverged) => Some(diverged.to_string()),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().take(16).fold(String::new(), |hex, b| hex + &format!("{b:02x}"))
}

fn devices(a: &Lane<'_>, b: &Lane<'_>) -> Vec<DeviceDifference> {
    let sections = |lane: &Lane<'_>| {
        let mut all: Vec<(&str, Vec<u8>)> =
            lane.machine.bus().save().into_iter().map(|(name, s)| (name, s.body)).collect();
        all.push(("timers and wires", lane.machine.bus().save_wiring().body));
        all.push(("guest time", lane.at().time.0.to_le_bytes().to_vec()));
        all
    };
    let both = sections(a).into_iter().zip(sections(b));
    let differing = both.filter(|((_, x), (_, y))| x != y).map(|((name, x), (_, y))| {
        let offset = x.iter().zip(&y).take_while(|(p, q)| p == q).count();
        DeviceDifference { device: name.into(), offset, values: [hex(&x[offset..]), hex(&y[offset..])] }
    });
    differing.collect()
}

impl Finding {
    /// Describes a parting. `executed` is what both lanes had executed before the interval.
    pub(crate) fn of(parting: Parting<'_>, executed: u64, excuse: Option<Excuse>) -> Result<Self, Error> {
        let Parting { lanes: (mut a, mut b), arrivals, trail } = parting;
        let named = a.executed + b.executed;
        let (left, right) = (a.cpu()?, b.cpu()?);
        let (before, after) = (&trail.last, [a.at(), b.at()]);
        let devices = devices(&a, &b);
        let (bytes, memory_bytes) = memory::differences(a.machine.ram(), b.machine.ram(), MOST_BYTES);
        let outputs = [a.outputs(), b.outputs()];
        let entries = [0, 1].map(|n| before.bookmarks[n].progress.entries());
        let (mut one, mut other) = (a.log()?, b.log()?);
        one.skip(entries[0])?;
        other.skip(entries[1])?;
        let until = after[0].position.count.max(after[1].position.count);
        let entry = difference_ahead(&mut one, &mut other, entries[0], until)?;
        // Memory that the instruction sees is where it was before the step, unless the step moved it.
        let case = match (
            devices.as_slice(),
            &entry,
            outputs[0] == outputs[1],
            after[0].position.count == after[1].position.count,
        ) {
            ([], None, true, true) => Case::of(a.machine.ram(), before.state.cpu()),
            _ => Err("more than the CPU differs"),
        };
        let seen = case.as_ref().map(|case| [case.memory(a.machine.ram()), case.memory(b.machine.ram())]);
        let seen = seen.unwrap_or_default();
        let after_snapshots = vec![a.machine.snapshot()?, b.machine.snapshot()?];

        a.go_to(&trail, Back::Last)?;
        let evidence = Evidence {
            start: before.at,
            end: until,
            before: a.machine.snapshot()?,
            after: after_snapshots,
            entries: entries[0],
        };
        let cpu_before = a.cpu()?;
        let instruction = Instruction::at(a.machine.ram(), &cpu_before);
        let names = [&a, &b].map(|lane| lane.name().to_owned());
        let vector = case.and_then(|case| {
            if bytes.iter().any(|(address, _)| !case.covers(*address)) || memory_bytes > bytes.len() as u64 {
                return Err("memory differs that is no operand");
            }
            let [x, y] = seen;
            case.text(&names, [&left, &right], [case.memory(a.machine.ram()), x, y])
        });
        let element = |element: String, values: [String; 2]| {
            let of = |other: &CpuState| {
                let found = cpu_before.differences(other, true).into_iter().find(|d| d.element == element);
                found.map(|d| d.left)
            };
            // Different from each other, so one of them at least is different from before.
            let before = of(&left).or_else(|| of(&right)).unwrap_or_default();
            ElementDifference { before, element, values }
        };
        let differences = left.differences(&right, true).into_iter();
        let cpu = differences.map(|d| element(d.element, [d.left, d.right])).collect();

        let ended = [ending(&arrivals.0), ending(&arrivals.1)];
        let elsewhere = !devices.is_empty()
            || outputs[0] != outputs[1]
            || entry.is_some()
            || ended.iter().any(Option::is_some)
            || memory_bytes > bytes.len() as u64;
        let addresses: Vec<u64> = bytes.iter().map(|(address, _)| *address).collect();
        let ram = a.machine.ram();
        let step = Step { before: &cpu_before, after: [&left, &right], memory: &addresses, ram };
        let undefined = excuse.filter(|_| !elsewhere).and_then(|excuse| excuse(&step));

        let mut memory = Vec::new();
        for (address, values) in bytes {
            let before = a.machine.ram().read_array(address).map_or(0, |[byte]: [u8; 1]| byte);
            memory.push(ByteDifference { address, before, values, last_change: None });
        }
        let looked_for: Vec<u64> = memory.iter().take(MOST_WRITERS).map(|byte| byte.address).collect();
        let changes = writer::last_changes(&mut a, &trail, before.at.position.count, &looked_for)?;
        for (byte, change) in memory.iter_mut().zip(changes) {
            byte.last_change = change;
        }
        let work = Work {
            distance: before.at.position.count + 1 - trail.marked.at.position.count,
            verdict: named - executed,
            history: a.executed + b.executed - named,
        };
        Ok(Self {
            names,
            at: before.at,
            instruction,
            after,
            ended,
            last_entry: [0, 1].map(|n| before.bookmarks[n].progress.last_entry()),
            entry,
            outputs: (outputs[0] != outputs[1]).then_some(outputs),
            cpu,
            devices,
            memory,
            memory_bytes,
            vector,
            undefined,
            since: trail.marked.at,
            work,
            evidence,
        })
    }
}
