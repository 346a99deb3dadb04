//! The mechanics of changing a guest's memory while it runs: ask the balloon, ask virtio-mem, plug and unplug DIMMs, and
//! see how far the guest has followed. Each operation states what should be, so repeating one that was interrupted is
//! right. Nothing here decides how large a guest ought to be.

pub(crate) mod dimm;
mod guest;
mod observe;
mod state;

pub use dimm::Unplug;
pub use guest::GuestMemory;
pub use observe::{Observed, POLL, observe};
pub use state::{Dimm, MemoryState, VirtioMem};

pub(crate) use dimm::{plug as dimm_plug, unplug as dimm_unplug};
pub(crate) use guest::{every as guest_every, read as guest};
pub(crate) use state::read as state;

use rackmem_types::Bytes;
use serde_json::json;

use crate::machine::answer;
use crate::{Machine, QemuError, Result};

/// Asks the balloon.
pub(crate) async fn balloon_to<M: Machine + ?Sized>(machine: &M, size: Bytes) -> Result<()> {
    match machine.execute("balloon", json!({ "value": size.0 })).await {
        Err(QemuError::Refused { class, .. }) if class == "DeviceNotActive" => Err(QemuError::Missing {
            what: "balloon".to_owned(),
            remedy: "start it with one to change the memory it booted with".to_owned(),
        }),
        answered => answered.map(drop),
    }
}

/// Asks a virtio-mem device.
pub(crate) async fn virtio_mem_request<M: Machine + ?Sized>(
    machine: &M,
    device: &str,
    size: Bytes,
) -> Result<()> {
    let path = format!("/machine/peripheral/{device}");
    let order = json!({ "path": path, "property": "requested-size", "value": size.0 });
    match machine.execute("qom-set", order).await {
        Err(error) if error.is_not_found() => Err(QemuError::Missing {
            what: format!("virtio-mem device '{device}'"),
            remedy: "`query-memory-devices` lists those that it has".to_owned(),
        }),
        answered => answered.map(drop),
    }
}

/// Where in the QEMU process a guest-physical address lies, by the human monitor, the only place that tells.
pub(crate) async fn host_address<M: Machine + ?Sized>(machine: &M, guest_physical: u64) -> Result<u64> {
    let command = "human-monitor-command";
    let line = format!("gpa2hva {guest_physical:#x}");
    let said = machine.execute(command, json!({ "command-line": line })).await?;
    let said = said.as_str().ok_or_else(|| answer(command, "it is no text"))?.trim();
    host_address_in(said)
        .ok_or_else(|| QemuError::GuestAddress { address: guest_physical, reason: said.to_owned() })
}

/// The address in `Host virtual address for 0x1000 (ram) is 0x7f0000001000`.
fn host_address_in(said: &str) -> Option<u64> {
    let (head, address) = said.rsplit_once(" is 0x")?;
    let address = u64::from_str_radix(address, 16).ok()?;
    head.starts_with("Host virtual address").then_some(address)
}

#[cfg(test)]
mod tests {
    use super::host_address_in;

    #[test]
    fn the_human_monitors_sentence_is_read() {
        for (said, address) in [
            ("Host virtual address for 0x1000 (ram) is 0x7f0000001000", Some(0x7f00_0000_1000)),
            (
                "Host virtual address for 0x1000 (a name that is 0x5) is 0x7f0000001000",
                Some(0x7f00_0000_1000),
            ),
            ("No memory is mapped at address 0x1000", None),
            ("Memory at address 0xfee00000 is not RAM", None),
            ("Host virtual address for 0x1000 (ram) is 0x", None),
            ("", None),
        ] {
            assert_eq!(host_address_in(said), address, "{said}");
        }
    }
}
