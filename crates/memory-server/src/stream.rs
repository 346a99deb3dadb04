//! The bytes of one connection: a socket, with TLS or without.

use std::cell::RefCell;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rackmem_uapi::gather::{Piece, send_pieces};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, recv, send, sendmsg};
use rustls::ServerConnection;

use crate::batch::Batch;
use crate::spin::{Rhythm, Spinners};

/// One connection's socket. It is shared with the accepting thread only so that a shutdown can end its reading side.
pub(crate) struct Stream {
    socket: Arc<OwnedFd>,
    tls: Option<Tls>,
    rhythm: Rhythm,
    deadline: Option<Instant>,
}

struct Tls {
    connection: ServerConnection,
    /// Pages pass through here, since what encrypts them needs a plain slice.
    scratch: Vec<u8>,
}

/// Bytes of pages that are encrypted at a time: the most that fit into one TLS record.
const TLS_CHUNK: usize = 16 << 10;

/// How long a client that was sent away may take to close: a round trip across a slow network.
const LINGER: Duration = Duration::from_millis(500);

impl Stream {
    pub(crate) fn plain(socket: Arc<OwnedFd>) -> Self {
        Self { socket, tls: None, rhythm: Rhythm::default(), deadline: None }
    }

    pub(crate) fn tls(socket: Arc<OwnedFd>, mut connection: ServerConnection) -> Self {
        // A batch is bounded already.
        connection.set_buffer_limit(None);
        let tls = Some(Tls { connection, scratch: vec![0; TLS_CHUNK] });
        Self { socket, tls, rhythm: Rhythm::default(), deadline: None }
    }

    /// Gives up sending when the client takes nothing for so long.
    pub(crate) fn set_send_timeout(&self, time: Duration) -> io::Result<()> {
        Ok(set_socket_timeout(&*self.socket, Timeout::Send, Some(time))?)
    }

    /// Gives up receiving at this time, also when bytes of a handshake come one by one.
    pub(crate) fn set_receive_deadline(&mut self, deadline: Option<Instant>) -> io::Result<()> {
        self.deadline = deadline;
        // The kernel takes no timeout of zero for one.
        let left = |deadline: Instant| {
            deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1))
        };
        Ok(set_socket_timeout(&*self.socket, Timeout::Recv, deadline.map(left))?)
    }

    /// Waits for bytes and takes what is there; 0 at the end of the stream.
    pub(crate) fn receive(&mut self, buffer: &mut [u8], spinners: &Spinners) -> io::Result<usize> {
        let mut socket = Socket(&self.socket);
        let Some(Tls { connection, .. }) = &mut self.tls else {
            let buffer = RefCell::new(buffer);
            let attempt = || match recv(&*self.socket, &mut **buffer.borrow_mut(), RecvFlags::DONTWAIT) {
                Err(Errno::AGAIN | Errno::INTR) => None,
                result => Some(result.map(|(count, _)| count).map_err(io::Error::from)),
            };
            return self.rhythm.wait(spinners, attempt, || socket.read(&mut buffer.borrow_mut()));
        };
        loop {
            match connection.reader().read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // A peer that just closes is no attack here: every frame tells its length.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
                result => return result,
            }
            if self.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            if connection.read_tls(&mut socket)? == 0 {
                return Ok(0);
            }
            let state = connection.process_new_packets();
            // Handshake messages, or the alert that says why not.
            while connection.wants_write() {
                connection.write_tls(&mut socket)?;
            }
            state.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        }
    }

    /// Sends all of a batch.
    pub(crate) fn send(&mut self, batch: &Batch) -> io::Result<()> {
        let Some(Tls { connection, scratch }) = &mut self.tls else { return send_plain(&self.socket, batch) };
        let mut socket = Socket(&self.socket);
        for piece in batch.pieces(0) {
            match piece {
                Piece::Bytes(bytes) => connection.writer().write_all(bytes)?,
                Piece::Shared(memory, offset, len) => {
                    for at in (0..len).step_by(TLS_CHUNK) {
                        let chunk = &mut scratch[..TLS_CHUNK.min(len - at)];
                        memory.read(offset + at, chunk);
                        connection.writer().write_all(chunk)?;
                    }
                }
            }
        }
        while connection.wants_write() {
            connection.write_tls(&mut socket)?;
        }
        Ok(())
    }

    /// Sends `bytes` with a descriptor on the first of them. Only for plain Unix sockets.
    pub(crate) fn send_with_descriptor(&mut self, bytes: &[u8], descriptor: impl AsFd) -> io::Result<()> {
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let descriptors = [descriptor.as_fd()];
        control.push(SendAncillaryMessage::ScmRights(&descriptors));
        let sent =
            retry(|| sendmsg(&*self.socket, &[io::IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL))?;
        Socket(&self.socket).write_all(&bytes[sent..])
    }

    /// Reads on for a moment and throws it away, until the client has seen what was sent last and closes: a socket that is
    /// closed with bytes unread resets the connection, and the client would lose the reason.
    pub(crate) fn linger(&mut self) {
        let deadline = Instant::now() + LINGER;
        let mut waste = [0; 4096];
        while Instant::now() < deadline {
            let deadline_is_set = self.set_receive_deadline(Some(deadline)).is_ok();
            if !deadline_is_set || !matches!(Socket(&self.socket).read(&mut waste), Ok(1..)) {
                return;
            }
        }
    }

    /// Says goodbye as the transport wants it.
    pub(crate) fn close(&mut self) {
        if let Some(Tls { connection, .. }) = &mut self.tls {
            connection.send_close_notify();
            // The peer may be gone already, which is as good.
            let _ = connection.write_tls(&mut Socket(&self.socket));
        }
        let _ = rustix::net::shutdown(&*self.socket, rustix::net::Shutdown::Write);
    }
}

fn send_plain(socket: &OwnedFd, batch: &Batch) -> io::Result<()> {
    let mut sent = 0;
    while sent < batch.len() {
        match send_pieces(socket.as_fd(), batch.pieces(sent)) {
            Ok(count) => sent += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// A blocking socket as `Read` and `Write`, never raising SIGPIPE.
struct Socket<'a>(&'a OwnedFd);

impl Read for Socket<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        retry(|| recv(self.0, &mut *buffer, RecvFlags::empty()).map(|(count, _)| count))
    }
}

impl Write for Socket<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        retry(|| send(self.0, bytes, SendFlags::NOSIGNAL))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn retry<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            result => return Ok(result?),
        }
    }
}
