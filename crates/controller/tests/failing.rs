//! A controller whose disk is full: it refuses what it cannot keep, ends, and knows at the next start what it had kept.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use common::{Bricks, change, ended, gib, register, settled, start, who};
use rackmem_api::controller::{ControllerApi, ControllerClient, router};
use rackmem_api::operation::OperationFilter;
use rackmem_api::problem::ProblemType;
use rackmem_api::serve::{Listen, ServeConfig, Server};
use rackmem_api::{ApiError, LatencyClass, OperationState};
use rackmem_controller::{Controller, ControllerConfig};
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
}

impl Drop for Small<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["-l"]).arg(self.0).status();
    }
}

#[test]
fn root_a_full_disk_ends_the_controller() {
    let (place, bricks) = (tempdir().unwrap(), Arc::new(Bricks::default()));
    let small = Small::mount(place.path());
    let state = place.path().join("state");
    let life = || tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let first = life();
    let kept = first.block_on(async {
        let config =
            ControllerConfig { watch_every: Duration::from_secs(3600), ..ControllerConfig::new(&state) };
        let closing = config.closing.clone();
        let controller = Arc::new(Controller::start(config, bricks.clone()).await.unwrap());
        register(&controller).await;
        let reserve = controller
            .reservation_create(change(&controller).await, who(), gib(1, LatencyClass::Tray))
            .await
            .unwrap();
        assert_eq!(ended(&controller, &reserve).await.state, OperationState::Done);
        let held = bricks.held();

        let socket = place.path().join("controller.sock");
        let config = ServeConfig { listen: vec![Listen::Unix(socket.clone())], ..ServeConfig::default() };
        let serving =
            tokio::spawn(Server::open(&config).unwrap().run(router(controller, None), closing.clone()));
        let endpoint = format!("unix:{}", socket.display()).parse().unwrap();
        let client = ControllerClient::new(endpoint, None, None).unwrap().under_present().await.unwrap();
        let asked_before = client.operation_list(&OperationFilter::default()).await.unwrap().len();
        small.fill();
        // What had room in the log of the database before is still kept; the rest is refused.
        let mut accepted = 0;
        let refused = loop {
            match client.reservation_create(&gib(1, LatencyClass::Tray)).await {
                Ok(_) => accepted += 1,
                Err(error) => break error,
            }
        };
        let ApiError::Problem(refused) = refused else { panic!("{refused}") };
        assert_eq!((refused.kind, refused.retry_after_s), (ProblemType::Unavailable, Some(5)), "{refused}");
        assert!(
            client.operation_list(&OperationFilter::default()).await.is_err(),
            "nothing is shown any more"
        );
        tokio::time::timeout(Duration::from_secs(10), serving).await.unwrap().unwrap();
        let why = closing.failure().unwrap();
        assert!(why.contains("is the disk full?"), "{why}");
        (accepted, held, asked_before)
    });
    first.shutdown_timeout(Duration::from_secs(5));
    let (accepted, held, asked_before) = kept;
    assert!(bricks.held() >= held);
    std::fs::remove_file(place.path().join("filler")).unwrap();
    life().block_on(async {
        let controller = start(&state, &bricks, None).await;
        let operations = settled(&controller).await;
        assert_eq!(operations.len(), asked_before + accepted);
        // Each reservation is there as a whole: nothing was done for the one that was refused.
        let reserved = controller.reservation_list(who()).await.unwrap().len();
        assert_eq!(bricks.held(), reserved * held);
    });
}
