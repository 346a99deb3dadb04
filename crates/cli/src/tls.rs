//! The three files by which the parts of a rack know each other over TLS: one's certificate, its key, and the authority's.

use std::path::PathBuf;

use clap::Args;
use rackmem_api::serve::TlsFiles;

/// Those of a server, which shows its certificate to whomever it asks, too.
#[derive(Args, Clone, Debug)]
pub(crate) struct ServerTls {
    /// This server's certificate, PEM: speak TLS 1.3 and let in only clients with a certificate of the authority
    #[arg(long, value_name = "FILE", requires_all = ["tls_key", "tls_ca"])]
    tls_cert: Option<PathBuf>,
    /// Private key of the certificate, PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Certificates of the authority that signs the others' certificates, PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_ca: Option<PathBuf>,
}

/// Those of one who only asks.
#[derive(Args, Clone, Debug)]
pub(crate) struct ClientTls {
    /// Certificate to show to it, PEM
    #[arg(long, value_name = "FILE", global = true, requires_all = ["tls_key", "tls_ca"])]
    tls_cert: Option<PathBuf>,
    /// Private key of the certificate, PEM
    #[arg(long, value_name = "FILE", global = true, requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Certificates of the authority that signs its certificate, PEM
    #[arg(long, value_name = "FILE", global = true, requires = "tls_cert")]
    tls_ca: Option<PathBuf>,
}

impl ServerTls {
    pub(crate) fn files(&self) -> Option<TlsFiles> {
        files([&self.tls_cert, &self.tls_key, &self.tls_ca])
    }
}

impl ClientTls {
    pub(crate) fn files(&self) -> Option<TlsFiles> {
        files([&self.tls_cert, &self.tls_key, &self.tls_ca])
    }
}

/// All of them or none, as the command line was checked for.
fn files([cert, key, ca]: [&Option<PathBuf>; 3]) -> Option<TlsFiles> {
    Some(TlsFiles { cert: cert.clone()?, key: key.clone()?, ca: ca.clone()? })
}
