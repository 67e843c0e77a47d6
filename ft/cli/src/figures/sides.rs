//! Asks sides for their figures, again and again, whether they are there or not.
//!
//! Not responsible for: what is made of them.

use crate::control;
use crate::trust::TrustOptions;
use anyhow::Result;
use gemel_pair::shell::{Address, Console, Report, Shown};
use serde_json::json;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Sides, by the order in which they were named.
pub struct Sides {
    names: Vec<String>,
    /// Of those that are console addresses, and their numbers.
    console: Option<Console>,
    addressed: Vec<usize>,
    /// Those that are control sockets.
    sockets: Vec<(usize, PathBuf)>,
}

impl Sides {
    /// Console addresses (HOST:PORT, unix:PATH) and control sockets (a path without a colon).
    ///
    /// # Errors
    /// Keys that cannot be used or are missing.
    pub fn new(names: &[String], trust: &TrustOptions) -> Result<Self> {
        let (mut addresses, mut addressed, mut sockets) = (Vec::new(), Vec::new(), Vec::new());
        for (number, name) in names.iter().enumerate() {
            match name.parse::<Address>() {
                Ok(address) => {
                    addresses.push(address);
                    addressed.push(number);
                }
                Err(_) => sockets.push((number, PathBuf::from(name))),
            }
        }
        let console = match addresses.is_empty() {
            true => None,
            false => Some(Console::new(&addresses, &trust.trust()?, false)?),
        };
        Ok(Self { names: names.to_vec(), console, addressed, sockets })
    }

    /// What each is called.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Asks all, and waits at most so long for those that do not answer. `None`: it did not.
    pub fn ask(&self, patience: Duration) -> Vec<Option<Report>> {
        let mut told: Vec<Option<Report>> = vec![None; self.names.len()];
        let deadline = Instant::now() + patience;
        for (number, socket) in &self.sockets {
            told[*number] = control::ask(socket, &json!({ "execute": "status" }))
                .ok()
                .and_then(|mut status| serde_json::from_value(status["pair"].take()).ok());
        }
        let Some(console) = &self.console else { return told };
        console.ask_figures();
        while self.addressed.iter().any(|number| told[*number].is_none()) {
            match console.shown().recv_deadline(deadline) {
                Ok(Shown::Figures(side, report)) => told[self.addressed[side]] = Some(*report),
                // It was not there when the others were asked.
                Ok(Shown::Reached(_)) => console.ask_figures(),
                Ok(_) => {}
                Err(_) => break,
            }
        }
        told
    }
}
