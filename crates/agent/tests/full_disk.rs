//! An agent whose disk is full: it refuses what it cannot keep, goes on answering, and goes on with what it accepted when there is room.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rackmem_agent::{Agent, AgentConfig};
use rackmem_api::agent::{AgentApi, Attachment};
use rackmem_api::operation::{OperationFilter, WaitQuery};
use rackmem_api::problem::ProblemType;
use rackmem_api::{Change, Generation, OperationState};
use tempfile::tempdir;

/// A file system in memory that is full soon.
struct Small<'a>(&'a Path);

impl<'a> Small<'a> {
    fn mount(place: &'a Path) -> Self {
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=2m", "rackmem-test"]).arg(place).status();
        assert!(mounted.unwrap().success(), "mounting needs root");
        Self(place)
    }

    /// Leaves no room.
    fn fill(&self) {
        let mut file = std::fs::File::create(self.0.join("filler")).unwrap();
        while file.write_all(&[1; 4096]).is_ok() {}
    }

    fn free(&self) {
        std::fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for Small<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["-l"]).arg(self.0).status();
    }
}

async fn start(place: &Path) -> Agent {
    let config = AgentConfig {
        state: place.join("state"),
        runtime: place.join("runtime"),
        program: "rackmem".into(),
        qemu: "qemu-system-x86_64".into(),
        libvirt: rackmem_agent::LIBVIRT.to_owned(),
        accelerator: None,
        memory_servers: Vec::new(),
        far_options: Vec::new(),
        pool: None,
        lender: None,
    };
    rackmem_agent::start(config, None).await.unwrap()
}

fn change() -> Change {
    Change::new(Generation(0), "test")
}

/// An attachment to a server that is not there: the operation fails, and is undone.
fn entry(number: usize) -> Attachment {
    let (start, end) = (number * 8192, number * 8192 + 8192);
    serde_json::from_str(&format!(
        r#"{{"id":"a{number}","start":{start},"end":{end},"port":1,"server":"127.0.0.1:1","class":"rack"}}"#
    ))
    .unwrap()
}

#[test]
fn root_a_full_disk_refuses_changes_and_loses_nothing() {
    let place = tempdir().unwrap();
    let small = Small::mount(place.path());
    let life = || tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let first = life();
    let accepted = first.block_on(async {
        let agent = start(place.path()).await;
        let mut accepted = Vec::new();
        for _ in 0..3 {
            small.fill();
            // What had room in the log of the database before is still kept; the rest is refused.
            let refused = loop {
                match agent.attachment_create(change(), entry(accepted.len())).await {
                    Ok(operation) => accepted.push(operation.id),
                    Err(problem) => break problem,
                }
                assert!(accepted.len() < 1000, "the disk does not get full");
            };
            assert_eq!(
                (refused.kind, refused.retry_after_s),
                (ProblemType::Unavailable, Some(5)),
                "{refused}"
            );
            assert!(refused.detail.contains("is the disk full?"), "{refused}");
            agent.host().await.unwrap();
            let known = agent.operation_list(OperationFilter { limit: Some(1000), ..Default::default() });
            assert_eq!(known.await.unwrap().len(), accepted.len());
            small.free();
            for id in &accepted {
                let query = WaitQuery { timeout: 30 };
                let ended = agent.operation_wait(*id, query).await.unwrap();
                assert_eq!(ended.state, OperationState::Failed, "{ended:?}");
            }
            assert_eq!(agent.attachment_list().await.unwrap(), []);
        }
        accepted
    });
    first.shutdown_timeout(Duration::from_secs(5));
    life().block_on(async {
        let agent = start(place.path()).await;
        for id in &accepted {
            assert_eq!(agent.operation_show(*id).await.unwrap().state, OperationState::Failed);
        }
        assert!(agent.attachment_create(change(), entry(0)).await.is_ok());
    });
}
