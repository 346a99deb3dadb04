//! Machines that are made through a real libvirtd: they live as those that the agent starts itself, libvirt sees all of it, and
//! nothing is left.

use std::time::Duration;

use rackmem_types::Bytes;

use crate::brick::{Brick, wait_until};
use crate::libvirtd::Libvirtd;
use crate::survival::{at_each_moment, before_each_record};
use crate::terminal::answers;

const MIB: u64 = 1 << 20;

fn start() -> (Brick, Libvirtd) {
    let brick = Brick::without_agent();
    let libvirtd = Libvirtd::start(&brick.rack.directory().join("libvirt"));
    (brick.of_libvirt(&libvirtd.uri()), libvirtd)
}

fn create(brick: &Brick, name: &str, options: &[&str]) {
    brick.create(name, &[options, &["--driver", "libvirt"]].concat());
}

#[test]
fn root_libvirtd_a_machine_lives_as_a_domain_and_leaves_nothing() {
    let (brick, libvirtd) = start();
    create(&brick, "web1", &["--memory", "384MiB", "--local", "128MiB", "--vcpus", "2"]);
    let mut probe = brick.probe("web1");
    assert_eq!(probe.info().unwrap().cpus, 2);
    probe.fill(2, Bytes(200 * MIB)).unwrap();
    probe.check().unwrap();
    let shown = brick.show("web1");
    assert_eq!((&shown["driver"], &shown["state"]), (&"libvirt".into(), &"running".into()), "{shown}");
    assert_eq!((&shown["origin"], &shown["pager"]["state"]), (&"created".into(), &"up".into()), "{shown}");
    assert_eq!(shown["accelerator"]["kind"], "tcg", "{shown}");
    assert!(brick.mib("web1", "far") > 80, "{shown}");
    assert!(
        brick.done(&["show", "web1"]).lines().any(|line| line.contains("driver") && line.contains("libvirt"))
    );
    assert!(brick.done(&["log", "web1"]).contains("guest-probe: ready"));
    answers(&brick, "web1");

    brick.done(&["pause", "web1"]);
    assert_eq!(
        (brick.show("web1")["state"].as_str(), libvirtd.domains()),
        (Some("paused"), vec!["web1 paused".into()])
    );
    brick.done(&["resume", "web1"]);
    assert_eq!(libvirtd.domains(), ["web1 running"]);
    probe.check().unwrap();

    // The guest's own way down, by its power button; and up again.
    brick.done(&["stop", "web1"]);
    assert_eq!(
        (brick.show("web1")["state"].as_str(), libvirtd.domains()),
        (Some("stopped"), vec!["web1 shut off".into()])
    );
    brick.done(&["start", "web1"]);
    brick.probe("web1").power_off().unwrap();
    wait_until("it is stopped", || brick.show("web1")["state"] == "stopped");
    brick.done(&["start", "web1"]);
    let pid = i32::try_from(brick.show("web1")["pid"].as_u64().unwrap()).unwrap();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    wait_until("it has failed", || {
        brick.show("web1")["reason"].as_str().is_some_and(|text| text.contains("QEMU has ended"))
    });
    assert_eq!(brick.show("web1")["state"], "failed");
    brick.done(&["start", "web1"]);
    brick.done(&["delete", "web1"]);
    assert_eq!((libvirtd.domains(), brick.qemus()), (vec![], vec![]));
    assert!(!brick.state().join("vms/web1").exists());
    assert!(brick.refused(&["show", "web1"]).contains("there is no virtual machine 'web1'"));
}

#[test]
fn root_libvirtd_a_domain_grows_into_a_far_node_shrinks_and_follows_its_guest() {
    let (mut brick, libvirtd) = start();
    let sizes = ["--memory", "384MiB", "--memory-max", "1GiB", "--local", "160MiB", "--far-node", "rack"];
    create(&brick, "web1", &sizes);
    let mut probe = brick.probe("web1");
    probe.fill(3, Bytes(150 * MIB)).unwrap();
    brick.done(&["resize", "web1", "768MiB"]);
    assert_eq!((brick.mib("web1", "size"), brick.mib("web1", "plugged")), (768, 384));
    let nodes = probe.info().unwrap().nodes;
    assert!(nodes[1].cpus.is_empty() && nodes[1].total.0 >= 300 * MIB, "{nodes:?}");
    assert_eq!(nodes[1].distances, [80, 10]);
    probe.grow(Bytes(300 * MIB)).unwrap();
    probe.check().unwrap();

    // The next agent finds it, with whatever was plugged, and goes on with it.
    brick.kill_agent();
    probe.check().unwrap();
    brick.start_agent(&[]);
    assert_eq!((&brick.show("web1")["state"], brick.mib("web1", "size")), (&"running".into(), 768));
    probe.shrink(Bytes(300 * MIB)).unwrap();
    std::thread::sleep(Duration::from_secs(3));
    let told = brick.done(&["resize", "web1", "512MiB"]);
    let size = brick.mib("web1", "size");
    assert!(size == 512 || told.contains("not 512MiB"), "{size} MiB, and it said: {told}");
    assert!(libvirtd.virsh(&["dumpxml", "web1"]).contains("<requested unit='KiB'>131072</requested>"));

    brick.done(&["elastic", "web1", "--min", "384MiB", "--max", "1GiB"]);
    probe.grow(Bytes(230 * MIB)).unwrap();
    wait_until("it grows by itself", || brick.mib("web1", "size") > 512);
    probe.check().unwrap();

    // It is started again with the size that it had.
    brick.done(&["elastic", "web1", "--off"]);
    brick.done(&["resize", "web1", "896MiB"]);
    brick.done(&["stop", "web1", "--force"]);
    brick.done(&["start", "web1"]);
    assert!(brick.probe("web1").info().unwrap().memory.total.0 > 800 * MIB);
}

#[test]
fn root_libvirtd_a_domain_grows_and_shrinks_by_dimms() {
    let (brick, libvirtd) = start();
    create(
        &brick,
        "old",
        &["--memory", "384MiB", "--memory-max", "768MiB", "--local", "160MiB", "--growth", "dimm"],
    );
    let mut probe = brick.probe("old");
    brick.done(&["resize", "old", "640MiB"]);
    assert_eq!((brick.mib("old", "size"), brick.mib("old", "plugged")), (640, 256));
    assert!(probe.info().unwrap().memory.total.0 > 560 * MIB);
    assert_eq!(libvirtd.virsh(&["dumpxml", "old"]).matches("<memory model='dimm'").count(), 2);
    let told = brick.done(&["resize", "old", "512MiB"]);
    let plugged = brick.mib("old", "plugged");
    assert!(plugged == 128 || told.contains("gave back"), "{plugged} MiB are plugged, and it said: {told}");
    probe.fill(8, Bytes(200 * MIB)).unwrap();
    probe.check().unwrap();
}

#[test]
fn root_libvirtd_a_create_is_finished_wherever_the_agent_dies() {
    let (mut brick, libvirtd) = start();
    at_each_moment(
        &mut brick,
        |brick, _| {
            brick.create_line("web1", &["--memory", "256MiB", "--local", "64MiB", "--driver", "libvirt"])
        },
        |brick, moment| {
            let shown = brick.show("web1");
            let states = (&shown["state"], &shown["pager"]["state"]);
            assert_eq!(states, (&"running".into(), &"up".into()), "moment {moment}: {shown}");
            assert_eq!(libvirtd.domains(), ["web1 running"], "moment {moment}");
            brick.done(&["delete", "web1"]);
            assert_eq!((libvirtd.domains(), brick.qemus()), (vec![], vec![]), "moment {moment}");
        },
    );
}

#[test]
fn root_libvirtd_a_resize_is_finished_wherever_the_agent_dies() {
    let (mut brick, libvirtd) = start();
    create(&brick, "web1", &["--memory", "384MiB", "--memory-max", "768MiB", "--local", "128MiB"]);
    let mut probe = brick.probe("web1");
    probe.fill(9, Bytes(120 * MIB)).unwrap();
    let size = |moment| if moment % 2 == 1 { "640MiB" } else { "512MiB" };
    at_each_moment(
        &mut brick,
        |_, moment| ["resize", "web1", size(moment)].map(str::to_owned).to_vec(),
        |brick, moment| {
            let shown = brick.show("web1");
            assert_eq!(shown["state"], "running", "moment {moment}: {shown}");
            assert_eq!(format!("{}MiB", brick.mib("web1", "size")), size(moment), "moment {moment}: {shown}");
            assert_eq!(libvirtd.domains(), ["web1 running"], "moment {moment}");
        },
    );
    probe.check().unwrap();
}

#[test]
fn root_libvirtd_a_delete_is_finished_wherever_the_agent_dies() {
    let (mut brick, libvirtd) = start();
    let create = |brick: &Brick| create(brick, "web1", &["--memory", "256MiB", "--local", "64MiB"]);
    create(&brick);
    before_each_record(
        &mut brick,
        |_, _| ["delete", "web1"].map(str::to_owned).to_vec(),
        |brick, moment| {
            assert!(brick.refused(&["show", "web1"]).contains("there is no"), "moment {moment}");
            assert_eq!((libvirtd.domains(), brick.qemus()), (vec![], vec![]), "moment {moment}");
            assert!(!brick.state().join("vms/web1").exists(), "moment {moment}");
            create(brick);
        },
    );
}

#[test]
fn root_libvirtd_what_libvirt_cannot_do_is_told_and_leaves_nothing() {
    let (brick, libvirtd) = start();
    libvirtd.define("theirs", brick.guest());
    let refused = |name: &str, options: &[&str]| {
        let line =
            brick.create_line(name, &[options, &["--driver", "libvirt", "--memory", "256MiB"]].concat());
        brick.refused(&line.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let said = refused("theirs", &[]);
    assert!(said.contains("libvirt has a domain 'theirs' already"), "{said}");
    // A kernel that is none: QEMU finds that out, and libvirt passes its words on.
    let broken = brick.rack.directory().join("kernel");
    std::fs::write(&broken, "no kernel").unwrap();
    let broken = broken.display().to_string();
    let said =
        brick.refused(&["create", "web2", "--memory", "256MiB", "--driver", "libvirt", "--kernel", &broken]);
    assert!(said.contains("libvirt cannot start") && said.contains("kernel"), "{said}");
    assert!(brick.refused(&["show", "web2"]).contains("there is no virtual machine"));
    assert_eq!(libvirtd.domains(), ["theirs shut off"]);
    drop(libvirtd);
    let said = refused("web3", &[]);
    assert!(said.contains("cannot be reached") && said.contains("--libvirt"), "{said}");
}
