//! What a client may say when, and what is done about it: the server's side of the protocol without sockets.
//!
//! A session is one connection's state. It takes requests one after another and adds answers to a [`Batch`]; whoever owns
//! the socket does the rest. The tests and the fuzz target feed it bytes directly.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use rackmem_segment::{Pool, PoolError, Segment};
use rackmem_wire::{
    Answer, ErrorCode, FRAME_BYTES_MAX, Nonce, OwnerToken, PAGES_PER_FRAME_MAX, PageRange, PageRecord, Proof,
    Request, SegmentInfo, Segments, Status, U64, VERSION, Welcome, WireError, WriteRecord,
};

use crate::batch::Batch;
use crate::config::Limits;
use crate::freeing::{Freeing, Job};
use crate::metrics::Metrics;
use crate::spin::Spinners;
use rackmem_types::{PageData, PageVersion};

/// What all connections of a server share.
#[derive(Debug)]
pub struct Store {
    pool: Mutex<Pool>,
    epoch: u64,
    started: Instant,
    token: Option<Vec<u8>>,
    pub(crate) limits: Limits,
    pub(crate) metrics: Metrics,
    pub(crate) spinners: Spinners,
    pub(crate) freeing: Freeing,
}

impl Store {
    /// An empty pool of `pages`. `epoch` is random, so that clients notice a restart.
    pub fn new(pages: u64, epoch: u64, token: Option<Vec<u8>>, limits: Limits) -> Self {
        let pool = Mutex::new(Pool::new(pages));
        let spinners = Spinners::new(std::thread::available_parallelism().map_or(1, usize::from));
        let (metrics, freeing) = (Metrics::default(), Freeing::default());
        Self { pool, epoch, started: Instant::now(), token, limits, metrics, spinners, freeing }
    }

    /// The pool; held for the time of a look-up or a change, never while memory is given back.
    pub(crate) fn pool(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Frees the segments whose lease is over at `now`; returns how many.
    pub fn expire(&self, now: Instant) -> usize {
        let expired = self.pool().expire(now);
        for segment in &expired {
            tracing::info!(
                segment = segment.id(),
                name = segment.name(),
                "the lease of a segment is over, it is freed"
            );
            segment.clear();
        }
        expired.len()
    }

    /// Counts as STAT reports them.
    pub(crate) fn status(&self) -> Status {
        let pool = self.pool();
        Status {
            epoch: self.epoch,
            uptime_ms: self.started.elapsed().as_millis() as u64,
            pages_total: pool.capacity(),
            pages_reserved: pool.reserved(),
            pages_filled: pool.segments().map(|segment| segment.filled()).sum(),
            segments: pool.len() as u64,
            connections: self.metrics.connections.get() as u64,
            pages_read: self.metrics.pages_read.get(),
            pages_written: self.metrics.pages_written.get(),
            pages_discarded: self.metrics.pages_discarded.get(),
            errors: self.metrics.errors_total(),
        }
    }
}

/// What the owner of the socket does next.
#[derive(Debug)]
pub enum Flow {
    /// Go on with the next request.
    Next,
    /// The request was not served: send the batch, then hand it over again.
    SendFirst,
    /// Send the batch, then the segment's layout and descriptor as the answer to this request.
    Pass(u64, Arc<Segment>),
    /// Send the batch, then close the connection.
    Close,
}

enum Stage {
    Greeting,
    Proving(Nonce),
    Serving,
}

/// One connection's side of the conversation.
pub struct Session {
    store: Arc<Store>,
    /// Whether the client is on this machine, at a Unix socket.
    local: bool,
    /// Drawn for this connection.
    nonce: Nonce,
    stage: Stage,
    open: Vec<Arc<Segment>>,
    records: Vec<PageRecord>,
    statuses: Vec<u8>,
    /// What a discard left to be freed.
    rest: Vec<Range<u64>>,
}

/// A refusal: code, number, sentence.
type Refusal = (ErrorCode, u64, String);

impl Session {
    /// The session of a new connection. `local`: it came by a Unix socket. `nonce` is random.
    pub fn new(store: Arc<Store>, local: bool, nonce: Nonce) -> Self {
        Self {
            store,
            local,
            nonce,
            stage: Stage::Greeting,
            open: Vec::new(),
            records: Vec::with_capacity(PAGES_PER_FRAME_MAX),
            statuses: Vec::with_capacity(PAGES_PER_FRAME_MAX),
            rest: Vec::new(),
        }
    }

    /// Whether the client has introduced itself, so that large frames may come.
    pub fn is_serving(&self) -> bool {
        matches!(self.stage, Stage::Serving)
    }

    /// Serves one request.
    pub fn handle(&mut self, id: u64, request: &Request<'_>, batch: &mut Batch) -> Flow {
        let result = match (&self.stage, request) {
            (Stage::Serving, Request::Hello { .. } | Request::Auth(_)) => {
                let text = "HELLO and AUTH are said once, at the beginning of a connection";
                Err((ErrorCode::Malformed, 0, text.to_owned()))
            }
            (Stage::Serving, _) => self.serve(id, request, batch),
            (Stage::Greeting, Request::Hello { version_min, version_max, nonce }) => {
                return self.greet(id, (*version_min, *version_max), nonce, batch);
            }
            (Stage::Proving(client), Request::Auth(proof)) => return self.prove(id, *client, proof, batch),
            (Stage::Greeting | Stage::Proving(_), _) => {
                let text = "a connection begins with HELLO, and AUTH where the server asks for it";
                self.refuse(id, &(ErrorCode::AuthRequired, 0, text.to_owned()), batch);
                return Flow::Close;
            }
        };
        result.unwrap_or_else(|refusal| {
            self.refuse(id, &refusal, batch);
            Flow::Next
        })
    }

    /// Tells the client that its bytes are no frame, if it is one of ours at all; the connection is to be closed.
    pub fn malformed(&self, error: &WireError, batch: &mut Batch) {
        if !matches!(error, WireError::Magic(_)) {
            self.refuse(0, &(ErrorCode::Malformed, 0, error.to_string()), batch);
        }
    }

    /// Adds an ERROR that concerns the whole connection, which is to be closed.
    pub(crate) fn dismiss(&self, code: ErrorCode, detail: u64, text: &str, batch: &mut Batch) {
        self.refuse(0, &(code, detail, text.to_owned()), batch);
    }

    fn refuse(&self, id: u64, (code, detail, text): &Refusal, batch: &mut Batch) {
        self.store.metrics.error(*code);
        batch.answer(id, &Answer::Error { code: *code, detail: *detail, text });
    }

    fn greet(&mut self, id: u64, (min, max): (u16, u16), client: &Nonce, batch: &mut Batch) -> Flow {
        if !(min..=max).contains(&VERSION) {
            let text = format!(
                "this memory server speaks version {VERSION} of the page protocol, the client versions {min} to {max}: \
                 use the same release of rackmem on both machines"
            );
            self.refuse(id, &(ErrorCode::Version, VERSION.into(), text), batch);
            return Flow::Close;
        }
        let auth_required = self.store.token.is_some();
        self.stage = if auth_required { Stage::Proving(*client) } else { Stage::Serving };
        let pool = self.store.pool();
        let welcome = Welcome {
            version: VERSION,
            auth_required,
            in_flight_max: self.store.limits.in_flight,
            frame_bytes_max: FRAME_BYTES_MAX as u32,
            pages_max: PAGES_PER_FRAME_MAX as u32,
            epoch: self.store.epoch,
            pages_total: pool.capacity(),
            pages_free: pool.free(),
            nonce: self.nonce,
        };
        batch.answer(id, &Answer::Welcome(welcome));
        Flow::Next
    }

    fn prove(&mut self, id: u64, client: Nonce, proof: &Proof, batch: &mut Batch) -> Flow {
        let token = self.store.token.as_deref().unwrap_or_default();
        if !proof.verify(token, &client, &self.nonce) {
            let text = "the token is wrong: give the client the same token file as the memory server";
            self.refuse(id, &(ErrorCode::AuthFailed, 0, text.to_owned()), batch);
            return Flow::Close;
        }
        self.stage = Stage::Serving;
        batch.answer(id, &Answer::Ok);
        Flow::Next
    }

    fn serve(&mut self, id: u64, request: &Request<'_>, batch: &mut Batch) -> Result<Flow, Refusal> {
        match *request {
            Request::Read { segment, pages } => self.read(id, segment, pages, batch),
            Request::Write { segment, records, data } => self.write(id, segment, records, data, batch),
            Request::Discard { segment, up_to, ranges } => self.discard(segment, ranges, up_to, batch),
            Request::Ping => {
                batch.answer(id, &Answer::Pong);
                Ok(Flow::Next)
            }
            Request::Stat => {
                batch.answer(id, &Answer::Status(self.store.status()));
                Ok(Flow::Next)
            }
            Request::SegmentCreate { name, pages, owner, lease_ms } => {
                self.create(id, name, pages, owner, lease_ms, batch)
            }
            Request::SegmentOpen { segment, owner, epoch } => self.reopen(id, segment, owner, epoch, batch),
            Request::SegmentDestroy { segment } => self.destroy(id, segment, batch),
            Request::SegmentList => {
                self.list(id, batch);
                Ok(Flow::Next)
            }
            Request::SegmentMap { segment } if self.local => {
                Ok(Flow::Pass(id, Arc::clone(self.segment(segment)?)))
            }
            Request::SegmentMap { .. } => {
                let text =
                    "shared memory needs a Unix socket: use unix:PATH or shm:PATH on the server's machine";
                Err((ErrorCode::NotLocal, 0, text.to_owned()))
            }
            // `handle` lets neither through.
            Request::Hello { .. } | Request::Auth(_) => Ok(Flow::Next),
        }
    }

    fn read(&mut self, id: u64, segment: u64, pages: &[U64], batch: &mut Batch) -> Result<Flow, Refusal> {
        let segment = find(&self.open, segment)?;
        self.records.clear();
        segment.read(pages, &mut self.records).map_err(|_| gone(segment.id()))?;
        batch.pages(id, segment, &self.records);
        self.store.metrics.pages_read.inc_by(pages.len() as u64);
        Ok(Flow::Next)
    }

    fn write(
        &mut self,
        id: u64,
        segment: u64,
        records: &[WriteRecord],
        data: &[PageData],
        batch: &mut Batch,
    ) -> Result<Flow, Refusal> {
        let segment = find(&self.open, segment)?;
        let pages = records.iter().map(|record| record.page.get()..record.page.get().saturating_add(1));
        if batch.holds(segment, pages) {
            return Ok(Flow::SendFirst);
        }
        self.statuses.clear();
        segment.write(records, data, &mut self.statuses).map_err(|_| gone(segment.id()))?;
        batch.answer(id, &Answer::Stored(&self.statuses));
        self.store.metrics.pages_written.inc_by(records.len() as u64);
        Ok(Flow::Next)
    }

    fn discard(
        &mut self,
        segment: u64,
        ranges: &[PageRange],
        up_to: PageVersion,
        batch: &Batch,
    ) -> Result<Flow, Refusal> {
        let segment = find(&self.open, segment)?;
        let pages =
            ranges.iter().map(|range| range.first.get()..range.first.get().saturating_add(range.count.get()));
        if batch.holds(segment, pages) {
            return Ok(Flow::SendFirst);
        }
        let discarded = segment.discard(ranges, up_to, &mut self.rest).map_err(|_| gone(segment.id()))?;
        for pages in self.rest.drain(..) {
            self.store.freeing.give(Job::Pages(Arc::clone(segment), pages));
        }
        self.store.metrics.pages_discarded.inc_by(discarded);
        Ok(Flow::Next)
    }

    fn create(
        &mut self,
        id: u64,
        name: &str,
        pages: u64,
        owner: OwnerToken,
        lease_ms: u64,
        batch: &mut Batch,
    ) -> Result<Flow, Refusal> {
        self.check_room()?;
        let open: u64 = self.open.iter().map(|segment| segment.pages()).sum();
        let left = self.store.limits.pages_per_connection.saturating_sub(open);
        if pages > left {
            let text = format!("this connection may reserve {left} more pages, {pages} were asked for");
            return Err((ErrorCode::Limit, left, text));
        }
        let segment =
            self.store.pool().create(name, pages, owner, lease_ms).map_err(|error| refusal(&error))?;
        tracing::info!(segment = segment.id(), name, pages, "a segment is created");
        self.opened(id, segment, batch);
        Ok(Flow::Next)
    }

    fn reopen(
        &mut self,
        id: u64,
        segment: u64,
        owner: OwnerToken,
        epoch: u64,
        batch: &mut Batch,
    ) -> Result<Flow, Refusal> {
        if epoch != self.store.epoch {
            let text = "the memory server was restarted since the segment was created; its pages are lost";
            return Err((ErrorCode::Epoch, self.store.epoch, text.to_owned()));
        }
        if let Ok(open) = find(&self.open, segment) {
            let open = Arc::clone(open);
            self.store.pool().open(segment, owner).map_err(|error| refusal(&error))?;
            // One leave for each connection, so one open.
            self.store.pool().leave(segment, Instant::now());
            self.say_segment(id, &open, batch);
            return Ok(Flow::Next);
        }
        self.check_room()?;
        let segment = self.store.pool().open(segment, owner).map_err(|error| refusal(&error))?;
        self.opened(id, segment, batch);
        Ok(Flow::Next)
    }

    fn check_room(&self) -> Result<(), Refusal> {
        let max = self.store.limits.segments_per_connection;
        if self.open.len() < max {
            return Ok(());
        }
        let text = format!("a connection has at most {max} segments open: make fewer and larger ones");
        Err((ErrorCode::Limit, max as u64, text))
    }

    fn opened(&mut self, id: u64, segment: Arc<Segment>, batch: &mut Batch) {
        self.say_segment(id, &segment, batch);
        self.open.push(segment);
    }

    fn say_segment(&self, id: u64, segment: &Segment, batch: &mut Batch) {
        let (pages, epoch) = (segment.pages(), self.store.epoch);
        batch.answer(id, &Answer::Segment { segment: segment.id(), pages, epoch });
    }

    fn destroy(&mut self, id: u64, segment: u64, batch: &mut Batch) -> Result<Flow, Refusal> {
        self.segment(segment)?;
        if !batch.is_empty() {
            // Pages on their way out must not vanish.
            return Ok(Flow::SendFirst);
        }
        let removed = self.store.pool().remove(segment);
        self.open.retain(|open| open.id() != segment);
        let removed = removed.map_err(|error| refusal(&error))?;
        removed.close();
        tracing::info!(segment, name = removed.name(), "a segment is destroyed by its owner");
        self.store.freeing.give(Job::Segment(removed));
        batch.answer(id, &Answer::Ok);
        Ok(Flow::Next)
    }

    fn list(&self, id: u64, batch: &mut Batch) {
        let list = self.store.pool().list(Instant::now());
        let infos = list.iter().map(|segment| SegmentInfo {
            id: segment.id,
            pages: segment.pages,
            filled: segment.filled,
            attached: segment.attached,
            lease_left_ms: segment.lease_left.map(|left| left.as_millis() as u64),
            name: &segment.name,
        });
        batch.head(|heads| Segments::encode(id, infos, heads));
    }

    fn segment(&self, id: u64) -> Result<&Arc<Segment>, Refusal> {
        find(&self.open, id)
    }
}

/// The segments of a connection that ends wait for their owner to come back.
impl Drop for Session {
    fn drop(&mut self) {
        let now = Instant::now();
        for segment in &self.open {
            self.store.pool().leave(segment.id(), now);
        }
    }
}

/// A connection has few segments open; the one used last is looked at like any other.
fn find(open: &[Arc<Segment>], id: u64) -> Result<&Arc<Segment>, Refusal> {
    open.iter().find(|segment| segment.id() == id).ok_or_else(|| {
        (
            ErrorCode::NoSegment,
            id,
            format!("segment {id} is not open on this connection: open it with its owner token"),
        )
    })
}

fn gone(id: u64) -> Refusal {
    (ErrorCode::NoSegment, id, format!("segment {id} was destroyed"))
}

fn refusal(error: &PoolError) -> Refusal {
    let (code, detail) = match error {
        PoolError::Full { free, .. } => (ErrorCode::Full, *free),
        PoolError::Empty | PoolError::TooMany => (ErrorCode::Limit, rackmem_wire::SEGMENTS_MAX as u64),
        PoolError::LeaseTooLong { .. } => (ErrorCode::Limit, rackmem_wire::LEASE_MAX_MS),
        PoolError::NoSegment(id) => (ErrorCode::NoSegment, *id),
        PoolError::NotOwner(id) => (ErrorCode::NotOwner, *id),
        PoolError::Memory(_) => (ErrorCode::Internal, 0),
    };
    (code, detail, error.to_string())
}
