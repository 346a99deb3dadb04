//! Event streams: a bounded log of what happened, and how it is sent (server-sent events) and resumed.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::response::sse::{self, KeepAlive, Sse};
use futures_util::stream::{self, BoxStream, Stream, StreamExt};
use serde::Serialize;
use tokio::sync::watch;

use crate::event::EventId;
use crate::problem::{Problem, ProblemType};
use crate::serve::Closing;

/// Name of the header by which a reader resumes.
pub const HEADER: &str = "last-event-id";

/// How often a silent stream says that it is alive: more often than proxies cut silent connections.
const ALIVE_EVERY: Duration = Duration::from_secs(15);

/// The last events, for readers that come and go. When it is full the oldest are forgotten.
#[derive(Debug)]
pub struct EventLog<E> {
    ring: Mutex<Ring<E>>,
    last: watch::Sender<EventId>,
    capacity: usize,
}

#[derive(Debug)]
struct Ring<E> {
    /// Id of the first event in `events`, or of the next one to come.
    first: EventId,
    events: VecDeque<E>,
}

impl<E> Ring<E> {
    fn next(&self) -> EventId {
        self.first + self.events.len() as EventId
    }
}

/// What a reader gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told<E> {
    /// An event.
    Event(E),
    /// Events up to and with this one are no longer known: read everything again.
    Missed(EventId),
}

impl<E: Clone + Send + 'static> EventLog<E> {
    /// A log of at most `capacity` events, whose first event will be number `first`. Numbers never fall: who keeps state
    /// starts behind the last one that was given before a restart.
    pub fn new(first: EventId, capacity: usize) -> Self {
        let ring = Ring { first, events: VecDeque::new() };
        Self { ring: Mutex::new(ring), last: watch::Sender::new(first.saturating_sub(1)), capacity }
    }

    /// Adds the event that `make` makes of its number, and wakes the readers.
    pub fn publish(&self, make: impl FnOnce(EventId) -> E) -> EventId {
        let mut ring = self.lock();
        let id = ring.next();
        ring.events.push_back(make(id));
        if ring.events.len() > self.capacity {
            ring.events.pop_front();
            ring.first += 1;
        }
        // Inside the lock, so that the readers' number never falls.
        self.last.send_replace(id);
        id
    }

    /// Number of the newest event.
    pub fn last(&self) -> EventId {
        *self.last.borrow()
    }

    /// All events from now on, or all behind `after`.
    pub fn follow(self: &Arc<Self>, after: Option<EventId>) -> BoxStream<'static, Told<E>> {
        let reader = Reader {
            log: Arc::clone(self),
            last: self.last.subscribe(),
            after: after.unwrap_or_else(|| self.last()),
            batch: VecDeque::new(),
        };
        stream::unfold(reader, |mut reader| async move {
            let told = reader.next().await?;
            Some((told, reader))
        })
        .boxed()
    }

    /// The events behind `after`, and the number that the reader has then seen.
    fn behind(&self, after: EventId) -> (VecDeque<Told<E>>, EventId) {
        let ring = self.lock();
        let newest = ring.next() - 1;
        // Behind the newest is whoever heard of a log that has been lost since.
        let missed = after + 1 < ring.first || after > newest;
        let seen = if missed { ring.first - 1 } else { after };
        let notice = missed.then_some(Told::Missed(seen));
        let skip = (seen + 1 - ring.first) as usize;
        let events = ring.events.iter().skip(skip).take(BATCH).cloned().map(Told::Event);
        let batch: VecDeque<_> = notice.into_iter().chain(events).collect();
        let told = batch.len() as EventId - EventId::from(missed);
        (batch, seen + told)
    }

    fn lock(&self) -> MutexGuard<'_, Ring<E>> {
        // A panic while it was held cannot leave it half changed.
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Events copied at one time: the lock is short, and a reader that falls behind holds little.
const BATCH: usize = 64;

struct Reader<E> {
    log: Arc<EventLog<E>>,
    last: watch::Receiver<EventId>,
    after: EventId,
    batch: VecDeque<Told<E>>,
}

impl<E: Clone + Send + 'static> Reader<E> {
    async fn next(&mut self) -> Option<Told<E>> {
        loop {
            if let Some(told) = self.batch.pop_front() {
                return Some(told);
            }
            self.last.borrow_and_update();
            (self.batch, self.after) = self.log.behind(self.after);
            if self.batch.is_empty() {
                self.last.changed().await.ok()?;
            }
        }
    }
}

/// The number of the last event that the reader saw, from the header `Last-Event-ID`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastEventId(pub Option<EventId>);

impl<S: Sync> FromRequestParts<S> for LastEventId {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let Some(value) = parts.headers.get(HEADER) else { return Ok(Self(None)) };
        let id = value.to_str().ok().and_then(|text| text.parse().ok());
        // One number less than there are, so that the next one exists.
        let id = id.filter(|id| *id < EventId::MAX);
        id.map(|id| Self(Some(id))).ok_or_else(|| {
            Problem::new(
                ProblemType::Malformed,
                "the header Last-Event-ID is no whole number: send the id of the last event that was read",
            )
        })
    }
}

/// Sends a stream of values as server-sent events until the stream or the server ends.
pub fn sse<E: Serialize + Send + 'static>(
    stream: impl Stream<Item = E> + Send + 'static,
    id: impl Fn(&E) -> Option<EventId> + Send + 'static,
    closing: Closing,
) -> Sse<impl Stream<Item = Result<sse::Event, Infallible>>> {
    let events = stream.take_until(closing.wait()).filter_map(move |value| {
        let event = sse::Event::default().json_data(&value);
        // Our own types always become JSON.
        let event = event.ok().map(|event| match id(&value) {
            Some(id) => Ok(event.id(id.to_string())),
            None => Ok(event),
        });
        std::future::ready(event)
    });
    Sse::new(events).keep_alive(KeepAlive::new().interval(ALIVE_EVERY))
}

/// Sends values that have no numbers in the same way; a problem in the place of one is where readers end.
pub fn sse_of_results<E: Serialize + Send + 'static>(
    stream: impl Stream<Item = Result<E, Problem>> + Send + 'static,
    closing: Closing,
) -> Sse<impl Stream<Item = Result<sse::Event, Infallible>>> {
    let told = stream.map(|result| match result {
        Ok(value) => ValueOrProblem::Value(value),
        Err(problem) => ValueOrProblem::Problem(problem),
    });
    sse(told, |_| None, closing)
}

#[derive(Serialize)]
#[serde(untagged)]
enum ValueOrProblem<E> {
    Value(E),
    Problem(Problem),
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    async fn take(log: &Arc<EventLog<u64>>, after: Option<u64>, count: usize) -> Vec<Told<u64>> {
        log.follow(after).take(count).collect().await
    }

    #[tokio::test]
    async fn a_reader_resumes_where_it_was() {
        let log = Arc::new(EventLog::new(1, 100));
        for _ in 0..5 {
            log.publish(|id| id);
        }
        assert_eq!(take(&log, Some(3), 2).await, [Told::Event(4), Told::Event(5)]);
        let mut live = log.follow(None);
        log.publish(|id| id);
        assert_eq!(live.next().await, Some(Told::Event(6)));
    }

    #[tokio::test]
    async fn a_reader_is_told_of_what_it_missed() {
        let log = Arc::new(EventLog::new(1, 3));
        for _ in 0..10 {
            log.publish(|id| id);
        }
        assert_eq!(take(&log, Some(2), 2).await, [Told::Missed(7), Told::Event(8)]);
        // A restarted log knows nothing of before.
        let log = Arc::new(EventLog::<u64>::new(11, 3));
        assert_eq!(take(&log, Some(4), 1).await, [Told::Missed(10)]);
        // And one that was lost and began anew says so to who had heard of more.
        let log = Arc::new(EventLog::new(1, 3));
        log.publish(|id| id);
        assert_eq!(take(&log, Some(4), 2).await, [Told::Missed(0), Told::Event(1)]);
    }

    #[tokio::test]
    async fn a_waiting_reader_is_woken() {
        let log = Arc::new(EventLog::new(1, 3));
        let mut reader = log.follow(None);
        let publisher = Arc::clone(&log);
        let read = tokio::spawn(async move { reader.next().await });
        tokio::task::yield_now().await;
        publisher.publish(|id| id);
        assert_eq!(read.await.unwrap(), Some(Told::Event(1)));
    }

    proptest! {
        #[test]
        fn nobody_reads_an_event_twice_or_out_of_order(
            capacity in 1usize..20, rounds in prop::collection::vec(0usize..200, 1..8),
        ) {
            let log = EventLog::new(1, capacity);
            let mut after = 0;
            for published in rounds {
                for _ in 0..published {
                    log.publish(|id| id);
                }
                loop {
                    let (batch, seen) = log.behind(after);
                    if batch.is_empty() {
                        break;
                    }
                    for told in batch {
                        match told {
                            Told::Event(id) => { prop_assert_eq!(id, after + 1); after = id; }
                            Told::Missed(upto) => { prop_assert!(upto > after); after = upto; }
                        }
                    }
                    prop_assert_eq!(seen, after);
                }
                prop_assert_eq!(after, log.last());
            }
        }
    }
}
