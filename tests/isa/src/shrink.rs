//! Makes a reproducer smaller while it still shows the same.
//!
//! Not responsible for: what "the same" is: the caller asks both sides.

use crate::case::{Case, Patch, Registers};
use crate::fields::{self, NAMES, RIP};
use anyhow::Result;

/// The smallest case that was found: without prefixes, patches and register contents that it does not need.
///
/// # Errors
/// What `same` returns.
pub fn smallest(mut case: Case, mut same: impl FnMut(&Case) -> Result<bool>) -> Result<Case> {
    let mut attempt = |case: &mut Case, change: &dyn Fn(&mut Case)| -> Result<bool> {
        let mut changed = *case;
        change(&mut changed);
        let better = changed != *case && same(&changed)?;
        if better {
            *case = changed;
        }
        Ok(better)
    };
    // Prefixes first: without them less of the rest is needed.
    let mut at = 0;
    while at + 1 < case.code().len() {
        if !attempt(&mut case, &|c| remove_byte(c, at))? {
            at += 1;
        }
    }
    for n in 0..case.patches.len() {
        attempt(&mut case, &|c| c.patches[n] = Patch::default())?;
    }
    let plain = Registers::default();
    for n in (0..NAMES.len()).filter(|n| *n != RIP) {
        attempt(&mut case, &|c| fields::set(&mut c.before, n, fields::get(&plain, n)))?;
    }
    Ok(case)
}

fn remove_byte(case: &mut Case, at: usize) {
    let length = usize::from(case.length);
    case.code.copy_within(at + 1..length, at);
    case.code[length - 1] = 0;
    case.length -= 1;
}
