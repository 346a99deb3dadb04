//! The guest in a real machine: QEMU with its own translator, so that it works wherever QEMU does. Needs QEMU and a built guest
//! (`cargo xtask guest`), and no root.

#![allow(clippy::unwrap_used, reason = "tests")]

mod kvm_rig;
mod machine;

use std::time::Duration;

use guest_probe::{Pattern, ProbeClient, ProbeError, Side};
use machine::Machine;
use rackmem_types::Bytes;
use serde_json::json;

const MIB: u64 = 1 << 20;

const TOUCHES: u64 = 20_000;

#[test]
fn qemu_boots_the_guest_which_fills_and_checks_memory() {
    let machine = Machine::with_probe(&["-m", "256M", "-smp", "2"]);
    let mut probe = machine.probe();
    assert_eq!(probe.ready().run, 1);

    let info = probe.info().unwrap();
    assert_eq!(info.cpus, 2);
    assert!((180 * MIB..256 * MIB).contains(&info.memory.total.0), "{info:?}");
    assert_eq!(info.nodes.iter().map(|node| node.distances.clone()).collect::<Vec<_>>(), [[10]]);
    assert!(info.virtio.iter().any(|device| device.driver.as_deref() == Some("virtio_console")), "{info:?}");

    let before = info.memory.available;
    assert_eq!(probe.fill(7, Bytes(64 * MIB)).unwrap().held, Bytes(64 * MIB));
    assert_eq!(probe.check().unwrap().pages, 16_384);
    let touched = probe.touch(Pattern::Random, TOUCHES, 10).unwrap();
    assert_eq!(touched.reads + touched.writes, TOUCHES);
    assert!(touched.writes > TOUCHES / 20 && touched.per_second > 1000, "{touched:?}");
    assert_eq!(probe.check().unwrap().pages, 16_384);
    let held = probe.info().unwrap();
    assert_eq!(held.held, Bytes(64 * MIB));
    assert!(held.memory.available.0 < before.0 - 60 * MIB, "{held:?}");
    probe.release().unwrap();
    probe.wait_available(Side::AtLeast, Bytes(before.0 - 8 * MIB), 10).unwrap();

    probe.power_off().unwrap();
    machine.ends();
}

#[test]
fn qemu_guest_has_one_page_at_a_known_address() {
    let mut machine = Machine::with_probe(&["-m", "192M"]);
    let mut probe = machine.probe();
    assert_eq!(probe.run("echo far; exit 3").unwrap().status, Some(3));
    assert!(matches!(probe.run("one\ntwo"), Err(ProbeError::NotOneLine(_))));
    assert!(matches!(probe.page_read(), Err(ProbeError::Refused { .. })));
    let page = probe.page().unwrap();
    assert_eq!((page.guest_physical_address % 4096, page.value), (0, None));
    assert_eq!(probe.page_write(0x1122_3344_5566_7788).unwrap().value, Some(0x1122_3344_5566_7788));

    // The machine sees the word at the address that the guest named.
    let bytes = machine.physical(page.guest_physical_address, 8);
    assert_eq!(u64::from_le_bytes(bytes.try_into().unwrap()), 0x1122_3344_5566_7788);
    let again = probe.page_read().unwrap();
    assert_eq!(
        (again.value, again.guest_physical_address),
        (Some(0x1122_3344_5566_7788), page.guest_physical_address)
    );
    probe.page_release().unwrap();
}

#[test]
fn qemu_guest_checks_its_memory_while_it_grows_and_shrinks() {
    let mut machine = Machine::with_probe(&[
        "-m",
        "size=256M,slots=2,maxmem=1G",
        "-object",
        "memory-backend-ram,id=near,size=256M",
        "-object",
        "memory-backend-ram,id=far,size=512M",
        "-numa",
        "node,nodeid=0,cpus=0,memdev=near",
        "-numa",
        "node,nodeid=1",
        "-numa",
        "dist,src=0,dst=1,val=42",
        "-device",
        "virtio-mem-pci,id=plug,memdev=far,node=1,block-size=2M,requested-size=0",
        "-device",
        "virtio-balloon-pci,free-page-reporting=on",
    ]);
    let mut probe = machine.probe();
    let small = probe.info().unwrap().memory.total;
    probe.fill(3, Bytes(96 * MIB)).unwrap();
    probe.churn_start(20).unwrap();

    machine.plug(256 * MIB);
    probe.wait_total(Side::AtLeast, Bytes(small.0 + 256 * MIB), 20).unwrap();
    let info = probe.info().unwrap();
    assert_eq!(info.nodes[1].distances, [42, 10]);
    assert!(info.nodes[1].total >= Bytes(256 * MIB) && info.nodes[1].cpus.is_empty(), "{info:?}");
    for kind in ["memory", "balloon"] {
        assert!(info.virtio.iter().any(|device| device.kind == kind && device.driver.is_some()), "{info:?}");
    }
    // More than the guest had at first: much of it lies in what was plugged.
    probe.grow(Bytes(256 * MIB)).unwrap();
    probe.shrink(Bytes(288 * MIB)).unwrap();

    machine.plug(0);
    probe.wait_total(Side::AtMost, small, 60).unwrap();
    let churned = probe.churn_stop().unwrap();
    assert!(churned.checked > 1000 && churned.written > 100, "{churned:?}");
    assert_eq!(probe.check().unwrap().pages, 64 * MIB / 4096);
}

#[test]
fn qemu_guest_without_a_virtio_port_answers_on_its_serial_port() {
    let machine = Machine::with_serial_line(&["-m", "192M"]);
    let mut probe = machine.probe();
    probe.fill(1, Bytes(4 * MIB)).unwrap();
    assert_eq!(probe.check().unwrap().pages, 1024);
    let error = probe.shrink(Bytes(8 * MIB)).unwrap_err().to_string();
    assert!(error.ends_with("only 4MiB is held, 8MiB cannot be given back"), "{error}");
}

#[test]
fn qemu_guest_outlives_who_asked_and_ends_at_the_power_button() {
    let mut machine = Machine::with_probe(&["-m", "192M"]);
    let mut first = machine.probe();
    first.fill(5, Bytes(32 * MIB)).unwrap();
    first.churn_start(50).unwrap();
    while first.churn().unwrap().checked == 0 {}
    // The asker leaves while its order is under way; the answer to that must not be taken for one of the next asker's.
    first.patience_set(Duration::ZERO);
    assert!(matches!(first.check(), Err(ProbeError::Late { .. })));
    drop(first);

    let mut second = machine.probe();
    assert!(second.churn_stop().unwrap().checked > 0);
    assert_eq!(second.check().unwrap().pages, 32 * MIB / 4096);
    machine.command("system_powerdown", &json!({}));
    machine.ends();
}

#[test]
fn a_guest_that_is_not_there_is_reported() {
    let directory = tempfile::tempdir().unwrap();
    let error = ProbeClient::connect(&directory.path().join("none"), Duration::from_millis(50)).unwrap_err();
    assert!(matches!(error, ProbeError::NoProbe { .. }), "{error}");
}

#[test]
fn qemu_guest_that_runs_out_of_memory_says_so() {
    let machine = Machine::with_probe(&["-m", "192M"]);
    let mut probe = machine.probe();
    let error = probe.fill(1, Bytes(1024 * MIB)).unwrap_err();
    assert!(matches!(error, ProbeError::Restarted { run: 2, .. }), "{error}");
    let info = probe.info().unwrap();
    assert_eq!((info.oom_kills, info.held), (1, Bytes(0)));
}
