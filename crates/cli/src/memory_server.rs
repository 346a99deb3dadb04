//! `rackmem memory-server`: lends memory until it is told to end.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;

use anyhow::Context;
use clap::Args;
use nix::sys::signal::{SigSet, Signal};
use rackmem_api::controller::BrickKind;
use rackmem_memory_server::{Listen, Server, ServerConfig, Shutdown, TlsFiles};
use rackmem_types::Bytes;

use crate::join::JoinOptions;
use crate::tls::ServerTls;
use crate::{descriptors, logging, token};

/// Lend this machine's memory to other machines
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// Memory to lend, for example 4GiB; it is taken only as pages arrive
    #[arg(long)]
    pub(crate) size: Bytes,
    /// Where to listen: HOST:PORT or unix:PATH; repeat it for several places
    #[arg(long, value_name = "ADDRESS", required = true)]
    pub(crate) listen: Vec<Listen>,
    #[command(flatten)]
    pub(crate) tls: ServerTls,
    /// File with the token that every client must know
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Listen on the network with neither certificates nor a token: whoever reaches the port gets memory
    #[arg(long)]
    pub(crate) insecure: bool,
    /// Serve Prometheus metrics here, for example 127.0.0.1:9070
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) metrics: Option<SocketAddr>,
    /// Describe the memory in this JSON file to programs on the same machine
    #[arg(long, value_name = "FILE")]
    pub(crate) regions: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) join: JoinOptions,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    arguments.join.check_announces()?;
    logging::begin();
    descriptors::raise_limit();
    let shutdown = Shutdown::new().context("cannot make the handle that ends the server")?;
    shut_down_on_signal(&shutdown)?;
    let server = Server::start(&config(arguments)?, &shutdown)?;
    let places: Vec<String> = server.places().iter().map(ToString::to_string).collect();
    let metrics =
        server.metrics_address().map(|address| format!(", metrics on {address}")).unwrap_or_default();
    // Nobody has to read this line for the server to serve.
    let _ = writeln!(io::stdout(), "memory server: {} on {}{metrics}", arguments.size, places.join(" and "));
    arguments.join.announce(BrickKind::Memory { size: arguments.size }, arguments.tls.files().as_ref())?;
    server.wait();
    Ok(ExitCode::SUCCESS)
}

fn config(arguments: &Arguments) -> anyhow::Result<ServerConfig> {
    let mut config = ServerConfig::new(arguments.size, arguments.listen.clone());
    config.tls =
        arguments.tls.files().map(|files| TlsFiles { cert: files.cert, key: files.key, ca: files.ca });
    config.token = arguments.token_file.as_deref().map(token::read).transpose()?;
    config.insecure = arguments.insecure;
    config.metrics = arguments.metrics;
    config.regions.clone_from(&arguments.regions);
    Ok(config)
}

/// Blocks the signals in this thread, and so in all that it starts from now on, and waits for them in one of their own.
fn shut_down_on_signal(shutdown: &Shutdown) -> anyhow::Result<()> {
    let signals: SigSet = [Signal::SIGTERM, Signal::SIGINT].into_iter().collect();
    signals.thread_block().context("cannot block signals")?;
    let shutdown = shutdown.clone();
    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            if let Ok(signal) = signals.wait() {
                tracing::info!(%signal, "told to end: answering what has arrived");
                shutdown.trigger();
            }
        })
        .context("cannot start the thread for signals")?;
    Ok(())
}
