//! Simulated agents to play with: `cargo run --example simulate -p rackmem-agent-sim -- 127.0.0.1:7080 [AGENTS]`.
//!
//! One agent is served at `/v1`; several at `/agents/b0/v1`, `/agents/b1/v1` and so on.

use std::sync::Arc;

use rackmem_agent_sim::{SimAgent, SimConfig, SimDomain, SimFleet};
use rackmem_api::agent::router;
use rackmem_api::serve::{Closing, ServeConfig, Server};
use rackmem_types::Bytes;

fn brick(name: String) -> SimConfig {
    let domain = SimDomain { name: "legacy".to_owned(), pid: 4711, memory: Bytes(2 << 30) };
    SimConfig { name, domains: vec![domain], ..SimConfig::default() }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let listen = arguments.next().unwrap_or_else(|| "127.0.0.1:7080".to_owned()).parse()?;
    let agents: usize = arguments.next().map_or(Ok(1), |count| count.parse())?;
    let router = match agents {
        1 => router(Arc::new(SimAgent::new(brick("b0".to_owned())))),
        _ => SimFleet::new((0..agents).map(|number| brick(format!("b{number}")))).router(),
    };
    let server = Server::open(&ServeConfig { listen: vec![listen], ..ServeConfig::default() })?;
    for place in server.places() {
        println!("{agents} simulated agents listen on {place}");
    }
    let closing = Closing::default();
    let signal = closing.clone();
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            signal.close();
        }
    });
    server.run(router, closing).await;
    Ok(())
}
