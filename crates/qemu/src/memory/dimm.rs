//! DIMMs that are plugged and unplugged while the guest runs, for guests without a virtio-mem driver. A DIMM is a memory
//! backend and a device on it; an interrupted operation may leave the backend alone, which repeating it puts right.

use rackmem_types::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Dimm, state};
use crate::{Machine, QemuError, Result};

/// How far an unplug has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Unplug {
    /// The guest has been asked. Ask again when the DIMM has gone, to free its memory.
    Asked,
    /// Nothing of it is left.
    Gone,
}

/// Plugs a DIMM.
pub(crate) async fn plug<M: Machine + ?Sized>(
    machine: &M,
    id: &str,
    size: Bytes,
    node: Option<u32>,
) -> Result<()> {
    if let Some(dimm) = state(machine).await?.dimm_of(id) {
        return same(machine.name(), dimm, size);
    }
    let backend = backend_of(id);
    if has_object(machine, &backend).await? {
        machine.execute("object-del", json!({ "id": backend })).await?;
    }
    let memory = json!({
        "qom-type": "memory-backend-ram", "id": backend, "size": size.0, "share": false, "reserve": false,
    });
    machine.execute("object-add", memory).await?;
    let mut device = json!({ "driver": "pc-dimm", "id": id, "memdev": backend });
    if let Some(node) = node {
        device["node"] = node.into();
    }
    let plugged = machine.execute("device_add", device).await.map(drop);
    if let Err(QemuError::Refused { .. }) = plugged {
        machine.execute("object-del", json!({ "id": backend })).await?;
    }
    plugged
}

/// Whether the DIMM that has the wanted id is the wanted one.
pub(crate) fn same(machine: &str, dimm: &Dimm, size: Bytes) -> Result<()> {
    if dimm.size == size {
        return Ok(());
    }
    let id = dimm.id.as_deref().unwrap_or_default();
    let reason = format!("a DIMM '{id}' of {} is plugged already, not one of {size}", dimm.size);
    Err(QemuError::Config { name: machine.to_owned(), reason })
}

/// Asks for a DIMM back.
pub(crate) async fn unplug<M: Machine + ?Sized>(machine: &M, id: &str) -> Result<Unplug> {
    if state(machine).await?.dimm_of(id).is_some() {
        return match machine.execute("device_del", json!({ "id": id })).await {
            Ok(_) => Ok(Unplug::Asked),
            Err(QemuError::Refused { reason, .. }) if reason.contains("already in the process of unplug") => {
                Ok(Unplug::Asked)
            }
            Err(error) => Err(error),
        };
    }
    let backend = backend_of(id);
    if has_object(machine, &backend).await? {
        machine.execute("object-del", json!({ "id": backend })).await?;
    }
    Ok(Unplug::Gone)
}

fn backend_of(id: &str) -> String {
    format!("{id}-memory")
}

async fn has_object<M: Machine + ?Sized>(machine: &M, id: &str) -> Result<bool> {
    let objects = machine.execute("qom-list", json!({ "path": "/objects" })).await?;
    Ok(objects.as_array().into_iter().flatten().any(|object: &Value| object["name"] == id))
}
