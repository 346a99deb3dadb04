//! A controller without bricks behind it.

use std::io::Read;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use rackmem_e2e::{Client, Process, SMALL_RACK, free_address};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Whatever is waited for.
const LIMIT: Duration = Duration::from_secs(90);

/// A client with the small rack in a file. Nothing there has an address, so nothing is asked.
fn client() -> Client {
    let client = Client::new();
    client.write("dark.toml", SMALL_RACK);
    client
}

#[test]
fn a_controller_whose_log_nobody_reads_serves_on_and_ends_when_told() {
    let mut client = client();
    let address = free_address();
    let mut command = client.command(["controller", "--listen", &address, "--state", "state"]);
    let mut controller = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut first = [0; 1];
    controller.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    drop((controller.stdout.take(), controller.stderr.take()));
    client.knows(&address);
    assert_eq!(client.json("brick list"), Value::Array(Vec::new()));
    kill_process(Pid::from_child(&controller), Signal::TERM).unwrap();
    let begun = Instant::now();
    while controller.try_wait().unwrap().is_none() {
        if begun.elapsed() > LIMIT {
            controller.kill().unwrap();
            controller.wait().unwrap();
            panic!("told to end, it did not");
        }
        thread::sleep(Duration::from_millis(20));
    }
    assert!(controller.wait().unwrap().success());
}

#[test]
fn what_is_wrong_is_said_in_one_sentence_and_changes_nothing() {
    let mut client = client();
    let _controller = client.start_controller("--rack dark.toml");
    client.done("brick drain m2");
    client.done("brick drain m2 --end");
    client.refused("brick show m9", "m9");
    client.refused("brick drain m9", "m9");
    client.refused("brick register m1 --tray t1 --memory 1GiB", "m1");
    client.refused("brick register m3 --tray t9 --memory 1GiB", "t9");
    client.refused("brick register m3 --tray t1 --memory 1GiB --cable 0=s1:0", "s1:0");
    client.refused("brick register m3 --tray t1 --memory 1GiB --cable 0=s1", "PORT=SWITCH:PORT");
    client.refused("brick register m3 --tray t1", "--memory");
    client.write("wrong.toml", "[[rack]]\nname = 7\n");
    client.refused("brick register --rack wrong.toml", "line 2, column");
    client.refused("reserve --compute c9 --memory 1GiB", "c9");
    client.refused("reserve --memory 1GiB --class near", "near");
    client.refused("reserve --memory 0", "reserves nothing");
    client.refused("reserve --memory 1GiB --expires 5", "--hold");
    client.refused("reservation show 9", "9");
    client.refused("apply 9", "9");
    client.refused("release 9", "9");
    client.refused("operation show 00000000-0000-0000-0000-000000000000", "00000000");
    // A class that cannot be met is explained brick by brick.
    let told =
        client.why(&client.refused("reserve --compute c1 --memory 100GiB --class tray", "rackmem why"));
    for brick in ["c1", "m1", "m2"] {
        assert!(told.lines().any(|line| line.starts_with(brick)), "{told}");
    }
    assert_eq!(client.json("brick list").as_array().unwrap().len(), 4);
    // An address that is missing is told, and what was done is undone.
    client.refused("reserve --compute c1 --memory 64MiB --class tray", "without an address");
    assert_eq!(client.json("reservation list"), Value::Array(Vec::new()));
    client.done("brick remove c2");
    assert_eq!(client.json("brick list").as_array().unwrap().len(), 3);
}

#[test]
fn what_is_only_held_expires_and_a_restarted_controller_knows_what_it_knew() {
    let mut client = client();
    let controller = client.start_controller("--rack dark.toml");
    let held = client.done("reserve --compute c1 --memory 64MiB --class tray --hold --expires 3600");
    assert!(held.contains("reservation 1: held"), "{held}");
    drop(controller);
    let _controller = client.start_controller("--rack dark.toml");
    assert_eq!(client.json("reservation show 1")["state"], "reserved");
    assert_eq!(client.json("brick list").as_array().unwrap().len(), 4, "the file is not registered twice");
    client.done("reserve --compute c2 --memory 64MiB --class tray --hold --expires 1");
    thread::sleep(Duration::from_millis(2500));
    client.refused("apply 2", "expired");
    assert_eq!(client.json("reservation list").as_array().unwrap().len(), 1);
}

#[test]
fn tokens_say_who_may_do_what_and_quotas_how_much() {
    let mut client = client();
    client.write(
        "tokens.json",
        r#"[{"name":"root","token":"0123456789abcdef0","role":"admin"},
            {"name":"alice","token":"0123456789abcdef1","role":"member","project":"p1"},
            {"name":"late","token":"0123456789abcdef2","role":"admin","expires_ms":1},
            {"name":"new","token":"0123456789abcdef3","role":"join"}]"#,
    );
    client.write("quotas.json", r#"{"default":{},"projects":{"p1":{"tray":67108864}}}"#);
    let _controller = client.start_controller("--rack dark.toml --tokens tokens.json --quotas quotas.json");
    for (owner, last) in [("root", 0), ("alice", 1), ("late", 2), ("new", 3), ("nobody", 9)] {
        client.write(owner, &format!("0123456789abcdef{last}\n"));
    }
    client.refused("brick list", "a token is required");
    client.refused("brick list --token-file nobody", "wrong");
    client.refused("brick list --token-file late", "expired");
    client.refused("brick list --token-file new", "too small");
    client.refused("brick remove c1 --token-file alice", "too small");
    client.done("brick register m3 --tray t1 --memory 1GiB --cable 0=s1:2 --token-file new");
    let hold = "reserve --compute c1 --class tray --hold";
    client.refused(&format!("{hold} --memory 128MiB --token-file alice"), "'p1' may have 64MiB");
    client.refused(&format!("{hold} --memory 1MiB --project p2 --token-file alice"), "p2");
    client.done(&format!("{hold} --memory 64MiB --token-file alice"));
    // Who did what is on record.
    let operations = client.json("operation list --token-file root");
    let by: Vec<_> = operations.as_array().unwrap().iter().map(|one| one["by"].as_str().unwrap()).collect();
    assert!(by.contains(&"alice") && by.contains(&"new"), "{by:?}");
}

#[test]
fn a_memory_server_announces_itself_and_may_do_nothing_else() {
    let mut client = client();
    client.write(
        "tokens.json",
        r#"[{"name":"root","token":"0123456789abcdef0","role":"admin"},
            {"name":"new","token":"0123456789abcdef3","role":"join"}]"#,
    );
    let controller = client.start_controller("--rack dark.toml --tokens tokens.json");
    client.write("root", "0123456789abcdef0\n");
    client.write("new", "0123456789abcdef3\n");
    let join = |brick: &str, cable: &str, address: &str| {
        let lends = format!("memory-server --size 64MiB --listen {address} --brick-address {address}");
        let joins = format!("--controller {} --join-token-file new", client.controller());
        client.begin(&format!("{lends} {joins} --brick {brick} --tray t1 --cable {cable}"))
    };
    let address = free_address();
    let server = join("m3", "0=s1:2", &address);
    let until_registered = |brick: &str| {
        let begun = Instant::now();
        while !client.ask(&format!("brick show {brick} --token-file root")).status.success() {
            assert!(begun.elapsed() < Duration::from_secs(40), "{brick} has not come");
            thread::sleep(Duration::from_millis(20));
        }
    };
    until_registered("m3");
    assert_eq!(client.json("brick show m3 --token-file root")["capacity"], 64 << 20);
    let told = |joining: Process| {
        // Within this time it has asked, and looked why it was refused.
        thread::sleep(Duration::from_secs(2));
        joining.signal(Signal::TERM);
        joining.finish().stderr
    };
    client.refused("brick remove m3 --token-file new", "too small");
    // After a restart it is the same brick; at another address it is another one.
    drop(server);
    let again = told(join("m3", "0=s1:2", &address));
    assert!(again.contains("INFO") && again.contains("'m3' is registered already"), "{again}");
    let elsewhere = free_address();
    let moved = told(join("m3", "0=s1:2", &elsewhere));
    let differs = format!("its address is {address} there and {elsewhere} here");
    assert!(moved.contains("ERROR") && moved.contains(&differs), "{moved}");
    // The port of its cable is taken: it serves, says that it is not registered, and is as soon as the port is free.
    let other = free_address();
    let mut waiting = join("m4", "0=s1:2", &other);
    waiting.expect_line(&format!("memory server: 64MiB on {other}"));
    thread::sleep(Duration::from_millis(500));
    client.refused("brick show m4 --token-file root", "m4");
    client.done("brick remove m3 --token-file root");
    until_registered("m4");
    let waited = told(waiting);
    assert!(waited.contains("ERROR") && waited.contains("port s1:2 is taken"), "{waited}");
    assert!(waited.contains("the controller has registered 'm4'"), "{waited}");
    drop(controller);
}
