//! A board for tests: it answers every access from its number, raises interrupts on request, and keeps a list of all that it heard.
//!
//! Not responsible for: any real device.

#![allow(clippy::unwrap_used, dead_code)] // each test uses a part of it

use gemel_interp::Interp;
use gemel_kvm::{Kvm, KvmError, Native, Quirks};
use gemel_machine::{Aim, Attention, CountKind, CpuIo, Exit, GuestRam, Position, Query, Vcpu};
use gemel_x86::segment::{CS, SS};
use gemel_x86::{CpuModel, CpuState, Segment, TableRegister};
use iced_x86::IcedError;
use iced_x86::code_asm::CodeAssembler;
use std::io::Write;
use std::sync::Arc;

/// What the board heard, with the position.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Heard {
    PortRead(Position, u16, u8),
    PortWrite(Position, u16, u8, u32),
    MmioRead(Position, u64, u8),
    MmioWrite(Position, u64, u8, u64),
    MsrRead(Position, u32),
    MsrWrite(Position, u32, u64),
    Interrupt(Position, u8),
    Nmi(Position),
}

/// The board. A write to port 0x40 raises the interrupt that it names; one to port 0x41 raises an NMI.
#[derive(Default)]
pub struct Board {
    pub heard: Vec<Heard>,
    pub stop: u64,
    pub raised: Option<u8>,
    pub nmi: bool,
    pub priority: u8,
    answers: u64,
}

/// A write there raises the interrupt of its value.
pub const RAISE: u16 = 0x40;
/// A write there raises an NMI.
pub const RAISE_NMI: u16 = 0x41;

impl Board {
    pub fn new() -> Self {
        Self { stop: u64::MAX, ..Self::default() }
    }

    fn want(&self) -> Attention {
        Attention { stop: self.stop, interrupt: self.raised.is_some(), nmi: self.nmi }
    }

    fn answer(&mut self, size: u8) -> u64 {
        self.answers += 1;
        let value = self.answers.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        if size == 8 { value } else { value & ((1 << (8 * size)) - 1) }
    }
}

impl CpuIo for Board {
    fn attention(&mut self, _: Position) -> Attention {
        self.want()
    }
    fn port_read(&mut self, at: Position, port: u16, size: u8) -> (u32, Attention) {
        self.heard.push(Heard::PortRead(at, port, size));
        (self.answer(size) as u32, self.want())
    }
    fn port_write(&mut self, at: Position, port: u16, size: u8, value: u32) -> Attention {
        self.heard.push(Heard::PortWrite(at, port, size, value));
        match port {
            RAISE => self.raised = Some(value as u8),
            RAISE_NMI => self.nmi = true,
            _ => {}
        }
        self.want()
    }
    fn mmio_read(&mut self, at: Position, address: u64, size: u8) -> (u64, Attention) {
        self.heard.push(Heard::MmioRead(at, address, size));
        (self.answer(size), self.want())
    }
    fn mmio_write(&mut self, at: Position, address: u64, size: u8, value: u64) -> Attention {
        self.heard.push(Heard::MmioWrite(at, address, size, value));
        self.want()
    }
    fn msr_read(&mut self, at: Position, msr: u32) -> (Option<u64>, Attention) {
        // CPUID and the engine ask for this one too, which is no access of the guest's.
        if msr == gemel_x86::msr::APIC_BASE {
            return (Some(0xfee0_0900), self.want());
        }
        self.heard.push(Heard::MsrRead(at, msr));
        (Some(self.answer(8)), self.want())
    }
    fn msr_write(&mut self, at: Position, msr: u32, value: u64) -> (Option<()>, Attention) {
        self.heard.push(Heard::MsrWrite(at, msr, value));
        (Some(()), self.want())
    }
    fn cr8_read(&mut self, _: Position) -> u8 {
        self.priority
    }
    fn cr8_write(&mut self, _: Position, value: u8) -> Attention {
        self.priority = value;
        self.want()
    }
    fn acknowledge_irq(&mut self, at: Position) -> (u8, Attention) {
        let vector = self.raised.take().unwrap();
        self.heard.push(Heard::Interrupt(at, vector));
        (vector, self.want())
    }
    fn acknowledge_nmi(&mut self, at: Position) -> Attention {
        self.nmi = false;
        self.heard.push(Heard::Nmi(at));
        self.want()
    }
    fn query(&mut self, at: Position, query: Query) -> u64 {
        match query {
            Query::Tsc => at.count * 1000,
            Query::Random => self.answer(8),
        }
    }
}

/// Runs until the guest ends it, as a machine does: a stop or a yield is no end.
pub fn run(vcpu: &mut dyn Vcpu, board: &mut Board) -> Exit {
    loop {
        match vcpu.run(board).unwrap() {
            Exit::Yield => {}
            Exit::Stop if vcpu.position().count < board.stop => {}
            exit => return exit,
        }
    }
}

/// Says why a test did not run. That is no pass: nothing was shown.
pub fn skipped(error: &KvmError) {
    // What macros print is shown of tests that fail only.
    std::io::stderr().write_all(format!("SKIPPED: {error}\n").as_bytes()).unwrap();
}

/// RAM of 1 MiB and more, with bytes in it.
pub fn ram(size: u64, parts: &[(u64, &[u8])]) -> Arc<GuestRam> {
    let ram = Arc::new(GuestRam::new(size).unwrap());
    parts.iter().for_each(|(address, bytes)| ram.write(*address, bytes).unwrap());
    ram
}

/// The interpreter, counting exits.
pub fn interp(model: &CpuModel, ram: &Arc<GuestRam>) -> Interp {
    Interp::new(model.clone(), ram.clone()).counting(CountKind::Exits)
}

/// KVM with an interpreter as its assistant. The quirks are those of hardware, so that KVM itself runs all that it can.
pub fn kvm(model: &CpuModel, ram: &Arc<GuestRam>, quirks: Quirks) -> Result<Kvm, KvmError> {
    Kvm::with_quirks(model.clone(), ram.clone(), Box::new(interp(model, ram)), quirks)
}

/// A guest: memory and the state it starts in.
pub struct Program {
    pub model: CpuModel,
    pub memory: Vec<(u64, Vec<u8>)>,
    pub state: CpuState,
}

/// Everything that a run leaves.
pub struct Outcome {
    pub exit: Exit,
    pub heard: Vec<Heard>,
    pub state: CpuState,
    pub ram: u64,
    /// The board's task priority.
    pub priority: u8,
}

impl Program {
    pub fn ram(&self) -> Arc<GuestRam> {
        let parts: Vec<(u64, &[u8])> = self.memory.iter().map(|(a, b)| (*a, b.as_slice())).collect();
        ram(4 << 20, &parts)
    }

    fn run_on(&self, vcpu: &mut dyn Vcpu, ram: &GuestRam) -> Outcome {
        vcpu.restore(&self.state).unwrap();
        let mut board = Board::new();
        let exit = run(vcpu, &mut board);
        let state = vcpu.save().unwrap();
        Outcome { exit, heard: board.heard, state, ram: ram.digest(), priority: board.priority }
    }

    /// On the interpreter.
    pub fn interpreted(&self) -> Outcome {
        let ram = self.ram();
        self.run_on(&mut interp(&self.model, &ram), &ram)
    }

    /// On KVM. Prints what it took.
    pub fn on_kvm(&self, quirks: Quirks) -> Result<Outcome, KvmError> {
        let ram = self.ram();
        let mut kvm = kvm(&self.model, &ram, quirks)?;
        let outcome = self.run_on(&mut kvm, &ram);
        println!("{}", kvm.figures());
        assert_eq!(kvm.figures().unplaced(), 0);
        Ok(outcome)
    }

    /// Runs on both, under every way to use this host that can hold the program, and compares all that there is.
    pub fn same_on_both(&self, ways: &[Quirks]) {
        let wanted = self.interpreted();
        for quirks in ways {
            match self.on_kvm(*quirks) {
                Ok(found) => compare(&wanted, &found),
                Err(error) => return skipped(&error),
            }
        }
    }
}

/// Asserts that two runs were the same.
pub fn compare(wanted: &Outcome, found: &Outcome) {
    let first = wanted.heard.iter().zip(&found.heard).position(|(a, b)| a != b);
    if let Some(n) = first {
        panic!("access {n}: {:x?} where {:x?} was expected", found.heard[n], wanted.heard[n]);
    }
    assert_eq!(found.heard.len(), wanted.heard.len(), "the board heard {:x?}", found.heard);
    assert_eq!(found.exit, wanted.exit);
    assert_eq!(found.state.differences(&wanted.state, false), [], "KVM's is left");
    assert_eq!((found.ram, found.priority), (wanted.ram, wanted.priority), "RAM or CR8 differs");
}

/// Ways to use the host: KVM runs all that it can, with the assistant called for one step or for some; and as this host is.
pub fn ways() -> Vec<Quirks> {
    let host = Quirks::of_host();
    let all = Quirks { native: Native::All, ..host };
    vec![
        Quirks { stretch: 1, longest_stretch: 1, ..all },
        Quirks { stretch: 5, longest_stretch: 5, ..all },
        all,
        Quirks { stretch: 1, longest_stretch: 1, ..host },
        host,
    ]
}

/// A state in real mode at CS:IP = 0:`ip`, with an empty stack below 0x7000.
pub fn real_mode(ip: u64) -> CpuState {
    let mut state = CpuState { rip: ip, ..CpuState::default() };
    state.gpr = [0; 16];
    state.gpr[4] = 0x7000;
    state.seg = [Segment::real(0); 6];
    state.idtr = TableRegister { base: 0, limit: 0x3ff };
    state
}

/// A state in 32-bit protected mode without paging, flat, ring 0, at `eip`.
pub fn protected_mode(eip: u64) -> CpuState {
    let mut state = real_mode(eip);
    let flat = |selector, kind| Segment { selector, attr: 0xc00u16 | kind, limit: u32::MAX, base: 0 };
    state.seg = [flat(0x10, 0x93); 6];
    state.seg[CS] = flat(0x08, 0x9b);
    state.seg[SS] = flat(0x10, 0x93);
    state.cr0 = 0x11;
    state.gpr[4] = 0x7000;
    state
}

/// Runs with an aim.
pub fn run_to(vcpu: &mut dyn Vcpu, board: &mut Board, aim: Aim) -> Exit {
    vcpu.aim(aim);
    vcpu.run(board).unwrap()
}

/// Page tables, descriptor tables and a task of a 64-bit guest: the first 2 MiB and [`WINDOW`] are mapped to themselves, for ring 3 too.
pub fn long_mode_memory() -> Vec<(u64, Vec<u8>)> {
    let words = |words: &[u64]| words.iter().flat_map(|w| w.to_le_bytes()).collect::<Vec<u8>>();
    let flags = 0b111;
    let window = (WINDOW >> 21 & 511) * 8;
    let mut memory = vec![
        (0x10000, words(&[0x11000 | flags])),
        (0x11000, words(&[0x12000 | flags, 0, 0, 0x13000 | flags])),
        (0x12000, words(&[0x80 | flags])),
        (0x13000 + window, words(&[WINDOW | 0x80 | flags])),
        // Null, code and data of ring 0, data and code of ring 3, a task.
        (
            GDT,
            words(&[
                0,
                0x00af_9b00_0000_ffff,
                0x00cf_9300_0000_ffff,
                0x00cf_f300_0000_ffff,
                0x00af_fb00_0000_ffff,
            ]),
        ),
    ];
    // RSP0, and an I/O bitmap that allows everything.
    let mut task = vec![0; 0x68 + 0x2001];
    task[4..12].copy_from_slice(&0x7000u64.to_le_bytes());
    task[0x66..0x68].copy_from_slice(&0x68u16.to_le_bytes());
    task[0x2068] = 0xff;
    memory.push((TASK, task));
    memory
}

/// What is mapped and no RAM.
pub const WINDOW: u64 = 0xd000_0000;
const GDT: u64 = 0x14000;
/// Where [`gate`]s go.
pub const IDT: u64 = 0x15000;
const TASK: u64 = 0x18000;
/// Selectors for IRETQ to ring 3.
pub const USER_CODE: u64 = 0x23;
/// The same.
pub const USER_DATA: u64 = 0x1b;

/// An interrupt gate to ring 0.
pub fn gate(vector: u64, handler: u64) -> (u64, Vec<u8>) {
    let low = handler & 0xffff | 0x08 << 16 | 0x8e00 << 32 | (handler >> 16 & 0xffff) << 48;
    (IDT + 16 * vector, low.to_le_bytes().to_vec())
}

/// A state in 64-bit mode, ring 0, at `rip`.
pub fn long_mode(rip: u64) -> CpuState {
    let mut state = protected_mode(rip);
    // KVM's emulator keeps data segments of ring 0 in ring 3, where IRET empties them (SDM 2A IRET): here they are empty from the start.
    state.seg = [Segment::default(); 6];
    state.seg[CS] = Segment { selector: 0x08, attr: 0xa9b, limit: u32::MAX, base: 0 };
    state.seg[SS] = Segment { selector: 0x10, attr: 0xc93, limit: u32::MAX, base: 0 };
    state.cr0 = 0x8001_0033;
    state.cr3 = 0x10000;
    state.cr4 = 0x620;
    state.efer = 0xd01;
    state.gdtr = TableRegister { base: GDT, limit: 5 * 8 - 1 };
    state.idtr = TableRegister { base: IDT, limit: 0xfff };
    state.tr = Segment { selector: 0x28, attr: 0x8b, limit: 0x68 + 0x2000, base: TASK };
    state.ldtr = Segment { selector: 0, attr: 0, limit: 0, base: 0 };
    state.fcw = 0x37f;
    state
}

/// Assembles code for an address.
pub fn assembled(
    bits: u32,
    address: u64,
    write: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>,
) -> (u64, Vec<u8>) {
    let mut a = CodeAssembler::new(bits).unwrap();
    write(&mut a).unwrap();
    (address, a.assemble(address).unwrap())
}
