//! Why an API cannot be served or asked, in words for the user.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

use crate::auth::TOKEN_BYTES_MIN;
use crate::problem::Problem;

/// Why an API cannot be served, or why a request got no answer that can be used.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The text is no place to listen.
    #[error("'{0}' is not a place to listen: write HOST:PORT (for example 127.0.0.1:7080) or unix:PATH")]
    ParseListen(String),
    /// Nowhere to listen.
    #[error("there is nowhere to listen: give --listen HOST:PORT or --listen unix:PATH")]
    NoListener,
    /// The network could change everything without being asked who it is.
    #[error(
        "{0} is reachable from the network and nothing guards it: give --tls-cert, --tls-key and --tls-ca, or tokens \
         (an agent's --token-file, a controller's --tokens), or listen on a loopback address or a Unix socket, or allow \
         everybody with --insecure"
    )]
    Exposed(IpAddr),
    /// The host name means nothing.
    #[error("'{host}' is no address to listen on: {reason}")]
    Resolve {
        /// The host.
        host: String,
        /// The resolver's words.
        reason: io::Error,
    },
    /// The kernel does not let us listen.
    #[error("cannot listen on {place}: {reason}")]
    Listen {
        /// Where.
        place: String,
        /// The kernel's words.
        reason: io::Error,
    },
    /// Another server has the socket.
    #[error("{0} belongs to a running server: stop it or listen elsewhere")]
    SocketInUse(PathBuf),
    /// A token that can be guessed.
    #[error(
        "the token has {0} bytes, at least {TOKEN_BYTES_MIN} are needed: make one with `openssl rand -hex 32`"
    )]
    ShortToken(usize),
    /// A token that cannot be sent in a header.
    #[error("the token has characters that cannot be sent: make one with `openssl rand -hex 32`")]
    TokenCharacters,
    /// A TLS file cannot be used.
    #[error("cannot use {path} for TLS: {reason}")]
    TlsFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The TLS files do not fit together.
    #[error("the TLS certificate, key and authority do not fit together: {0}")]
    Tls(String),
    /// The text is no address of an API.
    #[error(
        "'{0}' is no address of an agent or a controller: write http://HOST:PORT, https://HOST:PORT, HOST:PORT or unix:PATH"
    )]
    ParseEndpoint(String),
    /// TLS was asked for without the files it needs.
    #[error("{0} is spoken to with TLS: give --tls-cert, --tls-key and --tls-ca")]
    NoTlsFiles(String),
    /// Nobody answers.
    #[error("cannot reach {endpoint}: {reason}; does anybody listen there?")]
    Unreachable {
        /// Who was asked.
        endpoint: String,
        /// What went wrong, from the outside to the inside.
        reason: String,
    },
    /// The answer cannot be understood.
    #[error(
        "{endpoint} gave an answer that is none of this API ({reason}): is it an agent or a controller of this version?"
    )]
    Garbled {
        /// Who was asked.
        endpoint: String,
        /// What is wrong with the answer.
        reason: String,
    },
    /// The file with the controller's tokens cannot be read.
    #[error("the token file is no usable JSON list of {{name, token, role, project, expires_ms}}: {0}")]
    TokenFile(String),
    /// The request was refused, or what it asked for failed.
    #[error(transparent)]
    Problem(#[from] Problem),
}
