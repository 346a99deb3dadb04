//! Watching a guest follow. A guest changes its memory at its own pace and sometimes stops half-way; whoever asked wants to
//! know when it is done, how far it is meanwhile, and when to stop hoping.

use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::MemoryState;
use crate::{Event, Machine, Result};

/// A balloon tells of each change and virtio-mem of each block, so this is only for drivers that miss events.
pub const POLL: Duration = Duration::from_millis(200);

/// How far a guest went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Observed {
    /// All the way.
    Reached(MemoryState),
    /// Nothing moved any more for as long as was agreed; this is how it stands.
    Stalled(MemoryState),
    /// The guest refuses to let a DIMM go.
    Refused(MemoryState, String),
}

/// Watches until `reached` says so, or until nothing has moved for `stall`. `reached` sees every state on the way, so it can
/// keep the progress. Dropping the future stops the watching and changes nothing.
pub async fn observe(
    machine: &dyn Machine,
    stall: Duration,
    mut reached: impl FnMut(&MemoryState) -> bool + Send,
) -> Result<Observed> {
    let mut events = machine.events();
    let mut listening = true;
    let mut state = machine.memory().await?;
    let mut moved = Instant::now();
    loop {
        if reached(&state) {
            return Ok(Observed::Reached(state));
        }
        if moved.elapsed() >= stall {
            return Ok(Observed::Stalled(state));
        }
        if listening {
            match timeout(POLL, events.next()).await {
                Ok(Some(Event::UnplugRefused { reason, .. })) => return Ok(Observed::Refused(state, reason)),
                Ok(None) => listening = false,
                Ok(Some(_)) | Err(_) => {}
            }
        } else {
            tokio::time::sleep(POLL).await;
        }
        let now = machine.memory().await?;
        if now != state {
            moved = Instant::now();
            state = now;
        }
    }
}
