//! TLS 1.3 with certificates on both sides.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use crate::error::ApiError;

/// Files of TLS 1.3 with certificates on both sides, all PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// One's own certificate chain.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The authority that must have signed the other side's certificate.
    pub ca: PathBuf,
}

/// The server's side: only clients whose certificate the authority signed.
pub(crate) fn server(files: &TlsFiles) -> Result<Arc<ServerConfig>, ApiError> {
    let Loaded { chain, key, roots, provider } = load(files)?;
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .build()
        .map_err(unusable)?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(unusable)?
        .with_client_cert_verifier(clients)
        .with_single_cert(chain, key)
        .map_err(unusable)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// The client's side.
pub(crate) fn client(files: &TlsFiles) -> Result<ClientConfig, ApiError> {
    let Loaded { chain, key, roots, provider } = load(files)?;
    ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(unusable)?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .map_err(unusable)
}

struct Loaded {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    roots: RootCertStore,
    provider: Arc<CryptoProvider>,
}

fn load(files: &TlsFiles) -> Result<Loaded, ApiError> {
    let chain = certificates(&files.cert)?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| file(&files.key, &error))?;
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&files.ca)? {
        roots.add(certificate).map_err(|error| file(&files.ca, &error))?;
    }
    Ok(Loaded { chain, key, roots, provider: Arc::new(rustls::crypto::ring::default_provider()) })
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, ApiError> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    let certificates: Vec<_> = read.map_err(|error| file(path, &error))?;
    if certificates.is_empty() {
        return Err(file(path, &"there is no certificate in it"));
    }
    Ok(certificates)
}

fn file(path: &Path, reason: &dyn std::fmt::Display) -> ApiError {
    ApiError::TlsFile { path: path.to_owned(), reason: reason.to_string() }
}

fn unusable(error: impl std::fmt::Display) -> ApiError {
    ApiError::Tls(error.to_string())
}

/// A client's side that trusts nobody, for connections that are without TLS.
pub(crate) fn client_of_nobody() -> Result<ClientConfig, ApiError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(unusable)?;
    Ok(config.with_root_certificates(RootCertStore::empty()).with_no_client_auth())
}
