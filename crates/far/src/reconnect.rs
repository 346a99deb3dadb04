//! Gets a broken connection back, in a thread of its own so that nobody waits for name servers and handshakes.

use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::FarError;
use crate::memory::{Bell, Shared};
use crate::server::Server;
use crate::stream::Stream;

/// The first pause between two attempts; it doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(5);
/// The longest pause: a server that comes back is found within a quarter of a second.
const PAUSE_MAX: Duration = Duration::from_millis(250);

/// Attempts that fit into the time even if all but the last hang: one that meets a damaged handshake, or a server that
/// dies in the middle of it, is never answered and must not use up the time of the others.
const ATTEMPTS_MIN: u32 = 4;

/// Attempts going on; gives the new connection, or why the server is lost.
pub(crate) struct Reconnect {
    result: Receiver<Result<Stream, String>>,
    /// When the server is lost, even if the thread hangs in a name server.
    deadline: Instant,
}

impl Reconnect {
    /// Starts to dial until `deadline`. Rings `bell` when there is a result.
    pub(crate) fn start(
        shared: &Arc<Shared>,
        server: &Arc<Server>,
        bell: &Arc<Bell>,
        deadline: Instant,
        why: &str,
    ) -> Self {
        let (sender, result) = mpsc::channel();
        let (shared, server, bell) = (shared.clone(), server.clone(), Arc::downgrade(bell));
        let why = why.to_owned();
        let attempts = move || {
            let outcome = dial(&shared, &server, &bell, deadline, &why);
            let _ = sender.send(outcome);
            if let Some(bell) = bell.upgrade() {
                bell.ring();
            }
        };
        // Without a thread the deadline passes and the server counts as lost.
        if let Err(error) = thread::Builder::new().name("far-reconnect".into()).spawn(attempts) {
            tracing::error!(%error, "no thread to reconnect to a memory server");
        }
        Self { result, deadline }
    }

    /// The result, once there is one.
    pub(crate) fn poll(&self, now: Instant) -> Option<Result<Stream, String>> {
        let late = || (now >= self.deadline + PAUSE_MAX).then(|| Err("it cannot be reached".to_owned()));
        self.result.try_recv().ok().or_else(late)
    }

    /// When to look even if no bell rings.
    pub(crate) fn give_up_at(&self) -> Instant {
        self.deadline + PAUSE_MAX
    }
}

fn dial(
    shared: &Shared,
    server: &Server,
    bell: &Weak<Bell>,
    deadline: Instant,
    why: &str,
) -> Result<Stream, String> {
    let attempt_max = shared.config.lost_after / ATTEMPTS_MIN;
    let mut pause = PAUSE_MIN;
    let mut last = why.to_owned();
    // The port may be gone, or another port may have found the server lost.
    while bell.strong_count() > 0 && server.serves() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        match server.dialer.dial(left.min(attempt_max)) {
            Ok((_, welcome)) if welcome.epoch != server.epoch => {
                return Err(FarError::Restarted { address: server.address() }.to_string());
            }
            Ok((session, _)) => match session.into_stream() {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error.to_string(),
            },
            Err(error) => last = error.to_string(),
        }
        thread::sleep(pause.min(deadline.saturating_duration_since(Instant::now())));
        pause = (pause * 2).min(PAUSE_MAX);
    }
    Err(last)
}
