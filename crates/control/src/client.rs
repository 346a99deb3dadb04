//! The asker's side: one connection to one pager.

use std::io::{self, BufReader};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rackmem_types::Bytes;
use serde::de::DeserializeOwned;

use crate::line::{ANSWER_BYTES_MAX, Answer, Line, Request, read_line, write_line};
use crate::{Access, ControlError, DetachReport, LendReport, Lending, TargetStats, directory};

/// A pager reads its counters in microseconds; one that takes this long is stuck, and `ps` should go on without it.
const STATS_MAX: Duration = Duration::from_secs(2);

/// A connection to the pager of one target.
#[derive(Debug)]
pub struct Client {
    pid: u32,
    stream: BufReader<UnixStream>,
}

impl Client {
    /// Connects to the pager of target `pid`.
    pub fn open(pid: u32) -> Result<Self, ControlError> {
        Self::open_in(&directory::directory()?, pid)
    }

    /// [`open`](Self::open) in another runtime directory.
    pub fn open_in(directory: &Path, pid: u32) -> Result<Self, ControlError> {
        let stream =
            UnixStream::connect(directory::socket(directory, pid)).map_err(|source| match source.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => ControlError::NotAttached(pid),
                _ => ControlError::Broken { pid, source },
            })?;
        Ok(Self { pid, stream: BufReader::new(stream) })
    }

    /// Process id of the target.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The counters and gauges of now.
    pub fn stats(&mut self) -> Result<TargetStats, ControlError> {
        self.ask(&Request::Stats, Some(STATS_MAX))
    }

    /// Changes the local limit; returns when it is in force, however much has to leave for that.
    pub fn limit_set(&mut self, limit: Bytes) -> Result<(), ControlError> {
        self.ask(&Request::LimitSet { limit }, None)
    }

    /// Brings everything home; returns when the target is free, however much has to come for that.
    pub fn detach(&mut self) -> Result<DetachReport, ControlError> {
        self.ask(&Request::Detach, None)
    }

    /// Lets the target use exactly this far memory from now on; returns when it is in force, however much has to
    /// be moved for that.
    pub fn lend(&mut self, lending: Lending) -> Result<LendReport, ControlError> {
        self.ask(&Request::Lend { lending }, None)
    }

    /// Watches the page at `address`. The accesses end when the target does.
    pub fn watch(mut self, address: u64) -> Result<Accesses, ControlError> {
        self.send(&Request::Watch { address })?;
        self.patience(None)?;
        Ok(Accesses { client: self, ended: false })
    }

    fn ask<T: DeserializeOwned>(
        &mut self,
        request: &Request,
        patience: Option<Duration>,
    ) -> Result<T, ControlError> {
        self.patience(patience)?;
        self.send(request)?;
        self.receive()?.ok_or_else(|| {
            self.broken(io::Error::new(io::ErrorKind::UnexpectedEof, "it closed the connection"))
        })
    }

    fn patience(&self, patience: Option<Duration>) -> Result<(), ControlError> {
        self.stream.get_ref().set_read_timeout(patience).map_err(|error| self.broken(error))
    }

    fn send(&mut self, request: &Request) -> Result<(), ControlError> {
        match write_line(self.stream.get_mut(), request) {
            // A pager that refuses the connection itself says so and closes; its sentence is there to be read.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            sent => sent.map_err(|error| self.broken(error)),
        }
    }

    /// The next answer; `None` where the pager closed the connection.
    fn receive<T: DeserializeOwned>(&mut self) -> Result<Option<T>, ControlError> {
        let text = match read_line(&mut self.stream, ANSWER_BYTES_MAX) {
            Ok(Line::Text(text)) => text,
            Ok(Line::End) => return Ok(None),
            Ok(Line::TooLong) => return Err(self.broken(io::Error::other("its answer has no end"))),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(self.broken(io::Error::new(io::ErrorKind::TimedOut, "it took too long")));
            }
            Err(error) => return Err(self.broken(error)),
        };
        match serde_json::from_slice(&text) {
            Ok(Answer::Ok(value)) => Ok(Some(value)),
            Ok(Answer::Error(sentence)) => Err(ControlError::Refused(sentence)),
            Err(source) => Err(ControlError::Garbled { pid: self.pid, source }),
        }
    }

    fn broken(&self, source: io::Error) -> ControlError {
        ControlError::Broken { pid: self.pid, source }
    }
}

/// The accesses to a watched page, as they happen. Dropping it ends the watch, and so does its [`WatchEnd`].
#[derive(Debug)]
pub struct Accesses {
    client: Client,
    ended: bool,
}

/// Ends a watch when it is dropped, also while somebody waits for the next access.
#[derive(Debug)]
pub struct WatchEnd(UnixStream);

impl Accesses {
    /// What ends them from elsewhere.
    pub fn end(&self) -> Result<WatchEnd, ControlError> {
        let stream = self.client.stream.get_ref().try_clone();
        stream.map(WatchEnd).map_err(|error| self.client.broken(error))
    }
}

impl Drop for WatchEnd {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

impl Iterator for Accesses {
    type Item = Result<Access, ControlError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let next = self.client.receive().transpose();
        self.ended = !matches!(next, Some(Ok(_)));
        next
    }
}
