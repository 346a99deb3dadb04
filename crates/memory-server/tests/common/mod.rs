//! A server of this test's own on ports that the kernel chooses, and a plain client that speaks to it.
#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rackmem_memory_server::{Listen, Server, ServerConfig, Shutdown};
use rackmem_types::{Bytes, PAGE_SIZE, PageData, PageHash};
use rackmem_wire::{
    Answer, ErrorCode, OwnerToken, PageRecord, PageStatus, Proof, Request, StoreStatus, U64, VERSION,
    Welcome, WriteRecord,
};

pub(crate) const OWNER: OwnerToken = OwnerToken([7; 16]);
pub(crate) const NONCE: [u8; 16] = [9; 16];

/// A running server; ends with the test.
pub(crate) struct Running {
    pub(crate) places: Vec<Listen>,
    pub(crate) metrics: Option<std::net::SocketAddr>,
    pub(crate) shutdown: Shutdown,
    server: Option<Server>,
}

impl Running {
    pub(crate) fn new(config: &ServerConfig) -> Self {
        let shutdown = Shutdown::new().unwrap();
        let server = Server::start(config, &shutdown).unwrap();
        let (places, metrics) = (server.places().to_vec(), server.metrics_address());
        Self { places, metrics, shutdown, server: Some(server) }
    }

    /// A server of `pages` on a loopback port.
    pub(crate) fn tcp(pages: u64) -> Self {
        Self::new(&tcp_config(pages))
    }

    pub(crate) fn port(&self) -> u16 {
        match &self.places[0] {
            Listen::Tcp { port, .. } => *port,
            Listen::Unix(path) => panic!("{} is no port", path.display()),
        }
    }

    pub(crate) fn connect(&self) -> Client<TcpStream> {
        Client::new(TcpStream::connect(("127.0.0.1", self.port())).unwrap())
    }

    /// Triggers the shutdown and waits for the end.
    pub(crate) fn stop(mut self) {
        self.shutdown.trigger();
        self.server.take().unwrap().wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shutdown.trigger();
        if let Some(server) = self.server.take() {
            server.wait();
        }
    }
}

pub(crate) fn tcp_config(pages: u64) -> ServerConfig {
    let mut config = ServerConfig::new(Bytes::from_pages(pages), vec!["127.0.0.1:0".parse().unwrap()]);
    config.limits.drain = Duration::from_secs(2);
    config
}

pub(crate) fn unix_config(pages: u64, path: &Path) -> ServerConfig {
    ServerConfig { listen: vec![Listen::Unix(path.to_owned())], ..tcp_config(pages) }
}

pub(crate) fn unix_client(path: &Path) -> Client<UnixStream> {
    Client::new(UnixStream::connect(path).unwrap())
}

/// A client that asks one thing at a time.
pub(crate) struct Client<S> {
    pub(crate) stream: S,
    bytes: Vec<u8>,
    next: u64,
}

/// An ERROR answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refused(pub(crate) ErrorCode, pub(crate) u64, pub(crate) String);

impl<S: Read + Write> Client<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, bytes: Vec::new(), next: 1 }
    }

    /// Sends a request and hands the answer to `see`.
    pub(crate) fn ask<T>(
        &mut self,
        request: &Request<'_>,
        see: impl FnOnce(Answer<'_>) -> T,
    ) -> Result<T, Refused> {
        let id = self.send(request);
        self.answer(|got, answer| {
            assert_eq!(got, id);
            see(answer)
        })
    }

    pub(crate) fn send(&mut self, request: &Request<'_>) -> u64 {
        let mut bytes = Vec::new();
        request.encode(self.next, &mut bytes);
        self.stream.write_all(&bytes).unwrap();
        self.next += 1;
        self.next - 1
    }

    /// Waits for the next answer.
    pub(crate) fn answer<T>(&mut self, see: impl FnOnce(u64, Answer<'_>) -> T) -> Result<T, Refused> {
        let mut chunk = [0; 65536];
        loop {
            if let Some((id, answer, len)) = Answer::parse(&self.bytes).unwrap() {
                let result = match answer {
                    Answer::Error { code, detail, text } => Err(Refused(code, detail, text.to_owned())),
                    answer => Ok(see(id, answer)),
                };
                self.bytes.drain(..len);
                return result;
            }
            let count = self.stream.read(&mut chunk).unwrap();
            assert!(count > 0, "the server closed the connection");
            self.bytes.extend_from_slice(&chunk[..count]);
        }
    }

    /// Whether the server has closed the connection.
    pub(crate) fn is_closed(&mut self) -> bool {
        matches!(self.stream.read(&mut [0; 16]), Ok(0) | Err(_))
    }

    pub(crate) fn hello(&mut self) -> Welcome {
        let request = Request::Hello { version_min: VERSION, version_max: VERSION, nonce: NONCE };
        self.ask(&request, |answer| match answer {
            Answer::Welcome(welcome) => welcome,
            other => panic!("{other:?}"),
        })
        .unwrap()
    }

    pub(crate) fn auth(&mut self, token: &[u8], welcome: &Welcome) -> Result<(), Refused> {
        self.ask(&Request::Auth(Proof::new(token, &NONCE, &welcome.nonce)), |answer| {
            assert_eq!(answer, Answer::Ok)
        })
    }

    pub(crate) fn create(&mut self, name: &str, pages: u64, lease_ms: u64) -> Result<u64, Refused> {
        let request = Request::SegmentCreate { name, pages, owner: OWNER, lease_ms };
        self.ask(&request, |answer| match answer {
            Answer::Segment { segment, pages: got, .. } => {
                assert_eq!(got, pages);
                segment
            }
            other => panic!("{other:?}"),
        })
    }

    pub(crate) fn open(&mut self, segment: u64, owner: OwnerToken, epoch: u64) -> Result<(), Refused> {
        self.ask(&Request::SegmentOpen { segment, owner, epoch }, |answer| {
            assert!(matches!(answer, Answer::Segment { .. }));
        })
    }

    pub(crate) fn write(
        &mut self,
        segment: u64,
        page: u64,
        version: u64,
        byte: u8,
    ) -> Result<StoreStatus, Refused> {
        let data = [byte; PAGE_SIZE];
        let records = [WriteRecord::new(page, version, PageHash::of(&data).checksum())];
        self.ask(&Request::Write { segment, records: &records, data: &[data] }, |answer| match answer {
            Answer::Stored(statuses) => StoreStatus::from_wire(statuses[0]).unwrap(),
            other => panic!("{other:?}"),
        })
    }

    /// The byte that fills a page, or why there is none; the checksum is checked.
    pub(crate) fn read(&mut self, segment: u64, page: u64) -> Result<Result<u8, PageStatus>, Refused> {
        self.ask(&Request::Read { segment, pages: &[U64::new(page)] }, |answer| match answer {
            Answer::Pages { records, data } => check_page(&records[0], data.first()),
            other => panic!("{other:?}"),
        })
    }
}

pub(crate) fn check_page(record: &PageRecord, data: Option<&PageData>) -> Result<u8, PageStatus> {
    let Some(data) = data.filter(|_| record.is_ok()) else { return Err(record.status().unwrap()) };
    assert_eq!(PageHash::of(data).checksum(), record.checksum.get(), "page {}", record.page);
    assert!(data.iter().all(|byte| *byte == data[0]));
    Ok(data[0])
}
