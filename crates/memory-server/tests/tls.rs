//! TLS 1.3 with certificates on both sides, made for the test.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{Client, Running, tcp_config};
use rackmem_memory_server::{Server, ServerConfig, ServerError, Shutdown, TlsFiles};
use rackmem_types::PAGE_SIZE;
use rackmem_wire::{Answer, Request, U64};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

/// An authority, and the files of certificates that it signed.
struct Authority {
    directory: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new(directory: &Path) -> Self {
        fs::create_dir_all(directory).unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        fs::write(directory.join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
        Self { directory: directory.to_owned(), issuer: Issuer::new(params, key) }
    }

    fn files(&self, name: &str) -> TlsFiles {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let path = |kind| self.directory.join(format!("{name}.{kind}"));
        fs::write(path("pem"), certificate.pem()).unwrap();
        fs::write(path("key"), key.serialize_pem()).unwrap();
        TlsFiles { cert: path("pem"), key: path("key"), ca: self.directory.join("ca.pem") }
    }
}

fn connect(running: &Running, files: &TlsFiles) -> StreamOwned<ClientConnection, TcpStream> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&files.ca).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(
            vec![CertificateDer::from_pem_file(&files.cert).unwrap()],
            PrivateKeyDer::from_pem_file(&files.key).unwrap(),
        )
        .unwrap();
    let connection = ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
    StreamOwned::new(connection, TcpStream::connect(("127.0.0.1", running.port())).unwrap())
}

#[test]
fn clients_of_the_authority_are_served_and_others_are_not() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new(&directory.path().join("ours"));
    let running = Running::new(&ServerConfig { tls: Some(authority.files("server")), ..tcp_config(1000) });
    let ours = authority.files("client");

    let mut client = Client::new(connect(&running, &ours));
    client.hello();
    let segment = client.create("secret", 300, 0).unwrap();
    for page in 0..256 {
        client.write(segment, page, 1, page as u8).unwrap();
    }
    let pages: Vec<_> = (0..256).map(U64::new).collect();
    for _ in 0..4 {
        client
            .ask(&Request::Read { segment, pages: &pages }, |answer| {
                let Answer::Pages { data, .. } = answer else { panic!("{answer:?}") };
                assert!(data.iter().enumerate().all(|(page, data)| *data == [page as u8; PAGE_SIZE]));
            })
            .unwrap();
    }

    let others = Authority::new(&directory.path().join("others"));
    let stranger = TlsFiles { ca: ours.ca.clone(), ..others.files("client") };
    assert!(Client::new(connect(&running, &stranger)).is_closed(), "a certificate of another authority");
    assert!(running.connect().is_closed_after_plain_hello(), "no TLS at all");
    client.ask(&Request::Ping, |answer| assert_eq!(answer, Answer::Pong)).unwrap();
}

impl Client<TcpStream> {
    /// Whether the server answers a plain HELLO with anything but a TLS alert and the end.
    fn is_closed_after_plain_hello(&mut self) -> bool {
        self.send(&Request::Hello { version_min: 1, version_max: 1, nonce: [0; 16] });
        let mut answer = Vec::new();
        // The connection may be reset, since the server did not read all that was sent.
        let _ = std::io::Read::read_to_end(&mut self.stream, &mut answer);
        !answer.starts_with(b"RKMP")
    }
}

#[test]
fn a_handshake_byte_by_byte_is_not_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    let tls = Some(Authority::new(directory.path()).files("server"));
    let mut config = ServerConfig { tls, ..tcp_config(10) };
    config.limits.greeting = Duration::from_millis(200);
    let running = Running::new(&config);
    let mut stream = running.connect().stream;
    // The beginning of a handshake record of 512 bytes.
    stream.write_all(&[22, 3, 1, 2, 0]).unwrap();
    let begin = Instant::now();
    while stream.write_all(&[1]).is_ok() {
        assert!(begin.elapsed() < Duration::from_secs(5), "the server listens for ever");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn unusable_files_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new(directory.path());
    let (one, two) = (authority.files("one"), authority.files("two"));
    let start = |tls| {
        let config = ServerConfig { tls: Some(tls), ..tcp_config(1) };
        Server::start(&config, &Shutdown::new().unwrap()).unwrap_err()
    };
    let missing = start(TlsFiles { cert: directory.path().join("missing.pem"), ..one.clone() });
    assert!(missing.to_string().contains("missing.pem"), "{missing}");
    let empty = directory.path().join("empty.pem");
    fs::write(&empty, "").unwrap();
    assert!(matches!(start(TlsFiles { ca: empty, ..one.clone() }), ServerError::TlsFile { .. }));
    assert!(matches!(start(TlsFiles { key: two.key, ..one }), ServerError::Tls(_)));
}
