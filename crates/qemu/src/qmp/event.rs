//! QEMU's events in the words of this crate. Pure.

use rackmem_types::Bytes;
use serde_json::Value;

use crate::Event;

/// Translates an event; one that says nothing useful here is passed on as it is.
pub(crate) fn event(name: String, data: Value) -> Event {
    let by_guest = || data["guest"].as_bool().unwrap_or(false);
    let text = |field: &str| data[field].as_str().unwrap_or_default().to_owned();
    let device = |id: &str, path: &str| match data[id].as_str() {
        Some(id) => id.to_owned(),
        None => text(path),
    };
    match name.as_str() {
        "SHUTDOWN" => Event::Shutdown { by_guest: by_guest(), reason: text("reason") },
        "RESET" => Event::Reset { by_guest: by_guest() },
        "STOP" => Event::Paused,
        "RESUME" => Event::Resumed,
        "POWERDOWN" => Event::PowerDown,
        "GUEST_PANICKED" => Event::GuestPanicked,
        "DEVICE_DELETED" => Event::DeviceDeleted { device: device("device", "path") },
        "MEM_UNPLUG_ERROR" => {
            Event::UnplugRefused { device: device("device", "device"), reason: text("msg") }
        }
        "DEVICE_UNPLUG_GUEST_ERROR" => {
            let reason = "the guest does not let it go".to_owned();
            Event::UnplugRefused { device: device("device", "path"), reason }
        }
        "BALLOON_CHANGE" if data["actual"].is_u64() => {
            Event::BalloonChanged { actual: Bytes(data["actual"].as_u64().unwrap_or_default()) }
        }
        "MEMORY_DEVICE_SIZE_CHANGE" if data["size"].is_u64() => Event::MemorySizeChanged {
            device: device("id", "qom-path"),
            size: Bytes(data["size"].as_u64().unwrap_or_default()),
        },
        _ => Event::Other { name, data },
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_events_that_matter_here_are_translated() {
        let check = |name: &str, data: Value, expect: Event| {
            assert_eq!(event(name.to_owned(), data), expect, "{name}");
        };
        let (vmem, dimm) = ("vmem0".to_owned(), "dimm0".to_owned());
        check(
            "SHUTDOWN",
            json!({ "guest": true, "reason": "guest-shutdown" }),
            Event::Shutdown { by_guest: true, reason: "guest-shutdown".to_owned() },
        );
        check("RESET", json!({ "guest": false }), Event::Reset { by_guest: false });
        check("BALLOON_CHANGE", json!({ "actual": 4096 }), Event::BalloonChanged { actual: Bytes(4096) });
        check(
            "MEMORY_DEVICE_SIZE_CHANGE",
            json!({ "id": "vmem0", "size": 4096, "qom-path": "/machine/peripheral/vmem0" }),
            Event::MemorySizeChanged { device: vmem, size: Bytes(4096) },
        );
        check(
            "MEMORY_DEVICE_SIZE_CHANGE",
            json!({ "size": 0, "qom-path": "/machine/peripheral-anon/device[1]" }),
            Event::MemorySizeChanged {
                device: "/machine/peripheral-anon/device[1]".to_owned(),
                size: Bytes(0),
            },
        );
        check(
            "DEVICE_DELETED",
            json!({ "device": "dimm0", "path": "/machine/peripheral/dimm0" }),
            Event::DeviceDeleted { device: dimm.clone() },
        );
        check(
            "MEM_UNPLUG_ERROR",
            json!({ "device": "dimm0", "msg": "busy" }),
            Event::UnplugRefused { device: dimm, reason: "busy".to_owned() },
        );
    }

    #[test]
    fn an_event_of_another_shape_is_passed_on_as_it_is() {
        for (name, data) in [("BALLOON_CHANGE", json!({ "actual": "much" })), ("NEW_ONE", Value::Null)] {
            let expect = Event::Other { name: name.to_owned(), data: data.clone() };
            assert_eq!(event(name.to_owned(), data), expect);
        }
    }
}
