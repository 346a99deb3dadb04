//! Whether memory is there: of the brick, of the agent's memory servers, of attachments.

use rackmem_api::agent::Attachment;
use rackmem_api::problem::ProblemType;
use rackmem_api::{AttachmentId, Problem, VmName};
use rackmem_types::Bytes;

use super::Brick;
use super::command::busy;
use super::vm::Promise;

impl Brick {
    /// Whether machine `name` with these attachments can be promised that much.
    pub(super) fn check_capacity(
        &self,
        name: &VmName,
        need: Promise,
        attachments: &[AttachmentId],
    ) -> Result<(), Problem> {
        let lacking = |detail: String| Err(Problem::new(ProblemType::Capacity, detail));
        let free = left(self.config.pool(), self.promised_local(Some(name)));
        if need.local > free {
            return lacking(format!(
                "'{name}' needs {} of resident memory and the brick has {free} left: give less memory or a smaller local",
                need.local
            ));
        }
        let beyond = self.beyond(need.far, attachments);
        let free = left(self.config.far, self.promised_far(Some(name)));
        if beyond > free {
            return lacking(format!(
                "'{name}' needs {} of far memory: its attachments have {}, and the brick's memory servers have \
                 {free} left: attach more first",
                need.far,
                self.attached(attachments)
            ));
        }
        Ok(())
    }

    /// Whether `name` may have the attachment.
    pub(super) fn check_free(&self, name: &VmName, id: &AttachmentId) -> Result<(), Problem> {
        self.attachment(id)?.entry.check_own()?;
        if let Some(operation) = self.operations.changing_attachment(id) {
            return Err(busy(&operation.target, &operation.kind));
        }
        match self.owner(id) {
            Some(owner) if owner != name => {
                let detail = format!("attachment '{id}' belongs to '{owner}': take it from there first");
                Err(Problem::new(ProblemType::InUse, detail))
            }
            _ => Ok(()),
        }
    }

    /// Whether the entry fits into the RMC table; `true` when it is there already.
    pub(super) fn check_entry(&self, entry: &Attachment) -> Result<bool, Problem> {
        entry.check()?;
        if let Some(present) = self.attachments.get(&entry.id) {
            if present.entry == *entry {
                return Ok(true);
            }
            let detail =
                format!("attachment '{}' is there with another content: choose another id", entry.id);
            return Err(Problem::new(ProblemType::Exists, detail));
        }
        match self.attachments.values().find(|other| other.entry.overlaps(entry)) {
            Some(other) => {
                let Attachment { id, start, end, .. } = &other.entry;
                let detail = format!(
                    "attachment '{}' overlaps '{id}' ({start}..{end}): choose another range",
                    entry.id
                );
                Err(Problem::new(ProblemType::Exists, detail))
            }
            None => Ok(false),
        }
    }
}

fn left(all: Bytes, promised: Bytes) -> Bytes {
    Bytes(all.0.saturating_sub(promised.0))
}
