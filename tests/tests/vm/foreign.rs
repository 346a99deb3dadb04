//! A machine that somebody else started gets far memory, is watched, and is left as it was found.

use std::process::Command;
use std::time::Duration;

use guest_probe::{GuestFiles, ProbeClient};
use rackmem_e2e::Process;
use rackmem_types::Bytes;

use crate::brick::Brick;
use crate::libvirtd::Libvirtd;

fn qemu(brick: &Brick, options: &[&str]) -> (Process, ProbeClient) {
    let socket = brick.rack.directory().join("foreign.sock");
    let mut command = Command::new("qemu-system-x86_64");
    command.args(["-name", "foreign1", "-machine", "q35", "-accel", "tcg", "-cpu", "max", "-m", "384"]);
    command.args(["-nodefaults", "-no-user-config", "-display", "none", "-serial", "null"]).args(options);
    command.arg("-kernel").arg(&brick.guest().kernel).arg("-initrd").arg(&brick.guest().initrd);
    command.args(["-append", GuestFiles::KERNEL_ARGUMENTS]).args(GuestFiles::probe_options(&socket));
    let process = Process::start(&mut command, Duration::from_secs(300));
    let probe = ProbeClient::connect(&socket, Duration::from_secs(90)).unwrap();
    (process, probe)
}

#[test]
fn root_qemu_a_foreign_machine_is_attached_watched_and_detached() {
    let brick = Brick::start();
    let monitor = format!("unix:{},server=on,wait=off", brick.rack.directory().join("qmp.sock").display());
    let (mut process, mut probe) = qemu(&brick, &["-qmp", &monitor]);
    probe.fill(2, Bytes(200 << 20)).unwrap();
    assert!(brick.done(&["attach", "foreign1", "--local", "96MiB"]).contains("attached"));
    assert!(brick.refused(&["attach", &process.pid().to_string(), "--local", "96MiB"]).contains("already"));
    let shown = brick.show("foreign1");
    assert_eq!((&shown["origin"], &shown["state"]), (&"attached".into(), &"running".into()));
    probe.check().unwrap();
    assert!(brick.mib("foreign1", "far") > 80, "{}", brick.show("foreign1"));
    assert!(brick.refused(&["delete", "foreign1"]).contains("rackmem vm detach foreign1"));
    assert!(brick.refused(&["stop", "foreign1"]).contains("started by somebody else"));

    let address = probe.page().unwrap().guest_physical_address;
    let watch = brick.vm_process(&["watch", "foreign1", &address.to_string()]);
    for value in 0..20 {
        probe.page_write(value).unwrap();
        std::thread::sleep(Duration::from_millis(100));
    }
    brick.done(&["detach", "foreign1"]);
    let seen = watch.finish().stdout;
    assert!(seen.lines().any(|line| line.contains("write")), "{seen}");
    assert!(brick.refused(&["show", "foreign1"]).contains("there is no"));
    assert!(process.is_running());
    probe.check().unwrap();
}

#[test]
fn root_qemu_a_foreign_machine_that_ends_is_forgotten() {
    let brick = Brick::start();
    let (process, probe) = qemu(&brick, &[]);
    let pid = process.pid().to_string();
    brick.done(&["attach", &pid, "--local", "96MiB", "--name", "guest7"]);
    assert_eq!(brick.show("guest7")["state"], "running");
    drop(probe);
    drop(process);
    crate::brick::wait_until("it is forgotten", || {
        brick.vm(&["show", "guest7"]).stderr.contains("there is no")
    });
}

#[test]
fn root_qemu_a_domain_of_libvirts_is_attached_by_name_watched_and_detached() {
    let mut brick = Brick::without_agent();
    let libvirtd = Libvirtd::start(&brick.rack.directory().join("libvirt"));
    brick.start_agent(&["--libvirt", &libvirtd.uri()]);
    let refused = brick.refused(&["attach", "theirs", "--local", "96MiB"]);
    assert!(refused.contains("no QEMU runs a machine 'theirs'"), "{refused}");
    libvirtd.define("theirs", brick.guest());
    let refused = brick.refused(&["attach", "theirs", "--local", "96MiB"]);
    assert!(refused.contains("virsh start theirs"), "{refused}");
    libvirtd.virsh(&["start", "theirs"]);
    let mut probe = ProbeClient::connect(&libvirtd.probe(), Duration::from_secs(90)).unwrap();
    probe.fill(2, Bytes(200 << 20)).unwrap();

    assert!(brick.done(&["attach", "theirs", "--local", "96MiB"]).contains("attached"));
    let shown = brick.show("theirs");
    assert_eq!((&shown["driver"], &shown["state"]), (&"libvirt".into(), &"running".into()), "{shown}");
    assert!(brick.done(&["show", "theirs"]).contains("libvirt"));
    probe.check().unwrap();
    assert!(brick.mib("theirs", "far") > 80, "{shown}");

    // The next agent finds it, by libvirt, and speaks to it through libvirt.
    brick.kill_agent();
    brick.start_agent(&["--libvirt", &libvirtd.uri()]);
    let address = probe.page().unwrap().guest_physical_address;
    let watch = brick.vm_process(&["watch", "theirs", &address.to_string()]);
    for value in 0..20 {
        probe.page_write(value).unwrap();
        std::thread::sleep(Duration::from_millis(100));
    }
    brick.done(&["detach", "theirs"]);
    let seen = watch.finish().stdout;
    assert!(seen.lines().any(|line| line.contains("write")), "{seen}");
    assert!(brick.refused(&["show", "theirs"]).contains("there is no"));
    assert_eq!(libvirtd.virsh(&["domstate", "theirs"]).trim(), "running");
    probe.check().unwrap();
}
