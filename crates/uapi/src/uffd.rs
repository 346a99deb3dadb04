//! userfaultfd: one function per ioctl, and the messages that it delivers.
//!
//! Source: `include/uapi/linux/userfaultfd.h` of Linux 6.18. The numbers are computed here from direction, size, type and
//! number, and checked against the published values below.

use std::ffi::c_ulong;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::Ordering;

use crate::shared::SharedMemory;

/// Features that `UFFDIO_API` offers and grants (`UFFD_FEATURE_*`).
pub mod feature {
    /// Forks of the process are reported, with a descriptor for the child (4.11).
    pub const EVENT_FORK: u64 = 1 << 1;
    /// `mremap` is reported (4.11).
    pub const EVENT_REMAP: u64 = 1 << 2;
    /// `madvise(MADV_DONTNEED)` and its kin are reported before they take place (4.11).
    pub const EVENT_REMOVE: u64 = 1 << 3;
    /// `munmap` is reported (4.11).
    pub const EVENT_UNMAP: u64 = 1 << 6;
    /// Faults carry the thread that waits (4.14).
    pub const THREAD_ID: u64 = 1 << 8;
    /// Faults carry the address to the byte (5.18).
    pub const EXACT_ADDRESS: u64 = 1 << 11;
    /// `UFFDIO_POISON` works (6.6).
    pub const POISON: u64 = 1 << 14;
    /// `UFFDIO_MOVE` works (6.8).
    pub const MOVE: u64 = 1 << 16;
}

/// `UFFD_USER_MODE_ONLY`: the descriptor handles no faults taken inside the kernel.
pub const USER_MODE_ONLY: u32 = 1;

/// `_UFFDIO_API` handshake version.
const UFFD_API: u64 = 0xaa;
/// `UFFDIO_REGISTER_MODE_MISSING`.
const REGISTER_MODE_MISSING: u64 = 1;

const fn iowr<T>(number: u32) -> u32 {
    (3 << 30) | ((size_of::<T>() as u32) << 16) | (0xaa << 8) | number
}

const fn ior<T>(number: u32) -> u32 {
    (2 << 30) | ((size_of::<T>() as u32) << 16) | (0xaa << 8) | number
}

/// `struct uffdio_range`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct Range {
    start: u64,
    len: u64,
}

/// `struct uffdio_api`.
#[repr(C)]
struct Api {
    api: u64,
    features: u64,
    ioctls: u64,
}

/// `struct uffdio_register`.
#[repr(C)]
struct Register {
    range: Range,
    mode: u64,
    ioctls: u64,
}

/// `struct uffdio_copy`; `struct uffdio_move` has the same shape.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct Copy {
    dst: u64,
    src: u64,
    len: u64,
    mode: u64,
    done: i64,
}

/// `struct uffdio_zeropage` and `struct uffdio_poison`.
#[repr(C)]
struct Fill {
    range: Range,
    mode: u64,
    done: i64,
}

const UFFDIO_API: u32 = iowr::<Api>(0x3f); // _IOWR(UFFDIO, _UFFDIO_API, struct uffdio_api)
const UFFDIO_REGISTER: u32 = iowr::<Register>(0x00); // _IOWR(UFFDIO, _UFFDIO_REGISTER, struct uffdio_register)
const UFFDIO_UNREGISTER: u32 = ior::<Range>(0x01); // _IOR(UFFDIO, _UFFDIO_UNREGISTER, struct uffdio_range)
const UFFDIO_WAKE: u32 = ior::<Range>(0x02); // _IOR(UFFDIO, _UFFDIO_WAKE, struct uffdio_range)
const UFFDIO_COPY: u32 = iowr::<Copy>(0x03); // _IOWR(UFFDIO, _UFFDIO_COPY, struct uffdio_copy)
const UFFDIO_ZEROPAGE: u32 = iowr::<Fill>(0x04); // _IOWR(UFFDIO, _UFFDIO_ZEROPAGE, struct uffdio_zeropage)
/// Request number of `UFFDIO_MOVE`, for threads that call it inside the target.
pub const UFFDIO_MOVE: u32 = iowr::<Copy>(0x05); // _IOWR(UFFDIO, _UFFDIO_MOVE, struct uffdio_move)
const UFFDIO_CONTINUE: u32 = iowr::<Fill>(0x07); // _IOWR(UFFDIO, _UFFDIO_CONTINUE, struct uffdio_continue)
const UFFDIO_POISON: u32 = iowr::<Fill>(0x08); // _IOWR(UFFDIO, _UFFDIO_POISON, struct uffdio_poison)
/// Request number of `USERFAULTFD_IOC_NEW` on `/dev/userfaultfd` (6.1).
pub const USERFAULTFD_IOC_NEW: u32 = 0xaa00;

const _: () = assert!(UFFDIO_API == 0xc018_aa3f);
const _: () = assert!(UFFDIO_REGISTER == 0xc020_aa00);
const _: () = assert!(UFFDIO_UNREGISTER == 0x8010_aa01);
const _: () = assert!(UFFDIO_COPY == 0xc028_aa03);
const _: () = assert!(UFFDIO_MOVE == 0xc028_aa05);
const _: () = assert!(size_of::<Message>() == 32);

/// Bytes of a `struct uffdio_move`.
pub const MOVE_BYTES: usize = size_of::<Copy>();
/// Offset of the signed count of moved bytes, or negative error, in a `struct uffdio_move`.
pub const MOVE_DONE_OFFSET: usize = 32;

/// A `struct uffdio_move` to place in the target's memory: `len` bytes from `src` to `dst`.
pub fn move_argument(dst: u64, src: u64, len: u64) -> [u8; MOVE_BYTES] {
    let mut bytes = [0; MOVE_BYTES];
    for (field, value) in [dst, src, len, 0, 0].into_iter().enumerate() {
        bytes[field * 8..field * 8 + 8].copy_from_slice(&value.to_ne_bytes());
    }
    bytes
}

/// Opens a userfaultfd for the calling process, close-on-exec and non-blocking.
pub fn create(flags: u32) -> io::Result<OwnedFd> {
    let flags = flags as i32 | libc::O_CLOEXEC | libc::O_NONBLOCK;
    // SAFETY: the call takes an integer and returns a descriptor; no memory is involved.
    let fd = unsafe { libc::syscall(libc::SYS_userfaultfd, flags) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just gave us this descriptor; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Opens the interface with `features`; gives all features that the kernel has. May be called once per descriptor.
///
/// Errors: `EINVAL` if a feature is unknown to the kernel, `EPERM` if `EVENT_FORK` is asked without `CAP_SYS_PTRACE`.
pub fn api(fd: BorrowedFd<'_>, features: u64) -> io::Result<u64> {
    let mut argument = Api { api: UFFD_API, features, ioctls: 0 };
    ioctl(fd, UFFDIO_API, &mut argument)?;
    Ok(argument.features)
}

/// Registers `len` bytes from `start` on for missing-page faults. Idempotent.
pub fn register_missing(fd: BorrowedFd<'_>, start: u64, len: u64) -> io::Result<()> {
    let range = Range { start, len };
    ioctl(fd, UFFDIO_REGISTER, &mut Register { range, mode: REGISTER_MODE_MISSING, ioctls: 0 })
}

/// Ends the registration of a range and wakes whoever waits there.
pub fn unregister(fd: BorrowedFd<'_>, start: u64, len: u64) -> io::Result<()> {
    ioctl(fd, UFFDIO_UNREGISTER, &mut Range { start, len })
}

/// Wakes the threads that wait for pages of a range; they take their faults again.
pub fn wake(fd: BorrowedFd<'_>, start: u64, len: u64) -> io::Result<()> {
    ioctl(fd, UFFDIO_WAKE, &mut Range { start, len })
}

/// How far a ranged operation came: bytes done, and the error that stopped it, if any.
#[derive(Debug)]
pub struct Progress {
    /// Bytes done from the start of the range.
    pub done: u64,
    /// Why the rest was not done.
    pub error: Option<io::Error>,
}

/// Fills missing pages at `dst` with `len` bytes at `src` of **this** process and wakes their waiters.
///
/// `src` is read by the kernel: an address that is not mapped gives `EFAULT`, never undefined behaviour.
/// Errors: `EEXIST` page is there, `EAGAIN` the mappings are changing (read events, then retry), `ENOENT` no such
/// mapping, `ESRCH` the address space is gone.
pub fn copy(fd: BorrowedFd<'_>, dst: u64, src: u64, len: u64) -> Progress {
    let mut argument = Copy { dst, src, len, mode: 0, done: 0 };
    let result = ioctl(fd, UFFDIO_COPY, &mut argument);
    progress(result, argument.done, len)
}

/// Maps zeros at missing pages of a range and wakes their waiters. Errors as for [`copy`].
pub fn zeropage(fd: BorrowedFd<'_>, start: u64, len: u64) -> Progress {
    let mut argument = Fill { range: Range { start, len }, mode: 0, done: 0 };
    let result = ioctl(fd, UFFDIO_ZEROPAGE, &mut argument);
    progress(result, argument.done, len)
}

/// Marks missing pages of a range as lost: touching them gives SIGBUS. Wakes their waiters. Errors as for [`copy`].
pub fn poison(fd: BorrowedFd<'_>, start: u64, len: u64) -> Progress {
    let mut argument = Fill { range: Range { start, len }, mode: 0, done: 0 };
    let result = ioctl(fd, UFFDIO_POISON, &mut argument);
    progress(result, argument.done, len)
}

/// Whether a private anonymous mapping that is registered with a userfaultfd lies at `address`.
///
/// Asks for something that such a mapping cannot do (`UFFDIO_CONTINUE`, for shared memory): the kernel finds the mapping
/// first (`ENOENT` if there is none, or it is not registered) and then refuses (`EINVAL`). Nothing is changed. `None` while a
/// message about a changed mapping is unread (`EAGAIN`).
pub fn is_registered(fd: BorrowedFd<'_>, address: u64) -> Option<bool> {
    const PAGE: u64 = rackmem_types::PAGE_SIZE as u64;
    let mut argument = Fill { range: Range { start: address, len: PAGE }, mode: 0, done: 0 };
    let error = ioctl(fd, UFFDIO_CONTINUE, &mut argument).err();
    match error.and_then(|error| error.raw_os_error()) {
        Some(libc::EAGAIN) => None,
        code => Some(!matches!(code, Some(libc::ENOENT | libc::ESRCH))),
    }
}

/// Whether the address space that the userfaultfd with this number belongs to is still there. Asked as in [`is_registered`].
pub fn is_alive(number: RawFd) -> bool {
    const PAGE: u64 = rackmem_types::PAGE_SIZE as u64;
    // Any address will do that the kernel takes for one of a user's.
    let mut argument = Fill { range: Range { start: 1 << 20, len: PAGE }, mode: 0, done: 0 };
    // SAFETY: the argument is the struct whose size is encoded in the request, alive for the call.
    let result =
        unsafe { libc::ioctl(number, c_ulong::from(UFFDIO_CONTINUE), std::ptr::from_mut(&mut argument)) };
    !(result < 0 && io::Error::last_os_error().raw_os_error() == Some(libc::ESRCH))
}

/// What a userfaultfd reports.
#[derive(Debug)]
pub enum Event {
    /// A thread touched a missing page and waits.
    Fault {
        /// The address, to the byte where `EXACT_ADDRESS` was granted.
        address: u64,
        /// Whether the access was a write.
        write: bool,
        /// The thread, where `THREAD_ID` was granted.
        thread: u32,
    },
    /// The process forked; the parent waits until this message is read.
    Fork {
        /// The child's userfaultfd: same registrations, same features.
        child: OwnedFd,
    },
    /// Pages moved by `mremap`.
    Remap {
        /// Where they were.
        from: u64,
        /// Where they are.
        to: u64,
        /// Bytes.
        len: u64,
    },
    /// The pages of the range are about to be dropped.
    Remove {
        /// First byte.
        start: u64,
        /// Behind the last byte.
        end: u64,
    },
    /// The range was unmapped.
    Unmap {
        /// First byte.
        start: u64,
        /// Behind the last byte.
        end: u64,
    },
}

/// `struct uffd_msg` with its union as three words.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Message {
    event: u8,
    reserved: [u8; 7],
    words: [u64; 3],
}

/// Messages taken by one [`read`].
pub const MESSAGES_MAX: usize = 64;

/// Reads up to [`MESSAGES_MAX`] messages and appends them to `events`; nothing if none is there (non-blocking).
///
/// Every message is read into `events` or an error is returned; a message of an unknown kind is `InvalidData`.
pub fn read(fd: BorrowedFd<'_>, events: &mut Vec<Event>) -> io::Result<usize> {
    let mut messages = [Message::default(); MESSAGES_MAX];
    // SAFETY: the buffer is plain memory of exactly the length given, and any bit pattern is a valid `Message`.
    let bytes = unsafe { libc::read(fd.as_raw_fd(), messages.as_mut_ptr().cast(), size_of_val(&messages)) };
    if bytes < 0 {
        let error = io::Error::last_os_error();
        return if error.kind() == io::ErrorKind::WouldBlock { Ok(0) } else { Err(error) };
    }
    let count = bytes as usize / size_of::<Message>();
    for message in &messages[..count] {
        events.push(decode(message)?);
    }
    Ok(count)
}

/// Bytes of a `struct uffd_msg`.
pub const MESSAGE_BYTES: usize = size_of::<Message>();

/// As [`read`], into shared memory at `offset`, where the messages stay: the kernel writes them there itself, so that they
/// are known even if this process ends before it has looked at them. Panics if there is no room for [`MESSAGES_MAX`].
pub fn read_into(
    fd: BorrowedFd<'_>,
    memory: &SharedMemory,
    offset: usize,
    events: &mut Vec<Event>,
) -> io::Result<usize> {
    let room = MESSAGES_MAX * MESSAGE_BYTES;
    assert!(offset + room <= memory.len(), "messages at {offset} have no room");
    let address = memory.address(offset) as *mut libc::c_void;
    // SAFETY: the mapping has `room` bytes from `address` on, as was just checked, and no Rust reference into it exists.
    let bytes = unsafe { libc::read(fd.as_raw_fd(), address, room) };
    if bytes < 0 {
        let error = io::Error::last_os_error();
        return if error.kind() == io::ErrorKind::WouldBlock { Ok(0) } else { Err(error) };
    }
    let count = bytes as usize / MESSAGE_BYTES;
    for i in 0..count {
        let word = |k: usize| memory.word(offset + i * MESSAGE_BYTES + k * 8).load(Ordering::Relaxed);
        let message = Message { event: word(0) as u8, reserved: [0; 7], words: [word(1), word(2), word(3)] };
        events.push(decode(&message)?);
    }
    Ok(count)
}

/// A message that was read before, by its words; of a fork the number of its descriptor, which was its reader's. `None`: there
/// is none, or of another kind.
pub fn recorded(words: [u64; 4]) -> Option<Recorded> {
    Some(match words[0] as u8 {
        EVENT_FORK => Recorded::Fork { number: words[1] as u32 as i32 },
        0x14 => Recorded::Remap { from: words[1], to: words[2], len: words[3] },
        0x15 => Recorded::Remove { start: words[1], end: words[2] },
        0x16 => Recorded::Unmap { start: words[1], end: words[2] },
        _ => return None,
    })
}

/// A change of mappings that was read before.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "as in `Event`")]
pub enum Recorded {
    Fork { number: i32 },
    Remap { from: u64, to: u64, len: u64 },
    Remove { start: u64, end: u64 },
    Unmap { start: u64, end: u64 },
}

const EVENT_FORK: u8 = 0x13;

fn decode(message: &Message) -> io::Result<Event> {
    let [first, second, third] = message.words;
    Ok(match message.event {
        // arg.pagefault: flags, address, ptid; UFFD_PAGEFAULT_FLAG_WRITE is bit 0.
        0x12 => Event::Fault { address: second, write: first & 1 != 0, thread: third as u32 },
        // SAFETY: the kernel installed this descriptor in our table for this message; nobody else owns it.
        EVENT_FORK => Event::Fork { child: unsafe { OwnedFd::from_raw_fd(first as u32 as i32) } },
        0x14 => Event::Remap { from: first, to: second, len: third },
        0x15 => Event::Remove { start: first, end: second },
        0x16 => Event::Unmap { start: first, end: second },
        _ => {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a userfaultfd message of an unknown kind",
            ));
        }
    })
}

fn progress(result: io::Result<()>, done: i64, len: u64) -> Progress {
    match result {
        Ok(()) => Progress { done: len, error: None },
        Err(error) => Progress { done: u64::try_from(done).unwrap_or(0), error: Some(error) },
    }
}

fn ioctl<T>(fd: BorrowedFd<'_>, request: u32, argument: &mut T) -> io::Result<()> {
    // SAFETY: every caller in this file passes the struct whose size is encoded in `request`, alive for the call.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), c_ulong::from(request), std::ptr::from_mut(argument)) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
