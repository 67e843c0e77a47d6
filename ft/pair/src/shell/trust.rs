//! Who may connect: this side's key, and the certificates that are pinned.
//!
//! Not responsible for: making the files (`keys`), handshakes (`tls`, `listener`).
//!
//! UNIX sockets need no key: they have an owner. Over TCP both ends prove who they are, or everybody gets in, which somebody
//! must have asked for.

use super::address::Address;
use super::complaints::Complaints;
use super::error::PairError;
use super::keys::{KeyFolder, Pinned};
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::version::TLS13;
use rustls::{ClientConfig, ServerConfig};
use std::path::Path;
use std::sync::Arc;

/// How connections of one process are trusted.
#[derive(Clone, Default)]
pub struct Trust {
    tcp: Tcp,
    /// Consoles get in, too.
    consoles: bool,
    complaints: Arc<Complaints>,
}

#[derive(Clone, Default)]
enum Tcp {
    /// There is no TCP.
    #[default]
    Refused,
    /// Everybody gets in, and everybody on the way can read along.
    Plain,
    /// TLS 1.3; both ends show a pinned certificate.
    Pinned(Arc<Configs>),
}

struct Configs {
    client: Arc<ClientConfig>,
    peers: Arc<ServerConfig>,
    peers_and_consoles: Arc<ServerConfig>,
}

/// How a TCP connection is protected.
pub(super) enum Protection<T> {
    None,
    Tls(Arc<T>),
}

impl Trust {
    /// UNIX sockets only.
    pub fn local() -> Self {
        Self::default()
    }

    /// TCP for everybody who reaches it.
    pub fn insecure() -> Self {
        Self { tcp: Tcp::Plain, ..Self::default() }
    }

    /// TCP for those whose certificates are pinned in a folder of keys.
    ///
    /// # Errors
    /// [`PairError::Keys`]: no such folder, or files in it that are not what they must be.
    pub fn pinned(folder: &Path) -> Result<Self, PairError> {
        let folder = KeyFolder::new(folder);
        let (own, key) = (folder.certificate()?, folder.key()?);
        let (peers, consoles) = (folder.peers()?, folder.consoles()?);
        let all = peers.iter().chain(&consoles).cloned().collect();
        let configs = Configs::new(&own, &key, peers, all).map_err(|e| folder.unusable(&e))?;
        Ok(Self { tcp: Tcp::Pinned(Arc::new(configs)), ..Self::default() })
    }

    /// The same, and consoles get in where this listens.
    pub fn with_consoles(&self) -> Self {
        Self { consoles: true, ..self.clone() }
    }

    /// Whether an address may be used at all.
    ///
    /// # Errors
    /// [`PairError::NoKeys`].
    pub fn check(&self, address: &Address) -> Result<(), PairError> {
        match (address, &self.tcp) {
            (Address::Tcp(_), Tcp::Refused) => Err(PairError::NoKeys(address.clone())),
            _ => Ok(()),
        }
    }

    /// How who connects from here proves itself.
    pub(super) fn client(&self, address: &Address) -> Result<Protection<ClientConfig>, PairError> {
        self.check(address)?;
        Ok(match (address, &self.tcp) {
            (Address::Tcp(_), Tcp::Pinned(configs)) => Protection::Tls(Arc::clone(&configs.client)),
            _ => Protection::None,
        })
    }

    /// How who connects to here proves itself.
    pub(super) fn server(&self, address: &Address) -> Result<Protection<ServerConfig>, PairError> {
        self.check(address)?;
        Ok(match (address, &self.tcp) {
            (Address::Tcp(_), Tcp::Pinned(configs)) => {
                let config = if self.consoles { &configs.peers_and_consoles } else { &configs.peers };
                Protection::Tls(Arc::clone(config))
            }
            _ => Protection::None,
        })
    }

    /// Where refused connections are told of.
    pub(super) fn complaints(&self) -> &Arc<Complaints> {
        &self.complaints
    }
}

impl Configs {
    fn new(
        own: &CertificateDer<'static>,
        key: &PrivateKeyDer<'static>,
        peers: Vec<CertificateDer<'static>>,
        all: Vec<CertificateDer<'static>>,
    ) -> Result<Self, rustls::Error> {
        let provider = Arc::new(ring::default_provider());
        let peers_only = Pinned::new(peers, &provider);
        let mut client = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(&peers_only) as _)
            .with_client_auth_cert(vec![own.clone()], key.clone_key())?;
        // Every connection is made anew: nothing of an old one is worth keeping.
        client.resumption = Resumption::disabled();
        let server = |pinned| Self::server(&provider, pinned, own, key).map(Arc::new);
        Ok(Self {
            client: Arc::new(client),
            peers: server(peers_only)?,
            peers_and_consoles: server(Pinned::new(all, &provider))?,
        })
    }

    fn server(
        provider: &Arc<CryptoProvider>,
        pinned: Arc<Pinned>,
        own: &CertificateDer<'static>,
        key: &PrivateKeyDer<'static>,
    ) -> Result<ServerConfig, rustls::Error> {
        let mut server = ServerConfig::builder_with_provider(Arc::clone(provider))
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(pinned)
            .with_single_cert(vec![own.clone()], key.clone_key())?;
        server.send_tls13_tickets = 0;
        Ok(server)
    }
}
