//! How far a run has come, apart from its machine: what its world must know to go on from here.
//!
//! Not responsible for: the machine (`gemel-machine`), the images.
//!
//! A replay and a recording keep the same, so that either can be gone on with elsewhere.

use crate::agreed::Agreed;
use crate::pending::Requests;
use crate::tally::OutputTally;
use gemel_machine::{DiskRequest, Input, InputPort, Output};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How far a run has come: with a snapshot of the machine, a source from which the agreed entries are gone, and
/// its disks as they are there, all that it takes to go on from here again.
#[derive(Clone, Default)]
pub struct Progress {
    pub(crate) tally: OutputTally,
    pub(crate) requests: Requests,
    pub(crate) numbers: BTreeMap<InputPort, u64>,
    pub(crate) serial_in_flight: BTreeMap<u8, u64>,
    pub(crate) last_number: Option<u64>,
    /// Entries agreed with so far.
    pub(crate) entries: u64,
    pub(crate) agreed: Agreed,
    /// The count behind the instruction that the last answer or time was given to: its own position lies before
    /// that instruction, which is finished all the same.
    pub(crate) answered: u64,
}

/// What leaves the process of a [`Progress`], in postcard form.
#[derive(Serialize, Deserialize)]
struct Travelling {
    tally: OutputTally,
    requests: Vec<DiskRequest>,
    numbers: BTreeMap<InputPort, u64>,
    serial_in_flight: BTreeMap<u8, u64>,
    last_number: Option<u64>,
}

/// Bytes that are no progress.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("what a run has come to is damaged")]
pub struct DamagedProgress;

impl Progress {
    /// Entries agreed with so far.
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// The last entry agreed with, in words.
    pub fn last_entry(&self) -> Option<String> {
        self.agreed.words().next_back()
    }

    /// Outputs so far.
    pub fn outputs(&self) -> u64 {
        self.tally.count()
    }

    /// The progress of a replay that begins at a snapshot and knows of nothing before it but the requests that the
    /// guest waits for.
    pub fn with_requests(requests: Vec<DiskRequest>) -> Self {
        let mut progress = Self::default();
        requests.into_iter().for_each(|request| progress.requests.made(request));
        progress
    }

    /// What somebody needs who goes on from here at a log of its own, with durable images in which every request so far is carried
    /// out, also those that the guest still waits for.
    pub fn to_bytes(&self) -> Vec<u8> {
        let Self { tally, requests, numbers, serial_in_flight, last_number, .. } = self.clone();
        let (requests, _) = requests.into_lists();
        let travelling = Travelling { tally, requests, numbers, serial_in_flight, last_number };
        // postcard fails only on values without a known length.
        postcard::to_stdvec(&travelling).unwrap_or_default()
    }

    /// Reads what [`Progress::to_bytes`] made.
    ///
    /// # Errors
    /// [`DamagedProgress`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DamagedProgress> {
        let (travelling, left): (Travelling, _) =
            postcard::take_from_bytes(bytes).map_err(|_| DamagedProgress)?;
        if !left.is_empty() {
            return Err(DamagedProgress);
        }
        let Travelling { tally, requests, numbers, serial_in_flight, last_number } = travelling;
        let requests = Requests::carried_out(requests);
        Ok(Self { tally, requests, numbers, serial_in_flight, last_number, ..Self::default() })
    }

    /// An input reached the machine. A disk's completion is still to be carried out, or to be forgotten.
    pub(crate) fn arrived(&mut self, input: &Input, number: Option<u64>) {
        self.last_number = number;
        if let Some(number) = number {
            self.numbers.insert(input.port(), number);
        }
        if let Input::Serial { port, bytes } = input {
            *self.serial_in_flight.entry(*port).or_default() += bytes.len() as u64;
        }
    }

    /// An output left the machine: its ordinal.
    pub(crate) fn emitted(&mut self, output: &Output) -> u64 {
        match output {
            Output::Disk(request) => self.requests.made(request.clone()),
            Output::SerialConsumed { port, count } => {
                let left = self.serial_in_flight.entry(*port).or_default();
                *left = left.saturating_sub(u64::from(*count));
            }
            Output::Serial { .. } | Output::Debug(_) | Output::Frame { .. } => {}
        }
        self.tally.add(output)
    }
}
