//! The asker's side: one connection to the probe in one guest, through the Unix socket that QEMU keeps for the guest's port.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rackmem_types::Bytes;

use crate::order::{Order, Pattern, Request, Side};
use crate::reply::{
    Answer, Checked, Churned, Filled, Held, Info, Memory, OnePage, Outcome, Ran, Ready, Reply, Touched,
};
use crate::{LINE_BYTES_MAX, ProbeError};

/// A greeting may be lost while the guest opens its port (a plain serial port drops it), so it is said again.
const GREETING_EVERY: Duration = Duration::from_millis(500);
const RETRY_EVERY: Duration = Duration::from_millis(20);

/// How long an order may take unless said otherwise: filling gigabytes of far memory in an emulated guest takes minutes.
const PATIENCE: Duration = Duration::from_secs(300);

/// What a wait is given beyond the time within which the probe answers by itself.
const WAIT_MARGIN: Duration = Duration::from_secs(30);

/// A connection to the probe of one guest.
#[derive(Debug)]
pub struct ProbeClient {
    stream: UnixStream,
    /// What arrived and belongs to no complete line yet.
    arrived: Vec<u8>,
    next_id: u64,
    patience: Duration,
    ready: Ready,
}

impl ProbeClient {
    /// Connects to the socket at `path` and waits until the probe answers, at most for `patience`. The guest may still be booting,
    /// and QEMU may not have made the socket yet.
    pub fn connect(path: &Path, patience: Duration) -> Result<Self, ProbeError> {
        let deadline = Instant::now() + patience;
        let none = || ProbeError::NoProbe { path: path.to_owned(), patience };
        let stream = loop {
            match UnixStream::connect(path) {
                Ok(stream) => break stream,
                Err(_) if Instant::now() < deadline => sleep(RETRY_EVERY),
                Err(_) => return Err(none()),
            }
        };
        let ready = Ready { uptime_ms: 0, run: 0 };
        let mut client = Self { stream, arrived: Vec::new(), next_id: first_id(), patience: PATIENCE, ready };
        while Instant::now() < deadline {
            client.patience = GREETING_EVERY.min(deadline.saturating_duration_since(Instant::now()));
            match client.ask(&Order::Hello) {
                Ok(Answer::Ready(ready)) => {
                    client.ready = ready;
                    client.patience = PATIENCE;
                    return Ok(client);
                }
                Ok(answer) => return Err(unexpected(&Order::Hello, &answer)),
                Err(ProbeError::Late { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Err(none())
    }

    /// How long an order may take from now on.
    pub fn patience_set(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// What the probe said when the connection was made.
    pub fn ready(&self) -> &Ready {
        &self.ready
    }

    /// What the guest sees.
    pub fn info(&mut self) -> Result<Info, ProbeError> {
        match self.ask(&Order::Info)? {
            Answer::Info(info) => Ok(*info),
            answer => Err(unexpected(&Order::Info, &answer)),
        }
    }

    /// Makes the probe hold `bytes` with the contents of `seed`, and nothing else.
    pub fn fill(&mut self, seed: u64, bytes: Bytes) -> Result<Filled, ProbeError> {
        self.filled(&Order::Fill { seed, bytes })
    }

    /// Makes it hold `bytes` more.
    pub fn grow(&mut self, bytes: Bytes) -> Result<Filled, ProbeError> {
        self.filled(&Order::Grow(bytes))
    }

    /// Makes it give `bytes` back.
    pub fn shrink(&mut self, bytes: Bytes) -> Result<Held, ProbeError> {
        self.held(&Order::Shrink(bytes))
    }

    /// Makes it give everything back.
    pub fn release(&mut self) -> Result<Held, ProbeError> {
        self.held(&Order::Release)
    }

    /// Compares every word held; a wrong one is an error that says what was found where.
    pub fn check(&mut self) -> Result<Checked, ProbeError> {
        match self.ask(&Order::Check)? {
            Answer::Checked(checked) => Ok(checked),
            answer => Err(unexpected(&Order::Check, &answer)),
        }
    }

    /// Touches `pages` pages, so many of a hundred by writing them.
    pub fn touch(&mut self, pattern: Pattern, pages: u64, writes_percent: u8) -> Result<Touched, ProbeError> {
        let order = Order::Touch { pattern, pages, writes_percent };
        match self.ask(&order)? {
            Answer::Touched(touched) => Ok(touched),
            answer => Err(unexpected(&order, &answer)),
        }
    }

    /// Waits until the guest has so much memory, or so little.
    pub fn wait_total(&mut self, side: Side, bytes: Bytes, seconds: u32) -> Result<Memory, ProbeError> {
        self.wait(&Order::WaitMemory { available: false, side, bytes, seconds }, seconds)
    }

    /// Waits until the guest could give so much memory to programs, or so little.
    pub fn wait_available(&mut self, side: Side, bytes: Bytes, seconds: u32) -> Result<Memory, ProbeError> {
        self.wait(&Order::WaitMemory { available: true, side, bytes, seconds }, seconds)
    }

    /// Starts the check in the background.
    pub fn churn_start(&mut self, writes_percent: u8) -> Result<Churned, ProbeError> {
        self.churned(&Order::ChurnStart { writes_percent })
    }

    /// How far the check in the background is; a wrong word that it met is an error.
    pub fn churn(&mut self) -> Result<Churned, ProbeError> {
        self.churned(&Order::Churn)
    }

    /// Ends the check in the background; a wrong word that it met is an error.
    pub fn churn_stop(&mut self) -> Result<Churned, ProbeError> {
        self.churned(&Order::ChurnStop)
    }

    /// Makes the probe hold one page beside the others.
    pub fn page(&mut self) -> Result<OnePage, ProbeError> {
        self.one_page(&Order::Page)
    }

    /// Reads that page's first word.
    pub fn page_read(&mut self) -> Result<OnePage, ProbeError> {
        self.one_page(&Order::PageRead)
    }

    /// Writes that page's first word.
    pub fn page_write(&mut self, value: u64) -> Result<OnePage, ProbeError> {
        self.one_page(&Order::PageWrite(value))
    }

    /// Gives that page back.
    pub fn page_release(&mut self) -> Result<(), ProbeError> {
        self.done(&Order::PageRelease)
    }

    /// Gives `command` to the guest's shell and waits for its end. What it leaves running in the background must not keep its
    /// output (`… >log 2>&1 &`).
    pub fn run(&mut self, command: &str) -> Result<Ran, ProbeError> {
        if command.contains('\n') {
            return Err(ProbeError::NotOneLine(command.to_owned()));
        }
        let order = Order::Run(command.to_owned());
        match self.ask(&order)? {
            Answer::Ran(ran) => Ok(ran),
            answer => Err(unexpected(&order, &answer)),
        }
    }

    /// Ends the guest. The answer comes before the end.
    pub fn power_off(mut self) -> Result<(), ProbeError> {
        self.done(&Order::PowerOff)
    }

    /// Sends `order` and waits for what belongs to it.
    pub fn ask(&mut self, order: &Order) -> Result<Answer, ProbeError> {
        let id = self.next_id;
        self.next_id += 1;
        let line = format!("{}\n", Request { id: Some(id), order: order.clone() });
        let deadline = Instant::now() + self.patience;
        self.stream.write_all(line.as_bytes()).map_err(|source| broken(order, source))?;
        loop {
            let line = self.line(order, deadline)?;
            // Lines that a shell, a former connection or a former order left behind are not ours.
            let Ok(reply) = serde_json::from_slice::<Reply>(&line) else { continue };
            self.greeted(order, &reply)?;
            match reply.outcome {
                _ if reply.id != Some(id) => {}
                Outcome::Answer(answer) => return Ok(answer),
                Outcome::Error(reason) => {
                    return Err(ProbeError::Refused { order: order.to_string(), reason });
                }
            }
        }
    }

    /// A probe that greets unasked, and is not the one that was spoken to, knows nothing of the order.
    fn greeted(&mut self, order: &Order, reply: &Reply) -> Result<(), ProbeError> {
        let known = self.ready.run;
        match &reply.outcome {
            Outcome::Answer(Answer::Ready(ready))
                if reply.id.is_none() && known != 0 && ready.run > known =>
            {
                self.ready = *ready;
                Err(ProbeError::Restarted { order: order.to_string(), run: ready.run })
            }
            _ => Ok(()),
        }
    }

    fn line(&mut self, order: &Order, deadline: Instant) -> Result<Vec<u8>, ProbeError> {
        let mut piece = [0; 4096];
        loop {
            if let Some(end) = self.arrived.iter().position(|byte| *byte == b'\n') {
                return Ok(self.arrived.drain(..=end).collect());
            }
            if self.arrived.len() > LINE_BYTES_MAX {
                return Err(broken(order, io::Error::other("a line without end arrived")));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let late = || ProbeError::Late { order: order.to_string(), patience: self.patience };
            if left.is_zero() {
                return Err(late());
            }
            self.stream.set_read_timeout(Some(left)).map_err(|source| broken(order, source))?;
            match self.stream.read(&mut piece) {
                Ok(0) => return Err(broken(order, io::ErrorKind::UnexpectedEof.into())),
                Ok(count) => self.arrived.extend_from_slice(&piece[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(late()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(broken(order, error)),
            }
        }
    }

    fn filled(&mut self, order: &Order) -> Result<Filled, ProbeError> {
        match self.ask(order)? {
            Answer::Filled(filled) => Ok(filled),
            answer => Err(unexpected(order, &answer)),
        }
    }

    fn held(&mut self, order: &Order) -> Result<Held, ProbeError> {
        match self.ask(order)? {
            Answer::Held(held) => Ok(held),
            answer => Err(unexpected(order, &answer)),
        }
    }

    fn wait(&mut self, order: &Order, seconds: u32) -> Result<Memory, ProbeError> {
        let usual = self.patience;
        self.patience = Duration::from_secs(seconds.into()) + WAIT_MARGIN;
        let answer = self.ask(order);
        self.patience = usual;
        match answer? {
            Answer::Memory(memory) => Ok(memory),
            answer => Err(unexpected(order, &answer)),
        }
    }

    fn churned(&mut self, order: &Order) -> Result<Churned, ProbeError> {
        match self.ask(order)? {
            Answer::Churned(churned) => Ok(churned),
            answer => Err(unexpected(order, &answer)),
        }
    }

    fn one_page(&mut self, order: &Order) -> Result<OnePage, ProbeError> {
        match self.ask(order)? {
            Answer::Page(page) => Ok(page),
            answer => Err(unexpected(order, &answer)),
        }
    }

    fn done(&mut self, order: &Order) -> Result<(), ProbeError> {
        match self.ask(order)? {
            Answer::Done => Ok(()),
            answer => Err(unexpected(order, &answer)),
        }
    }
}

/// Numbers of two connections differ: an answer to the one may arrive on the other.
fn first_id() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    // JSON readers keep 53 bits of a number; microseconds stay below that for the next two hundred years.
    u64::try_from(now.as_micros()).unwrap_or_default()
}

fn broken(order: &Order, source: io::Error) -> ProbeError {
    ProbeError::Broken { order: order.to_string(), source }
}

fn unexpected(order: &Order, answer: &Answer) -> ProbeError {
    ProbeError::UnexpectedAnswer { order: order.to_string(), answer: format!("{answer:?}") }
}
