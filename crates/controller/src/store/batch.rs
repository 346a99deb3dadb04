//! What many rows come to: of each thing only its last state, and all things of a kind in one statement.
//!
//! A statement is a trip to SQLite's thread and back, which costs more than what it writes. Each takes one parameter: a JSON array
//! with an array for each row.

use std::collections::BTreeMap;

use rackmem_api::{IdempotencyKey, VmName};
use rackmem_rack::{Event as RackEvent, Plan, SegmentId, Snapshot};
use serde::Serialize;

use super::Row;
use crate::compute::Machine;
use crate::deed::Deed;
use crate::job::Entry;
use crate::news::News;

/// Rows of one transaction.
#[derive(Debug, Default)]
pub(super) struct Batch<'a> {
    operations: BTreeMap<u64, Fate<'a>>,
    history: Vec<Happened<'a>>,
    /// None: it is gone. So for all others.
    plans: BTreeMap<u64, Option<&'a Plan>>,
    machines: BTreeMap<&'a VmName, Option<&'a Machine>>,
    deeds: BTreeMap<SegmentId, Option<&'a Deed>>,
    news: Vec<&'a News>,
    reservation: Option<u64>,
    /// The rack after the event of that number.
    pub(super) snapshot: Option<(u64, &'a [Snapshot])>,
}

/// What becomes of an operation.
#[derive(Debug)]
enum Fate<'a> {
    New { entry: &'a Entry, key: Option<&'a IdempotencyKey>, begun: usize, undone: usize },
    Changed { entry: &'a Entry, begun: usize, undone: usize },
    Begun { begun: usize, undone: usize },
    Gone,
}

/// Something that happened to the rack.
#[derive(Debug)]
struct Happened<'a> {
    seq: u64,
    at_ms: u64,
    operation: Option<&'a str>,
    event: &'a RackEvent,
}

/// A statement and its parameter.
pub(super) type Statement = (&'static str, String);

impl<'a> Batch<'a> {
    /// What `rows` come to, one after the other.
    pub(super) fn new(rows: impl IntoIterator<Item = &'a Row>) -> Self {
        let mut batch = Self::default();
        for row in rows {
            batch.add(row);
        }
        batch
    }

    fn add(&mut self, row: &'a Row) {
        match row {
            Row::Operation { seq, entry, key } => {
                let (begun, undone) = (entry.job.begun, entry.job.undone);
                self.operations.insert(*seq, Fate::New { entry, key: key.as_ref(), begun, undone });
            }
            Row::Changed { seq, entry: now } => {
                let (begun, undone) = (now.job.begun, now.job.undone);
                let fate = match self.operations.get(seq) {
                    Some(Fate::New { key, .. }) => Fate::New { entry: now, key: *key, begun, undone },
                    Some(Fate::Gone) => Fate::Gone,
                    _ => Fate::Changed { entry: now, begun, undone },
                };
                self.operations.insert(*seq, fate);
            }
            Row::Begun { seq, begun: now, undone: back } => {
                match self.operations.entry(*seq).or_insert(Fate::Begun { begun: *now, undone: *back }) {
                    Fate::New { begun, undone, .. }
                    | Fate::Changed { begun, undone, .. }
                    | Fate::Begun { begun, undone } => (*begun, *undone) = (*now, *back),
                    Fate::Gone => {}
                }
            }
            Row::Forget(seq) => {
                self.operations.insert(*seq, Fate::Gone);
            }
            Row::Rack { seq, at_ms, operation, event } => {
                let (seq, at_ms) = (*seq, *at_ms);
                self.history.push(Happened { seq, at_ms, operation: operation.as_deref(), event });
            }
            Row::PlanHeld(id, plan) => _ = self.plans.insert(*id, Some(plan)),
            Row::PlanGone(id) => _ = self.plans.insert(*id, None),
            Row::Reservation(id) => self.reservation = Some(*id),
            Row::Machine(machine) => _ = self.machines.insert(&machine.new.name, Some(machine)),
            Row::MachineGone(name) => _ = self.machines.insert(name, None),
            Row::Told(news) => self.news.push(news),
            Row::Snapshot(seq, parts) => self.snapshot = Some((*seq, parts)),
            Row::Deed(segment, deed) => _ = self.deeds.insert(*segment, Some(deed)),
            Row::DeedGone(segment) => _ = self.deeds.insert(*segment, None),
        }
    }

    /// The statements that write all but the snapshot, to be carried out in this order.
    pub(super) fn statements(&self) -> Result<Vec<Statement>, serde_json::Error> {
        let mut statements = Statements::default();
        self.operations(&mut statements)?;
        statements.add(
            "INSERT INTO history (seq, at_ms, operation, event) \
             SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3 FROM json_each(?)",
            self.history.iter().map(|it| Ok((it.seq, it.at_ms, it.operation, json(it.event)?))),
        )?;
        statements.add(
            "DELETE FROM plans WHERE reservation IN (SELECT value FROM json_each(?))",
            gone(&self.plans).map(Ok),
        )?;
        statements.add(
            "INSERT OR REPLACE INTO plans (reservation, plan) SELECT value ->> 0, value ->> 1 FROM json_each(?)",
            there(&self.plans).map(|(id, plan)| Ok((id, json(plan)?))),
        )?;
        statements.add(
            "DELETE FROM machines WHERE name IN (SELECT value FROM json_each(?))",
            gone(&self.machines).map(Ok),
        )?;
        statements.add(
            "INSERT OR REPLACE INTO machines (name, record) SELECT value ->> 0, value ->> 1 FROM json_each(?)",
            there(&self.machines).map(|(name, machine)| Ok((name, json(machine)?))),
        )?;
        statements.add(
            "DELETE FROM deeds WHERE segment IN (SELECT value FROM json_each(?))",
            gone(&self.deeds).map(|segment| Ok(segment.0)),
        )?;
        statements.add(
            "INSERT OR REPLACE INTO deeds (segment, brick, owner, id, epoch) \
             SELECT value ->> 0, value ->> 1, unhex(value ->> 2), value ->> 3, value ->> 4 FROM json_each(?)",
            there(&self.deeds).map(|(segment, deed)| {
                let owner: String = deed.owner.iter().map(|byte| format!("{byte:02x}")).collect();
                let place = deed.place.map(|place| (place.id.cast_signed(), place.epoch.cast_signed()));
                let (id, epoch) = place.unzip();
                Ok((segment.0, deed.brick.to_string(), owner, id, epoch))
            }),
        )?;
        statements.add(
            "INSERT INTO events (id, event) SELECT value ->> 0, value ->> 1 FROM json_each(?)",
            self.news.iter().map(|news| Ok((news.event.id, json(news)?))),
        )?;
        statements.add(
            "UPDATE state SET reservation = value FROM json_each(?)",
            self.reservation.into_iter().map(Ok),
        )?;
        Ok(statements.0)
    }

    fn operations(&self, statements: &mut Statements) -> Result<(), serde_json::Error> {
        statements.add(
            "DELETE FROM operations WHERE seq IN (SELECT value FROM json_each(?))",
            self.operations.iter().filter(|(_, fate)| matches!(fate, Fate::Gone)).map(|(seq, _)| Ok(seq)),
        )?;
        statements.add(
            "INSERT INTO operations (seq, record, job, begun, undone, idempotency_key, fingerprint) \
             SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6 FROM json_each(?)",
            self.operations.iter().filter_map(|(seq, fate)| {
                let Fate::New { entry, key, begun, undone } = fate else { return None };
                let (key, fingerprint) = key.map(|key| (&key.key, key.fingerprint)).unzip();
                let texts = json(&entry.operation).and_then(|record| Ok((record, json(&entry.job)?)));
                Some(texts.map(|(record, job)| (seq, record, job, begun, undone, key, fingerprint)))
            }),
        )?;
        statements.add(
            "UPDATE operations SET record = value ->> 1, job = value ->> 2, begun = value ->> 3, undone = value ->> 4 \
             FROM json_each(?) WHERE seq = value ->> 0",
            self.operations.iter().filter_map(|(seq, fate)| {
                let Fate::Changed { entry, begun, undone } = fate else { return None };
                let texts = json(&entry.operation).and_then(|record| Ok((record, json(&entry.job)?)));
                Some(texts.map(|(record, job)| (seq, record, job, begun, undone)))
            }),
        )?;
        statements.add(
            "UPDATE operations SET begun = value ->> 1, undone = value ->> 2 FROM json_each(?) WHERE seq = value ->> 0",
            self.operations.iter().filter_map(|(seq, fate)| {
                let Fate::Begun { begun, undone } = fate else { return None };
                Some(Ok((seq, begun, undone)))
            }),
        )
    }
}

/// A list of statements, of which each has rows.
#[derive(Default)]
struct Statements(Vec<Statement>);

impl Statements {
    /// Adds one with its rows, if there are any.
    fn add<T: Serialize>(
        &mut self,
        statement: &'static str,
        rows: impl Iterator<Item = Result<T, serde_json::Error>>,
    ) -> Result<(), serde_json::Error> {
        let rows: Vec<T> = rows.collect::<Result<_, _>>()?;
        if !rows.is_empty() {
            self.0.push((statement, json(&rows)?));
        }
        Ok(())
    }
}

fn json(value: &impl Serialize) -> Result<String, serde_json::Error> {
    serde_json::to_string(value)
}

fn there<'a, K, V: ?Sized>(things: &'a BTreeMap<K, Option<&'a V>>) -> impl Iterator<Item = (&'a K, &'a V)> {
    things.iter().filter_map(|(key, value)| Some((key, (*value)?)))
}

fn gone<'a, K, V: ?Sized>(things: &'a BTreeMap<K, Option<&'a V>>) -> impl Iterator<Item = &'a K> {
    things.iter().filter(|(_, value)| value.is_none()).map(|(key, _)| key)
}
