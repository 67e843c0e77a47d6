#![allow(clippy::unwrap_used)] // a test that unwraps fails with the line
//! The live world, asked as the machine asks it. Times are checked where they must not be shorter; upper bounds only
//! tell a wait that ended from one that did not.

use gemel_host::disk::{Disk, Store};
use gemel_host::{ClockMode, Disks, HostError, Inbox, Inputs, Live, OutputSink, Pacer, QuitReason};
use gemel_machine::bus::BusBuilder;
use gemel_machine::world::SERIAL_WINDOW;
use gemel_machine::{
    Aim, At, CpuIo, DiskOp, DiskRequest, EngineError, Exit, GuestRam, Input, Machine, Output, Position,
    Reckoning, RunError, Steps, Stop, Vcpu, VirtTime, World,
};
use gemel_x86::CpuState;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

const MS: u64 = 1_000_000;
const LONG: VirtTime = VirtTime(600_000 * MS);

struct Nowhere;

impl OutputSink for Nowhere {
    fn serial(&mut self, _port: u8, _byte: u8) {}

    fn debug(&mut self, _byte: u8) {}

    fn flush(&mut self) -> Result<(), HostError> {
        Ok(())
    }

    fn finish(&mut self) {}
}

struct Zeros;

impl Store for Zeros {
    fn read(&mut self, _offset: u64, out: &mut [u8]) -> io::Result<()> {
        out.fill(0);
        Ok(())
    }

    fn write(&mut self, _offset: u64, _data: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn live(mode: ClockMode, inbox: &Arc<Inbox>) -> Live {
    let disks = Disks::new(vec![Disk::new("zeros".into(), Box::new(Zeros), 16, false)]);
    Live::new(Pacer::new(mode), Inputs::new(Arc::clone(inbox)), disks, Box::new(Nowhere), 7)
}

fn at(count: u64, ns: u64) -> At {
    At { position: Position { count, rip: 0, rcx: 0 }, time: VirtTime(ns) }
}

fn is_stuck<T: std::fmt::Debug>(result: Result<T, Stop>) -> bool {
    match result {
        Err(Stop::Host(e)) => matches!(e.downcast_ref(), Some(HostError::Stuck)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn paced_idle_time_passes_with_the_hosts_clock_and_costs_nothing() {
    let mut world = live(ClockMode::Paced, &Inbox::new());
    assert!(world.poll(at(0, 5)).unwrap().is_none());
    let started = Instant::now();
    let until = VirtTime(5 + 80 * MS);
    assert_eq!(world.idle(at(0, 5), until).unwrap(), until);
    assert!(started.elapsed() >= Duration::from_millis(79), "{:?}", started.elapsed());
}

#[test]
fn a_guest_that_is_behind_idles_at_twice_the_speed() {
    let mut world = live(ClockMode::Paced, &Inbox::new());
    world.poll(at(0, 0)).unwrap();
    std::thread::sleep(Duration::from_millis(60));
    let started = Instant::now();
    // 60 ms behind: 40 ms of idle time take 20 ms, and then it is no more than 40 ms behind.
    world.idle(at(0, 0), VirtTime(40 * MS)).unwrap();
    assert!(started.elapsed() >= Duration::from_millis(20));
    assert!(world.pacer.behind(VirtTime(40 * MS)) >= Duration::from_millis(40));
}

#[test]
fn an_input_ends_an_idle_time() {
    for mode in [ClockMode::Paced, ClockMode::Free] {
        let inbox = Inbox::new();
        let source = inbox.source();
        let mut world = live(mode, &inbox);
        let sender = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            inbox.serial(0, b"x");
            drop(source);
        });
        // A free guest waits only when nothing else can happen.
        let until = if mode == ClockMode::Free { VirtTime::NEVER } else { LONG };
        let woken = world.idle(at(9, 0), until).unwrap();
        assert!(woken < LONG);
        let input = world.poll(At { time: woken, ..at(9, 0) }).unwrap();
        assert_eq!(input, Some(Input::Serial { port: 0, bytes: b"x".to_vec() }));
        sender.join().unwrap();
    }
}

#[test]
fn serial_bytes_beyond_the_credit_do_not_wake_the_guest() {
    let inbox = Inbox::new();
    let mut world = live(ClockMode::Paced, &inbox);
    inbox.serial(0, &[1; SERIAL_WINDOW + 1]);
    assert!(world.poll(at(0, 0)).unwrap().is_some());
    let until = VirtTime(30 * MS);
    assert_eq!(world.idle(at(0, 0), until).unwrap(), until);
    world.emit(at(0, 30 * MS), Output::SerialConsumed { port: 0, count: 1 });
    assert!(world.idle(at(0, 30 * MS), LONG).unwrap() < LONG);
    assert!(world.poll(at(0, 31 * MS)).unwrap().is_some());
}

#[test]
fn a_disk_completion_ends_an_idle_time_exactly_when_it_is_due() {
    for mode in [ClockMode::Paced, ClockMode::Free] {
        let mut world = live(mode, &Inbox::new());
        let request = DiskRequest { disk: 0, tag: 3, op: DiskOp::Read { sector: 0, sectors: 2 } };
        world.emit(at(1, 1000), Output::Disk(request));
        let due = VirtTime(1000 + 50_000 + 1024);
        assert_eq!(world.next_stop(at(1, 1000)).time, due);
        assert_eq!(world.idle(at(2, 1004), VirtTime::NEVER).unwrap(), due);
        let input = world.poll(At { time: due, ..at(2, 0) }).unwrap();
        assert!(
            matches!(input, Some(Input::DiskDone { disk: 0, tag: 3, ref data, .. }) if data.len() == 1024)
        );
    }
}

#[test]
fn keys_one_after_another_each_end_an_idle_time() {
    let inbox = Inbox::new();
    let mut world = live(ClockMode::Free, &inbox);
    inbox.key(vec![1]);
    inbox.key(vec![2]);
    assert_eq!(world.poll(at(0, 0)).unwrap(), Some(Input::Key(vec![1])));
    assert_eq!(world.poll(at(0, 0)).unwrap(), None);
    let due = world.idle(at(0, 0), LONG).unwrap();
    assert_eq!(due, VirtTime(10 * MS));
    assert_eq!(world.poll(At { time: due, ..at(0, 0) }).unwrap(), Some(Input::Key(vec![2])));
}

#[test]
fn a_request_to_quit_ends_every_wait() {
    for mode in [ClockMode::Paced, ClockMode::Free] {
        let inbox = Inbox::new();
        let _source = inbox.source();
        let mut world = live(mode, &inbox);
        let sender = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            inbox.quit(QuitReason::Control);
        });
        world.idle(at(0, 0), VirtTime::NEVER).unwrap();
        assert!(matches!(world.poll(at(0, 1)), Err(Stop::Quit)));
        sender.join().unwrap();
    }
}

#[test]
fn a_guest_that_nothing_can_wake_is_said_to_be_stuck() {
    for mode in [ClockMode::Paced, ClockMode::Free] {
        assert!(is_stuck(live(mode, &Inbox::new()).idle(at(0, 0), VirtTime::NEVER)));
    }
}

#[test]
fn outputs_do_not_push_the_next_stop_ahead_of_the_guest() {
    let inbox = Inbox::new();
    let _source = inbox.source();
    let mut world = live(ClockMode::Free, &inbox);
    let stop = world.next_stop(at(10, 40)).count;
    assert_eq!(world.next_stop(at(stop - 1, 50)).count, stop);
    assert!(world.next_stop(at(stop, 60)).count > stop);
}

/// An engine that computes infinitely fast and never halts.
struct Spinning(u64);

impl Vcpu for Spinning {
    fn run(&mut self, io: &mut dyn CpuIo) -> Result<Exit, EngineError> {
        self.0 = self.0.max(io.attention(self.position()).stop);
        Ok(Exit::Stop)
    }

    fn position(&self) -> Position {
        Position { count: self.0, rip: 0, rcx: 0 }
    }

    fn steps(&self) -> Steps {
        Steps::exactly(self.0)
    }

    fn save(&mut self) -> Result<CpuState, EngineError> {
        Ok(CpuState::default())
    }

    fn restore(&mut self, _state: &CpuState) -> Result<(), EngineError> {
        Ok(())
    }

    fn flush(&mut self) {}

    fn aim(&mut self, _aim: Aim) {}
}

#[test]
fn a_guest_that_computes_faster_than_its_time_is_held_back() {
    let ram = Arc::new(GuestRam::new(1 << 20).unwrap());
    let bus = BusBuilder::new(Arc::clone(&ram), 1).build();
    let mut machine = Machine::new(Box::new(Spinning(0)), bus, ram, Reckoning::default(), 0);
    let inbox = Inbox::new();
    let _source = inbox.source();
    let mut world = live(ClockMode::Paced, &inbox);
    let started = Instant::now();
    let sender = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(100));
        inbox.quit(QuitReason::Terminal);
    });
    assert!(matches!(machine.run(&mut world), Err(RunError::World(Stop::Quit))));
    let (guest, host) = (machine.at().time.0, started.elapsed().as_nanos() as u64);
    assert!(guest <= host + gemel_host::live::SLICE * 4, "{guest} ns of guest time in {host} ns");
    assert!(guest > 50 * MS, "{guest}");
    sender.join().unwrap();
}
