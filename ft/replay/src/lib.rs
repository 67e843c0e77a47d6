//! Worlds that write down what they answer, and worlds that answer from what was written down.
//!
//! Not responsible for: the log's bytes (`gemel-log`), the host (`gemel-host`), a peer (`gemel-pair`, which gives
//! [`Replay`] its source and [`Record`] its sink).

mod agreed;
mod disks;
mod diverged;
mod evidence;
mod pending;
mod progress;
mod record;
mod replay;
mod sink;
mod source;
mod start;
mod tally;
mod unflushed;

pub use disks::{NoDisks, ReplayDisks};
pub use diverged::{Diverged, Mismatch};
pub use evidence::write_evidence;
pub use progress::{DamagedProgress, Progress};
pub use record::Record;
pub use replay::{Conclusion, Handover, Replay};
pub use sink::{EntrySink, NoOutput, OutputSink};
pub use source::{EntrySource, LogSource, Lookahead};
pub use start::{DamagedStart, Start};
pub use tally::OutputTally;
