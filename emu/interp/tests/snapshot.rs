//! A machine that is saved and restored goes on as if nothing had happened, and a damaged snapshot is refused.
//!
//! Not responsible for: each device's own section (the conformance test in `devices`).

mod boot;

use anyhow::{Context, Result};
use boot::{Closed, EPOCH, machine, run_to};
use gemel_machine::SnapshotError;
use gemel_system_tests::guest::Guest;

/// Where the snapshot is taken: in the middle of the kernel's start, timers armed, between two epochs.
const TAKEN: u64 = 500_000_003;
const LENGTH: u64 = 620_000_000;

#[test]
fn a_restored_boot_goes_on_the_same() -> Result<()> {
    let guest = Guest::obtain("boot-cloud").context("a kernel to boot is needed")?;
    let (mut original, mut world) = (machine(&guest)?, Closed::default());
    run_to(&mut original, &mut world, TAKEN)?;
    let snapshot = original.snapshot()?;
    let before = world.digests.len();
    run_to(&mut original, &mut world, LENGTH)?;
    assert!(world.digests.len() as u64 == LENGTH / EPOCH && world.digests.len() > before + 2);

    let (mut restored, mut again) = (machine(&guest)?, Closed::default());
    restored.restore(&snapshot)?;
    assert_eq!(restored.snapshot()?, snapshot);
    again.digests = world.digests[..before].to_vec();
    run_to(&mut restored, &mut again, LENGTH)?;
    assert_eq!(again.digests, world.digests);
    assert_eq!(restored.digest()?, original.digest()?);

    let mut damaged = snapshot.clone();
    for at in [0, 9, 40, 70, snapshot.len() / 2, snapshot.len() - 1] {
        damaged[at] ^= 1;
        assert!(machine(&guest)?.restore(&damaged).is_err(), "byte {at} changed");
        damaged[at] ^= 1;
    }
    for end in [0, 7, 63, 100, snapshot.len() - 1] {
        assert!(machine(&guest)?.restore(&snapshot[..end]).is_err(), "cut at {end}");
    }
    let longer = [snapshot.as_slice(), &[0]].concat();
    assert!(matches!(machine(&guest)?.restore(&longer), Err(SnapshotError::Sections(_))));
    Ok(())
}
