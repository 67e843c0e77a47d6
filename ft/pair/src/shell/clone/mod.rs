//! A running machine on its way to a standby.
//!
//! Not responsible for: who is cloned to and when a clone counts (`protocol`), the log from the cut on (`sink`, `feed`).
//!
//! ```text
//! standby: digests of its disks' blocks                 leader's clone thread: [`copy_to`]
//!                                        ->  pages that are not zeros, blocks that differ      while the guest runs
//!                                        ->  pages and blocks written meanwhile, in rounds
//! machine's thread: the cut. Copies what is still left, CPU, devices, what the run has come to; the guest goes on
//!                                        ->  that
//! [`Receiving`] builds the machine; its digest goes back, and the log from the cut on has come meanwhile
//! ```
//!
//! The two threads of the leader meet at a [`Desk`]: what needs the machine is done by the machine's thread between two runs. A
//! page is copied while the guest runs, so that a store can tear the copy; it is then dirty again, and goes again.

mod cut;
mod desk;
mod part;
mod receive;
mod send;

pub(super) use cut::serve;
pub(super) use desk::Desk;
pub(super) use part::Part;
pub(super) use receive::{Received, Receiving};
pub(super) use send::{Copied, copy_to};

use std::io;

/// A disk's content in blocks, for a thread beside the machine's.
pub trait DiskBlocks: Send + Sync {
    /// How many blocks there are.
    fn count(&self) -> u64;

    /// A block's content now. The last can be shorter than the others.
    ///
    /// # Errors
    /// The host's.
    fn read(&self, block: u64) -> io::Result<Vec<u8>>;

    /// Replaces a block.
    ///
    /// # Errors
    /// The host's, or the disk is write-protected, or the block has another length.
    fn write(&self, block: u64, data: &[u8]) -> io::Result<()>;

    /// What blocks are compared by.
    ///
    /// # Errors
    /// The host's.
    fn digest(&self, block: u64) -> io::Result<u128>;

    /// Makes what was written durable.
    ///
    /// # Errors
    /// The host's.
    fn flush(&self) -> io::Result<()>;

    /// Notes from here on which blocks are written.
    fn watch(&self);

    /// Stops that.
    fn unwatch(&self);

    /// The blocks written since [`DiskBlocks::watch`] or the last call.
    fn take_changed(&self) -> Vec<u64>;

    /// How many these would be.
    fn changed(&self) -> usize;
}
