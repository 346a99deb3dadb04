//! One domain of libvirt's as a [`Machine`]. It is addressed by its UUID, which nobody else's name can be mistaken for.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use rackmem_types::Bytes;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::sync::broadcast;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::virsh::Virsh;
use super::{DomainInfo, definition, file_of};
use crate::machine::answer;
use crate::memory::Unplug;
use crate::procfs::{has_option, with_option};
use crate::qmp::event::event;
use crate::{
    Driver, Ended, Event, Events, Machine, ProcessIdentity, QemuError, Result, RunState, memory, process,
};

/// libvirt gives each QEMU the domain's UUID.
const UUID_FLAG: &str = "-uuid";

/// As for a machine that is driven directly.
const EVENTS_MAX: usize = 1024;

/// A libvirtd that went away is asked for events again after this.
const EVENTS_AGAIN: Duration = Duration::from_secs(2);

/// A domain that was destroyed has no process after this, or libvirtd itself is in trouble.
const DESTROY_PATIENCE: Duration = Duration::from_secs(10);

/// libvirt sees within milliseconds that a process has ended, but it cleans up after it before it says so.
const SETTLE_PATIENCE: Duration = Duration::from_secs(10);
const SETTLE_POLL: Duration = Duration::from_millis(100);

/// A domain of libvirt's; it may be off.
#[derive(Debug)]
pub struct LibvirtMachine {
    virsh: Virsh,
    domain: DomainInfo,
    events: broadcast::Sender<Event>,
    /// Hears what QEMU says, and sees when it ends.
    listener: JoinHandle<()>,
    watch: Mutex<Option<JoinHandle<()>>>,
}

impl LibvirtMachine {
    pub(super) fn new(virsh: Virsh, domain: DomainInfo) -> Self {
        let (events, _) = broadcast::channel(EVENTS_MAX);
        let listener = tokio::spawn(listen(virsh.clone(), domain.uuid.clone(), events.clone()));
        let machine = Self { virsh, domain, events, listener, watch: Mutex::new(None) };
        if let Some(process) = machine.find() {
            machine.watch(process);
        }
        machine
    }

    /// Its UUID.
    pub fn uuid(&self) -> &str {
        &self.domain.uuid
    }

    /// Starts the domain; its virtual CPUs stand until [`Machine::resume`]. Nothing happens if it runs.
    pub async fn start(&self) -> Result<ProcessIdentity> {
        if let Some(process) = self.find() {
            return Ok(process);
        }
        self.settle().await?;
        match self.virsh(&["start", "--paused"], &[]).await {
            // Whoever asked before may have been killed since; libvirt went on.
            Err(QemuError::Libvirt { reason, .. }) if reason.contains("already") => {}
            started => drop(started?),
        }
        let process = self.find().ok_or_else(|| QemuError::NotRunning(self.domain.name.clone()))?;
        self.watch(process);
        Ok(process)
    }

    /// Ends the domain by force, also one that libvirt is just starting, and waits until libvirt has cleaned up after it.
    pub async fn end(&self) -> Result<()> {
        match self.virsh(&["destroy"], &[]).await {
            Ok(_) | Err(QemuError::NotRunning(_)) => self.settle().await,
            Err(error) => Err(error),
        }
    }

    /// Waits until libvirt, too, has seen that the domain's process has ended.
    async fn settle(&self) -> Result<()> {
        let deadline = Instant::now() + SETTLE_PATIENCE;
        while self.virsh(&["domstate"], &[]).await?.trim() != "shut off" && Instant::now() < deadline {
            sleep(SETTLE_POLL).await;
        }
        Ok(())
    }

    /// The domain's process.
    fn find(&self) -> Option<ProcessIdentity> {
        process_of(&self.domain.uuid)
    }

    /// Tells when the process has ended.
    fn watch(&self, process: ProcessIdentity) {
        let events = self.events.clone();
        let watch = tokio::spawn(async move {
            if process::wait(process).await.is_ok() {
                // Without anyone who listens it is nobody's business.
                let _ = events.send(Event::Ended);
            }
        });
        let earlier = self.watch.lock().unwrap_or_else(PoisonError::into_inner).replace(watch);
        if let Some(earlier) = earlier {
            earlier.abort();
        }
    }

    /// Runs `virsh COMMAND… --domain UUID REST…`.
    async fn virsh(&self, command: &[&str], rest: &[&str]) -> Result<String> {
        let arguments = [command, &["--domain", &self.domain.uuid], rest].concat();
        match self.virsh.run(&arguments).await {
            Err(QemuError::Libvirt { reason, .. }) if reason.contains("domain is not running") => {
                Err(QemuError::NotRunning(self.domain.name.clone()))
            }
            answered => answered,
        }
    }
}

impl Drop for LibvirtMachine {
    fn drop(&mut self) {
        self.listener.abort();
        if let Some(watch) = self.watch.lock().unwrap_or_else(PoisonError::into_inner).take() {
            watch.abort();
        }
    }
}

/// The process of the domain with this UUID.
pub(super) fn process_of(uuid: &str) -> Option<ProcessIdentity> {
    with_option(UUID_FLAG, uuid).into_iter().find_map(ProcessIdentity::of)
}

/// Whether this process is the QEMU of the domain with this UUID.
pub(super) fn is_process_of(pid: u32, uuid: &str) -> bool {
    has_option(pid, UUID_FLAG, uuid)
}

/// Passes on what QEMU says, as long as anyone could listen.
async fn listen(virsh: Virsh, uuid: String, events: broadcast::Sender<Event>) {
    loop {
        let arguments = ["qemu-monitor-event", "--loop", "--domain", &uuid];
        match virsh.follow(&arguments).map(|mut child| (child.stdout.take(), child)) {
            Ok((Some(output), _child)) => {
                let mut lines = BufReader::new(output).lines();
                while let Ok(Some(line)) = lines.next_line().await {
                    if let Some((name, data)) = event_in(&line) {
                        let _ = events.send(event(name, data));
                    }
                }
            }
            Ok((None, _)) => {}
            Err(error) => tracing::warn!(uuid, "its events are not heard: {error}"),
        }
        let _ = events.send(Event::Missed);
        sleep(EVENTS_AGAIN).await;
    }
}

/// Reads `event NAME at SECONDS for domain 'NAME': JSON`.
fn event_in(line: &str) -> Option<(String, Value)> {
    let (name, rest) = line.strip_prefix("event ")?.split_once(" at ")?;
    let (_, after_domain) = rest.split_once("for domain '")?;
    let (_, data) = after_domain.split_once("': ")?;
    Some((name.to_owned(), serde_json::from_str(data).unwrap_or(Value::Null)))
}

/// What a monitor command returned, through libvirt as it was.
fn returned(command: &str, said: &str) -> Result<Value> {
    let mut said: Value =
        serde_json::from_str(said.trim()).map_err(|error| answer(command, error.to_string()))?;
    let text = |field: &str| said["error"][field].as_str().map(str::to_owned);
    if let (Some(class), Some(reason)) = (text("class"), text("desc")) {
        return Err(QemuError::Refused { command: command.to_owned(), class, reason });
    }
    match said.get_mut("return") {
        Some(value) => Ok(value.take()),
        None => Err(answer(command, "it returns nothing")),
    }
}

#[async_trait]
impl Machine for LibvirtMachine {
    fn name(&self) -> &str {
        &self.domain.name
    }

    fn driver(&self) -> Driver {
        Driver::Libvirt
    }

    async fn process(&self) -> Result<ProcessIdentity> {
        self.find().ok_or_else(|| QemuError::NotRunning(self.domain.name.clone()))
    }

    async fn state(&self) -> Result<RunState> {
        match self.execute("query-status", json!({})).await {
            Ok(said) => match said["status"].as_str() {
                Some(word) => Ok(RunState::from_qemu(word)),
                None => Err(answer("query-status", "it has no status")),
            },
            Err(QemuError::NotRunning(_)) => Ok(RunState::Off),
            Err(error) => Err(error),
        }
    }

    async fn resume(&self) -> Result<()> {
        match self.virsh(&["resume"], &[]).await {
            Err(QemuError::Libvirt { reason, .. }) if reason.contains("already running") => Ok(()),
            answered => answered.map(drop),
        }
    }

    async fn pause(&self) -> Result<()> {
        self.virsh(&["suspend"], &[]).await.map(drop)
    }

    async fn power_down(&self) -> Result<()> {
        self.virsh(&["shutdown", "--mode", "acpi"], &[]).await.map(drop)
    }

    async fn stop(&self, patience: Duration) -> Result<Ended> {
        let Some(process) = self.find() else { return Ok(Ended::WasOff) };
        let ends_within = async |patience| timeout(patience, process::wait(process)).await.is_ok();
        if patience > Duration::ZERO && matches!(self.state().await, Ok(RunState::Running)) {
            let asked = self.power_down().await;
            if asked.is_ok() && ends_within(patience).await {
                return Ok(Ended::ByGuest);
            }
        }
        match self.virsh(&["destroy", "--graceful"], &[]).await {
            Ok(_) | Err(QemuError::NotRunning(_)) if ends_within(DESTROY_PATIENCE).await => Ok(Ended::Quit),
            _ => {
                self.virsh(&["destroy"], &[]).await?;
                process::kill(process, DESTROY_PATIENCE).await?;
                Ok(Ended::Killed)
            }
        }
    }

    async fn execute(&self, command: &str, arguments: Value) -> Result<Value> {
        let mut order = json!({ "execute": command });
        if arguments.as_object().is_some_and(|arguments| !arguments.is_empty()) {
            order["arguments"] = arguments;
        }
        let said = self.virsh(&["qemu-monitor-command"], &["--cmd", &order.to_string()]).await?;
        returned(command, &said)
    }

    fn events(&self) -> Events {
        Events::new(self.events.subscribe())
    }

    async fn balloon_to(&self, size: Bytes) -> Result<()> {
        memory::balloon_to(self, size).await
    }

    /// By libvirt's own means, so that its idea of the domain stays right.
    async fn virtio_mem_request(&self, device: &str, size: Bytes) -> Result<()> {
        let size = format!("{}KiB", size.0 >> 10);
        let asked = ["--live", "--alias", device, "--requested-size", &size];
        match self.virsh(&["update-memory-device"], &asked).await {
            Err(QemuError::Libvirt { reason, .. }) if reason.contains("no memory device") => {
                Err(QemuError::Missing {
                    what: format!("virtio-mem device '{device}'"),
                    remedy: "`virsh dumpxml` lists those that it has".to_owned(),
                })
            }
            answered => answered.map(drop),
        }
    }

    async fn dimm_plug(&self, id: &str, size: Bytes, node: Option<u32>) -> Result<()> {
        if let Some(dimm) = self.memory().await?.dimm_of(id) {
            return memory::dimm::same(&self.domain.name, dimm, size);
        }
        let (_file, path) = file_of(&definition::dimm(id, size, node))?;
        self.virsh(&["attach-device", "--live", "--file", &path], &[]).await.map(drop)
    }

    async fn dimm_unplug(&self, id: &str) -> Result<Unplug> {
        if self.memory().await?.dimm_of(id).is_none() {
            return Ok(Unplug::Gone);
        }
        match self.virsh(&["detach-device-alias", "--live", "--alias", id], &[]).await {
            Err(QemuError::Libvirt { reason, .. }) if reason.contains("in the process of unplug") => {
                Ok(Unplug::Asked)
            }
            asked => asked.map(|_| Unplug::Asked),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_as_virsh_prints_them() {
        let line = r#"event BALLOON_CHANGE at 1795320490.307390 for domain 'a': {"actual":4096}"#;
        assert_eq!(event_in(line), Some(("BALLOON_CHANGE".to_owned(), json!({ "actual": 4096 }))));
        let line = "event STOP at 1795320481.202493 for domain 'a': <null>";
        assert_eq!(event_in(line), Some(("STOP".to_owned(), Value::Null)));
        for line in ["", "events received: 2", "event STOP", "event STOP at 1"] {
            assert_eq!(event_in(line), None, "{line}");
        }
    }

    #[test]
    fn answers_pass_through_libvirt_as_they_are() {
        assert_eq!(
            returned("c", "{\"return\":{\"a\":1},\"id\":\"libvirt-4\"}\n").unwrap(),
            json!({ "a": 1 })
        );
        let error = returned("c", r#"{"id":"libvirt-5","error":{"class":"DeviceNotFound","desc":"no"}}"#);
        assert!(error.is_err_and(|error| error.is_not_found()));
        for said in ["", "{}", "[]", "error: x"] {
            assert!(matches!(returned("c", said), Err(QemuError::Answer { .. })), "{said}");
        }
    }
}
