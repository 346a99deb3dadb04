//! What goes on between a guest and whoever is at a terminal: accesses to one of its pages, and its console.

use std::io::Write;
use std::process::Stdio;
use std::time::{Duration, Instant};

use guest_probe::ProbeClient;
use rackmem_e2e::Process;
use rackmem_types::Bytes;
use rustix::process::Signal;
use serde_json::Value;

use crate::brick::{Brick, wait_until};

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
fn root_qemu_a_page_is_watched_again_as_soon_as_its_watch_was_killed() {
    let brick = Brick::start();
    brick.create("web1", &["--memory", "256MiB", "--local", "96MiB"]);
    let mut probe = brick.probe("web1");
    let address = format!("{:#x}", probe.page().unwrap().guest_physical_address);
    let mut touched_until_seen = |watch: &mut Process| {
        wait_until("an access is seen", || {
            assert!(watch.is_running(), "the watch has ended");
            probe.page_write(1).unwrap();
            watch.said(|text| text.contains("write"))
        });
    };
    let mut watch = brick.vm_process(&["watch", "web1", &address]);
    touched_until_seen(&mut watch);
    for _ in 0..3 {
        // Nobody touches the page meanwhile, so that its pager has nothing to tell the one that is gone.
        watch.signal(Signal::KILL);
        wait_until("it is killed", || !watch.is_running());
        watch = brick.vm_process(&["watch", "web1", &address]);
        std::thread::sleep(Duration::from_millis(700));
        touched_until_seen(&mut watch);
    }
    let ended = brick.vm(&["watch", "web1", &address]);
    assert!(ended.stderr.contains("is being watched already"), "{}", ended.stderr);
    assert_eq!(ended.status.code(), Some(1));
}

#[test]
fn root_qemu_what_is_typed_reaches_the_guest() {
    let brick = Brick::start();
    brick.create("web1", &["--memory", "256MiB"]);
    brick.probe("web1");
    assert_eq!(brick.show("web1")["pager"], Value::Null);
    let mut command = brick.rack.command(["vm", "console", "web1"]);
    command.env("RACKMEM_AGENT", brick.socket());
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
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

#[test]
fn root_qemu_what_is_answered_to_what_was_piped_in_is_printed() {
    let brick = Brick::start();
    brick.create("web1", &["--memory", "256MiB"]);
    brick.probe("web1");
    answers(&brick, "web1");
    // A guest that never falls silent is left as well.
    let said = typed(&brick, "web1", "while sleep 1; do echo on-and-on; done\n");
    assert!(said.matches("on-and-on").count() > 3, "{said}");
}

/// Pipes an order into the console of a machine whose guest has booted, and sees the answer.
pub(crate) fn answers(brick: &Brick, name: &str) {
    let typed = |line: &str| typed(brick, name, line);
    // The shell begins with the first line that it is sent.
    wait_until("the guest's shell answers on its console", || {
        typed("\n");
        typed("\necho typed-$((40+2))\n").contains("typed-42")
    });
    let begin = Instant::now();
    let said = typed("sleep 1; echo typed-$((40+3))\n");
    assert!(said.contains("typed-43"), "{said}");
    assert!(begin.elapsed() < Duration::from_secs(10), "it does not leave");
}

/// Pipes a line into the console of a machine: what was printed.
fn typed(brick: &Brick, name: &str, line: &str) -> String {
    let mut command = brick.rack.command(["vm", "console", name]);
    command.env("RACKMEM_AGENT", brick.socket()).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(line.as_bytes()).unwrap();
    let ended = child.wait_with_output().unwrap();
    assert!(ended.status.success(), "{}", ended.status);
    String::from_utf8_lossy(&ended.stdout).into_owned()
}
