//! The pager's side: accepts on the target's socket and passes each request to the [`Handler`].
//!
//! Threads: one accepts, one per connection; all of them are apart from the fault path, which never waits for
//! them. Shutdown: dropping the [`Server`] stops the accepting thread, removes the socket file, and waits
//! a bounded time for answers that are being written (the answer to a detach is the last thing a pager does).
//! A watch ends at its next report. Locks: `answering` is held only to count, never while a handler runs.

use std::fs;
use std::io::{self, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::Shutdown;
use serde::Serialize;

use crate::line::{Answer, Line, REQUEST_BYTES_MAX, Request, parse, read_line, write_line};
use crate::{ControlError, Handler, directory};

/// Connections at the same time. A user has a few terminals open; more is a client gone wild.
const CONNECTIONS_MAX: usize = 64;

/// A connection that asks nothing for so long is closed; `top` asks twice a second.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// A client that does not take its answer for so long is gone.
const WRITE_MAX: Duration = Duration::from_secs(5);

/// How long a closing server waits for answers that are being written.
const CLOSE_MAX: Duration = Duration::from_secs(1);

/// The control socket of one target. Dropping it removes the socket.
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    path: PathBuf,
    directory: PathBuf,
}

#[derive(Debug)]
struct Shared {
    listener: UnixListener,
    closing: AtomicBool,
    connections: AtomicUsize,
    /// Requests between their arrival and their last answer, watches aside.
    answering: Mutex<usize>,
    answered: Condvar,
}

impl Server {
    /// Makes the socket of target `pid` in the user's runtime directory. From now on clients can connect; they
    /// are answered once [`serve`](Self::serve) runs. A live socket is [`ControlError::AlreadyAttached`].
    pub fn bind(pid: u32) -> Result<Self, ControlError> {
        Self::bind_in(&directory::directory()?, pid)
    }

    /// [`bind`](Self::bind) in another runtime directory.
    pub fn bind_in(directory: &Path, pid: u32) -> Result<Self, ControlError> {
        directory::prepare(directory)?;
        let lock = directory::Lock::take(directory)?;
        lock.remove_dead(pid)?;
        let path = directory::socket(directory, pid);
        let failed = |source| ControlError::Socket { path: path.clone(), source };
        let listener = UnixListener::bind(&path).map_err(failed)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).map_err(failed)?;
        let shared = Arc::new(Shared {
            listener,
            closing: AtomicBool::new(false),
            connections: AtomicUsize::new(0),
            answering: Mutex::new(0),
            answered: Condvar::new(),
        });
        Ok(Self { shared, path, directory: directory.to_owned() })
    }

    /// Path of the socket.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Starts the thread that accepts. Call it once; it returns at once.
    pub fn serve(&self, handler: Arc<dyn Handler>) -> Result<(), ControlError> {
        let shared = Arc::clone(&self.shared);
        thread::Builder::new()
            .name("control".to_owned())
            .spawn(move || accept(&shared, &handler))
            .map_err(|source| ControlError::Socket { path: self.path.clone(), source })?;
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The lock keeps a new pager of the same target from binding between the shutdown and the removal.
        let lock = directory::Lock::take(&self.directory);
        self.shared.closing.store(true, Ordering::Release);
        // Shutting a listening socket down makes `accept` return, and connects be refused.
        let _ = rustix::net::shutdown(&self.shared.listener, Shutdown::Both);
        let _ = fs::remove_file(&self.path);
        drop(lock);
        let answering = self.shared.answering();
        let _ = self.shared.answered.wait_timeout_while(answering, CLOSE_MAX, |count| *count > 0);
    }
}

impl Shared {
    fn answering(&self) -> MutexGuard<'_, usize> {
        // A panic while counting is impossible; a count is right in any case.
        self.answering.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn accept(shared: &Arc<Shared>, handler: &Arc<dyn Handler>) {
    loop {
        let stream = match shared.listener.accept() {
            Ok((stream, _)) => stream,
            Err(_) if shared.closing.load(Ordering::Acquire) => return,
            Err(error) => {
                // Out of descriptors or of memory: others may free some.
                tracing::warn!(%error, "cannot accept a control connection");
                thread::sleep(Duration::from_millis(100));
                continue;
            }
        };
        let connection = Connection::new(stream, Arc::clone(shared));
        let handler = Arc::clone(handler);
        let started = connection.and_then(|mut connection| {
            thread::Builder::new().name("control-client".to_owned()).spawn(move || {
                if let Err(error) = connection.run(&*handler) {
                    tracing::debug!(%error, "a control connection broke");
                }
            })
        });
        if let Err(error) = started {
            tracing::warn!(%error, "cannot serve a control connection");
        }
    }
}

struct Connection {
    reader: BufReader<UnixStream>,
    writer: UnixStream,
    shared: Arc<Shared>,
    is_one_too_many: bool,
}

impl Connection {
    fn new(stream: UnixStream, shared: Arc<Shared>) -> io::Result<Self> {
        stream.set_read_timeout(Some(IDLE_MAX))?;
        stream.set_write_timeout(Some(WRITE_MAX))?;
        let writer = stream.try_clone()?;
        let is_one_too_many = shared.connections.fetch_add(1, Ordering::Relaxed) >= CONNECTIONS_MAX;
        Ok(Self { reader: BufReader::new(stream), writer, shared, is_one_too_many })
    }

    fn run(&mut self, handler: &dyn Handler) -> io::Result<()> {
        if self.is_one_too_many {
            return self.refuse(&format!("the pager has {CONNECTIONS_MAX} connections already; close some"));
        }
        if !is_same_user(&self.writer)? {
            return self.refuse("only root and the user who runs the pager may ask it");
        }
        loop {
            match read_line(&mut self.reader, REQUEST_BYTES_MAX)? {
                Line::End => return Ok(()),
                Line::TooLong => {
                    return self.refuse(&format!("the request is longer than {REQUEST_BYTES_MAX} bytes"));
                }
                Line::Text(text) => match parse(&text) {
                    Ok(Request::Stats) => self.answer(|| Ok(handler.stats()))?,
                    Ok(Request::LimitSet { limit }) => self.answer(|| handler.limit_set(limit))?,
                    Ok(Request::Lend { lending }) => self.answer(|| handler.lend(lending))?,
                    Ok(Request::Detach) => self.answer(|| handler.detach())?,
                    Ok(Request::Watch { address }) => return self.watch(handler, address),
                    Err(sentence) => self.refuse(&sentence)?,
                },
            }
        }
    }

    fn refuse(&mut self, sentence: &str) -> io::Result<()> {
        write_line(&mut self.writer, &Answer::<()>::Error(sentence.to_owned()))
    }

    fn answer<T: Serialize>(&mut self, ask: impl FnOnce() -> Result<T, String>) -> io::Result<()> {
        let Self { writer, shared, .. } = self;
        let _answering = Answering::begin(shared);
        write_line(writer, &Answer::from(ask()))
    }

    /// Streams accesses until the client goes away, the server closes, or the handler ends the watch.
    fn watch(&mut self, handler: &dyn Handler, address: u64) -> io::Result<()> {
        let Self { writer, shared, .. } = self;
        let outcome = handler.watch(address, &mut |access| {
            let goes_on = !shared.closing.load(Ordering::Acquire) && !has_hung_up(writer);
            goes_on && access.is_none_or(|access| write_line(writer, &Answer::Ok(access)).is_ok())
        });
        outcome.or_else(|sentence| self.refuse(&sentence))
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.shared.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts one request that is being answered.
struct Answering<'a>(&'a Shared);

impl<'a> Answering<'a> {
    fn begin(shared: &'a Shared) -> Self {
        *shared.answering() += 1;
        Self(shared)
    }
}

impl Drop for Answering<'_> {
    fn drop(&mut self) {
        *self.0.answering() -= 1;
        self.0.answered.notify_all();
    }
}

impl<T> From<Result<T, String>> for Answer<T> {
    fn from(result: Result<T, String>) -> Self {
        result.map_or_else(Self::Error, Self::Ok)
    }
}

/// The directory and the socket's mode keep others out already; this holds even where somebody loosened them.
fn is_same_user(stream: &UnixStream) -> io::Result<bool> {
    let peer = rustix::net::sockopt::socket_peercred(stream)?;
    Ok(peer.uid.is_root() || peer.uid == rustix::process::geteuid())
}

fn has_hung_up(stream: &UnixStream) -> bool {
    let mut fds = [PollFd::new(stream, PollFlags::RDHUP)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    rustix::event::poll(&mut fds, Some(&now)).is_ok_and(|ready| ready > 0)
}
