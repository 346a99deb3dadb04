//! `/v1/attachments` (physical attach), `/v1/shared` (those that several bricks share) and `/v1/vms/{name}/attachments` (logical attach).

use axum::Json;
use utoipa_axum::router::OpenApiRouter;

use super::declare;
use super::served::Served;
use crate::agent::{AgentApi, Attachment, AttachmentSet, AttachmentView, SharedView};
use crate::answer::{Accepted, ChangeAnswers};
use crate::change::ChangeHeaders;
use crate::extract::{Changing, InPath, Nothing};
use crate::name::{AttachmentId, GroupName, VmName};
use crate::problem::Problem;

pub(super) fn routes<T: AgentApi>() -> OpenApiRouter {
    let router = declare!(OpenApiRouter::default(), T: attachment_list, attachment_show, shared_show);
    declare!(router, T: attachment_create, attachment_delete, vm_attachments_set, vm_attachment_add, vm_attachment_remove)
}

/// All physical attachments, by address.
#[utoipa::path(
    get, path = "/v1/attachments", tag = "attachments", operation_id = "attachment_list",
    responses(
        (status = 200, body = Vec<AttachmentView>),
        (status = "default", body = Problem, content_type = "application/problem+json", description = "A problem."),
    ),
)]
async fn attachment_list<T: AgentApi>(
    Served(agent): Served<T>,
) -> Result<Json<Vec<AttachmentView>>, Problem> {
    agent.attachment_list().await.map(Json)
}

/// One physical attachment.
#[utoipa::path(
    get, path = "/v1/attachments/{id}", tag = "attachments", operation_id = "attachment_show",
    params(("id" = AttachmentId, Path, description = "The attachment.")),
    responses(
        (status = 200, body = AttachmentView),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "There is none."),
        (status = "default", body = Problem, content_type = "application/problem+json", description = "A problem."),
    ),
)]
async fn attachment_show<T: AgentApi>(
    Served(agent): Served<T>,
    InPath(id): InPath<AttachmentId>,
) -> Result<Json<AttachmentView>, Problem> {
    agent.attachment_show(id).await.map(Json)
}

/// Memory that several bricks share: where its parts are, and the secrets that open them.
#[utoipa::path(
    get, path = "/v1/shared/{group}", tag = "attachments", operation_id = "shared_show",
    params(("group" = GroupName, Path, description = "The shared memory.")),
    responses(
        (status = 200, body = SharedView),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "The brick has none of that name."),
        (status = "default", body = Problem, content_type = "application/problem+json", description = "A problem."),
    ),
)]
async fn shared_show<T: AgentApi>(
    Served(agent): Served<T>,
    InPath(group): InPath<GroupName>,
) -> Result<Json<SharedView>, Problem> {
    agent.shared_show(group).await.map(Json)
}

/// Physical attach: makes an entry of the RMC table. The same entry again is no mistake.
#[utoipa::path(
    post, path = "/v1/attachments", tag = "attachments", operation_id = "attachment_create",
    params(ChangeHeaders), request_body = Attachment, responses(ChangeAnswers),
)]
async fn attachment_create<T: AgentApi>(
    Served(agent): Served<T>,
    Changing { change, body }: Changing<Attachment>,
) -> Result<Accepted, Problem> {
    body.check()?;
    agent.attachment_create(change, body).await.map(Accepted)
}

/// Removes a physical attachment that belongs to no machine.
#[utoipa::path(
    delete, path = "/v1/attachments/{id}", tag = "attachments", operation_id = "attachment_delete",
    params(("id" = AttachmentId, Path, description = "The attachment."), ChangeHeaders), responses(ChangeAnswers),
)]
async fn attachment_delete<T: AgentApi>(
    Served(agent): Served<T>,
    InPath(id): InPath<AttachmentId>,
    Changing { change, body: Nothing {} }: Changing<Nothing>,
) -> Result<Accepted, Problem> {
    agent.attachment_delete(change, id).await.map(Accepted)
}

/// Gives a machine exactly these physical attachments; what the others held goes elsewhere first.
#[utoipa::path(
    put, path = "/v1/vms/{name}/attachments", tag = "attachments", operation_id = "vm_attachments_set",
    params(("name" = VmName, Path, description = "The machine."), ChangeHeaders),
    request_body = AttachmentSet,
    responses(ChangeAnswers),
)]
async fn vm_attachments_set<T: AgentApi>(
    Served(agent): Served<T>,
    InPath(name): InPath<VmName>,
    Changing { change, body }: Changing<AttachmentSet>,
) -> Result<Accepted, Problem> {
    body.check()?;
    agent.vm_attachments_set(change, name, body).await.map(Accepted)
}

/// Logical attach: gives a physical attachment to a machine.
#[utoipa::path(
    put, path = "/v1/vms/{name}/attachments/{id}", tag = "attachments", operation_id = "vm_attachment_add",
    params(
        ("name" = VmName, Path, description = "The machine."),
        ("id" = AttachmentId, Path, description = "The attachment."),
        ChangeHeaders,
    ),
    responses(ChangeAnswers),
)]
async fn vm_attachment_add<T: AgentApi>(
    Served(agent): Served<T>,
    InPath((name, id)): InPath<(VmName, AttachmentId)>,
    Changing { change, body: Nothing {} }: Changing<Nothing>,
) -> Result<Accepted, Problem> {
    agent.vm_attachment_add(change, name, id).await.map(Accepted)
}

/// Takes a physical attachment from a machine; what it held comes home or goes elsewhere first.
#[utoipa::path(
    delete, path = "/v1/vms/{name}/attachments/{id}", tag = "attachments", operation_id = "vm_attachment_remove",
    params(
        ("name" = VmName, Path, description = "The machine."),
        ("id" = AttachmentId, Path, description = "The attachment."),
        ChangeHeaders,
    ),
    responses(ChangeAnswers),
)]
async fn vm_attachment_remove<T: AgentApi>(
    Served(agent): Served<T>,
    InPath((name, id)): InPath<(VmName, AttachmentId)>,
    Changing { change, body: Nothing {} }: Changing<Nothing>,
) -> Result<Accepted, Problem> {
    agent.vm_attachment_remove(change, name, id).await.map(Accepted)
}
