//! Where a memory server listens.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Address of a memory server: `HOST:PORT`, `unix:PATH`, or `shm:PATH`.
///
/// `shm:PATH` speaks to the server over its Unix socket and then maps the segments instead of
/// sending pages.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum ServerAddress {
    /// TCP: host name or IP address, and port.
    Tcp {
        /// Host name, IPv4 address, or IPv6 address without brackets.
        host: String,
        /// TCP port.
        port: u16,
    },
    /// Unix stream socket.
    Unix(PathBuf),
    /// Unix stream socket for control, shared memory for pages.
    Shm(PathBuf),
}

/// The text is not the address of a memory server.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not the address of a memory server: write HOST:PORT, unix:PATH or shm:PATH")]
pub struct ParseServerError(String);

impl FromStr for ServerAddress {
    type Err = ParseServerError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ParseServerError(text.to_owned());
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.is_empty() { Err(error()) } else { Ok(Self::Unix(path.into())) };
        }
        if let Some(path) = text.strip_prefix("shm:") {
            return if path.is_empty() { Err(error()) } else { Ok(Self::Shm(path.into())) };
        }
        let (host, port) = text.rsplit_once(':').ok_or_else(error)?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        if bare.is_none() && host.contains(':') {
            return Err(error());
        }
        let host = bare.unwrap_or(host);
        let port = port.parse().map_err(|_| error())?;
        if host.is_empty() || host.contains(char::is_whitespace) {
            return Err(error());
        }
        Ok(Self::Tcp { host: host.to_owned(), port })
    }
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::Tcp { host, port } if host.contains(':') => format!("[{host}]:{port}"),
            Self::Tcp { host, port } => format!("{host}:{port}"),
            Self::Unix(path) => format!("unix:{}", path.display()),
            Self::Shm(path) => format!("shm:{}", path.display()),
        };
        f.pad(&text)
    }
}

impl From<ServerAddress> for String {
    fn from(address: ServerAddress) -> Self {
        address.to_string()
    }
}

impl TryFrom<String> for ServerAddress {
    type Error = ParseServerError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_a_round_trip() {
        for text in ["host:7070", "10.0.0.1:1", "[::1]:7070", "unix:/run/m.sock", "shm:/run/m.sock"] {
            assert_eq!(text.parse::<ServerAddress>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn refuses_what_is_no_address() {
        for text in ["", "host", ":7070", "host:", "host:99999", "::1:7070", "unix:", "shm:", "a b:1"] {
            assert!(text.parse::<ServerAddress>().is_err(), "{text}");
        }
    }
}
