//! A machine in elastic mode follows a guest that allocates and frees.

use std::time::Duration;

use rackmem_types::Bytes;

use crate::brick::{Brick, wait_for};

const MIB: u64 = 1 << 20;

#[test]
fn root_qemu_a_machine_grows_with_its_guest_and_shrinks_after_it() {
    let brick = Brick::start();
    brick
        .create("web1", &["--memory", "384MiB", "--memory-max", "2GiB", "--local", "160MiB", "--vcpus", "2"]);
    let mut probe = brick.probe("web1");
    brick.done(&["elastic", "web1", "--min", "384MiB", "--max", "2GiB"]);
    probe.fill(5, Bytes(100 * MIB)).unwrap();
    for _ in 0..4 {
        let before = brick.mib("web1", "size");
        probe.grow(Bytes(120 * MIB)).unwrap();
        let short = probe.info().unwrap().memory;
        if short.available.0 * 100 / short.total.0 < 15 {
            wait_for("it grows", Duration::from_secs(60), || brick.mib("web1", "size") > before);
        }
    }
    let grown = brick.mib("web1", "size");
    assert!(grown > 500, "it has {grown} MiB");
    assert_eq!(probe.info().unwrap().oom_kills, 0);
    probe.check().unwrap();
    probe.release().unwrap();
    wait_for("it shrinks", Duration::from_secs(150), || brick.mib("web1", "size") + 64 < grown);
    let decisions = brick.done(&["elastic", "web1"]);
    assert!(decisions.contains("is available") && decisions.contains("has been available"), "{decisions}");
    // The last decision may still be under way.
    wait_for("it is told", Duration::from_secs(60), || brick.vm(&["elastic", "web1", "--off"]).status.success());
    assert!(brick.done(&["elastic", "web1"]).contains("does not follow"));
}
