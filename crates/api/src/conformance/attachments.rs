//! Physical and logical attach.

use std::time::{Duration, Instant};

use rackmem_types::Bytes;

use super::{Failure, Subject, ensure, refused, told};
use crate::agent::{
    AgentClient, Attachment, AttachmentSet, AttachmentState, SegmentId, SegmentToken, SharedPlace,
};
use crate::name::{AttachmentId, GroupName, VmName};
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
    shared_by_several_bricks(subject, &client, &spec.name).await?;
    subject.gone(&client, &spec.name).await?;
    subject.done(&client, client.attachment_delete(id).await).await?;
    refused(client.attachment_show(id).await, ProblemType::NotFound)
}

/// A part of shared memory is told with what opens it, and no machine gets it.
async fn shared_by_several_bricks(
    subject: &Subject,
    client: &AgentClient,
    vm: &VmName,
) -> Result<(), Failure> {
    let name = |text: &str| text.parse::<AttachmentId>().map_err(|error| error.to_string());
    let group: GroupName = "conf-shared".parse().map_err(|error: crate::NameError| error.to_string())?;
    let Attachment { start, end, .. } = subject.attachment;
    let part = |id: AttachmentId, number: u64| Attachment {
        id,
        start: end + number * (end - start),
        end: end + (number + 1) * (end - start),
        offset: 0,
        segment: Some(SegmentId(number)),
        token: Some(SegmentToken([number as u8; 16])),
        shared: Some(SharedPlace { group: group.clone(), at: (2 - number) * (end - start) }),
        ..subject.attachment.clone()
    };
    let (second, first) = (part(name("conf-second")?, 1), part(name("conf-first")?, 2));
    refused(client.shared_show(&group).await, ProblemType::NotFound)?;
    let without = Attachment { segment: None, token: None, ..first.clone() };
    refused(client.attachment_create(&without).await, ProblemType::Invalid)?;
    for entry in [&second, &first] {
        subject.done(client, client.attachment_create(entry).await).await?;
        refused(client.vm_attachment_add(vm, &entry.id).await, ProblemType::InUse)?;
        let set = AttachmentSet { attachments: vec![entry.id.clone()] };
        refused(client.vm_attachments_set(vm, &set).await, ProblemType::InUse)?;
    }
    let parts = client.shared_show(&group).await.map_err(told)?.parts;
    let told_of: Vec<_> = parts.iter().map(|part| (&part.attachment, Some(part.token))).collect();
    ensure(told_of == [(&first.id, first.token), (&second.id, second.token)], || format!("{parts:?}"))?;
    let shown = client.attachment_show(&first.id).await.map_err(told)?.entry;
    ensure(shown.token.is_none() && shown.shared == first.shared, || format!("{shown:?}"))?;
    for entry in [&second, &first] {
        subject.done(client, client.attachment_delete(&entry.id).await).await?;
    }
    refused(client.shared_show(&group).await, ProblemType::NotFound)
}
