//! Listening sockets, and the lobby where those who come prove who they are.
//!
//! Not responsible for: who is believed (`trust`), what is said afterwards (`connection`).
//!
//! Whoever has not proved who it is costs a thread, a descriptor and a few kilobytes, for some seconds at most (`tls`), and only
//! [`LOBBY`] of them at once: the oldest makes room for the next, so that those who only wait keep out nobody who knows what
//! to say.

use super::address::Address;
use super::error::PairError;
use super::stream::{Socket, Stream};
use super::tls::Session;
use super::trust::{Protection, Trust};
use crossbeam::channel::{Receiver, Sender, unbounded};
use parking_lot::Mutex;
use rustix::fs::{Mode, fchmod};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, shutdown, socket_with,
};
use rustls::ServerConfig;
use std::collections::VecDeque;
use std::fs;
use std::io;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// Connections at once of which nobody knows yet whose they are.
const LOBBY: usize = 16;
/// How long to wait when the host has no more descriptors or threads.
const PAUSE: Duration = Duration::from_millis(50);
/// Connections that the host keeps until they are accepted.
const BACKLOG: i32 = 128;

/// A listening socket.
pub struct Listener {
    accepting: Accepting,
    trust: Trust,
}

enum Accepting {
    Tcp(TcpListener),
    Unix(UnixListener),
    /// A thread accepts; whoever has proved who it is comes out here.
    Lobby {
        listener: Arc<TcpListener>,
        admitted: Receiver<Stream>,
    },
}

impl Address {
    /// Listens here.
    ///
    /// # Errors
    /// [`PairError::Listen`], [`PairError::NoKeys`].
    pub fn listen(&self, trust: &Trust) -> Result<Listener, PairError> {
        let protection = trust.server(self)?;
        let refuse = |e| PairError::Listen(self.clone(), e);
        let accepting = match (self, protection) {
            (Self::Tcp(address), Protection::None) => {
                Accepting::Tcp(TcpListener::bind(address).map_err(refuse)?)
            }
            (Self::Tcp(address), Protection::Tls(config)) => {
                let listener = Arc::new(TcpListener::bind(address).map_err(refuse)?);
                Lobby::open(listener, config, trust)?
            }
            (Self::Unix(path), _) => Accepting::Unix(listen_unix(path).map_err(refuse)?),
        };
        Ok(Listener { accepting, trust: trust.clone() })
    }
}

/// A UNIX socket for this user only.
fn listen_unix(path: &Path) -> io::Result<UnixListener> {
    // A socket that nobody listens on is left over from a process that died.
    let is_socket = fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_socket());
    if is_socket && UnixStream::connect(path).is_err_and(|e| e.kind() == io::ErrorKind::ConnectionRefused) {
        let _ = fs::remove_file(path);
    }
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    // Linux makes the file with the mode that the socket has (unix(7)): nobody else can connect, not even for a moment.
    fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    bind(&socket, &SocketAddrUnix::new(path)?)?;
    listen(&socket, BACKLOG)?;
    Ok(socket.into())
}

impl Listener {
    /// Where this listens, asked to listen on `wanted`.
    pub fn address(&self, wanted: &Address) -> Address {
        match &self.accepting {
            Accepting::Tcp(listener) => local(listener, wanted),
            Accepting::Lobby { listener, .. } => local(listener, wanted),
            Accepting::Unix(_) => wanted.clone(),
        }
    }

    /// The next connection whose other end is who it must be.
    ///
    /// # Errors
    /// The host's.
    pub fn accept(&self) -> io::Result<Stream> {
        let (socket, peer) = match &self.accepting {
            Accepting::Lobby { admitted, .. } => return admitted.recv().map_err(io::Error::other),
            Accepting::Tcp(listener) => {
                let (socket, from) = listener.accept()?;
                (Socket::Tcp(socket), from.ip().to_string())
            }
            Accepting::Unix(listener) => (Socket::Unix(listener.accept()?.0), "UNIX socket".into()),
        };
        socket.prepare()?;
        Ok(Stream::new(socket, None, peer, &self.trust))
    }
}

fn local(listener: &TcpListener, wanted: &Address) -> Address {
    listener.local_addr().map_or_else(|_| wanted.clone(), |a| Address::Tcp(a.to_string()))
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Accepting::Lobby { listener, .. } = &self.accepting {
            // Wakes the thread that accepts; nobody is let in any more.
            let _ = shutdown(&**listener, rustix::net::Shutdown::Both);
        }
    }
}

/// Where those who have come prove who they are.
struct Lobby {
    config: Arc<ServerConfig>,
    trust: Trust,
    admit: Sender<Stream>,
    /// Those in it, oldest first.
    waiting: Mutex<VecDeque<Arc<TcpStream>>>,
}

impl Lobby {
    fn open(
        listener: Arc<TcpListener>,
        config: Arc<ServerConfig>,
        trust: &Trust,
    ) -> Result<Accepting, PairError> {
        let (admit, admitted) = unbounded();
        let lobby = Arc::new(Self { config, trust: trust.clone(), admit, waiting: Mutex::default() });
        let door = Arc::clone(&listener);
        // Not an urgent thread: strangers must not take time from the guest.
        thread::Builder::new()
            .name("lobby".into())
            .spawn(move || lobby.attend(&door))
            .map_err(PairError::Thread)?;
        Ok(Accepting::Lobby { listener, admitted })
    }

    fn attend(self: Arc<Self>, door: &TcpListener) {
        loop {
            match door.accept() {
                Ok((socket, from)) => self.enter(socket, from.ip().to_string()),
                // The listener is gone.
                Err(e) if e.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => return,
                Err(_) => thread::sleep(PAUSE),
            }
        }
    }

    fn enter(self: &Arc<Self>, socket: TcpStream, peer: String) {
        let socket = Arc::new(socket);
        let oldest = {
            let mut waiting = self.waiting.lock();
            waiting.push_back(Arc::clone(&socket));
            (waiting.len() > LOBBY).then(|| waiting.pop_front()).flatten()
        };
        if let Some(oldest) = oldest {
            let _ = oldest.shutdown(Shutdown::Both);
        }
        let (lobby, newcomer) = (Arc::clone(self), Arc::clone(&socket));
        let started = thread::Builder::new()
            .name("handshake".into())
            .spawn(move || lobby.examine(newcomer, &peer))
            .is_ok();
        if !started {
            self.leave(&socket);
            thread::sleep(PAUSE);
        }
    }

    /// Takes a connection out of those that wait.
    fn leave(&self, socket: &Arc<TcpStream>) {
        self.waiting.lock().retain(|other| !Arc::ptr_eq(other, socket));
    }

    fn examine(&self, socket: Arc<TcpStream>, peer: &str) {
        let session = Session::accept(&self.config, &socket);
        self.leave(&socket);
        let admitted = session.and_then(|session| {
            let socket = Socket::Tcp(socket.try_clone()?);
            socket.prepare()?;
            Ok(Stream::new(socket, Some(session), peer.to_owned(), &self.trust))
        });
        match admitted {
            // Without a listener nobody is let in: the connection closes.
            Ok(stream) => drop(self.admit.send(stream)),
            Err(why) => self.trust.complaints().say(peer, &why.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{MAX_FRAME, Message, encode};
    use crate::shell::connection::attend;
    use crate::shell::keys::{KeyFolder, Pinned, Purpose};
    use crossbeam::channel::bounded;
    use rustls::client::{ResolvesClientCert, Resumption};
    use rustls::crypto::ring;
    use rustls::sign::CertifiedKey;
    use rustls::version::TLS13;
    use rustls::{ClientConfig, SignatureScheme};
    use std::io::{Read, Write};
    use std::os::unix::fs::PermissionsExt;
    use std::time::Instant;

    /// Longer than anything here takes, also on a busy host.
    const LONG: Duration = Duration::from_secs(30);

    struct Folder(tempfile::TempDir);

    impl Folder {
        fn new() -> Self {
            let folder = Self(tempfile::tempdir().unwrap());
            folder.keys().make().unwrap();
            folder
        }

        fn keys(&self) -> KeyFolder {
            KeyFolder::new(self.0.path())
        }

        fn trusts(&self, other: &Self, purpose: Purpose) -> &Self {
            self.keys().pin(&other.0.path().join("own.pem"), purpose).unwrap();
            self
        }

        fn trust(&self) -> Trust {
            Trust::pinned(self.0.path()).unwrap()
        }

        fn listen(&self) -> (Listener, Address) {
            let address = Address::Tcp("127.0.0.1:0".into());
            let listener = address.listen(&self.trust()).unwrap();
            let address = listener.address(&address);
            (listener, address)
        }
    }

    fn two() -> (Folder, Folder) {
        let (a, b) = (Folder::new(), Folder::new());
        a.trusts(&b, Purpose::Peer);
        b.trusts(&a, Purpose::Peer);
        (a, b)
    }

    fn heartbeat(delivered: u64) -> Message {
        Message::Heartbeat { delivered, executed: 0 }
    }

    fn say(stream: &Stream, message: &Message) {
        stream.write_all(&stream.seal(encode(message).unwrap()).unwrap()).unwrap();
    }

    fn is_empty(listener: &Listener) -> bool {
        match &listener.accepting {
            Accepting::Lobby { admitted, .. } => admitted.is_empty(),
            _ => panic!("no lobby"),
        }
    }

    /// Reads until the other end closes.
    fn closes(mut socket: &TcpStream) {
        socket.set_read_timeout(Some(LONG)).unwrap();
        if let Err(e) = socket.read_to_end(&mut Vec::new()) {
            assert_eq!(e.kind(), io::ErrorKind::ConnectionReset, "it stays open");
        }
    }

    fn socket(address: &Address) -> TcpStream {
        TcpStream::connect(address.to_string()).unwrap()
    }

    #[test]
    fn those_who_know_each_other_talk_both_ways_also_when_keys_are_renewed() {
        let (a, b) = two();
        let (listener, address) = a.listen();
        let theirs = address.connect(&b.trust()).unwrap();
        let ours = listener.accept().unwrap();
        let (heard, hear) = unbounded();
        let heard_by = |name: &'static str, heard: Sender<_>| move |m: Message| heard.send((name, m)).is_ok();
        let out = attend::<Message, _>(ours, "a", heard_by("a", heard.clone()), || {}).unwrap();
        let back = attend::<Message, _>(theirs, "b", heard_by("b", heard), || {}).unwrap();
        for i in 0..200 {
            out.send(&heartbeat(i));
            back.send(&Message::Entries { sequence: i, bytes: vec![i as u8; 100_000] });
            if i % 50 == 0 {
                out.stream().renew_keys();
            }
        }
        let (mut at_a, mut at_b) = (0, 0);
        while at_a < 200 || at_b < 200 {
            match hear.recv_timeout(LONG).unwrap() {
                ("a", message) => {
                    assert_eq!(
                        message,
                        Message::Entries { sequence: at_a, bytes: vec![at_a as u8; 100_000] }
                    );
                    at_a += 1;
                }
                (_, message) => {
                    assert_eq!(message, heartbeat(at_b));
                    at_b += 1;
                }
            }
        }
    }

    #[test]
    fn strangers_are_told_why_and_never_come_in() {
        let (a, b) = two();
        let (listener, address) = a.listen();
        let why = |trust: &Trust| {
            let refused = address.connect(trust).and_then(|stream| stream.first_message::<Message>());
            let refused = refused.unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::InvalidData, "{refused}");
            refused.to_string()
        };
        let stranger = Folder::new();
        assert!(why(&stranger.trust()).contains("nobody pinned its certificate"), "the listener is one, too");
        stranger.trusts(&a, Purpose::Peer);
        assert!(why(&stranger.trust()).contains("pin this side's certificate there"));
        a.trusts(&stranger, Purpose::Console);
        assert!(why(&stranger.trust()).contains("pin this side's"), "pinned after the listener's start");
        let (listener_2, address_2) = a.listen();
        let refused = address_2.connect(&stranger.trust()).and_then(|s| s.first_message::<Message>());
        assert!(refused.unwrap_err().to_string().contains("pin this side's"), "a console is no peer");
        assert!(is_empty(&listener) && is_empty(&listener_2));
        let consoles = Address::Tcp("127.0.0.1:0".into());
        let open = consoles.listen(&a.trust().with_consoles()).unwrap();
        let consoles = open.address(&consoles);
        for trust in [stranger.trust(), b.trust()] {
            say(&consoles.connect(&trust).unwrap(), &heartbeat(1));
            assert_eq!(open.accept().unwrap().first_message::<Message>().unwrap(), heartbeat(1));
        }
    }

    /// Shows a pinned certificate and signs with another key.
    #[derive(Debug)]
    struct Thief(Arc<CertifiedKey>);

    impl ResolvesClientCert for Thief {
        fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
            Some(Arc::clone(&self.0))
        }

        fn has_certs(&self) -> bool {
            true
        }
    }

    #[test]
    fn a_pinned_certificate_without_its_key_is_not_enough() {
        let (a, b) = two();
        let (listener, address) = a.listen();
        let provider = Arc::new(ring::default_provider());
        let key = ring::sign::any_supported_type(&Folder::new().keys().key().unwrap()).unwrap();
        let thief = CertifiedKey::new(vec![b.keys().certificate().unwrap()], key);
        let believed = Pinned::new(b.keys().peers().unwrap(), &provider);
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(believed)
            .with_client_cert_resolver(Arc::new(Thief(Arc::new(thief))));
        config.resumption = Resumption::disabled();
        let socket = socket(&address);
        let session = Session::connect(&Arc::new(config), &socket).unwrap();
        let stream = Stream::new(Socket::Tcp(socket), Some(session), "a".into(), &Trust::local());
        assert_eq!(stream.first_message::<Message>().unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert!(is_empty(&listener));
    }

    #[test]
    fn what_was_said_once_says_nothing_again() {
        let (a, b) = two();
        let (listener, address) = a.listen();
        // Between the two somebody writes down what the client says.
        let between = TcpListener::bind("127.0.0.1:0").unwrap();
        let through = Address::Tcp(between.local_addr().unwrap().to_string());
        let (onward, trust) = (address.clone(), b.trust());
        let eavesdropper = thread::spawn(move || {
            let (client, server) = (between.accept().unwrap().0, socket(&onward));
            let (mut from, mut to) = (server.try_clone().unwrap(), client.try_clone().unwrap());
            thread::spawn(move || io::copy(&mut from, &mut to));
            let (mut noted, mut buffer) = (Vec::new(), [0; 4096]);
            loop {
                let count = (&client).read(&mut buffer).unwrap_or(0);
                if count == 0 {
                    let _ = server.shutdown(Shutdown::Both);
                    return noted;
                }
                noted.extend_from_slice(&buffer[..count]);
                (&server).write_all(&buffer[..count]).unwrap();
            }
        });
        let stream = through.connect(&trust).unwrap();
        say(&stream, &heartbeat(7));
        assert_eq!(listener.accept().unwrap().first_message::<Message>().unwrap(), heartbeat(7));
        stream.close();
        let noted = eavesdropper.join().unwrap();
        let again = socket(&address);
        let _ = (&again).write_all(&noted);
        closes(&again);
        assert!(is_empty(&listener));
    }

    #[test]
    fn those_who_only_wait_keep_nobody_out_and_do_not_stay() {
        let (a, b) = two();
        let (listener, address) = a.listen();
        let waiting: Vec<TcpStream> = (0..3 * LOBBY).map(|_| socket(&address)).collect();
        // One sends the beginning of something, byte by byte.
        let slow = socket(&address);
        thread::spawn(move || {
            while (&slow).write_all(&[22]).is_ok() {
                thread::sleep(Duration::from_millis(100));
            }
        });
        let (start, trust) = (Instant::now(), b.trust());
        say(&address.connect(&trust).unwrap(), &heartbeat(1));
        assert_eq!(listener.accept().unwrap().first_message::<Message>().unwrap(), heartbeat(1));
        assert!(start.elapsed() < LONG);
        waiting.iter().for_each(closes);
        let Accepting::Lobby { .. } = &listener.accepting else { panic!("no lobby") };
        say(&address.connect(&trust).unwrap(), &heartbeat(2));
        assert_eq!(listener.accept().unwrap().first_message::<Message>().unwrap(), heartbeat(2));
    }

    #[test]
    fn plain_text_and_nonsense_close_the_connection() {
        let (a, b) = two();
        let (listener, address) = a.listen();
        let mut oversized = (MAX_FRAME as u32 + 1).to_le_bytes().to_vec();
        oversized.resize(100, 0);
        let hello = encode(&heartbeat(1)).unwrap();
        for text in [&b"GET / HTTP/1.1\r\n\r\n"[..], &hello, &oversized, &[22, 3, 1, 0xff, 0xff]] {
            let socket = socket(&address);
            (&socket).write_all(text).unwrap();
            closes(&socket);
        }
        assert!(is_empty(&listener));
        // From one who may connect: it gets no further than its frame.
        for frame in [&oversized[..], &[3, 0, 0, 0, 0xee, 0xee, 0xee], &[0, 0, 0, 0]] {
            let theirs = address.connect(&b.trust()).unwrap();
            let (closed, wait_closed) = bounded(1);
            let on_message = |message: Message| panic!("{message:?} out of nonsense");
            let ours = listener.accept().unwrap();
            let _out =
                attend::<Message, Message>(ours, "a", on_message, move || closed.send(()).unwrap()).unwrap();
            theirs.write_all(&theirs.seal(frame.to_vec()).unwrap()).unwrap();
            wait_closed.recv_timeout(LONG).unwrap();
        }
        // Somebody on the way changes a bit of a record.
        let theirs = address.connect(&b.trust()).unwrap();
        let ours = listener.accept().unwrap();
        let mut sealed = theirs.seal(hello).unwrap();
        *sealed.last_mut().unwrap() ^= 1;
        theirs.write_all(&sealed).unwrap();
        assert_eq!(ours.first_message::<Message>().unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn a_listener_that_is_gone_lets_nobody_in() {
        let (a, b) = two();
        let (listener, address) = a.listen();
        drop(listener);
        let trust = b.trust();
        let start = Instant::now();
        while TcpStream::connect(address.to_string()).is_ok() {
            assert!(start.elapsed() < LONG, "somebody still listens");
            thread::sleep(Duration::from_millis(5));
        }
        assert!(address.connect(&trust).is_err());
    }

    #[test]
    fn tcp_without_a_word_on_who_may_connect_is_refused() {
        let address = Address::Tcp("127.0.0.1:0".into());
        assert!(matches!(address.listen(&Trust::local()), Err(PairError::NoKeys(_))));
        assert!(address.connect(&Trust::local()).is_err());
        assert!(address.listen(&Trust::insecure()).is_ok());
    }

    #[test]
    fn keys_that_others_may_read_are_refused_and_nothing_is_overwritten() {
        let folder = Folder::new();
        let said = folder.keys().make().unwrap_err().to_string();
        assert!(said.contains("is there already"), "{said}");
        let said =
            folder.keys().pin(&folder.0.path().join("own.pem"), Purpose::Peer).unwrap_err().to_string();
        assert!(said.contains("own certificate"), "{said}");
        let key = folder.0.path().join("own.key");
        assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
        fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
        let said = Trust::pinned(folder.0.path()).err().unwrap().to_string();
        assert!(said.contains("others may read it"), "{said}");
    }

    #[test]
    fn unix_sockets_are_for_this_user_and_files_are_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let address = Address::Unix(path.clone());
        drop(address.listen(&Trust::local()).unwrap());
        let _listener = address.listen(&Trust::local()).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let file = folder.path().join("file");
        fs::write(&file, "mine").unwrap();
        assert!(Address::Unix(file.clone()).listen(&Trust::local()).is_err());
        assert_eq!(fs::read(file).unwrap(), b"mine");
    }
}
