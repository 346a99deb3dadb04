//! The API as it is served: over TCP, TLS and Unix sockets, to those who may ask, until it is closed.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::any;
use futures_util::StreamExt;
use rackmem_agent_sim::{Latencies, SimAgent, SimConfig};
use rackmem_api::agent::{AgentClient, VmSpec, WatchQuery, document, router};
use rackmem_api::auth::{Guard, Token};
use rackmem_api::problem::{Problem, ProblemType};
use rackmem_api::serve::{Closing, Listen, ServeConfig, Server, TlsFiles};
use rackmem_api::{ApiError, OperationState};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

struct Served {
    place: Listen,
    closing: Closing,
    ended: tokio::task::JoinHandle<()>,
}

fn serve(config: &ServeConfig) -> Served {
    let agent = Arc::new(SimAgent::new(SimConfig { latencies: Latencies::none(), ..SimConfig::default() }));
    serve_router(config, router(agent))
}

fn serve_router(config: &ServeConfig, router: Router) -> Served {
    let server = Server::open(config).unwrap();
    let place = server.places().remove(0);
    let closing = Closing::default();
    let ended = tokio::spawn(server.run(router, closing.clone()));
    Served { place, closing, ended }
}

fn on_loopback() -> ServeConfig {
    ServeConfig { listen: vec!["127.0.0.1:0".parse().unwrap()], ..ServeConfig::default() }
}

fn client(served: &Served) -> AgentClient {
    AgentClient::new(served.place.to_string().parse().unwrap(), None, None).unwrap()
}

fn spec() -> VmSpec {
    serde_json::from_str(r#"{"name":"web1","memory":1073741824,"boot":{"kernel":"/k"}}"#).unwrap()
}

/// Sends a request as it stands and reads the answer to its end.
async fn raw(served: &Served, request: &str) -> String {
    let mut stream = TcpStream::connect(served.place.to_string()).await.unwrap();
    let request = request.replace('\n', "\r\n") + "\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

async fn raw_problem(served: &Served, request: &str) -> Problem {
    let answer = raw(served, &format!("{request}\nConnection: close")).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("application/problem+json"), "{answer}");
    serde_json::from_str(body).unwrap()
}

#[tokio::test]
async fn every_mistake_is_a_problem_document() {
    let served = serve(&on_loopback());
    for (request, kind) in [
        ("GET /nothing HTTP/1.1\nHost: localhost", ProblemType::NotFound),
        ("PUT /v1/host HTTP/1.1\nHost: localhost", ProblemType::MethodNotAllowed),
        ("GET /v1/vms/NOT%20A%20NAME HTTP/1.1\nHost: localhost", ProblemType::NotFound),
        ("GET /v1/operations?limit=many HTTP/1.1\nHost: localhost", ProblemType::Malformed),
        ("GET /v1/operations?colour=red HTTP/1.1\nHost: localhost", ProblemType::Malformed),
        ("GET /v1/operations?limit=0 HTTP/1.1\nHost: localhost", ProblemType::Malformed),
        ("GET /v1/vms/web1/log?tail=9999999 HTTP/1.1\nHost: localhost", ProblemType::Malformed),
        ("DELETE /v1/vms/web1 HTTP/1.1\nHost: localhost", ProblemType::GenerationRequired),
        ("DELETE /v1/vms/web1 HTTP/1.1\nHost: localhost\nRackmem-Generation: -1", ProblemType::Malformed),
        ("GET /v1/events HTTP/1.1\nHost: localhost\nLast-Event-ID: x", ProblemType::Malformed),
        ("GET /v1/vms/web1/console HTTP/1.1\nHost: localhost", ProblemType::Malformed),
        ("GET /v1/host HTTP/1.1\nHost: localhost\nOrigin: https://evil.example", ProblemType::Forbidden),
        ("GET /v1/host HTTP/1.1\nHost: evil.example", ProblemType::Forbidden),
    ] {
        assert_eq!(raw_problem(&served, request).await.kind, kind, "{request}");
    }
}

#[tokio::test]
async fn the_router_answers_all_that_is_documented() {
    let served = serve(&on_loopback());
    let document = serde_json::to_value(document::<SimAgent>()).unwrap();
    let mut operations = 0;
    for (path, methods) in document["paths"].as_object().unwrap() {
        let path = path.replace("{name}", "web1").replace("{id}", "m1").replace("{domain}", "d");
        for method in methods.as_object().unwrap().keys().filter(|method| *method != "parameters") {
            operations += 1;
            if path == "/v1/events" {
                continue;
            }
            let method = method.to_uppercase();
            let answer =
                raw(&served, &format!("{method} {path} HTTP/1.1\nHost: localhost\nConnection: close")).await;
            let unknown =
                answer.contains("there is nothing here") || answer.contains("does not take that method");
            assert!(!unknown, "{method} {path} is documented and not answered: {answer}");
        }
    }
    assert!(operations > 25, "{operations}");
}

#[tokio::test]
async fn a_token_is_asked_for() {
    let guard = Guard { token: Some(Token::new(TOKEN).unwrap()) };
    let served = serve(&ServeConfig { guard, ..on_loopback() });
    let refused = client(&served).host().await.unwrap_err();
    assert!(matches!(&refused, ApiError::Problem(problem) if problem.status == 401), "{refused}");
    let endpoint = || served.place.to_string().parse().unwrap();
    let wrong = AgentClient::new(endpoint(), None, Some("0123456789abcdef0123456789abcdeX")).unwrap();
    assert!(matches!(wrong.host().await, Err(ApiError::Problem(problem)) if problem.status == 401));
    let console = wrong.vm_console(&"web1".parse().unwrap()).await.unwrap_err();
    assert!(matches!(console, ApiError::Problem(problem) if problem.status == 401));
    let right = AgentClient::new(endpoint(), None, Some(TOKEN)).unwrap();
    let create = right.vm_create(&spec()).await.unwrap();
    assert_eq!((create.state, create.by.as_str()), (OperationState::Done, "token"));
}

#[tokio::test]
async fn who_is_not_known_holds_no_connection() {
    let guard = Guard { token: Some(Token::new(TOKEN).unwrap()) };
    let served = serve(&ServeConfig { guard, ..on_loopback() });
    // It is read to its end, which comes although nobody asked for it.
    let asked = raw(&served, "GET /v1/host HTTP/1.1\nHost: localhost");
    let answer = tokio::time::timeout(Duration::from_secs(5), asked).await.unwrap().to_lowercase();
    assert!(answer.starts_with("http/1.1 401") && answer.contains("\r\nconnection: close\r\n"), "{answer}");
    // The router's own refusals too: the controller's tokens are judged there.
    let refuse = || async { Problem::new(ProblemType::Unauthenticated, "who are you?") };
    let served = serve_router(&on_loopback(), Router::new().route("/", any(refuse)));
    let asked = raw(&served, "GET / HTTP/1.1\nHost: localhost");
    let answer = tokio::time::timeout(Duration::from_secs(5), asked).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
}

#[tokio::test]
async fn what_waits_for_a_server_that_fails_is_told_so() {
    for method in ["GET", "POST"] {
        let (tell, mut told) = mpsc::unbounded_channel();
        let never = move || async move {
            tell.send(()).unwrap();
            std::future::pending::<()>().await;
        };
        let served = serve_router(&on_loopback(), Router::new().route("/", any(never)));
        let request = format!("{method} / HTTP/1.1\nHost: localhost");
        let (answer, ()) = tokio::join!(raw(&served, &request), async {
            told.recv().await.unwrap();
            assert_eq!(served.closing.failure(), None);
            served.closing.fail("the disk is full");
            served.closing.fail("and nothing works");
        });
        assert!(
            answer.starts_with("HTTP/1.1 503") && answer.contains("retry-after: 5"),
            "{method}: {answer}"
        );
        served.ended.await.unwrap();
        assert_eq!(served.closing.failure(), Some("the disk is full"));
    }
}

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    directory: tempfile::TempDir,
}

impl Authority {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        std::fs::write(directory.path().join("ca.pem"), certificate.pem()).unwrap();
        Self { issuer: Issuer::new(params, key), directory }
    }

    fn files(&self, name: &str) -> TlsFiles {
        let key = KeyPair::generate().unwrap();
        let names = vec![name.to_owned(), "127.0.0.1".to_owned()];
        let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &self.issuer).unwrap();
        let path = |suffix: &str| self.directory.path().join(format!("{name}{suffix}"));
        std::fs::write(path(".pem"), certificate.pem()).unwrap();
        std::fs::write(path(".key"), key.serialize_pem()).unwrap();
        TlsFiles { cert: path(".pem"), key: path(".key"), ca: self.directory.path().join("ca.pem") }
    }
}

#[tokio::test]
async fn certificates_are_asked_for_on_both_sides_and_name_who_asks() {
    let authority = Authority::new();
    let served = serve(&ServeConfig { tls: Some(authority.files("brick-1")), ..on_loopback() });
    let endpoint = || format!("https://{}", served.place).parse().unwrap();
    let files = authority.files("controller-1");
    let client = AgentClient::new(endpoint(), Some(&files), None).unwrap();
    let create = client.vm_create(&spec()).await.unwrap();
    assert_eq!(create.by, "controller-1");
    let mut console = client.vm_console(&"web1".parse().unwrap()).await.unwrap();
    let mut shown = [0; 7];
    console.0.read_exact(&mut shown).await.unwrap();
    assert_eq!(&shown, b"booted\n");

    let another = Authority::new();
    let stranger = TlsFiles { ca: files.ca.clone(), ..another.files("controller-1") };
    let refused = AgentClient::new(endpoint(), Some(&stranger), None).unwrap().host().await.unwrap_err();
    assert!(matches!(refused, ApiError::Unreachable { .. }), "{refused}");
    let without = AgentClient::new(endpoint(), None, None).unwrap_err();
    assert!(without.to_string().contains("--tls-cert"), "{without}");
    let plain = AgentClient::new(served.place.to_string().parse().unwrap(), None, None).unwrap();
    assert!(matches!(plain.host().await, Err(ApiError::Unreachable { .. })));
}

#[tokio::test]
async fn the_network_is_not_listened_on_unguarded() {
    let listen = vec!["0.0.0.0:0".parse().unwrap()];
    let refused =
        Server::open(&ServeConfig { listen: listen.clone(), ..ServeConfig::default() }).unwrap_err();
    assert!(refused.to_string().contains("--insecure"), "{refused}");
    let served = serve(&ServeConfig { listen, insecure: true, ..ServeConfig::default() });
    let Listen::Tcp { port, .. } = served.place else { panic!("TCP") };
    let client = AgentClient::new(format!("127.0.0.1:{port}").parse().unwrap(), None, None).unwrap();
    client.host().await.unwrap();
}

fn unix(directory: &Path) -> ServeConfig {
    ServeConfig { listen: vec![Listen::Unix(directory.join("agent.sock"))], ..ServeConfig::default() }
}

#[tokio::test]
async fn streams_and_consoles_work_on_a_unix_socket_and_end_with_the_server() {
    let directory = tempfile::tempdir().unwrap();
    let served = serve(&unix(directory.path()));
    let client = client(&served);
    let name = spec().name;
    let mut events = client.events(None).await.unwrap();
    let create = client.vm_create(&spec()).await.unwrap();
    assert_eq!(create.by, "local");
    let first = events.next().await.unwrap().unwrap();
    assert_eq!(first.operation.unwrap().id, create.id);
    let mut accesses = client.vm_watch(&name, WatchQuery { address: 4096 }).await.unwrap();
    assert_eq!(accesses.next().await.unwrap().unwrap().address, 4096);
    let nowhere = client.vm_watch(&name, WatchQuery { address: 1 << 40 }).await.err().unwrap();
    assert!(matches!(nowhere, ApiError::Problem(problem) if problem.kind == ProblemType::Invalid));
    let mut console = client.vm_console(&name).await.unwrap();
    console.0.write_all(b"hello").await.unwrap();
    let mut shown = [0; 12];
    console.0.read_exact(&mut shown).await.unwrap();
    assert_eq!(&shown, b"booted\nhello");

    served.closing.close();
    let closed = tokio::time::timeout(Duration::from_secs(5), served.ended).await;
    closed.expect("open streams do not hold up a shutdown").unwrap();
    // What had been sent may still be read; then both end.
    tokio::time::timeout(Duration::from_secs(5), async { while let Some(Ok(_)) = events.next().await {} })
        .await
        .expect("the event stream ends");
    assert_eq!(console.0.read(&mut shown).await.unwrap(), 0);
    assert!(!directory.path().join("agent.sock").exists());
    let gone = client.host().await.unwrap_err();
    assert!(matches!(&gone, ApiError::Unreachable { .. }), "{gone}");
    assert!(gone.to_string().contains("does anybody listen there?"), "{gone}");
}

#[tokio::test]
async fn the_document_is_served() {
    let served = serve(&on_loopback());
    let answer = raw(&served, "GET /v1/openapi.json HTTP/1.1\nHost: localhost\nConnection: close").await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\"openapi\""), "{answer}");
    let metrics = client(&served).metrics().await.unwrap();
    assert!(metrics.contains("rackmem_agent_vms 0\n") && metrics.ends_with("# EOF\n"), "{metrics}");
}

/// A server of one path that takes a while; it says when it begins and when it has ended.
fn slow() -> (Served, mpsc::UnboundedReceiver<&'static str>) {
    let (tell, told) = mpsc::unbounded_channel();
    let slow = move || async move {
        tell.send("begun").unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
        tell.send("ended").unwrap();
    };
    (serve_router(&on_loopback(), Router::new().route("/slow", any(slow))), told)
}

#[tokio::test]
async fn a_change_ends_although_who_asked_hangs_up() {
    for (method, ends) in [("POST", true), ("PUT", true), ("DELETE", true), ("GET", false)] {
        let (served, mut told) = slow();
        let mut stream = TcpStream::connect(served.place.to_string()).await.unwrap();
        let request = format!("{method} /slow HTTP/1.1\r\nHost: localhost\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        assert_eq!(told.recv().await, Some("begun"));
        drop(stream);
        // What nobody waits for any more and changes nothing is given up: its end of the channel goes with it.
        served.closing.close();
        served.ended.await.unwrap();
        assert_eq!(told.recv().await, ends.then_some("ended"), "{method}");
    }
}
