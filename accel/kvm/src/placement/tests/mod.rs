//! The ways on a simulated CPU, thousands of runs each.

mod chance;
mod cpu;
mod on_kvm;

mod pmu;

use super::{ByBranches, ByBreakpoint, ByStep, Came, Passed, Skid, Target, Way};
use chance::Chance;
use cpu::{Cpu, State};
use pmu::{Faults, Pmu, Simulated};

/// A boundary as it was written down.
struct Written {
    target: Target,
    state: State,
    /// What a perfect counter says there.
    branches: u64,
}

/// How a pursuit ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    There,
    Passed(Passed),
}

/// Runs of programs by chance, each pursued to a boundary by chance.
const SEEDS: u64 = 4_000;
const MARGIN: u64 = 100;

/// Runs a while and writes down where that is.
fn written(seed: u64) -> Written {
    let mut chance = Chance(seed ^ 0x7772);
    let mut cpu = Cpu::new(seed, 0, Pmu::new(Faults::default(), 0));
    let most = 1 << (4 + chance.below(11));
    for _ in 0..chance.below(most) {
        cpu.interpret();
    }
    let state = cpu.state;
    Written { target: Target { count: cpu.branches, rip: state.rip }, state, branches: cpu.branches }
}

/// What the machine does with a way: goes from boundary to boundary, and compares all of the state.
fn pursue(seed: u64, faults: Faults, breakpoints: bool, wanted: &Written) -> (End, Cpu) {
    let pmu = Pmu::new(faults, seed);
    let mut cpu = Cpu::new(seed, seed ^ 0x686f_7374, pmu.clone());
    let mut way = ByBranches::new(Simulated(pmu), MARGIN, breakpoints);
    let (mut shown, mut again) = (None, 0);
    for _ in 0..1_000_000 {
        if way.count().expect("simulated") == wanted.target.count && cpu.state == wanted.state {
            return (End::There, cpu);
        }
        match way.next(&mut cpu, &wanted.target).expect("simulated") {
            Came::Here => {
                let here = Target { count: way.count().expect("simulated"), rip: cpu.state.rip };
                assert_eq!(here, wanted.target, "seed {seed}");
                // The same boundary again only after a signal that came before the first step, one time in 50.
                again = if shown.replace(cpu.steps) == Some(cpu.steps) { again + 1 } else { 0 };
                assert!(again < 10, "seed {seed}: no step on");
            }
            Came::Exit => cpu.serve(),
            Came::Kicked => {}
            Came::Spent => {
                let (count, before) = (way.count().expect("simulated"), cpu.branches);
                cpu.interpret();
                way.set_count(count + cpu.branches - before).expect("simulated");
            }
            Came::Passed(passed) => return (End::Passed(passed), cpu),
        }
    }
    panic!("seed {seed}: no end");
}

#[test]
fn an_exact_counter_with_a_bounded_skid_always_leads_there() {
    for breakpoints in [true, false] {
        for seed in 0..SEEDS {
            let wanted = written(seed);
            let faults = Faults { skid: seed % MARGIN, ..Faults::default() };
            let (end, cpu) = pursue(seed, faults, breakpoints, &wanted);
            assert_eq!(end, End::There, "seed {seed}, breakpoints {breakpoints}");
            assert_eq!((&cpu.state, cpu.branches), (&wanted.state, wanted.branches), "seed {seed}");
        }
    }
}

#[test]
fn interrupts_that_come_too_late_or_never_are_told_and_do_not_accuse_the_run() {
    let mut ends = [0; 2];
    for seed in 0..SEEDS {
        let wanted = written(seed);
        let faults =
            [Faults { skid: 40 * MARGIN, ..Faults::default() }, Faults { skid: 10, lost: 2, spurious: 0 }];
        let (end, cpu) = pursue(seed, faults[seed as usize % 2], seed % 3 == 0, &wanted);
        match end {
            End::There => {
                assert_eq!((&cpu.state, cpu.branches), (&wanted.state, wanted.branches), "seed {seed}")
            }
            End::Passed(passed) => {
                assert!(matches!(passed, Passed::Overshot { .. }), "seed {seed}: {passed:?}")
            }
        }
        ends[usize::from(end == End::There)] += 1;
    }
    assert!(ends.iter().all(|&n| n > SEEDS / 20), "passed, there: {ends:?}");
}

#[test]
fn counting_too_much_is_never_a_wrong_place() {
    let mut ends = [0; 2];
    for seed in 0..SEEDS {
        let mut wanted = written(seed);
        // The one that wrote it down counted too much as well, at times.
        wanted.target.count += if seed % 4 == 0 { seed % 7 } else { 0 };
        let faults = Faults { skid: 20, lost: 0, spurious: 2_000 };
        let (end, cpu) = pursue(seed, faults, seed % 2 == 0, &wanted);
        if end == End::There {
            assert_eq!(cpu.state, wanted.state, "seed {seed}");
        }
        ends[usize::from(end == End::There)] += 1;
    }
    assert!(ends.iter().all(|&n| n > SEEDS / 20), "passed, there: {ends:?}");
}

#[test]
fn a_boundary_that_does_not_exist_is_looked_for_everywhere_and_not_found() {
    for seed in 0..SEEDS {
        let mut wanted = written(seed);
        wanted.state.rcx ^= 1 << 40;
        let faults = Faults { skid: seed % MARGIN, ..Faults::default() };
        let (end, cpu) = pursue(seed, faults, seed % 2 == 0, &wanted);
        assert_eq!(end, End::Passed(Passed::NotThere), "seed {seed}");
        // One branch too many tells it, and the counter's interrupt, if it is waited for, comes up to its skid later.
        let late = if seed % 2 == 0 { faults.skid } else { 0 };
        let known = wanted.branches + 1;
        assert!((known..=known + late).contains(&cpu.branches), "seed {seed}: {} for {known}", cpu.branches);
    }
}

/// Where exits are counted: the run of one exit to the next, by a way that knows the address only.
fn between_exits(seed: u64, way: &mut dyn Way) -> u64 {
    let mut chance = Chance(seed);
    let mut first = Cpu::new(seed, 0, Pmu::new(Faults::default(), 0));
    for _ in 0..chance.below(3_000) {
        first.interpret();
    }
    let wanted = Target { count: first.exits, rip: first.state.rip };
    let mut cpu = Cpu::new(seed, seed ^ 1, Pmu::new(Faults::default(), 0));
    let mut interpreted = 0;
    while cpu.exits < wanted.count {
        cpu.interpret();
    }
    while cpu.state != first.state {
        assert_eq!(cpu.exits, wanted.count, "seed {seed}: passed");
        match way.next(&mut cpu, &wanted).expect("simulated") {
            Came::Here => assert!(way.fits(&mut cpu, &wanted).expect("simulated")),
            Came::Exit => cpu.serve(),
            Came::Kicked => {}
            Came::Spent => {
                interpreted += 1;
                cpu.interpret();
            }
            Came::Passed(passed) => panic!("seed {seed}: {passed:?}"),
        }
    }
    interpreted
}

#[test]
fn between_two_exits_a_breakpoint_and_single_steps_lead_to_the_same_boundary() {
    let mut interpreted = 0;
    for seed in 0..SEEDS {
        between_exits(seed, &mut ByStep);
        between_exits(seed, &mut ByBreakpoint::new(u32::MAX));
        interpreted += between_exits(seed, &mut ByBreakpoint::new(10));
    }
    assert_ne!(interpreted, 0, "the budget was never spent");
}

#[test]
fn the_histogram_shows_how_late_interrupts_come_and_how_many_do_not() {
    let (mut samples, mut lost) = (0, 0);
    for seed in 0..50 {
        let faults = Faults { skid: 60, lost: 5, spurious: 0 };
        let pmu = Pmu::new(faults, seed);
        let mut cpu = Cpu::new(seed, seed, pmu.clone());
        let skid = Skid::measure(&mut Simulated(pmu), &mut cpu, 100, 500).expect("simulated");
        assert!(skid.worst <= 60, "seed {seed}: {skid:?}");
        assert_eq!(skid.samples, skid.buckets.iter().sum::<u64>());
        (samples, lost) = (samples + skid.samples, lost + skid.lost);
    }
    assert!(samples > 1_000 && lost > 100, "{samples} came, {lost} did not");
}
