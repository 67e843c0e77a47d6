//! A side's key, its certificate, and the certificates of those that it trusts: a folder of files.
//!
//! Not responsible for: connections (`tls`), who has to show what (`trust`).
//!
//! ```text
//! DIR/own.key         the private key (PKCS #8), for its owner only
//! DIR/own.pem         the certificate that others pin
//! DIR/peers/*.pem     other sides, standbys, gateways: they may do everything
//! DIR/consoles/*.pem  may use the console and read the figures
//! ```
//!
//! A certificate is no more than a name for its key here: it is trusted because it is the very one that was pinned. Issuer,
//! subject and dates say nothing.

use super::error::PairError;
use rustls::DigitallySignedStruct;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256;
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DistinguishedName, Error, OtherError, PeerIncompatible, SignatureScheme};
use std::fmt::{self, Display, Write as _};
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What a pinned certificate is good for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// A side of a pair, a standby, a gateway.
    Peer,
    /// The console and the figures.
    Console,
}

/// A folder of keys.
pub struct KeyFolder(PathBuf);

impl KeyFolder {
    /// The folder of this name; nothing is read yet.
    pub fn new(folder: &Path) -> Self {
        Self(folder.into())
    }

    /// Makes the folder, a key and its certificate, and returns where the certificate is.
    ///
    /// # Errors
    /// A key is there already, or files cannot be written.
    pub fn make(&self) -> Result<PathBuf, PairError> {
        let made = rcgen::KeyPair::generate().and_then(|key| {
            let certificate =
                rcgen::CertificateParams::new(vec!["gemel.invalid".into()])?.self_signed(&key)?;
            Ok((key.serialize_pem(), certificate.pem()))
        });
        let (key, certificate) = made.map_err(|e| self.unusable(&e))?;
        for pinned in [self.pinned_in(Purpose::Peer), self.pinned_in(Purpose::Console)] {
            fs::create_dir_all(pinned).map_err(|e| self.unusable(&e))?;
        }
        let write = |path: &Path, mode, text: &str| {
            OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(mode)
                .open(path)
                .and_then(|mut file| file.write_all(text.as_bytes()))
                .map_err(|e| match e.kind() {
                    io::ErrorKind::AlreadyExists => self.unusable(&format_args!(
                        "{} is there already; make another folder, or remove it",
                        path.display()
                    )),
                    _ => self.unusable(&format_args!("cannot write {}: {e}", path.display())),
                })
        };
        let path = self.certificate_path();
        write(&self.key_path(), 0o600, &key)?;
        write(&path, 0o644, &certificate)?;
        Ok(path)
    }

    /// Trusts the certificate in a file from now on, and returns its fingerprint.
    ///
    /// # Errors
    /// No certificate, or it cannot be copied.
    pub fn pin(&self, certificate: &Path, purpose: Purpose) -> Result<Fingerprint, PairError> {
        let text = fs::read(certificate)
            .map_err(|e| self.unusable(&format_args!("cannot read {}: {e}", certificate.display())))?;
        let der = self.one_certificate(certificate, &text)?;
        if fs::exists(self.certificate_path()).unwrap_or(false) && der == self.certificate()? {
            return Err(self.unusable(&format_args!(
                "{} is this folder's own certificate; take the other side's",
                certificate.display()
            )));
        }
        let (fingerprint, folder) = (Fingerprint::of(&der), self.pinned_in(purpose));
        // Written under another name first: whoever starts meanwhile sees all of it or nothing.
        let (draft, path) = (folder.join(".draft"), folder.join(format!("{}.pem", fingerprint.short())));
        fs::create_dir_all(&folder)
            .and_then(|()| {
                let mut file = File::create(&draft)?;
                file.write_all(&text)?;
                file.set_permissions(Permissions::from_mode(0o644))?;
                fs::rename(&draft, path)
            })
            .map_err(|e| self.unusable(&e))?;
        Ok(fingerprint)
    }

    /// The folder's own certificate.
    ///
    /// # Errors
    /// It is not there, or is none.
    pub fn certificate(&self) -> Result<CertificateDer<'static>, PairError> {
        let path = self.certificate_path();
        let text = fs::read(&path).map_err(|e| {
            self.unusable(&format_args!("cannot read {}: {e}; gemel keys make makes it", path.display()))
        })?;
        self.one_certificate(&path, &text)
    }

    /// The folder's key.
    ///
    /// # Errors
    /// It is not there, is none, or others may read it.
    pub(super) fn key(&self) -> Result<PrivateKeyDer<'static>, PairError> {
        let path = self.key_path();
        let unreadable =
            |e: &dyn Display| self.unusable(&format_args!("cannot use the key {}: {e}", path.display()));
        let mode = fs::metadata(&path).map_err(|e| unreadable(&e))?.permissions().mode();
        if mode & 0o077 != 0 {
            return Err(unreadable(&"others may read it; chmod 600 it, and make a new one if they did"));
        }
        PrivateKeyDer::from_pem_file(&path).map_err(|e| unreadable(&e))
    }

    /// The certificates of peers.
    ///
    /// # Errors
    /// A file that is no certificate.
    pub fn peers(&self) -> Result<Vec<CertificateDer<'static>>, PairError> {
        self.pinned(Purpose::Peer)
    }

    /// The certificates of consoles.
    ///
    /// # Errors
    /// A file that is no certificate.
    pub fn consoles(&self) -> Result<Vec<CertificateDer<'static>>, PairError> {
        self.pinned(Purpose::Console)
    }

    /// An error about this folder.
    pub(super) fn unusable(&self, why: &dyn Display) -> PairError {
        PairError::Keys(self.0.clone(), why.to_string())
    }

    fn pinned(&self, purpose: Purpose) -> Result<Vec<CertificateDer<'static>>, PairError> {
        let folder = self.pinned_in(purpose);
        let mut certificates = Vec::new();
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(certificates),
            Err(e) => return Err(self.unusable(&format_args!("cannot read {}: {e}", folder.display()))),
        };
        for entry in entries {
            let path = entry.map_err(|e| self.unusable(&e))?.path();
            if path.extension().is_some_and(|e| e == "pem") {
                let text = fs::read(&path)
                    .map_err(|e| self.unusable(&format_args!("cannot read {}: {e}", path.display())))?;
                certificates.push(self.one_certificate(&path, &text)?);
            }
        }
        Ok(certificates)
    }

    fn one_certificate(&self, path: &Path, text: &[u8]) -> Result<CertificateDer<'static>, PairError> {
        CertificateDer::from_pem_slice(text).map_err(|e| {
            self.unusable(&format_args!("{} is no certificate in PEM form: {e}", path.display()))
        })
    }

    fn certificate_path(&self) -> PathBuf {
        self.0.join("own.pem")
    }

    fn key_path(&self) -> PathBuf {
        self.0.join("own.key")
    }

    fn pinned_in(&self, purpose: Purpose) -> PathBuf {
        self.0.join(match purpose {
            Purpose::Peer => "peers",
            Purpose::Console => "consoles",
        })
    }
}

/// SHA-256 of a certificate (DER), as OpenSSL prints it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fingerprint(Vec<u8>);

impl Fingerprint {
    /// A certificate's.
    pub fn of(certificate: &CertificateDer<'_>) -> Self {
        let suite = TLS13_AES_128_GCM_SHA256.tls13();
        Self(suite.map_or_else(Vec::new, |suite| {
            suite.common.hash_provider.hash(certificate.as_ref()).as_ref().to_vec()
        }))
    }

    /// Its first 16 hexadecimal digits.
    fn short(&self) -> String {
        self.0.iter().take(8).fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    }
}

impl Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .iter()
            .enumerate()
            .try_for_each(|(i, byte)| write!(f, "{}{byte:02X}", if i == 0 { "" } else { ":" }))
    }
}

/// Believes whoever shows a pinned certificate and signs with its key.
#[derive(Debug)]
pub(super) struct Pinned {
    certificates: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
}

/// A certificate that nobody pinned here.
#[derive(Debug, thiserror::Error)]
#[error("nobody pinned its certificate ({0}) here; if it is to get in: gemel keys pin")]
struct Stranger(Fingerprint);

impl Pinned {
    pub(super) fn new(
        certificates: Vec<CertificateDer<'static>>,
        provider: &Arc<CryptoProvider>,
    ) -> Arc<Self> {
        Arc::new(Self { certificates, provider: Arc::clone(provider) })
    }

    fn check(&self, certificate: &CertificateDer<'_>) -> Result<(), Error> {
        if self.certificates.contains(certificate) {
            return Ok(());
        }
        let stranger = OtherError(Arc::new(Stranger(Fingerprint::of(certificate))));
        Err(Error::InvalidCertificate(CertificateError::Other(stranger)))
    }

    fn check_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

const ONLY_1_3: Error = Error::PeerIncompatible(PeerIncompatible::Tls13RequiredForQuic);

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(end_entity).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(ONLY_1_3)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}

impl ClientCertVerifier for Pinned {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(end_entity).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(ONLY_1_3)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}
