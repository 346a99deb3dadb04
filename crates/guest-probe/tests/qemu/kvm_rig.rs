//! Far memory under KVM, on hardware that is played: QEMU's translator plays a processor with AMD-V, its guest's kernel offers KVM
//! by that, and there our QEMU, with `rackmem` attached, runs the guest once more. Minutes, and in the long profile only.

use std::time::Duration;

use guest_probe::{GuestFiles, ProbeClient};
use serde_json::Value;

use crate::machine::Machine;

/// Two layers of emulation make a far fault take milliseconds.
const PATIENCE: Duration = Duration::from_secs(400);

const START_SERVER: &str = "rackmem memory-server --size 512MiB --listen unix:/tmp/server >/tmp/server.log 2>&1 & sleep 3; cat /tmp/server.log";

/// The inner QEMU's process id is in `/tmp/pid`.
const ATTACH: &str = "rackmem attach $(cat /tmp/pid) --memory-server unix:/tmp/server --local 48MiB";

#[test]
fn qemu_kvm_rig_keeps_a_guests_far_memory_right() {
    let machine = Machine::with_kvm(&["-m", "2G", "-smp", "2"]);
    let mut outer = machine.probe();
    outer.patience_set(PATIENCE);
    shell(&mut outer, "test -c /dev/kvm");
    shell(&mut outer, START_SERVER);
    shell(&mut outer, &start_inner());

    let ready = inner(&mut outer, "hello");
    assert_eq!(ready["ready"]["run"], 1);
    inner(&mut outer, "fill 7 16MiB");
    shell(&mut outer, ATTACH);
    inner(&mut outer, "check");

    // Twice as much as may be local: all of it goes out and comes back, in both directions.
    inner(&mut outer, "fill 8 96MiB");
    assert_eq!(inner(&mut outer, "check")["checked"]["pages"], 96 << 8);
    inner(&mut outer, "touch random 400 writes 30");
    assert_eq!(inner(&mut outer, "check")["checked"]["pages"], 96 << 8);

    let targets: Value = serde_json::from_str(&shell(&mut outer, "rackmem ps --json")).unwrap();
    let far = targets[0]["far"].as_u64().unwrap();
    assert!(far > 48 << 20, "{targets}");
    shell(&mut outer, "rackmem detach $(cat /tmp/pid)");
    assert_eq!(inner(&mut outer, "check")["checked"]["pages"], 96 << 8);
}

/// The inner machine under KVM; without KVM it would not start.
fn start_inner() -> String {
    format!(
        "qemu-system-x86_64 -nodefaults -no-user-config -display none -no-reboot -machine q35 -accel kvm -cpu host -m 192M \
         -kernel /guest/kernel -initrd /guest/initrd -append '{}' -serial file:/tmp/console {} >/tmp/qemu.log 2>&1 & \
         echo $! >/tmp/pid; sleep 3; cat /tmp/qemu.log; kill -0 $(cat /tmp/pid)",
        GuestFiles::KERNEL_ARGUMENTS,
        GuestFiles::probe_options("/tmp/inner".as_ref()).join(" ")
    )
}

/// Gives an order to the inner guest's probe; it is asked by a program inside the outer guest.
fn inner(outer: &mut ProbeClient, order: &str) -> Value {
    serde_json::from_str(&shell(outer, &format!("guest-probe ask /tmp/inner {order}"))).unwrap()
}

fn shell(outer: &mut ProbeClient, command: &str) -> String {
    let ran = outer.run(command).unwrap();
    assert_eq!(ran.status, Some(0), "{command}: {}{}", ran.output, ran.errors);
    ran.output
}
