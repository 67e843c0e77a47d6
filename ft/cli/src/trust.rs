//! Who may connect, as options of every command that connects or listens.
//!
//! Not responsible for: making keys (`keys`), handshakes (`gemel-pair`).

use anyhow::Result;
use gemel_pair::shell::Trust;
use std::path::PathBuf;

/// Needed where an address is a TCP one; UNIX sockets have an owner instead.
#[derive(clap::Args)]
pub struct TrustOptions {
    /// A folder with this side's key and the certificates of those that it trusts (gemel keys)
    #[arg(long, value_name = "DIR", conflicts_with = "insecure")]
    pub keys: Option<PathBuf>,
    /// Lets everybody connect who reaches the TCP ports, unencrypted
    #[arg(long)]
    pub insecure: bool,
}

impl TrustOptions {
    /// What the options say.
    ///
    /// # Errors
    /// Keys that cannot be used.
    pub fn trust(&self) -> Result<Trust> {
        Ok(match &self.keys {
            Some(folder) => Trust::pinned(folder)?,
            None if self.insecure => Trust::insecure(),
            None => Trust::local(),
        })
    }
}
