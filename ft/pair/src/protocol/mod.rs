//! The replication protocol as state machines: they get events and a time in nanoseconds, and return actions.
//!
//! Not responsible for: sockets, threads, clocks, files (`shell`), and what the machine does (`gemel-machine`). That
//! is why a simulation in virtual time can explore it at every step (`tests/simulation`).
//!
//! * [`Replication`]: who is live. Marks, acknowledgements, suspicion, arbitration, going live.
//! * [`Ring`]: outputs by ordinal, held until they may leave and kept until they were delivered.
//! * [`ConsoleServer`] and [`ConsoleClient`]: outputs and inputs exactly once over connections that break.
//! * [`GatewayServer`] and [`GatewayClient`]: the same for the guest's network frames, which [`FrameRing`] keeps.
//! * [`Member`]: one side of the pair, made of the servers and the first two. The shell and the simulation run the same one.
//!
//! The rules (FT paper 2.2, 2.3):
//! * *Output rule*: an output leaves only once a mark that covers it is acknowledged, which means that the secondary
//!   has it in hand, in order and whole. Only the output waits, never the guest.
//! * *Going live* happens at the last entry or mark received, never earlier: nothing that was acknowledged is lost.
//! * *One live side*: whoever suspects its peer asks the arbiter for the next epoch. One side gets it. The other stops.

mod brake;
pub(crate) mod bytes;
mod client;
mod console;
mod following;
mod frames;
mod gateway;
mod gateway_client;
#[cfg(test)]
mod gateway_tests;
mod latency;
mod leading;
mod member;
mod membership;
mod message;
mod mutant;
mod peer;
mod replication;
mod ring;
mod watch;

pub use client::{ClientAction, ClientEvent, ConsoleClient};
pub use console::{ClientId, ConsoleServer, INPUT_WINDOW, ToClient, ToServer};
pub use frames::{FrameRing, FrameRingState, NicFrame};
pub use gateway::{FRAMES_WINDOW, FromSide, GatewayServer, GatewayState, ToSide};
pub use gateway_client::{GatewayAction, GatewayClient, GatewayEvent, SideId};
pub use latency::{LATENCY_BOUNDS, Latencies};
pub use member::{Action, Event, Figures, Member, RING_CAPACITY};
pub use membership::{Changed, MemberId, Membership, PeerId};
pub use message::{
    ClonePart, Cut, FrameError, Goodbye, Hello, MAX_FRAME, Mark, Message, PROTOCOL, decode, encode,
};
pub use mutant::Mutant;
pub use replication::{Failover, Phase, Replication, Role, StopReason, Timing};
pub use ring::{Channel, OutputByte, OutputRing, Ring, RingState, Weigh};
pub use watch::Watch;
