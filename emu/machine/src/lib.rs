//! The machine: position and time, guest RAM, the bus, devices' contract, engines' contract, the world's contract,
//! and the one loop that ties them together.
//!
//! Not responsible for: executing instructions (an engine does), chips (`devices`), or anything outside the
//! machine: files, sockets, the host's clock are a [`World`]'s.

pub mod bus;
pub mod clock;
pub mod device;
pub mod digest;
pub mod linear;
pub mod machine;
pub mod nothing;
pub mod position;
mod power_on;
pub mod ram;
pub mod snapshot;
pub mod spec;
pub mod state;
pub mod timers;
pub mod until;
pub mod vcpu;
pub mod wires;
pub mod world;

pub use bus::{Bus, PowerEvent};
pub use clock::{Clock, Reckoning, TimeBase};
pub use device::{Device, DeviceCx, Section, SectionError};
pub use digest::Digest;
pub use linear::Paging;
pub use machine::{Machine, Pause, RunError};
pub use nothing::Nothing;
pub use position::{CountKind, Landing, Position, Steps, VirtTime};
pub use ram::{GuestRam, PAGE_SIZE, RamError};
pub use snapshot::SnapshotError;
pub use spec::{BootSpec, DiskSpec, MachineSpec, NicSpec, image_digest};
pub use state::MachineState;
pub use timers::Timers;
pub use until::Until;
pub use vcpu::{Aim, Attention, CpuIo, EngineError, Exit, Query, Vcpu};
pub use wires::{Wire, Wires};
pub use world::{At, DiskOp, DiskRequest, DiskStatus, Input, InputPort, Output, Stop, StopAt, World};
