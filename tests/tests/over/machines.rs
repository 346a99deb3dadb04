//! The controller chooses a brick, and real guests run there with memory that is really on other bricks.

use std::time::{Duration, Instant};

use guest_probe::ProbeClient;
use rackmem_types::Bytes;
use serde_json::Value;

use crate::rack::{Rack, wait_for, wait_until};

const MIB: u64 = 1 << 20;

#[test]
fn root_qemu_a_machine_lives_over_the_rack_and_leaves_nothing() {
    let rack = Rack::up("l");
    let sizes = "--memory 256MiB --memory-max 576MiB --local 96MiB --vcpus 2 --class rack";
    let told = rack.create("web1", sizes);
    assert_eq!(told, "web1: runs on c2\n", "c1 has one core");
    let machine = rack.machine("web1");
    assert_eq!((&machine["state"], machine["far"].as_u64()), (&Value::from("running"), Some(256 * MIB)));
    assert_eq!(machine["machine"]["attachments"].as_array().unwrap().len(), 1, "{machine}");
    assert_ne!(rack.circuits(), "none");
    // The guest's memory is on the other side of the circuit, and is what the guest wrote.
    let mut probe = rack.probe("c2", "web1");
    watched(&rack, &mut probe);
    probe.fill(5, Bytes(160 * MIB)).unwrap();
    probe.check().unwrap();
    let far = |rack: &Rack| rack.machine("web1")["machine"]["memory"]["far"].as_u64().unwrap();
    wait_until("memory is far", || far(&rack) > 60 * MIB);
    rack.refused("release 1", "'web1'");
    // The controller may die: the machine runs on, and the next one knows it.
    rack.kill_controller();
    probe.check().unwrap();
    rack.start();
    assert_eq!(rack.machine("web1")["machine"]["state"], "running");
    // It grows: memory is reserved first, and the guest gets it. Its pager goes on, so nothing had to come home.
    let pager = rack.pager("c2");
    assert_eq!(rack.done("vm resize web1 512MiB"), "web1: has 512MiB\n");
    let machine = rack.machine("web1");
    assert_eq!((machine["far"].as_u64(), machine["memory"].as_u64()), (Some(512 * MIB), Some(512 * MIB)));
    assert_eq!(rack.pager("c2"), pager);
    assert!(probe.info().unwrap().memory.total.0 > 460 * MIB);
    // The last of it is no whole block of the guest's kernel, and comes all the same; what it has can be asked for again.
    for _ in 0..2 {
        assert_eq!(rack.done("vm resize web1 576MiB"), "web1: has 576MiB\n");
    }
    assert!(probe.info().unwrap().memory.total.0 > 520 * MIB);
    probe.grow(Bytes(200 * MIB)).unwrap();
    probe.check().unwrap();
    // It shrinks: the guest gives it back first, and then it is released.
    probe.shrink(Bytes(200 * MIB)).unwrap();
    // The guest tells how it fares once a second.
    std::thread::sleep(Duration::from_secs(3));
    let told = rack.done("vm resize web1 256MiB");
    let machine = rack.machine("web1");
    let kept = machine["machine"]["memory"]["size"].as_u64().unwrap();
    if kept == 256 * MIB {
        assert_eq!(machine["far"].as_u64(), Some(256 * MIB), "{told}");
    } else {
        assert!(told.contains("gave back"), "{kept}, and it said: {told}");
    }
    probe.check().unwrap();
    through_the_controller(&rack, &mut probe);
    drain(&rack, &mut probe);
    rack.done("vm stop web1 --force");
    assert_eq!(rack.machine("web1")["state"], "stopped");
    rack.refused("vm resize web1 512MiB", "does not run");
    assert_eq!(rack.done("vm start web1"), "web1: started\n");
    let mut probe = rack.probe("c2", "web1");
    probe.fill(6, Bytes(150 * MIB)).unwrap();
    probe.check().unwrap();
    assert_eq!(rack.done("vm delete web1"), "web1: deleted\n");
    rack.is_empty();
}

/// Every brick that lends memory to `web1` is emptied in turn, under the running guest, and more than once: its memory comes back to a
/// brick that it has left.
fn drain(rack: &Rack, probe: &mut ProbeClient) {
    let bricks = |rack: &Rack| rack.machine("web1")["memory_bricks"].as_array().unwrap().clone();
    for brick in ["m1", "m2", "m1", "m2"] {
        let far = rack.machine("web1")["far"].as_u64();
        rack.done(&format!("brick drain {brick}"));
        assert!(!bricks(rack).contains(&Value::from(brick)), "{:?}", bricks(rack));
        assert_eq!(rack.machine("web1")["far"].as_u64(), far);
        assert_eq!(rack.json(&format!("brick show {brick}"))["used"], 0);
        probe.check().unwrap();
        rack.done(&format!("brick drain {brick} --end"));
    }
}

/// Who knows only the controller pauses the machine, reads what it said, and types.
fn through_the_controller(rack: &Rack, probe: &mut ProbeClient) {
    assert_eq!(rack.done("vm pause web1"), "web1: paused\n");
    let machine = rack.machine("web1");
    assert_eq!((&machine["state"], &machine["machine"]["state"]), (&"paused".into(), &"paused".into()));
    rack.refused("vm resize web1 320MiB", "rackmem vm resume web1");
    assert_eq!(rack.done("vm resume web1"), "web1: goes on\n");
    assert_eq!(rack.json("vm list")[0]["state"], "running");
    probe.check().unwrap();
    assert!(rack.done("vm log web1").contains("guest-probe: ready"));
    rack.typed("web1", "echo typed-$((40+2))", "typed-42");
}

/// Who knows only the controller sees each access to a page.
fn watched(rack: &Rack, probe: &mut ProbeClient) {
    let page = format!("{:#x}", probe.page().unwrap().guest_physical_address);
    let mut watch = rack.begin(&format!("vm watch web1 {page}"));
    // The watch is in force some time after it was asked for.
    let mut value = 0;
    wait_until("an access is seen", || {
        value += 1;
        probe.page_write(value).unwrap();
        watch.said(|text| text.contains(" write ") && text.contains(&page))
    });
    assert_eq!(probe.page_read().unwrap().value, Some(value));
    probe.page_release().unwrap();
}

#[test]
fn root_qemu_what_fails_leaves_nothing_and_what_died_is_told() {
    let rack = Rack::up("f");
    let sizes = "--memory 256MiB --local 96MiB --class rack";
    rack.refused(&format!("vm create web1 --kernel /nowhere {sizes}"), "/nowhere");
    rack.is_empty();
    let ended = rack.refused(&format!("vm create web1 --kernel /k --vcpus 8 {sizes}"), "nothing was made");
    let told = rack.why(&ended);
    assert!(told.lines().any(|line| line.starts_with("c2") && line.contains("cores")), "{told}");
    rack.refused("vm pause web1", "there is no virtual machine 'web1'");
    rack.refused("vm detach web1", "--agent");
    rack.refused("vm list --agent a:1 --controller b:1", "cannot be used with");
    // What ends behind the controller's back is told within bounded time.
    rack.create("web1", &format!("{sizes} --compute c1"));
    let pid = rack.machine("web1")["machine"]["pid"].as_u64().unwrap();
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    wait_until("it is told", || rack.json("vm list")[0]["state"] == "failed");
    assert!(rack.done("events").contains("vm.difference"));
    rack.done("vm start web1");
    assert_eq!(rack.machine("web1")["state"], "running");
    rack.done("vm delete web1");
    rack.is_empty();
}

#[test]
fn root_qemu_a_machine_whose_memory_was_lost_is_started_with_other_memory() {
    let rack = Rack::up("w");
    rack.create("web1", "--memory 192MiB --local 96MiB --class rack --compute c1");
    rack.probe("c1", "web1").fill(7, Bytes(100 * MIB)).unwrap();
    let lender = rack.machine("web1")["memory_bricks"][0].as_str().unwrap().to_owned();
    rack.kill_brick(&lender);
    rack.start();
    wait_until("the loss is told", || rack.machine("web1")["memory_lost"] == serde_json::json!([lender]));
    // It may have ended by itself: nothing else than that becomes of a guest whose pages are gone.
    drop(rack.ask("vm stop web1 --force"));
    wait_until("it has ended", || rack.machine("web1")["state"] != "running");
    rack.done("vm start web1");
    let machine = rack.machine("web1");
    assert_eq!((&machine["state"], &machine["memory_lost"]), (&"running".into(), &serde_json::Value::Null));
    let mut probe = rack.probe("c1", "web1");
    probe.fill(8, Bytes(100 * MIB)).unwrap();
    probe.check().unwrap();
    rack.done("vm delete web1");
    rack.is_empty();
}

#[test]
fn root_qemu_a_stop_that_waits_for_its_guest_is_cancelled() {
    let rack = Rack::up("c");
    rack.create_deaf("web1", "--memory 192MiB --local 96MiB --class rack --compute c2");
    let pid = || rack.machine("web1")["machine"]["pid"].as_u64();
    let runs_as = pid();
    let asked = rack.json("vm stop web1 --timeout 600 --no-wait");
    wait_until("the agent waits for the guest", || rack.asked(1, "vms/web1")["operation"].is_string());
    rack.refused("vm stop web1 --force", "web1");
    let id = asked["id"].as_str().unwrap();
    let begun = Instant::now();
    rack.done(&format!("operation cancel {id}"));
    rack.refused(&format!("operation wait {id}"), "cancelled");
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
    assert_eq!((&rack.machine("web1")["state"], pid()), (&"running".into(), runs_as));
    assert_eq!(rack.asked(1, "vms/web1")["state"], "running");
    assert_eq!(rack.done("vm stop web1 --force"), "web1: stopped\n");
    rack.done("vm delete web1");
    rack.is_empty();
}

#[test]
fn root_qemu_a_controller_that_is_killed_while_it_makes_a_machine_goes_on() {
    let rack = Rack::up("k");
    for wait_ms in [5, 40, 200, 600] {
        let creating = rack.creating("web1", "--memory 192MiB --local 96MiB --class rack");
        std::thread::sleep(Duration::from_millis(wait_ms));
        rack.kill_controller();
        rack.start();
        // What was accepted is waited for over the restart.
        creating.finish();
        for operation in rack.json("operation list --state running").as_array().unwrap() {
            rack.done(&format!("operation wait {}", operation["id"].as_str().unwrap()));
        }
        let machines = rack.json("vm list");
        match machines.as_array().unwrap().first() {
            None => rack.is_empty(),
            Some(machine) => {
                assert_eq!(machine["state"], "running", "killed after {wait_ms} ms");
                let brick = machine["compute"].as_str().unwrap();
                let mut probe = rack.probe(brick, "web1");
                probe.fill(wait_ms, Bytes(100 * MIB)).unwrap();
                probe.check().unwrap();
                rack.done("vm delete web1");
                rack.is_empty();
            }
        }
    }
}

#[test]
fn root_qemu_an_agent_asks_the_controller_for_more_and_gives_it_back() {
    let rack = Rack::up("g");
    rack.create("web1", "--memory 256MiB --memory-max 512MiB --local 96MiB --compute c1");
    let mut probe = rack.probe("c1", "web1");
    probe.fill(9, Bytes(150 * MIB)).unwrap();
    // The agent itself is asked, which has nothing left to lend.
    assert_eq!(rack.on_agent(0, "resize web1 448MiB"), "web1: has 448MiB\n");
    let machine = rack.machine("web1");
    assert_eq!((machine["far"].as_u64(), machine["memory"].as_u64()), (Some(448 * MIB), Some(448 * MIB)));
    let newest = &rack.json("operation list")[0];
    assert_eq!((&newest["kind"], &newest["state"]), (&Value::from("vm.fit"), &Value::from("done")));
    probe.grow(Bytes(150 * MIB)).unwrap();
    probe.check().unwrap();
    probe.shrink(Bytes(150 * MIB)).unwrap();
    std::thread::sleep(Duration::from_secs(3));
    rack.on_agent(0, "resize web1 256MiB");
    wait_for("it is given back", Duration::from_secs(60), || reserved(&rack) == 256 * MIB);
    probe.check().unwrap();
    follow(&rack, &mut probe);
    rack.done("vm delete web1");
    rack.is_empty();
}

/// The machine follows its guest: what it grows by its agent has the controller reserve, and what it shrinks by goes back.
fn follow(rack: &Rack, probe: &mut ProbeClient) {
    let fitted = fits(rack);
    let told = rack.done("vm elastic web1 --min 256MiB --max 512MiB");
    assert_eq!(told, "web1: follows its guest from 256MiB to 512MiB\n");
    assert_eq!(rack.json("vm list")[0]["elastic"]["max"], 512 * MIB);
    let size = || rack.machine("web1")["machine"]["memory"]["size"].as_u64().unwrap();
    probe.fill(10, Bytes(100 * MIB)).unwrap();
    for _ in 0..12 {
        let before = size();
        // Less than what is free when it begins to grow.
        probe.grow(Bytes(16 * MIB)).unwrap();
        let short = probe.info().unwrap().memory;
        if short.available.0 * 100 / short.total.0 < 15 {
            let is_at_maximum = before >= 512 * MIB;
            wait_for("it grows", Duration::from_secs(90), || is_at_maximum || size() > before);
        }
    }
    probe.check().unwrap();
    assert_eq!(probe.info().unwrap().oom_kills, 0);
    let (grown, machine) = (reserved(rack), rack.machine("web1"));
    let attached = machine["machine"]["attachments"].as_array().unwrap().len();
    assert!(grown >= 320 * MIB && attached > 1, "{attached} attachments: {machine}");
    assert_eq!(rack.json("reservation list")[0]["memory"].as_u64(), Some(grown));
    assert!(fits(rack) > fitted, "the agent has asked for nothing");
    probe.release().unwrap();
    wait_for("the guest gives it back", Duration::from_secs(150), || size() + 48 * MIB <= grown);
    wait_for("it is released", Duration::from_secs(90), || reserved(rack) < grown);
    let decisions = rack.done("vm elastic web1");
    assert!(decisions.contains("is available") && decisions.contains("has been available"), "{decisions}");
    rack.done("vm elastic web1 --off");
    assert_eq!(rack.done("vm elastic web1"), "web1: does not follow its guest\n");
}

/// How often its agent had what is reserved fit the machine.
fn fits(rack: &Rack) -> usize {
    let operations = rack.json("operation list");
    operations.as_array().unwrap().iter().filter(|of| of["kind"] == "vm.fit" && of["state"] == "done").count()
}

/// Far memory that is reserved for the machine.
fn reserved(rack: &Rack) -> u64 {
    rack.machine("web1")["far"].as_u64().unwrap()
}
