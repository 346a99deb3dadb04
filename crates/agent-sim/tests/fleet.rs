//! Thousands of simulated agents in one process, and agents that are killed.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use rackmem_agent_sim::{Failures, Latencies, SimAgent, SimConfig, SimFleet};
use rackmem_api::agent::{AgentApi, AgentClient, VmSpec, VmState};
use rackmem_api::change::Change;
use rackmem_api::operation::WaitQuery;
use rackmem_api::problem::ProblemType;
use rackmem_api::serve::{Closing, Listen, ServeConfig, Server};
use rackmem_api::{ApiError, Generation, OperationState};

const AGENTS: usize = 2000;

fn spec() -> VmSpec {
    serde_json::from_str(
        r#"{"name":"web1","memory":1073741824,"memory_max":4294967296,"local":268435456,"boot":{"kernel":"/k"}}"#,
    )
    .unwrap()
}

fn change() -> Change {
    Change::new(Generation(0), "test")
}

/// Resident memory of this process, in KiB.
fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_agents_answer() {
    let before_kib = resident_kib();
    let names = (0..AGENTS).map(|number| format!("b{number}"));
    let fleet = SimFleet::new(names.zip(1..).map(|(name, seed)| SimConfig {
        name,
        seed,
        latencies: Latencies { step_ms: 1..=20, boot_ms: 10..=200, shut_down_ms: 1..=20, gib_ms: 1..=5 },
        ..SimConfig::default()
    }));
    assert_eq!(fleet.len(), AGENTS);
    let listen = vec!["127.0.0.1:0".parse().unwrap()];
    let server = Server::open(&ServeConfig { listen, ..ServeConfig::default() }).unwrap();
    let [Listen::Tcp { port, .. }] = server.places()[..] else { panic!("one place") };
    let closing = Closing::default();
    let serving = tokio::spawn(server.run(fleet.router(), closing.clone()));

    let begun = Instant::now();
    let asked = futures_util::stream::iter(0..AGENTS).map(|number| async move {
        let endpoint = format!("http://127.0.0.1:{port}/agents/b{number}").parse().unwrap();
        let client = AgentClient::new(endpoint, None, None).unwrap();
        assert_eq!(client.host().await.unwrap().name, format!("b{number}"));
        let create = client.vm_create(&spec()).await.unwrap();
        let done = client.operation_wait(create.id, WaitQuery { timeout: 60 }).await.unwrap();
        assert_eq!(done.state, OperationState::Done, "{done:?}");
        assert_eq!(client.vm_list().await.unwrap().len(), 1);
    });
    asked.buffer_unordered(64).collect::<Vec<()>>().await;
    let took = begun.elapsed();
    let grown_kib = resident_kib() - before_kib;
    println!(
        "{AGENTS} agents, each host, create, wait, list: {took:?}; {} KiB each",
        grown_kib / AGENTS as u64
    );
    assert!(grown_kib / (AGENTS as u64) < 128, "an agent takes {} KiB", grown_kib / AGENTS as u64);
    assert!(took < Duration::from_secs(120), "it took {took:?}");
    let nobody =
        AgentClient::new(format!("http://127.0.0.1:{port}/agents/nobody").parse().unwrap(), None, None);
    let refused = nobody.unwrap().host().await.unwrap_err();
    assert!(matches!(refused, ApiError::Problem(problem) if problem.kind == ProblemType::NotFound));
    closing.close();
    serving.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_is_killed_finishes_what_it_had_accepted() {
    let agent = SimAgent::new(SimConfig::default());
    let create = agent.vm_create(change(), spec()).await.unwrap();
    assert_eq!(create.state, OperationState::Running);
    let seen = agent.events(Some(0)).await.unwrap().next().await.unwrap();
    let kept = agent.kill();
    assert_eq!(agent.host().await.unwrap_err().kind, ProblemType::Unavailable);

    let agent = SimAgent::start(kept);
    let mut events = agent.events(Some(seen.id)).await.unwrap();
    let done = agent.operation_wait(create.id, WaitQuery { timeout: 60 }).await.unwrap();
    assert_eq!(done.state, OperationState::Done);
    assert_eq!(agent.vm_show("web1".parse().unwrap()).await.unwrap().state, VmState::Running);
    let next = events.next().await.unwrap();
    assert!(next.id > seen.id, "numbers of events do not fall over a restart: {next:?}");
}

#[tokio::test(start_paused = true)]
async fn operations_end_by_themselves() {
    let agent = SimAgent::new(SimConfig::default());
    let mut events = agent.events(None).await.unwrap();
    agent.vm_create(change(), spec()).await.unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(60), async {
        loop {
            let event = events.next().await.unwrap();
            if event.kind == "operation.done" {
                return event;
            }
        }
    });
    let ended = ended.await.expect("nobody asks, and still it is done").operation.unwrap();
    assert!(ended.updated_ms - ended.created_ms >= 500, "a guest takes its time to boot: {ended:?}");
}

#[tokio::test(start_paused = true)]
async fn what_fails_is_undone() {
    let failures = Failures { step_permille: 1000, request_permille: 0 };
    let agent = SimAgent::new(SimConfig { failures, ..SimConfig::default() });
    let create = agent.vm_create(change(), spec()).await.unwrap();
    let failed = agent.operation_wait(create.id, WaitQuery { timeout: 60 }).await.unwrap();
    assert_eq!(failed.state, OperationState::Failed);
    assert_eq!(failed.error.unwrap().kind, ProblemType::Backend);
    assert!(agent.vm_list().await.unwrap().is_empty());
    assert_eq!(agent.host().await.unwrap().memory.promised.0, 0);
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_is_away_answers_nothing_and_comes_back() {
    let agent = SimAgent::new(SimConfig::default());
    agent.away_set(true);
    let problem = agent.vm_list().await.unwrap_err();
    assert_eq!((problem.kind, problem.retry_after_s), (ProblemType::Unavailable, Some(1)));
    agent.away_set(false);
    assert!(agent.vm_list().await.unwrap().is_empty());
}
