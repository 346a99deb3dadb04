//! What the operator decides, and the checks that need no socket.

use std::fmt;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use rackmem_types::{Bytes, ServerAddress};

use crate::error::ServerError;

/// How a memory server runs.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Memory to lend.
    pub size: Bytes,
    /// Where to listen; at least one place.
    pub listen: Vec<Listen>,
    /// TLS on all TCP listeners.
    pub tls: Option<TlsFiles>,
    /// The pre-shared token that every client must know.
    pub token: Option<Vec<u8>>,
    /// Whether to listen on the network with neither TLS nor token.
    pub insecure: bool,
    /// Where Prometheus fetches metrics.
    pub metrics: Option<SocketAddr>,
    /// File that describes the segments' memory to programs on this machine.
    pub regions: Option<PathBuf>,
    /// Limits.
    pub limits: Limits,
}

impl ServerConfig {
    /// A server of `size` on `listen`, all else as it is without any option.
    pub fn new(size: Bytes, listen: Vec<Listen>) -> Self {
        Self {
            size,
            listen,
            tls: None,
            token: None,
            insecure: false,
            metrics: None,
            regions: None,
            limits: Limits::default(),
        }
    }

    /// Whether this can run at all on a machine with `machine` memory.
    pub(crate) fn check(&self, machine: Bytes) -> Result<(), ServerError> {
        if self.size.pages() == 0 {
            return Err(ServerError::NoSize(self.size));
        }
        if self.size > machine {
            return Err(ServerError::SizeOverMachine { size: self.size, machine });
        }
        if self.listen.is_empty() {
            return Err(ServerError::NoListener);
        }
        match &self.token {
            Some(token) if token.len() < TOKEN_BYTES_MIN => Err(ServerError::ShortToken(token.len())),
            _ => Ok(()),
        }
    }

    /// Whether everybody who reaches `address` may be let in.
    pub(crate) fn check_exposed(&self, address: IpAddr) -> Result<(), ServerError> {
        let guarded = self.insecure || self.tls.is_some() || self.token.is_some();
        if guarded || address.to_canonical().is_loopback() {
            Ok(())
        } else {
            Err(ServerError::Exposed(address))
        }
    }
}

/// Shortest pre-shared token: 16 bytes cannot be guessed even by whoever recorded a handshake and tries at home.
pub(crate) const TOKEN_BYTES_MIN: usize = 16;

/// Files of TLS 1.3 with certificates on both sides, all PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The server's certificate chain.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The authority that must have signed a client's certificate.
    pub ca: PathBuf,
}

/// One place to listen: `HOST:PORT` or `unix:PATH`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// TCP, the host may be a name.
    Tcp {
        /// Host name or IP address.
        host: String,
        /// Port, 0 for any.
        port: u16,
    },
    /// Unix stream socket; also where shared-memory clients come.
    Unix(PathBuf),
}

/// The text is not a place to listen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a place to listen: write HOST:PORT (for example 0.0.0.0:7070) or unix:PATH")]
pub struct ParseListenError(String);

impl FromStr for Listen {
    type Err = ParseListenError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.parse() {
            Ok(ServerAddress::Tcp { host, port }) => Ok(Self::Tcp { host, port }),
            // Shared memory is spoken about over the same socket; whoever copies a client's address means this.
            Ok(ServerAddress::Unix(path) | ServerAddress::Shm(path)) => Ok(Self::Unix(path)),
            Err(_) => Err(ParseListenError(text.to_owned())),
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } => ServerAddress::Tcp { host: host.clone(), port: *port }.fmt(f),
            Self::Unix(path) => ServerAddress::Unix(path.clone()).fmt(f),
        }
    }
}

impl Listen {
    /// The IP addresses of a TCP place.
    pub(crate) fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, ServerError> {
        let unknown = |reason| ServerError::Resolve { host: host.to_owned(), reason };
        Ok((host, port).to_socket_addrs().map_err(unknown)?.collect())
    }
}

/// Bounds on what clients can make the server do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at one time. Each may take a receive buffer of up to 1 MiB.
    pub connections: usize,
    /// Connections of one client address, so that one client cannot lock out the others; Unix sockets count as one.
    pub connections_per_peer: usize,
    /// Segments that one connection has open.
    pub segments_per_connection: usize,
    /// Pages that a connection may have open in all when it creates one more segment.
    pub pages_per_connection: u64,
    /// Unanswered requests that a client is told it may have.
    pub in_flight: u32,
    /// Time for TLS, HELLO and AUTH.
    pub greeting: Duration,
    /// Time in which a client must take some of its answers.
    pub send: Duration,
    /// Time for connections to end after a shutdown was triggered.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 512,
            connections_per_peer: 256,
            segments_per_connection: 1024,
            pages_per_connection: u64::MAX,
            in_flight: rackmem_wire::IN_FLIGHT_MAX,
            greeting: Duration::from_secs(5),
            send: Duration::from_secs(30),
            drain: Duration::from_secs(10),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_as_people_write_them() {
        for text in ["0.0.0.0:7070", "[::1]:7070", "host:0", "unix:/run/rackmem.sock"] {
            assert_eq!(text.parse::<Listen>().unwrap().to_string(), text);
        }
        let error = "7070".parse::<Listen>().unwrap_err();
        assert!(error.to_string().contains("0.0.0.0:7070"), "{error}");
    }

    #[test]
    fn sizes_that_cannot_be_are_refused() {
        let check = |size| ServerConfig::new(size, vec![Listen::Unix("x".into())]).check(Bytes(1 << 30));
        assert!(matches!(check(Bytes(0)), Err(ServerError::NoSize(_))));
        assert!(matches!(check(Bytes(4095)), Err(ServerError::NoSize(_))));
        assert!(matches!(check(Bytes(2 << 30)), Err(ServerError::SizeOverMachine { .. })));
        assert!(check(Bytes(1 << 30)).is_ok());
    }

    #[test]
    fn the_network_is_open_only_to_who_is_guarded() {
        let mut config = ServerConfig::new(Bytes(4096), Vec::new());
        let everywhere = "0.0.0.0".parse().unwrap();
        let error = config.check_exposed(everywhere).unwrap_err().to_string();
        assert!(error.contains("--tls-cert") && error.contains("--insecure"), "{error}");
        assert!(config.check_exposed("::ffff:127.0.0.1".parse().unwrap()).is_ok());
        config.token = Some(vec![0; 16]);
        assert!(config.check_exposed(everywhere).is_ok());
    }
}
