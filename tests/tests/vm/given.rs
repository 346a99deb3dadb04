//! A machine lives in a segment that somebody else made: it is used, shown, and left to who made it.

use std::process::Command;

use rackmem_api::agent::AgentClient;
use rackmem_types::Bytes;
use serde_json::{Value, json};

use crate::brick::{Brick, wait_until};

/// `rackmem segment …`, which has to succeed.
fn segment(brick: &Brick, arguments: &[&str]) -> String {
    let mut command: Command = brick.rack.command(["segment"]);
    let said = command.args(arguments).output().unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    String::from_utf8_lossy(&said.stdout).into_owned()
}

#[test]
fn root_qemu_a_machine_lives_in_a_segment_that_was_made_for_it() {
    let mut brick = Brick::start();
    let file = brick.rack.directory().join("segment.json");
    let (path, server) = (file.display().to_string(), brick.rack.address().to_owned());
    segment(&brick, &["create", "--memory-server", &server, "--size", "512MiB", "--out", &path]);
    let made: Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    let entry = json!({
        "id": "m1", "start": 1u64 << 30, "end": (1u64 << 30) + (512 << 20), "port": 1, "offset": -(1i64 << 30),
        "server": server, "segment": made[0]["segment"], "token": made[0]["token"], "class": "rack",
    });
    let endpoint = format!("unix:{}", brick.rack.directory().join("agent.sock").display());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let call = |without: Option<&str>| {
        let mut entry = entry.clone();
        without.map(|field| entry.as_object_mut().unwrap().remove(field));
        runtime.block_on(async {
            let client = AgentClient::new(endpoint.parse().unwrap(), None, None).unwrap();
            let client = client.under_present().await.unwrap();
            client
                .attachment_create(&serde_json::from_value(entry).unwrap())
                .await
                .map_err(|error| error.to_string())
        })
    };
    assert!(call(Some("token")).unwrap_err().contains("given together"));
    call(None).unwrap();
    wait_until("it is attached", || {
        let line = ["--memory", "384MiB", "--local", "96MiB", "--attachment", "m1"];
        let line = brick.create_line("web1", &line);
        brick.vm(&line.iter().map(String::as_str).collect::<Vec<_>>()).status.success()
    });

    let mut probe = brick.probe("web1");
    probe.fill(5, Bytes(200 << 20)).unwrap();
    probe.check().unwrap();
    let shown = brick.show("web1");
    let part = &shown["memory"]["parts"][0];
    assert_eq!((&part["segment"], &part["attachment"]), (&made[0]["segment"], &"m1".into()), "{shown}");
    assert!(!shown.to_string().contains(made[0]["token"].as_str().unwrap()), "the secret is shown");
    assert!(part["used"].as_u64().unwrap() > 80 << 20, "{shown}");

    // Its pager's successor, and the next agent, go on in the same segment.
    brick.kill_pager("web1");
    probe.check().unwrap();
    brick.kill_agent();
    brick.start_agent(&[]);
    probe.check().unwrap();
    brick.done(&["delete", "web1"]);
    assert!(segment(&brick, &["destroy", &path]).contains("destroyed"), "its maker still has it");
}
