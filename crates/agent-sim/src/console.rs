//! What a simulated guest shows: a console that repeats what is typed, and a program that touches a page.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use rackmem_api::agent::{Access, Console, VmState};
use rackmem_api::problem::{Problem, ProblemType};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::time::Instant;

use crate::brick::SimVm;

/// Bytes that wait on their way to or from a console.
const BUFFER_BYTES: usize = 8 << 10;

/// How often a watched page is touched.
const TOUCH_EVERY: Duration = Duration::from_millis(100);

/// The machine, if its guest runs.
pub(crate) fn of_running(vm: &SimVm) -> Result<&SimVm, Problem> {
    if vm.state == VmState::Running {
        return Ok(vm);
    }
    Err(Problem::new(
        ProblemType::WrongState,
        format!("'{}' does not run: start or resume it first", vm.name),
    ))
}

/// A console that shows the log and then repeats what is typed.
pub(crate) fn open(log: &str) -> Console {
    let (near, far) = tokio::io::duplex(BUFFER_BYTES);
    tokio::spawn(repeat(far, log.as_bytes().to_vec()));
    Console(Box::new(near))
}

async fn repeat(mut console: DuplexStream, greeting: Vec<u8>) {
    let mut typed = vec![0; BUFFER_BYTES];
    let mut shown = greeting;
    while console.write_all(&shown).await.is_ok() {
        match console.read(&mut typed).await {
            Ok(count) if count > 0 => shown = typed[..count].to_vec(),
            _ => break,
        }
    }
}

/// Accesses to the page at `address`, every other one a write.
pub(crate) fn watch(
    vm: &SimVm,
    address: u64,
) -> Result<BoxStream<'static, Result<Access, Problem>>, Problem> {
    let end = vm.base.0 + vm.plugged.0;
    if address >= end {
        let detail = format!("'{}' has no memory at address {address}: it ends at {end}", vm.name);
        return Err(Problem::new(ProblemType::Invalid, detail));
    }
    let (begun, thread) = (Instant::now(), vm.pid.unwrap_or_default());
    let touches = stream::unfold(0u64, move |count| async move {
        tokio::time::sleep(TOUCH_EVERY).await;
        let at_us = begun.elapsed().as_micros() as u64;
        Some((Ok(Access { at_us, thread, address, write: count % 2 == 1 }), count + 1))
    });
    Ok(touches.boxed())
}
