//! What the two sides say to each other, and its form on the wire.
//!
//! Not responsible for: when something is said (`replication`), reading and writing sockets (`shell`).
//!
//! A frame is a length (u32, little-endian, at most [`MAX_FRAME`]) and that many bytes of postcard. Anything else ends the
//! connection.

use super::gateway::GatewayState;
use super::membership::{MemberId, Membership};
use super::replication::Role;
use super::ring::RingState;
use gemel_machine::{At, Digest};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Version of everything in this module. Peers and clients of another version are refused.
pub const PROTOCOL: u16 = 3;

/// The longest body of a frame. The longest log entry is a disk read, which fits.
pub const MAX_FRAME: usize = 16 << 20;

/// The first message of each side.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Hello {
    /// [`PROTOCOL`].
    pub protocol: u16,
    /// The VM's name, as the arbiter knows it.
    pub vm: String,
    /// What it is.
    pub role: Role,
    /// Who speaks, among all that ever take part.
    pub member: MemberId,
    /// The pair's epoch; the primary's counts.
    pub epoch: u64,
    /// From the primary: its guest runs, so what follows is a clone of it, and not the log from power-on.
    pub running: bool,
    /// [`gemel_machine::MachineSpec::id`]: equal on both sides.
    pub machine: u64,
    /// The primary's log header, from which the secondary takes RTC and seed before it computes `machine`, and which it says again
    /// once it leads.
    pub log_header: Vec<u8>,
}

/// "No further event before this point": how far the secondary may run, and what it then has in hand.
///
/// Digests are not in here: they are log entries, so a file has them too.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Mark {
    /// Where the primary stood.
    pub at: At,
    /// Outputs emitted before this point.
    pub outputs: u64,
    /// Outputs that the console's client has acknowledged.
    pub delivered: u64,
}

/// A part of a running machine on its way to a standby: the shell's, opaque to the protocol.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ClonePart(#[serde(with = "super::bytes")] pub Vec<u8>);

/// Where the state was taken that a standby gets, and what goes with it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Cut {
    /// The boundary.
    pub at: At,
    /// The header of the log that begins here.
    pub log_header: Vec<u8>,
    /// The outputs that may still be wanted.
    pub ring: RingState,
    /// Console input bytes that the guest took before.
    pub inputs: u64,
    /// The guest's network.
    pub gateway: GatewayState,
}

/// Why a side takes its leave.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Goodbye {
    /// The guest ended, everything is delivered: end too.
    GuestEnded,
    /// I differ from your log and shall never claim.
    Diverged,
    /// You are not the peer I need, and why.
    Refused(String),
    /// I go on without you.
    Dismissed,
    /// I lead from this epoch on, as you wanted.
    Leads(u64),
}

/// A message between the sides.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Message {
    /// First of all.
    Hello(Hello),
    /// Log bytes: the same as in the log file, in the same order.
    Entries {
        /// Rises by one with each `Entries` and `Mark`.
        sequence: u64,
        /// Whole or partial entries.
        #[serde(with = "super::bytes")]
        bytes: Vec<u8>,
    },
    /// A mark.
    Mark {
        /// Rises by one with each `Entries` and `Mark`.
        sequence: u64,
        /// The mark.
        mark: Mark,
    },
    /// The secondary holds everything up to this sequence, in order and whole.
    Ack {
        /// Of the latest mark.
        sequence: u64,
        /// The count up to which the secondary has executed.
        executed: u64,
    },
    /// I am here.
    Heartbeat {
        /// As in [`Mark::delivered`].
        delivered: u64,
        /// As in [`Message::Ack`].
        executed: u64,
    },
    /// Part of the state of a running machine.
    Clone(ClonePart),
    /// The state is that of this boundary, and `Entries` and `Mark` from here on follow.
    Cut(Cut),
    /// The standby has the state.
    Restored {
        /// What its machine is.
        digest: Digest,
    },
    /// The register's content, of which the receiver is a part.
    Members(Membership),
    /// Everything is in your hands: claim the next epoch.
    TakeOver,
    /// The last message.
    Goodbye(Goodbye),
}

/// Bytes that are no frame of this protocol.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum FrameError {
    /// Longer than any frame.
    #[error("a frame of {0} bytes; at most {MAX_FRAME} are allowed")]
    TooLong(usize),
    /// Not a message.
    #[error("a frame that is no message")]
    Malformed,
}

/// A message as a frame.
///
/// # Errors
/// [`FrameError::TooLong`]; nobody could read it.
pub fn encode(message: &impl Serialize) -> Result<Vec<u8>, FrameError> {
    let mut frame = vec![0; 4];
    frame = postcard::to_extend(message, frame).map_err(|_| FrameError::Malformed)?;
    let length = frame.len() - 4;
    if length > MAX_FRAME {
        return Err(FrameError::TooLong(length));
    }
    frame[..4].copy_from_slice(&(length as u32).to_le_bytes());
    Ok(frame)
}

/// Takes one message off the front of what has arrived, or `None` while it is not there whole.
///
/// # Errors
/// See [`FrameError`]; the connection is of no further use.
pub fn decode<M: DeserializeOwned>(arrived: &mut Vec<u8>) -> Result<Option<M>, FrameError> {
    let Some((head, rest)) = arrived.split_first_chunk::<4>() else { return Ok(None) };
    let length = u32::from_le_bytes(*head) as usize;
    if length > MAX_FRAME {
        return Err(FrameError::TooLong(length));
    }
    let Some(body) = rest.get(..length) else { return Ok(None) };
    let (message, left) = postcard::take_from_bytes(body).map_err(|_| FrameError::Malformed)?;
    if !left.is_empty() {
        return Err(FrameError::Malformed);
    }
    arrived.drain(..4 + length);
    Ok(Some(message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_being_cut_anywhere() {
        let messages = [
            Message::Heartbeat { delivered: 3, executed: u64::MAX },
            Message::Entries { sequence: 1, bytes: vec![0; 300] },
            Message::Goodbye(Goodbye::Refused("no".into())),
        ];
        let bytes: Vec<u8> = messages.iter().flat_map(|m| encode(m).unwrap()).collect();
        for cut in 0..bytes.len() {
            let (mut arrived, mut got) = (Vec::new(), Vec::<Message>::new());
            for piece in [&bytes[..cut], &bytes[cut..]] {
                arrived.extend_from_slice(piece);
                while let Some(message) = decode(&mut arrived).unwrap() {
                    got.push(message);
                }
            }
            assert_eq!(got, messages, "cut at {cut}");
            assert!(arrived.is_empty());
        }
    }

    #[test]
    fn bad_bytes_are_refused_and_never_panic() {
        assert_eq!(decode::<Message>(&mut vec![0xff; 9]), Err(FrameError::TooLong(u32::MAX as usize)));
        assert_eq!(decode::<Message>(&mut vec![1, 0, 0, 0, 99]), Err(FrameError::Malformed));
        let mut good = encode(&Message::Heartbeat { delivered: 1, executed: 1 }).unwrap();
        good[0] += 1;
        good.push(0);
        assert_eq!(decode::<Message>(&mut good), Err(FrameError::Malformed), "bytes left over");
        // Every single damaged byte of a long frame: a message or an error, nothing else.
        let frame = encode(&Message::Entries { sequence: 7, bytes: vec![5; 40] }).unwrap();
        for at in 4..frame.len() {
            for value in 0..=255 {
                let mut frame = frame.clone();
                frame[at] = value;
                let _: Result<Option<Message>, _> = decode(&mut frame);
            }
        }
    }
}
