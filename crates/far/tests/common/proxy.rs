//! A TCP proxy that does to a connection what networks do: cuts it, delays, damages and reorders frames, stalls.
//!
//! It understands frames only as far as their length, and of TLS only the length of records, which it treats as frames.
//! One seed decides everything that it does to each of them.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rackmem_types::ServerAddress;
use rackmem_wire::frame_len;

use super::Random;

/// How often each fault strikes, in frames out of a thousand.
#[derive(Default)]
pub struct Faults {
    pub cut: AtomicU32,
    pub delay: AtomicU32,
    pub corrupt: AtomicU32,
    /// Answers only, since requests have an order; never set it where TLS numbers the records.
    pub reorder: AtomicU32,
    /// While set nothing passes.
    pub stalled: AtomicBool,
    /// While set new connections are closed at once.
    pub closed: AtomicBool,
    /// Faults so far.
    pub struck: AtomicU32,
    /// What is done about a request that outlives its connection.
    late: Mutex<Late>,
}

/// A request that the server comes to only after its client has been cut off and has gone on elsewhere.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Late {
    #[default]
    Never,
    /// The next request is held back and its client cut off.
    Next,
    /// One is held back.
    Held,
    /// It may go on to the server.
    Released,
    /// The server has handled it.
    Handled,
}

/// What passes the proxy in one piece.
#[derive(Clone, Copy, PartialEq)]
enum Piece {
    Frame,
    TlsRecord,
}

/// The proxy; its threads end with it.
pub struct Proxy {
    pub faults: Arc<Faults>,
    address: SocketAddr,
    target: Arc<Mutex<SocketAddr>>,
    open: Arc<Mutex<Vec<TcpStream>>>,
    ended: Arc<AtomicBool>,
}

#[derive(Clone, Copy, PartialEq)]
enum Direction {
    Requests,
    Answers,
}

impl Proxy {
    pub fn start(target: &ServerAddress, seed: u64) -> Self {
        Self::start_with(target, seed, Piece::Frame)
    }

    /// In front of a server that speaks TLS.
    pub fn start_tls(target: &ServerAddress, seed: u64) -> Self {
        Self::start_with(target, seed, Piece::TlsRecord)
    }

    fn start_with(target: &ServerAddress, seed: u64, piece: Piece) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = Self {
            faults: Arc::default(),
            address: listener.local_addr().unwrap(),
            target: Arc::new(Mutex::new(socket_address(target))),
            open: Arc::default(),
            ended: Arc::default(),
        };
        let (faults, target) = (proxy.faults.clone(), proxy.target.clone());
        let (open, ended) = (proxy.open.clone(), proxy.ended.clone());
        thread::spawn(move || {
            for (number, client) in listener.incoming().enumerate() {
                if ended.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(client) = client else { continue };
                if faults.closed.load(Ordering::SeqCst) {
                    continue;
                }
                let target = *target.lock().unwrap();
                let Ok(server) = TcpStream::connect(target) else { continue };
                for stream in [&client, &server] {
                    stream.set_nodelay(true).unwrap();
                    open.lock().unwrap().push(stream.try_clone().unwrap());
                }
                let ways = [(Direction::Requests, &client, &server), (Direction::Answers, &server, &client)];
                for (direction, from, to) in ways {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    let random = Random(seed ^ (number as u64) << 8 ^ direction as u64);
                    let mut way = Way { direction, piece, from, to, faults: faults.clone(), random };
                    thread::spawn(move || way.run());
                }
            }
        });
        proxy
    }

    pub fn address(&self) -> ServerAddress {
        self.address.to_string().parse().unwrap()
    }

    /// New connections go there.
    pub fn retarget(&self, target: &ServerAddress) {
        *self.target.lock().unwrap() = socket_address(target);
    }

    /// Holds the next request back until [`Proxy::release_late`], and cuts its client off.
    pub fn hold_next(&self) {
        *self.faults.late.lock().unwrap() = Late::Next;
    }

    pub fn release_late(&self) {
        assert_eq!(*self.faults.late.lock().unwrap(), Late::Held);
        *self.faults.late.lock().unwrap() = Late::Released;
    }

    pub fn wait_late(&self, state: Late) {
        let until = Instant::now() + super::PATIENCE;
        while *self.faults.late.lock().unwrap() != state {
            assert!(Instant::now() < until, "the late request is never {state:?}");
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Cuts every connection now.
    pub fn cut_all(&self) {
        for stream in self.open.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        self.faults.stalled.store(false, Ordering::SeqCst);
        self.cut_all();
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.address);
    }
}

fn socket_address(address: &ServerAddress) -> SocketAddr {
    address.to_string().parse().unwrap()
}

/// One direction of one connection.
struct Way {
    direction: Direction,
    piece: Piece,
    from: TcpStream,
    to: TcpStream,
    faults: Arc<Faults>,
    random: Random,
}

impl Way {
    fn run(&mut self) {
        // Whatever ends one direction ends both, like a cut cable.
        let _ = self.pass_frames();
        let _ = self.from.shutdown(Shutdown::Both);
        let _ = self.to.shutdown(Shutdown::Both);
    }

    fn pass_frames(&mut self) -> io::Result<()> {
        loop {
            let mut frame = self.frame()?;
            while self.faults.stalled.load(Ordering::SeqCst) {
                thread::sleep(Duration::from_millis(2));
            }
            if self.direction == Direction::Requests && self.is_late() {
                return self.deliver_late(&frame);
            }
            if self.strikes(self.faults.cut.load(Ordering::SeqCst)) {
                let part = self.random.below(frame.len() as u64) as usize;
                self.to.write_all(&frame[..part])?;
                return Ok(());
            }
            if self.strikes(self.faults.delay.load(Ordering::SeqCst)) {
                thread::sleep(Duration::from_millis(1 + self.random.below(20)));
            }
            if self.strikes(self.faults.corrupt.load(Ordering::SeqCst)) {
                let byte = self.random.below(frame.len() as u64) as usize;
                frame[byte] ^= 1 << self.random.below(8);
            }
            if self.direction == Direction::Answers
                && self.strikes(self.faults.reorder.load(Ordering::SeqCst))
                && let Some(next) = self.frame_soon()?
            {
                self.to.write_all(&next)?;
            }
            self.to.write_all(&frame)?;
        }
    }

    /// Whether this request is to be held back; from then on it is.
    fn is_late(&self) -> bool {
        let mut late = self.faults.late.lock().unwrap();
        let is_late = *late == Late::Next;
        if is_late {
            *late = Late::Held;
        }
        is_late
    }

    fn deliver_late(&mut self, frame: &[u8]) -> io::Result<()> {
        self.from.shutdown(Shutdown::Both)?;
        while *self.faults.late.lock().unwrap() == Late::Held {
            thread::sleep(Duration::from_millis(2));
        }
        self.to.write_all(frame)?;
        self.to.shutdown(Shutdown::Write)?;
        // The server closes when it has handled all that came.
        io::copy(&mut self.to, &mut io::sink())?;
        *self.faults.late.lock().unwrap() = Late::Handled;
        Ok(())
    }

    fn strikes(&mut self, per_mille: u32) -> bool {
        let strikes = self.random.below(1000) < u64::from(per_mille);
        self.faults.struck.fetch_add(strikes.into(), Ordering::SeqCst);
        strikes
    }

    fn frame(&mut self) -> io::Result<Vec<u8>> {
        let head = match self.piece {
            Piece::Frame => 32,
            Piece::TlsRecord => 5,
        };
        let mut frame = vec![0; head];
        self.from.read_exact(&mut frame)?;
        let len = match self.piece {
            Piece::Frame => frame_len(&frame).map_err(io::Error::other)?.unwrap(),
            Piece::TlsRecord => head + usize::from(u16::from_be_bytes([frame[3], frame[4]])),
        };
        frame.resize(len, 0);
        self.from.read_exact(&mut frame[head..])?;
        Ok(frame)
    }

    /// The next frame, if it begins within a moment.
    fn frame_soon(&mut self) -> io::Result<Option<Vec<u8>>> {
        self.from.set_read_timeout(Some(Duration::from_millis(5)))?;
        let begun = self.from.peek(&mut [0]);
        self.from.set_read_timeout(None)?;
        match begun {
            Ok(1) => self.frame().map(Some),
            _ => Ok(None),
        }
    }
}
