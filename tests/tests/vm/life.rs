//! A machine is made, shown, paused, stopped, started and deleted; it says what it is, and leaves nothing.

use guest_probe::ProbeClient;
use rackmem_types::Bytes;
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
    let is_told = |shown: &Value| shown["reason"].as_str().is_some_and(|text| text.contains("QEMU has ended"));
    wait_until("it has failed", || is_told(&brick.show("web1")));
    assert_eq!(brick.show("web1")["state"], "failed");
    brick.done(&["start", "web1"]);
    assert_eq!(brick.show("web1")["state"], "running");
}

#[test]
fn root_qemu_each_access_to_one_page_of_a_guest_is_seen() {
    let brick = Brick::start();
    brick.create("web1", &["--memory", "256MiB", "--local", "96MiB"]);
    let mut probe: ProbeClient = brick.probe("web1");
    let address = probe.page().unwrap().guest_physical_address;
    let watch = brick.vm_process(&["watch", "web1", &format!("{address:#x}")]);
    // The watch is in force some time after it was asked for.
    let mut value = 0;
    let (lines, seen) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let ended = watch.finish_watched(|_| {});
        let _ = lines.send(ended.stdout);
    });
    for _ in 0..30 {
        value += 1;
        probe.page_write(value).unwrap();
        assert_eq!(probe.page_read().unwrap().value, Some(value));
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    // Its pager ends with the machine, and the watch with the pager.
    brick.done(&["delete", "web1"]);
    let text = seen.recv_timeout(std::time::Duration::from_secs(30)).unwrap();
    let writes = text.lines().filter(|line| line.contains("write") && line.contains("guest 0x")).count();
    assert!(writes >= 10, "{writes} writes of 30 were seen:\n{text}");
}

#[test]
fn root_qemu_what_is_typed_reaches_the_guest() {
    let brick = Brick::start();
    brick.create("web1", &["--memory", "256MiB"]);
    brick.probe("web1");
    assert_eq!(brick.show("web1")["pager"], Value::Null);
    let mut command = brick.rack.command(["vm", "console", "web1"]);
    command.env("RACKMEM_AGENT", format!("unix:{}", brick.rack.directory().join("agent.sock").display()));
    let mut child =
        command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::null()).spawn().unwrap();
    use std::io::Write;
    let keys = child.stdin.as_mut().unwrap();
    wait_until("the guest's shell answers on its console", || {
        keys.write_all(b"\necho typed-$((40+2))\n").unwrap();
        std::thread::sleep(std::time::Duration::from_millis(300));
        brick.done(&["log", "web1"]).contains("typed-42")
    });
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(brick.mib("web1", "far") == 0 && Bytes(0) == Bytes(brick.mib("web1", "ballooned")));
}
