//! Serial backends: what `--serial` and `--debugcon` name.
//!
//! Not responsible for: the UART (`devices/isa`), credit and order (`inputs`, `outputs`).

mod file;
mod socket;
mod stdio;

use crate::error::HostError;
use crate::inbox::Inbox;
use crate::outputs::{ByteSink, Null};
use crate::sockets::Address;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

pub use stdio::{Command, Escape, HELP};

/// What is at the other end of a serial line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SerialSpec {
    /// The terminal, or whatever standard input and output are.
    Stdio,
    /// Nothing: output is lost.
    Null,
    /// A file, for output only.
    File(PathBuf),
    /// A socket: bytes as they are, one client at a time. Delivery is at-least-once: what was sent while a
    /// connection broke may come again on the next.
    Socket {
        /// Where.
        address: Address,
        /// Listens there; otherwise connects.
        server: bool,
    },
}

const KNOWN: &str = "known are stdio, null, file:PATH, unix:PATH[,server], tcp:HOST:PORT[,server]";

impl FromStr for SerialSpec {
    type Err = HostError;

    fn from_str(text: &str) -> Result<Self, HostError> {
        let refuse = |why: &str| HostError::option("serial line", text, format!("{why}; {KNOWN}"));
        let (kind, rest) = text.split_once(':').unwrap_or((text, ""));
        let (target, server) = match rest.strip_suffix(",server") {
            Some(target) => (target, true),
            None => (rest, false),
        };
        match kind {
            "stdio" | "null" if !rest.is_empty() => Err(refuse("nothing may follow")),
            "stdio" => Ok(Self::Stdio),
            "null" | "none" => Ok(Self::Null),
            "file" | "unix" | "tcp" if target.is_empty() => Err(refuse("a path or an address is missing")),
            "file" => Ok(Self::File(rest.into())),
            "unix" => Ok(Self::Socket { address: Address::Unix(target.into()), server }),
            "tcp" => {
                let address = Address::tcp(target).ok_or_else(|| refuse("the port is missing"))?;
                Ok(Self::Socket { address, server })
            }
            _ => Err(refuse("not understood")),
        }
    }
}

impl SerialSpec {
    /// Whether this is standard output.
    pub fn is_stdio(&self) -> bool {
        *self == Self::Stdio
    }

    /// Opens the line of a serial port: where its output goes; what comes in goes into the inbox.
    ///
    /// # Errors
    /// [`HostError`] when the terminal, file or address cannot be had.
    pub fn open(&self, port: usize, inbox: &Arc<Inbox>) -> Result<Box<dyn ByteSink>, HostError> {
        match self {
            Self::Stdio => stdio::open(port, inbox),
            Self::Socket { address, server } => socket::open(address, *server, Some((port, inbox))),
            other => other.open_output(),
        }
    }

    /// Opens it for output only, as the debug console.
    ///
    /// # Errors
    /// [`HostError`] when the file or address cannot be had.
    pub fn open_output(&self) -> Result<Box<dyn ByteSink>, HostError> {
        match self {
            Self::Stdio => Ok(Box::new(stdio::Stdout)),
            Self::Null => Ok(Box::new(Null)),
            Self::File(path) => file::open(path),
            Self::Socket { address, server } => socket::open(address, *server, None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_qemu_users_write_them() {
        let tcp = |a: &str, server| SerialSpec::Socket { address: Address::Tcp(a.into()), server };
        for (text, spec) in [
            ("stdio", SerialSpec::Stdio),
            ("null", SerialSpec::Null),
            ("file:a,server", SerialSpec::File("a,server".into())),
            ("tcp:localhost:77", tcp("localhost:77", false)),
            ("tcp::77,server", tcp("0.0.0.0:77", true)),
            ("unix:/x", SerialSpec::Socket { address: Address::Unix("/x".into()), server: false }),
        ] {
            assert_eq!(text.parse::<SerialSpec>().unwrap(), spec);
        }
        for bad in ["", "pty", "file:", "unix:", "tcp:77", "stdio:x", "unix:,server"] {
            assert!(bad.parse::<SerialSpec>().is_err(), "{bad}");
        }
    }
}
