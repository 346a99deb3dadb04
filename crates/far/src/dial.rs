//! From an address to a connection that a server has accepted: dial, TLS, HELLO, AUTH; and what can go wrong there.
//!
//! Blocking with a deadline. It keeps no connection and never tries twice.

use std::io;
use std::net::{TcpStream, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rackmem_types::ServerAddress;
use rackmem_wire::{Answer, ErrorCode, Nonce, Proof, Request, VERSION, Welcome};
use ring::rand::{SecureRandom, SystemRandom};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{AlertDescription, ClientConfig, ClientConnection, RootCertStore};

use crate::config::{Credentials, TlsFiles};
use crate::error::FarError;
use crate::session::Session;
use crate::stream::Stream;

/// All that is needed to reach one server again and again.
#[derive(Clone)]
pub(crate) struct Dialer {
    pub(crate) address: ServerAddress,
    tls: Option<Arc<ClientConfig>>,
    token: Option<Vec<u8>>,
}

impl Dialer {
    pub(crate) fn new(address: ServerAddress, credentials: &Credentials) -> Result<Self, FarError> {
        // Over a Unix socket nobody listens in, and the socket's permissions say who may come.
        let tls = match (&address, &credentials.tls) {
            (ServerAddress::Tcp { .. }, Some(files)) => Some(Arc::new(tls_config(files)?)),
            _ => None,
        };
        Ok(Self { address, tls, token: credentials.token.clone() })
    }

    /// A connection that the server has accepted, and what it says about itself.
    pub(crate) fn dial(&self, timeout: Duration) -> Result<(Session, Welcome), FarError> {
        let deadline = Instant::now() + timeout;
        let fail = |error| self.explain(error, timeout);
        let stream = match &self.address {
            ServerAddress::Tcp { host, port } => self.dial_tcp(host, *port, deadline, timeout)?,
            ServerAddress::Unix(path) | ServerAddress::Shm(path) => Stream::plain(unix(path).map_err(fail)?),
        };
        let mut session = Session::new(stream, !matches!(self.address, ServerAddress::Tcp { .. }));
        let welcome = self.greet(&mut session, deadline, timeout)?;
        Ok((session, welcome))
    }

    fn dial_tcp(
        &self,
        host: &str,
        port: u16,
        deadline: Instant,
        timeout: Duration,
    ) -> Result<Stream, FarError> {
        let unknown = |reason| FarError::UnknownHost { address: self.address.clone(), reason };
        let fail = |error| self.explain(error, timeout);
        let mut last = unknown(io::Error::new(io::ErrorKind::NotFound, "it has no IP address"));
        for target in (host, port).to_socket_addrs().map_err(unknown)? {
            let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            match TcpStream::connect_timeout(&target, left) {
                Ok(socket) => {
                    socket.set_nodelay(true).map_err(fail)?;
                    return self.secure(socket.into(), host, deadline).map_err(fail);
                }
                Err(error) => last = fail(error),
            }
        }
        Err(last)
    }

    fn secure(&self, socket: OwnedFd, host: &str, deadline: Instant) -> io::Result<Stream> {
        let Some(config) = &self.tls else { return Ok(Stream::plain(socket)) };
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        let connection = ClientConnection::new(config.clone(), name).map_err(io::Error::other)?;
        Stream::tls(socket, connection, deadline)
    }

    fn greet(
        &self,
        session: &mut Session,
        deadline: Instant,
        timeout: Duration,
    ) -> Result<Welcome, FarError> {
        let nonce: Nonce = random();
        let hello = Request::Hello { version_min: VERSION, version_max: VERSION, nonce };
        let welcome = session.call(&hello, deadline, |answer| match answer {
            Answer::Welcome(welcome) => Ok(welcome),
            other => Err(self.unexpected(&other)),
        });
        let welcome = welcome.map_err(|error| self.explain(error, timeout))??;
        if welcome.version != VERSION {
            let theirs = u64::from(welcome.version);
            return Err(FarError::Version { address: self.address.clone(), theirs, ours: VERSION });
        }
        if welcome.auth_required {
            let needed = || FarError::TokenNeeded { address: self.address.clone() };
            let token = self.token.as_ref().ok_or_else(needed)?;
            let proof = Proof::new(token, &nonce, &welcome.nonce);
            let answer = session.call(&Request::Auth(proof), deadline, |answer| match answer {
                Answer::Ok => Ok(()),
                other => Err(self.unexpected(&other)),
            });
            answer.map_err(|error| self.explain(error, timeout))??;
        }
        Ok(welcome)
    }

    /// The error for an answer that is not the one hoped for.
    pub(crate) fn unexpected(&self, answer: &Answer<'_>) -> FarError {
        let address = self.address.clone();
        let Answer::Error { code, detail, text } = *answer else {
            return FarError::NotAServer {
                address,
                reason: "it answers something that was not asked".into(),
            };
        };
        match code {
            ErrorCode::Version => FarError::Version { address, theirs: detail, ours: VERSION },
            ErrorCode::AuthRequired => FarError::TokenNeeded { address },
            ErrorCode::AuthFailed => FarError::WrongToken { address },
            ErrorCode::Full => FarError::Full { address, free_pages: detail },
            ErrorCode::NotOwner => FarError::NotOwner { address, segment: detail },
            ErrorCode::Epoch | ErrorCode::NoSegment => FarError::Restarted { address },
            _ => FarError::Server { address, text: text.to_owned() },
        }
    }

    /// The error for what a socket or TLS reported.
    pub(crate) fn explain(&self, reason: io::Error, timeout: Duration) -> FarError {
        let address = self.address.clone();
        if let Some(error) = reason.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            return explain_tls(address, error);
        }
        match reason.kind() {
            io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => {
                FarError::Refused { address, reason }
            }
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => {
                FarError::Timeout { address, seconds: timeout.as_secs_f64() }
            }
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe => FarError::Closed { address, reason },
            io::ErrorKind::InvalidData => FarError::NotAServer { address, reason: reason.to_string() },
            _ => FarError::Io { address, reason },
        }
    }
}

fn explain_tls(address: ServerAddress, error: &rustls::Error) -> FarError {
    use AlertDescription as Alert;
    let reason = error.to_string();
    match error {
        rustls::Error::AlertReceived(
            Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::CertificateRequired
            | Alert::UnknownCA
            | Alert::AccessDenied
            | Alert::DecryptError,
        ) => FarError::CertificateRefused { address, reason },
        rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented => {
            FarError::ServerNotTrusted { address, reason }
        }
        _ => FarError::NotAServer { address, reason },
    }
}

fn unix(path: &Path) -> io::Result<OwnedFd> {
    UnixStream::connect(path).map(OwnedFd::from)
}

/// Bytes that nobody can guess.
pub(crate) fn random() -> [u8; 16] {
    let mut bytes = [0; 16];
    SystemRandom::new().fill(&mut bytes).expect("the kernel gives random bytes");
    bytes
}

fn tls_config(files: &TlsFiles) -> Result<ClientConfig, FarError> {
    let bad = |path: &Path, reason: String| FarError::TlsFile { path: path.to_owned(), reason };
    let certificates = |path: &Path| -> Result<Vec<_>, FarError> {
        let list: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).and_then(|list| list.collect());
        match list {
            Ok(list) if list.is_empty() => Err(bad(path, "it contains no certificate".into())),
            list => list.map_err(|error| bad(path, error.to_string())),
        }
    };
    let mut roots = RootCertStore::empty();
    for authority in certificates(&files.ca)? {
        roots.add(authority).map_err(|error| bad(&files.ca, error.to_string()))?;
    }
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| bad(&files.key, error.to_string()))?;
    ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| bad(&files.cert, error.to_string()))?
        .with_root_certificates(roots)
        .with_client_auth_cert(certificates(&files.cert)?, key)
        .map_err(|error| bad(&files.cert, error.to_string()))
}
