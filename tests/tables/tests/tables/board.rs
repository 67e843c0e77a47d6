//! A machine of one vCPU and RAM, in the modes that the tests want: tables at fixed places, handlers that halt.

use crate::case::{Asked, asked, not_shown};
use gemel_interp::Interp;
use gemel_kvm::placement::Choice;
use gemel_kvm::{Kvm, Native, Quirks};
use gemel_machine::{Aim, Attention, CountKind, CpuIo, Exit, GuestRam, Position, Query, Vcpu};
use gemel_x86::control::{CR0_ET, CR0_PE, CR0_PG, CR4_PAE, EFER_LMA, EFER_LME, EFER_SCE};
use gemel_x86::flags::FIXED;
use gemel_x86::segment::{CS, SS};
use gemel_x86::{CpuModel, CpuState, Segment, TableRegister};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Bytes of RAM.
const MEMORY: u64 = 1 << 20;
/// Where its first piece ends, in which cases live.
const HOLE: usize = 0xa_0000;
pub const GDT: u64 = 0x1000;
pub const IDT: u64 = 0x2000;
pub const TSS: u64 = 0x3000;
/// Where the code under test goes.
pub const CODE: u64 = 0x4000;
/// Handler of vector n: one HLT at `HANDLERS + 16 n`.
pub const HANDLERS: u64 = 0x6000;
/// Top of the stack in use at the start.
pub const STACK: u64 = 0x9000;
/// Top of the ring-0 stack that the TSS names.
pub const STACK0: u64 = 0xa000;
/// Top of an interrupt stack of the 64-bit TSS.
pub const IST1: u64 = 0xb000;
pub const PAGES: u64 = 0x10000;

/// Selectors of the GDT that [`Guest::protected`] and [`Guest::long`] make.
pub const CODE0: u16 = 0x08;
pub const DATA0: u16 = 0x10;
pub const CODE3: u16 = 0x18 | 3;
pub const DATA3: u16 = 0x20 | 3;
pub const TR: u16 = 0x28; // and 0x30 in long mode
/// The first entry that is free for a test.
pub const FREE: u16 = 0x38;

pub const TYPE_CODE: u64 = 0x9b;
pub const TYPE_DATA: u64 = 0x93;

/// A descriptor from base, limit (of 20 bits), access byte, and flags (G, D/B, L, AVL).
pub const fn descriptor(base: u64, limit: u64, access: u64, flags: u64) -> u64 {
    limit & 0xffff
        | (base & 0xff_ffff) << 16
        | access << 40
        | (limit >> 16 & 0xf) << 48
        | flags << 52
        | (base >> 24 & 0xff) << 56
}

/// A flat 32-bit segment of a ring.
pub const fn flat(access: u64, ring: u64) -> u64 {
    descriptor(0, 0xf_ffff, access | ring << 5, 0xc)
}

/// The first eight bytes of a gate.
pub const fn gate(kind: u64, dpl: u64, selector: u16, offset: u64, extra: u64) -> u64 {
    offset & 0xffff
        | (selector as u64) << 16
        | extra << 32
        | (0x80 | dpl << 5 | kind) << 40
        | (offset & 0xffff_0000) << 32
}

/// What is behind the vCPU: nothing but a clock, some MSRs and an interrupt that can be asked for.
#[derive(Clone)]
pub struct Outside {
    stop: u64,
    pub interrupt: Option<u8>,
    pub nmi: bool,
    pub tsc: u64,
    pub msrs: BTreeMap<u32, u64>,
    /// Every change of FERR#, and what IGNNE# says.
    pub float_errors: Vec<bool>,
    pub ignne: bool,
    /// Every OUT: port, size, value.
    pub written: Vec<(u16, u8, u32)>,
    /// The count that every access to a port, a device or an MSR named.
    pub accessed: Vec<u64>,
}

impl CpuIo for Outside {
    fn attention(&mut self, _: Position) -> Attention {
        Attention { stop: self.stop, interrupt: self.interrupt.is_some(), nmi: self.nmi }
    }
    fn port_read(&mut self, at: Position, _: u16, _: u8) -> (u32, Attention) {
        self.accessed.push(at.count);
        (u32::MAX, self.attention(at))
    }
    fn port_write(&mut self, at: Position, port: u16, size: u8, value: u32) -> Attention {
        self.accessed.push(at.count);
        self.written.push((port, size, value));
        self.attention(at)
    }
    fn mmio_read(&mut self, at: Position, _: u64, _: u8) -> (u64, Attention) {
        self.accessed.push(at.count);
        (u64::MAX, self.attention(at))
    }
    fn mmio_write(&mut self, at: Position, _: u64, _: u8, _: u64) -> Attention {
        self.accessed.push(at.count);
        self.attention(at)
    }
    fn msr_read(&mut self, at: Position, msr: u32) -> (Option<u64>, Attention) {
        self.accessed.push(at.count);
        (self.msrs.get(&msr).copied(), self.attention(at))
    }
    fn msr_write(&mut self, at: Position, msr: u32, value: u64) -> (Option<()>, Attention) {
        self.accessed.push(at.count);
        let known = self.msrs.get_mut(&msr).map(|m| *m = value);
        (known, self.attention(at))
    }
    fn cr8_read(&mut self, _: Position) -> u8 {
        0
    }
    fn cr8_write(&mut self, at: Position, _: u8) -> Attention {
        self.attention(at)
    }
    fn acknowledge_irq(&mut self, at: Position) -> (u8, Attention) {
        let vector = self.interrupt.take().unwrap();
        (vector, self.attention(at))
    }
    fn acknowledge_nmi(&mut self, at: Position) -> Attention {
        self.nmi = false;
        self.attention(at)
    }
    fn float_error(&mut self, at: Position, waits: bool) -> (bool, Attention) {
        if self.float_errors.last().copied().unwrap_or(false) != waits {
            self.float_errors.push(waits);
        }
        (self.ignne, self.attention(at))
    }
    fn query(&mut self, _: Position, query: Query) -> u64 {
        assert_eq!(query, Query::Tsc);
        self.tsc
    }
}

/// Who runs a guest. What the board itself shows an engine of ours is the interpreter's.
enum Engine {
    Interpreter(Box<Interp>),
    /// Begun by the first run.
    Kvm(Option<Box<Kvm>>),
}

/// A guest about to run. `state` goes to the engine when it runs, and comes back from there.
pub struct Guest {
    engine: Engine,
    ram: Arc<GuestRam>,
    pub state: CpuState,
    pub outside: Outside,
    pub exit: Option<Exit>,
}

/// Instructions that are more than a case has.
const ENOUGH: u64 = 20;
/// Times that a guest may compute without an end.
const PATIENCE: u32 = 20;

/// A vCPU that KVM runs in every mode.
fn begun(ram: &Arc<GuestRam>) -> Kvm {
    let model = CpuModel::x86_64_v2();
    let assistant = Interp::new(model.clone(), ram.clone()).counting(CountKind::Exits);
    let quirks = Quirks { native: Native::All, stretch: 1, longest_stretch: 1, ..Quirks::of_host() };
    Kvm::with_quirks(model, ram.clone(), Box::new(assistant), quirks).unwrap().placing(Choice::Breakpoint)
}

impl Guest {
    fn new() -> Self {
        let ram = Arc::new(GuestRam::new(MEMORY).unwrap());
        let engine = match asked() {
            Asked::Interpreter => {
                Engine::Interpreter(Box::new(Interp::new(CpuModel::x86_64_v2(), ram.clone())))
            }
            Asked::Kvm => Engine::Kvm(None),
        };
        let outside = Outside {
            stop: 0,
            interrupt: None,
            nmi: false,
            tsc: 0,
            msrs: BTreeMap::new(),
            float_errors: Vec::new(),
            ignne: false,
            written: Vec::new(),
            accessed: Vec::new(),
        };
        let mut state = CpuState { rip: CODE, rflags: FIXED, cr0: CR0_ET, ..CpuState::default() };
        state.gpr = std::array::from_fn(|i| 0x1111 * i as u64);
        state.gpr[4] = STACK;
        for n in 0..256 {
            ram.write(HANDLERS + 16 * n, &[0xf4]).unwrap();
        }
        Self { engine, ram, state, outside, exit: None }
    }

    /// The same on another CPU.
    pub fn with_model(mut self, model: CpuModel) -> Self {
        *self.interp() = Interp::new(model, self.ram.clone());
        self
    }

    /// The same on a machine that counts exits.
    pub fn counting_exits(mut self) -> Self {
        *self.interp() = Interp::new(CpuModel::x86_64_v2(), self.ram.clone()).counting(CountKind::Exits);
        self
    }

    /// The interpreter. Silicon has what it has: a case that wants another CPU, or a certain step, shows nothing of it.
    fn interp(&mut self) -> &mut Interp {
        match &mut self.engine {
            Engine::Interpreter(interp) => interp,
            Engine::Kvm(_) => not_shown("it is about another CPU, or the engine"),
        }
    }

    /// Where the next run comes back.
    pub fn aim(&mut self, aim: Aim) -> &mut Self {
        self.interp().aim(aim);
        self
    }

    /// Real mode, all segments zero, vector table at zero; every vector leads to its handler.
    pub fn real() -> Self {
        let mut g = Self::new();
        g.state.seg = [Segment::real(0); 6];
        g.state.idtr = TableRegister { base: 0, limit: 0x3ff };
        for n in 0..256 {
            g.poke32(4 * n, (HANDLERS + 16 * n) as u32);
        }
        g
    }

    /// Protected mode without paging, at ring 0 or 3; interrupt gates of DPL 0 to every handler.
    pub fn protected(ring: u8) -> Self {
        let mut g = Self::new();
        let tss = descriptor(TSS, 0x2067, 0x8b, 0);
        let entries =
            [0, flat(TYPE_CODE, 0), flat(TYPE_DATA, 0), flat(TYPE_CODE, 3), flat(TYPE_DATA, 3), tss];
        for (n, entry) in entries.into_iter().enumerate() {
            g.set_descriptor(8 * n as u16, entry);
        }
        g.poke32(TSS + 4, STACK0 as u32);
        g.poke32(TSS + 8, DATA0.into());
        // No I/O map.
        g.poke32(TSS + 0x64, 0xffff_0000);
        for n in 0..=255 {
            g.set_gate(n, gate(14, 0, CODE0, HANDLERS + 16 * u64::from(n), 0));
        }
        g.state.cr0 |= CR0_PE;
        g.state.tr = Segment::from_descriptor(TR, tss);
        g.state.gdtr = TableRegister { base: GDT, limit: 0x7f };
        g.state.idtr = TableRegister { base: IDT, limit: 0x7ff };
        g.set_ring(ring);
        g
    }

    /// 64-bit mode, the first GiB mapped to itself for everybody, at ring 0 or 3; 64-bit interrupt gates.
    pub fn long(ring: u8) -> Self {
        let mut g = Self::new();
        let tss = descriptor(TSS, 0x2067, 0x8b, 0);
        let code = |ring: u64| descriptor(0, 0xf_ffff, TYPE_CODE | ring << 5, 0xa);
        let entries = [0, code(0), flat(TYPE_DATA, 0), code(3), flat(TYPE_DATA, 3), tss, 0];
        for (n, entry) in entries.into_iter().enumerate() {
            g.set_descriptor(8 * n as u16, entry);
        }
        g.poke64(TSS + 4, STACK0);
        g.poke64(TSS + 0x24, IST1);
        g.poke32(TSS + 0x64, 0xffff_0000);
        for n in 0..128 {
            g.set_long_gate(n, gate(14, 0, CODE0, HANDLERS + 16 * u64::from(n), 0));
        }
        g.poke64(PAGES, (PAGES + 0x1000) | 7);
        g.poke64(PAGES + 0x1000, (PAGES + 0x2000) | 7);
        g.poke64(PAGES + 0x2000, (PAGES + 0x3000) | 7);
        for page in 0..256 {
            g.poke64(PAGES + 0x3000 + 8 * page, page << 12 | 7);
        }
        g.state.cr3 = PAGES;
        g.state.cr4 |= CR4_PAE;
        g.state.efer |= EFER_LME | EFER_LMA | EFER_SCE;
        g.state.cr0 |= CR0_PE | CR0_PG;
        g.state.tr = Segment::from_descriptor(TR, tss);
        g.state.gdtr = TableRegister { base: GDT, limit: 0x7f };
        g.state.idtr = TableRegister { base: IDT, limit: 0x7ff };
        g.set_ring(ring);
        g
    }

    fn set_ring(&mut self, ring: u8) {
        let (code, data) = if ring == 0 { (CODE0, DATA0) } else { (CODE3, DATA3) };
        let ram = self.ram.clone();
        let segment = |selector: u16| {
            let raw = ram.read_array(GDT + u64::from(selector & !7)).unwrap();
            Segment::from_descriptor(selector, u64::from_le_bytes(raw))
        };
        self.state.seg = [segment(data); 6];
        self.state.seg[CS] = segment(code);
        self.state.cpl = ring;
    }

    /// Takes the page at a linear address (long mode) away.
    pub fn unmap(&self, address: u64) {
        self.poke64(PAGES + 0x3000 + 8 * (address >> 12), 0);
    }

    pub fn set_descriptor(&self, selector: u16, value: u64) {
        self.poke64(GDT + u64::from(selector & !7), value);
    }

    pub fn set_gate(&self, vector: u8, value: u64) {
        self.poke64(IDT + 8 * u64::from(vector), value);
    }

    pub fn set_long_gate(&self, vector: u8, low: u64) {
        self.poke64(IDT + 16 * u64::from(vector), low);
        self.poke64(IDT + 16 * u64::from(vector) + 8, 0);
    }

    pub fn poke(&self, address: u64, bytes: &[u8]) {
        self.ram.write(address, bytes).unwrap();
    }

    pub fn poke16(&self, address: u64, value: u16) {
        self.poke(address, &value.to_le_bytes());
    }

    pub fn poke32(&self, address: u64, value: u32) {
        self.poke(address, &value.to_le_bytes());
    }

    pub fn poke64(&self, address: u64, value: u64) {
        self.poke(address, &value.to_le_bytes());
    }

    pub fn peek16(&self, address: u64) -> u16 {
        u16::from_le_bytes(self.ram.read_array(address).unwrap())
    }

    pub fn peek32(&self, address: u64) -> u32 {
        u32::from_le_bytes(self.ram.read_array(address).unwrap())
    }

    pub fn peek64(&self, address: u64) -> u64 {
        u64::from_le_bytes(self.ram.read_array(address).unwrap())
    }

    /// `n` values of two, four or eight bytes from the current stack pointer up.
    pub fn frame<const BYTES: u64>(&self, n: u64) -> Vec<u64> {
        let base = self.state.seg[SS].base + self.state.gpr[4];
        (0..n)
            .map(|i| match BYTES {
                2 => self.peek16(base + 2 * i).into(),
                4 => self.peek32(base + 4 * i).into(),
                _ => self.peek64(base + 8 * i),
            })
            .collect()
    }

    /// Puts code at RIP and runs it until HLT, for at most 100 instructions.
    pub fn run(&mut self, code: &[u8]) -> &mut Self {
        self.poke(self.state.seg[CS].base + self.state.rip, code);
        self.run_for(100)
    }

    /// Runs `n` instructions or until HLT.
    pub fn run_for(&mut self, n: u64) -> &mut Self {
        let count = self.state.count;
        if let Engine::Interpreter(interp) = &mut self.engine {
            self.outside.stop = count + n;
            interp.restore(&self.state).unwrap();
            self.exit = Some(interp.run(&mut self.outside).unwrap());
            self.state = interp.save().unwrap();
        } else {
            self.run_on_kvm(n);
        }
        self
    }

    /// Where the interpreter is after `n` instructions; nowhere, if it has halted by then. All is as it was.
    fn interpreted(&mut self, n: u64) -> Aim {
        let mut memory = vec![0; HOLE];
        self.ram.read(0, &mut memory).unwrap();
        let outside = self.outside.clone();
        let mut interp = Interp::new(CpuModel::x86_64_v2(), self.ram.clone());
        interp.restore(&self.state).unwrap();
        self.outside.stop = self.state.count + n;
        interp.run(&mut self.outside).unwrap();
        let there = interp.save().unwrap();
        self.outside = outside;
        self.ram.write(0, &memory).unwrap();
        if there.halted || there.rip == self.state.rip {
            return Aim::NONE;
        }
        Aim { rip: Some(there.rip), linear: there.linear_rip(), ..Aim::NONE }
    }

    /// Runs until HLT, or to where the interpreter is after few instructions, if silicon comes by there. KVM counts no instructions.
    fn run_on_kvm(&mut self, n: u64) {
        let aim = if n < ENOUGH { self.interpreted(n) } else { Aim::NONE };
        if n < ENOUGH && aim == Aim::NONE {
            not_shown("it stops where no address tells");
        }
        if self.outside.tsc != 0 {
            not_shown("the TSC is the host's");
        }
        let ram = &self.ram;
        let Engine::Kvm(kvm) = &mut self.engine else { return };
        let kvm = kvm.get_or_insert_with(|| Box::new(begun(ram)));
        let assists = kvm.figures().all_assists();
        self.outside.stop = u64::MAX;
        kvm.restore(&self.state).unwrap();
        let mut yields = 0;
        let exit = loop {
            kvm.aim(aim);
            match kvm.run(&mut self.outside).unwrap() {
                Exit::Yield if aim.rip == Some(kvm.position().rip) => break Exit::Stop,
                Exit::Yield if yields == PATIENCE => not_shown("it does not halt"),
                Exit::Yield => yields += 1,
                Exit::Stop => {}
                exit => break exit,
            }
        };
        if kvm.figures().all_assists() != assists {
            not_shown("KVM left a part of it to the interpreter");
        }
        self.exit = Some(exit);
        self.state = kvm.save().unwrap();
    }

    /// The vector whose handler halted the guest.
    pub fn vector(&self) -> u8 {
        assert!(self.state.halted, "no handler was reached: {:?}, rip {:#x}", self.exit, self.state.rip);
        let n = (self.state.rip - 1 - HANDLERS) / 16;
        assert_eq!(self.state.rip, HANDLERS + 16 * n + 1, "halted outside the handlers");
        n as u8
    }

    /// ES, CS, SS, DS, FS, GS.
    pub fn selectors(&self) -> [u16; 6] {
        self.state.seg.map(|s| s.selector)
    }

    pub fn selector(&self, index: usize) -> u16 {
        self.state.seg[index].selector
    }
}
