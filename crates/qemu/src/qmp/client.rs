//! A conversation with one monitor. A task of its own reads and writes; a command is a line with an id, and its answer is whatever
//! comes back with that id. Dropping a command's future leaves the conversation whole: its answer is then thrown away.
//! When the stream ends, every command that waits fails; whoever wants to go on opens another conversation.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::time::timeout;

use super::event::event;
use super::message::{LINE_BYTES_MAX, Message};
use crate::{Event, QemuError, Result};

/// QEMU greets at once, unless another client holds its monitor.
pub(crate) const GREETING_TIMEOUT: Duration = Duration::from_secs(5);

/// The longest that a command may take. QEMU's main loop answers in milliseconds, but touching memory that is far can hold
/// it up, and so can a host that is short of processors.
pub(crate) const COMMAND_TIMEOUT: Duration = Duration::from_secs(20);

/// Commands that wait to be written. They are short, and their senders wait for the answers.
const ORDERS_MAX: usize = 16;

/// Answers that are waited for, by command id; nothing once the conversation has ended.
type Waiting = Arc<Mutex<Option<HashMap<u64, oneshot::Sender<Answer>>>>>;

type Answer = Result<Value, Refusal>;

#[derive(Debug)]
struct Refusal {
    class: String,
    reason: String,
}

/// A conversation.
#[derive(Debug)]
pub(crate) struct Qmp {
    orders: mpsc::Sender<Vec<u8>>,
    waiting: Waiting,
    ids: AtomicU64,
    /// Of the QEMU at the other end.
    version: [u64; 3],
    package: String,
}

impl Qmp {
    /// Begins a conversation: waits for the greeting and agrees to it. `place` is for error messages.
    pub(crate) async fn begin(
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        place: &str,
        events: broadcast::Sender<Event>,
    ) -> Result<Self> {
        let (reader, writer) = tokio::io::split(stream);
        let mut lines = Lines::new(reader);
        let protocol = |reason: String| QemuError::Protocol { place: place.to_owned(), reason };
        let line = timeout(GREETING_TIMEOUT, lines.next())
            .await
            .map_err(|_| QemuError::MonitorBusy { place: place.to_owned(), waited: GREETING_TIMEOUT })?;
        let line = line.map_err(protocol)?.ok_or(QemuError::Disconnected)?;
        let Message::Greeting { version, package } = Message::parse(&line).map_err(protocol)? else {
            return Err(protocol("its first line is no greeting".to_owned()));
        };
        let (orders, queue) = mpsc::channel(ORDERS_MAX);
        let waiting: Waiting = Arc::new(Mutex::new(Some(HashMap::new())));
        tokio::spawn(converse(lines, writer, queue, Arc::clone(&waiting), events, place.to_owned()));
        let qmp = Self { orders, waiting, ids: AtomicU64::new(1), version, package };
        qmp.execute("qmp_capabilities", json!({})).await?;
        Ok(qmp)
    }

    /// Runs a command.
    pub(crate) async fn execute(&self, command: &str, arguments: Value) -> Result<Value> {
        let id = self.ids.fetch_add(1, Ordering::Relaxed);
        let mut line = json!({ "execute": command, "id": id });
        if arguments.as_object().is_some_and(|arguments| !arguments.is_empty()) {
            line["arguments"] = arguments;
        }
        let (sender, answer) = oneshot::channel();
        let slot = Slot { waiting: &self.waiting, id };
        lock(&self.waiting).as_mut().ok_or(QemuError::Disconnected)?.insert(id, sender);
        let answered = timeout(COMMAND_TIMEOUT, async {
            self.orders.send(format!("{line}\n").into_bytes()).await.ok()?;
            answer.await.ok()
        });
        let answered = answered.await;
        drop(slot);
        match answered {
            Ok(Some(Ok(value))) => Ok(value),
            Ok(Some(Err(Refusal { class, reason }))) => {
                Err(QemuError::Refused { command: command.to_owned(), class, reason })
            }
            Ok(None) => Err(QemuError::Disconnected),
            Err(_) => Err(QemuError::Timeout { command: command.to_owned(), waited: COMMAND_TIMEOUT }),
        }
    }

    /// Whether the conversation has ended.
    pub(crate) fn has_ended(&self) -> bool {
        lock(&self.waiting).is_none()
    }

    /// QEMU's version.
    pub(crate) fn version(&self) -> [u64; 3] {
        self.version
    }

    /// Whose build it is.
    pub(crate) fn package(&self) -> &str {
        &self.package
    }
}

/// The place of an answer; freed also when the command's future is dropped.
struct Slot<'a> {
    waiting: &'a Waiting,
    id: u64,
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        if let Some(waiting) = lock(self.waiting).as_mut() {
            waiting.remove(&self.id);
        }
    }
}

/// No code can panic while it holds this lock, so what is in it is whole.
fn lock(waiting: &Waiting) -> std::sync::MutexGuard<'_, Option<HashMap<u64, oneshot::Sender<Answer>>>> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reads and writes until either side ends the conversation; then the stream closes and nobody waits any longer.
async fn converse(
    lines: Lines<impl AsyncRead + Unpin>,
    writer: impl AsyncWrite + Unpin,
    orders: mpsc::Receiver<Vec<u8>>,
    waiting: Waiting,
    events: broadcast::Sender<Event>,
    place: String,
) {
    tokio::select! {
        read = read(lines, &waiting, events) => {
            if let Err(reason) = read {
                tracing::warn!(place, "a conversation with QEMU ends: {reason}");
            }
        }
        () = write(writer, orders) => {}
    }
    *lock(&waiting) = None;
}

/// Writes commands until nobody is left who could give one, or the stream takes none.
async fn write(mut stream: impl AsyncWrite + Unpin, mut orders: mpsc::Receiver<Vec<u8>>) {
    while let Some(line) = orders.recv().await {
        if stream.write_all(&line).await.is_err() || stream.flush().await.is_err() {
            return;
        }
    }
}

/// Passes answers and events on until the stream ends; the reason if it ends badly.
async fn read(
    mut lines: Lines<impl AsyncRead + Unpin>,
    waiting: &Waiting,
    events: broadcast::Sender<Event>,
) -> Result<(), String> {
    let answer = |id, answer| {
        let waiter = lock(waiting).as_mut().and_then(|waiting| waiting.remove(&id));
        if let Some(waiter) = waiter {
            // Who no longer waits does not want to know.
            let _ = waiter.send(answer);
        }
    };
    while let Some(line) = lines.next().await? {
        match Message::parse(&line)? {
            Message::Return { id, value } => answer(id, Ok(value)),
            Message::Error { id: Some(id), class, reason } => answer(id, Err(Refusal { class, reason })),
            Message::Event { name, data } => {
                // Without anyone who listens an event is nobody's business.
                let _ = events.send(event(name, data));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Lines of a stream, none longer than [`LINE_BYTES_MAX`].
struct Lines<R>(BufReader<R>);

impl<R: AsyncRead + Unpin> Lines<R> {
    fn new(stream: R) -> Self {
        Self(BufReader::new(stream))
    }

    /// The next line, nothing at the end; the reason if there is no whole one.
    async fn next(&mut self) -> Result<Option<Vec<u8>>, String> {
        let mut line = Vec::new();
        let mut limited = (&mut self.0).take(LINE_BYTES_MAX as u64);
        let length = limited.read_until(b'\n', &mut line).await.map_err(|error| error.to_string())?;
        match line.last() {
            None => Ok(None),
            Some(b'\n') => Ok(Some(line)),
            Some(_) if length == LINE_BYTES_MAX => Err(format!("a line is over {LINE_BYTES_MAX} bytes")),
            Some(_) => Err("it ended within a line".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests;
