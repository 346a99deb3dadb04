//! Load on a controller through its API: many who reserve at the same time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Result, ensure};
use rackmem_api::controller::{ControllerClient, ReservationNew};
use rackmem_api::operation::WaitQuery;
use rackmem_api::{LatencyClass, Operation, OperationState};
use rackmem_types::Bytes;
use tokio::task::JoinSet;

/// Who reserve at the same time, each on a connection of its own.
const CLIENTS: u64 = 128;

/// Seconds that one reservation may take.
const WAIT_MAX_S: u32 = 60;

/// What each reserves.
const MEMORY: Bytes = Bytes(16 << 20);

/// Makes `count` reservations for the `computes` compute bricks in turn. Each is waited for until it has ended well, if `to_the_end`;
/// else only until it is accepted.
pub(crate) async fn reserve(
    client: &ControllerClient,
    computes: u64,
    count: u64,
    to_the_end: bool,
) -> Result<Vec<Operation>> {
    let next = Arc::new(AtomicU64::new(0));
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS.min(count) {
        let (client, next) = (client.clone(), Arc::clone(&next));
        clients.spawn(async move {
            let mut operations = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    return Ok::<_, anyhow::Error>(operations);
                }
                let operation = client.reservation_create(&new(number, computes)).await?;
                operations.push(if to_the_end { ended(&client, operation).await? } else { operation });
            }
        });
    }
    let mut operations = Vec::new();
    while let Some(of_one) = clients.join_next().await {
        operations.extend(of_one??);
    }
    Ok(operations)
}

async fn ended(client: &ControllerClient, operation: Operation) -> Result<Operation> {
    let mut operation = operation;
    if !operation.state.is_final() {
        operation = client.operation_wait(operation.id, WaitQuery { timeout: WAIT_MAX_S }).await?;
    }
    ensure!(operation.state == OperationState::Done, "a reservation failed: {operation:?}");
    Ok(operation)
}

/// The classes in turn, for the compute bricks in turn.
fn new(number: u64, computes: u64) -> ReservationNew {
    let class = [LatencyClass::Tray, LatencyClass::Rack, LatencyClass::Interrack][number as usize % 3];
    ReservationNew::memory(Some(format!("c{}", number % computes)), MEMORY, class)
}

/// A runtime for one load: one thread, because the controller and the agents need the processors too.
pub(crate) fn block_on<T>(load: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(load)
}
