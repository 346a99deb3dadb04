//! Where the fault thread waits: for messages of userfaultfds, answers of memory servers, and news of other threads. What
//! comes is taken up by `serve.rs`.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::PoisonError;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use rackmem_far::Port;
use rustix::event::{Timespec, epoll};

use crate::Shared;
use crate::serve::Server;
use crate::table::SpaceId;

/// How soon an unanswered fault is taken up again.
const RETRY_US: u64 = 50;
/// How long the thread looks before it sleeps: about two far faults over a fast network. On one CPU it does not look at all.
const SPIN: Duration = Duration::from_micros(50);
/// Key of the wake-up event among the epoll keys; spaces are small numbers, ports are above.
const WAKE_KEY: u64 = 1 << 32;
const PORT_KEY: u64 = 1 << 33;
/// Descriptors taken up at a time; the rest shows again at once.
const READY_MAX: usize = 64;

/// The fault thread.
pub(crate) struct FaultThread<'a> {
    shared: &'a Shared,
    server: Server<'a, Port>,
    epoll: OwnedFd,
    polled: Vec<(i32, bool)>,
    spin: Duration,
}

impl<'a> FaultThread<'a> {
    pub(crate) fn new(shared: &'a Shared, port: Port) -> std::io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &shared.wake, epoll::EventData::new_u64(WAKE_KEY), epoll::EventFlags::IN)?;
        let spin = if std::thread::available_parallelism()?.get() > 1 { SPIN } else { Duration::ZERO };
        Ok(Self { shared, server: Server::new(shared, port), epoll, polled: Vec::new(), spin })
    }

    /// Serves until the target is gone or the pager is told to stop.
    pub(crate) fn run(&mut self) -> std::io::Result<()> {
        let mut events = Vec::with_capacity(READY_MAX);
        let mut ready: Vec<SpaceId> = Vec::with_capacity(READY_MAX);
        loop {
            self.poll_port()?;
            let timeout = self.timeout();
            events.clear();
            self.wait(&mut events, timeout)?;
            if self.shared.stop.load(Relaxed) {
                return Ok(());
            }
            let mut port_ready = false;
            ready.clear();
            for event in &events {
                match event.data.u64() {
                    WAKE_KEY => self.take_wake(),
                    PORT_KEY => port_ready = true,
                    key => ready.push(key as SpaceId),
                }
            }
            if self.server.round(&ready, port_ready) {
                self.shared.evict.notify_one();
            }
            while let Some(child) = self.server.children.pop() {
                self.watch(child);
            }
        }
    }

    /// Waits for descriptors to become ready; looks for a while before it sleeps, and lets others run in between. Waking a
    /// sleeper costs more than all else in a fault, and while pages are being asked for the next news is a few microseconds
    /// away.
    fn wait(&self, ready: &mut Vec<epoll::Event>, timeout: Option<Timespec>) -> std::io::Result<()> {
        let begin = Instant::now();
        loop {
            let spins = begin.elapsed() < self.spin;
            let timeout = if spins { Some(&Timespec { tv_sec: 0, tv_nsec: 0 }) } else { timeout.as_ref() };
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(ready), timeout) {
                Ok(0) if spins => std::thread::yield_now(),
                Ok(_) | Err(rustix::io::Errno::INTR) => return Ok(()),
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    fn timeout(&self) -> Option<Timespec> {
        let retry = self.server.has_retries().then_some(Duration::from_micros(RETRY_US));
        let port =
            self.server.port.deadline().map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let timeout = retry.into_iter().chain(port).min()?;
        Some(Timespec { tv_sec: timeout.as_secs() as i64, tv_nsec: timeout.subsec_nanos().into() })
    }

    /// Makes epoll watch the port's descriptors, which change when a connection is made anew.
    fn poll_port(&mut self) -> std::io::Result<()> {
        let same =
            self.server.port.fds().map(|(fd, out)| (fd.as_raw_fd(), out)).eq(self.polled.iter().copied());
        if same {
            return Ok(());
        }
        // A descriptor that was closed has left the epoll set by itself.
        for (fd, out) in self.server.port.fds() {
            let flags =
                if out { epoll::EventFlags::IN | epoll::EventFlags::OUT } else { epoll::EventFlags::IN };
            let data = epoll::EventData::new_u64(PORT_KEY);
            match epoll::add(&self.epoll, fd, data, flags) {
                Err(rustix::io::Errno::EXIST) => epoll::modify(&self.epoll, fd, data, flags)?,
                result => result?,
            }
        }
        self.polled = self.server.port.fds().map(|(fd, out)| (fd.as_raw_fd(), out)).collect();
        Ok(())
    }

    /// Somebody has news: spaces to watch.
    fn take_wake(&self) {
        let mut count = [0; 8];
        let _ = rustix::io::read(&self.shared.wake, &mut count);
        for id in std::mem::take(&mut *self.shared.newcomers.lock().unwrap_or_else(PoisonError::into_inner)) {
            self.watch(id);
        }
    }

    fn watch(&self, id: SpaceId) {
        let mut core = self.shared.lock();
        let Some(uffd) = core.uffd(id) else { return };
        let added =
            epoll::add(&self.epoll, &*uffd, epoll::EventData::new_u64(id.into()), epoll::EventFlags::IN);
        if let Err(errno) = added {
            core.warn(format!("a userfaultfd cannot be watched: {errno}"));
        }
    }
}
