//! `gemel protect`, `gemel unprotect` and `gemel failover`: who is to have a pair's guest.
//!
//! Not responsible for: what a side does about it (`gemel-pair`).

use crate::control::ask;
use anyhow::Result;
use gemel_pair::shell::Address;
use serde_json::json;
use std::path::PathBuf;
use std::process::ExitCode;

/// Options of `gemel protect`.
#[derive(clap::Args)]
pub struct Protect {
    /// The leader's --control
    socket: PathBuf,
    /// A standby to try first; otherwise those of the leader's --standby
    #[arg(value_name = "ADDR")]
    standby: Option<Address>,
}

/// Options of `gemel unprotect` and `gemel failover`.
#[derive(clap::Args)]
pub struct Leader {
    /// The leader's --control
    socket: PathBuf,
}

/// The leader takes a secondary, now and whenever it has none.
///
/// # Errors
/// Nobody listens there, or that side does not lead.
pub fn protect(args: Protect) -> Result<ExitCode> {
    let standby = args.standby.map(|address| address.to_string());
    ask(&args.socket, &json!({ "execute": "protect", "standby": standby }))?;
    Ok(ExitCode::SUCCESS)
}

/// The leader goes on alone.
///
/// # Errors
/// As [`protect`].
pub fn unprotect(args: Leader) -> Result<ExitCode> {
    ask(&args.socket, &json!({ "execute": "unprotect" }))?;
    Ok(ExitCode::SUCCESS)
}

/// The leader hands its guest over to its secondary.
///
/// # Errors
/// As [`protect`].
pub fn fail_over(args: Leader) -> Result<ExitCode> {
    ask(&args.socket, &json!({ "execute": "failover" }))?;
    Ok(ExitCode::SUCCESS)
}
