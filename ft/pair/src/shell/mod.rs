//! The state machines on real connections, threads and clocks.
//!
//! Not responsible for: any decision (`protocol` makes them), the live world and the machine (given from outside).
//!
//! Threads of a side: the machine's own; a clock that ticks; one that asks the arbiter; a reader and a writer for each
//! connection; a listener for clients. All of them hand events to [`Side`], which carries out what the protocol
//! answers. Nothing that the machine's thread does waits for a connection: what it sends goes into a queue. Only when
//! held outputs or that queue grow beyond their bounds does the guest wait.

mod address;
mod arbiter;
mod clone;
mod complaints;
mod connection;
mod console;
mod error;
mod feed;
mod gateway;
mod keys;
mod ledger;
mod listener;
mod protect;
mod run;
mod side;
mod sink;
mod standby;
mod stream;
mod tls;
mod trust;
mod world;

pub use address::Address;
pub use arbiter::{Arbiter, ArbiterAddress, DirectoryArbiter, EtcdArbiter};
pub use clone::DiskBlocks;
pub use console::{Console, Shown};
pub use error::PairError;
pub use feed::FeedSource;
pub use gateway::{Gateway, Wire};
pub use keys::{Fingerprint, KeyFolder, Purpose};
pub use listener::Listener;
pub use run::{Ended, Options, Primary, Secondary};
pub use side::{CloneFigures, Report, ReportFn, Side, Surroundings, now};
pub use sink::PairSink;
pub use standby::Standby;
pub use trust::Trust;
