//! A guest without devices: a loop that computes and stores, in 64-bit mode.
//!
//! Not responsible for: engines with faults (`faulty`).

use crate::faulty::{Fault, Faulty};
use gemel_diverge::Subject;
use gemel_interp::Interp;
use gemel_log::{ClockKind, Header, LogReader, LogWriter};
use gemel_machine::bus::BusBuilder;
use gemel_machine::{BootSpec, GuestRam, Machine, MachineSpec, Nothing, Reckoning, Vcpu};
use gemel_replay::{LogSource, NoDisks, Record, ReplayDisks};
use gemel_x86::segment::{CS, DS, ES, SS};
use gemel_x86::{CpuModel, CpuState, Segment};
use std::error::Error;
use std::io::{Cursor, Read};
use std::sync::Arc;

const CODE: u64 = 0x1_0000;
/// Stores go to 32 KiB from here on.
pub const DATA: u64 = 0x2_0000;
/// Instructions of one turn of the loop.
pub const TURN: u64 = 8;

#[rustfmt::skip]
const LOOP: &[u8] = &[
    0x48, 0x01, 0xd8,                   // add rax, rbx
    0x48, 0xc1, 0xc0, 0x05,             // rol rax, 5
    0x48, 0x89, 0x07,                   // mov [rdi], rax
    0x48, 0x83, 0xc7, 0x08,             // add rdi, 8
    0x81, 0xe7, 0xf8, 0x7f, 0x00, 0x00, // and edi, 7ff8h
    0x81, 0xcf, 0x00, 0x00, 0x02, 0x00, // or edi, 20000h
    0x48, 0xff, 0xc3,                   // inc rbx
    0xeb, 0xe1,                         // jmp back
];

/// The same, with a write to a port every 64 turns.
#[rustfmt::skip]
const LOOP_WITH_EXITS: &[u8] = &[
    0x48, 0x01, 0xd8,                   // add rax, rbx
    0x48, 0xc1, 0xc0, 0x05,             // rol rax, 5
    0x48, 0x89, 0x07,                   // mov [rdi], rax
    0x48, 0x83, 0xc7, 0x08,             // add rdi, 8
    0x81, 0xe7, 0xf8, 0x7f, 0x00, 0x00, // and edi, 7ff8h
    0x81, 0xcf, 0x00, 0x00, 0x02, 0x00, // or edi, 20000h
    0x48, 0xff, 0xc3,                   // inc rbx
    0xf6, 0xc3, 0x3f,                   // test bl, 3fh
    0x75, 0xde,                         // jnz back
    0xe6, 0x80,                         // out 80h, al
    0xeb, 0xda,                         // jmp back
];

/// What counts in a run.
pub fn spec_of(reckoning: Reckoning) -> MachineSpec {
    MachineSpec { reckoning, ..spec() }
}

pub fn spec() -> MachineSpec {
    MachineSpec {
        board: 0,
        ram: 1 << 20,
        cpu: "x86-64-v2".into(),
        reckoning: Reckoning::default(),
        rtc_base: 0,
        seed: 0,
        disks: Vec::new(),
        nics: Vec::new(),
        boot: BootSpec::default(),
    }
}

/// The guest on an engine with a fault; `rbx` is what the loop begins with.
pub fn machine(fault: Fault, rbx: u64) -> Machine {
    machine_of(Reckoning::default(), fault, rbx)
}

/// The same, without exits or with them.
pub fn machine_of(reckoning: Reckoning, fault: Fault, rbx: u64) -> Machine {
    let ram = Arc::new(GuestRam::new(spec().ram).unwrap());
    // 2 MiB mapped one to one.
    for (at, entry) in [(0x1000, 0x2003u64), (0x2000, 0x3003), (0x3000, 0x83)] {
        ram.write(at, &entry.to_le_bytes()).unwrap();
    }
    let code = if reckoning == Reckoning::Exits { LOOP_WITH_EXITS } else { LOOP };
    ram.write(CODE, code).unwrap();
    let data = Segment { selector: 0x18, attr: 0xc93, limit: u32::MAX, base: 0 };
    let mut state =
        CpuState { cr0: 0x8000_0011, cr3: 0x1000, cr4: 0x620, efer: 0x500, rip: CODE, ..Default::default() };
    (state.seg[DS], state.seg[ES], state.seg[SS]) = (data, data, data);
    state.seg[CS] = Segment { selector: 0x10, attr: 0xa9b, limit: u32::MAX, base: 0 };
    (state.gpr[3], state.gpr[7]) = (rbx, DATA);
    let mut vcpu = Faulty::new(
        Interp::new(CpuModel::x86_64_v2(), Arc::clone(&ram)).counting(reckoning.count_kind()),
        Arc::clone(&ram),
        fault,
    );
    vcpu.restore(&state).unwrap();
    let bus = BusBuilder::new(Arc::clone(&ram), 1).build();
    Machine::new(Box::new(vcpu), bus, ram, reckoning, spec_of(reckoning).id())
}

pub fn header() -> Header {
    header_of(Reckoning::default())
}

pub fn header_of(reckoning: Reckoning) -> Header {
    Header { epoch: 10_000, ..Header::new(spec_of(reckoning), ClockKind::Free) }
}

/// The log of a run on an engine with a fault.
pub fn record(fault: Fault, rbx: u64, length: u64) -> Vec<u8> {
    record_of(Reckoning::default(), fault, rbx, length)
}

pub fn record_of(reckoning: Reckoning, fault: Fault, rbx: u64, length: u64) -> Vec<u8> {
    let (mut log, header) = (Vec::new(), header_of(reckoning));
    let mut machine = machine_of(reckoning, fault, rbx);
    let mut world =
        Record::new(Nothing { stop: length }, LogWriter::new(&mut log, &header).unwrap(), &header);
    let outcome = machine.run(&mut world);
    world.conclude(&mut machine, &outcome).unwrap();
    drop(world);
    log
}

/// A log followed on an engine with a fault.
pub struct Followed {
    pub name: &'static str,
    pub log: Vec<u8>,
    pub fault: Fault,
    pub rbx: u64,
}

impl Subject for Followed {
    fn name(&self) -> &str {
        self.name
    }
    fn machine(&self) -> Result<Machine, Box<dyn Error + Send + Sync>> {
        let reckoning = LogReader::new(Cursor::new(&self.log))?.header().machine.reckoning;
        Ok(machine_of(reckoning, self.fault, self.rbx))
    }
    fn source(&self) -> Result<LogSource<Box<dyn Read>>, Box<dyn Error + Send + Sync>> {
        Ok(LogSource::new(LogReader::new(Box::new(Cursor::new(self.log.clone())) as Box<dyn Read>)?))
    }
    fn disks(&self) -> Result<Box<dyn ReplayDisks>, Box<dyn Error + Send + Sync>> {
        Ok(Box::new(NoDisks))
    }
}
