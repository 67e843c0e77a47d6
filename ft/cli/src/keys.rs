//! `gemel keys`: who this side is, and whom it trusts.
//!
//! Not responsible for: what the files mean (`gemel-pair`).

use anyhow::Result;
use clap::Subcommand;
use gemel_pair::shell::{Fingerprint, KeyFolder, Purpose};
use std::path::PathBuf;
use std::process::ExitCode;

/// What to do with a folder of keys.
#[derive(Subcommand)]
pub enum Command {
    /// Makes a key and a certificate of its own in a folder
    Make {
        /// The folder
        dir: PathBuf,
    },
    /// Trusts somebody's certificate: to be another side of the pair, a standby or a gateway, or with --console a console only
    Pin {
        /// The folder
        dir: PathBuf,
        /// The other's own.pem
        #[arg(value_name = "PEER.pem")]
        certificate: PathBuf,
        /// It may use the console and read the figures, no more
        #[arg(long)]
        console: bool,
    },
    /// Prints the fingerprints (SHA-256) of a folder's own certificate and of those that it trusts
    List {
        /// The folder
        dir: PathBuf,
    },
}

/// Does it.
///
/// # Errors
/// Files that cannot be read or written, or are none of ours.
pub fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Make { dir } => {
            let folder = KeyFolder::new(&dir);
            let certificate = folder.make()?;
            println!("{} {}", certificate.display(), Fingerprint::of(&folder.certificate()?));
        }
        Command::Pin { dir, certificate, console } => {
            let purpose = if console { Purpose::Console } else { Purpose::Peer };
            println!("{}", KeyFolder::new(&dir).pin(&certificate, purpose)?);
        }
        Command::List { dir } => {
            let folder = KeyFolder::new(&dir);
            println!("own     {}", Fingerprint::of(&folder.certificate()?));
            let pinned = [("peer   ", folder.peers()?), ("console", folder.consoles()?)];
            for (purpose, certificates) in &pinned {
                for certificate in certificates {
                    println!("{purpose} {}", Fingerprint::of(certificate));
                }
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
