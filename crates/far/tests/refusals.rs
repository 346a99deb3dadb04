//! What a user gets to read when a memory server cannot be used: one sentence for each reason, with a way out.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod common;

use std::io::Write;
use std::net::TcpListener;
use std::thread;

use common::{Host, any_port, certificates, config};
use rackmem_far::{FarConfig, FarError, FarMemory};
use rackmem_memory_server::ServerConfig;
use rackmem_types::{Bytes, ServerAddress};
use rackmem_wire::{Answer, ErrorCode};

fn refusal(config: FarConfig) -> FarError {
    let error = FarMemory::connect(config).err().expect("this server cannot be used");
    let sentence = error.to_string();
    assert!(sentence.len() > 40, "a sentence with a way out: {sentence}");
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        assert!(
            !sentence.contains(&error.to_string()),
            "who prints the chain says it twice: {sentence}: {error}"
        );
        cause = error.source();
    }
    error
}

/// A listener that says `bytes` to the first who comes.
fn saying(bytes: Vec<u8>) -> ServerAddress {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(&bytes).unwrap();
        // Until the client has gone.
        let _ = std::io::copy(&mut stream, &mut std::io::sink());
    });
    address.parse().unwrap()
}

#[test]
fn nobody_there() {
    let config = |address: &str| config(vec![address.parse().unwrap()]);
    assert!(matches!(refusal(config("no-such-host.invalid:7070")), FarError::UnknownHost { .. }));
    // Port 1 of the loopback is nobody's.
    assert!(matches!(refusal(config("127.0.0.1:1")), FarError::Refused { .. }));
    assert!(matches!(refusal(config("unix:/nonexistent/socket")), FarError::Refused { .. }));
    assert!(matches!(FarMemory::connect(common::config(Vec::new())), Err(FarError::NoServers)));
}

#[test]
fn silence_ends_in_a_timeout() {
    let error = refusal(config(vec![saying(Vec::new())]));
    assert!(matches!(error, FarError::Timeout { .. }), "{error}");
}

#[test]
fn garbage_and_other_versions() {
    let error = refusal(config(vec![saying(b"SSH-2.0-OpenSSH_9.2\r\n".to_vec())]));
    assert!(matches!(error, FarError::NotAServer { .. }), "{error}");
    let mut bytes = Vec::new();
    Answer::Error { code: ErrorCode::Version, detail: 9, text: "too new" }.encode(1, &mut bytes);
    let error = refusal(config(vec![saying(bytes)]));
    assert!(matches!(error, FarError::Version { theirs: 9, .. }), "{error}");
}

#[test]
fn tokens() {
    let mut server = ServerConfig::new(Bytes::from_pages(64), vec![any_port()]);
    server.token = Some(b"the token of this rack".to_vec());
    let host = Host::start(&server);
    let mut client = config(vec![host.address()]);
    let error = refusal(client.clone());
    assert!(matches!(error, FarError::TokenNeeded { .. }), "{error}");
    client.credentials.token = Some(b"the token of that rack".to_vec());
    let error = refusal(client);
    assert!(matches!(error, FarError::WrongToken { .. }), "{error}");
}

#[test]
fn certificates_and_missing_tls() {
    let directory = tempfile::tempdir().unwrap();
    let (ours, theirs) = (certificates(directory.path(), "ours"), certificates(directory.path(), "theirs"));
    let mut server = ServerConfig::new(Bytes::from_pages(64), vec![any_port()]);
    let (cert, key, ca) = (ours.cert.clone(), ours.key.clone(), ours.ca.clone());
    server.tls = Some(rackmem_memory_server::TlsFiles { cert, key, ca });
    let host = Host::start(&server);
    let mut client = config(vec![host.address()]);

    let error = refusal(client.clone());
    assert!(matches!(error, FarError::NotAServer { .. } | FarError::Closed { .. }), "{error}");
    assert!(error.to_string().contains("TLS"), "{error}");

    client.credentials.tls = Some(theirs.clone());
    let error = refusal(client.clone());
    assert!(matches!(error, FarError::ServerNotTrusted { .. }), "{error}");

    client.credentials.tls = Some(rackmem_far::TlsFiles { ca: ours.ca.clone(), ..theirs });
    let error = refusal(client.clone());
    assert!(matches!(error, FarError::CertificateRefused { .. }), "{error}");

    client.credentials.tls = Some(rackmem_far::TlsFiles { key: "/nonexistent/key.pem".into(), ..ours });
    let error = refusal(client.clone());
    assert!(matches!(error, FarError::TlsFile { .. }), "{error}");

    let plain = Host::tcp(64);
    client.credentials.tls = Some(certificates(directory.path(), "again"));
    client.servers = vec![plain.address()];
    let error = refusal(client);
    assert!(matches!(error, FarError::NotAServer { .. } | FarError::Closed { .. }), "{error}");
}

#[test]
fn a_full_server_gives_nothing_more() {
    let host = Host::tcp(1024);
    let first = FarMemory::connect(config(vec![host.address()])).unwrap();
    assert_eq!(first.grow().unwrap(), Some(0..1024));
    let second = FarMemory::connect(config(vec![host.address()])).unwrap();
    assert_eq!(second.grow().unwrap(), None);
    first.destroy();
    assert_eq!(second.grow().unwrap(), Some(0..1024));
}
