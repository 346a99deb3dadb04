//! What can go wrong between the command line and a pager, in sentences for the user.

use std::io;
use std::path::PathBuf;

/// Why a pager could not be reached, or what it answered.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Neither variable that says where the sockets are is set, and this is not root.
    #[error(
        "there is no directory for the pagers' sockets: set RACKMEM_RUNTIME_DIR (or XDG_RUNTIME_DIR) to a directory of yours"
    )]
    NoDirectory,
    /// The runtime directory could be written by somebody else, who could then pose as a pager.
    #[error(
        "the runtime directory {0} is not safe: it must belong to you and be writable by you alone (chmod go-w {0}), or set RACKMEM_RUNTIME_DIR to another one"
    )]
    UnsafeDirectory(PathBuf),
    /// The runtime directory cannot be made, listed or locked.
    #[error("cannot use the runtime directory {path}")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The socket of a target cannot be made.
    #[error("cannot make the control socket {path}")]
    Socket {
        /// The socket.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Another pager serves this target.
    #[error("process {0} is already attached: see 'rackmem ps', or end it with 'rackmem detach {0}'")]
    AlreadyAttached(u32),
    /// No pager serves this target.
    #[error("process {0} has no far memory: 'rackmem ps' lists the processes that have")]
    NotAttached(u32),
    /// The pager is there, but talking to it failed.
    #[error("the pager of process {pid} does not answer")]
    Broken {
        /// The target.
        pid: u32,
        /// What the kernel said.
        source: io::Error,
    },
    /// The pager answered something that is not of this protocol.
    #[error(
        "the pager of process {pid} gives an answer that cannot be read; is it of another version of rackmem?"
    )]
    Garbled {
        /// The target.
        pid: u32,
        /// Where the answer stops making sense.
        source: serde_json::Error,
    },
    /// The pager refused or failed; its own sentence.
    #[error("{0}")]
    Refused(String),
}
