//! Addresses of the pair's sockets.
//!
//! Not responsible for: the sockets (`stream`), who may use them (`trust`).

use super::error::PairError;
use std::path::PathBuf;
use std::{fmt, str};

/// Where to listen or connect.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Address {
    /// `HOST:PORT`; without a host, as QEMU's users write it, all of this machine's addresses.
    Tcp(String),
    /// `unix:PATH`.
    Unix(PathBuf),
}

impl str::FromStr for Address {
    type Err = PairError;

    fn from_str(text: &str) -> Result<Self, PairError> {
        let refuse = || PairError::Address(text.into());
        match text.strip_prefix("unix:") {
            Some("") => Err(refuse()),
            Some(path) => Ok(Self::Unix(path.into())),
            None => {
                let (host, port) =
                    text.strip_prefix("tcp:").unwrap_or(text).rsplit_once(':').ok_or_else(refuse)?;
                port.parse::<u16>().map_err(|_| refuse())?;
                Ok(Self::Tcp(format!("{}:{port}", if host.is_empty() { "0.0.0.0" } else { host })))
            }
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => f.write_str(address),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_they_are_shown() {
        for (text, shown) in
            [("1.2.3.4:5", "1.2.3.4:5"), (":7", "0.0.0.0:7"), ("tcp:h:7", "h:7"), ("unix:/x", "unix:/x")]
        {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), shown);
        }
        for bad in ["", "host", "host:port", "unix:", "1.2.3.4:70000"] {
            assert!(bad.parse::<Address>().is_err(), "{bad}");
        }
    }
}
