//! The bytes of one connection: a socket, with TLS or without.

use std::cell::RefCell;
use std::io::{self, Read, Write};
use std::ops::Range;
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
    /// What is sent passes through here: one record for each chunk, however small the pieces are.
    scratch: Vec<u8>,
    inbox: Inbox,
}

/// Bytes that were received and not decrypted yet. rustls itself would ask the socket for a few kilobytes at a time.
struct Inbox {
    bytes: Vec<u8>,
    unread: Range<usize>,
}

/// Bytes that are encrypted at a time: the most that fit into one TLS record.
const TLS_CHUNK: usize = 16 << 10;

/// Encrypted bytes that are sent at a time: the client decrypts the first while we encrypt the next.
const TLS_SEND: usize = 4 * TLS_CHUNK;

/// Room for what one system call receives: as much as a send.
const TLS_RECEIVE: usize = 64 << 10;

/// How long a client that was sent away may take to close: a round trip across a slow network.
const LINGER: Duration = Duration::from_millis(500);

impl Stream {
    pub(crate) fn plain(socket: Arc<OwnedFd>) -> Self {
        Self { socket, tls: None, rhythm: Rhythm::default(), deadline: None }
    }

    pub(crate) fn tls(socket: Arc<OwnedFd>, mut connection: ServerConnection) -> Self {
        // A batch is bounded already.
        connection.set_buffer_limit(None);
        let inbox = Inbox { bytes: vec![0; TLS_RECEIVE], unread: 0..0 };
        let tls = Some(Tls { connection, scratch: vec![0; TLS_CHUNK], inbox });
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
        let Some(Tls { connection, inbox, .. }) = &mut self.tls else {
            let buffer = RefCell::new(buffer);
            let attempt = || match recv(&*self.socket, &mut **buffer.borrow_mut(), RecvFlags::DONTWAIT) {
                Err(Errno::AGAIN | Errno::INTR) => None,
                result => Some(result.map(|(count, _)| count).map_err(io::Error::from)),
            };
            return self.rhythm.wait(spinners, attempt, || socket.read(&mut buffer.borrow_mut()));
        };
        let mut filled = 0;
        loop {
            match connection.reader().read(&mut buffer[filled..]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // A peer that just closes is no attack here: every frame tells its length.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(filled),
                Ok(count @ 1..) if filled + count < buffer.len() => {
                    filled += count;
                    continue;
                }
                result => return result.map(|count| filled + count),
            }
            if self.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            if inbox.unread.is_empty() {
                if filled > 0 {
                    return Ok(filled);
                }
                inbox.unread = 0..socket.read(&mut inbox.bytes)?;
            }
            if connection.read_tls(inbox)? == 0 {
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
        let Some(tls) = &mut self.tls else { return send_plain(&self.socket, batch) };
        let mut socket = Socket(&self.socket);
        let (mut filled, mut encrypted) = (0, 0);
        for mut piece in batch.pieces(0) {
            while !piece.is_empty() {
                let count = piece.len().min(TLS_CHUNK - filled);
                let room = &mut tls.scratch[filled..filled + count];
                match piece {
                    Piece::Bytes(bytes) => room.copy_from_slice(&bytes[..count]),
                    Piece::Shared(memory, offset, _) => memory.read(offset, room),
                }
                piece = piece.skip(count);
                filled += count;
                if filled == TLS_CHUNK {
                    tls.connection.writer().write_all(&tls.scratch)?;
                    filled = 0;
                    encrypted += TLS_CHUNK;
                }
            }
            if encrypted >= TLS_SEND {
                encrypted = 0;
                tls.send(&mut socket)?;
            }
        }
        tls.connection.writer().write_all(&tls.scratch[..filled])?;
        tls.send(&mut socket)
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

impl Tls {
    /// Sends all that is encrypted.
    fn send(&mut self, socket: &mut Socket<'_>) -> io::Result<()> {
        while self.connection.wants_write() {
            self.connection.write_tls(socket)?;
        }
        Ok(())
    }
}

impl Read for Inbox {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = buffer.len().min(self.unread.len());
        buffer[..count].copy_from_slice(&self.bytes[self.unread.start..self.unread.start + count]);
        self.unread.start += count;
        Ok(count)
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

    fn write_vectored(&mut self, slices: &[io::IoSlice<'_>]) -> io::Result<usize> {
        retry(|| sendmsg(self.0, slices, &mut SendAncillaryBuffer::default(), SendFlags::NOSIGNAL))
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
