//! A guest on two machines: when the primary dies, the secondary goes on with it.
//!
//! Not responsible for: recording and replaying (`gemel-replay`), disks and terminals (`gemel-host`).

pub mod ledger;
pub mod protocol;
pub mod shell;
