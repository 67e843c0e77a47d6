//! One connection under TLS: the handshake, and turning frames into records and back.
//!
//! Not responsible for: sockets and threads (`stream`, `listener`), who is believed (`keys`).
//!
//! A session does no input or output once it stands: sealing a frame is a computation, and so never waits for a peer. Frames
//! are sealed in the order in which they are sent; keys are renewed by rustls in between, long before they have seen too much.

use parking_lot::Mutex;
use rustls::pki_types::ServerName;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, ClientConnection, Connection, Error, InvalidMessage,
    ServerConfig, ServerConnection,
};
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A handshake may take so long; it is two messages each way.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(3);

/// How long an alert may take to be read.
const FAREWELL: Duration = Duration::from_millis(300);
/// What is read meanwhile.
const MOST_READ: u64 = 16 << 10;

/// A connection whose ends know each other.
pub struct Session(Mutex<Connection>);

impl Session {
    /// The handshake of the end that connected.
    ///
    /// # Errors
    /// The other end is not who was expected, or no other end at all; the message says which.
    pub fn connect(config: &Arc<ClientConfig>, socket: &TcpStream) -> io::Result<Self> {
        // Certificates are pinned; names mean nothing.
        let name = ServerName::try_from("gemel.invalid").map_err(io::Error::other)?;
        let connection = ClientConnection::new(Arc::clone(config), name).map_err(|e| refusal(&e))?;
        Self::stand(connection.into(), socket)
    }

    /// The handshake of the end that listened.
    ///
    /// # Errors
    /// As for `connect`.
    pub fn accept(config: &Arc<ServerConfig>, socket: &TcpStream) -> io::Result<Self> {
        let connection = ServerConnection::new(Arc::clone(config)).map_err(|e| refusal(&e))?;
        Self::stand(connection.into(), socket)
    }

    fn stand(mut connection: Connection, socket: &TcpStream) -> io::Result<Self> {
        // What is sealed is taken out at once, so this bounds nothing.
        connection.set_buffer_limit(None);
        let deadline = Instant::now() + HANDSHAKE_TIMEOUT;
        let result = shake_hands(&mut connection, socket, deadline);
        if result.is_err() {
            tell_why(&mut connection, socket);
        }
        result?;
        socket.set_read_timeout(None)?;
        Ok(Self(Mutex::new(connection)))
    }

    /// A frame as records, behind whatever TLS has to say before it.
    ///
    /// # Errors
    /// The connection has come to its end.
    pub fn seal(&self, frame: &[u8]) -> io::Result<Vec<u8>> {
        let mut connection = self.0.lock();
        connection.writer().write_all(frame)?;
        let mut sealed = Vec::with_capacity(frame.len() + 64);
        while connection.wants_write() {
            connection.write_tls(&mut sealed)?;
        }
        Ok(sealed)
    }

    /// Renews the keys of what is sealed from here on, and asks the other end to do the same.
    #[cfg(test)]
    pub fn renew_keys(&self) {
        self.0.lock().refresh_traffic_keys().unwrap();
    }

    /// Opens what arrived on the socket, and appends what is in it. Returns whether more can come.
    ///
    /// # Errors
    /// It is not what the other end sealed.
    pub fn open(&self, mut records: &[u8], opened: &mut Vec<u8>) -> io::Result<bool> {
        let mut connection = self.0.lock();
        loop {
            match connection.reader().read_to_end(opened) {
                // The other end said that nothing follows.
                Ok(_) => return Ok(false),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(e),
            }
            if records.is_empty() {
                return Ok(true);
            }
            connection.read_tls(&mut records)?;
            connection.process_new_packets().map_err(|e| refusal(&e))?;
        }
    }
}

fn shake_hands(connection: &mut Connection, socket: &TcpStream, deadline: Instant) -> io::Result<()> {
    let late = || io::Error::new(io::ErrorKind::TimedOut, "it did not finish the handshake in time");
    loop {
        while connection.wants_write() {
            connection.write_tls(&mut &*socket)?;
        }
        if !connection.is_handshaking() {
            return Ok(());
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(late());
        }
        socket.set_read_timeout(Some(left))?;
        match connection.read_tls(&mut &*socket) {
            Ok(0) => {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "it went away during the handshake: start both ends with --keys, or both with --insecure",
                ));
            }
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Err(late()),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
        connection.process_new_packets().map_err(|e| refusal(&e))?;
    }
}

/// Sends the alert that a failed handshake ends with. If it cannot be sent, the other end sees the connection closed.
fn tell_why(connection: &mut Connection, mut socket: &TcpStream) {
    let told = connection.write_tls(&mut socket).and_then(|_| socket.shutdown(Shutdown::Write));
    if told.is_err() || socket.set_read_timeout(Some(FAREWELL)).is_err() {
        return;
    }
    // Whoever closes without having read what came resets the connection, and an alert on its way is lost.
    let _ = socket.take(MOST_READ).read_to_end(&mut Vec::new());
}

/// What an error of TLS means to whoever set the pair up. All are of the kind `InvalidData`.
fn refusal(error: &Error) -> io::Error {
    let what = match error {
        Error::InvalidCertificate(CertificateError::Other(why)) => why.0.to_string(),
        Error::InvalidCertificate(CertificateError::BadSignature) => {
            "it shows a pinned certificate, but has not its key".into()
        }
        Error::NoCertificatesPresented => "it shows no certificate".into(),
        Error::InvalidMessage(
            InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion,
        ) => "it does not speak TLS: start both ends with --keys, or both with --insecure".into(),
        Error::AlertReceived(AlertDescription::CertificateUnknown) => {
            "it does not know this side: pin this side's certificate there (gemel keys pin)".into()
        }
        Error::DecryptError => "what arrived is not what the other end sent".into(),
        other => other.to_string(),
    };
    io::Error::new(io::ErrorKind::InvalidData, what)
}
