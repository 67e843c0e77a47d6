//! The output ledger: what left a side and what let it, written down so that it can be proved afterwards, without the sides.
//!
//! Not responsible for: files and threads (`shell`), letting anything leave (`protocol`). docs/ledger.md has the format.
//!
//! * [`Line`]: the lines, and their form with its running check.
//! * [`Sums`]: digests of ranges of outputs that add up, so that ranges cut anywhere can be compared.
//! * [`Witness`]: watches what goes into a side's state machine and what comes out of it, and makes lines of it with its [`Tap`].
//!   It believes none of the machine's own state, so that it can bear witness against it.
//! * [`prove`]: the proof from the ledgers of all sides.

mod agreement;
mod line;
mod proof;
mod sums;
mod tap;
mod witness;

pub use line::{Damage, Heard, Hex, Line, Lines, Stream, Writer};
pub use proof::{Told, Verdict, Violation, prove};
pub use sums::{Sums, frame_item};
pub use tap::{Point, Tap};
pub use witness::Witness;
