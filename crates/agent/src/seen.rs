//! A machine together with what it said of itself last. QEMU does not answer while its main loop waits: for its great lock, which was
//! seen to take 19 s where its translator plugged memory on a busy machine, or for far memory; nor while it is stopped. Whoever only
//! looks should not wait for that. So a look takes what comes within a moment, and otherwise what is known.
//!
//! What is known is noted whenever it is heard, whoever asked: a look after a change does not tell how it was before. One look at a
//! time is under way for each machine, and it goes on when nobody waits for it any more. The lock is over the notes alone, and
//! nothing is awaited under it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use rackmem_qemu::memory::{GuestMemory, MemoryState, Unplug};
use rackmem_qemu::{Driver, Ended, Events, Machine, ProcessIdentity, Result, RunState};
use rackmem_types::Bytes;
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

/// QEMU answers in milliseconds, if it answers at once.
const FRESH: Duration = Duration::from_millis(250);

/// A look through libvirt is ten calls of its client program, 30 ms each where a processor is free.
const FRESH_BY_LIBVIRT: Duration = Duration::from_secs(1);

/// Where nothing is known yet, an answer is worth more of a wait.
const FIRST: Duration = Duration::from_secs(2);

/// A machine that remembers what it said.
#[derive(Debug)]
pub(crate) struct Seen {
    machine: Box<dyn Machine>,
    sight: Mutex<Sight>,
    looking: AtomicBool,
    /// How many looks have ended.
    looks: watch::Sender<u64>,
}

/// What a machine said of itself.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sight {
    /// What it does.
    pub(crate) running: Option<RunState>,
    /// How its memory stands.
    pub(crate) memory: Option<MemoryState>,
    /// What its guest says.
    pub(crate) guest: Option<GuestMemory>,
    /// Why it did not tell how its memory stands when it was asked last.
    pub(crate) refusal: Option<String>,
    /// When it told that last.
    heard: Option<Instant>,
}

impl Sight {
    /// How old this is; `None` if nothing is known.
    pub(crate) fn age(&self) -> Option<Duration> {
        self.heard.map(|at| at.elapsed())
    }
}

impl Seen {
    /// A machine that has not said anything yet.
    pub(crate) fn new(machine: impl Machine + 'static) -> Self {
        Self {
            machine: Box::new(machine),
            sight: Mutex::default(),
            looking: AtomicBool::new(false),
            looks: watch::Sender::new(0),
        }
    }

    /// How it is, or how it was when it spoke last, if it does not answer at once.
    pub(crate) async fn look(self: &Arc<Self>) -> Sight {
        // Before the flag is read: a look that is under way then tells its end later.
        let mut looks = self.looks.subscribe();
        if !self.looking.swap(true, Ordering::AcqRel) {
            let seen = Arc::clone(self);
            tokio::spawn(async move {
                // All that they say is noted.
                let _ = tokio::join!(seen.state(), seen.memory(), seen.guest_memory());
                seen.looking.store(false, Ordering::Release);
                seen.looks.send_modify(|ended| *ended += 1);
            });
        }
        let _ = timeout(self.patience(), looks.changed()).await;
        self.sight().clone()
    }

    /// Whether its guest has switched itself off, as far as it says so at once. One question: this is asked all the time.
    pub(crate) async fn has_shut_down(&self) -> bool {
        matches!(timeout(self.patience(), self.state()).await, Ok(Ok(RunState::ShutDown)))
    }

    fn patience(&self) -> Duration {
        match self.machine.driver() {
            _ if self.sight().heard.is_none() => FIRST,
            Driver::Qemu => FRESH,
            Driver::Libvirt => FRESH_BY_LIBVIRT,
        }
    }

    fn sight(&self) -> MutexGuard<'_, Sight> {
        // Nothing that is done under it can panic half way.
        self.sight.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Machine for Seen {
    fn name(&self) -> &str {
        self.machine.name()
    }

    fn driver(&self) -> Driver {
        self.machine.driver()
    }

    async fn process(&self) -> Result<ProcessIdentity> {
        self.machine.process().await
    }

    async fn state(&self) -> Result<RunState> {
        let said = self.machine.state().await?;
        self.sight().running = Some(said.clone());
        Ok(said)
    }

    async fn resume(&self) -> Result<()> {
        self.machine.resume().await?;
        self.sight().running = Some(RunState::Running);
        Ok(())
    }

    async fn pause(&self) -> Result<()> {
        self.machine.pause().await?;
        self.sight().running = Some(RunState::Paused);
        Ok(())
    }

    async fn power_down(&self) -> Result<()> {
        self.machine.power_down().await
    }

    async fn stop(&self, patience: Duration) -> Result<Ended> {
        self.machine.stop(patience).await
    }

    async fn execute(&self, command: &str, arguments: Value) -> Result<Value> {
        self.machine.execute(command, arguments).await
    }

    fn events(&self) -> Events {
        self.machine.events()
    }

    async fn balloon_to(&self, size: Bytes) -> Result<()> {
        self.machine.balloon_to(size).await
    }

    async fn virtio_mem_request(&self, device: &str, size: Bytes) -> Result<()> {
        self.machine.virtio_mem_request(device, size).await
    }

    async fn memory(&self) -> Result<MemoryState> {
        let said = self.machine.memory().await;
        let mut sight = self.sight();
        match &said {
            Ok(memory) => {
                sight.memory = Some(memory.clone());
                sight.heard = Some(Instant::now());
                sight.refusal = None;
            }
            Err(error) => sight.refusal = Some(error.to_string()),
        }
        said
    }

    async fn guest_memory(&self) -> Result<Option<GuestMemory>> {
        let said = self.machine.guest_memory().await?;
        self.sight().guest = said;
        Ok(said)
    }

    async fn dimm_plug(&self, id: &str, size: Bytes, node: Option<u32>) -> Result<()> {
        self.machine.dimm_plug(id, size, node).await
    }

    async fn dimm_unplug(&self, id: &str) -> Result<Unplug> {
        self.machine.dimm_unplug(id).await
    }
}
