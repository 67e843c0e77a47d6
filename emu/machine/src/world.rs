//! The contract of the world: everything that is not the machine, behind one trait.
//!
//! Not responsible for: any particular world (`ft`).

use crate::digest::Digest;
use crate::position::{Landing, Position, VirtTime};
use crate::vcpu::Query;
use serde::{Deserialize, Serialize};

/// Where and when the machine is, as it tells the world.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct At {
    /// The position.
    pub position: Position,
    /// Guest time there.
    pub time: VirtTime,
}

/// When the machine must stop and ask again, whichever comes first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StopAt {
    /// At the first boundary whose count is not below this.
    pub count: u64,
    /// At the first boundary whose guest time is not before this.
    pub time: VirtTime,
    /// At this boundary between two counts. `count` is its count, until the machine is there. A machine that comes by nothing like it
    /// is at a later count when it asks again, or says so ([`World::missed`]).
    pub landing: Option<Landing>,
}

impl StopAt {
    /// No stop wanted.
    pub const NEVER: Self = Self { count: u64::MAX, time: VirtTime::NEVER, landing: None };
}

/// Which plug of the board an input goes into.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum InputPort {
    /// A serial port, by number.
    Serial(u8),
    /// The PS/2 keyboard.
    Keyboard,
    /// The PS/2 mouse.
    Mouse,
    /// A disk, by number.
    Disk(u8),
    /// A network interface, by number.
    Net(u8),
    /// The power button.
    PowerButton,
    /// The power supply and the reset line: of the board itself, with no device behind them.
    Supply,
}

/// Something that comes into the machine.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Input {
    /// Bytes arrive at a serial port. The world keeps no more than [`SERIAL_WINDOW`] bytes in flight: those sent
    /// and not yet reported by [`Output::SerialConsumed`]. Bytes beyond are lost, as on a real line.
    Serial {
        /// Port number.
        port: u8,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// A key, as scan codes of set 2 as the keyboard sends them.
    Key(Vec<u8>),
    /// The mouse moved or a button changed.
    Mouse {
        /// Right is positive.
        dx: i16,
        /// Up is positive.
        dy: i16,
        /// Bit 0 left, 1 right, 2 middle.
        buttons: u8,
    },
    /// A disk request is complete; guest RAM is touched only now.
    DiskDone {
        /// Disk number.
        disk: u8,
        /// The request's [`DiskRequest::tag`].
        tag: u64,
        /// How it went.
        status: DiskStatus,
        /// The data of a read; empty otherwise.
        data: Vec<u8>,
    },
    /// The power button was pressed.
    PowerButton,
    /// A frame arrives at a network interface. One that the guest has no room for is lost, as on a real line.
    Frame {
        /// Interface number.
        nic: u8,
        /// The frame, from destination address to the last byte of its payload (no checksum).
        bytes: Vec<u8>,
    },
    /// The plug is pulled: the machine is off here.
    PowerOff,
    /// The reset button.
    Reset,
    /// Another medium is in a disk's drive.
    Media {
        /// Disk number.
        disk: u8,
        /// Its size in sectors; 0 for none.
        sectors: u64,
    },
}

/// How many bytes the world may have in flight to one serial port.
pub const SERIAL_WINDOW: usize = 256;

impl Input {
    /// The plug that the input goes into.
    pub fn port(&self) -> InputPort {
        match self {
            Self::Serial { port, .. } => InputPort::Serial(*port),
            Self::Key(_) => InputPort::Keyboard,
            Self::Mouse { .. } => InputPort::Mouse,
            Self::DiskDone { disk, .. } => InputPort::Disk(*disk),
            Self::PowerButton => InputPort::PowerButton,
            Self::Frame { nic, .. } => InputPort::Net(*nic),
            Self::PowerOff | Self::Reset => InputPort::Supply,
            Self::Media { disk, .. } => InputPort::Disk(*disk),
        }
    }
}

/// How a disk request went.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum DiskStatus {
    /// Done.
    Ok,
    /// The host could not.
    Error,
}

/// What a disk is asked to do. Sectors have 512 bytes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum DiskOp {
    /// Read `sectors` sectors from `sector` on.
    Read {
        /// First sector.
        sector: u64,
        /// How many.
        sectors: u32,
    },
    /// Write whole sectors from `sector` on.
    Write {
        /// First sector.
        sector: u64,
        /// The data, a multiple of 512 bytes.
        data: Vec<u8>,
    },
    /// Make all completed writes durable.
    Flush,
}

/// A request of a disk controller to its backend.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DiskRequest {
    /// Disk number.
    pub disk: u8,
    /// The device's name for the request; comes back with the completion. Unique among requests in flight.
    pub tag: u64,
    /// What to do.
    pub op: DiskOp,
}

/// Something that leaves the machine.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Output {
    /// A byte leaves a serial port.
    Serial {
        /// Port number.
        port: u8,
        /// The byte.
        byte: u8,
    },
    /// The guest has taken this many of the bytes that came in (flow control for the world).
    SerialConsumed {
        /// Port number.
        port: u8,
        /// Bytes taken.
        count: u16,
    },
    /// A byte for the debug console (port 0xe9).
    Debug(u8),
    /// A disk request.
    Disk(DiskRequest),
    /// A frame leaves a network interface.
    Frame {
        /// Interface number.
        nic: u8,
        /// The frame, as in [`Input::Frame`].
        bytes: Vec<u8>,
    },
}

/// Why a world ends a run.
#[derive(Debug)]
pub enum Stop {
    /// Somebody asked for the end (Ctrl-A x, the control socket, a signal).
    Quit,
    /// There is nothing more to answer from: the log's end was reached.
    EndOfLog,
    /// The machine is not where the log says it must be.
    Diverged(Box<dyn std::error::Error + Send + Sync>),
    /// Trouble of the host: a file, a socket, a peer. The message says what to do.
    Host(Box<dyn std::error::Error + Send + Sync>),
}

/// Everything outside the machine. One short loop ([`crate::Machine::run`]) drives every world the same way.
pub trait World {
    /// When to stop next for [`World::poll`]. Asked at every stop.
    fn next_stop(&mut self, at: At) -> StopAt;

    /// The next input due exactly here, if any. Asked at every stop, repeatedly until `None`, after the timers
    /// that are due have fired.
    ///
    /// # Errors
    /// The reason to end the run.
    fn poll(&mut self, at: At) -> Result<Option<Input>, Stop>;

    /// The number that the sender of the last polled input gave it, if it numbers what it sends.
    fn input_number(&self) -> Option<u64> {
        None
    }

    /// The guest is halted, and nothing happens by itself before `until` ([`VirtTime::NEVER`]: ever). Returns the
    /// guest time to go on at, in `at.time ..= until`: earlier than `until` only when an input came, which the
    /// next `poll` returns.
    ///
    /// # Errors
    /// The reason to end the run.
    fn idle(&mut self, at: At, until: VirtTime) -> Result<VirtTime, Stop>;

    /// What time it is, where guest time is sampled ([`crate::Reckoning::Exits`]): asked before each access to a device, and
    /// for each read of the TSC. A world without a clock says that no time passed.
    ///
    /// # Errors
    /// The reason to end the run.
    fn now(&mut self, at: At) -> Result<VirtTime, Stop> {
        Ok(at.time)
    }

    /// Such a machine is at a stop, and the board's next timer is due at `deadline`, later than `at.time`. Returns the time once
    /// `deadline` has come, or whatever the world has for a later time.
    ///
    /// # Errors
    /// The reason to end the run.
    fn wake(&mut self, _at: At, _deadline: VirtTime) -> Result<Option<VirtTime>, Stop> {
        Ok(None)
    }

    /// The boundary between two counts where the machine is. Called when the landing that [`World::next_stop`] wanted is reached;
    /// where none was wanted, after the first answer of `wake` or `poll` and before anything of it is applied, or before a digest.
    fn landed(&mut self, _at: At, _landing: Landing) {}

    /// The landing that [`World::next_stop`] wanted is not to be found: the machine has made `steps` steps since it began to look, more than
    /// lead there. Returns why the run ends.
    fn missed(&mut self, at: At, landing: Landing, steps: u64) -> Stop {
        let Landing { position, within, .. } = landing;
        Stop::Diverged(
            format!(
                "no boundary like that at {position} within {within} steps; at {} after {steps}",
                at.position
            )
            .into(),
        )
    }

    /// Answers a question of the vCPU ([`Query::Random`]; the TSC is the machine's own).
    ///
    /// # Errors
    /// The reason to end the run.
    fn answer(&mut self, at: At, query: Query) -> Result<u64, Stop>;

    /// Takes an output. Called in the order in which the guest caused them. A reason to end the run is kept for
    /// the next `poll`.
    fn emit(&mut self, at: At, output: Output);

    /// Whether the world wants the machine's digest here, to note or to compare it.
    fn digest_due(&self, at: At) -> bool;

    /// Takes the digest that was due.
    ///
    /// # Errors
    /// [`Stop::Diverged`] when it is not the expected one.
    fn digest(&mut self, at: At, digest: Digest) -> Result<(), Stop>;
}

/// Inside `impl World for Wrapper<W>`: hands the named calls on to the field `world`. A wrapper writes out what it changes and names the
/// rest, so that a call with a default, like [`World::input_number`], is not lost on the way.
#[macro_export]
macro_rules! forward_to_world {
    ($($call:ident),* $(,)?) => { $($crate::forward_to_world!(@ $call);)* };
    (@ input_number) => {
        fn input_number(&self) -> Option<u64> {
            self.world.input_number()
        }
    };
    (@ idle) => {
        fn idle(&mut self, at: $crate::At, until: $crate::VirtTime) -> Result<$crate::VirtTime, $crate::Stop> {
            self.world.idle(at, until)
        }
    };
    (@ now) => {
        fn now(&mut self, at: $crate::At) -> Result<$crate::VirtTime, $crate::Stop> {
            self.world.now(at)
        }
    };
    (@ wake) => {
        fn wake(&mut self, at: $crate::At, deadline: $crate::VirtTime) -> Result<Option<$crate::VirtTime>, $crate::Stop> {
            self.world.wake(at, deadline)
        }
    };
    (@ landed) => {
        fn landed(&mut self, at: $crate::At, landing: $crate::Landing) {
            self.world.landed(at, landing);
        }
    };
    (@ missed) => {
        fn missed(&mut self, at: $crate::At, landing: $crate::Landing, steps: u64) -> $crate::Stop {
            self.world.missed(at, landing, steps)
        }
    };
    (@ answer) => {
        fn answer(&mut self, at: $crate::At, query: $crate::Query) -> Result<u64, $crate::Stop> {
            self.world.answer(at, query)
        }
    };
    (@ emit) => {
        fn emit(&mut self, at: $crate::At, output: $crate::Output) {
            self.world.emit(at, output);
        }
    };
    (@ digest_due) => {
        fn digest_due(&self, at: $crate::At) -> bool {
            self.world.digest_due(at)
        }
    };
    (@ digest) => {
        fn digest(&mut self, at: $crate::At, digest: $crate::Digest) -> Result<(), $crate::Stop> {
            self.world.digest(at, digest)
        }
    };
}
