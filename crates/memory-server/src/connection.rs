//! The loop of one connection's thread: receive, serve all that arrived, send all answers at once.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use rackmem_segment::Segment;
use rackmem_wire::{Answer, ErrorCode, GREETING_BYTES_MAX, Request, WireError, frame_len};

use crate::batch::Batch;
use crate::session::{Flow, Session, Store};
use crate::stream::Stream;

/// Receive buffer of a connection; it grows to the largest frame where one comes. Large enough for one system call to
/// fetch 60 pages, small enough to stay in a core's cache between the kernel's copy and ours.
const RECEIVE_BYTES: usize = 256 << 10;

/// How a connection ended; told to the log only.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Ended {
    #[error("the client closed the connection")]
    Closed,
    #[error("the client was refused")]
    Refused,
    #[error("the client did not introduce itself in time")]
    Silent,
    #[error("the server is shutting down")]
    Draining,
    #[error(transparent)]
    Malformed(#[from] WireError),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// One connection, served until it ends.
pub(crate) struct Connection {
    store: Arc<Store>,
    stream: Stream,
    session: Session,
    inbox: Inbox,
    batch: Batch,
    /// Requests answered by the batch.
    answered: u64,
}

impl Connection {
    pub(crate) fn new(store: Arc<Store>, stream: Stream, session: Session) -> Self {
        Self { store, stream, session, inbox: Inbox::new(), batch: Batch::default(), answered: 0 }
    }

    /// Serves the connection until it ends. `draining`: the end of the stream is our own doing.
    pub(crate) fn run(mut self, draining: &AtomicBool) -> Ended {
        let ended = self.serve(draining).err().unwrap_or(Ended::Closed);
        match &ended {
            Ended::Malformed(error) => self.session.malformed(error, &mut self.batch),
            Ended::Draining => {
                let text = "the memory server is shutting down; its pages go with it";
                self.session.dismiss(ErrorCode::Draining, 0, text, &mut self.batch);
            }
            _ => {}
        }
        // The last words to a client that may be gone.
        let _ = self.flush();
        self.stream.close();
        if matches!(ended, Ended::Malformed(_) | Ended::Refused) {
            self.stream.linger();
        }
        ended
    }

    fn serve(&mut self, draining: &AtomicBool) -> Result<(), Ended> {
        self.stream.set_send_timeout(self.store.limits.send)?;
        let deadline = Instant::now() + self.store.limits.greeting;
        while !self.session.is_serving() {
            if deadline <= Instant::now() {
                return Err(Ended::Silent);
            }
            self.stream.set_receive_deadline(Some(deadline))?;
            self.step(draining)?;
        }
        self.stream.set_receive_deadline(None)?;
        loop {
            self.step(draining)?;
        }
    }

    /// One wake-up: what arrived is served and answered.
    fn step(&mut self, draining: &AtomicBool) -> Result<(), Ended> {
        let received = match self.stream.receive(self.inbox.room(), &self.store.spinners) {
            Ok(0) if draining.load(Ordering::Relaxed) => return Err(Ended::Draining),
            Ok(0) => return Err(Ended::Closed),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(Ended::Silent),
            result => result?,
        };
        let arrived = Instant::now();
        self.inbox.filled(received);
        self.store.metrics.bytes_received.inc_by(received as u64);
        while self.serve_next()? {
            if self.batch.is_full() {
                self.flush()?;
            }
        }
        self.flush()?;
        self.store.metrics.latency.observe(arrived.elapsed(), std::mem::take(&mut self.answered));
        Ok(())
    }

    /// Serves the next request that is completely there; says whether there was one.
    fn serve_next(&mut self) -> Result<bool, Ended> {
        let bytes = self.inbox.bytes();
        if !self.session.is_serving()
            && let Some(len) = frame_len(bytes)?
            && len > GREETING_BYTES_MAX
        {
            // Says the same as the parser, of a limit that it does not know.
            let len = len as u32;
            return Err(WireError::TooLong { op: bytes[4], len, max: GREETING_BYTES_MAX }.into());
        }
        let Some((id, request, len)) = Request::parse(bytes)? else {
            let wanted = frame_len(bytes)?.unwrap_or(0);
            self.inbox.make_room(wanted);
            return Ok(false);
        };
        match self.session.handle(id, &request, &mut self.batch) {
            Flow::Next => {}
            Flow::SendFirst => {
                self.flush()?;
                return Ok(true);
            }
            Flow::Pass(id, segment) => {
                self.flush()?;
                self.pass(id, &segment)?;
            }
            Flow::Close => return Err(Ended::Refused),
        }
        self.answered += 1;
        self.inbox.taken(len);
        Ok(true)
    }

    fn pass(&mut self, id: u64, segment: &Segment) -> io::Result<()> {
        let (layout, descriptor) = segment.map();
        let mut frame = Vec::new();
        Answer::Mapped(layout).encode(id, &mut frame);
        self.stream.send_with_descriptor(&frame, descriptor)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let result = self.stream.send(&self.batch);
        self.store.metrics.bytes_sent.inc_by(self.batch.len() as u64);
        self.batch.clear();
        result
    }
}

/// Received bytes that were not served yet.
struct Inbox {
    buffer: Vec<u8>,
    used: Range<usize>,
}

impl Inbox {
    fn new() -> Self {
        // Zeroed memory of this size comes untouched from the kernel: an idle connection costs what it used.
        Self { buffer: vec![0; RECEIVE_BYTES], used: 0..0 }
    }

    fn bytes(&self) -> &[u8] {
        &self.buffer[self.used.clone()]
    }

    /// Where to receive; never empty, since `make_room` ran after the last complete frame.
    fn room(&mut self) -> &mut [u8] {
        &mut self.buffer[self.used.end..]
    }

    fn filled(&mut self, count: usize) {
        self.used.end += count;
    }

    fn taken(&mut self, count: usize) {
        self.used.start += count;
    }

    /// Moves what is left to the front, and makes the buffer large enough for a frame of `wanted` bytes.
    fn make_room(&mut self, wanted: usize) {
        self.buffer.copy_within(self.used.clone(), 0);
        self.used = 0..self.used.len();
        if wanted > self.buffer.len() {
            self.buffer.resize(wanted, 0);
        }
    }
}
