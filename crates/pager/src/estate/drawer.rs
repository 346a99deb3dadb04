//! The drawer: forked children's userfaultfds, which only the pager has until the child is entered.
//!
//! A descriptor that was sent over a Unix socket and not received yet is held by the receiving socket. So each child's is sent
//! into a pair of sockets of which every resident thread holds both ends, the moment it is read. Taking single ones out is
//! impossible; so there are two pairs, and when one has many, those of living children are put into the other and it is
//! emptied.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::{IoSlice, IoSliceMut};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, socketpair,
};

/// Two pairs.
pub(crate) const SOCKETS: usize = 4;

/// Descriptors in one pair before it is emptied: far below what a socket's buffer takes (about 200).
const FULL: usize = 64;

/// See the module. Sockets 0 and 2 are written to, 1 and 3 read from.
pub(crate) struct Drawers {
    sockets: [OwnedFd; SOCKETS],
    /// Which pair is in use.
    active: usize,
    filled: usize,
}

impl Drawers {
    pub(crate) fn new() -> io::Result<Self> {
        let pair = || {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
        };
        let ((a, b), (c, d)) = (pair()?, pair()?);
        Ok(Self { sockets: [a, b, c, d], active: 0, filled: 0 })
    }

    /// Takes over a dead pager's drawers; gives what is in them. Each descriptor is in one of them all the time, but for the
    /// moment in which it is carried over.
    pub(crate) fn inherit(sockets: [OwnedFd; SOCKETS]) -> io::Result<(Self, Vec<(u64, OwnedFd)>)> {
        let mut drawers = Self { sockets, active: 0, filled: 0 };
        let mut found: Vec<(u64, OwnedFd)> = Vec::new();
        for active in [1, 0] {
            drawers.active = active;
            found.clear();
            while let Some((serial, fd)) = drawers.receive(1 - active)? {
                drawers.send(serial, fd.as_fd())?;
                found.push((serial, fd));
            }
        }
        drawers.filled = found.len();
        Ok((drawers, found))
    }

    pub(crate) fn inodes(&self) -> io::Result<[u64; SOCKETS]> {
        let mut inodes = [0; SOCKETS];
        for (inode, socket) in inodes.iter_mut().zip(&self.sockets) {
            *inode = rustix::fs::fstat(socket)?.st_ino;
        }
        Ok(inodes)
    }

    pub(crate) fn heirlooms(&self) -> io::Result<Vec<OwnedFd>> {
        self.sockets.iter().map(OwnedFd::try_clone).collect()
    }

    /// Puts a child's descriptor in.
    pub(crate) fn keep(&mut self, serial: u64, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.send(serial, fd)?;
        self.filled += 1;
        Ok(())
    }

    /// Whether it is time to [`Drawers::turn`].
    pub(crate) fn is_full(&self) -> bool {
        self.filled >= FULL
    }

    /// Keeps only `living`.
    pub(crate) fn turn(&mut self, living: &[(u64, BorrowedFd<'_>)]) -> io::Result<()> {
        let old = self.active;
        self.active = 1 - old;
        self.filled = 0;
        for &(serial, fd) in living {
            self.keep(serial, fd)?;
        }
        while self.receive(old)?.is_some() {}
        Ok(())
    }

    fn send(&self, serial: u64, fd: BorrowedFd<'_>) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let fds = [fd];
        ancillary.push(SendAncillaryMessage::ScmRights(&fds));
        let bytes = serial.to_ne_bytes();
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        rustix::net::sendmsg(&self.sockets[self.active * 2], &[IoSlice::new(&bytes)], &mut ancillary, flags)?;
        Ok(())
    }

    fn receive(&self, pair: usize) -> io::Result<Option<(u64, OwnedFd)>> {
        loop {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut ancillary = RecvAncillaryBuffer::new(&mut space);
            let mut bytes = [0; 8];
            let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
            let socket = &self.sockets[pair * 2 + 1];
            match rustix::net::recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, flags) {
                Err(rustix::io::Errno::AGAIN) => return Ok(None),
                Ok(message) if message.bytes == 0 => return Ok(None),
                Ok(_) => {}
                Err(errno) => return Err(errno.into()),
            }
            let fd = ancillary.drain().find_map(|message| match message {
                RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
                _ => None,
            });
            if let Some(fd) = fd {
                return Ok(Some((u64::from_ne_bytes(bytes), fd)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> OwnedFd {
        rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC).unwrap()
    }

    #[test]
    fn what_lies_in_a_drawer_outlives_who_put_it_there() {
        let mut drawers = Drawers::new().unwrap();
        for serial in 1..=3 {
            drawers.keep(serial, file().as_fd()).unwrap();
        }
        let mine = file();
        drawers.turn(&[(2, mine.as_fd())]).unwrap();
        drawers.keep(4, file().as_fd()).unwrap();
        let sockets: [OwnedFd; SOCKETS] = drawers.heirlooms().unwrap().try_into().unwrap();
        drop(drawers);
        for _ in 0..2 {
            let again = sockets.iter().map(|socket| socket.try_clone().unwrap()).collect::<Vec<_>>();
            let (heir, found) = Drawers::inherit(again.try_into().unwrap()).unwrap();
            let serials: Vec<u64> = found.iter().map(|(serial, _)| *serial).collect();
            assert_eq!((serials, heir.is_full()), (vec![2, 4], false));
        }
    }

    #[test]
    fn a_drawer_takes_far_more_than_it_is_full_with() {
        let mut drawers = Drawers::new().unwrap();
        let fd = file();
        for serial in 0..2 * FULL as u64 {
            drawers.keep(serial, fd.as_fd()).unwrap();
        }
        assert!(drawers.is_full());
    }
}
