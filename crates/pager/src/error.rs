//! Why a pager could not begin.

use std::io;
use std::path::PathBuf;

use rackmem_control::ControlError;
use rackmem_far::FarError;
use rackmem_inject::InjectError;
use rackmem_trace::TraceError;
use rackmem_types::Bytes;

use crate::LIMIT_MIN;
pub use crate::estate::EstateError;

/// Why a process could not be given far memory. The process is unharmed in every case.
#[derive(Debug, thiserror::Error)]
pub enum PagerError {
    /// See the text.
    #[error("there is no process {0}")]
    NoProcess(u32),
    /// See the text.
    #[error("{pid} is a thread of process {process}: attach to {process}")]
    Thread {
        /// What was asked for.
        pid: u32,
        /// What it belongs to.
        process: u32,
    },
    /// See the text.
    #[error("process {0} ({1}) has no memory of its own: it is a kernel thread, or has ended")]
    NoMemory(u32, String),
    /// See the text.
    #[error("process {pid} is being traced by process {tracer} (a debugger, strace?): end that first")]
    Traced {
        /// The process.
        pid: u32,
        /// Who traces it.
        tracer: u32,
    },
    /// See the text.
    #[error(
        "process {0} has a resident thread already: it is attached ('rackmem ps' shows it), or its pager was killed, and then \
         'rackmem attach' takes over"
    )]
    Entered(u32),
    /// See the text.
    #[error("process {0} has nothing to be taken over: it is not under far memory, or was let go")]
    NothingLeft(u32),
    /// See the text.
    #[error("process {0} cannot be taken over: {1}")]
    Estate(u32, #[source] EstateError),
    /// See the text.
    #[error("taking over from a pager that was killed needs Linux 6.9; the target goes on waiting")]
    TakeOverKernel,
    /// See the text.
    #[error("a local limit of {0} is too small: the least is {LIMIT_MIN}")]
    LimitTooSmall(Bytes),
    /// See the text.
    #[error("'{0}' is not a kernel feature that can be switched off: there are move and poison")]
    Feature(String),
    /// See the text.
    #[error("this kernel gives no userfaultfd: {0}; 'rackmem doctor' says what is missing")]
    Userfaultfd(#[source] io::Error),
    /// See the text.
    #[error("the userfaultfd of the process could not be set up: {0}; 'rackmem doctor' says what is missing")]
    Api(#[source] io::Error),
    /// See the text.
    #[error("memory of the process could not be registered: {0}")]
    Register(#[source] io::Error),
    /// See the text.
    #[error("more processes than a pager can follow (65,536)")]
    TooManyProcesses,
    /// See the text.
    #[error("the pager could not be set up: {0}")]
    Memory(#[source] io::Error),
    /// See the text.
    #[error("the trace file {0} could not be written: {1}")]
    Trace(PathBuf, #[source] TraceError),
    /// See the text.
    #[error(transparent)]
    Inject(#[from] InjectError),
    /// See the text.
    #[error(transparent)]
    Far(#[from] FarError),
    /// See the text.
    #[error(transparent)]
    Control(#[from] ControlError),
}
