//! Each deliberate mistake is caught, or the simulation proves nothing.

use crate::check;
use crate::plan::Plan;
use gemel_pair::protocol::Mutant;
use std::panic::catch_unwind;

/// Seeds within which every mistake shows.
const SEEDS: u64 = 20_000;

const ALL: [Mutant; 11] = [
    Mutant::SendsBeforeAcknowledgement,
    Mutant::GoesLiveAtLastEntry,
    Mutant::DropsRing,
    Mutant::SkipsClaim,
    Mutant::IgnoresEpoch,
    Mutant::ListensToOldEpoch,
    Mutant::ForgetsInput,
    Mutant::JoinsTooEarly,
    Mutant::DropsWithoutRecord,
    Mutant::ClonesWithoutRing,
    Mutant::DoesNotWriteAgain,
];

fn caught_at(mutant: Mutant) -> Option<u64> {
    (0..SEEDS).find(|seed| {
        Mutant::activate(Some(mutant));
        let result = catch_unwind(|| check(Plan::drawn(*seed)));
        Mutant::activate(None);
        result.is_err()
    })
}

#[test]
fn every_mistake_is_caught() {
    let caught: Vec<_> = ALL.iter().map(|mutant| (mutant, caught_at(*mutant))).collect();
    for (mutant, seed) in &caught {
        println!("{mutant:?}: {seed:?}");
    }
    assert!(caught.iter().all(|(_, seed)| seed.is_some()), "{caught:?}");
}
