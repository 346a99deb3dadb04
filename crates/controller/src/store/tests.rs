#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::borrow::Cow;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;

use proptest::prelude::*;
use rackmem_api::{OperationId, OperationState};
use rackmem_rack::ReservationId;
use rackmem_state::StateError;
use sqlx::migrate::Migrator;
use sqlx::sqlite::SqliteConnectOptions;
use uuid::Uuid;

use super::*;
use crate::job::{Job, Work};

#[derive(Clone, Copy, Debug)]
enum What {
    Operation,
    Changed,
    Begun,
    Forget,
    Deed,
    DeedGone,
    Reservation,
}

fn entry(target: u64, begun: usize, text: &str) -> Box<Entry> {
    let operation = rackmem_api::Operation {
        id: OperationId(Uuid::from_u128(target.into())),
        kind: "reservation.create".to_owned(),
        target: target.to_string(),
        state: OperationState::Running,
        step: Some(text.to_owned()),
        progress: 0.5,
        error: None,
        note: None,
        generation: 1,
        by: "who".to_owned(),
        created_ms: 1,
        updated_ms: 2,
    };
    let job = Job { begun, ..Job::new(Work::Release(ReservationId(target)), None) };
    Box::new(Entry { operation, job })
}

/// A row of one of few things, so that many rows meet the same.
fn row(what: What, thing: u64, state: usize, text: &str) -> Row {
    match what {
        What::Operation => {
            let key = state
                .is_multiple_of(2)
                .then(|| IdempotencyKey { key: format!("key {thing}"), fingerprint: -1 });
            Row::Operation { seq: thing, entry: entry(thing, 0, text), key }
        }
        What::Changed => Row::Changed { seq: thing, entry: entry(thing, state, text) },
        What::Begun => Row::Begun { seq: thing, begun: state, undone: state / 2 },
        What::Forget => Row::Forget(thing),
        What::Deed => {
            let place =
                state.is_multiple_of(2).then_some(Placed { id: thing, epoch: u64::MAX - state as u64 });
            let brick = "m1".parse().unwrap();
            Row::Deed(SegmentId(thing), Box::new(Deed { brick, owner: [state as u8 | 0x80; 16], place }))
        }
        What::DeedGone => Row::DeedGone(SegmentId(thing)),
        What::Reservation => Row::Reservation(state as u64),
    }
}

/// All that is in the tables which [`row`] writes to.
async fn dump(store: &Store) -> String {
    type Operation = (i64, String, String, i64, i64, Option<String>, Option<i64>);
    let operations: Vec<Operation> =
        sqlx::query_as("SELECT * FROM operations ORDER BY seq").fetch_all(&store.pool).await.unwrap();
    type Columns = (i64, String, Vec<u8>, Option<i64>, Option<i64>);
    let deeds: Vec<Columns> =
        sqlx::query_as("SELECT * FROM deeds ORDER BY segment").fetch_all(&store.pool).await.unwrap();
    let reservation: i64 =
        sqlx::query_scalar("SELECT reservation FROM state").fetch_one(&store.pool).await.unwrap();
    format!("{operations:#?} {deeds:#?} {reservation}")
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

async fn open(directory: &Path) -> Result<Store, ControllerError> {
    Store::open(directory, Closing::default()).await
}

async fn write(store: &Store, rows: Vec<Row>) -> Result<(), ControllerError> {
    store.write(&[(rows, oneshot::channel().0)]).await
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is written at once is as if it had been written row by row.
    #[test]
    fn a_batch_is_its_rows_one_after_the_other(
        kinds in prop::collection::vec((0_usize..7, 0_u64..3, 0_usize..9, "[\"\\\\a\u{1}é]{0,3}"), 1..24),
    ) {
        const WHAT: [What; 7] =
            [What::Operation, What::Changed, What::Begun, What::Forget, What::Deed, What::DeedGone, What::Reservation];
        // An operation's number is given once.
        let mut begun = std::collections::BTreeSet::new();
        let mut kinds = kinds;
        kinds.retain(|&(what, thing, ..)| !matches!(WHAT[what], What::Operation) || begun.insert(thing));
        let rows = || kinds.iter().map(|(what, thing, state, text)| row(WHAT[*what], *thing, *state, text));
        block_on(async {
            let directories = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
            let [at_once, one_by_one] = [&directories[0], &directories[1]].map(|directory| open(directory.path()));
            let (at_once, one_by_one) = (at_once.await.unwrap(), one_by_one.await.unwrap());
            write(&at_once, rows().collect()).await.unwrap();
            for row in rows() {
                write(&one_by_one, vec![row]).await.unwrap();
            }
            prop_assert_eq!(dump(&at_once).await, dump(&one_by_one).await);
            Ok(())
        })?;
    }
}

/// A rack with that many trays.
fn rack(trays: u64) -> (Rack, Vec<RackEvent>) {
    let name = |text: &str| text.parse::<Name>().unwrap();
    let mut events = vec![RackEvent::RackAdded(name("r1"))];
    events
        .extend((0..trays).map(|n| RackEvent::TrayAdded { name: name(&format!("t{n}")), rack: name("r1") }));
    let mut rack = Rack::default();
    for event in &events {
        rack.apply(event).unwrap();
    }
    (rack, events)
}

#[tokio::test]
async fn a_snapshot_in_parts_is_read_as_one() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await.unwrap();
    let (rack, events) = rack(10);
    let happened =
        |(seq, event): (u64, RackEvent)| Row::Rack { seq, at_ms: 1, operation: None, event: Box::new(event) };
    let count = events.len() as u64;
    let mut rows: Vec<Row> = (1..).zip(events).map(happened).collect();
    let parts = rack.snapshot().into_parts(3);
    assert!(parts.len() > 3, "{} parts", parts.len());
    rows.push(Row::Snapshot(count, parts));
    write(&store, rows).await.unwrap();
    let stored = store.load(0).await.unwrap();
    assert_eq!(stored.rack.snapshot(), rack.snapshot());
    assert_eq!((stored.snapshot_seq, stored.history_seq), (count, count));
}

#[tokio::test]
async fn a_store_of_an_earlier_version_is_taken_over() {
    /// The first that has its snapshot in parts.
    const PARTS: i64 = 4;
    let directory = tempfile::tempdir().unwrap();
    let (rack, _) = rack(3);
    {
        let options = SqliteConnectOptions::new()
            .filename(directory.path().join("controller.db"))
            .create_if_missing(true);
        let pool = SqlitePool::connect_with(options).await.unwrap();
        let earlier =
            sqlx::migrate!().iter().filter(|migration| migration.version < PARTS).cloned().collect();
        Migrator { migrations: Cow::Owned(earlier), ..Migrator::DEFAULT }.run(&pool).await.unwrap();
        sqlx::query("UPDATE state SET snapshot = ?, snapshot_seq = 7")
            .bind(serde_json::to_string(&rack.snapshot()).unwrap())
            .execute(&pool)
            .await
            .unwrap();
        pool.close().await;
    }
    let stored = open(directory.path()).await.unwrap().load(0).await.unwrap();
    assert_eq!(stored.rack.snapshot(), rack.snapshot());
    assert_eq!((stored.snapshot_seq, stored.history_seq), (7, 7));
}

#[tokio::test]
async fn the_files_are_their_owners_alone() {
    let directory = tempfile::tempdir().unwrap();
    let mode = |mode| Permissions::from_mode(mode);
    std::fs::set_permissions(directory.path(), mode(0o755)).unwrap();
    let files = || std::fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path());
    for _ in 0..2 {
        let store = open(directory.path()).await.unwrap();
        write(&store, vec![Row::Reservation(1)]).await.unwrap();
        assert!(files().count() >= 4, "{:?}", files().collect::<Vec<_>>());
        for path in files() {
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600, "{path:?}");
        }
        // As an earlier version left them, with what a controller that is killed leaves.
        store.pool.close().await;
        for name in ["controller.db-wal", "controller.db-shm", "controller.db-journal"] {
            std::fs::write(directory.path().join(name), "").unwrap();
        }
        for path in files() {
            std::fs::set_permissions(path, mode(0o644)).unwrap();
        }
    }
}

#[tokio::test]
async fn a_full_disk_ends_the_controller_and_keeps_what_was_kept() {
    let directory = tempfile::tempdir().unwrap();
    let closing = Closing::default();
    let store = Store::open(directory.path(), closing.clone()).await.unwrap();
    let pages: i64 = sqlx::query_scalar("PRAGMA page_count").fetch_one(&store.pool).await.unwrap();
    sqlx::query(sqlx::AssertSqlSafe(format!("PRAGMA max_page_count = {}", pages + 8)))
        .execute(&store.pool)
        .await
        .unwrap();
    let (send, changes) = mpsc::unbounded_channel();
    let running = tokio::spawn(store.run(changes, None));
    let mut kept = 0;
    for seq in 1..100 {
        let (answer, answered) = oneshot::channel();
        let entry = entry(seq, 0, &"x".repeat(2000));
        if send.send((vec![Row::Operation { seq, entry, key: None }], answer)).is_err() {
            break;
        }
        if answered.await.is_ok() {
            assert_eq!(closing.failure(), None);
            kept = seq;
        } else {
            assert!(closing.failure().unwrap().contains("is the disk full?"));
        }
    }
    assert!((2..99).contains(&kept) && send.is_closed(), "{kept}");
    // Nobody else has the directory while this process may still be at work.
    assert!(matches!(open(directory.path()).await, Err(ControllerError::State(StateError::InUse { .. }))));
    running.abort();
    let _ = running.await;
    let stored = open(directory.path()).await.unwrap().load(0).await.unwrap();
    assert_eq!(stored.operations.iter().map(|(seq, ..)| *seq).collect::<Vec<_>>(), Vec::from_iter(1..=kept));
}
