//! Question and answer on one connection, blocking with a deadline: for greetings and for whole segments, never for pages.

use std::io::{self, IoSlice};
use std::os::fd::OwnedFd;
use std::time::Instant;

use rackmem_wire::{Answer, FRAME_BYTES_MAX, Request};
use rustix::event::PollFlags;

use crate::stream::Stream;

/// One read's worth; answers about segments are far smaller, only the list of all segments is larger.
const READ_BYTES: usize = 16 << 10;

/// A connection with at most one request unanswered.
pub(crate) struct Session {
    stream: Stream,
    unix: bool,
    received: Vec<u8>,
    fd: Option<OwnedFd>,
    next_id: u64,
    out: Vec<u8>,
}

impl Session {
    pub(crate) fn new(stream: Stream, unix: bool) -> Self {
        Self { stream, unix, received: Vec::new(), fd: None, next_id: 1, out: Vec::new() }
    }

    /// Sends `request`, waits for its answer and gives it to `take`. After an error the connection is of no more use.
    pub(crate) fn call<T>(
        &mut self,
        request: &Request<'_>,
        deadline: Instant,
        take: impl FnOnce(Answer<'_>) -> T,
    ) -> io::Result<T> {
        let id = self.next_id;
        self.tell(request, deadline)?;
        loop {
            if let Some((answered, answer, len)) = Answer::parse(&self.received).map_err(garbage)? {
                // Zero is an ERROR about the connection, which is an answer to anything.
                if answered != id && answered != 0 {
                    return Err(garbage("it answers what was not asked"));
                }
                let taken = take(answer);
                self.received.drain(..len);
                return Ok(taken);
            }
            self.receive(deadline)?;
        }
    }

    /// Sends `request`, which has no answer.
    pub(crate) fn tell(&mut self, request: &Request<'_>, deadline: Instant) -> io::Result<()> {
        let id = self.next_id;
        self.next_id += 1;
        self.out.clear();
        request.encode(id, &mut self.out);
        self.send(deadline)
    }

    /// The descriptor that came with the last answer.
    pub(crate) fn take_fd(&mut self) -> Option<OwnedFd> {
        self.fd.take()
    }

    /// The bare connection, once nothing is unanswered.
    pub(crate) fn into_stream(self) -> io::Result<Stream> {
        if self.received.is_empty() { Ok(self.stream) } else { Err(garbage("it says more than was asked")) }
    }

    fn send(&mut self, deadline: Instant) -> io::Result<()> {
        let mut sent = 0;
        while sent < self.out.len() || self.stream.wants_write() {
            sent += self.stream.send(&[IoSlice::new(&self.out[sent..])])?;
            if sent < self.out.len() || self.stream.wants_write() {
                self.stream.wait(PollFlags::OUT, deadline)?;
            }
        }
        Ok(())
    }

    fn receive(&mut self, deadline: Instant) -> io::Result<()> {
        let start = self.received.len();
        if start > FRAME_BYTES_MAX {
            return Err(garbage("it sends without end"));
        }
        self.received.resize(start + READ_BYTES, 0);
        let target = &mut self.received[start..];
        let result = if self.unix {
            self.stream.recv_with_fd(target).map(|(len, fd)| {
                self.fd = fd.or(self.fd.take());
                len
            })
        } else {
            self.stream.recv(target)
        };
        self.received.truncate(start + result.as_ref().ok().copied().flatten().unwrap_or(0));
        match result? {
            Some(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Some(_) => Ok(()),
            None => self.stream.wait(PollFlags::IN, deadline),
        }
    }
}

fn garbage(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
