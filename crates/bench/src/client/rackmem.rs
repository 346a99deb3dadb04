//! rackmem's memory server: the page protocol, one frame for each batch of pages.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use anyhow::{Context, Result, bail, ensure};
use rackmem_types::{PageData, PageHash};
use rackmem_wire::{
    Answer, FRAME_BYTES_MAX, OwnerToken, Proof, Request, StoreStatus, U64, VERSION, WriteRecord, frame_len,
};

use super::PageStore;

/// How long the server keeps the segment after the connection; the load has no use for it then.
const LEASE_MS: u64 = 1000;

/// Nobody listens in on a benchmark, so it need not be one that cannot be guessed.
const NONCE: [u8; 16] = [1; 16];

/// A connection to a memory server, with a segment of its own.
#[derive(Debug)]
pub(crate) struct MemoryServer {
    stream: TcpStream,
    segment: u64,
    next_request: u64,
    /// The oldest request whose answer was not taken; answers may come in any order.
    next_answer: u64,
    early: HashMap<u64, Vec<u8>>,
    version: u64,
    out: Vec<u8>,
    input: Input,
}

/// Bytes from the server, of which `start..end` are not parsed yet.
#[derive(Debug)]
struct Input {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl MemoryServer {
    /// Connects without TLS, with a token if the server wants one, and reserves a segment of `pages`.
    pub(crate) fn connect(address: SocketAddr, pages: u32, token: Option<&str>) -> Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        let mut server = Self {
            stream,
            segment: 0,
            next_request: 1,
            next_answer: 1,
            early: HashMap::new(),
            version: 0,
            out: Vec::with_capacity(FRAME_BYTES_MAX),
            input: Input { bytes: vec![0; 2 * FRAME_BYTES_MAX], start: 0, end: 0 },
        };
        server.send(&Request::Hello { version_min: VERSION, version_max: VERSION, nonce: NONCE })?;
        let theirs = server.take(|answer| match answer {
            Answer::Welcome(welcome) => Ok(welcome.auth_required.then_some(welcome.nonce)),
            other => bail!("the memory server said {other:?} to HELLO"),
        })?;
        if let Some(nonce) = theirs {
            let token = token.context("the memory server wants a token")?;
            server.send(&Request::Auth(Proof::new(token.as_bytes(), &NONCE, &nonce)))?;
            server.take(|answer| match answer {
                Answer::Ok => Ok(()),
                other => bail!("the memory server said {other:?} to AUTH"),
            })?;
        }
        let owner = OwnerToken([2; 16]);
        server.send(&Request::SegmentCreate {
            name: "bench",
            pages: pages.into(),
            owner,
            lease_ms: LEASE_MS,
        })?;
        server.segment = server.take(|answer| match answer {
            Answer::Segment { segment, .. } => Ok(segment),
            other => bail!("the memory server said {other:?} to SEGMENT_CREATE"),
        })?;
        Ok(server)
    }

    fn send(&mut self, request: &Request<'_>) -> Result<()> {
        self.out.clear();
        request.encode(self.next_request, &mut self.out);
        self.next_request += 1;
        Ok(self.stream.write_all(&self.out)?)
    }

    /// Hands the answer to the oldest request to `use_answer`.
    fn take<T>(&mut self, use_answer: impl FnOnce(Answer<'_>) -> Result<T>) -> Result<T> {
        let wanted = self.next_answer;
        self.next_answer += 1;
        if let Some(frame) = self.early.remove(&wanted) {
            let (_, answer, _) = Answer::parse(&frame)?.context("a frame that was whole before")?;
            return use_answer(answer);
        }
        loop {
            let len = self.input.frame(&mut self.stream)?;
            let frame = self.input.consume(len);
            let (id, answer, _) = Answer::parse(frame)?.context("a frame shorter than it says")?;
            if id == wanted {
                return use_answer(answer);
            }
            if let Answer::Error { text, .. } = answer {
                bail!("the memory server refused: {text}");
            }
            self.early.insert(id, frame.to_vec());
        }
    }
}

impl Input {
    /// Waits for a whole frame; gives its length.
    fn frame(&mut self, stream: &mut TcpStream) -> Result<usize> {
        loop {
            let unparsed = &self.bytes[self.start..self.end];
            if let Some(len) = frame_len(unparsed)?
                && len <= unparsed.len()
            {
                return Ok(len);
            }
            if self.bytes.len() - self.end < FRAME_BYTES_MAX / 4 {
                self.bytes.copy_within(self.start..self.end, 0);
                (self.start, self.end) = (0, self.end - self.start);
            }
            let count = stream.read(&mut self.bytes[self.end..])?;
            ensure!(count > 0, "the memory server closed the connection");
            self.end += count;
        }
    }

    fn consume(&mut self, len: usize) -> &[u8] {
        let frame = &self.bytes[self.start..self.start + len];
        self.start += len;
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
        frame
    }
}

impl PageStore for MemoryServer {
    fn send_reads(&mut self, pages: &[u32]) -> Result<()> {
        let pages: Vec<U64> = pages.iter().map(|&page| u64::from(page).into()).collect();
        self.send(&Request::Read { segment: self.segment, pages: &pages })
    }

    fn take_reads(&mut self, pages: &[u32], check: &mut dyn FnMut(u32, &[u8]) -> Result<()>) -> Result<()> {
        self.take(|answer| {
            let Answer::Pages { data, .. } = answer else {
                bail!("the memory server said {answer:?} to READ")
            };
            ensure!(data.len() == pages.len(), "the memory server lacks pages");
            pages.iter().zip(data).try_for_each(|(&page, data)| check(page, data))
        })
    }

    fn send_writes(&mut self, pages: &[u32], content: &mut dyn FnMut(u32, &mut PageData)) -> Result<()> {
        // One version for all: it grows with every batch, as the server asks.
        self.version += 1;
        let mut data = vec![[0; rackmem_types::PAGE_SIZE]; pages.len()];
        let records: Vec<WriteRecord> = pages
            .iter()
            .zip(&mut data)
            .map(|(&page, data)| {
                content(page, data);
                WriteRecord::new(page.into(), self.version, PageHash::of(data).checksum())
            })
            .collect();
        self.send(&Request::Write { segment: self.segment, records: &records, data: &data })
    }

    fn take_writes(&mut self, _: &[u32]) -> Result<()> {
        self.take(|answer| {
            let Answer::Stored(statuses) = answer else {
                bail!("the memory server said {answer:?} to WRITE")
            };
            let stored = |status: &u8| StoreStatus::from_wire(*status) == Some(StoreStatus::Ok);
            ensure!(statuses.iter().all(stored), "the memory server did not take every page");
            Ok(())
        })
    }
}
