//! What the guest says of its own memory, through the balloon's statistics.

use rackmem_types::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::machine::answer;
use crate::{Machine, QemuError, Result};

/// Where QEMU keeps the devices that were given an id, and those that were not.
const PERIPHERALS: [&str; 2] = ["/machine/peripheral", "/machine/peripheral-anon"];

/// The guest's own numbers. What its kernel does not tell is absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestMemory {
    /// What its kernel manages.
    pub total: Option<Bytes>,
    /// Unused.
    pub free: Option<Bytes>,
    /// What new programs could get without swapping.
    pub available: Option<Bytes>,
    /// Caches of files.
    pub caches: Option<Bytes>,
    /// Swapped in since it booted.
    pub swapped_in: Option<Bytes>,
    /// Swapped out since it booted.
    pub swapped_out: Option<Bytes>,
    /// Page faults that had to read, since it booted.
    pub major_faults: Option<u64>,
    /// Page faults that had not, since it booted.
    pub minor_faults: Option<u64>,
    /// When it said so, in seconds since 1970, by the host's clock.
    pub updated_s: u64,
}

/// Reads what the guest said last.
pub(crate) async fn read<M: Machine + ?Sized>(machine: &M) -> Result<Option<GuestMemory>> {
    let Some(path) = balloon_path(machine).await? else { return Ok(None) };
    let said = machine.execute("qom-get", json!({ "path": path, "property": "guest-stats" })).await?;
    Ok(guest_in(&said))
}

/// Sets how often the guest is asked.
pub(crate) async fn every<M: Machine + ?Sized>(machine: &M, seconds: u32) -> Result<()> {
    let path = balloon_path(machine).await?.ok_or_else(|| QemuError::Missing {
        what: "balloon".to_owned(),
        remedy: "start it with one to see the guest's own numbers".to_owned(),
    })?;
    let order = json!({ "path": path, "property": "guest-stats-polling-interval", "value": seconds });
    machine.execute("qom-set", order).await.map(drop)
}

/// The balloon's place, whatever it was called by whoever started the machine.
async fn balloon_path<M: Machine + ?Sized>(machine: &M) -> Result<Option<String>> {
    for parent in PERIPHERALS {
        let children = machine.execute("qom-list", json!({ "path": parent })).await?;
        let children = children.as_array().ok_or_else(|| answer("qom-list", "it is no list"))?;
        let balloon = children.iter().find(|child| {
            child["type"].as_str().is_some_and(|kind| kind.starts_with("child<virtio-balloon"))
        });
        if let Some(name) = balloon.and_then(|child| child["name"].as_str()) {
            return Ok(Some(format!("{parent}/{name}")));
        }
    }
    Ok(None)
}

fn guest_in(said: &Value) -> Option<GuestMemory> {
    let updated_s = said["last-update"].as_u64().filter(|seconds| *seconds > 0)?;
    // All ones is the balloon's word for "the guest did not say".
    let number = |name: &str| said["stats"][name].as_u64().filter(|value| *value != u64::MAX);
    let bytes = |name: &str| number(name).map(Bytes);
    Some(GuestMemory {
        total: bytes("stat-total-memory"),
        free: bytes("stat-free-memory"),
        available: bytes("stat-available-memory"),
        caches: bytes("stat-disk-caches"),
        swapped_in: bytes("stat-swap-in"),
        swapped_out: bytes("stat-swap-out"),
        major_faults: number("stat-major-faults"),
        minor_faults: number("stat-minor-faults"),
        updated_s,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_the_guest_does_not_tell_are_absent() {
        let said = json!({ "stats": {
            "stat-total-memory": 500_000_000u64, "stat-free-memory": 0, "stat-swap-in": u64::MAX, "stat-new": 1,
        }, "last-update": 1_700_000_000u64 });
        let guest = guest_in(&said).unwrap();
        assert_eq!(guest.total, Some(Bytes(500_000_000)));
        assert_eq!(guest.free, Some(Bytes(0)));
        assert_eq!((guest.swapped_in, guest.available), (None, None));
    }

    #[test]
    fn a_guest_that_never_spoke_has_no_numbers() {
        assert_eq!(guest_in(&json!({ "stats": {}, "last-update": 0 })), None);
        assert_eq!(guest_in(&Value::Null), None);
    }
}
