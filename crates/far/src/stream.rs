//! One connection as a stream of bytes that never blocks: a TCP or Unix socket, with or without TLS.
//!
//! It knows nothing of frames and never reconnects.

use std::io::{self, IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendFlags,
};
use rustls::ClientConnection;

/// A connected socket.
pub(crate) struct Stream {
    fd: OwnedFd,
    tls: Option<Box<Tls>>,
}

struct Tls {
    connection: ClientConnection,
    /// Bytes that were received and not decrypted yet, `unread` of them. rustls itself would ask the socket for a few
    /// kilobytes at a time.
    inbox: Vec<u8>,
    unread: Range<usize>,
}

/// Room for what one system call receives: as much as a memory server sends at a time.
const TLS_RECEIVE: usize = 64 << 10;

/// The socket itself, for rustls to read and write.
struct Socket<'a>(BorrowedFd<'a>);

impl Read for Socket<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::net::recv(self.0, buffer, RecvFlags::DONTWAIT)?.0)
    }
}

impl Write for Socket<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::net::send(self.0, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        Ok(rustix::net::sendmsg(self.0, slices, &mut SendAncillaryBuffer::default(), flags)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Stream {
    /// Without TLS.
    pub(crate) fn plain(fd: OwnedFd) -> Self {
        Self { fd, tls: None }
    }

    /// With TLS; makes the handshake, at most until `deadline`.
    pub(crate) fn tls(fd: OwnedFd, connection: ClientConnection, deadline: Instant) -> io::Result<Self> {
        let tls = Tls { connection, inbox: vec![0; TLS_RECEIVE], unread: 0..0 };
        let mut stream = Self { fd, tls: Some(Box::new(tls)) };
        while stream.tls.as_ref().is_some_and(|tls| tls.connection.is_handshaking()) {
            stream.flush()?;
            let result = stream.receive_tls();
            // What rustls wants to say about an error has to leave before the error is reported.
            let flushed = stream.flush();
            match result? {
                Some(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Some(_) => flushed?,
                None => stream.wait(PollFlags::IN, deadline)?,
            }
        }
        stream.flush()?;
        Ok(stream)
    }

    /// Sends what the socket takes now of these slices, one after the other; 0: nothing at this time. With TLS it is part of the
    /// first one at most.
    pub(crate) fn send(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        if self.tls.is_none() {
            return would_block_is(Socket(self.fd.as_fd()).write_vectored(slices), 0);
        }
        let Some(bytes) = slices.first() else { return Ok(0) };
        self.flush()?;
        let mut taken = 0;
        // rustls takes 64 KiB at a time; what it cannot send stays with it and the next call takes less.
        while let Some(tls) = self.tls.as_mut()
            && taken < bytes.len()
        {
            let more = tls.connection.writer().write(&bytes[taken..])?;
            if more == 0 {
                break;
            }
            taken += more;
            self.flush()?;
        }
        Ok(taken)
    }

    /// Sends what TLS has encrypted and the socket did not take yet.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        let Some(Tls { connection, .. }) = self.tls.as_deref_mut() else { return Ok(()) };
        while connection.wants_write() {
            if would_block_is(connection.write_tls(&mut Socket(self.fd.as_fd())), 0)? == 0 {
                break;
            }
        }
        Ok(())
    }

    /// Whether [`Stream::flush`] has something to do once the socket is writable.
    pub(crate) fn wants_write(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.connection.wants_write())
    }

    /// Closes it and takes back what the kernel has not sent yet: it must not arrive after what a later connection sends.
    pub(crate) fn abort(self) {
        // Where this is refused, the socket is none that sends anything after its end.
        let _ = rustix::net::sockopt::set_socket_linger(&self.fd, Some(Duration::ZERO));
    }

    /// Whether a short [`Stream::recv`] means that there is no more for now.
    pub(crate) fn short_means_empty(&self) -> bool {
        self.tls.is_none()
    }

    /// Receives what is there; `None`: nothing now, 0: the peer has closed.
    pub(crate) fn recv(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        if self.tls.is_none() {
            return would_block_is(Socket(self.fd.as_fd()).read(buffer).map(Some), None);
        }
        loop {
            if let Some(tls) = &mut self.tls {
                match tls.connection.reader().read(buffer) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    result => return result.map(Some),
                }
            }
            match self.receive_tls()? {
                Some(0) => return Ok(Some(0)),
                Some(_) => {}
                None => return Ok(None),
            }
        }
    }

    /// As [`Stream::recv`], on a Unix socket, with the descriptor that came along.
    pub(crate) fn recv_with_fd(&self, buffer: &mut [u8]) -> io::Result<(Option<usize>, Option<OwnedFd>)> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let message =
            match rustix::net::recvmsg(&self.fd, &mut [io::IoSliceMut::new(buffer)], &mut control, flags) {
                Err(Errno::WOULDBLOCK) => return Ok((None, None)),
                message => message?,
            };
        if message.flags.contains(ReturnFlags::CTRUNC) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "more descriptors than expected"));
        }
        let fd = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        Ok((Some(message.bytes), fd))
    }

    /// Blocks until the socket is ready; `TimedOut` at `deadline`.
    pub(crate) fn wait(&self, flags: PollFlags, deadline: Instant) -> io::Result<()> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
            match rustix::event::poll(&mut [PollFd::new(&self.fd, flags)], Some(&timeout)) {
                Ok(0) | Err(Errno::INTR) => {}
                result => return Ok(result.map(drop)?),
            }
        }
    }

    fn receive_tls(&mut self) -> io::Result<Option<usize>> {
        let Some(tls) = &mut self.tls else { return Ok(None) };
        if tls.unread.is_empty() {
            let received = Socket(self.fd.as_fd()).read(&mut tls.inbox);
            match would_block_is(received.map(Some), None)? {
                Some(count) => tls.unread = 0..count,
                None => return Ok(None),
            }
        }
        let taken = tls.connection.read_tls(&mut &tls.inbox[tls.unread.clone()])?;
        tls.unread.start += taken;
        if let Err(error) = tls.connection.process_new_packets() {
            let _ = self.flush();
            return Err(io::Error::new(io::ErrorKind::InvalidData, error));
        }
        Ok(Some(taken))
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn would_block_is<T>(result: io::Result<T>, nothing: T) -> io::Result<T> {
    match result {
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
            Ok(nothing)
        }
        result => result,
    }
}
