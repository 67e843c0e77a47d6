//! The protocol explored: thousands of seeded runs with everything that can go wrong, in virtual time.
//!
//! `GEMEL_SEEDS=100000 cargo test -p gemel-pair --test simulation` runs more; `GEMEL_SEED=17` runs one again.

mod toy;
mod world;

use gemel_pair::protocol::{Phase, StopReason};
use toy::Dice;
use world::{MS, Plan, World};

const CALM: u64 = 250 * MS;
const END: u64 = 1_500 * MS;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// What goes wrong, drawn from the seed.
fn plan(seed: u64) -> Plan {
    let mut dice = Dice(seed);
    let mut plan = Plan {
        seed,
        ends_at: u64::MAX,
        delay: [50_000, MS, 20 * MS][dice.below(3) as usize],
        calm: CALM,
        answers_lost: [0, 0, 2][dice.below(3) as usize],
        ..Plan::default()
    };
    let mut when = || 3 * MS + dice.below(CALM - 10 * MS);
    let times: Vec<u64> = (0..12).map(|_| when()).collect();
    if dice.one_in(2) {
        plan.crashes.push((times[0], dice.below(2) as usize));
    }
    if dice.one_in(8) {
        plan.crashes.push((times[1], dice.below(2) as usize));
    }
    for i in 0..dice.below(3) as usize {
        plan.pauses.push((times[2 + i], dice.below(2) as usize, dice.below(300 * MS)));
    }
    plan.link_breaks = dice.one_in(4).then_some(times[5]);
    plan.link_silent = dice.one_in(4).then_some(times[6]);
    for i in 0..dice.below(3) as usize {
        plan.client_breaks.push((times[7 + i], dice.below(2) as usize));
    }
    plan.arbiter_away = dice.one_in(3).then(|| (times[9], times[9] + dice.below(200 * MS)));
    if dice.one_in(4) {
        plan.ends_at = 200 + dice.below(500);
    }
    plan
}

fn run(plan: Plan) -> World {
    let mut world = World::new(plan);
    world.run(END);
    world
}

fn check(plan: Plan) {
    let guest_ends = plan.ends_at != u64::MAX;
    let crashes = plan.crashes.len();
    let clean = plan.client_breaks.is_empty();
    let world = run(plan);
    let verdict = world.verdict();
    assert!(verdict.violations.is_empty(), "the ledgers: {verdict:?}");
    assert!(verdict.unproved == 0 || crashes > 0, "{verdict:?}");
    let a = world.authority();
    let side = &world.sides[a];

    // What was shown is what the surviving history printed, from its first byte on.
    assert!(side.toy.outputs.starts_with(&world.shown), "the console differs from the guest that lives");
    assert!(world.typed.starts_with(&side.toy.consumed), "the guest took something else than was typed");

    if side.dead {
        assert!(crashes > 0);
        return;
    }
    // Whoever has the latest epoch must be at work, or have ended with its guest.
    match (&side.stopped, side.member.replication().phase()) {
        (None, Phase::Live | Phase::Primary) => {
            assert!(!guest_ends, "the guest never ended");
            assert_eq!(side.toy.consumed, world.typed, "typed bytes got lost");
            assert_eq!(world.client.unconsumed(), 0);
            let late = side.toy.outputs.len() - world.shown.len();
            assert!(late < 100, "{late} outputs never came");
        }
        (Some(StopReason::GuestEnded), _) => {
            assert!(guest_ends);
            assert!(side.toy.ended());
        }
        // The pair never came about: the primary waits at power-on for another secondary.
        (None, Phase::Sync) => return assert_eq!((side.toy.count, a), (0, 0)),
        (stopped, phase) => panic!("side {a} owns the epoch, and is {phase:?}, {stopped:?}"),
    }
    if crashes == 0 && guest_ends && clean {
        assert_eq!(world.shown, side.toy.outputs, "last outputs lost");
        assert!(world.guest_ended, "nobody told the console");
    }
}

#[test]
fn nothing_is_lost_repeated_or_changed_and_one_side_lives() {
    if let Some(seed) = number("GEMEL_SEED") {
        println!("{:#?}", plan(seed));
        check(plan(seed));
        return;
    }
    for seed in 0..number("GEMEL_SEEDS").unwrap_or(2_000) {
        let result = std::panic::catch_unwind(|| check(plan(seed)));
        assert!(result.is_ok(), "GEMEL_SEED={seed} runs this again");
    }
}

/// A crash of the primary at every step of a run: the strictest form of "at any moment".
#[test]
fn the_primary_may_die_at_every_step() {
    for step in 0..400 {
        let died = 3 * MS + step * 200_000;
        let plan = Plan {
            seed: step,
            crashes: vec![(died, 0)],
            ends_at: u64::MAX,
            delay: MS,
            calm: 100 * MS,
            ..Plan::default()
        };
        let mut world = World::new(plan.clone());
        world.run(600 * MS);
        assert_eq!(world.authority(), 1, "the secondary took over after a death at {died}");
        assert_eq!(world.sides[1].member.replication().phase(), Phase::Live);
        assert_eq!(world.sides[1].toy.consumed, world.typed);
        assert!(world.sides[1].toy.outputs.starts_with(&world.shown));
    }
}

/// A secondary that differs never claims, and the primary goes on.
#[test]
fn a_secondary_that_differs_stops() {
    for seed in 0..200 {
        let plan = Plan {
            seed,
            corrupt: Some(20 * MS + seed * 500_000),
            ends_at: u64::MAX,
            delay: MS,
            calm: CALM,
            ..Plan::default()
        };
        let world = run(plan);
        assert_eq!(world.sides[1].stopped, Some(StopReason::Diverged), "seed {seed}");
        assert!(!world.sides[1].claimed);
        assert_eq!(world.sides[0].member.replication().phase(), Phase::Live);
        assert_eq!(world.sides[0].toy.consumed, world.typed);
        assert!(world.sides[0].toy.outputs.starts_with(&world.shown));
        assert!(world.sides[0].toy.outputs.len() - world.shown.len() < 100);
    }
}

/// Without faults nobody asks the arbiter, and the guest's end is orderly on both sides.
#[test]
fn a_healthy_pair_ends_with_its_guest() {
    for seed in 0..100 {
        let plan = Plan { seed, ends_at: 300 + seed, delay: MS, calm: CALM, ..Plan::default() };
        let world = run(plan);
        assert_eq!(world.authority(), 0);
        assert_eq!(world.sides[0].stopped, Some(StopReason::GuestEnded));
        assert_eq!(world.sides[1].stopped, Some(StopReason::PeerEnded));
        assert_eq!(world.shown, world.sides[0].toy.outputs);
        assert_eq!(world.sides[0].toy.outputs, world.sides[1].toy.outputs);
        assert!(world.sides[1].toy.ended(), "the secondary left before it had compared the end");
        assert!(world.guest_ended);
    }
}
