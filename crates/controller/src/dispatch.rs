//! The dispatcher: running operations go to workers in the order in which they were accepted, so many at a time.

use std::sync::Arc;

use rackmem_rack::Quotas;
use tokio::sync::{Semaphore, mpsc};

use crate::hands::Hands;
use crate::ledger::Ledger;
use crate::worker::Worker;

/// Carries out operations by their numbers until nobody sends any more.
pub(crate) async fn run(
    ledger: Arc<Ledger>,
    hands: Arc<dyn Hands>,
    quotas: Arc<Quotas>,
    workers: usize,
    mut queue: mpsc::UnboundedReceiver<u64>,
) {
    let places = Arc::new(Semaphore::new(workers.max(1)));
    while let Some(seq) = queue.recv().await {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let worker = Worker::new(Arc::clone(&ledger), Arc::clone(&hands), Arc::clone(&quotas), seq, place);
        tokio::spawn(worker.run());
    }
}
