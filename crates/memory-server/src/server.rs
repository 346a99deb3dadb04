//! The threads of a server, and how they begin and end.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rackmem_types::Bytes;
use rackmem_wire::{Answer, ErrorCode, Nonce};
use ring::rand::{SecureRandom, SystemRandom};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::Shutdown as Direction;

use crate::batch::Batch;
use crate::config::{Listen, ServerConfig};
use crate::connection::{Connection, Ended};
use crate::error::ServerError;
use crate::listen::{self, Listener, Peer};
use crate::regions::RegionsFile;
use crate::session::{Session, Store};
use crate::shutdown::Shutdown;
use crate::stream::Stream;
use crate::{freeing, metrics_http, tls};

/// How often leases and the regions file are looked at.
const HOUSEKEEPING: Duration = Duration::from_millis(200);

/// Rest after the kernel refused a connection or a thread, most likely for want of descriptors or memory.
const REFUSED_REST: Duration = Duration::from_millis(100);

/// Stack of a connection's thread: its deepest frame holds the 16 KiB of pointers of one gathered send.
const STACK_BYTES: usize = 256 << 10;

/// Runs a memory server until `shutdown` is triggered.
pub fn run(config: &ServerConfig, shutdown: &Shutdown) -> Result<(), ServerError> {
    Server::start(config, shutdown)?.wait();
    Ok(())
}

/// A running memory server.
#[derive(Debug)]
pub struct Server {
    places: Vec<Listen>,
    metrics: Option<SocketAddr>,
    threads: Vec<JoinHandle<()>>,
}

/// What the accepting thread and the connections share.
struct Front {
    store: Arc<Store>,
    tls: Option<Arc<rustls::ServerConfig>>,
    random: SystemRandom,
    draining: AtomicBool,
    connections: Mutex<Vec<(u64, Peer, Arc<OwnedFd>)>>,
    /// Told whenever a connection ends.
    ended: Condvar,
}

impl Server {
    /// Opens everything and starts the threads. Nothing is left behind where that fails.
    pub fn start(config: &ServerConfig, shutdown: &Shutdown) -> Result<Self, ServerError> {
        config.check(machine_memory())?;
        let tls = config.tls.as_ref().map(tls::load).transpose()?;
        let listeners = listen::open(config)?;
        let metrics = config.metrics.map(metrics_http::open).transpose()?;
        raise_descriptor_limit();
        let random = SystemRandom::new();
        let epoch = u64::from_le_bytes(draw(&random)?);
        let store = Arc::new(Store::new(config.size.pages(), epoch, config.token.clone(), config.limits));
        let regions = config.regions.as_deref().map(|path| RegionsFile::create(path, &store)).transpose()?;
        let places = listeners.iter().map(Listener::place).collect();
        let metrics_address = metrics.as_ref().and_then(|listener| listener.local_addr().ok());
        let threads = Self::spawn(&store, tls, random, listeners, metrics, regions, shutdown)?;
        let server = Self { places, metrics: metrics_address, threads };
        for place in &server.places {
            tracing::info!(%place, size = %config.size, "the memory server listens");
        }
        Ok(server)
    }

    fn spawn(
        store: &Arc<Store>,
        tls: Option<Arc<rustls::ServerConfig>>,
        random: SystemRandom,
        listeners: Vec<Listener>,
        metrics: Option<TcpListener>,
        regions: Option<RegionsFile>,
        shutdown: &Shutdown,
    ) -> io::Result<Vec<JoinHandle<()>>> {
        let front = Arc::new(Front {
            store: Arc::clone(store),
            tls,
            random,
            draining: AtomicBool::new(false),
            connections: Mutex::new(Vec::new()),
            ended: Condvar::new(),
        });
        let mut threads = Vec::new();
        let mut start = |name: &str, body: Box<dyn FnOnce() + Send>| -> io::Result<()> {
            threads.push(thread::Builder::new().name(name.to_owned()).spawn(body)?);
            Ok(())
        };
        let begun = (|| {
            let (its_store, its_shutdown) = (Arc::clone(store), shutdown.clone());
            let jobs = store.freeing.open();
            start("freeing", Box::new(move || freeing::run(&jobs)))?;
            start("housekeeping", Box::new(move || keep_house(&its_store, regions, &its_shutdown)))?;
            if let Some(listener) = metrics {
                let (its_store, its_shutdown) = (Arc::clone(store), shutdown.clone());
                start(
                    "metrics",
                    Box::new(move || metrics_http::serve(&listener, &its_store, &its_shutdown)),
                )?;
            }
            let its_shutdown = shutdown.clone();
            start("accept", Box::new(move || front.accept(listeners, &its_shutdown)))
        })();
        if let Err(error) = begun {
            // Those that run already end by themselves.
            shutdown.trigger();
            return Err(error);
        }
        Ok(threads)
    }

    /// Where it listens, with the ports that the kernel chose where none was given.
    pub fn places(&self) -> &[Listen] {
        &self.places
    }

    /// Where metrics are fetched.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics
    }

    /// Waits until the server has ended, which it does after its shutdown was triggered.
    pub fn wait(self) {
        for thread in self.threads {
            // A thread that panicked has said so already; the others are still waited for.
            let _ = thread.join();
        }
    }
}

impl Front {
    fn accept(self: Arc<Self>, listeners: Vec<Listener>, shutdown: &Shutdown) {
        let mut next = 0;
        while !shutdown.is_triggered() {
            let mut waiting: Vec<_> = listeners.iter().map(|one| PollFd::new(one, PollFlags::IN)).collect();
            waiting.push(PollFd::new(shutdown, PollFlags::IN));
            // An interrupted wait is as good as one that ended.
            let _ = poll(&mut waiting, None);
            for listener in &listeners {
                match listener.accept() {
                    Ok(Some((socket, peer))) => {
                        self.welcome(next, socket, peer);
                        next += 1;
                    }
                    Ok(None) => {}
                    Err(error) => {
                        tracing::warn!(place = %listener.place(), %error, "a connection cannot be accepted");
                        thread::sleep(REFUSED_REST);
                    }
                }
            }
        }
        drop(listeners);
        self.drain();
        self.store.freeing.close();
    }

    /// Starts a connection's thread, unless a limit forbids it.
    fn welcome(self: &Arc<Self>, number: u64, socket: OwnedFd, peer: Peer) {
        let socket = Arc::new(socket);
        let limits = self.store.limits;
        let mut connections = self.connections();
        let of_peer = connections.iter().filter(|(_, other, _)| *other == peer).count();
        let full = [(connections.len(), limits.connections), (of_peer, limits.connections_per_peer)];
        if let Some((_, limit)) = full.into_iter().find(|(count, limit)| count >= limit) {
            drop(connections);
            self.turn_away(&socket, limit);
            return;
        }
        let front = Arc::clone(self);
        let its_socket = Arc::clone(&socket);
        let body = move || front.attend(number, its_socket, peer);
        match thread::Builder::new().name(format!("connection {number}")).stack_size(STACK_BYTES).spawn(body)
        {
            Ok(_) => {
                connections.push((number, peer, socket));
                self.store.metrics.connections.set(connections.len() as i64);
            }
            Err(error) => tracing::warn!(%error, "no thread for a connection, it is closed"),
        }
    }

    /// Says why not, where the client can read it without TLS.
    fn turn_away(&self, socket: &OwnedFd, limit: usize) {
        self.store.metrics.connections_refused.inc();
        tracing::debug!(limit, "a connection is turned away");
        if self.tls.is_none() {
            let text = format!("the memory server has {limit} connections already, which is its limit");
            self.store.metrics.error(ErrorCode::Limit);
            let mut batch = Batch::default();
            batch.answer(0, &Answer::Error { code: ErrorCode::Limit, detail: limit as u64, text: &text });
            // A fresh socket has room for one frame; a client that is gone already does not mind.
            let _ = rackmem_uapi::gather::send_pieces(std::os::fd::AsFd::as_fd(socket), batch.pieces(0));
        }
    }

    /// The body of a connection's thread.
    fn attend(&self, number: u64, socket: Arc<OwnedFd>, peer: Peer) {
        match self.connect(socket, peer) {
            Ok(connection) => match connection.run(&self.draining) {
                ended @ (Ended::Closed | Ended::Draining) => tracing::debug!(number, "{ended}"),
                ended => tracing::debug!(number, ?peer, "a connection is closed: {ended}"),
            },
            Err(error) => tracing::warn!(number, %error, "a connection cannot be served"),
        }
        let mut connections = self.connections();
        connections.retain(|(other, ..)| *other != number);
        self.store.metrics.connections.set(connections.len() as i64);
        self.ended.notify_all();
    }

    fn connect(&self, socket: Arc<OwnedFd>, peer: Peer) -> io::Result<Connection> {
        let nonce: Nonce = draw(&self.random)?;
        let session = Session::new(Arc::clone(&self.store), peer == Peer::Local, nonce);
        let stream = match (&self.tls, peer) {
            (Some(config), Peer::Ip(_)) => {
                let tls = rustls::ServerConnection::new(Arc::clone(config)).map_err(io::Error::other)?;
                Stream::tls(socket, tls)
            }
            _ => Stream::plain(socket),
        };
        Ok(Connection::new(Arc::clone(&self.store), stream, session))
    }

    /// Lets every connection serve what has arrived and end; cuts those that take too long.
    fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
        let deadline = Instant::now() + self.store.limits.drain;
        let mut connections = self.end(self.connections(), Direction::Read);
        while !connections.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                tracing::warn!(
                    connections = connections.len(),
                    "connections did not end in time, they are cut"
                );
                break;
            }
            let (guard, _) =
                self.ended.wait_timeout(connections, left).unwrap_or_else(PoisonError::into_inner);
            connections = guard;
        }
        drop(self.end(connections, Direction::Both));
        tracing::info!("the memory server has ended");
    }

    fn end<'a>(
        &self,
        connections: MutexGuard<'a, Vec<(u64, Peer, Arc<OwnedFd>)>>,
        direction: Direction,
    ) -> MutexGuard<'a, Vec<(u64, Peer, Arc<OwnedFd>)>> {
        for (_, _, socket) in connections.iter() {
            // One that is closed already has ended.
            let _ = rustix::net::shutdown(&**socket, direction);
        }
        connections
    }

    fn connections(&self) -> MutexGuard<'_, Vec<(u64, Peer, Arc<OwnedFd>)>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Frees what leases left behind, and keeps the regions file up to date, until shutdown.
fn keep_house(store: &Store, mut regions: Option<RegionsFile>, shutdown: &Shutdown) {
    let rest = Timespec { tv_sec: 0, tv_nsec: HOUSEKEEPING.as_nanos() as i64 };
    while !shutdown.is_triggered() {
        store.expire(Instant::now());
        if let Some(Err(error)) = regions.as_mut().map(|regions| regions.update(store)) {
            tracing::error!(%error, "the regions file cannot be written");
        }
        // An interrupted rest is only shorter.
        let _ = poll(&mut [PollFd::new(shutdown, PollFlags::IN)], Some(&rest));
    }
}

fn draw<const N: usize>(random: &SystemRandom) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    random.fill(&mut bytes).map_err(|_| io::Error::other("the kernel gives no random numbers"))?;
    Ok(bytes)
}

fn machine_memory() -> Bytes {
    let info = rustix::system::sysinfo();
    Bytes(info.totalram.saturating_mul(info.mem_unit.into()))
}

/// Each connection and each segment holds a descriptor; the usual soft limit of 1024 is soon reached.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // Fewer descriptors mean fewer connections and segments, which are then refused one by one.
    let _ = setrlimit(Resource::Nofile, limit);
}
