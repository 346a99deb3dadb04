//! Why a memory server does not start, in words for its operator. A sentence that says the system's own words in its
//! middle keeps them as `reason`, not as the source of the error: who prints the chain would say them twice.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

use rackmem_types::Bytes;

use crate::config::TOKEN_BYTES_MIN;

/// Why a memory server does not start. What goes wrong later concerns one connection and never ends the server.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// Less than a page to lend.
    #[error("a memory server of {0} has nothing to lend: give --size at least 4KiB, for example 4GiB")]
    NoSize(Bytes),
    /// More to lend than there is.
    #[error("--size {size} is more than this machine's memory ({machine}): give a smaller --size")]
    SizeOverMachine {
        /// What was asked for.
        size: Bytes,
        /// What the machine has.
        machine: Bytes,
    },
    /// Nowhere to listen.
    #[error("the memory server has nowhere to listen: give --listen HOST:PORT or --listen unix:PATH")]
    NoListener,
    /// A token that can be guessed.
    #[error(
        "the token has {0} bytes, at least {TOKEN_BYTES_MIN} are needed: make one with `openssl rand -hex 32`"
    )]
    ShortToken(usize),
    /// The network could use the pool without being asked who it is.
    #[error(
        "{0} is reachable from the network and nothing guards it: give --tls-cert, --tls-key and --tls-ca, or \
         --token-file, or listen on a loopback address or a Unix socket, or allow everybody with --insecure"
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
    /// The regions file cannot be written.
    #[error("cannot write the memory regions to {path}: {reason}")]
    Regions {
        /// The file.
        path: PathBuf,
        /// The kernel's words.
        reason: io::Error,
    },
    /// The kernel refuses a thread, a random number or a descriptor.
    #[error("the system refuses what a memory server needs")]
    System(#[from] io::Error),
}
