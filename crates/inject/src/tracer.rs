//! Traces on a thread of its own, which ends with the work.
//!
//! A thread that waits inside the kernel does not stop, and once seized it cannot be let go before it stops: except by the
//! end of its tracer, at which the kernel lets go of all that it traces, whatever they do. So no tracer outlives its
//! work, and none is a thread that has anything else to do.

use std::io;
use std::sync::mpsc::{Sender, channel, sync_channel};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use crate::InjectError;
use crate::tracee::Tracee;

/// The thread through which a process was entered: it stands still until this is released or dropped.
pub struct Stopped {
    /// What the tracer waits on.
    release: Option<Sender<()>>,
    /// Ends with how long the thread stood still.
    tracer: Option<JoinHandle<Duration>>,
}

impl Stopped {
    /// Lets the thread go on. Gives how long it stood still.
    pub fn release(mut self) -> Duration {
        self.end()
    }

    fn end(&mut self) -> Duration {
        drop(self.release.take());
        // It can only fail by a panic, which has been reported.
        self.tracer.take().and_then(|tracer| tracer.join().ok()).unwrap_or_default()
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        self.end();
    }
}

/// Runs `work`, which stops a thread, and keeps that thread still afterwards. If `work` fails, all is let go.
pub(crate) fn hold<T: Send + 'static>(
    work: impl FnOnce() -> Result<(T, Tracee), InjectError> + Send + 'static,
) -> Result<(T, Stopped), InjectError> {
    let (answer, answered) = sync_channel(1);
    let (release, released) = channel::<()>();
    let tracer = spawn(move || match work() {
        Ok((result, tracee)) => {
            let since = tracee.since();
            let _ = answer.send(Ok(result));
            // Ends by an error when the other side is dropped, and that is the signal.
            let _ = released.recv();
            tracee.release();
            since.elapsed()
        }
        Err(error) => {
            let _ = answer.send(Err(error));
            Duration::ZERO
        }
    })?;
    let stopped = Stopped { release: Some(release), tracer: Some(tracer) };
    let result = answered.recv().unwrap_or_else(|_| Err(ended()))?;
    Ok((result, stopped))
}

/// Runs `work` to its end.
pub(crate) fn run<T: Send>(work: impl FnOnce() -> Result<T, InjectError> + Send) -> Result<T, InjectError> {
    std::thread::scope(|scope| {
        let tracer = Builder::new().name(NAME.to_owned()).spawn_scoped(scope, work).map_err(cannot_start)?;
        tracer.join().unwrap_or_else(|_| Err(ended()))
    })
}

/// Runs `work` in the background.
pub(crate) fn spawn<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, InjectError> {
    Builder::new().name(NAME.to_owned()).spawn(work).map_err(cannot_start)
}

const NAME: &str = "tracer";

fn cannot_start(source: io::Error) -> InjectError {
    InjectError::Local { what: "starting a thread that traces", source }
}

/// The tracer panicked.
pub(crate) fn ended() -> InjectError {
    InjectError::Local { what: "tracing", source: io::ErrorKind::BrokenPipe.into() }
}
