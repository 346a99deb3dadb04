//! Machines that are driven by QMP, without anything between: those that are started here, and any QEMU whose monitor has a
//! Unix socket. The conversation is opened anew when it broke and the process lives, so a driver never has to be made again.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rackmem_types::Bytes;
use serde_json::{Value, json};
use tokio::net::UnixStream;
use tokio::sync::{Mutex, broadcast};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::machine::answer;
use crate::qmp::Qmp;
use crate::{
    Driver, Ended, Event, Events, Machine, MachineFiles, ProcessIdentity, QemuError, Result, RunState,
    process,
};

/// Events that a slow listener may be behind by. A guest that plugs 64 GiB in blocks of 2 MiB is at most this noisy in a second.
const EVENTS_MAX: usize = 1024;

/// A QEMU that was told to end ends in a tenth of a second, unless its disk is slow to flush.
const QUIT_PATIENCE: Duration = Duration::from_secs(10);

/// A QEMU process and its monitor.
#[derive(Debug)]
pub struct DirectMachine {
    name: String,
    socket: PathBuf,
    process: ProcessIdentity,
    conversation: Mutex<Option<Arc<Qmp>>>,
    events: broadcast::Sender<Event>,
    /// Tells when the process has ended.
    watch: JoinHandle<()>,
}

impl DirectMachine {
    /// Finds the machine of these files; nothing if it does not run.
    pub async fn find(name: &str, files: &MachineFiles) -> Result<Option<Self>> {
        match process::find(files).await {
            Some(found) => Self::open(name, &files.qmp(), found).await.map(Some),
            None => Ok(None),
        }
    }

    /// Takes up any QEMU by the Unix socket of its monitor, which must not be in another's hands.
    pub async fn attach(name: &str, socket: &Path) -> Result<Self> {
        let stream = connect(socket).await?;
        let peer = stream.peer_cred().map_err(QemuError::system("see who holds the monitor"))?;
        let listener = peer.pid().and_then(|pid| ProcessIdentity::of(pid.try_into().ok()?));
        let process = listener.ok_or_else(|| QemuError::NotRunning(name.to_owned()))?;
        // QEMU serves one client at a time; the next connection waits until this one is closed.
        drop(stream);
        Self::open(name, socket, process).await
    }

    pub(crate) async fn open(name: &str, socket: &Path, process: ProcessIdentity) -> Result<Self> {
        let (events, _) = broadcast::channel(EVENTS_MAX);
        let ended = events.clone();
        let watch = tokio::spawn(async move {
            match process::wait(process).await {
                Ok(()) => drop(ended.send(Event::Ended)),
                Err(error) => tracing::warn!(pid = process.pid, "nobody watches for its end: {error}"),
            }
        });
        let machine = Self {
            name: name.to_owned(),
            socket: socket.to_owned(),
            process,
            conversation: Mutex::new(None),
            events,
            watch,
        };
        machine.conversation().await?;
        Ok(machine)
    }

    /// The conversation, begun anew if it has ended.
    async fn conversation(&self) -> Result<Arc<Qmp>> {
        let mut held = self.conversation.lock().await;
        if let Some(qmp) = held.as_ref().filter(|qmp| !qmp.has_ended()) {
            return Ok(Arc::clone(qmp));
        }
        if !self.process.is_alive() {
            return Err(QemuError::NotRunning(self.name.clone()));
        }
        let again = held.take().is_some();
        let stream = connect(&self.socket).await?;
        let place = self.socket.display().to_string();
        let qmp = Arc::new(Qmp::begin(stream, &place, self.events.clone()).await?);
        if again {
            let _ = self.events.send(Event::Missed);
        }
        *held = Some(Arc::clone(&qmp));
        Ok(qmp)
    }

    async fn order(&self, command: &str) -> Result<()> {
        self.execute(command, json!({})).await.map(drop)
    }

    /// Whether the process ends within `patience`.
    async fn ends_within(&self, patience: Duration) -> bool {
        timeout(patience, process::wait(self.process)).await.is_ok()
    }
}

async fn connect(socket: &Path) -> Result<UnixStream> {
    UnixStream::connect(socket).await.map_err(|reason| QemuError::Connect { path: socket.to_owned(), reason })
}

impl Drop for DirectMachine {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

#[async_trait]
impl Machine for DirectMachine {
    fn name(&self) -> &str {
        &self.name
    }

    fn driver(&self) -> Driver {
        Driver::Qemu
    }

    async fn process(&self) -> Result<ProcessIdentity> {
        match self.process.is_alive() {
            true => Ok(self.process),
            false => Err(QemuError::NotRunning(self.name.clone())),
        }
    }

    async fn state(&self) -> Result<RunState> {
        let command = "query-status";
        match self.execute(command, json!({})).await {
            Ok(said) => match said["status"].as_str() {
                Some(word) => Ok(RunState::from_qemu(word)),
                None => Err(answer(command, "it has no status")),
            },
            Err(_) if !self.process.is_alive() => Ok(RunState::Off),
            Err(error) => Err(error),
        }
    }

    async fn resume(&self) -> Result<()> {
        self.order("cont").await
    }

    async fn pause(&self) -> Result<()> {
        self.order("stop").await
    }

    async fn power_down(&self) -> Result<()> {
        self.order("system_powerdown").await
    }

    async fn stop(&self, patience: Duration) -> Result<Ended> {
        if !self.process.is_alive() {
            return Ok(Ended::WasOff);
        }
        if patience > Duration::ZERO && matches!(self.state().await, Ok(RunState::Running)) {
            let asked = self.power_down().await;
            if asked.is_ok() && self.ends_within(patience).await {
                return Ok(Ended::ByGuest);
            }
        }
        // The conversation may end before the answer is through; what counts is that the process ends.
        match timeout(QUIT_PATIENCE, self.order("quit")).await {
            Ok(Ok(()) | Err(QemuError::Disconnected)) if self.ends_within(QUIT_PATIENCE).await => {
                Ok(Ended::Quit)
            }
            _ => process::kill(self.process, QUIT_PATIENCE).await,
        }
    }

    async fn execute(&self, command: &str, arguments: Value) -> Result<Value> {
        let qmp = self.conversation().await?;
        match qmp.execute(command, arguments).await {
            Err(QemuError::Disconnected) if !self.process.is_alive() => {
                Err(QemuError::NotRunning(self.name.clone()))
            }
            answered => answered,
        }
    }

    fn events(&self) -> Events {
        Events::new(self.events.subscribe())
    }

    async fn balloon_to(&self, size: Bytes) -> Result<()> {
        crate::memory::balloon_to(self, size).await
    }

    async fn virtio_mem_request(&self, device: &str, size: Bytes) -> Result<()> {
        crate::memory::virtio_mem_request(self, device, size).await
    }
}
