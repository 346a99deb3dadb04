//! The three files by which the parts of a rack know each other over TLS: one's certificate, its key, and the authority's.

use std::path::PathBuf;

use clap::Args;
use rackmem_api::serve::TlsFiles;
use rackmem_far::Credentials;

use crate::token;

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

/// What proves to memory servers who asks, for those whose own doors have other keys.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Far memory")]
pub(crate) struct FarProof {
    /// File with the token that the memory servers know
    #[arg(long, value_name = "FILE", env = "RACKMEM_TOKEN_FILE")]
    far_token_file: Option<PathBuf>,
    /// Certificate to show to the memory servers, PEM
    #[arg(long, value_name = "FILE", requires_all = ["far_tls_key", "far_tls_ca"])]
    far_tls_cert: Option<PathBuf>,
    /// Private key of that certificate, PEM
    #[arg(long, value_name = "FILE", requires = "far_tls_cert")]
    far_tls_key: Option<PathBuf>,
    /// Certificates of the authority that signs the memory servers' certificates, PEM
    #[arg(long, value_name = "FILE", requires = "far_tls_cert")]
    far_tls_ca: Option<PathBuf>,
}

impl FarProof {
    /// The options by which a pager is told of them.
    pub(crate) fn options(&self) -> [(&'static str, &Option<PathBuf>); 4] {
        [
            ("--token-file", &self.far_token_file),
            ("--tls-cert", &self.far_tls_cert),
            ("--tls-key", &self.far_tls_key),
            ("--tls-ca", &self.far_tls_ca),
        ]
    }

    pub(crate) fn credentials(&self) -> anyhow::Result<Credentials> {
        let tls = files([&self.far_tls_cert, &self.far_tls_key, &self.far_tls_ca]);
        Ok(Credentials {
            tls: tls.map(|TlsFiles { cert, key, ca }| rackmem_far::TlsFiles { cert, key, ca }),
            token: self.far_token_file.as_deref().map(token::read).transpose()?,
        })
    }
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
