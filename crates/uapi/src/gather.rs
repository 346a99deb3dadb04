//! Sending bytes that lie in several places, some of them in shared memory, with one system call.
//!
//! The kernel copies straight out of the mapping, so no reference to memory that others may write is ever formed.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::shared::SharedMemory;

/// Pieces that one call takes: `UIO_MAXIOV` of `include/uapi/linux/uio.h`.
pub const PIECES_MAX: usize = 1024;

/// A run of bytes to be sent.
#[derive(Clone, Copy, Debug)]
pub enum Piece<'a> {
    /// Plain bytes.
    Bytes(&'a [u8]),
    /// Bytes of a shared mapping: memory, offset, length.
    Shared(&'a SharedMemory, usize, usize),
}

impl Piece<'_> {
    /// Length in bytes.
    pub fn len(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Shared(_, _, len) => *len,
        }
    }

    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The piece without its first `count` bytes.
    pub fn skip(self, count: usize) -> Self {
        match self {
            Self::Bytes(bytes) => Self::Bytes(&bytes[count..]),
            Self::Shared(memory, offset, len) => Self::Shared(memory, offset + count, len - count),
        }
    }
}

/// `sendmsg(2)` of up to [`PIECES_MAX`] pieces, the rest is left alone; never raises SIGPIPE. Returns the bytes sent.
///
/// Panics if a piece lies outside its mapping.
pub fn send_pieces<'a>(socket: BorrowedFd<'_>, pieces: impl Iterator<Item = Piece<'a>>) -> io::Result<usize> {
    let mut vectors = [const { MaybeUninit::<libc::iovec>::uninit() }; PIECES_MAX];
    let mut count = 0;
    for (vector, piece) in vectors.iter_mut().zip(pieces) {
        let base = match piece {
            Piece::Bytes(bytes) => bytes.as_ptr() as u64,
            Piece::Shared(memory, offset, len) => {
                assert!(
                    offset.checked_add(len).is_some_and(|end| end <= memory.len()),
                    "outside the mapping"
                );
                memory.address(offset)
            }
        };
        vector.write(libc::iovec { iov_base: base as *mut libc::c_void, iov_len: piece.len() });
        count += 1;
    }
    // SAFETY: all fields of `msghdr` are integers and pointers, for which zero bytes are valid values.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = vectors.as_mut_ptr().cast();
    message.msg_iovlen = count;
    // SAFETY: the first `count` vectors are initialised, each names memory that outlives the call by `'a` and that the
    // kernel only reads; it may change meanwhile, which the kernel bears.
    let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn sends_plain_and_shared_bytes_in_order() {
        let (one, mut two) = UnixStream::pair().unwrap();
        let memory = SharedMemory::create("test", 4096).unwrap();
        memory.write(100, b"shared");
        let pieces = [Piece::Bytes(b"plain "), Piece::Shared(&memory, 100, 6).skip(2)];
        assert_eq!(send_pieces(one.as_fd(), pieces.into_iter()).unwrap(), 10);
        let mut bytes = [0; 10];
        two.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"plain ared");
    }

    #[test]
    fn a_closed_peer_is_an_error_and_no_signal() {
        let (one, two) = UnixStream::pair().unwrap();
        drop(two);
        let error = send_pieces(one.as_fd(), [Piece::Bytes(b"x")].into_iter()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }
}
