//! The memory server's throughput on one core, against memcached and Redis on the same core; the client has the other one.

use std::process::{Command, Stdio};

use anyhow::Result;
use rackmem_types::Bytes;

use super::lab::Lab;
use crate::client::load::Report;
use crate::course::figure::{Bar, Figure};
use crate::course::samples::Samples;
use crate::process::{Daemon, Workload, cpu_time, free_port, on_cpu};
use crate::product::MemoryServer;

const PEER_TIMES: f64 = 1.5;

const SERVER_CPU: Option<usize> = Some(0);
const CLIENT_CPU: Option<usize> = Some(1);

/// Ample for the pages of the load.
const STORE: Bytes = Bytes(512 << 20);

const SERVERS: [&str; 3] = ["redis", "memcached", "rackmem"];
const WAYS: [(&str, &[&str]); 2] = [("reads", &[]), ("writes", &["--writes"])];

#[derive(Debug)]
enum Running {
    Peer(Daemon, u16),
    Rackmem(MemoryServer),
}

/// One round.
pub(crate) fn run(lab: &Lab, samples: &mut Samples) -> Result<()> {
    for server in SERVERS {
        for (way, arguments) in WAYS {
            let running = start(lab, server)?;
            let mut command = lab.native(CLIENT_CPU);
            command
                .args(["load", "--server", server, "--port", &running.port().to_string()])
                .args(["--seconds", &lab.seconds.to_string()])
                .args(arguments);
            let mut load = Workload::spawn(&mut command)?;
            load.wait_ready()?;
            let before = cpu_time(running.pid())?;
            load.lead("go")?;
            let report: Report = load.report()?;
            let used = (cpu_time(running.pid())? - before).as_secs_f64();
            samples.add(format!("server/{way}/{server}/pages per second"), report.per_second);
            samples.add(
                format!("server/{way}/{server}/CPU share"),
                used * report.per_second / report.pages as f64,
            );
        }
    }
    Ok(())
}

fn start(lab: &Lab, server: &str) -> Result<Running> {
    if server == "rackmem" {
        return Ok(Running::Rackmem(lab.product()?.memory_server(STORE, SERVER_CPU)?));
    }
    let port = free_port()?;
    let mut command = on_cpu(SERVER_CPU, if server == "redis" { "redis-server" } else { "memcached" });
    let daemon = Daemon::spawn(if server == "redis" {
        command
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
            .args(["--save", "", "--appendonly", "no"])
            .stdout(Stdio::null())
    } else {
        memcached(&mut command, port)
    })?;
    daemon.wait_for_port(port)?;
    Ok(Running::Peer(daemon, port))
}

fn memcached(command: &mut Command, port: u16) -> &mut Command {
    command
        .args(["--user", "nobody", "--listen", "127.0.0.1", "--udp-port", "0"])
        .args(["--port", &port.to_string()])
        .args(["--threads", "1"])
        .args(["--memory-limit", &(STORE.0 >> 20).to_string()])
}

impl Running {
    fn port(&self) -> u16 {
        match self {
            Self::Peer(_, port) => *port,
            Self::Rackmem(server) => server.port(),
        }
    }

    fn pid(&self) -> u32 {
        match self {
            Self::Peer(daemon, _) => daemon.pid(),
            Self::Rackmem(server) => server.pid(),
        }
    }
}

/// The rows of this experiment.
pub(crate) fn figures(samples: &Samples) -> Vec<Figure> {
    WAYS.into_iter()
        .map(|(way, _)| {
            let rate = |server| samples.median(&format!("server/{way}/{server}/pages per second"));
            let share = |server| samples.median(&format!("server/{way}/{server}/CPU share"));
            let text = |server| match (rate(server), share(server)) {
                (Some(rate), Some(share)) => format!("{server} {rate:.0}/s at {:.0} % CPU", share * 100.0),
                _ => format!("{server} ?"),
            };
            let best = rate("redis").zip(rate("memcached")).map(|(redis, memcached)| redis.max(memcached));
            let ratio = rate("rackmem").zip(best).map(|(ours, best)| ours / best);
            let title =
                format!("memory server, pipelined 4 KiB {way}, against the better of memcached and Redis");
            Figure::ratio(title, ratio, Some((Bar::AtLeast, PEER_TIMES)))
                .with_detail(SERVERS.map(text).join(", "))
        })
        .collect()
}
