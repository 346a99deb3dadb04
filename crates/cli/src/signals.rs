//! How `run` is no obstacle between its parent and the program: which signals go on to the child, and how
//! the wrapper ends like it.

use std::os::fd::{AsFd, BorrowedFd};

use anyhow::Context;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rackmem_uapi::inherited::signal_reset;
use rustix::io::Errno;
use rustix::process::{Pid, Resource, Rlimit, WaitOptions, WaitStatus, getpid, kill_process, waitpid};

/// Signals whose meaning is the program's business. Those that stop or kill by force never reach the wrapper's code.
const FORWARDED: [Signal; 12] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGALRM,
    Signal::SIGCONT,
    Signal::SIGTSTP,
    Signal::SIGWINCH,
    Signal::SIGIO,
    Signal::SIGPWR,
];

/// What happened to the child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Exited(u8),
    /// By the signal of this number.
    Killed(i32),
}

/// The child, and the signals that come for it.
#[derive(Debug)]
pub(crate) struct Ward {
    child: Pid,
    signals: SignalFd,
}

impl Ward {
    /// From now on signals are read, not delivered. Call it after the child was started: it inherits the mask of then.
    pub(crate) fn new(child: Pid) -> anyhow::Result<Self> {
        // A parent may have had it ignored, and then children would be reaped unseen.
        signal_reset(rustix::process::Signal::CHILD).context("cannot take signals")?;
        let mut set = SigSet::from_iter(FORWARDED);
        set.add(Signal::SIGCHLD);
        set.thread_block().context("cannot block signals")?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        let signals = SignalFd::with_flags(&set, flags).context("cannot take signals")?;
        Ok(Self { child, signals })
    }

    /// Passes on what has arrived, and stops together with the child. The child's end, if it has come.
    pub(crate) fn attend(&self) -> anyhow::Result<Option<End>> {
        while let Some(info) = self.signals.read_signal().context("cannot read signals")? {
            let Some(signal) = rustix::process::Signal::from_named_raw(info.ssi_signo as i32) else {
                continue;
            };
            // The kernel sends a terminal's signals to the whole process group, so the child has those already; an
            // alarm that the wrapper's parent set before its exec is for the program.
            let is_for_child = info.ssi_code <= 0 || signal == rustix::process::Signal::ALARM;
            if is_for_child && signal != rustix::process::Signal::CHILD {
                self.send(signal);
            }
        }
        self.look()
    }

    /// Kills the child.
    pub(crate) fn kill(&self) {
        self.send(rustix::process::Signal::KILL);
    }

    /// Waits for the end of a child that is about to end.
    pub(crate) fn wait(&self) -> anyhow::Result<End> {
        loop {
            match waitpid(Some(self.child), WaitOptions::empty()) {
                Err(Errno::INTR) => {}
                status => {
                    let (_, status) = status.context("cannot wait for the program")?.context("no program")?;
                    if let Some(end) = ended(status) {
                        return Ok(end);
                    }
                }
            }
        }
    }

    fn look(&self) -> anyhow::Result<Option<End>> {
        let options = WaitOptions::NOHANG | WaitOptions::UNTRACED;
        while let Some((_, status)) =
            waitpid(Some(self.child), options).context("cannot wait for the program")?
        {
            if status.stopped() {
                kill_process(getpid(), rustix::process::Signal::STOP).context("cannot stop")?;
                // Whoever woke the wrapper meant the program.
                self.send(rustix::process::Signal::CONT);
            } else {
                return Ok(ended(status));
            }
        }
        Ok(None)
    }

    fn send(&self, signal: rustix::process::Signal) {
        // It can only fail when the child has ended, which its SIGCHLD tells.
        let _ = kill_process(self.child, signal);
    }
}

impl AsFd for Ward {
    /// Readable when [`Ward::attend`] has something to do.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.signals.as_fd()
    }
}

fn ended(status: WaitStatus) -> Option<End> {
    let exited = status.exit_status().map(|code| End::Exited(code as u8));
    exited.or_else(|| status.terminating_signal().map(End::Killed))
}

/// Ends this process by the signal of that number, so that its parent sees what happened to the program. Gives the
/// exit code of a shell where that does not kill.
pub(crate) fn die_by(number: i32) -> u8 {
    // The program has dumped its core if it wanted to; ours would overwrite it.
    let _ = rustix::process::setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    if let Some(signal) = rustix::process::Signal::from_named_raw(number) {
        let _ = signal_reset(signal);
        let _ = SigSet::all().thread_unblock();
        let _ = kill_process(getpid(), signal);
    }
    128u8.wrapping_add(number as u8)
}
