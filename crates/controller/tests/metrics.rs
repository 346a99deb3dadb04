//! What a scraper reads of a controller.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::sync::Arc;

use common::{Bricks, change, ended, gib, register, start, who};
use rackmem_api::controller::{ControllerApi, metrics_router};
use rackmem_api::{Change, Generation, LatencyClass, OperationState};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// The value of a line of the text; 0 if it is not there.
fn value(text: &str, line: &str) -> f64 {
    let found = text.lines().find_map(|it| it.strip_prefix(line)?.strip_prefix(' '));
    found.map_or(0.0, |value| value.parse().unwrap())
}

#[tokio::test]
async fn what_happened_is_counted_once_and_from_nothing_in_each_process() {
    let (place, bricks) = (tempfile::tempdir().unwrap(), Arc::new(Bricks::default()));
    let state = place.path().join("state");
    let controller = start(&state, &bricks, None).await;
    register(&controller).await;
    let asked = controller
        .reservation_create(change(&controller).await, who(), gib(1, LatencyClass::Tray))
        .await
        .unwrap();
    assert_eq!(ended(&controller, &asked).await.state, OperationState::Done);
    let stale = Change::new(Generation(0), "test");
    assert!(controller.reservation_create(stale, who(), gib(1, LatencyClass::Tray)).await.is_err());

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let serving = tokio::spawn(axum::serve(listener, metrics_router(Arc::new(controller))).into_future());
    let mut stream = TcpStream::connect(at).await.unwrap();
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    serving.abort();

    let kind = &asked.kind;
    for (line, expected) in [
        (format!("rackmem_controller_operations_total{{kind=\"{kind}\",state=\"done\"}}"), 1.0),
        (format!("rackmem_controller_operation_duration_seconds_count{{kind=\"{kind}\"}}"), 1.0),
        ("rackmem_controller_requests_refused_total{reason=\"stale-generation\"}".to_owned(), 1.0),
        ("rackmem_controller_events_total{kind=\"operation.failed\"}".to_owned(), 0.0),
        ("rackmem_controller_steps_retried_total".to_owned(), 0.0),
    ] {
        assert_eq!(value(&text, &line), expected, "{line} in\n{text}");
    }
    assert!(value(&text, "rackmem_controller_events_total{kind=\"operation.done\"}") >= 1.0, "{text}");
    for (name, what) in [
        ("operations", "counter"),
        ("operation_duration_seconds", "histogram"),
        ("requests_refused", "counter"),
        ("events", "counter"),
        ("steps_retried", "counter"),
    ] {
        for word in
            [format!("# HELP rackmem_controller_{name} "), format!("# TYPE rackmem_controller_{name} {what}")]
        {
            assert!(text.contains(&word), "{word} in\n{text}");
        }
    }
}
