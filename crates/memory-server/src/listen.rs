//! Listening sockets: opened, accepted from, and removed.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use crate::config::{Listen, ServerConfig};
use crate::error::ServerError;

/// An open place to listen.
#[derive(Debug)]
pub(crate) enum Listener {
    Tcp(TcpListener, SocketAddr),
    Unix(UnixListener, PathBuf),
}

/// Who a connection comes from; connections of one peer are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    Ip(IpAddr),
    Local,
}

/// Opens every place of the configuration.
pub(crate) fn open(config: &ServerConfig) -> Result<Vec<Listener>, ServerError> {
    let mut listeners = Vec::new();
    for place in &config.listen {
        match place {
            Listen::Unix(path) => listeners.push(open_unix(path)?),
            Listen::Tcp { host, port } => {
                for address in Listen::resolve(host, *port)? {
                    config.check_exposed(address.ip())?;
                    listeners.push(open_tcp(address)?);
                }
            }
        }
    }
    Ok(listeners)
}

fn open_tcp(address: SocketAddr) -> Result<Listener, ServerError> {
    let failed = |reason| ServerError::Listen { place: address.to_string(), reason };
    let listener = TcpListener::bind(address).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok(Listener::Tcp(listener, address))
}

fn open_unix(path: &Path) -> Result<Listener, ServerError> {
    let failed = |reason| ServerError::Listen { place: format!("unix:{}", path.display()), reason };
    match UnixStream::connect(path) {
        Ok(_) => return Err(ServerError::SocketInUse(path.to_owned())),
        // Left behind by a server that was killed.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(failed)?;
        }
        Err(_) => {}
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    Ok(Listener::Unix(listener, path.to_owned()))
}

impl Listener {
    /// Where it listens, with the port that the kernel chose where none was given.
    pub(crate) fn place(&self) -> Listen {
        match self {
            Self::Tcp(_, address) => Listen::Tcp { host: address.ip().to_string(), port: address.port() },
            Self::Unix(_, path) => Listen::Unix(path.clone()),
        }
    }

    /// The next connection, `None` when there is none for now. Its socket blocks and does not delay small frames.
    pub(crate) fn accept(&self) -> io::Result<Option<(OwnedFd, Peer)>> {
        let accepted = match self {
            Self::Tcp(listener, _) => listener.accept().and_then(|(stream, from)| {
                stream.set_nonblocking(false)?;
                stream.set_nodelay(true)?;
                Ok((stream.into(), Peer::Ip(from.ip())))
            }),
            Self::Unix(listener, _) => listener.accept().and_then(|(stream, _)| {
                stream.set_nonblocking(false)?;
                Ok((stream.into(), Peer::Local))
            }),
        };
        match accepted {
            Ok(accepted) => Ok(Some(accepted)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(listener, _) => listener.as_fd(),
            Self::Unix(listener, _) => listener.as_fd(),
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
