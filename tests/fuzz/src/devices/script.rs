//! What is done to a device: accesses of every width anywhere near its registers, wires, inputs, time, and what a driver would do.
//!
//! Not responsible for: rings (`driver`).

use super::socket::{HAND, Subject};
use super::{Bench, RAM, driver};
use crate::cpu::input;
use crate::places;
use crate::rng::Rng;
use gemel_machine::{DiskOp, DiskRequest, DiskStatus, Input, Output};

/// Timers that one step may fire: a periodic one can be due every nanosecond.
const FIRES: usize = 64;

/// A script. Its clones do the same.
#[derive(Clone)]
pub struct Script {
    rng: Rng,
    subject: &'static Subject,
    /// Disk requests under way.
    requests: Vec<DiskRequest>,
    /// Disk requests and frames made so far.
    pub made: u64,
}

/// What a step showed.
#[derive(PartialEq, Eq, Debug)]
pub struct Seen {
    value: u64,
    outputs: Vec<Output>,
}

impl Script {
    /// A script for a device.
    pub fn new(subject: &'static Subject, rng: Rng) -> Self {
        Self { rng, subject, requests: Vec::new(), made: 0 }
    }

    /// One step.
    pub fn step(&mut self, bench: &mut Bench) -> Seen {
        let rng = &self.rng;
        let rings = !self.subject.slots.is_empty();
        let value = match rng.below(if rings { 18 } else { 12 }) {
            0..=3 => self.port(bench),
            4..=6 => self.memory(bench),
            7 => {
                let wire = *self.subject.wires.start() + rng.below(self.subject.wires.len() as u64) as u16;
                bench.bus.mmio_write(bench.now, HAND + u64::from(wire), 1, rng.below(2));
                0
            }
            8 => self.input(bench),
            9 => self.processor(bench),
            10 | 11 => {
                let shift = 34 + rng.below(30);
                pass(bench, rng.next() >> shift);
                0
            }
            12 | 13 => driver::registers(rng, bench, self.slot()),
            14 => driver::bring_up(rng, bench, self.slot()),
            _ => driver::chains(rng, bench, self.slot()),
        };
        let outputs: Vec<Output> = bench.bus.take_outputs().collect();
        for output in &outputs {
            match output {
                Output::Disk(request) => {
                    self.made += 1;
                    self.requests.push(request.clone());
                }
                Output::Frame { .. } => self.made += 1,
                _ => {}
            }
        }
        Seen { value, outputs }
    }

    fn slot(&self) -> u8 {
        self.rng.pick(self.subject.slots)
    }

    fn port(&self, bench: &mut Bench) -> u64 {
        let rng = &self.rng;
        if self.subject.ports.is_empty() {
            return 0;
        }
        let range = &self.subject.ports[rng.below(self.subject.ports.len() as u64) as usize];
        // Also across the ends of a range.
        let port =
            (range.start() + rng.below(range.len() as u64) as u16).wrapping_sub(u16::from(rng.once_in(32)));
        let size = rng.pick(&[1, 1, 2, 4]);
        if rng.once_in(2) {
            return bench.bus.port_read(bench.now, port, size).into();
        }
        let value = if rng.once_in(2) { rng.value() } else { rng.next() };
        bench.bus.port_write(bench.now, port, size, value as u32);
        0
    }

    fn memory(&self, bench: &mut Bench) -> u64 {
        let rng = &self.rng;
        if self.subject.windows.is_empty() {
            return 0;
        }
        let (start, size) = rng.pick(self.subject.windows);
        let offset = rng.below(rng.pick(&[size, size.min(0x1000), size.min(0x100)]));
        let aligned = if rng.once_in(4) { offset } else { offset & !3 };
        let address = if rng.once_in(16) { places::address(rng) } else { start + aligned };
        let width = rng.pick(&[1, 2, 4, 4, 4, 8]);
        if rng.once_in(2) {
            return bench.bus.mmio_read(bench.now, address, width);
        }
        let value = if rng.once_in(2) { rng.value() } else { rng.below(0x200) };
        bench.bus.mmio_write(bench.now, address, width, value);
        0
    }

    /// Anything at all, or the end of a request that is under way.
    fn input(&mut self, bench: &mut Bench) -> u64 {
        let rng = &self.rng;
        if !self.requests.is_empty() && !rng.once_in(4) {
            let at = rng.below(self.requests.len() as u64) as usize;
            let DiskRequest { disk, tag, op } = self.requests.swap_remove(at);
            let wanted = match op {
                DiskOp::Read { sectors, .. } => u64::from(sectors) * 512,
                _ => 0,
            };
            // A world that gives too little or too much breaks its contract, and only the contract.
            let length = rng.pick(&[wanted, wanted, wanted, wanted / 2, wanted + 100]).min(1 << 20);
            let status = if rng.once_in(8) { DiskStatus::Error } else { DiskStatus::Ok };
            let data = vec![rng.next() as u8; length as usize];
            bench.bus.input(bench.now, Input::DiskDone { disk, tag, status, data });
        } else {
            bench.bus.input(bench.now, input(rng));
        }
        0
    }

    /// What the vCPU does: acknowledges, CR8, MSRs.
    fn processor(&self, bench: &mut Bench) -> u64 {
        let rng = &self.rng;
        let now = bench.now;
        match rng.below(4) {
            0 if bench.bus.interrupt_pending() || rng.once_in(4) => bench.bus.acknowledge(now).into(),
            1 => {
                bench.bus.set_task_priority(now, rng.next() as u8 & 15);
                bench.bus.task_priority().into()
            }
            _ if self.subject.msrs.is_empty() => u64::from(bench.bus.nmi_pending()),
            2 => bench.bus.msr_read(now, rng.pick(self.subject.msrs)).unwrap_or(1 << 63),
            _ => bench.bus.msr_write(now, rng.pick(self.subject.msrs), rng.value()).is_some().into(),
        }
    }
}

/// Lets guest time pass.
fn pass(bench: &mut Bench, ns: u64) {
    let end = bench.now.after(ns);
    for _ in 0..FIRES {
        let due = bench.bus.next_deadline();
        if due > end {
            bench.now = end;
            return;
        }
        bench.now = bench.now.max(due);
        // The deadline's own time: a timer that arms itself anew for a time that has passed would fire for ever.
        bench.bus.fire_timers(bench.now);
    }
}

/// An address for a ring or a buffer: in RAM, across its end, in the registers, or nowhere.
pub fn target(rng: &Rng) -> u64 {
    match rng.below(64) {
        0 => rng.value(),
        1 => RAM - rng.below(0x20),
        2 => places::address(rng),
        3 => 0xa_0000u64.wrapping_sub(rng.below(0x20)),
        4 => u64::MAX - rng.below(0x20),
        _ => rng.pick(&[0x1_0000, 0x2_0000, 0x3_0000, 0x8_0000]) + rng.below(0x8000),
    }
}
