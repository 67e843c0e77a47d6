#![allow(clippy::unwrap_used)] // a test that unwraps fails with the line
//! How far a secondary is behind, and when a primary's guest waits for it: a guest that sleeps must not.

use gemel_machine::{At, Position, TimeBase, VirtTime};
use gemel_pair::protocol::{
    Action, Changed, Event, Hello, Mark, Member, MemberId, Membership, Message, PROTOCOL, PeerId, Phase,
    Role, Timing,
};

const MS: u64 = 1_000_000;
/// Counts in a millisecond of guest time.
const COUNTS: u64 = 250_000;

const PEER: PeerId = PeerId(1);

fn name(role: Role) -> MemberId {
    MemberId(if role == Role::Primary { 1 } else { 2 })
}

fn hello(role: Role) -> Hello {
    Hello {
        protocol: PROTOCOL,
        vm: "lag".into(),
        role,
        member: name(role),
        epoch: 1,
        running: false,
        machine: 3,
        log_header: Vec::new(),
    }
}

/// A side whose pair is complete, at time 0 of its clock.
fn side(role: Role, peer: Role) -> Member {
    let timing = Timing { max_lag: 10 * MS, time_base: TimeBase { num: 4, den: 1 }, ..Timing::default() };
    let mut member = Member::new(hello(role), 1, timing, 0);
    member.handle(0, Event::PeerConnected(PEER));
    member.handle(0, Event::PeerMessage(PEER, Message::Hello(hello(peer))));
    let members = Membership::new(2, name(Role::Primary), [name(Role::Secondary)]);
    let started = member.handle(
        0,
        match role {
            Role::Primary => Event::Changed(Some(Changed::Done)),
            Role::Secondary => Event::PeerMessage(PEER, Message::Members(members)),
        },
    );
    assert!(started.contains(&Action::Start));
    member
}

fn at(count: u64, time: u64) -> At {
    At { position: Position { count, rip: 0, rcx: 0 }, time: VirtTime(time) }
}

fn sent(actions: &[Action]) -> Vec<&Message> {
    actions
        .iter()
        .filter_map(|a| if let Action::ToPeer(_, message) = a { Some(message) } else { None })
        .collect()
}

#[test]
fn a_guest_that_slept_does_not_wait_for_its_secondary() {
    let mut primary = side(Role::Primary, Role::Secondary);
    primary.handle(1, Event::Reached(at(COUNTS, MS)));
    primary.handle(2, Event::Reached(at(COUNTS, 500 * MS)));
    assert_eq!((primary.figures().lag, primary.must_wait()), (MS, false), "asleep for half a second");

    primary.handle(3, Event::Reached(at(12 * COUNTS, 511 * MS)));
    assert_eq!((primary.figures().lag, primary.must_wait()), (12 * MS, false));
    for tick in 1..50 {
        primary.handle(tick * 2 * MS, Event::Tick);
    }
    let slowed = primary.brake();
    assert!(slowed > 0, "a secondary that falls behind slows its primary");
    assert_eq!(primary.figures().host_lag, 98 * MS - 1, "since the first mark");
    primary.handle(99 * MS, Event::Reached(at(22 * COUNTS, 600 * MS)));
    assert!(primary.must_wait(), "more than twice of what it may be behind");
    primary.handle(99 * MS, Event::PeerMessage(PEER, Message::Ack { sequence: 4, executed: 21 * COUNTS }));
    assert_eq!((primary.figures().lag, primary.must_wait()), (MS, false));
    primary.handle(101 * MS, Event::Tick);
    assert!(primary.brake() < slowed, "and lets it go");
}

/// It slows the pair for a while, and is dropped then.
#[test]
fn a_secondary_that_stays_late_is_dropped() {
    let mut primary = side(Role::Primary, Role::Secondary);
    primary.handle(1, Event::Reached(at(22 * COUNTS, 22 * MS)));
    let late = Timing::default().late;
    let dropped = (1..).map(|tick| tick * 2 * MS).take_while(|now| *now < 2 * late).find(|now| {
        primary.handle(*now, Event::PeerMessage(PEER, Message::Heartbeat { delivered: 0, executed: COUNTS }));
        primary.handle(*now, Event::Tick).contains(&Action::ClosePeer(PEER))
    });
    assert!(dropped.is_some_and(|at| at > late && at < late + 10 * MS), "{dropped:?}");
    assert_eq!(primary.figures().phase, Phase::Arbitrating, "it is out once the arbiter says so");
}

/// Otherwise a primary that waits would wait for the next heartbeat.
#[test]
fn a_secondary_that_has_caught_up_says_so_at_once() {
    let mut secondary = side(Role::Secondary, Role::Primary);
    let mark = Mark { at: at(12 * COUNTS, 600 * MS), outputs: 0, delivered: 0 };
    let heard = secondary.handle(5, Event::PeerMessage(PEER, Message::Mark { sequence: 1, mark }));
    assert_eq!(sent(&heard), [&Message::Ack { sequence: 1, executed: 0 }]);
    assert_eq!(secondary.figures().lag, 12 * MS);

    let done = secondary.handle(6, Event::Reached(at(12 * COUNTS, 600 * MS)));
    assert_eq!(sent(&done), [&Message::Heartbeat { delivered: 0, executed: 12 * COUNTS }]);
    assert_eq!(secondary.figures().lag, 0);
    let little = secondary.handle(7, Event::Reached(at(12 * COUNTS + 100, 601 * MS)));
    assert!(sent(&little).is_empty(), "no message for every step");
}
