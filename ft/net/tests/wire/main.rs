//! The user-mode network, with another TCP/IP stack as its guest.

#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

mod guest;
mod hostile;
mod pure;
mod sockets;
