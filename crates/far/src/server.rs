//! One memory server as all ports of a far memory share it: its health, its segments, and the control connection.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rackmem_types::{PageHash, PageVersion, ServerAddress, Slot};
use rackmem_uapi::shared::SharedMemory;
use rackmem_wire::{Answer, ErrorCode, OwnerToken, PageRange, Request, SegmentInfo, Welcome};

use crate::dial::{self, Dialer};
use crate::error::FarError;
use crate::event::ServerState;
use crate::in_place::InPlace;
use crate::resume::ExtentRecord;
use crate::rmc::NetPort;
use crate::segments::SegmentView;
use crate::session::Session;

/// Time for one control request. A server that needs longer is as good as gone.
pub(crate) const CONTROL_TIMEOUT: Duration = Duration::from_secs(5);

/// A server.
pub(crate) struct Server {
    pub(crate) dialer: Dialer,
    /// Drawn by the server at its start; another one means that it has forgotten everything.
    pub(crate) epoch: u64,
    /// Requests that one connection may have unanswered.
    pub(crate) in_flight_max: usize,
    pub(crate) reserved: AtomicU64,
    pub(crate) used: AtomicU64,
    lost: AtomicBool,
    /// Nothing of ours is there any more, and nobody names it.
    left: AtomicBool,
    health: Mutex<Health>,
    control: Mutex<Option<Session>>,
}

#[derive(Default)]
struct Health {
    /// Ports that have lost their connection at this time.
    reconnecting: usize,
    reason: String,
}

/// Pages of a segment.
pub(crate) struct Part {
    pub(crate) segment: u64,
    pub(crate) owner: OwnerToken,
    pub(crate) first: u64,
    pub(crate) pages: u64,
}

/// A range of slots and the segment behind it.
pub(crate) struct Extent {
    pub(crate) server: usize,
    pub(crate) segment: u64,
    pub(crate) owner: OwnerToken,
    pub(crate) start: u32,
    pub(crate) pages: u32,
    /// The page of the segment that the first slot is.
    pub(crate) first: u64,
    /// Whether somebody else made the segment.
    pub(crate) given: bool,
    pub(crate) memory: Option<InPlace>,
    /// Whether it was shed: nothing lies on it any more, and nothing is asked of it.
    gone: AtomicBool,
    /// One bit per page that was stored and not discarded.
    stored: Box<[AtomicU64]>,
}

impl Extent {
    fn new(
        server: usize,
        segment: u64,
        owner: OwnerToken,
        (start, pages): (u32, u32),
        memory: Option<InPlace>,
    ) -> Self {
        let stored = (0..pages.div_ceil(u64::BITS)).map(|_| AtomicU64::new(0)).collect();
        let gone = AtomicBool::new(false);
        Self { server, segment, owner, start, pages, first: 0, given: false, memory, gone, stored }
    }

    fn of_record(server: usize, record: &ExtentRecord, memory: Option<InPlace>) -> Self {
        let slots = (record.start, record.pages);
        let extent = Self::new(server, record.segment, OwnerToken(record.owner), slots, memory);
        Self { first: record.first, given: record.given, gone: AtomicBool::new(record.gone), ..extent }
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    pub(crate) fn shed(&self) {
        self.gone.store(true, Ordering::Release);
    }

    /// What a lost server had, or what was shed.
    pub(crate) fn lost(server: usize, record: &ExtentRecord) -> Self {
        Self::of_record(server, record, None)
    }

    pub(crate) fn page(&self, slot: Slot) -> u64 {
        self.first + u64::from(slot.0 - self.start)
    }

    /// Its entry in the RMC table.
    pub(crate) fn entry(&self) -> NetPort {
        let Self { server, segment, start, pages, first, .. } = *self;
        let offset = first as i64 - i64::from(start);
        NetPort { server, segment, start, end: start.saturating_add(pages), offset }
    }

    /// Its pages of the segment.
    pub(crate) fn part(&self) -> Part {
        let Self { segment, owner, first, pages, .. } = *self;
        Part { segment, owner, first, pages: pages.into() }
    }

    /// Notes that the page has content; whether it had none before.
    pub(crate) fn note_stored(&self, slot: Slot) -> bool {
        let (word, bit) = self.bit(slot);
        word.fetch_or(bit, Ordering::Relaxed) & bit == 0
    }

    /// Notes that the page has no content; whether it had some before.
    pub(crate) fn note_discarded(&self, slot: Slot) -> bool {
        let (word, bit) = self.bit(slot);
        word.fetch_and(!bit, Ordering::Relaxed) & bit != 0
    }

    fn bit(&self, slot: Slot) -> (&AtomicU64, u64) {
        let page = slot.0 - self.start;
        (&self.stored[(page / u64::BITS) as usize], 1 << (page % u64::BITS))
    }
}

impl Server {
    pub(crate) fn connect(dialer: Dialer) -> Result<Self, FarError> {
        let (session, welcome) = dialer.dial(CONTROL_TIMEOUT)?;
        let Welcome { epoch, in_flight_max, .. } = welcome;
        Ok(Self {
            dialer,
            epoch,
            in_flight_max: in_flight_max.max(1) as usize,
            reserved: AtomicU64::new(0),
            used: AtomicU64::new(0),
            lost: AtomicBool::new(false),
            left: AtomicBool::new(false),
            health: Mutex::default(),
            control: Mutex::new(Some(session)),
        })
    }

    /// A server that is gone, for the pages that were there.
    pub(crate) fn lost(dialer: Dialer, epoch: u64, reason: &str) -> Self {
        Self {
            dialer,
            epoch,
            in_flight_max: 1,
            reserved: AtomicU64::new(0),
            used: AtomicU64::new(0),
            lost: AtomicBool::new(true),
            left: AtomicBool::new(false),
            health: Mutex::new(Health { reconnecting: 0, reason: reason.to_owned() }),
            control: Mutex::new(None),
        }
    }

    /// Lets go of a server on which nothing of ours is left; ports close their connections.
    pub(crate) fn leave(&self) {
        self.left.store(true, Ordering::Release);
        *self.control() = None;
    }

    pub(crate) fn has_left(&self) -> bool {
        self.left.load(Ordering::Acquire)
    }

    /// Whether something can be asked of it.
    pub(crate) fn serves(&self) -> bool {
        !self.is_lost() && !self.has_left()
    }

    pub(crate) fn address(&self) -> ServerAddress {
        self.dialer.address.clone()
    }

    /// Reserves a segment for slots from `start` on, and maps it where the transport is shared memory.
    pub(crate) fn segment_create(
        &self,
        index: usize,
        name: &str,
        (start, pages): (u32, u32),
        lease: Duration,
    ) -> Result<Extent, FarError> {
        let owner = OwnerToken(dial::random());
        let segment = self.segment_make(name, pages.into(), owner, lease)?;
        let mut control = self.control();
        let memory = match self.dialer.address {
            ServerAddress::Shm(_) => Some(self.segment_map(&mut control, segment)?),
            _ => None,
        };
        self.reserved.fetch_add(pages.into(), Ordering::Relaxed);
        Ok(Extent::new(index, segment, owner, (start, pages), memory))
    }

    /// Makes a segment; its id.
    pub(crate) fn segment_make(
        &self,
        name: &str,
        pages: u64,
        owner: OwnerToken,
        lease: Duration,
    ) -> Result<u64, FarError> {
        let lease_ms = lease.as_millis() as u64;
        let request = Request::SegmentCreate { name, pages, owner, lease_ms };
        self.call(&mut self.control(), &request, |answer| match answer {
            Answer::Segment { segment, .. } => Ok(segment),
            other => Err(self.dialer.unexpected(&other)),
        })
    }

    /// Gives an extent back: its segment is freed, or, where somebody else made that, its part is emptied.
    pub(crate) fn free(&self, extent: &Extent) -> Result<(), FarError> {
        if extent.given { self.segment_empty(&extent.part()) } else { self.segment_destroy(extent) }
    }

    /// What was reserved for an extent, and used of it, is so no more.
    pub(crate) fn note_freed(&self, extent: &Extent) {
        self.reserved.fetch_sub(extent.pages.into(), Ordering::Relaxed);
        let stored = extent.stored.iter().map(|word| word.swap(0, Ordering::Relaxed).count_ones() as usize);
        self.note_used(0, stored.sum());
    }

    /// All segments, whoever made them.
    pub(crate) fn segment_list(&self) -> Result<Vec<SegmentView>, FarError> {
        self.call(&mut self.control(), &Request::SegmentList, |answer| match answer {
            Answer::Segments(list) => Ok(list.iter().map(view).collect()),
            other => Err(self.dialer.unexpected(&other)),
        })
    }

    /// Pages of the pool.
    pub(crate) fn pages_total(&self) -> Result<u64, FarError> {
        self.call(&mut self.control(), &Request::Stat, |answer| match answer {
            Answer::Status(status) => Ok(status.pages_total),
            other => Err(self.dialer.unexpected(&other)),
        })
    }

    /// Opens a segment on the control connection; how many pages it has.
    pub(crate) fn segment_open(&self, segment: u64, owner: OwnerToken) -> Result<u64, FarError> {
        self.open(&mut self.control(), segment, owner)
    }

    fn open(&self, control: &mut Option<Session>, segment: u64, owner: OwnerToken) -> Result<u64, FarError> {
        let open = Request::SegmentOpen { segment, owner, epoch: self.epoch };
        self.call(control, &open, |answer| match answer {
            Answer::Segment { pages, .. } => Ok(pages),
            Answer::Error { code: ErrorCode::NoSegment, .. } => {
                Err(FarError::NoSegment { address: self.address(), segment })
            }
            other => Err(self.dialer.unexpected(&other)),
        })
    }

    /// Opens a segment that another client of the same owner has reserved, and holds its lease from now on.
    pub(crate) fn segment_resume(&self, index: usize, record: &ExtentRecord) -> Result<Extent, FarError> {
        let ExtentRecord { segment, epoch, pages, .. } = *record;
        let owner = OwnerToken(record.owner);
        let mut control = self.control();
        self.call(&mut control, &Request::SegmentOpen { segment, owner, epoch }, |answer| match answer {
            Answer::Segment { .. } => Ok(()),
            other => Err(self.dialer.unexpected(&other)),
        })?;
        let memory = match self.dialer.address {
            ServerAddress::Shm(_) => Some(self.segment_map(&mut control, segment)?),
            _ => None,
        };
        self.reserved.fetch_add(pages.into(), Ordering::Relaxed);
        Ok(Extent::of_record(index, record, memory))
    }

    /// Forgets all pages of a part, and sees that it is there.
    pub(crate) fn segment_empty(&self, part: &Part) -> Result<(), FarError> {
        let Part { segment, owner, first, pages } = *part;
        let mut control = self.control();
        let size = self.open(&mut control, segment, owner)?;
        let end = first.saturating_add(pages);
        if end > size {
            return Err(FarError::SegmentTooSmall { address: self.address(), segment, pages: size, end });
        }
        // On this very connection, which has the segment open; nothing answers a discard, so a ping behind it does.
        let Some(session) = control.as_mut() else { return Ok(()) };
        let ranges = [PageRange::new(first, pages)];
        let deadline = Instant::now() + CONTROL_TIMEOUT;
        let done = session
            .tell(&Request::Discard { segment, up_to: PageVersion::MAX, ranges: &ranges }, deadline)
            .and_then(|()| session.call(&Request::Ping, deadline, |_| ()));
        done.map_err(|error| {
            *control = None;
            self.dialer.explain(error, CONTROL_TIMEOUT)
        })
    }

    fn segment_map(&self, control: &mut Option<Session>, segment: u64) -> Result<InPlace, FarError> {
        let layout = self.call(control, &Request::SegmentMap { segment }, |answer| match answer {
            Answer::Mapped(layout) => Ok(layout),
            other => Err(self.dialer.unexpected(&other)),
        })?;
        let wrong = |reason: &str| FarError::NotAServer { address: self.address(), reason: reason.into() };
        let fd = control.as_mut().and_then(Session::take_fd);
        let fd = fd.ok_or_else(|| wrong("it sent no descriptor of the segment's memory"))?;
        let len = usize::try_from(layout.len).map_err(|_| wrong("the segment is larger than memory"))?;
        let memory =
            SharedMemory::map(fd, len).map_err(|reason| FarError::Io { address: self.address(), reason })?;
        InPlace::new(memory, layout).ok_or_else(|| wrong("the segment's layout does not fit its memory"))
    }

    /// Frees a segment.
    pub(crate) fn segment_destroy(&self, extent: &Extent) -> Result<(), FarError> {
        self.segment_end(extent.segment, extent.owner)
    }

    /// Frees a segment by its id.
    pub(crate) fn segment_end(&self, segment: u64, owner: OwnerToken) -> Result<(), FarError> {
        let mut control = self.control();
        // The control connection may be another one than the one that created the segment.
        self.open(&mut control, segment, owner)?;
        self.call(&mut control, &Request::SegmentDestroy { segment }, |answer| match answer {
            Answer::Ok => Ok(()),
            other => Err(self.dialer.unexpected(&other)),
        })
    }

    /// One request on the control connection. An idle connection may have ended unnoticed, so it is dialled once more;
    /// a segment that was created twice by that is freed after its lease.
    fn call<T>(
        &self,
        control: &mut Option<Session>,
        request: &Request<'_>,
        mut take: impl FnMut(Answer<'_>) -> Result<T, FarError>,
    ) -> Result<T, FarError> {
        if let Some(session) = control {
            let deadline = Instant::now() + CONTROL_TIMEOUT;
            match session.call(request, deadline, |answer| {
                let closing = matches!(answer, Answer::Error { code: ErrorCode::Draining, .. });
                (!closing).then(|| take(answer))
            }) {
                Ok(Some(result)) => return result,
                Ok(None) | Err(_) => *control = None,
            }
        }
        let (session, welcome) = self.dialer.dial(CONTROL_TIMEOUT)?;
        if welcome.epoch != self.epoch {
            return Err(FarError::Restarted { address: self.address() });
        }
        let result = control
            .insert(session)
            .call(request, Instant::now() + CONTROL_TIMEOUT, take)
            .map_err(|error| self.dialer.explain(error, CONTROL_TIMEOUT));
        if result.is_err() {
            *control = None;
        }
        result?
    }

    pub(crate) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }

    /// Notes that the server is gone for good; whether it was not before.
    pub(crate) fn lose(&self, reason: &str) -> bool {
        let mut health = self.health();
        let first = !self.lost.swap(true, Ordering::AcqRel);
        if first {
            reason.clone_into(&mut health.reason);
        }
        first
    }

    pub(crate) fn note_broken(&self, reason: &str) {
        let mut health = self.health();
        health.reconnecting += 1;
        if !self.is_lost() {
            reason.clone_into(&mut health.reason);
        }
    }

    pub(crate) fn note_mended(&self) {
        let mut health = self.health();
        health.reconnecting = health.reconnecting.saturating_sub(1);
    }

    pub(crate) fn state(&self) -> ServerState {
        let health = self.health();
        match (self.is_lost(), health.reconnecting) {
            (true, _) => ServerState::Lost(health.reason.clone()),
            (false, 0) => ServerState::Up,
            (false, _) => ServerState::Reconnecting(health.reason.clone()),
        }
    }

    /// Why it is not up.
    pub(crate) fn reason(&self) -> String {
        self.health().reason.clone()
    }

    /// Counts pages that got content and pages that lost it.
    pub(crate) fn note_used(&self, stored: usize, discarded: usize) {
        if stored != discarded {
            self.used.fetch_add((stored as u64).wrapping_sub(discarded as u64), Ordering::Relaxed);
        }
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn control(&self) -> MutexGuard<'_, Option<Session>> {
        self.control.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn view(info: SegmentInfo<'_>) -> SegmentView {
    SegmentView {
        id: info.id,
        name: info.name.to_owned(),
        pages: info.pages,
        filled: info.filled,
        attached: info.attached,
        lease_left: info.lease_left_ms.map(Duration::from_millis),
    }
}

/// Whether a page is what its checksum says.
pub(crate) fn fits(data: &rackmem_types::PageData, checksum: u64) -> bool {
    PageHash::of(data).checksum() == checksum
}
