//! Physical attachments: entries of the brick's RMC table; and logical ones: a VM gets an entry, or gives it back.

use rackmem_api::agent::{Attachment, AttachmentState, AttachmentView, SharedView, kind};
use rackmem_api::problem::ProblemType;
use rackmem_api::{AttachmentId, Change, GroupName, Operation, Problem, VmName};

use super::Agent;
use super::changes::whole;
use crate::operation::OnFailure;
use crate::problem::{from_store, wrong_state};
use crate::servers;
use crate::step::{Step, Work};
use crate::store::{AttachmentRow, Effect};
use crate::vm::VmRecord;

impl Agent {
    pub(super) async fn attachments(&self) -> Result<Vec<AttachmentView>, Problem> {
        let rows = self.ground.store.attachment_list().await.map_err(from_store)?;
        Ok(futures_util::future::join_all(rows.into_iter().map(|row| self.attachment_view(row))).await)
    }

    pub(super) async fn attachment(&self, id: &AttachmentId) -> Result<AttachmentView, Problem> {
        let row = self.ground.store.attachment(id).await.map_err(from_store)?;
        Ok(self.attachment_view(row).await)
    }

    pub(super) async fn shared(&self, group: &GroupName) -> Result<SharedView, Problem> {
        let rows = self.ground.store.attachment_list().await.map_err(from_store)?;
        SharedView::of(group, rows.iter().map(|row| &row.entry))
    }

    async fn attachment_view(&self, row: AttachmentRow) -> AttachmentView {
        let running = self.ground.store.operation_running(row.entry.id.as_str()).await.ok().flatten();
        let (state, reason) = match running.map(|operation| operation.kind) {
            Some(kind) if kind == kind::ATTACHMENT_CREATE => (AttachmentState::Attaching, None),
            Some(kind) if kind == kind::ATTACHMENT_DELETE => (AttachmentState::Detaching, None),
            _ => match servers::free(&row.entry.server).await {
                Ok(_) => (AttachmentState::Up, None),
                Err(problem) => (AttachmentState::Unreachable, Some(problem.detail)),
            },
        };
        AttachmentView { entry: row.entry.shown(), state, reason, vm: row.vm, created_ms: row.created_ms }
    }

    pub(super) async fn attach(&self, change: &Change, entry: Attachment) -> Result<Operation, Problem> {
        entry.check()?;
        let is_there = match self.ground.store.attachment(&entry.id).await {
            Ok(row) => row.entry == entry,
            Err(_) => false,
        };
        let id = entry.id.clone();
        let work = Work {
            vm: None,
            steps: vec![Step::Greet(entry.server.clone())],
            on_failure: OnFailure::Undo,
            when_done: Vec::new(),
            // What was there before stays.
            when_undone: if is_there { Vec::new() } else { vec![Effect::AttachmentRemove(id.clone())] },
        };
        let effects = [Effect::AttachmentInsert(Box::new(entry))];
        self.engine.begin(change, kind::ATTACHMENT_CREATE, id.as_str(), work, &effects).await
    }

    pub(super) async fn detach(&self, change: &Change, id: &AttachmentId) -> Result<Operation, Problem> {
        let row = self.ground.store.attachment(id).await.map_err(from_store)?;
        if let Some(vm) = row.vm {
            let detail = format!("attachment '{id}' belongs to '{vm}': take it from there first");
            return Err(Problem::new(ProblemType::InUse, detail));
        }
        let work = Work {
            vm: None,
            steps: Vec::new(),
            on_failure: OnFailure::Keep,
            when_done: vec![Effect::AttachmentRemove(id.clone())],
            when_undone: Vec::new(),
        };
        self.engine.begin(change, kind::ATTACHMENT_DELETE, id.as_str(), work, &[]).await
    }

    pub(super) async fn give(
        &self,
        change: &Change,
        name: &VmName,
        id: &AttachmentId,
    ) -> Result<Operation, Problem> {
        let record = self.load(name).await?;
        let row = self.ground.store.attachment(id).await.map_err(from_store)?;
        let from = self.entries(&record).await?;
        let mut to = from.clone();
        if !to.contains(&row.entry) {
            to.push(row.entry);
        }
        let mut work = Self::reattached(&record, from, to);
        work.when_undone = vec![Effect::AttachmentGive(id.clone(), None)];
        let effects = [Effect::AttachmentGive(id.clone(), Some(name.clone()))];
        self.engine.begin(change, kind::VM_ATTACH, name.as_str(), work, &effects).await
    }

    pub(super) async fn take_back(
        &self,
        change: &Change,
        name: &VmName,
        id: &AttachmentId,
    ) -> Result<Operation, Problem> {
        let record = self.load(name).await?;
        let row = self.ground.store.attachment(id).await.map_err(from_store)?;
        if row.vm.as_ref() != Some(name) {
            return Err(wrong_state(format!("attachment '{id}' does not belong to '{name}'")));
        }
        let from = self.entries(&record).await?;
        let to = from.iter().filter(|entry| entry.id != *id).cloned().collect();
        let mut work = Self::reattached(&record, from, to);
        work.when_done = vec![Effect::AttachmentGive(id.clone(), None)];
        self.engine.begin(change, kind::VM_DETACH, name.as_str(), work, &[]).await
    }

    /// All that it gets belongs to it from the beginning; what it loses, until the end.
    pub(super) async fn exchange(
        &self,
        change: &Change,
        name: &VmName,
        ids: &[AttachmentId],
    ) -> Result<Operation, Problem> {
        let record = self.load(name).await?;
        let from = self.entries(&record).await?;
        let mut to = Vec::new();
        for id in ids {
            to.push(self.ground.store.attachment(id).await.map_err(from_store)?.entry);
        }
        let owned = |entries: &[Attachment], others: &[Attachment], owner: Option<&VmName>| {
            let only = entries.iter().filter(|entry| others.iter().all(|other| other.id != entry.id));
            only.map(|entry| Effect::AttachmentGive(entry.id.clone(), owner.cloned())).collect::<Vec<_>>()
        };
        let got = owned(&to, &from, Some(name));
        let (when_done, when_undone) = (owned(&from, &to, None), owned(&to, &from, None));
        let work = Work { when_done, when_undone, ..Self::reattached(&record, from, to) };
        self.engine.begin(change, kind::VM_ATTACHMENTS, name.as_str(), work, &got).await
    }

    async fn entries(&self, record: &VmRecord) -> Result<Vec<Attachment>, Problem> {
        let mut entries = Vec::new();
        for id in &record.spec.attachments {
            entries.push(self.ground.store.attachment(id).await.map_err(from_store)?.entry);
        }
        Ok(entries)
    }

    /// A pager that runs goes on with other attachments.
    fn reattached(record: &VmRecord, from: Vec<Attachment>, to: Vec<Attachment>) -> Work {
        let is_far = record.alive().is_some() && record.spec.local.is_some();
        let change = if is_far { Step::Lend { from, to } } else { Step::Attachments { from, to } };
        whole(record.name(), vec![change])
    }
}
