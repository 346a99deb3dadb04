//! Physical and logical attach.

use std::time::{Duration, Instant};

use rackmem_types::Bytes;

use super::{Failure, Subject, ensure, refused, told};
use crate::agent::{Attachment, AttachmentSet, AttachmentState};
use crate::name::AttachmentId;
use crate::problem::ProblemType;

pub(super) async fn physical_and_logical_attach(subject: &Subject) -> Result<(), Failure> {
    let client = subject.client().await?;
    let entry = &subject.attachment;
    let id = &entry.id;
    refused(client.attachment_show(id).await, ProblemType::NotFound)?;
    subject.done(&client, client.attachment_create(entry).await).await?;
    let view = client.attachment_show(id).await.map_err(told)?;
    // Where no segment was named the agent has made one.
    let shown = Attachment { segment: entry.segment.or(view.entry.segment), ..entry.shown() };
    ensure(view.entry == shown && view.vm.is_none(), || format!("{view:?}"))?;
    ensure(view.state == AttachmentState::Up, || format!("{view:?}"))?;
    subject.done(&client, client.attachment_create(entry).await).await?;
    refused(
        client.attachment_create(&Attachment { port: entry.port + 1, ..entry.clone() }).await,
        ProblemType::Exists,
    )?;
    let overlapping = id.as_str().chars().take(50).collect::<String>() + "-2";
    let overlapping = overlapping.parse().map_err(|error: crate::NameError| error.to_string())?;
    refused(
        client.attachment_create(&Attachment { id: overlapping, ..entry.clone() }).await,
        ProblemType::Exists,
    )?;
    refused(
        client.attachment_create(&Attachment { end: entry.start, ..entry.clone() }).await,
        ProblemType::Invalid,
    )?;

    let spec = subject.spec("conf-attach")?;
    subject.done(&client, client.vm_create(&spec).await).await?;
    subject.done(&client, client.vm_attachment_add(&spec.name, id).await).await?;
    // A pager reserves memory when the machine comes near its local limit, which a guest that is just booting does soon.
    let begun = Instant::now();
    loop {
        let vm = client.vm_show(&spec.name).await.map_err(told)?;
        ensure(vm.attachments == [id.clone()], || format!("{:?}", vm.attachments))?;
        let part = vm.memory.parts.iter().find(|part| part.attachment.as_ref() == Some(id));
        ensure(
            part.is_some_and(|part| part.server == entry.server && part.class == Some(entry.class)),
            || format!("where its far memory is: {:?}", vm.memory.parts),
        )?;
        if part.is_some_and(|part| part.reserved > Bytes(0)) {
            break;
        }
        ensure(begun.elapsed() < subject.patience, || format!("nothing is reserved: {part:?}"))?;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let owner = client.attachment_show(id).await.map_err(told)?.vm;
    ensure(owner.as_ref() == Some(&spec.name), || format!("{owner:?}"))?;
    refused(client.attachment_delete(id).await, ProblemType::InUse)?;
    // Of several at once: the same again, one that is not there, none, and it is free.
    let set = |ids: &[&AttachmentId]| AttachmentSet { attachments: ids.iter().copied().cloned().collect() };
    subject.done(&client, client.vm_attachments_set(&spec.name, &set(&[id])).await).await?;
    let unknown = "not-there".parse().map_err(|error: crate::NameError| error.to_string())?;
    refused(client.vm_attachments_set(&spec.name, &set(&[id, &unknown])).await, ProblemType::NotFound)?;
    refused(client.vm_attachments_set(&spec.name, &set(&[id, id])).await, ProblemType::Invalid)?;
    subject.done(&client, client.vm_attachments_set(&spec.name, &set(&[])).await).await?;
    let owner = client.attachment_show(id).await.map_err(told)?.vm;
    ensure(owner.is_none(), || format!("{owner:?}"))?;
    subject.done(&client, client.vm_attachment_add(&spec.name, id).await).await?;
    subject.done(&client, client.vm_attachment_remove(&spec.name, id).await).await?;
    subject.gone(&client, &spec.name).await?;
    subject.done(&client, client.attachment_delete(id).await).await?;
    refused(client.attachment_show(id).await, ProblemType::NotFound)
}
