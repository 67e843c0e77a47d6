//! Port forwards, in QEMU's words.
//!
//! Not responsible for: listening (`outside`).

use crate::addresses::{GUEST, is_guest};
use crate::error::NetError;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::str::FromStr;

/// Connections to an address of the host go to a port of a guest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Forward {
    /// Where the host listens.
    pub host: SocketAddr,
    /// Where the guest does.
    pub guest: SocketAddrV4,
}

impl FromStr for Forward {
    type Err = NetError;

    /// `tcp:[ADDRESS]:PORT-[GUEST]:PORT`. Without an address the host listens on all of its own (as QEMU does), and the guest is
    /// the first one, 10.0.2.15.
    fn from_str(text: &str) -> Result<Self, NetError> {
        parse(text).ok_or_else(|| NetError::Forward(text.into()))
    }
}

fn parse(text: &str) -> Option<Forward> {
    let (host, guest) = text.strip_prefix("tcp:")?.rsplit_once('-')?;
    let (address, port) = host.rsplit_once(':')?;
    let address = match address.strip_prefix('[').map_or(Some(address), |a| a.strip_suffix(']'))? {
        "" => Ipv4Addr::UNSPECIFIED.into(),
        address => address.parse().ok()?,
    };
    let host = SocketAddr::new(address, port.parse().ok()?);
    let (address, port) = guest.rsplit_once(':')?;
    let address = if address.is_empty() { GUEST } else { address.parse().ok()? };
    let port: u16 = port.parse().ok()?;
    (is_guest(address) && port != 0).then_some(Forward { host, guest: SocketAddrV4::new(address, port) })
}

impl fmt::Display for Forward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tcp:{}-{}", self.host, self.guest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forwards_are_read_as_qemu_reads_them() {
        for (text, shown) in [
            ("tcp::8080-:80", "tcp:0.0.0.0:8080-10.0.2.15:80"),
            ("tcp:127.0.0.1:2222-10.0.2.16:22", "tcp:127.0.0.1:2222-10.0.2.16:22"),
            ("tcp:[::1]:0-:22", "tcp:[::1]:0-10.0.2.15:22"),
        ] {
            assert_eq!(text.parse::<Forward>().unwrap().to_string(), shown);
        }
        for bad in [
            "",
            "tcp:",
            "udp::1-:2",
            "tcp:1-2",
            "tcp::x-:2",
            "tcp::1-:0",
            "tcp::1-10.0.2.2:5",
            "tcp::1-9.9.9.9:5",
            "tcp:[::1:5-:6",
            "tcp::1-:70000",
        ] {
            assert!(bad.parse::<Forward>().is_err(), "{bad}");
        }
    }
}
