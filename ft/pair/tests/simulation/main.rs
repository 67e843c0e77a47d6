//! The protocol explored: seeded runs with everything that can go wrong, in virtual time.
//!
//! `GEMEL_SEEDS=100000 cargo test -p gemel-pair --test simulation` runs more; `GEMEL_SEED=17` runs one again
//! and tells what happens; `GEMEL_FIRST_SEED` is where it begins.

mod faults;
mod host;
mod judge;
mod mutants;
mod plan;
mod process;
mod toy;
mod world;

use gemel_pair::ledger::prove;
use gemel_pair::protocol::{Phase, StopReason};
use plan::{CALM, END, Fault, MS, Plan};
use world::World;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

fn run(plan: Plan) -> World {
    let mut world = World::new(plan);
    world.run(END);
    world
}

/// Runs a plan and looks at how things stand when all is calm again.
pub fn check(plan: Plan) {
    let world = run(plan);
    let shown = &world.judge.shown;
    let held = world.judge.register.last().expect("written at power-on");
    let side_of = |m| world.hosts.iter().find(|h| h.alive && h.side.id == m).map(|h| &h.side);
    if world.ended {
        return; // Whoever ended has let out everything, or nobody was there to see it.
    }
    let garbled = world.plan.garbled > 0;
    let leader = side_of(held.leader).filter(|side| side.stopped.is_none());
    let Some(leader) = leader else {
        let lost = held.members.iter().all(|m| world.gone.contains(m));
        // A primary that dies before its secondaries were told leaves a guest of which nothing was seen.
        let never_ran = world.judge.nothing_was_seen();
        assert!(lost || never_ran || garbled, "a member of {held:?} is there, and nobody leads");
        return;
    };
    assert!(leader.toy.outputs.starts_with(shown), "the console differs from the guest that lives");
    if garbled {
        return; // Such connections can starve anybody.
    }
    match leader.phase() {
        Phase::Live | Phase::Primary => {}
        // The pair never came about.
        Phase::Sync if leader.toy.count == 0 => return,
        phase => panic!("{:?} leads, and is {phase:?}", leader.id),
    }
    assert_eq!(leader.toy.consumed, world.judge.typed, "typed bytes got lost");
    assert_eq!(world.client.unconsumed(), 0, "the client was not told");
    let late = leader.toy.outputs.len() - shown.len();
    assert!(late < 60, "{late} outputs never came");
    let followers = held.followers().count();
    let idle = world.hosts.iter().any(|h| h.alive && h.side.is_idle());
    assert!(followers >= world.plan.wanted || !idle, "unprotected, and a standby waits");
}

/// The seeds of this run.
fn seeds(default: u64) -> std::ops::Range<u64> {
    let first = number("GEMEL_FIRST_SEED").unwrap_or(0);
    first..first + number("GEMEL_SEEDS").unwrap_or(default)
}

#[test]
fn nothing_is_lost_repeated_or_changed_and_one_side_lives() {
    if let Some(seed) = number("GEMEL_SEED") {
        println!("{:#?}", Plan::drawn(seed));
        check(Plan::drawn(seed));
        return;
    }
    for seed in seeds(5_000) {
        let result = std::panic::catch_unwind(|| check(Plan::drawn(seed)));
        assert!(result.is_ok(), "GEMEL_SEED={seed} runs this again");
    }
}

/// A death of the primary at every step of a run: the strictest form of "at any moment".
#[test]
fn the_primary_may_die_at_every_step() {
    for step in 0..400 {
        let died = 8 * MS + step * 250_000;
        for fault in [Fault::Kill(0), Fault::PowerCut(0)] {
            let plan = Plan { faults: vec![(died, fault)], ..Plan::calm(step, 3, 1) };
            let world = run(plan.clone());
            let leader = world.judge.register.last().unwrap().leader;
            assert_eq!(leader, world.hosts[1].side.id, "the secondary took over after a death at {died}");
            assert_eq!(world.hosts[1].side.phase(), Phase::Primary, "and has a secondary of its own");
            check(plan);
        }
    }
}

/// The ledgers of a pair, one of which dies, prove what the judge saw.
#[test]
fn ledgers_of_a_pair_prove_that_nothing_left_too_early() {
    for seed in 0..300 {
        let died = 8 * MS + seed * 300_000;
        let fault = Fault::Kill((seed % 2) as usize);
        let world = run(Plan { faults: vec![(died, fault)], ..Plan::calm(seed, 2, 1) });
        let verdict = prove(&world.ledgers());
        assert!(verdict.violations.is_empty(), "seed {seed}: {verdict:?}");
    }
}

/// A secondary that differs never claims, and the primary goes on, with the next one.
#[test]
fn a_secondary_that_differs_stops() {
    for seed in 0..200 {
        let plan =
            Plan { faults: vec![(12 * MS + seed * 300_000, Fault::Corrupt(1))], ..Plan::calm(seed, 3, 1) };
        let world = run(plan.clone());
        assert_eq!(world.gone.len(), 1, "seed {seed}: it said that it differs");
        assert_eq!(world.judge.register.last().unwrap().leader, world.hosts[0].side.id);
        assert_eq!(world.hosts[0].side.phase(), Phase::Primary);
        check(plan);
    }
}

/// Somebody asks for another leader: it is one, and nothing is lost; the old one becomes its secondary.
#[test]
fn a_leader_hands_over() {
    for seed in 0..200 {
        let plan = Plan {
            faults: vec![(12 * MS + seed * 300_000, Fault::FailOver)],
            ..Plan::calm(seed, 2 + (seed % 2) as usize, 1)
        };
        let world = run(plan.clone());
        let held = world.judge.register.last().unwrap();
        assert_eq!(held.leader, world.hosts[1].side.id, "seed {seed}");
        assert_eq!(held.members.len(), 2, "seed {seed}: protected again");
        check(plan);
    }
}

/// Without faults the guest's end is orderly on all sides.
#[test]
fn a_healthy_pair_ends_with_its_guest() {
    for seed in 0..100 {
        let wanted = 1 + (seed % 2) as usize;
        let plan = Plan { ends_at: 100 + seed, ..Plan::calm(seed, 3, wanted) };
        let world = run(plan);
        let primary = &world.hosts[0].side;
        assert_eq!(primary.stopped, Some(StopReason::GuestEnded));
        for host in &world.hosts[1..=wanted] {
            assert_eq!(host.side.stopped, Some(StopReason::PeerEnded));
            assert_eq!(host.side.toy.outputs, primary.toy.outputs);
            assert!(host.side.toy.ended(), "a secondary left before it had compared the end");
        }
        assert_eq!(world.judge.shown, primary.toy.outputs);
        assert!(world.guest_ended);
    }
}

#[test]
fn a_plan_is_calm_before_it_is_judged() {
    for seed in 0..1000 {
        assert!(Plan::drawn(seed).faults.iter().all(|(when, _)| *when < CALM));
    }
}
