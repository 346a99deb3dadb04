//! stress-ng writes patterns and verifies them. Needs root and stress-ng.

use std::ffi::OsString;

use rackmem_e2e::{Case, at_every_limit, required};

/// Two workers over 128 MiB. Each method makes one pass in a few operations, so the work is the same on each run.
fn stress_ng(method: &str, operations: u32) -> Case {
    let mut line: Vec<OsString> = vec![required("stress-ng").into()];
    line.extend(
        ["--vm", "2", "--vm-bytes", "128M", "--vm-method", method, "--verify", "--vm-ops"]
            .map(OsString::from),
    );
    line.extend([operations.to_string().into(), "--temp-path".into(), std::env::temp_dir().into()]);
    Case::new(128, line).with_varying_output().in_several_processes()
}

at_every_limit! {
    /// Every bit is set and cleared in random places.
    random_places => stress_ng("rand-set", 20_000);
    /// Numbers move from page to page.
    moving => stress_ng("move-inv", 20_000);
    /// Patterns run through memory in both directions.
    galloping => stress_ng("galpat-0", 4_000);
}
