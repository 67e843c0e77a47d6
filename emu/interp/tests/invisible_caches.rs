//! Nothing that caches may be visible: a kernel that boots with all translations and decoded blocks dropped at random
//! boundaries is, at every epoch, equal to one that boots undisturbed.
//!
//! Not responsible for: whether the boot is right (the guests' results are checked in `tests/system`).

mod boot;

use anyhow::{Context, Result};
use boot::{Closed, EPOCH, machine, run_to};
use gemel_machine::Digest;
use gemel_system_tests::guest::Guest;

/// Instructions to boot for: past the kernel's unpacking, its page tables, and its first processes.
const LENGTH: u64 = 700_000_000;

/// Epoch digests of a boot; `seed` flushes at random boundaries, 200,000 instructions apart on average.
fn digests(guest: &Guest, seed: Option<u64>) -> Result<Vec<Digest>> {
    let mut machine = machine(guest)?;
    let mut world = Closed::default();
    let mut random = seed.unwrap_or(0);
    while world.end < LENGTH {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let step = if seed.is_some() { 1 + (random >> 33) % 400_000 } else { LENGTH };
        let end = (world.end + step).min(LENGTH);
        run_to(&mut machine, &mut world, end)?;
        if seed.is_some() {
            machine.vcpu().flush();
        }
    }
    Ok(world.digests)
}

#[test]
fn a_boot_does_not_show_when_caches_are_dropped() -> Result<()> {
    let guest = Guest::obtain("boot-cloud").context("a kernel to boot is needed")?;
    let calm = digests(&guest, None)?;
    assert_eq!(calm.len() as u64, LENGTH / EPOCH);
    let disturbed = digests(&guest, Some(0x5eed))?;
    for (epoch, (a, b)) in calm.iter().zip(&disturbed).enumerate() {
        assert_eq!(a, b, "epoch {epoch}: {:?} differ", a.differing_parts(b));
    }
    assert_eq!(calm.len(), disturbed.len());
    Ok(())
}
