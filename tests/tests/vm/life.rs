//! A machine is made, shown, paused, stopped, started and deleted; it says what it is, and leaves nothing.

use serde_json::Value;

use crate::brick::{Brick, wait_until};

#[test]
fn root_qemu_a_machine_lives_and_leaves_nothing() {
    let brick = Brick::start();
    brick.create("web1", &["--memory", "512MiB", "--memory-max", "1GiB", "--local", "96MiB", "--vcpus", "2"]);
    let mut probe = brick.probe("web1");
    assert_eq!(probe.info().unwrap().cpus, 2);
    let shown = brick.show("web1");
    assert_eq!(shown["state"], "running");
    assert_eq!(shown["accelerator"]["kind"], "tcg");
    assert_eq!(shown["pager"]["state"], "up");
    assert_eq!(shown["memory"]["parts"][0]["state"], "up");
    assert!(brick.done(&["log", "web1"]).contains("guest-probe: ready"));

    brick.done(&["pause", "web1"]);
    assert_eq!(brick.show("web1")["state"], "paused");
    brick.done(&["resume", "web1"]);
    probe.info().unwrap();

    let first = shown["pid"].as_u64();
    // The guest's own way down, by its power button.
    brick.done(&["stop", "web1"]);
    assert_eq!((brick.show("web1")["state"].as_str(), brick.qemus()), (Some("stopped"), vec![]));
    brick.done(&["start", "web1"]);
    brick.probe("web1").info().unwrap();
    assert_ne!(brick.show("web1")["pid"].as_u64(), first);
    brick.done(&["delete", "web1"]);
    assert_eq!(brick.qemus(), [0u32; 0]);
    assert!(!brick.state().join("vms/web1").exists());
    assert!(brick.refused(&["show", "web1"]).contains("there is no virtual machine 'web1'"));
    let list: Value = serde_json::from_str(&brick.done(&["list", "--json"])).unwrap();
    assert_eq!(list, Value::Array(vec![]));
}

#[test]
fn root_qemu_a_guest_that_switches_itself_off_is_stopped_and_one_that_is_killed_has_failed() {
    let brick = Brick::start();
    brick.create("web1", &["--memory", "256MiB", "--local", "96MiB"]);
    brick.probe("web1").power_off().unwrap();
    wait_until("it is stopped", || brick.show("web1")["state"] == "stopped");
    brick.done(&["start", "web1"]);
    let pid = brick.show("web1")["pid"].as_u64().unwrap();
    let pid = rustix::process::Pid::from_raw(pid as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    let is_told =
        |shown: &Value| shown["reason"].as_str().is_some_and(|text| text.contains("QEMU has ended"));
    wait_until("it has failed", || is_told(&brick.show("web1")));
    assert_eq!(brick.show("web1")["state"], "failed");
    brick.done(&["start", "web1"]);
    assert_eq!(brick.show("web1")["state"], "running");
}
