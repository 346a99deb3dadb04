//! What a process gets from the one that started it: numbered descriptors and signal actions.
//!
//! It never touches a descriptor that this program opened itself.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use rustix::process::Signal;

/// Takes descriptor `number`, which the parent process left open for this one, and makes it close on exec.
///
/// Refuses standard input, output and error, closed numbers, and descriptors that close on exec: all that Rust's
/// library and rustix open do, so a descriptor without that flag was inherited, and it is taken at most once.
pub fn take_descriptor(number: RawFd) -> io::Result<OwnedFd> {
    let refused =
        |text: &str| io::Error::new(io::ErrorKind::InvalidInput, format!("descriptor {number} {text}"));
    if number < 3 {
        return Err(refused("is not one to take over"));
    }
    // SAFETY: F_GETFD reads a flag; a number that is not open gives EBADF.
    let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
    if flags == -1 {
        return Err(io::Error::last_os_error());
    }
    if flags & libc::FD_CLOEXEC != 0 {
        return Err(refused("was not inherited"));
    }
    // SAFETY: F_SETFD sets a flag of a descriptor that was just found open.
    if unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } == -1 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: open, and owned by nobody: it lacked the flag that everything opened in this process has.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Closes descriptor `number`, whoever opened it. Only for a process that runs nothing else any more: anything that believes it
/// owns the descriptor would from then on use another file, or none.
pub fn close_descriptor(number: RawFd) -> io::Result<()> {
    // SAFETY: the call takes an integer; no memory is involved. That nobody uses the number is the caller's affair.
    if unsafe { libc::close(number) } == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Gives `signal` its default action again, for instance SIGPIPE, which Rust's runtime ignores.
pub fn signal_reset(signal: Signal) -> io::Result<()> {
    // SAFETY: SIG_DFL installs no handler, so no code of ours can run in signal context.
    let before = unsafe { libc::signal(signal.as_raw(), libc::SIG_DFL) };
    if before == libc::SIG_ERR { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::{AsRawFd, IntoRawFd};

    use rustix::io::FdFlags;

    #[test]
    fn takes_an_inherited_descriptor_once() {
        let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        assert!(take_descriptor(reader.as_raw_fd()).is_err(), "one of our own");
        rustix::io::fcntl_setfd(&reader, FdFlags::empty()).unwrap();
        let number = reader.into_raw_fd();
        let taken = take_descriptor(number).unwrap();
        assert!(take_descriptor(number).is_err(), "taken twice");
        rustix::io::write(&writer, b"x").unwrap();
        let mut byte = [0];
        assert_eq!(rustix::io::read(&taken, &mut byte).unwrap(), 1);
        assert!(take_descriptor(1).is_err());
        assert!(take_descriptor(987_654).is_err());
        assert!(close_descriptor(987_654).is_err());
        close_descriptor(taken.into_raw_fd()).unwrap();
        assert!(rustix::io::write(&writer, b"x").is_err(), "nobody reads any more");
    }

    #[test]
    fn resets_what_can_be_reset() {
        signal_reset(Signal::USR2).unwrap();
        assert!(signal_reset(Signal::KILL).is_err());
    }
}
