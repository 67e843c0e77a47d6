//! The guest's network on real connections: a side's link to the gateway, and the gateway's to all sides.
//!
//! Not responsible for: exactly-once (`protocol`), what a frame means and where it goes (given from outside).

mod hub;
mod link;

pub use hub::{Gateway, Wire};
pub(super) use link::keep_connected;
