//! A port: what one thread moves pages with.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rackmem_types::{PageVersion, Slot};
use rustix::event::{PollFd, PollFlags, Timespec};

use crate::error::FarError;
use crate::event::{Event, PageError, ReadRequest, WriteRequest};
use crate::link::Link;
use crate::memory::{Bell, Shared, Table};

/// Descriptors that `wait` polls without an allocation: the bell and seven servers.
const WAIT_FDS_INLINE: usize = 8;

/// Connections to every server of a far memory, for one thread.
///
/// A port takes every request that it is given and sends as many as the server allows at one time; how many are in
/// flight is for the caller to bound. Each keeps its frame, a WRITE with its pages, until it is answered, so that it can
/// be sent again after a cut.
pub struct Port {
    shared: Arc<Shared>,
    generation: u64,
    table: Table,
    links: Vec<Link>,
    /// Rung when a server is lost or a connection is back.
    bell: Arc<Bell>,
    /// Requests for slots that no server holds, to be refused by the next `advance`.
    nowhere: Vec<(u32, Slot, bool)>,
    /// The generation up to which nothing is asked any more of what was shed.
    settled: u64,
    fds_version: u64,
    /// When this port was used last. Sleeping is timed from then, which saves a look at the clock for each page.
    used_at: Instant,
}

impl Port {
    pub(crate) fn new(shared: Arc<Shared>) -> Result<Self, FarError> {
        let (table, generation) = shared.table_now();
        let failed = |reason| FarError::Io { address: table.servers[0].address(), reason };
        let bell = Arc::new(Bell::new().map_err(failed)?);
        shared.add_bell(&bell);
        let links = (0..table.servers.len())
            .map(|server| Link::new(shared.clone(), &table, server, bell.clone()))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            generation,
            table,
            links,
            bell,
            nowhere: Vec::new(),
            settled: 0,
            fds_version: 0,
            used_at: Instant::now(),
            shared,
        })
    }

    /// Asks for pages: one frame for each segment touched (and each 32 pages), sent at once as far as the sockets take
    /// it, without blocking.
    pub fn read(&mut self, requests: &[ReadRequest]) {
        self.refresh();
        let table = &self.table;
        for run in requests.chunk_by(|a, b| table.rmc.entry(a.slot) == table.rmc.entry(b.slot)) {
            match table.entry(run[0].slot) {
                Some(extent) => self.links[table.extents[extent].server].read(table, extent, run),
                None => self.nowhere.extend(run.iter().map(|request| (request.tag, request.slot, false))),
            }
        }
        self.send();
    }

    /// Stores pages. Their data has been copied or sent when this returns.
    pub fn write(&mut self, pages: &[WriteRequest<'_>]) {
        self.refresh();
        let table = &self.table;
        for run in pages.chunk_by(|a, b| table.rmc.entry(a.slot) == table.rmc.entry(b.slot)) {
            match table.entry(run[0].slot) {
                Some(extent) => self.links[table.extents[extent].server].write(table, extent, run),
                None => self.nowhere.extend(run.iter().map(|request| (request.tag, request.slot, true))),
            }
        }
        self.send();
    }

    /// Forgets pages whose version is at most `up_to`; there is no answer. It is ordered with the other requests of this
    /// port. If a connection breaks just then, a page may stay on the server until its slot is written again, or the
    /// server may come to the discard only later, after stores that this port sent on its next connection. `up_to` is
    /// the fence between the two: give the newest version that was handed out *before* any of the slots was reused.
    pub fn discard(&mut self, slots: &[Slot], up_to: PageVersion) {
        self.refresh();
        let table = &self.table;
        for run in slots.chunk_by(|a, b| table.rmc.entry(*a) == table.rmc.entry(*b)) {
            if let Some(extent) = table.entry(run[0]) {
                self.links[table.extents[extent].server].discard(table, extent, run, up_to);
            }
        }
        self.send();
    }

    /// Sends what was asked for: frames for one server go together.
    fn send(&mut self) {
        let now = self.now();
        for link in &mut self.links {
            link.pump(now);
        }
    }

    /// What to poll for readability, and, where `true`, for writability too. Ask again when [`Port::fds_version`] has
    /// changed.
    pub fn fds(&self) -> impl Iterator<Item = (BorrowedFd<'_>, bool)> {
        let links = self.links.iter().filter_map(Link::fd);
        std::iter::once((self.bell.as_fd(), false)).chain(links)
    }

    /// Changes whenever a connection of [`Port::fds`] comes or goes. Wishes for writability change with every call.
    pub fn fds_version(&self) -> u64 {
        self.fds_version
    }

    /// Pages that are asked for or on their way, and not answered.
    pub fn in_flight(&self) -> usize {
        self.nowhere.len() + self.links.iter().map(Link::in_flight).sum::<usize>()
    }

    /// When [`Port::advance`] must be called even if no descriptor is ready.
    pub fn deadline(&self) -> Option<Instant> {
        if self.nowhere.is_empty() {
            self.links.iter().filter_map(|link| link.deadline(self.used_at)).min()
        } else {
            Some(self.used_at)
        }
    }

    /// Receives what is there, times out, reconnects and sends again; never blocks.
    pub fn advance(&mut self, now: Instant, sink: &mut dyn FnMut(Event<'_>)) {
        self.used_at = now;
        self.bell.hush();
        self.refresh();
        for (tag, slot, store) in self.nowhere.drain(..) {
            let error = PageError::Refused;
            sink(if store {
                Event::StoreFailed { tag, slot, error }
            } else {
                Event::ReadFailed { tag, slot, error }
            });
        }
        for link in &mut self.links {
            if link.advance(&self.table, now, sink) {
                self.fds_version += 1;
            }
        }
        if self.settled != self.generation && !self.links.iter().any(|link| link.needs_gone(&self.table)) {
            self.settled = self.generation;
            self.bell.settled.store(self.settled, Ordering::Release);
        }
    }

    /// Blocks until something is there or `timeout` is over, then advances.
    pub fn wait(&mut self, timeout: Option<Duration>, sink: &mut dyn FnMut(Event<'_>)) {
        let until_deadline = self.deadline().map(|at| at.saturating_duration_since(self.used_at));
        self.poll([timeout, until_deadline].into_iter().flatten().min());
        self.advance(Instant::now(), sink);
    }

    /// Polls for so long, or until a signal.
    fn poll(&self, left: Option<Duration>) {
        let timeout =
            left.map(|left| Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() });
        let wish = |(fd, writable)| {
            PollFd::from_borrowed_fd(
                fd,
                if writable { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN },
            )
        };
        let mut many: Vec<PollFd<'_>>;
        let mut few: [PollFd<'_>; WAIT_FDS_INLINE];
        let fds = if self.links.len() < WAIT_FDS_INLINE {
            few = std::array::from_fn(|_| PollFd::new(&*self.bell, PollFlags::empty()));
            let mut count = 0;
            for (place, fd) in few.iter_mut().zip(self.fds()) {
                *place = wish(fd);
                count += 1;
            }
            &mut few[..count]
        } else {
            many = self.fds().map(wish).collect();
            &mut many[..]
        };
        // An interrupted poll is as good as an early end: the caller looks what is there.
        let _ = rustix::event::poll(fds, timeout.as_ref());
    }

    fn now(&mut self) -> Instant {
        self.used_at = Instant::now();
        self.used_at
    }

    fn refresh(&mut self) {
        let generation = self.shared.generation.load(Ordering::Acquire);
        if generation != self.generation {
            (self.table, self.generation) = self.shared.table_now();
            for server in self.links.len()..self.table.servers.len() {
                let link = Link::joining(self.shared.clone(), &self.table, server, self.bell.clone());
                self.links.push(link);
            }
        }
    }
}
