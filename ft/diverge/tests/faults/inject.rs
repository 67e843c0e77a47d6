//! One fault: what it is, who has it, and what the checker must name.
//!
//! Not responsible for: running the checker (`campaign`).

use crate::draw::Draw;
use crate::faulty::{Fault, Faulty, Part};
use crate::guest::{self, USED_RAM};
use crate::outside::{self, LENGTH};
use gemel_diverge::{Finding, Found, Subject};
use gemel_isa_tests::claim;
use gemel_isa_tests::interpreted::Interpreted;
use gemel_log::{Body, Entry, LogReader};
use gemel_machine::{At, Input, Machine, Nothing, Until};
use gemel_replay::{LogSource, NoDisks, NoOutput, Replay, ReplayDisks};
use gemel_x86::CpuModel;
use iced_x86::Mnemonic;
use std::error::Error;
use std::fmt;
use std::io::{Cursor, Read};

/// What kinds of fault there are.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    LoggedValue,
    MovedEvent,
    MemoryBit,
    RegisterBit,
    WrongFlag,
}

impl Kind {
    pub const ALL: [Self; 5] =
        [Self::LoggedValue, Self::MovedEvent, Self::MemoryBit, Self::RegisterBit, Self::WrongFlag];

    pub fn words(self) -> &'static str {
        match self {
            Self::LoggedValue => "a bit of a logged value",
            Self::MovedEvent => "an event moved by one instruction",
            Self::MemoryBit => "a bit of RAM",
            Self::RegisterBit => "a bit of a register",
            Self::WrongFlag => "a wrong flag from one mnemonic",
        }
    }
}

/// A log followed on an engine.
pub struct Followed {
    name: &'static str,
    log: Vec<u8>,
    fault: Fault,
}

impl Followed {
    pub fn good(name: &'static str, log: &[u8]) -> Self {
        Self { name, log: log.to_vec(), fault: Fault::None }
    }
}

impl Subject for Followed {
    fn name(&self) -> &str {
        self.name
    }
    fn machine(&self) -> Result<Machine, Box<dyn Error + Send + Sync>> {
        Ok(guest::machine(|interp, ram| match self.fault {
            Fault::None => Box::new(interp),
            fault => Box::new(Faulty::new(interp, ram, fault)),
        }))
    }
    fn source(&self) -> Result<LogSource<Box<dyn Read>>, Box<dyn Error + Send + Sync>> {
        Ok(LogSource::new(LogReader::new(Box::new(Cursor::new(self.log.clone())) as Box<dyn Read>)?))
    }
    fn disks(&self) -> Result<Box<dyn ReplayDisks>, Box<dyn Error + Send + Sync>> {
        Ok(Box::new(NoDisks))
    }
}

/// What must be named.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Expected {
    /// The step from this count on.
    Step(u64),
    /// This entry of the log, where it or its other self stands.
    Entry { number: u64, count: u64 },
    /// Some instruction of a mnemonic, with this flag wrong and nothing else.
    Flag { mnemonic: Mnemonic, flag: u64 },
}

/// A fault with its victims.
pub struct Injection {
    pub kind: Kind,
    pub first: Followed,
    pub second: Followed,
    /// Both follow one log, and the second judges the first.
    pub judge: bool,
    what: String,
    expected: Expected,
}

impl fmt::Display for Injection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

/// Mnemonics of the guest that write status flags, each in every turn.
const WITH_FLAGS: [Mnemonic; 16] = [
    Mnemonic::Add,
    Mnemonic::Adc,
    Mnemonic::Sbb,
    Mnemonic::Shl,
    Mnemonic::Shr,
    Mnemonic::Xor,
    Mnemonic::And,
    Mnemonic::Imul,
    Mnemonic::Bt,
    Mnemonic::Neg,
    Mnemonic::Cmp,
    Mnemonic::Rol,
    Mnemonic::Dec,
    Mnemonic::Inc,
    Mnemonic::Popcnt,
    Mnemonic::Test,
];
/// CF, PF, AF, ZF, SF, OF.
const STATUS_BITS: [u32; 6] = [0, 2, 4, 6, 7, 11];
/// The same with IF and DF.
const FLAG_BITS: [u32; 8] = [0, 2, 4, 6, 7, 9, 10, 11];

impl Injection {
    /// Draws a fault of a kind in the run that `log` is of.
    pub fn draw(kind: Kind, log: &[u8], draw: &mut Draw) -> Self {
        match kind {
            Kind::LoggedValue => logged_value(log, draw),
            Kind::MovedEvent => moved_event(log, draw),
            Kind::MemoryBit => {
                let count = 1 + draw.below(LENGTH - 1);
                let (from, to) = match draw.below(4) {
                    0 => (0xe_0000, 0x10_0000),
                    _ => draw.pick(&USED_RAM),
                };
                let (address, bit) = (from + draw.below(to - from), draw.below(8));
                let fault = Fault::Memory { count, address, bits: 1 << bit };
                let what = format!("bit {bit} of the byte at {address:#x} from count {count} on");
                in_engine(kind, log, fault, what, Expected::Step(count - 1))
            }
            Kind::RegisterBit => {
                let count = 1 + draw.below(LENGTH - 1);
                let (part, bits) = match draw.below(10) {
                    0 => (Part::Vector(draw.below(16) as usize), 128),
                    1 => (Part::Float(draw.below(8) as usize), 80),
                    2 => (draw.pick(&[Part::Cr2, Part::Star]), 64),
                    3 => (Part::Rip, 18),
                    4 => (Part::Flags, 0),
                    _ => (Part::General(draw.below(16) as usize), 64),
                };
                let bit = if bits == 0 { draw.pick(&FLAG_BITS) } else { draw.below(bits) as u32 };
                let what = format!("{part:?} bit {bit} from count {count} on");
                let fault = Fault::Register { count, part, bit };
                in_engine(kind, log, fault, what, Expected::Step(count - 1))
            }
            Kind::WrongFlag => {
                let (mnemonic, bit) = (draw.pick(&WITH_FLAGS), draw.pick(&STATUS_BITS));
                let flag = 1 << bit;
                let what = format!("flag {bit} after {mnemonic:?}");
                let expected = Expected::Flag { mnemonic, flag };
                in_engine(kind, log, Fault::Mnemonic { mnemonic, flag }, what, expected)
            }
        }
    }

    /// What is wrong with a finding; `None` if it names what it must.
    pub fn complaint(&self, finding: &Finding) -> Option<String> {
        let at = finding.at.position.count;
        let right = match self.expected {
            Expected::Step(count) => at == count && finding.entry.is_none(),
            // A sleeping machine differs as soon as it sleeps to another time: the step is the HLT before the entry.
            Expected::Entry { number, count } => {
                (at == count || at + 1 == count) && finding.entry.as_ref().is_some_and(|e| e.number == number)
            }
            Expected::Flag { mnemonic, flag } => {
                let bits = |text: &str| u64::from_str_radix(text.trim_start_matches("0x"), 16).unwrap_or(0);
                let text = finding.instruction.as_ref().map_or("", |i| i.text.as_str());
                text.split(' ').next() == Some(format!("{mnemonic:?}").to_lowercase().as_str())
                    && finding.cpu.len() == 1
                    && finding.cpu[0].element == "rflags"
                    && bits(&finding.cpu[0].values[0]) ^ bits(&finding.cpu[0].values[1]) == flag
                    && finding.devices.is_empty()
                    && finding.memory_bytes == 0
                    && vector_tells(finding, flag)
            }
        };
        (!right).then(|| format!("{:?} was to be named:\n{}", self.expected, finding.report()))
    }
}

/// Whether the finding is a vector of which the interpreter leaves what the judge did, and not what the secondary did.
fn vector_tells(finding: &Finding, flag: u64) -> bool {
    let Ok(claims) = finding.vector.as_ref().map(|text| claim::read(text).unwrap()) else { return false };
    let mut interpreted = Interpreted::new(CpuModel::x86_64_v3()).unwrap();
    let outcomes: Vec<_> =
        claims.iter().map(|c| (interpreted.run(&c.case).unwrap(), c.outcome.clone())).collect();
    let [(ours, Some(wrong)), (again, Some(right))] = outcomes.as_slice() else { return false };
    let mut mended = wrong.clone();
    mended.after.rflags ^= flag;
    ours == right && again == right && mended == *right
}

/// The secondary's engine has it, and a good one judges.
fn in_engine(kind: Kind, log: &[u8], fault: Fault, what: String, expected: Expected) -> Injection {
    let first = Followed { fault, ..Followed::good("secondary", log) };
    Injection { kind, first, second: Followed::good("judge", log), judge: true, what, expected }
}

/// The secondary's log has it, and the primary's is compared with it.
fn in_log(kind: Kind, log: &[u8], other: &[Entry], what: String, expected: Expected) -> Injection {
    let (first, second) =
        (Followed::good("primary", log), Followed::good("secondary", &outside::log_of(other)));
    Injection { kind, first, second, judge: false, what, expected }
}

fn logged_value(log: &[u8], draw: &mut Draw) -> Injection {
    let mut entries = outside::entries(log);
    loop {
        let number = draw.below(entries.len() as u64) as usize;
        let entry = &mut entries[number];
        let bit = match &mut entry.body {
            Body::Answer(value) => {
                let bit = draw.below(64);
                *value ^= 1 << bit;
                bit
            }
            Body::Input {
                input: Input::Serial { bytes: data, .. } | Input::DiskDone { data, .. }, ..
            } if !data.is_empty() => {
                let bit = draw.below(8 * data.len() as u64);
                data[bit as usize / 8] ^= 1 << (bit % 8);
                bit
            }
            _ => continue,
        };
        let what = format!("bit {bit} of entry {number}, {entry}");
        let expected = Expected::Entry { number: number as u64, count: entry.at.position.count };
        return in_log(Kind::LoggedValue, log, &entries, what, expected);
    }
}

fn moved_event(log: &[u8], draw: &mut Draw) -> Injection {
    let mut entries = outside::entries(log);
    loop {
        // An event keeps its place among the others.
        let number = 1 + draw.below(entries.len() as u64 - 2) as usize;
        let count = entries[number].at.position.count;
        let later = draw.below(2) == 0;
        let wanted = if later { count + 1 } else { count - 1 };
        let between =
            entries[number - 1].at.position.count < wanted && wanted < entries[number + 1].at.position.count;
        if !matches!(entries[number].body, Body::Input { .. }) || !between {
            continue;
        }
        let Some(at) = boundary(log, if later { count } else { wanted }, later) else { continue };
        // A sleeping machine may have slept past the next one.
        if at.time > entries[number + 1].at.time {
            continue;
        }
        let what = format!("entry {number}, {}, moved to {}", entries[number], at.position);
        entries[number].at = at;
        let expected = Expected::Entry { number: number as u64, count: count.min(wanted) };
        return in_log(Kind::MovedEvent, log, &entries, what, expected);
    }
}

/// Where a machine is that follows the log to a count, and then, if wanted, goes on for one without it.
fn boundary(log: &[u8], count: u64, one_more: bool) -> Option<At> {
    let good = Followed::good("", log);
    let mut machine = good.machine().unwrap();
    let replay = Replay::new(good.source().unwrap(), NoOutput, good.disks().unwrap());
    let mut world = Until::new(replay, Some(count));
    let _ = machine.run(&mut world);
    if one_more {
        // Ends with an error in any case.
        let _ = machine.run(&mut Nothing { stop: count + 1 });
    }
    let at = machine.at();
    (at.position.count == count + u64::from(one_more)).then_some(at)
}
