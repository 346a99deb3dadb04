//! The dispatcher: running operations go to workers in the order in which they were accepted, so many at a time.
//!
//! A worker's place is for work, not for waiting. Whoever is asked for something by many stands behind a line; who waits in it, or for
//! an answer that does not come soon, gives the place up. So a brick that hangs stops those who need it, and nobody else.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use rackmem_rack::{Name, Quotas};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::hands::Hands;
use crate::ledger::Ledger;
use crate::worker::Worker;

/// Requests to one brick or switch at a time.
const LINE_LENGTH: usize = 16;

/// The lines before bricks and switches.
#[derive(Debug, Default)]
pub(crate) struct Lines(Mutex<HashMap<Name, Arc<Semaphore>>>);

impl Lines {
    /// A turn at a brick or switch; none if others are all that it can be asked by now.
    pub(crate) fn turn(&self, of: &Name) -> Result<OwnedSemaphorePermit, Arc<Semaphore>> {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let line = lines.entry(of.clone()).or_insert_with(|| Arc::new(Semaphore::new(LINE_LENGTH)));
        Arc::clone(line).try_acquire_owned().map_err(|_| Arc::clone(line))
    }
}

/// Carries out operations by their numbers until nobody sends any more.
pub(crate) async fn run(
    ledger: Arc<Ledger>,
    hands: Arc<dyn Hands>,
    quotas: Arc<Quotas>,
    workers: usize,
    mut queue: mpsc::UnboundedReceiver<u64>,
) {
    let places = Arc::new(Semaphore::new(workers.max(1)));
    let lines = Arc::new(Lines::default());
    while let Some(seq) = queue.recv().await {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let (ledger, hands) = (Arc::clone(&ledger), Arc::clone(&hands));
        let (quotas, lines) = (Arc::clone(&quotas), Arc::clone(&lines));
        let worker = Worker { ledger, hands, quotas, lines, seq, place: Some(place) };
        tokio::spawn(worker.run());
    }
}
