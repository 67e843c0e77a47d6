//! What `--net` says.
//!
//! Not responsible for: the backends.

use crate::error::HostError;
use crate::fields::fields;
use crate::sockets::Address;
use std::path::PathBuf;
use std::str::FromStr;

/// A network interface, as in `tap,ifname=tap0,mac=52:54:00:12:34:56`. A comma in a path is written twice, as for QEMU.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NetSpec {
    /// The address, where one is given.
    pub mac: Option<[u8; 6]>,
    /// What it is connected to.
    pub kind: NetKind,
}

/// What a network interface is connected to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NetKind {
    /// A tap interface of the host.
    Tap {
        /// Its name.
        ifname: String,
    },
    /// A peer on a socket, as QEMU's `-netdev stream` and passt speak it: each frame behind its length.
    Stream {
        /// Where.
        address: Address,
        /// Listens there; otherwise connects.
        server: bool,
    },
    /// The gateway of a pair, which both of its sides are connected to.
    Gateway,
    /// The user-mode network.
    User {
        /// Its forwards, as given.
        hostfwd: Vec<String>,
    },
}

const KNOWN: &str = "known are tap,ifname=NAME; stream,addr=unix:PATH|tcp:HOST:PORT[,server]; user[,hostfwd=tcp:[ADDR]:PORT-[GUEST]:PORT...]; \
     gateway (of a pair); and with each mac=XX:XX:XX:XX:XX:XX";

/// The first five bytes of addresses that nobody gave; the last is the interface's number. Locally administered, in the range that
/// QEMU uses.
const MAC: [u8; 5] = [0x52, 0x54, 0x00, 0x47, 0x4d];

impl NetSpec {
    /// The address of interface number `nic`.
    pub fn mac(&self, nic: u8) -> [u8; 6] {
        let [a, b, c, d, e] = MAC;
        self.mac.unwrap_or([a, b, c, d, e, nic])
    }
}

fn mac(text: &str) -> Option<[u8; 6]> {
    let bytes: Vec<u8> = text
        .split(':')
        .map(|byte| u8::from_str_radix(byte, 16).ok().filter(|_| byte.len() == 2))
        .collect::<Option<_>>()?;
    // A group address is nobody's.
    <[u8; 6]>::try_from(bytes).ok().filter(|mac| mac[0] & 1 == 0)
}

impl FromStr for NetSpec {
    type Err = HostError;

    fn from_str(text: &str) -> Result<Self, HostError> {
        let refuse = |why: &str| HostError::option("--net", text, format!("{why}; {KNOWN}"));
        let mut fields = fields(text).into_iter();
        let kind = fields.next().unwrap_or_default();
        let (mut given_mac, mut ifname, mut address, mut server, mut hostfwd) =
            (None, None, None, false, vec![]);
        for field in fields {
            match field.split_once('=') {
                Some(("mac", value)) => {
                    given_mac = Some(mac(value).ok_or_else(|| refuse("that is no interface's address"))?);
                }
                // IFNAMSIZ of the kernel is 16, with the zero behind it.
                Some(("ifname", value)) if kind == "tap" && (1..16).contains(&value.len()) => {
                    ifname = Some(value.to_owned());
                }
                Some(("addr", value)) if kind == "stream" => {
                    address = match value.split_once(':') {
                        Some(("unix", path)) if !path.is_empty() => Some(Address::Unix(PathBuf::from(path))),
                        Some(("tcp", target)) => Address::tcp(target),
                        _ => None,
                    };
                }
                None if kind == "stream" && field == "server" => server = true,
                Some(("hostfwd", value)) if kind == "user" => hostfwd.push(value.to_owned()),
                _ => return Err(refuse(&format!("'{field}' is not understood"))),
            }
        }
        let kind = match kind.as_str() {
            "tap" => {
                NetKind::Tap { ifname: ifname.ok_or_else(|| refuse("the interface's name is missing"))? }
            }
            "stream" => NetKind::Stream {
                address: address.ok_or_else(|| refuse("the address is missing or wrong"))?,
                server,
            },
            "gateway" => NetKind::Gateway,
            "user" => NetKind::User { hostfwd },
            _ => return Err(refuse("not understood")),
        };
        Ok(Self { mac: given_mac, kind })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> NetSpec {
        text.parse().unwrap()
    }

    #[test]
    fn what_is_understood() {
        let tap = parsed("tap,ifname=tap7,mac=52:54:00:aB:cd:0f");
        assert_eq!(tap.kind, NetKind::Tap { ifname: "tap7".into() });
        assert_eq!(tap.mac(3), [0x52, 0x54, 0, 0xab, 0xcd, 0xf]);
        let stream = parsed("stream,addr=unix:/tmp/a,,b,server");
        let address = Address::Unix("/tmp/a,b".into());
        assert_eq!(stream.kind, NetKind::Stream { address, server: true });
        assert_eq!(stream.mac(3), [0x52, 0x54, 0, 0x47, 0x4d, 3]);
        let address = Address::Tcp("127.0.0.1:900".into());
        assert_eq!(parsed("stream,addr=tcp:127.0.0.1:900").kind, NetKind::Stream { address, server: false });
        let hostfwd = vec!["tcp::8080-:80".to_owned(), "udp::53-:53".to_owned()];
        assert_eq!(parsed("user,hostfwd=tcp::8080-:80,hostfwd=udp::53-:53").kind, NetKind::User { hostfwd });
    }

    #[test]
    fn what_is_refused() {
        for text in [
            "",
            "tap",
            "tap,ifname=",
            "tap,ifname=a-name-of-16-byt",
            "stream",
            "stream,addr=unix:",
            "stream,addr=tcp:host",
            "user,ifname=tap0",
            "user,mac=52:54:00:12:34",
            "user,mac=52:54:0:12:34:56",
            "user,mac=01:00:5e:00:00:01",
            "bridge,br=br0",
        ] {
            let refused = text.parse::<NetSpec>();
            assert!(matches!(refused, Err(HostError::Option { option: "--net", .. })), "{text}: {refused:?}");
        }
    }
}
