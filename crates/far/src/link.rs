//! A port's connection to one server: sends frames, takes answers apart, and comes back after a cut.
//!
//! States: up, reconnecting, lost. Requests are issued in every state but lost; while reconnecting they wait, and once the
//! connection is back everything unanswered is sent again in order of issue. Reads may be repeated; a repeated write
//! carries a version and checksum that the server has already, which it accepts.

use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rackmem_types::{PageData, PageVersion, Slot};
use rackmem_wire::{FRAME_BYTES_MAX, PAGES_PER_FRAME_MAX, PageRange, Request, U64, WriteRecord, write_head};

use crate::answers::Trouble;
use crate::error::FarError;
use crate::event::{Event, PageError, ReadRequest, WriteRequest};
use crate::flights::{Flights, Kind};
use crate::memory::{Bell, Shared, Table};
use crate::reconnect::Reconnect;
use crate::server::Server;
use crate::stream::Stream;

/// Pages that are asked for by one frame. An answer is taken apart when all of it is there, so that a server that prepares the
/// second half of a window and a pager that installs the first work at the same time.
const READ_PAGES: usize = 32;

/// Frames that one system call sends at most.
const FRAMES_AT_ONCE: usize = 16;

/// Time for the first connection of a port.
const DIAL_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection to one server.
pub(crate) struct Link {
    pub(crate) shared: Arc<Shared>,
    /// Its place in the table.
    server: usize,
    host: Arc<Server>,
    bell: Arc<Bell>,
    state: State,
    pub(crate) flights: Flights,
    /// Bytes of the first unsent frame that the socket has taken.
    head_sent: usize,
    /// By position in the table: whether this connection has the extent's segment open.
    opened: Vec<bool>,
    /// Received and not yet taken apart: `buffer[..filled]`.
    pub(crate) buffer: Box<[u8]>,
    pub(crate) filled: usize,
    /// When to look whether a request waits for too long.
    check_at: Option<Instant>,
    /// Since when the socket takes nothing.
    blocked_since: Option<Instant>,
    /// When trouble began, until there is an answer again.
    pub(crate) broken_since: Option<Instant>,
    pages: Vec<U64>,
    records: Vec<WriteRecord>,
    /// Requests to mapped memory that are done and wait to be reported; reads are done when they are.
    done: Vec<Done>,
    /// Requests that came after the server was lost.
    late: Vec<(u32, Slot, bool)>,
    page: Box<PageData>,
    fds_changed: bool,
    lost_reported: bool,
    absence: Absence,
}

/// Whether the user of [`Link::fd`] can have seen that the old socket is gone. Only then may a new one take its place: it
/// may have the same number, and whoever polls it could not tell.
#[derive(Clone, Copy, PartialEq)]
enum Absence {
    Unseen,
    /// Since the last `advance`; the next one is due at once.
    Shown,
    Seen,
}

enum State {
    Up(Stream),
    Reconnecting(Reconnect),
    Lost,
}

enum Done {
    Read { tag: u32, slot: Slot, extent: usize },
    Write { tag: u32, slot: Slot, result: Result<(), PageError> },
}

impl Link {
    /// Dials the server, which `table` has at the place `server`, and waits for the connection.
    pub(crate) fn new(
        shared: Arc<Shared>,
        table: &Table,
        server: usize,
        bell: Arc<Bell>,
    ) -> Result<Self, FarError> {
        let host = table.servers[server].clone();
        let state = if !host.serves() {
            State::Lost
        } else {
            let (session, welcome) = host.dialer.dial(DIAL_TIMEOUT)?;
            if welcome.epoch != host.epoch {
                let error = FarError::Restarted { address: host.address() };
                shared.lose(&host, &error.to_string());
                return Err(error);
            }
            State::Up(session.into_stream().map_err(|error| host.dialer.explain(error, DIAL_TIMEOUT))?)
        };
        Ok(Self::in_state(state, shared, (server, host), bell))
    }

    /// Dials the server without waiting for it: what is asked until it answers waits, as it does after a cut.
    pub(crate) fn joining(shared: Arc<Shared>, table: &Table, server: usize, bell: Arc<Bell>) -> Self {
        let host = table.servers[server].clone();
        if !host.serves() {
            return Self::in_state(State::Lost, shared, (server, host), bell);
        }
        let (now, why) = (Instant::now(), "it is being dialled");
        host.note_broken(why);
        let attempts = Reconnect::start(&shared, &host, &bell, now + shared.config.lost_after, why);
        let state = State::Reconnecting(attempts);
        let mut link = Self::in_state(state, shared, (server, host), bell);
        link.broken_since = Some(now);
        // There was no socket whose end anybody could have missed.
        link.absence = Absence::Seen;
        link
    }

    fn in_state(
        state: State,
        shared: Arc<Shared>,
        (server, host): (usize, Arc<Server>),
        bell: Arc<Bell>,
    ) -> Self {
        Self {
            server,
            host,
            bell,
            state,
            flights: Flights::new(),
            head_sent: 0,
            opened: Vec::new(),
            buffer: vec![0; FRAME_BYTES_MAX].into_boxed_slice(),
            filled: 0,
            check_at: None,
            blocked_since: None,
            broken_since: None,
            pages: Vec::with_capacity(PAGES_PER_FRAME_MAX),
            records: Vec::with_capacity(PAGES_PER_FRAME_MAX),
            done: Vec::new(),
            late: Vec::new(),
            page: Box::new([0; rackmem_types::PAGE_SIZE]),
            fds_changed: false,
            lost_reported: false,
            absence: Absence::Unseen,
            shared,
        }
    }

    pub(crate) fn host(&self) -> &Server {
        &self.host
    }

    /// Prepares frames, as do the next two; [`Link::pump`] sends them.
    pub(crate) fn read(&mut self, table: &Table, extent: usize, requests: &[ReadRequest]) {
        if matches!(self.state, State::Lost) {
            return self.late.extend(requests.iter().map(|request| (request.tag, request.slot, false)));
        }
        self.open(table, extent);
        if table.extents[extent].memory.is_some() {
            let done = |request: &ReadRequest| Done::Read { tag: request.tag, slot: request.slot, extent };
            self.done.extend(requests.iter().map(done));
        } else {
            for batch in requests.chunks(READ_PAGES) {
                let pages = batch.iter().map(|request| (request.tag, request.slot));
                self.issue_read(table, extent, pages, false);
            }
        }
    }

    pub(crate) fn write(&mut self, table: &Table, extent: usize, requests: &[WriteRequest<'_>]) {
        if matches!(self.state, State::Lost) {
            return self.late.extend(requests.iter().map(|request| (request.tag, request.slot, true)));
        }
        self.open(table, extent);
        let place = &table.extents[extent];
        if let Some(memory) = &place.memory {
            self.done.extend(requests.iter().map(|request| {
                let WriteRequest { tag, slot, version, checksum, data } = *request;
                Done::Write { tag, slot, result: memory.write(place.page(slot), version, checksum, data) }
            }));
        } else {
            for batch in requests.chunks(PAGES_PER_FRAME_MAX) {
                self.issue_write(table, extent, batch.iter().copied(), false);
            }
        }
    }

    pub(crate) fn discard(&mut self, table: &Table, extent: usize, slots: &[Slot], up_to: PageVersion) {
        let place = &table.extents[extent];
        let dropped = slots.iter().filter(|slot| place.note_discarded(**slot)).count();
        self.host().note_used(0, dropped);
        if matches!(self.state, State::Lost) {
            return;
        }
        for batch in slots
            .chunk_by(|a, b| a.0.checked_add(1) == Some(b.0))
            .collect::<Vec<_>>()
            .chunks(PAGES_PER_FRAME_MAX)
        {
            let ranges = batch.iter().map(|run| (place.page(run[0]), run.len() as u64));
            if let Some(memory) = &place.memory {
                ranges.for_each(|(first, count)| memory.discard(first, count, up_to));
                continue;
            }
            let ranges: Vec<_> = ranges.map(|(first, count)| PageRange::new(first, count)).collect();
            self.open(table, extent);
            let (index, id) = self.flights.issue(Kind::Discard, extent, 0);
            let frame = &mut self.flights.get_mut(index).frame;
            Request::Discard { segment: place.segment, up_to, ranges: &ranges }.encode(id, frame);
        }
    }

    /// Asks for pages of one extent, at most [`PAGES_PER_FRAME_MAX`]. `again`: they came damaged before.
    pub(crate) fn issue_read(
        &mut self,
        table: &Table,
        extent: usize,
        pages: impl ExactSizeIterator<Item = (u32, Slot)>,
        again: bool,
    ) {
        let place = &table.extents[extent];
        let (index, id) = self.flights.issue(Kind::Read, extent, pages.len());
        let flight = self.flights.get_mut(index);
        flight.again = again;
        flight.pages.extend(pages);
        self.pages.clear();
        self.pages.extend(flight.pages.iter().map(|(_, slot)| U64::new(place.page(*slot))));
        Request::Read { segment: place.segment, pages: &self.pages }.encode(id, &mut flight.frame);
    }

    /// Stores pages of one extent, at most 256. `again`: they arrived damaged before.
    pub(crate) fn issue_write<'a>(
        &mut self,
        table: &Table,
        extent: usize,
        requests: impl ExactSizeIterator<Item = WriteRequest<'a>> + Clone,
        again: bool,
    ) {
        let place = &table.extents[extent];
        let (index, id) = self.flights.issue(Kind::Write, extent, requests.len());
        let flight = self.flights.get_mut(index);
        flight.again = again;
        flight.pages.extend(requests.clone().map(|request| (request.tag, request.slot)));
        self.records.clear();
        self.records.extend(
            requests.clone().map(|page| WriteRecord::new(place.page(page.slot), page.version, page.checksum)),
        );
        write_head(id, place.segment, &self.records, &mut flight.frame);
        for request in requests {
            flight.frame.extend_from_slice(request.data);
        }
    }

    pub(crate) fn fd(&self) -> Option<(BorrowedFd<'_>, bool)> {
        let State::Up(stream) = &self.state else { return None };
        let full = self.head_sent == 0 && self.flights.at_server >= self.host().in_flight_max;
        Some((stream.as_fd(), stream.wants_write() || !(self.flights.unsent.is_empty() || full)))
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.flights.open_pages + self.done.len() + self.late.len()
    }

    /// Whether something is asked of an extent that was shed, or was not answered yet.
    pub(crate) fn needs_gone(&self, table: &Table) -> bool {
        let is_gone = |extent: usize| table.extents[extent].is_gone();
        let in_place = |done: &Done| match done {
            Done::Read { extent, .. } => is_gone(*extent),
            Done::Write { slot, .. } => table.rmc.entry(*slot).is_some_and(is_gone),
        };
        self.done.iter().any(in_place)
            || self.flights.all().into_iter().any(|flight| is_gone(self.flights.get(flight).extent))
    }

    /// When to advance; `used_at`, which is over, where something can be reported now.
    pub(crate) fn deadline(&self, used_at: Instant) -> Option<Instant> {
        if !self.done.is_empty() || !self.late.is_empty() {
            return Some(used_at);
        }
        match &self.state {
            State::Up(_) => self.check_at,
            State::Reconnecting(_) if self.absence == Absence::Shown => Some(used_at),
            State::Reconnecting(attempts) => Some(attempts.give_up_at()),
            State::Lost => None,
        }
    }

    /// Whether the descriptors have changed since the last call.
    pub(crate) fn advance(&mut self, table: &Table, now: Instant, sink: &mut dyn FnMut(Event<'_>)) -> bool {
        if self.host().has_left() && !matches!(self.state, State::Lost) {
            self.leave();
        }
        if self.host().is_lost() && !self.lost_reported {
            self.go_down(table, sink);
        }
        self.report_done(table, sink);
        if let State::Reconnecting(attempts) = &self.state
            && self.absence != Absence::Unseen
            && let Some(result) = attempts.poll(now)
        {
            match result {
                Ok(stream) => self.come_back(table, stream, now),
                Err(reason) => self.shared.lose(&self.host, &reason),
            }
        }
        if matches!(self.state, State::Up(_)) {
            if let Err(trouble) = self.receive(table, sink) {
                self.suffer(trouble, now);
            }
            self.check_stalled(now);
            self.pump(now);
        }
        if self.host().is_lost() && !self.lost_reported {
            self.go_down(table, sink);
        }
        self.absence = match self.absence {
            Absence::Unseen => Absence::Shown,
            Absence::Shown | Absence::Seen => Absence::Seen,
        };
        std::mem::take(&mut self.fds_changed)
    }

    /// Opens the extent's segment on this connection, ahead of the first request to it.
    fn open(&mut self, table: &Table, extent: usize) {
        if self.opened.get(extent).copied().unwrap_or(false) {
            return;
        }
        self.opened.resize(self.opened.len().max(extent + 1), false);
        self.opened[extent] = true;
        let place = &table.extents[extent];
        let epoch = self.host().epoch;
        let (index, id) = self.flights.issue(Kind::Open, extent, 0);
        let frame = &mut self.flights.get_mut(index).frame;
        Request::SegmentOpen { segment: place.segment, owner: place.owner, epoch }.encode(id, frame);
    }

    /// Sends what waits, as far as the socket takes it.
    pub(crate) fn pump(&mut self, now: Instant) {
        let State::Up(stream) = &mut self.state else { return };
        let in_flight_max = self.host.in_flight_max;
        let mut result = stream.flush();
        while result.is_ok() {
            // A frame whose head has gone has its place already.
            let room = in_flight_max.saturating_sub(self.flights.at_server).max((self.head_sent > 0).into());
            let mut frames = [IoSlice::new(&[]); FRAMES_AT_ONCE];
            let mut count = 0;
            for (&index, frame) in self.flights.unsent.iter().take(room).zip(&mut frames) {
                let head = if count == 0 { self.head_sent } else { 0 };
                *frame = IoSlice::new(&self.flights.get(index).frame[head..]);
                count += 1;
            }
            if count == 0 {
                break;
            }
            match stream.send(&frames[..count]) {
                Ok(0) => {
                    self.blocked_since.get_or_insert(now);
                    self.check_at.get_or_insert(now + self.shared.config.lost_after);
                    break;
                }
                Ok(sent) => {
                    self.blocked_since = None;
                    self.head_sent += sent;
                }
                Err(error) => result = Err(error),
            }
            while let Some(&index) = self.flights.unsent.front()
                && let Some(more) = self.head_sent.checked_sub(self.flights.get(index).frame.len())
            {
                self.head_sent = more;
                self.flights.unsent.pop_front();
                if self.flights.get(index).kind == Kind::Discard {
                    self.flights.finish(index);
                } else {
                    self.flights.note_sent(index, now);
                    self.check_at.get_or_insert(now + self.shared.config.lost_after);
                }
            }
        }
        if let Err(error) = result {
            self.suffer(Trouble::Broken(error.to_string()), now);
        }
    }

    fn receive(&mut self, table: &Table, sink: &mut dyn FnMut(Event<'_>)) -> Result<(), Trouble> {
        loop {
            let State::Up(stream) = &mut self.state else { return Ok(()) };
            let room = &mut self.buffer[self.filled..];
            let asked = room.len();
            let received = stream.recv(room).map_err(|error| Trouble::Broken(error.to_string()))?;
            let received = match received {
                None => return Ok(()),
                Some(0) => return Err(Trouble::Broken("it closed the connection".into())),
                Some(received) => received,
            };
            let done = received < asked && stream.short_means_empty();
            self.filled += received;
            // Taken out so that events can borrow it while the requests change; an empty box is no allocation.
            let mut buffer = std::mem::take(&mut self.buffer);
            let result = self.take_apart(table, &buffer[..self.filled], sink);
            if let Ok(taken) = result {
                buffer.copy_within(taken..self.filled, 0);
                self.filled -= taken;
            }
            self.buffer = buffer;
            result?;
            if done {
                return Ok(());
            }
        }
    }

    fn check_stalled(&mut self, now: Instant) {
        if self.check_at.is_none_or(|at| now < at) {
            return;
        }
        let lost_after = self.shared.config.lost_after;
        let oldest = [self.flights.oldest_sent(), self.blocked_since].into_iter().flatten().min();
        self.check_at = oldest.map(|sent| sent + lost_after);
        if oldest.is_some_and(|sent| now >= sent + lost_after) {
            let reason =
                format!("it neither took nor answered a request for {:.1} s", lost_after.as_secs_f64());
            self.suffer(Trouble::Broken(reason), now);
        }
    }

    /// What trouble means for the connection.
    fn suffer(&mut self, trouble: Trouble, now: Instant) {
        let reason = match trouble {
            Trouble::Lost(reason) => return self.shared.lose(&self.host, &reason),
            Trouble::Broken(reason) => reason,
        };
        if !matches!(self.state, State::Up(_)) {
            return;
        }
        let deadline = *self.broken_since.get_or_insert(now) + self.shared.config.lost_after;
        tracing::warn!(server = %self.host().dialer.address, reason, "connection to memory server broken");
        self.host().note_broken(&reason);
        let attempts = Reconnect::start(&self.shared, &self.host, &self.bell, deadline, &reason);
        if let State::Up(stream) = std::mem::replace(&mut self.state, State::Reconnecting(attempts)) {
            stream.abort();
        }
        self.check_at = None;
        self.fds_changed = true;
        self.absence = Absence::Unseen;
    }

    fn come_back(&mut self, table: &Table, stream: Stream, now: Instant) {
        tracing::info!(server = %self.host().dialer.address, "connection to memory server is back");
        self.host().note_mended();
        self.state = State::Up(stream);
        self.fds_changed = true;
        (self.head_sent, self.filled) = (0, 0);
        (self.check_at, self.blocked_since) = (None, None);
        self.flights.rewind();
        if self.flights.open_pages == 0 {
            self.broken_since = None;
        }
        let waiting = self.flights.unsent.len();
        for extent in 0..self.opened.len() {
            if std::mem::take(&mut self.opened[extent]) && !table.extents[extent].is_gone() {
                self.open(table, extent);
            }
        }
        // Segments are opened before anything is asked of them.
        self.flights.unsent.rotate_left(waiting);
        self.pump(now);
    }

    /// Nothing of ours is on the server any more, and nothing is asked of it: that is no loss.
    fn leave(&mut self) {
        if matches!(self.state, State::Reconnecting(_)) {
            self.host().note_mended();
        }
        self.state = State::Lost;
        self.lost_reported = true;
        self.fds_changed = true;
        self.flights.all().into_iter().for_each(|index| self.flights.finish(index));
        self.flights.unsent.clear();
    }

    /// The server is lost: everything fails, and its slots are reported.
    fn go_down(&mut self, table: &Table, sink: &mut dyn FnMut(Event<'_>)) {
        if matches!(self.state, State::Reconnecting(_)) {
            self.host().note_mended();
        }
        self.state = State::Lost;
        self.lost_reported = true;
        self.fds_changed = true;
        let error = PageError::Lost;
        for done in self.done.drain(..) {
            sink(match done {
                Done::Read { tag, slot, .. } => Event::ReadFailed { tag, slot, error },
                Done::Write { tag, slot, .. } => Event::StoreFailed { tag, slot, error },
            });
        }
        for index in self.flights.all() {
            let flight = self.flights.get(index);
            for &(tag, slot) in &flight.pages {
                sink(match flight.kind {
                    Kind::Write => Event::StoreFailed { tag, slot, error },
                    _ => Event::ReadFailed { tag, slot, error },
                });
            }
            self.flights.finish(index);
        }
        self.flights.unsent.clear();
        let reason = self.host().reason();
        sink(Event::ServerLost { slots: table.rmc.ranges(self.server).collect(), reason });
    }

    fn report_done(&mut self, table: &Table, sink: &mut dyn FnMut(Event<'_>)) {
        for (tag, slot, store) in self.late.drain(..) {
            let error = PageError::Lost;
            sink(if store {
                Event::StoreFailed { tag, slot, error }
            } else {
                Event::ReadFailed { tag, slot, error }
            });
        }
        for done in self.done.drain(..) {
            match done {
                Done::Read { tag, slot, extent } => {
                    let place = &table.extents[extent];
                    let memory = place.memory.as_ref().expect("only mapped extents are read in place");
                    match memory.read(place.page(slot), &mut self.page) {
                        Ok((version, checksum)) => {
                            sink(Event::Page { tag, slot, version, checksum, data: &self.page });
                        }
                        Err(error) => sink(Event::ReadFailed { tag, slot, error }),
                    }
                }
                Done::Write { tag, slot, result: Err(error) } => {
                    sink(Event::StoreFailed { tag, slot, error })
                }
                Done::Write { tag, slot, result: Ok(()) } => {
                    let place = table.rmc.entry(slot).map(|extent| &table.extents[extent]);
                    let fresh = place.is_some_and(|place| place.note_stored(slot));
                    self.host.note_used(fresh.into(), 0);
                    sink(Event::Stored { tag, slot });
                }
            }
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if matches!(self.state, State::Reconnecting(_)) {
            self.host().note_mended();
        }
    }
}
