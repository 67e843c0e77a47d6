//! The outputs of a run in two numbers, so that two runs can be compared without keeping what left them.
//!
//! Not responsible for: the outputs' way out.

use gemel_log::OutputSummary;
use gemel_machine::{DiskOp, Output};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Counts and hashes outputs. What it has come to is two numbers, so that another process can go on from there.
#[derive(Clone, Default, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputTally {
    count: u64,
    hash: u64,
}

impl OutputTally {
    /// Takes the next output and returns its ordinal, from 0.
    pub fn add(&mut self, output: &Output) -> u64 {
        match output {
            Output::Serial { port, byte } => self.hash(&[0, *port, *byte]),
            Output::SerialConsumed { port, count } => {
                let [low, high] = count.to_le_bytes();
                self.hash(&[1, *port, low, high]);
            }
            Output::Debug(byte) => self.hash(&[2, *byte]),
            Output::Disk(request) => {
                self.hash(&[3, request.disk]);
                self.hash(&request.tag.to_le_bytes());
                match &request.op {
                    DiskOp::Read { sector, sectors } => {
                        self.hash(&[0]);
                        self.hash(&sector.to_le_bytes());
                        self.hash(&sectors.to_le_bytes());
                    }
                    DiskOp::Write { sector, data } => {
                        self.hash(&[1]);
                        self.hash(&sector.to_le_bytes());
                        self.hash(data);
                    }
                    DiskOp::Flush => self.hash(&[2]),
                }
            }
            Output::Frame { nic, bytes } => {
                self.hash(&[4, *nic]);
                self.hash(bytes);
            }
        }
        self.count += 1;
        self.count - 1
    }

    /// The hash so far is the seed of the next: no piece can change places with another, or run into it.
    fn hash(&mut self, piece: &[u8]) {
        self.hash = xxh3_64_with_seed(piece, self.hash);
    }

    /// How many outputs there were.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Both numbers.
    pub fn summary(&self) -> OutputSummary {
        OutputSummary { count: self.count, hash: self.hash }
    }
}
