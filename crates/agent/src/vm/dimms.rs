//! The DIMMs by which a machine without virtio-mem grows: all of one size.

use rackmem_api::agent::{DIMM_MIN, VmSpec};
use rackmem_types::Bytes;

/// As many as ACPI has slots for.
const SLOTS_MAX: u64 = 255;

/// Size and number of a machine's DIMMs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Dimms {
    /// Size of each.
    pub(crate) unit: Bytes,
    /// How many there can be.
    pub(crate) slots: u8,
}

impl Dimms {
    /// The smallest that reach the machine's maximum.
    pub(crate) fn of(spec: &VmSpec) -> Self {
        let growable = spec.memory_max.unwrap_or(spec.memory).0.saturating_sub(spec.memory.0);
        let unit = growable.div_ceil(SLOTS_MAX).next_multiple_of(DIMM_MIN.0).max(DIMM_MIN.0);
        Self { unit: Bytes(unit), slots: u8::try_from(growable / unit).unwrap_or(u8::MAX) }
    }

    /// All of them together.
    pub(crate) fn capacity(self) -> Bytes {
        Bytes(self.unit.0 * u64::from(self.slots))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dimms_reach_the_maximum_with_the_slots_there_are() {
        let dimms = |max: u64| {
            let spec =
                format!(r#"{{"name":"a","memory":1073741824,"memory_max":{max},"boot":{{"kernel":"/k"}}}}"#);
            Dimms::of(&serde_json::from_str(&spec).unwrap())
        };
        let gib = |count: u64| count << 30;
        assert_eq!(dimms(gib(1)), Dimms { unit: DIMM_MIN, slots: 0 });
        assert_eq!(dimms(gib(2)), Dimms { unit: DIMM_MIN, slots: 8 });
        assert_eq!(dimms(gib(2) + 1).capacity(), Bytes(gib(1)));
        let large = dimms(gib(1025));
        assert!(large.unit > DIMM_MIN && large.unit.0.is_multiple_of(DIMM_MIN.0));
        assert!(gib(1024) - large.capacity().0 < large.unit.0, "{large:?}");
    }
}
