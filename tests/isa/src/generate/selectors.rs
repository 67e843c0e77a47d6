//! Segment selectors that a case may load.
//!
//! Not responsible for: what the host's descriptor tables hold.

use super::random::Random;

/// Selectors that no far transfer of user mode takes, and no segment register but as null: kernel segments, and what lies
/// behind the table's end. The child process stays in its segments.
const REFUSED: [u16; 11] = [0, 3, 0x10, 0x11, 0x13, 0x18, 0x1b, 0xfff8, 0xfffb, 0x8003, 0x7ff3];

/// One of them.
pub fn refused(random: &mut Random) -> u16 {
    random.of(&REFUSED)
}

/// Whether a selector is one of them.
pub fn is_refused(selector: u16) -> bool {
    REFUSED.contains(&selector)
}
