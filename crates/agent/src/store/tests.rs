use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;

use rackmem_api::agent::{Attachment, VmSpec};
use rackmem_api::operation::OperationFilter;
use rackmem_api::problem::ProblemType;
use rackmem_api::{Change, Generation, IdempotencyKey, Operation, OperationId, OperationState, VmName};
use tempfile::TempDir;
use uuid::Uuid;

use super::*;
use crate::operation::Record;
use crate::vm::VmRecord;

async fn store() -> (TempDir, Store) {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).await.unwrap();
    (directory, store)
}

fn vm(name: &str) -> VmRecord {
    let spec = format!(r#"{{"name":"{name}","memory":536870912,"boot":{{"kernel":"/k"}}}}"#);
    VmRecord::new(serde_json::from_str::<VmSpec>(&spec).unwrap(), 7)
}

fn name(text: &str) -> VmName {
    text.parse().unwrap()
}

fn entry(id: &str, start: u64) -> Attachment {
    let text = format!(
        r#"{{"id":"{id}","start":{start},"end":{},"port":1,"server":"m:1","class":"rack"}}"#,
        start + 8192
    );
    serde_json::from_str(&text).unwrap()
}

fn change(generation: u64) -> Change {
    Change::new(Generation(generation), "local")
}

fn new(target: &str) -> NewOperation {
    let id = OperationId(Uuid::now_v7());
    NewOperation { id, kind: "vm.create", target: target.to_owned(), work: "{}".to_owned() }
}

async fn accept(
    store: &Store,
    change: &Change,
    target: &str,
    effects: &[Effect],
) -> Result<Operation, ProblemType> {
    match store.accept(change, new(target), effects).await {
        Ok((operation, _)) => Ok(operation),
        Err(StoreError::Refused(problem)) => Err(problem.kind),
        Err(error) => panic!("{error}"),
    }
}

fn ending(state: OperationState, effects: Vec<Effect>) -> Ending {
    Ending { state, error: None, note: Some("a note".to_owned()), effects }
}

#[tokio::test]
async fn a_second_agent_is_refused() {
    let (directory, store) = store().await;
    assert!(matches!(Store::open(directory.path()).await, Err(StoreError::State(StateError::InUse { .. }))));
    drop(store);
}

#[tokio::test]
async fn the_files_are_their_owners_alone() {
    let directory = tempfile::tempdir().unwrap();
    let mode = |mode| Permissions::from_mode(mode);
    std::fs::set_permissions(directory.path(), mode(0o755)).unwrap();
    let files = || std::fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path());
    for _ in 0..2 {
        let store = Store::open(directory.path()).await.unwrap();
        store.event_add("vm.failed", "web1", "x").await.unwrap();
        assert!(files().count() >= 4, "{:?}", files().collect::<Vec<_>>());
        for path in files() {
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600, "{path:?}");
        }
        // As an earlier version left them, with what a controller that is killed leaves.
        store.readers.close().await;
        store.writer.close().await;
        for name in ["agent.db-wal", "agent.db-shm", "agent.db-journal"] {
            std::fs::write(directory.path().join(name), "").unwrap();
        }
        for path in files() {
            std::fs::set_permissions(path, mode(0o644)).unwrap();
        }
    }
}

#[tokio::test]
async fn what_a_later_version_wrote_is_refused() {
    let (directory, store) = store().await;
    sqlx::query("UPDATE _sqlx_migrations SET version = 99").execute(&store.writer).await.unwrap();
    drop(store);
    let refused = Store::open(directory.path()).await.unwrap_err();
    assert!(refused.to_string().contains("written by a later version"), "{refused}");
}

impl Store {
    /// Has SQLite refuse what changes anything, as on a disk that is full.
    pub(crate) async fn fill(&self, is_full: bool) {
        let pragma = if is_full { "PRAGMA query_only = 1" } else { "PRAGMA query_only = 0" };
        sqlx::query(pragma).execute(&self.writer).await.unwrap();
    }
}

#[tokio::test]
async fn what_is_written_is_there_for_the_next_agent() {
    let (directory, first) = store().await;
    let effects = [Effect::VmInsert(Box::new(vm("web1")))];
    let operation = accept(&first, &change(3), "web1", &effects).await.unwrap();
    let progress = Progress { step: "start QEMU".to_owned(), progress: 0.5 };
    let event = first.operation_record(operation.id, &Record::Begun { step: 1 }, &progress).await.unwrap();
    drop(first);
    let next = Store::open(directory.path()).await.unwrap();
    assert_eq!(next.generation().await.unwrap(), Generation(3));
    assert_eq!(next.vm_list().await.unwrap(), [vm("web1")]);
    let [open] = &next.operations_open().await.unwrap()[..] else { panic!("one operation is open") };
    assert_eq!(open.records, [Record::Begun { step: 1 }]);
    assert_eq!((open.operation.step.as_deref(), open.operation.progress), (Some("start QEMU"), 0.5));
    assert_eq!(next.events_after(event.id - 1).await.unwrap(), [event]);
}

#[tokio::test]
async fn an_end_is_final_and_brings_what_comes_with_it() {
    let (_directory, store) = store().await;
    let effects = [Effect::VmInsert(Box::new(vm("web1")))];
    let operation = accept(&store, &change(0), "web1", &effects).await.unwrap();
    let end = ending(OperationState::Done, vec![Effect::VmRemove(name("web1"))]);
    let event = store.operation_end(operation.id, &end).await.unwrap();
    assert_eq!((event.kind.as_str(), event.detail.as_str()), ("operation.done", "a note"));
    let ended = store.operation(operation.id).await.unwrap();
    assert_eq!((ended.state, ended.progress), (OperationState::Done, 1.0));
    assert_eq!(event.operation, Some(ended));
    assert!(store.operations_open().await.unwrap().is_empty());
    assert!(store.vm(&name("web1")).await.is_err());
}

#[tokio::test]
async fn a_refused_request_changes_nothing() {
    let (_directory, store) = store().await;
    let insert = |vm_name: &str| [Effect::VmInsert(Box::new(vm(vm_name)))];
    accept(&store, &change(5), "web1", &insert("web1")).await.unwrap();
    assert_eq!(accept(&store, &change(5), "web1", &[]).await, Err(ProblemType::Busy));
    assert_eq!(accept(&store, &change(4), "web2", &insert("web2")).await, Err(ProblemType::StaleGeneration));
    assert_eq!(accept(&store, &change(5), "web2", &insert("web1")).await, Err(ProblemType::Exists));
    assert_eq!(store.operation_list(&OperationFilter::default()).await.unwrap().len(), 1);
    assert_eq!(store.vm_list().await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_request_that_comes_twice_is_one_operation_whatever_has_happened_since() {
    let (_directory, store) = store().await;
    let keyed =
        |fingerprint| Change { key: Some(IdempotencyKey { key: "k".to_owned(), fingerprint }), ..change(1) };
    let first = accept(&store, &keyed(7), "web1", &[]).await.unwrap();
    store.admit(&change(9)).await.unwrap();
    assert_eq!(accept(&store, &keyed(7), "web1", &[]).await.map(|again| again.id), Ok(first.id));
    assert_eq!(store.admit(&keyed(7)).await.unwrap().map(|again| again.id), Some(first.id));
    assert_eq!(accept(&store, &keyed(8), "web1", &[]).await, Err(ProblemType::KeyReused));
    assert_eq!(accept(&store, &change(8), "web2", &[]).await, Err(ProblemType::StaleGeneration));
}

#[tokio::test]
async fn attachments_do_not_overlap_and_have_one_owner() {
    let (_directory, store) = store().await;
    let insert = |entry: Attachment| [Effect::AttachmentInsert(Box::new(entry))];
    let give = |vm: Option<&str>| [Effect::AttachmentGive("m1".parse().unwrap(), vm.map(name))];
    let vms = ["a", "b"].map(|vm_name| Effect::VmInsert(Box::new(vm(vm_name))));
    accept(&store, &change(0), "vms", &vms).await.unwrap();
    accept(&store, &change(0), "1", &insert(entry("m1", 0))).await.unwrap();
    accept(&store, &change(0), "2", &insert(entry("m1", 0))).await.unwrap();
    assert_eq!(accept(&store, &change(0), "3", &insert(entry("m1", 8192))).await, Err(ProblemType::Exists));
    assert_eq!(accept(&store, &change(0), "3", &insert(entry("m2", 4096))).await, Err(ProblemType::Exists));
    accept(&store, &change(0), "3", &give(Some("a"))).await.unwrap();
    assert_eq!(accept(&store, &change(0), "4", &give(Some("b"))).await, Err(ProblemType::InUse));
    let [row] = &store.attachment_list().await.unwrap()[..] else { panic!("one attachment") };
    assert_eq!(row.vm, Some(name("a")));
    store.vm_remove(&name("a")).await.unwrap();
    assert_eq!(store.attachment(&"m1".parse().unwrap()).await.unwrap().vm, None);
}
