//! The outputs of a run in two numbers, so that two runs can be compared without keeping what left them.
//!
//! Not responsible for: the outputs' way out.

use gemel_log::OutputSummary;
use gemel_machine::{DiskOp, Output};
use xxhash_rust::xxh3::Xxh3;

/// Counts and hashes outputs.
#[derive(Clone, Default)]
pub struct OutputTally {
    count: u64,
    hash: Xxh3,
}

impl OutputTally {
    /// Takes the next output and returns its ordinal, from 0.
    pub fn add(&mut self, output: &Output) -> u64 {
        match output {
            Output::Serial { port, byte } => self.hash.update(&[0, *port, *byte]),
            Output::SerialConsumed { port, count } => {
                self.hash.update(&[1, *port]);
                self.hash.update(&count.to_le_bytes());
            }
            Output::Debug(byte) => self.hash.update(&[2, *byte]),
            Output::Disk(request) => {
                self.hash.update(&[3, request.disk]);
                self.hash.update(&request.tag.to_le_bytes());
                match &request.op {
                    DiskOp::Read { sector, sectors } => {
                        self.hash.update(&[0]);
                        self.hash.update(&sector.to_le_bytes());
                        self.hash.update(&sectors.to_le_bytes());
                    }
                    DiskOp::Write { sector, data } => {
                        self.hash.update(&[1]);
                        self.hash.update(&sector.to_le_bytes());
                        self.hash.update(&(data.len() as u64).to_le_bytes());
                        self.hash.update(data);
                    }
                    DiskOp::Flush => self.hash.update(&[2]),
                }
            }
            Output::Frame { nic, bytes } => {
                self.hash.update(&[4, *nic]);
                self.hash.update(&(bytes.len() as u64).to_le_bytes());
                self.hash.update(bytes);
            }
        }
        self.count += 1;
        self.count - 1
    }

    /// How many outputs there were.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Both numbers.
    pub fn summary(&self) -> OutputSummary {
        OutputSummary { count: self.count, hash: self.hash.digest() }
    }
}
