//! Far memory under KVM, on hardware that is played: QEMU's translator plays a processor with AMD-V, its guest's kernel offers KVM
//! by that, and there our QEMU, with `rackmem` attached, runs the guest once more. Minutes, and in the long profile only.

use std::time::Duration;

use guest_probe::{GuestFiles, ProbeClient};
use serde_json::Value;

use crate::machine::Machine;

/// Two layers of emulation make a far fault take milliseconds.
const PATIENCE: Duration = Duration::from_secs(400);

const START_SERVER: &str = "rackmem memory-server --size 512MiB --listen unix:/tmp/server >/tmp/server.log 2>&1 & sleep 3; cat /tmp/server.log";

/// An agent without a network: everything goes by sockets in `/tmp`. Ready when it answers.
const START_AGENT: &str = "rackmem agent --listen unix:/tmp/agent --state /tmp/state --memory-server unix:/tmp/server >>/tmp/agent.log 2>&1 & \
    echo $! >/tmp/agent.pid; \
    for try in $(seq 60); do rackmem vm list --agent unix:/tmp/agent >/dev/null 2>&1 && exit; sleep 1; done; cat /tmp/agent.log; exit 1";

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

#[test]
fn qemu_kvm_rig_has_an_agent_that_makes_grows_and_finds_a_machine() {
    let machine = Machine::with_kvm(&["-m", "2G", "-smp", "2"]);
    let mut outer = machine.probe();
    outer.patience_set(PATIENCE);
    shell(&mut outer, START_SERVER);
    shell(&mut outer, START_AGENT);
    vm(
        &mut outer,
        &format!(
            "create web1 --memory 192MiB --memory-max 320MiB --local 64MiB --kernel /guest/kernel --initrd /guest/initrd --append '{}'",
            GuestFiles::KERNEL_ARGUMENTS
        ),
    );
    let shown = show(&mut outer);
    assert_eq!(shown["accelerator"]["kind"], "kvm", "{shown}");
    assert_eq!((&shown["state"], &shown["pager"]["state"]), (&"running".into(), &"up".into()), "{shown}");
    assert_eq!(made(&mut outer, "hello")["ready"]["run"], 1);
    made(&mut outer, "fill 7 96MiB");
    assert_eq!(made(&mut outer, "check")["checked"]["pages"], 96 << 8);
    let shown = show(&mut outer);
    assert!(shown["memory"]["far"].as_u64().unwrap() > 48 << 20, "{shown}");

    // It grows while it runs, and uses what it got.
    vm(&mut outer, "resize web1 320MiB");
    assert_eq!(show(&mut outer)["memory"]["size"], 320 << 20);
    made(&mut outer, "grow 96MiB");
    assert_eq!(made(&mut outer, "check")["checked"]["pages"], 192 << 8);

    // The machine does not notice that its agent is killed, and the next agent finds it.
    shell(&mut outer, "kill -9 $(cat /tmp/agent.pid)");
    made(&mut outer, "touch random 400 writes 30");
    shell(&mut outer, START_AGENT);
    let again = show(&mut outer);
    assert_eq!((&again["state"], &again["pid"]), (&"running".into(), &shown["pid"]), "{again}");
    assert_eq!(made(&mut outer, "check")["checked"]["pages"], 192 << 8);
    vm(&mut outer, "delete web1");
    shell(&mut outer, "! pidof qemu-system-x86_64 && ! test -e /tmp/state/vms/web1");
}

fn vm(outer: &mut ProbeClient, words: &str) -> String {
    shell(outer, &format!("rackmem vm {words} --agent unix:/tmp/agent"))
}

fn show(outer: &mut ProbeClient) -> Value {
    serde_json::from_str(&vm(outer, "show web1 --json")).unwrap()
}

/// Gives an order to the probe of the machine that the agent made.
fn made(outer: &mut ProbeClient, order: &str) -> Value {
    serde_json::from_str(&shell(outer, &format!("guest-probe ask /tmp/state/vms/web1/probe.sock {order}")))
        .unwrap()
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
