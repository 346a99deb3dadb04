//! Bad input is refused with a sentence that says what to do, and leaves nothing.

use std::fs;

use crate::brick::Brick;

#[test]
fn root_qemu_machines_that_cannot_be_are_refused() {
    let brick = Brick::start();
    let text = brick.rack.directory().join("text");
    fs::write(&text, "not a disk\n".repeat(100)).unwrap();
    let text = text.display().to_string();
    let kernel = brick.guest().kernel.display().to_string();
    for (arguments, sentence) in [
        (vec!["create", "x", "--memory", "256MiB", "--kernel", "/nope"], "/nope cannot be read"),
        (vec!["create", "x", "--memory", "256MiB", "--disk", "/nope.qcow2"], "/nope.qcow2 cannot be read"),
        (vec!["create", "x", "--memory", "256MiB", "--disk", &text], "is not a disk image"),
        (vec!["create", "x", "--memory", "256MiB"], "nothing to boot"),
        (vec!["create", "x", "--memory", "900GiB", "--kernel", &kernel], "of this brick's RAM"),
        (vec!["create", "x", "--memory", "64GiB", "--local", "128MiB", "--kernel", &kernel], "of far memory"),
        (
            vec!["create", "x", "--memory", "512MiB", "--memory-max", "256MiB", "--kernel", &kernel],
            "memory_max",
        ),
        (vec!["create", "x", "--memory", "256MiB", "--vcpus", "0", "--kernel", &kernel], "vcpus 0"),
        (vec!["show", "x"], "there is no virtual machine 'x'"),
        (vec!["delete", "x"], "there is no virtual machine 'x'"),
        (vec!["attach", "x", "--local", "64MiB"], "no QEMU runs a machine 'x'"),
        (vec!["attach", "4194000", "--local", "64MiB"], "there is no process 4194000"),
    ] {
        let said = brick.refused(&arguments);
        assert!(said.contains(sentence), "{arguments:?} said: {said}");
    }
    assert_eq!(brick.qemus(), [0u32; 0]);
}

#[test]
fn root_qemu_what_does_not_fit_a_machines_state_is_refused() {
    let brick = Brick::start();
    let line = brick.create_line("web1", &["--memory", "256MiB", "--local", "96MiB", "--no-start"]);
    let line: Vec<&str> = line.iter().map(String::as_str).collect();
    brick.done(&line);
    assert!(brick.refused(&line).contains("there is a virtual machine 'web1' already"));
    for (arguments, sentence) in [
        (vec!["stop", "web1"], "does not run"),
        (vec!["pause", "web1"], "not running"),
        (vec!["resume", "web1"], "not paused"),
        (vec!["console", "web1"], "does not run"),
        (vec!["resize", "web1", "200MiB"], "does not run"),
        (vec!["watch", "web1", "0x1000"], "does not run"),
        (vec!["detach", "web1"], "was made by this agent"),
        (vec!["elastic", "web1", "--min", "128MiB", "--max", "1GiB"], "more than the machine can have"),
    ] {
        let said = brick.refused(&arguments);
        assert!(said.contains(sentence), "{arguments:?} said: {said}");
    }
    brick.done(&["start", "web1"]);
    let mut probe = brick.probe("web1");
    probe.fill(1, rackmem_types::Bytes(80 << 20)).unwrap();
    crate::brick::wait_until("the guest says what it uses", || {
        brick.vm(&["resize", "web1", "100MiB"]).stderr.contains("the guest uses")
    });
    assert!(brick.refused(&["resize", "web1", "1GiB"]).contains("can"));
    assert!(brick.refused(&["start", "web1"]).contains("runs already"));
    assert!(brick.refused(&["watch", "web1", "0xfee00000"]).contains("is not memory of this guest"));
    probe.check().unwrap();
}

#[test]
fn root_qemu_a_guest_without_the_driver_and_a_qemu_that_dies_are_told() {
    let brick = Brick::start();
    let words = format!(
        "{} initcall_blacklist=virtio_mem_driver_init module_blacklist=virtio_mem",
        guest_probe::GuestFiles::KERNEL_ARGUMENTS
    );
    let line =
        brick.create_line("web1", &["--memory", "256MiB", "--memory-max", "512MiB", "--local", "96MiB"]);
    let line: Vec<&str> = line
        .iter()
        .map(|word| if word == guest_probe::GuestFiles::KERNEL_ARGUMENTS { words.as_str() } else { word })
        .collect();
    brick.done(&line);
    brick.probe("web1");
    let said = brick.refused(&["resize", "web1", "512MiB"]);
    assert!(said.contains("lacks the driver virtio_mem"), "{said}");
    assert_eq!(brick.mib("web1", "size"), 256);

    // A kernel that is none: QEMU itself finds that out, and its last words are shown.
    let broken = brick.rack.directory().join("kernel");
    fs::write(&broken, "no kernel").unwrap();
    let said =
        brick.refused(&["create", "web2", "--memory", "256MiB", "--kernel", &broken.display().to_string()]);
    assert!(said.contains("QEMU did not start") && said.contains("kernel"), "{said}");
    assert!(brick.refused(&["show", "web2"]).contains("there is no virtual machine"));
    assert!(!brick.state().join("vms/web2").exists());
}

#[test]
fn root_a_wrong_token_and_a_second_agent_are_refused() {
    let mut brick = Brick::without_agent();
    let token = brick.rack.directory().join("token");
    let wrong = brick.rack.directory().join("wrong");
    fs::write(&token, "0123456789abcdef0123\n").unwrap();
    fs::write(&wrong, "0123456789abcdef0124\n").unwrap();
    let (token, wrong) = (token.display().to_string(), wrong.display().to_string());
    brick.start_agent(&["--token-file", &token]);
    assert!(brick.refused(&["list"]).contains("a token is required"));
    assert!(brick.refused(&["list", "--token-file", &wrong]).contains("the token is wrong"));
    brick.done(&["list", "--token-file", &token]);
    let state = brick.state().display().to_string();
    let mut second = brick.rack.command(["agent", "--listen", "127.0.0.1:0", "--state", &state]);
    let second = rackmem_e2e::Process::start(&mut second, std::time::Duration::from_secs(30)).finish();
    assert!(second.stderr.contains("another agent uses the state directory"), "{}", second.stderr);
    let mut open = brick.rack.command(["agent", "--listen", "0.0.0.0:0", "--state", "/nowhere"]);
    let open = rackmem_e2e::Process::start(&mut open, std::time::Duration::from_secs(30)).finish();
    assert!(open.stderr.contains("--insecure"), "{}", open.stderr);
}
