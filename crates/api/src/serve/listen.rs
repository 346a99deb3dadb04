//! Places to listen: opened, accepted from, and removed.

use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use rackmem_types::ServerAddress;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use crate::auth::{self, Peer};
use crate::error::ApiError;

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
    /// Unix stream socket, which only its owner can open.
    Unix(PathBuf),
}

impl FromStr for Listen {
    type Err = ApiError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.parse() {
            Ok(ServerAddress::Tcp { host, port }) => Ok(Self::Tcp { host, port }),
            Ok(ServerAddress::Unix(path)) => Ok(Self::Unix(path)),
            Ok(ServerAddress::Shm(_)) | Err(_) => Err(ApiError::ParseListen(text.to_owned())),
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

/// An open place to listen.
#[derive(Debug)]
pub(super) enum Listener {
    Tcp(TcpListener, SocketAddr),
    Unix(UnixListener, PathBuf),
}

/// A connection.
#[derive(Debug)]
pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// Opens a place; a host name may be several.
pub(super) fn open(place: &Listen, guarded: bool) -> Result<Vec<Listener>, ApiError> {
    match place {
        Listen::Unix(path) => Ok(vec![open_unix(path)?]),
        Listen::Tcp { host, port } => {
            let unknown = |reason| ApiError::Resolve { host: host.clone(), reason };
            let addresses = (host.as_str(), *port).to_socket_addrs().map_err(unknown)?;
            addresses.map(|address| open_tcp(address, guarded)).collect()
        }
    }
}

fn open_tcp(address: SocketAddr, guarded: bool) -> Result<Listener, ApiError> {
    auth::check_exposed(address.ip(), guarded)?;
    let open = || {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let bound = listener.local_addr()?;
        Ok(Listener::Tcp(TcpListener::from_std(listener)?, bound))
    };
    open().map_err(|reason| ApiError::Listen { place: address.to_string(), reason })
}

fn open_unix(path: &Path) -> Result<Listener, ApiError> {
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => return Err(ApiError::SocketInUse(path.to_owned())),
        // Left behind by a server that was killed; the rename below replaces it. A file that is no socket is not ours.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused && is_socket(path) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(reason) => return Err(ApiError::Listen { place: path.display().to_string(), reason }),
    }
    let open = || {
        // Nobody else may open it, not even between its making and the change of its mode: so it gets its name last.
        let mut hidden = path.as_os_str().to_owned();
        hidden.push(format!(".{}", std::process::id()));
        let _ = std::fs::remove_file(&hidden);
        let listener = UnixListener::bind(&hidden)?;
        std::fs::set_permissions(&hidden, std::fs::Permissions::from_mode(0o600))?;
        std::fs::rename(&hidden, path)?;
        Ok(Listener::Unix(listener, path.to_owned()))
    };
    open().map_err(|reason| ApiError::Listen { place: format!("unix:{}", path.display()), reason })
}

fn is_socket(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket())
}

impl Listener {
    /// Where it listens, with the port that the kernel chose where none was given.
    pub(super) fn place(&self) -> Listen {
        match self {
            Self::Tcp(_, address) => Listen::Tcp { host: address.ip().to_string(), port: address.port() },
            Self::Unix(_, path) => Listen::Unix(path.clone()),
        }
    }

    /// The next connection.
    pub(super) async fn accept(&self) -> io::Result<(Stream, Peer)> {
        match self {
            Self::Tcp(listener, _) => {
                let (stream, from) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok((Stream::Tcp(stream), Peer::Ip(from.ip())))
            }
            Self::Unix(listener, _) => {
                let (stream, _) = listener.accept().await?;
                Ok((Stream::Unix(stream), Peer::Unix))
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Self::Unix(_, path) = self {
            // Somebody may have removed it already.
            let _ = std::fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_as_people_write_them() {
        for text in ["0.0.0.0:7080", "[::1]:7080", "host:0", "unix:/run/agent.sock"] {
            assert_eq!(text.parse::<Listen>().unwrap().to_string(), text);
        }
        for text in ["7080", "shm:/run/agent.sock", "unix:"] {
            let error = text.parse::<Listen>().unwrap_err();
            assert!(error.to_string().contains("127.0.0.1:7080"), "{error}");
        }
    }

    #[tokio::test]
    async fn a_unix_socket_is_its_owners_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let listener = open_unix(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(matches!(open_unix(&path), Err(ApiError::SocketInUse(_))));
        drop(listener);
        assert!(std::fs::read_dir(&directory).unwrap().next().is_none());
        // What a killed server leaves is taken over; what is no socket is left alone.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        drop(open_unix(&path).unwrap());
        std::fs::write(&path, "precious").unwrap();
        assert!(matches!(open_unix(&path), Err(ApiError::Listen { .. })));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    }
}
