//! Segment selectors that a case may load.
//!
//! Not responsible for: what the host's descriptor tables hold.

use super::random::Random;

/// A selector that no far transfer of user mode takes, and no segment register but as null: kernel segments, and what lies
/// behind the table's end. The child process stays in its segments.
pub fn refused(random: &mut Random) -> u16 {
    let refused = [0, 3, 0x10, 0x11, 0x13, 0x18, 0x1b, 0xfff8, 0xfffb, 0x8003, 0x7ff3];
    random.of(&refused)
}
