//! Conversations with monitors that are slow, rude or gone, and with a real one.

use tokio::io::{DuplexStream, duplex};

use super::*;

const GREETING: &[u8] =
    b"{\"QMP\":{\"version\":{\"qemu\":{\"major\":7,\"minor\":2,\"micro\":1}},\"new\":1}}\n";

/// The far end of a conversation, played by the test.
struct Monitor {
    lines: Lines<tokio::io::ReadHalf<DuplexStream>>,
    writer: tokio::io::WriteHalf<DuplexStream>,
}

impl Monitor {
    fn new(stream: DuplexStream) -> Self {
        let (reader, writer) = tokio::io::split(stream);
        Self { lines: Lines::new(reader), writer }
    }

    async fn say(&mut self, words: impl AsRef<[u8]>) {
        self.writer.write_all(words.as_ref()).await.unwrap();
    }

    /// The next command and its id.
    async fn hear(&mut self) -> (String, u64) {
        let line = self.lines.next().await.unwrap().unwrap();
        let order: Value = serde_json::from_slice(&line).unwrap();
        (order["execute"].as_str().unwrap().to_owned(), order["id"].as_u64().unwrap())
    }
}

/// A conversation that has been agreed upon.
async fn agreed() -> (Qmp, Monitor, broadcast::Receiver<Event>) {
    let (near, far) = duplex(1 << 16);
    let (events, heard) = broadcast::channel(16);
    let monitor = tokio::spawn(async move {
        let mut monitor = Monitor::new(far);
        monitor.say(GREETING).await;
        assert_eq!(monitor.hear().await, ("qmp_capabilities".to_owned(), 1));
        monitor.say("{\"return\":{},\"id\":1}\n").await;
        monitor
    });
    let qmp = Qmp::begin(near, "test", events).await.unwrap();
    (qmp, monitor.await.unwrap(), heard)
}

#[tokio::test]
async fn answers_find_their_commands_in_any_order_and_events_come_between() {
    let (qmp, mut monitor, mut heard) = agreed().await;
    assert_eq!(qmp.version(), [7, 2, 1]);
    let play = async {
        let (first, second) = (monitor.hear().await, monitor.hear().await);
        assert_eq!((first.0.as_str(), second.0.as_str()), ("one", "two"));
        monitor.say(format!("{{\"return\":2,\"id\":{}}}\n", second.1)).await;
        monitor
            .say("{\"event\":\"STOP\",\"timestamp\":{}}\n{\"unknown\":1}\n{\"return\":9,\"id\":99}\n")
            .await;
        let refusal = format!("{{\"error\":{{\"class\":\"C\",\"desc\":\"no\"}},\"id\":{}}}\n", first.1);
        monitor.say(refusal).await;
    };
    let (one, two, ()) =
        tokio::join!(qmp.execute("one", json!({})), qmp.execute("two", json!({ "a": 1 })), play);
    assert!(
        matches!(one, Err(QemuError::Refused { command, class, .. }) if command == "one" && class == "C")
    );
    assert_eq!(two.unwrap(), 2);
    assert_eq!(heard.recv().await.unwrap(), Event::Paused);
}

#[tokio::test]
async fn a_command_that_is_given_up_does_not_disturb_the_next() {
    let (qmp, mut monitor, _heard) = agreed().await;
    assert!(timeout(Duration::from_millis(20), qmp.execute("slow", json!({}))).await.is_err());
    let slow = monitor.hear().await;
    assert_eq!(lock(&qmp.waiting).as_ref().unwrap().len(), 0);
    let play = async {
        let next = monitor.hear().await;
        monitor
            .say(format!("{{\"return\":1,\"id\":{}}}\n{{\"return\":2,\"id\":{}}}\n", slow.1, next.1))
            .await;
    };
    let (next, ()) = tokio::join!(qmp.execute("next", json!({})), play);
    assert_eq!(next.unwrap(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_monitor_that_does_not_answer_is_waited_for_only_so_long() {
    let (qmp, _monitor, _heard) = agreed().await;
    let error = qmp.execute("query-status", json!({})).await.unwrap_err();
    assert!(matches!(error, QemuError::Timeout { .. }), "{error}");
    assert!(!qmp.has_ended());
}

#[tokio::test(start_paused = true)]
async fn a_monitor_in_other_hands_does_not_greet() {
    let (near, _far) = duplex(1 << 16);
    let (events, _) = broadcast::channel(1);
    let error = Qmp::begin(near, "test", events).await.unwrap_err();
    assert!(matches!(error, QemuError::MonitorBusy { .. }), "{error}");
}

#[tokio::test]
async fn the_end_of_the_stream_reaches_everyone_who_waits() {
    let (qmp, mut monitor, _heard) = agreed().await;
    let play = async move {
        monitor.hear().await;
        monitor.say("{\"return\":").await;
    };
    let (answer, ()) = tokio::join!(qmp.execute("query-status", json!({})), play);
    assert!(matches!(answer, Err(QemuError::Disconnected)));
    assert!(qmp.has_ended());
    assert!(matches!(qmp.execute("query-status", json!({})).await, Err(QemuError::Disconnected)));
}

#[tokio::test]
async fn whoever_does_not_speak_qmp_is_refused() {
    for words in [&b"HTTP/1.1 400 Bad Request\r\n"[..], b"{\"return\":{}}\n", b"\xff\xfe\n"] {
        let (near, far) = duplex(1 << 16);
        let (events, _) = broadcast::channel(1);
        let mut monitor = Monitor::new(far);
        monitor.say(words).await;
        let error = Qmp::begin(near, "test", events).await.unwrap_err();
        assert!(matches!(error, QemuError::Protocol { .. }), "{error}");
    }
}

#[tokio::test]
async fn an_endless_line_ends_the_conversation_and_not_the_memory() {
    let (qmp, mut monitor, _heard) = agreed().await;
    let flood = async move {
        let block = vec![b'x'; 1 << 16];
        while monitor.writer.write_all(&block).await.is_ok() {}
    };
    let (answer, ()) = tokio::join!(qmp.execute("query-status", json!({})), flood);
    assert!(matches!(answer, Err(QemuError::Disconnected)));
}
