//! Entries as values.
//!
//! Not responsible for: their bytes (`codec`).

use gemel_machine::{At, Digest, DiskStatus, Input, Landing, Pause, VirtTime, bus::PowerEvent};
use std::fmt;

/// Something that happened at a position.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Where and when: count and time exact, RIP and RCX so that a machine on another path is found out here. The RCX of a
    /// [`Body::Time`] is not noted, and zero.
    pub at: At,
    /// What.
    pub body: Body,
}

/// What an entry says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Body {
    /// Something came in.
    Input {
        /// What came in.
        input: Input,
        /// The number that its sender gave it, if it numbers what it sends: after a failover the sender learns the
        /// last number that arrived and sends the rest again.
        number: Option<u64>,
    },
    /// A disk request was completed whose data the log does not carry: the reader reads it from its own image
    /// ([`crate::ReadPolicy::FromImage`]).
    ReRead {
        /// Disk number.
        disk: u8,
        /// The request's tag.
        tag: u64,
        /// How it went.
        status: DiskStatus,
        /// Bytes of data that the request delivered; 0 for writes and flushes.
        length: u32,
        /// [`data_check`] of those bytes: an image that is not identical is found out at the read.
        check: u32,
    },
    /// The answer to a question of the vCPU.
    Answer(u64),
    /// What time it was when the instruction here asked, where time is sampled: [`Entry::at`] has it.
    Time,
    /// At a stop there, the time went on to this, and what was due by it came.
    Wake(VirtTime),
    /// Where the machine stands when the next entries come, since its count does not say it. See [`Landing`].
    Landing {
        /// The machine's digest there.
        digest: Digest,
        /// RIP's linear address.
        linear: u64,
        /// The machine gets there within so many steps from the exit before.
        within: u64,
    },
    /// The machine's digest here, after all inputs before this entry.
    Digest(Digest),
    /// The run ended here. Nothing follows.
    End {
        /// Why.
        reason: EndReason,
        /// The machine's digest at the end.
        digest: Digest,
        /// All outputs of the run.
        outputs: OutputSummary,
    },
}

impl Entry {
    /// Where and when it leaves the machine.
    pub fn behind(&self) -> At {
        match self.body {
            Body::Wake(time) => At { time, ..self.at },
            _ => self.at,
        }
    }

    /// The boundary that a [`Body::Landing`] describes.
    pub fn landing(&self) -> Option<Landing> {
        match self.body {
            Body::Landing { digest, linear, within } => {
                Some(Landing { position: self.at.position, digest, linear, within })
            }
            _ => None,
        }
    }
}

/// All outputs of a run in two numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct OutputSummary {
    /// How many there were.
    pub count: u64,
    /// xxh3 over all of them, in order.
    pub hash: u64,
}

/// Why a run ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EndReason {
    /// The world ended it: the machine itself could have gone on.
    Stopped,
    /// The guest ended it.
    Guest(Pause),
}

/// The checksum of data that an entry only refers to: CRC-32.
pub fn data_check(data: &[u8]) -> u32 {
    crc32fast::hash(data)
}

impl fmt::Display for EndReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stopped => f.write_str("stopped from outside"),
            Self::Guest(Pause::Power(PowerEvent::Off)) => f.write_str("guest powered off"),
            Self::Guest(Pause::Power(PowerEvent::Reset)) => f.write_str("guest reset the machine"),
            Self::Guest(Pause::Power(PowerEvent::DebugExit(code))) => {
                write!(f, "guest exited with {code:#x}")
            }
            Self::Guest(Pause::Halted) => f.write_str("guest halted for good"),
            Self::Guest(Pause::TripleFault) => f.write_str("triple fault"),
        }
    }
}

impl fmt::Display for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Input { input, number } => {
                match input {
                    Input::Serial { port, bytes } => {
                        write!(f, "serial{port} in \"{}\"", bytes.escape_ascii())?
                    }
                    Input::Key(codes) => {
                        f.write_str("key")?;
                        codes.iter().try_for_each(|code| write!(f, " {code:02x}"))?;
                    }
                    Input::Mouse { dx, dy, buttons } => write!(f, "mouse {dx} {dy} buttons {buttons:#x}")?,
                    Input::DiskDone { disk, tag, status, data } => {
                        write!(f, "disk{disk} done tag {tag} {status:?} {} bytes", data.len())?;
                    }
                    Input::PowerButton => f.write_str("power button")?,
                    Input::Frame { nic, bytes } => write!(f, "nic{nic} in {} bytes", bytes.len())?,
                    Input::PowerOff => f.write_str("power off")?,
                    Input::Reset => f.write_str("reset")?,
                    Input::Media { disk, sectors } => write!(f, "disk{disk} medium of {sectors} sectors")?,
                }
                number.map_or(Ok(()), |n| write!(f, " (number {n})"))
            }
            Self::ReRead { disk, tag, status, length, check } => {
                write!(
                    f,
                    "disk{disk} done tag {tag} {status:?} {length} bytes from the image, crc {check:08x}"
                )
            }
            Self::Answer(value) => write!(f, "answer {value:#x}"),
            Self::Time => f.write_str("time"),
            Self::Wake(time) => write!(f, "wake at {time}"),
            Self::Landing { digest, within, .. } => write!(f, "landing {digest}, within {within} steps"),
            Self::Digest(digest) => write!(f, "digest {digest}"),
            Self::End { reason, digest, outputs } => {
                write!(
                    f,
                    "end: {reason}; digest {digest}; {} outputs, hash {:016x}",
                    outputs.count, outputs.hash
                )
            }
        }
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.at.position, self.at.time, self.body)
    }
}
