//! Far memory under KVM, on hardware that is played: QEMU's translator plays a processor with AMD-V, its guest's kernel offers KVM
//! by that, and there QEMU runs the guest once more, with `rackmem` attached by hand or started by our agent. Minutes, and in the
//! long profile only.

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

/// What `vm` needs to find the agent and its machine's probe.
const AGENT: &str = "unix:/tmp/agent";
const PROBE: &str = "/tmp/state/vms/inner/probe.sock";

/// The program's own `setpriv` before busybox's, which cannot do what the agent needs.
const START_AGENT: &str = "PATH=/usr/bin:$PATH rackmem agent --listen unix:/tmp/agent --state /tmp/state \
     --memory-server unix:/tmp/server >>/tmp/agent.log 2>&1 & echo $! >/tmp/agent.pid; \
     for i in $(seq 60); do rackmem vm --agent unix:/tmp/agent list >/dev/null 2>&1 && exit; sleep 1; done; cat /tmp/agent.log; exit 1";

#[test]
fn qemu_kvm_rig_an_agent_runs_a_guest_with_far_memory_and_finds_it_again() {
    let machine = Machine::with_kvm(&["-m", "2G", "-smp", "2"]);
    let mut outer = machine.probe();
    outer.patience_set(PATIENCE);
    shell(&mut outer, START_SERVER);
    shell(&mut outer, START_AGENT);
    // With little of it local the guest boots for minutes here, so it gets less afterwards.
    let create = format!(
        "create inner --memory 192MiB --local 160MiB --kernel /guest/kernel --initrd /guest/initrd --append '{}'",
        GuestFiles::KERNEL_ARGUMENTS
    );
    vm(&mut outer, &create);
    let shown = show(&mut outer);
    assert_eq!(
        (&shown["state"], &shown["accelerator"]["kind"]),
        (&"running".into(), &"kvm".into()),
        "{shown}"
    );
    assert_eq!(shown["pager"]["state"], "up", "{shown}");

    assert_eq!(ask(&mut outer, PROBE, "hello")["ready"]["run"], 1);
    vm(&mut outer, "resize inner --local 48MiB");
    ask(&mut outer, PROBE, "fill 9 96MiB");
    assert_eq!(ask(&mut outer, PROBE, "check")["checked"]["pages"], 96 << 8);
    let far = show(&mut outer)["memory"]["far"].as_u64().unwrap();
    assert!(far > 48 << 20, "{far} bytes are far");

    // The next agent finds it as it was, and goes on with it.
    shell(&mut outer, "kill -9 $(cat /tmp/agent.pid)");
    ask(&mut outer, PROBE, "touch random 400 writes 30");
    shell(&mut outer, START_AGENT);
    let found = show(&mut outer);
    assert_eq!((&found["pid"], &found["state"]), (&shown["pid"], &"running".into()), "{found}");
    vm(&mut outer, "pause inner");
    assert_eq!(show(&mut outer)["state"], "paused");
    vm(&mut outer, "resume inner");
    assert_eq!(ask(&mut outer, PROBE, "check")["checked"]["pages"], 96 << 8);
    vm(&mut outer, "delete inner");
    assert_eq!(vm(&mut outer, "list --json").trim(), "[]");
    shell(&mut outer, "! pidof qemu-system-x86_64");
}

/// Gives the agent of the outer guest an order.
fn vm(outer: &mut ProbeClient, order: &str) -> String {
    shell(outer, &format!("rackmem vm --agent {AGENT} {order} || {{ cat /tmp/agent.log; exit 1; }}"))
}

fn show(outer: &mut ProbeClient) -> Value {
    serde_json::from_str(&vm(outer, "show inner --json")).unwrap()
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

fn inner(outer: &mut ProbeClient, order: &str) -> Value {
    ask(outer, "/tmp/inner", order)
}

/// Gives an order to the inner guest's probe; it is asked by a program inside the outer guest.
fn ask(outer: &mut ProbeClient, socket: &str, order: &str) -> Value {
    serde_json::from_str(&shell(outer, &format!("guest-probe ask {socket} {order}"))).unwrap()
}

fn shell(outer: &mut ProbeClient, command: &str) -> String {
    let ran = outer.run(command).unwrap();
    assert_eq!(ran.status, Some(0), "{command}: {}{}", ran.output, ran.errors);
    ran.output
}
