//! The live world: the host's clock, terminal, sockets, files and people, behind [`gemel_machine::World`].
//!
//! Not responsible for: the machine (`emu/machine`), logs (`ft/log`, `ft/replay`), peers (`ft/pair`), options
//! (`ft/cli`).
//!
//! [`Live`] is five parts with a thin rule between them, and each part can be had without the others:
//! a [`Pacer`] (how guest time follows the host's clock), [`Inputs`] (what people and sockets send, fed by threads
//! through an [`Inbox`]), [`Disks`] (images), [`Nics`] (what frames leave to), and an [`OutputSink`] (where bytes go). A wrapper that must hold
//! outputs back puts a sink of its own into [`Live::outputs`].

pub mod control;
pub mod disk;
pub mod epochs;
pub mod error;
mod fields;
pub mod inbox;
pub mod inputs;
pub mod keys;
pub mod live;
pub mod net;
pub mod outputs;
pub mod pacing;
pub mod serial;
pub mod signals;
pub mod sockets;
pub mod terminal;

pub use disk::{Disk, Disks, DriveSpec};
pub use epochs::Epochs;
pub use error::HostError;
pub use inbox::{Inbox, QuitReason};
pub use inputs::Inputs;
pub use live::{Live, Status};
pub use net::{NetSpec, Nics};
pub use outputs::{ByteSink, OutputSink, Outputs};
pub use pacing::{ClockMode, Pacer};
pub use serial::SerialSpec;

/// Serial ports on the board.
pub const SERIAL_PORTS: usize = 2;

/// Tells the person at the terminal of something that does not end the run.
pub fn warn(message: impl std::fmt::Display) {
    eprintln!("gemel: warning: {message}");
}
