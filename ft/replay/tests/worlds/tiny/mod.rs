//! A machine small enough to see through: an engine that does pseudo-random things, one device, and a world that
//! decides by dice. Real engines and devices are tested as whole systems elsewhere.

use gemel_machine::bus::{BusBuilder, PortWidth};
use gemel_machine::{
    Aim, Attention, BootSpec, Bus, CpuIo, Device, DeviceCx, DiskOp, DiskRequest, DiskSpec, EngineError, Exit,
    GuestRam, Input, InputPort, Machine, MachineSpec, Output, Position, Query, Reckoning, Section,
    SectionError, Steps, TimeBase, Vcpu, VirtTime,
};
use gemel_x86::CpuState;
use std::sync::Arc;

pub mod dice;

pub const SECTORS: u64 = 64;
pub const BASE: Reckoning = Reckoning::Instructions(TimeBase { num: 7, den: 3 });

const DATA: u16 = 0x3f8;
const DISK: u16 = 0x1f0;
const TIMER: u16 = 0x40;

pub fn mix(value: u64, with: u64) -> u64 {
    let x = (value ^ with.wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_add(0x632b_e59b_d9b4_e019);
    (x ^ x >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9) ^ x >> 32
}

/// How the engine ends a `run` when a halted guest stands exactly at the wanted stop. Both are right.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Prefers {
    Stop,
    Halted,
}

/// What makes one machine another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Guest {
    pub seed: u64,
    /// Powers off after about so many instructions; otherwise it runs until the world ends it.
    pub power_off_after: Option<u64>,
    pub prefers: Prefers,
    /// Counts exits, and samples its time.
    pub exits: bool,
}

impl Guest {
    pub fn reckoning(self) -> Reckoning {
        if self.exits { Reckoning::Exits } else { BASE }
    }
}

/// Every instruction does what a hash of the registers says.
struct Engine {
    state: CpuState,
    guest: Guest,
    aim: Aim,
    /// Decides where an engine that counts exits comes back by itself: another engine does elsewhere.
    kicks: u64,
    steps: u64,
}

impl Engine {
    fn step(&mut self, io: &mut dyn CpuIo) -> Option<Attention> {
        let at = self.position();
        let s = &mut self.state;
        s.gpr[0] = mix(s.gpr[0], s.rip);
        let dice = s.gpr[0];
        // Few addresses: most boundaries with the right one are not the one that is looked for.
        s.rip = 0x1000 + dice % if self.guest.exits { 8 } else { 0x800 };
        s.gpr[1] = dice >> 60;
        let mut attention = None;
        match dice >> 32 & 0x3f {
            0 | 1 => attention = Some(io.port_write(at, DATA, 1, (dice & 0xff) as u32)),
            2 | 3 => {
                let (value, wants) = io.port_read(at, DATA, 1);
                s.gpr[0] = mix(s.gpr[0], u64::from(value));
                attention = Some(wants);
            }
            kind @ (4 | 5) => {
                let query = if kind == 4 { Query::Random } else { Query::Tsc };
                s.gpr[0] = mix(s.gpr[0], io.query(at, query));
                attention = Some(io.attention(at));
            }
            // Half of what these guests do leaves no trace in the registers.
            9..=12 if self.guest.exits => {
                io.query(at, Query::Tsc);
                attention = Some(io.attention(at));
            }
            6 => attention = Some(io.port_write(at, DISK, 4, dice as u32)),
            7 => attention = Some(io.port_write(at, TIMER, 4, (dice & 0x3ff) as u32)),
            8 => s.halted = true,
            _ => {}
        }
        let powers_off = self.guest.power_off_after.is_some_and(|n| at.count > n);
        if powers_off {
            attention = Some(io.port_write(at, 0xf4, 1, 0x31));
        }
        let exits = powers_off || matches!(dice >> 32 & 0x3f, 0..=3 | 6..=8);
        self.state.count += u64::from(exits || !self.guest.exits);
        attention
    }

    /// Whether the engine comes back here, after at least one step.
    fn yields(&mut self) -> bool {
        if !self.guest.exits {
            return false;
        }
        self.kicks = mix(self.kicks, 3);
        self.kicks >> 30 & 0x3f == 0 || self.aim.rip == Some(self.state.rip)
    }

    fn run_on(&mut self, io: &mut dyn CpuIo) -> Result<Exit, EngineError> {
        let mut wants = io.attention(self.position());
        let mut stepped = false;
        loop {
            let halts = self.state.halted && !wants.interrupt;
            if halts && self.guest.prefers == Prefers::Halted {
                return Ok(Exit::Halted);
            }
            if self.state.count >= wants.stop {
                return Ok(Exit::Stop);
            }
            if halts {
                return Ok(Exit::Halted);
            }
            if stepped && self.yields() {
                return Ok(Exit::Yield);
            }
            stepped = true;
            self.steps += 1;
            if wants.interrupt {
                let (vector, next) = io.acknowledge_irq(self.position());
                self.state.halted = false;
                self.state.count += u64::from(!self.guest.exits);
                self.state.gpr[0] = mix(self.state.gpr[0], u64::from(vector));
                wants = next;
            } else if let Some(next) = self.step(io) {
                wants = next;
            }
        }
    }
}

impl Vcpu for Engine {
    fn run(&mut self, io: &mut dyn CpuIo) -> Result<Exit, EngineError> {
        let exit = self.run_on(io);
        self.aim = Aim::NONE;
        exit
    }

    fn position(&self) -> Position {
        Position { count: self.state.count, rip: self.state.rip, rcx: self.state.gpr[1] }
    }

    fn steps(&self) -> Steps {
        Steps::exactly(self.steps)
    }

    fn save(&mut self) -> Result<CpuState, EngineError> {
        Ok(self.state.clone())
    }

    fn restore(&mut self, state: &CpuState) -> Result<(), EngineError> {
        self.state = state.clone();
        Ok(())
    }

    fn flush(&mut self) {}

    fn aim(&mut self, aim: Aim) {
        self.aim = aim;
    }
}

/// Serial port, disk controller, timer, power switch and interrupt controller in one.
#[derive(Default)]
struct Chip {
    state: u64,
    received: Vec<u8>,
    next_tag: u64,
    interrupt: bool,
}

impl Device for Chip {
    fn name(&self) -> &'static str {
        "chip"
    }

    fn reset(&mut self, cx: &mut DeviceCx<'_>) {
        *self = Self::default();
        cx.arm(0, VirtTime(5_000));
    }

    fn save(&self) -> Section {
        let Self { state, received, next_tag, interrupt } = self;
        Section::of(1, &(state, received, next_tag, interrupt))
    }

    fn restore(&mut self, section: &Section) -> Result<(), SectionError> {
        (self.state, self.received, self.next_tag, self.interrupt) = section.read("chip", 1)?;
        Ok(())
    }

    fn port_read(&mut self, cx: &mut DeviceCx<'_>, _port: u16, _size: u8) -> u32 {
        if self.received.is_empty() {
            return self.state as u8 as u32;
        }
        cx.emit(Output::SerialConsumed { port: 0, count: 1 });
        u32::from(self.received.remove(0))
    }

    fn port_write(&mut self, cx: &mut DeviceCx<'_>, port: u16, _size: u8, value: u32) {
        match port {
            DATA => cx.emit(Output::Serial { port: 0, byte: value as u8 }),
            TIMER => cx.arm(1, cx.now.after(u64::from(value))),
            DISK => {
                let sector = u64::from(value >> 8) % (SECTORS - 4);
                let op = match value & 3 {
                    0 => DiskOp::Read { sector, sectors: 1 + (value >> 2 & 3) },
                    1 => DiskOp::Flush,
                    _ => DiskOp::Write { sector, data: vec![value as u8; 512] },
                };
                self.next_tag += 1;
                cx.emit(Output::Disk(DiskRequest { disk: 0, tag: self.next_tag, op }));
            }
            _ => cx.power(gemel_machine::PowerEvent::DebugExit(value)),
        }
    }

    fn on_timer(&mut self, cx: &mut DeviceCx<'_>, index: u8) {
        self.state = mix(self.state, u64::from(index) + cx.now.0);
        self.interrupt = true;
        if index == 0 {
            cx.arm(0, cx.now.after(2_000 + self.state % 3_000));
        }
    }

    fn on_input(&mut self, cx: &mut DeviceCx<'_>, input: Input) {
        self.interrupt = true;
        match input {
            Input::Serial { bytes, .. } => self.received.extend(bytes),
            Input::DiskDone { tag, data, .. } => {
                self.state = mix(self.state, tag);
                let _ = cx.ram.write(0x2000 + tag % 16 * 2048, &data);
            }
            Input::Frame { nic, bytes } => {
                self.state = mix(self.state, bytes.iter().map(|b| u64::from(*b)).sum());
                cx.emit(Output::Frame { nic, bytes });
            }
            other => self.state = mix(self.state, format!("{other:?}").len() as u64),
        }
    }

    fn interrupt_pending(&self) -> bool {
        self.interrupt
    }

    fn acknowledge(&mut self, _cx: &mut DeviceCx<'_>) -> Option<u8> {
        std::mem::take(&mut self.interrupt).then_some(0x20)
    }
}

pub fn machine(guest: Guest) -> Machine {
    kicked(guest, guest.seed)
}

/// A machine whose engine comes back by itself where these dice say.
pub fn kicked(guest: Guest, kicks: u64) -> Machine {
    let ram = Arc::new(GuestRam::new(1 << 20).unwrap());
    let bus = bus(Arc::clone(&ram));
    let mut state = CpuState::default();
    state.gpr[0] = guest.seed;
    let engine = Engine { state, guest, aim: Aim::NONE, kicks, steps: 0 };
    Machine::new(Box::new(engine), bus, ram, guest.reckoning(), guest.seed)
}

fn bus(ram: Arc<GuestRam>) -> Bus {
    let mut builder = BusBuilder::new(ram, 1);
    let chip = builder.add(Chip::default());
    for port in [DATA, DISK, TIMER, 0xf4] {
        builder.ports(port..=port, chip, PortWidth::Any);
    }
    let plugs = [
        InputPort::Serial(0),
        InputPort::Keyboard,
        InputPort::Disk(0),
        InputPort::Net(0),
        InputPort::PowerButton,
    ];
    for plug in plugs {
        builder.plug(plug, chip);
    }
    builder.cpu_interrupts(&[chip]);
    builder.build()
}

pub fn spec(guest: Guest) -> MachineSpec {
    MachineSpec {
        board: 1,
        ram: 1 << 20,
        cpu: "tiny".into(),
        reckoning: guest.reckoning(),
        rtc_base: 0,
        seed: guest.seed,
        disks: vec![DiskSpec { sectors: SECTORS, read_only: false, digest: 0 }],
        nics: Vec::new(),
        boot: BootSpec::default(),
    }
}
