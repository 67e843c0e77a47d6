//! Unix and TCP sockets as one.
//!
//! Not responsible for: what is said over them.

use crate::error::HostError;
use rustix::fs::Mode;
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// Where a socket is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Address {
    /// A path.
    Unix(PathBuf),
    /// Host and port.
    Tcp(String),
}

impl Address {
    /// Host and port; `None` without a port.
    pub(crate) fn tcp(target: &str) -> Option<Self> {
        // QEMU writes an empty host for all of this machine's addresses.
        let target = if target.starts_with(':') { format!("0.0.0.0{target}") } else { target.into() };
        target.contains(':').then_some(Self::Tcp(target))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(address) => write!(f, "tcp:{address}"),
        }
    }
}

/// A socket that listens.
pub(crate) enum Listener {
    Unix(UnixListener),
    Tcp(TcpListener),
}

/// A connection.
pub(crate) enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Listener {
    /// Listens on an address.
    ///
    /// # Errors
    /// [`HostError::Address`] when it cannot be had.
    pub fn open(address: &Address) -> Result<Self, HostError> {
        match address {
            Address::Unix(path) => listen_unix(path).map(Self::Unix),
            Address::Tcp(target) => {
                TcpListener::bind(target).map(Self::Tcp).map_err(|source| HostError::Address {
                    action: "listen on",
                    address: address.to_string(),
                    source,
                    advice: "choose a free port of this host",
                })
            }
        }
    }

    /// Waits for the next connection.
    ///
    /// # Errors
    /// The host's.
    pub fn accept(&self) -> io::Result<Stream> {
        match self {
            Self::Unix(l) => l.accept().map(|(s, _)| Stream::Unix(s)),
            Self::Tcp(l) => l.accept().map(|(s, _)| Stream::Tcp(s).without_delay()),
        }
    }
}

impl Stream {
    /// Connects to an address.
    ///
    /// # Errors
    /// [`HostError::Address`] when nobody listens there.
    pub fn open(address: &Address) -> Result<Self, HostError> {
        let stream = match address {
            Address::Unix(path) => UnixStream::connect(path).map(Self::Unix),
            Address::Tcp(address) => TcpStream::connect(address).map(Self::Tcp),
        };
        stream.map(Self::without_delay).map_err(|source| HostError::Address {
            action: "connect to",
            address: address.to_string(),
            source,
            advice: "start the other end first, or add ,server to listen",
        })
    }

    /// Single characters must not wait for company.
    fn without_delay(self) -> Self {
        if let Self::Tcp(s) = &self {
            let _ = s.set_nodelay(true);
        }
        self
    }

    /// Ends both directions, also for whoever waits in them.
    pub fn close(&self) {
        let _ = match self {
            Self::Unix(s) => s.shutdown(Shutdown::Both),
            Self::Tcp(s) => s.shutdown(Shutdown::Both),
        };
    }

    /// Writes some of the bytes.
    ///
    /// # Errors
    /// The host's.
    pub fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Unix(s) => (&*s).write(bytes),
            Self::Tcp(s) => (&*s).write(bytes),
        }
    }

    /// Waits for bytes; 0 is the end.
    ///
    /// # Errors
    /// The host's.
    pub fn read(&self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Unix(s) => (&*s).read(bytes),
            Self::Tcp(s) => (&*s).read(bytes),
        }
    }
}

/// Listens on a path for this user only. A socket that a dead process left there is replaced.
///
/// # Errors
/// [`HostError::Address`] when somebody listens there already, or the path cannot be used.
pub(crate) fn listen_unix(path: &Path) -> Result<UnixListener, HostError> {
    let refuse = |source, advice| HostError::Address {
        action: "listen on",
        address: path.display().to_string(),
        source,
        advice,
    };
    let left_over = std::fs::symlink_metadata(path)
        .is_ok_and(|m| std::os::unix::fs::FileTypeExt::is_socket(&m.file_type()));
    if left_over {
        if UnixStream::connect(path).is_ok() {
            let source = io::ErrorKind::AddrInUse.into();
            return Err(refuse(source, "another process listens there; choose another path"));
        }
        let _ = std::fs::remove_file(path);
    }
    let mask = rustix::process::umask(Mode::XUSR | Mode::RWXG | Mode::RWXO);
    let listener = UnixListener::bind(path);
    rustix::process::umask(mask);
    listener.map_err(|e| refuse(e, "choose a path that does not exist yet in a directory that does"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_in_use_is_refused_and_a_dead_one_is_taken_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("serial");
        let first = listen_unix(&path).unwrap();
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(listen_unix(&path).is_err());
        drop(first);
        drop(listen_unix(&path).unwrap());
        let nobody = Address::Unix(dir.path().join("nobody"));
        assert!(matches!(Stream::open(&nobody), Err(HostError::Address { .. })));
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = Address::Tcp(taken.local_addr().unwrap().to_string());
        let keep = Listener::open(&taken);
        assert!(keep.is_ok() || Listener::open(&taken).is_err());
    }
}
