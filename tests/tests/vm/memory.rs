//! A guest's memory is far, grows and shrinks, and always is what the guest wrote.

use guest_probe::Side;
use rackmem_types::Bytes;

use crate::brick::Brick;

const MIB: u64 = 1 << 20;

/// What a guest's kernel and the probe need beside what the probe fills.
const SPARE: u64 = 32 * MIB;

/// Seconds that a guest may take to put its last block on line: milliseconds, unless others have the processors.
const ON_LINE_S: u32 = 5;

#[test]
fn root_qemu_a_guest_of_one_gib_with_128_mib_local_fills_and_checks_all() {
    let brick = Brick::start();
    brick.create("big", &["--memory", "1GiB", "--local", "128MiB"]);
    let mut probe = brick.probe("big");
    let available = probe.info().unwrap().memory.available.0;
    assert!(available > 650 * MIB, "{available}");
    probe.fill(7, Bytes((available - SPARE) & !4095)).unwrap();
    probe.check().unwrap();
    let (local, far) = (brick.mib("big", "local"), brick.mib("big", "far"));
    assert!(local <= 140, "{local} MiB are local, more than the limit of 128");
    assert!(far > 450, "only {far} MiB are far");
    probe.check().unwrap();
    // What the guest gives back, far memory gets back: free page reporting.
    probe.release().unwrap();
    crate::brick::wait_until("far memory is given back", || brick.mib("big", "far") < 300);
}

#[test]
fn root_qemu_a_guest_grows_and_shrinks_twice_while_it_is_checked() {
    grow_and_shrink(2);
}

#[test]
fn root_qemu_a_guest_grows_and_shrinks_ten_times_while_it_is_checked() {
    grow_and_shrink(10);
}

fn grow_and_shrink(rounds: usize) {
    let brick = Brick::start();
    brick
        .create("web1", &["--memory", "512MiB", "--memory-max", "2GiB", "--local", "160MiB", "--vcpus", "2"]);
    let mut probe = brick.probe("web1");
    probe.fill(3, Bytes(200 * MIB)).unwrap();
    let before = probe.churn_start(20).unwrap().checked;
    for round in 0..rounds {
        brick.done(&["resize", "web1", "2GiB"]);
        assert_eq!(brick.mib("web1", "size"), 2048, "round {round}");
        // A guest says that it has plugged a block and puts it on line a moment later.
        let seen = probe.wait_total(Side::AtLeast, Bytes(1900 * MIB), ON_LINE_S);
        seen.unwrap_or_else(|error| panic!("round {round}: the guest does not use it: {error}"));
        // Memory that was plugged is used, so that the shrink has something to move; then it is given back.
        probe.grow(Bytes(300 * MIB)).unwrap();
        let told = brick.done(&["resize", "web1", "768MiB"]);
        let size = brick.mib("web1", "size");
        assert!(size == 768 || told.contains("not 768MiB"), "{size} MiB, and it said: {told}");
        probe.shrink(Bytes(300 * MIB)).unwrap();
        probe.churn().unwrap_or_else(|error| panic!("round {round}: {error}"));
    }
    let churned = probe.churn_stop().unwrap();
    assert!(churned.checked > before);
    probe.check().unwrap();
    assert_eq!(probe.info().unwrap().oom_kills, 0);
}

#[test]
fn root_qemu_a_far_node_is_seen_with_its_distance() {
    let brick = Brick::start();
    let sizes = ["--memory", "512MiB", "--memory-max", "1GiB", "--local", "160MiB", "--far-node", "rack"];
    brick.create("web1", &sizes);
    let mut probe = brick.probe("web1");
    brick.done(&["resize", "web1", "1GiB"]);
    let nodes = probe.info().unwrap().nodes;
    assert_eq!(nodes.len(), 2, "{nodes:?}");
    assert!(nodes[1].cpus.is_empty() && nodes[1].total.0 >= 400 * MIB, "{nodes:?}");
    assert_eq!(nodes[1].distances, [80, 10]);
}

#[test]
fn root_qemu_a_plan_tells_and_changes_nothing() {
    let brick = Brick::start();
    brick.create("web1", &["--memory", "256MiB", "--memory-max", "512MiB", "--local", "96MiB"]);
    brick.probe("web1");
    let plan = brick.done(&["resize", "web1", "512MiB", "--plan"]);
    assert!(plan.contains("plug (virtio-mem): 0B → 256MiB"), "{plan}");
    assert_eq!(brick.mib("web1", "size"), 256);
    let plan = brick.done(&["resize", "web1", "1GiB", "--plan", "--allow-restart"]);
    assert!(plan.contains("restart the guest"), "{plan}");
    brick.done(&["resize", "web1", "1GiB", "--allow-restart"]);
    assert!(brick.probe("web1").info().unwrap().memory.total.0 > 800 * MIB);
}

#[test]
fn root_qemu_a_guest_grows_and_shrinks_by_dimms() {
    let brick = Brick::start();
    let options = ["--memory", "384MiB", "--memory-max", "1GiB", "--local", "160MiB", "--growth", "dimm"];
    brick.create("old", &options);
    let mut probe = brick.probe("old");
    probe.fill(8, Bytes(150 * MIB)).unwrap();
    let plan: serde_json::Value =
        serde_json::from_str(&brick.done(&["resize", "old", "768MiB", "--plan", "--json"])).unwrap();
    assert_eq!(plan["steps"][0]["mechanism"], "dimm", "{plan}");
    brick.done(&["resize", "old", "768MiB"]);
    assert_eq!((brick.mib("old", "size"), brick.mib("old", "plugged")), (768, 384));
    assert!(probe.info().unwrap().memory.total.0 > 690 * MIB, "the guest does not use it");
    // What is in use cannot go, and what stays is told.
    probe.grow(Bytes(300 * MIB)).unwrap();
    probe.check().unwrap();
    probe.shrink(Bytes(300 * MIB)).unwrap();
    // The guest tells how it fares once a second.
    std::thread::sleep(std::time::Duration::from_secs(3));
    let told = brick.done(&["resize", "old", "512MiB"]);
    let plugged = brick.mib("old", "plugged");
    assert!(plugged == 128 || told.contains("gave back"), "{plugged} MiB are plugged, and it said: {told}");
    assert!(plugged < 384, "no DIMM went: {told}");
    probe.check().unwrap();
    brick.done(&["resize", "old", "640MiB"]);
    probe.check().unwrap();
    let refused = brick.refused(&["resize", "old", "2GiB"]);
    assert!(refused.contains("1GiB"), "{refused}");
}
