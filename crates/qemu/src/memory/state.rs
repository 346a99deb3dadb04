//! How a machine's memory stands: what it booted with, what was plugged, and what the balloon has taken.

use rackmem_types::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::machine::answer;
use crate::{Machine, QemuError, Result};

/// How a machine's memory stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryState {
    /// What it booted with.
    pub boot: Bytes,
    /// What the balloon leaves the guest of its boot memory and DIMMs; nothing without a balloon.
    pub balloon: Option<Bytes>,
    /// virtio-mem devices.
    pub virtio_mem: Vec<VirtioMem>,
    /// DIMMs, also those that the guest was asked to let go.
    pub dimms: Vec<Dimm>,
}

/// A virtio-mem device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VirtioMem {
    /// Its id, by which it is asked; nothing if whoever started the machine gave none.
    pub id: Option<String>,
    /// Its NUMA node.
    pub node: u32,
    /// What the guest was asked to have.
    pub requested: Bytes,
    /// What the guest has.
    pub plugged: Bytes,
    /// What it can have.
    pub max: Bytes,
    /// The unit of change.
    pub block: Bytes,
}

/// A DIMM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dimm {
    /// Its id, by which it can be unplugged; nothing if whoever started the machine gave none.
    pub id: Option<String>,
    /// Its NUMA node.
    pub node: u32,
    /// Its size.
    pub size: Bytes,
    /// Whether it can be unplugged.
    pub hotplugged: bool,
}

impl MemoryState {
    /// All that is plugged in DIMMs.
    pub fn in_dimms(&self) -> Bytes {
        Bytes(self.dimms.iter().map(|dimm| dimm.size.0).sum())
    }

    /// All that virtio-mem has plugged.
    pub fn in_virtio_mem(&self) -> Bytes {
        Bytes(self.virtio_mem.iter().map(|device| device.plugged.0).sum())
    }

    /// What the guest has to use: boot memory, DIMMs and virtio-mem, less what the balloon holds.
    pub fn usable(&self) -> Bytes {
        let steady = self.balloon.unwrap_or(Bytes(self.boot.0.saturating_add(self.in_dimms().0)));
        Bytes(steady.0.saturating_add(self.in_virtio_mem().0))
    }

    /// What the balloon holds.
    pub fn ballooned(&self) -> Bytes {
        let whole = self.boot.0.saturating_add(self.in_dimms().0);
        Bytes(self.balloon.map_or(0, |left| whole.saturating_sub(left.0)))
    }

    /// The virtio-mem device of this id.
    pub fn virtio_mem_of(&self, id: &str) -> Option<&VirtioMem> {
        self.virtio_mem.iter().find(|device| device.id.as_deref() == Some(id))
    }

    /// The DIMM of this id.
    pub fn dimm_of(&self, id: &str) -> Option<&Dimm> {
        self.dimms.iter().find(|dimm| dimm.id.as_deref() == Some(id))
    }
}

/// Asks the machine.
pub(crate) async fn read<M: Machine + ?Sized>(machine: &M) -> Result<MemoryState> {
    let summary = machine.execute("query-memory-size-summary", json!({})).await?;
    let boot = size_in(&summary, "base-memory")
        .ok_or_else(|| answer("query-memory-size-summary", "it has no base-memory"))?;
    let devices = machine.execute("query-memory-devices", json!({})).await?;
    let (virtio_mem, dimms) = devices_in(&devices);
    Ok(MemoryState { boot, balloon: balloon(machine).await?, virtio_mem, dimms })
}

async fn balloon<M: Machine + ?Sized>(machine: &M) -> Result<Option<Bytes>> {
    match machine.execute("query-balloon", json!({})).await {
        Ok(said) => {
            size_in(&said, "actual").map(Some).ok_or_else(|| answer("query-balloon", "it has no actual size"))
        }
        Err(QemuError::Refused { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Sorts the answer of `query-memory-devices`; kinds of devices that are not known here are left out.
fn devices_in(said: &Value) -> (Vec<VirtioMem>, Vec<Dimm>) {
    let (mut virtio_mem, mut dimms) = (Vec::new(), Vec::new());
    for device in said.as_array().into_iter().flatten() {
        let data = &device["data"];
        let id = data["id"].as_str().map(str::to_owned);
        let node = data["node"].as_u64().and_then(|node| node.try_into().ok()).unwrap_or(0);
        let size = |field| size_in(data, field).unwrap_or_default();
        match device["type"].as_str() {
            Some("virtio-mem") => virtio_mem.push(VirtioMem {
                id,
                node,
                requested: size("requested-size"),
                plugged: size("size"),
                max: size("max-size"),
                block: size("block-size"),
            }),
            Some("dimm") => dimms.push(Dimm {
                id,
                node,
                size: size("size"),
                hotplugged: data["hotplugged"].as_bool().unwrap_or(false),
            }),
            _ => {}
        }
    }
    (virtio_mem, dimms)
}

fn size_in(object: &Value, field: &str) -> Option<Bytes> {
    object[field].as_u64().map(Bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn memory_devices_are_sorted_and_strangers_left_out() {
        let (virtio_mem, dimms) = devices_in(&json!([
            { "type": "virtio-mem", "data": { "id": "vmem", "node": 1, "requested-size": 64 * MIB,
              "size": 32 * MIB, "max-size": 1024 * MIB, "block-size": 2 * MIB, "memaddr": 4294967296u64, "new": {} } },
            { "type": "dimm", "data": { "slot": 0, "node": 0, "size": 128 * MIB, "hotplugged": true } },
            { "type": "cxl-something", "data": { "size": 1 } },
            7,
        ]));
        assert_eq!(virtio_mem.len(), 1);
        assert_eq!(virtio_mem[0].plugged, Bytes(32 * MIB));
        assert_eq!(virtio_mem[0].node, 1);
        assert_eq!(dimms, [Dimm { id: None, node: 0, size: Bytes(128 * MIB), hotplugged: true }]);
        assert_eq!(devices_in(&Value::Null), (vec![], vec![]));
    }

    #[test]
    fn what_is_usable_counts_each_byte_once() {
        let (virtio_mem, dimms) = devices_in(&json!([
            { "type": "virtio-mem", "data": { "id": "vmem", "size": 32 * MIB } },
            { "type": "dimm", "data": { "id": "dimm0", "size": 128 * MIB } },
        ]));
        let mut state = MemoryState { boot: Bytes(512 * MIB), balloon: None, virtio_mem, dimms };
        assert_eq!(state.usable(), Bytes(672 * MIB));
        assert_eq!(state.ballooned(), Bytes(0));
        state.balloon = Some(Bytes(600 * MIB));
        assert_eq!(state.usable(), Bytes(632 * MIB));
        assert_eq!(state.ballooned(), Bytes(40 * MIB));
        assert!(state.dimm_of("dimm0").is_some() && state.virtio_mem_of("dimm0").is_none());
    }
}
