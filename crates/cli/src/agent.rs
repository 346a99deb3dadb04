//! `rackmem agent`: the SDM agent of a compute brick, until it is told to end. Its machines and their pagers run on.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use clap::Args;
use rackmem_agent::{AcceleratorKind, AgentConfig, Lender};
use rackmem_api::agent::router;
use rackmem_api::auth::{Guard, Token};
use rackmem_api::controller::BrickKind;
use rackmem_api::serve::{Closing, Listen, ServeConfig, Server};
use rackmem_types::{Bytes, ServerAddress};
use tokio::signal::unix::{SignalKind, signal};

use crate::join::JoinOptions;
use crate::options::ram;
use crate::spawn::{myself, option};
use crate::tls::{FarProof, ServerTls};
use crate::{logging, token};

/// Run virtual machines on this machine, and give them far memory
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// Where to listen: HOST:PORT or unix:PATH; repeat it for several places
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7080")]
    pub(crate) listen: Vec<Listen>,
    /// Where to keep the agent's state and the machines' files
    #[arg(long, value_name = "DIRECTORY", default_value = "/var/lib/rackmem/agent")]
    pub(crate) state: PathBuf,
    /// A memory server that lends far memory where a machine names none; repeat it to stripe over several
    #[arg(
        long = "memory-server",
        value_name = "ADDRESS",
        env = "RACKMEM_MEMORY_SERVER",
        value_delimiter = ','
    )]
    pub(crate) memory_servers: Vec<ServerAddress>,
    /// RAM that may be promised to machines (default: all of it)
    #[arg(long, value_name = "SIZE")]
    pub(crate) pool: Option<Bytes>,
    /// The QEMU program
    #[arg(long, value_name = "PROGRAM", default_value = "qemu-system-x86_64")]
    pub(crate) qemu: PathBuf,
    /// The libvirt that runs machines made with `--driver libvirt`, and whose domains `rackmem vm attach` finds by name
    #[arg(long, value_name = "URI", default_value = rackmem_agent::LIBVIRT)]
    pub(crate) libvirt: String,
    /// What runs the guests' processors (default: KVM where a guest really runs under it)
    #[arg(long, value_enum, value_name = "KIND")]
    pub(crate) accelerator: Option<Accelerator>,
    /// File with the token that everybody who asks must know
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) tls: ServerTls,
    /// Listen on the network with neither certificates nor a token: whoever reaches the port may do everything
    #[arg(long)]
    pub(crate) insecure: bool,
    #[command(flatten)]
    pub(crate) far: FarProof,
    #[command(flatten)]
    pub(crate) join: JoinOptions,
    /// File with this brick's own token, to ask the controller for more memory for the machines that it made here
    #[arg(long, value_name = "FILE", requires = "controller", help_heading = "Announcing itself")]
    pub(crate) brick_token_file: Option<PathBuf>,
    /// For tests: end by force at the n-th moment at which a crash makes a difference
    #[arg(long, value_name = "N", hide = true)]
    pub(crate) dies_at: Option<u64>,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum Accelerator {
    /// The processor itself
    Kvm,
    /// Translation, in software
    Tcg,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    logging::begin();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.context("cannot start the agent's threads")?.block_on(serve(arguments))
}

async fn serve(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    // The places first: a port that is taken is told before anything is touched.
    let config = serve_config(arguments)?;
    let server = Server::open(&config)?;
    let agent = rackmem_agent::start(agent_config(arguments)?, arguments.dies_at).await?;
    let places: Vec<String> = server.places().iter().map(ToString::to_string).collect();
    // Nobody has to read this line for the agent to serve.
    let _ = writeln!(io::stdout(), "agent: on {}", places.join(" and "));
    let cores = std::thread::available_parallelism().map_or(1, |count| count.get());
    let offers = BrickKind::Compute {
        cores: u32::try_from(cores).unwrap_or(u32::MAX),
        local: arguments.pool.unwrap_or_else(ram),
    };
    arguments.join.announce(offers, config.tls.as_ref())?;
    let closing = Closing::default();
    close_when_told(closing.clone(), "told to end: machines and pagers run on");
    server.run(router(Arc::new(agent)), closing).await;
    Ok(ExitCode::SUCCESS)
}

/// Closes a server when this process is told to end.
pub(crate) fn close_when_told(closing: Closing, words: &'static str) {
    tokio::spawn(async move {
        let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        tokio::select! { _ = term.recv() => {} _ = int.recv() => {} }
        closing.close();
        tracing::info!("{words}");
        io::Result::Ok(())
    });
}

fn serve_config(arguments: &Arguments) -> anyhow::Result<ServeConfig> {
    let tls = arguments.tls.files();
    let text = arguments.token_file.as_deref().map(token::read).transpose()?;
    let token = text.map(|text| Token::new(&String::from_utf8_lossy(&text))).transpose()?;
    Ok(ServeConfig {
        listen: arguments.listen.clone(),
        tls,
        guard: Guard { token },
        insecure: arguments.insecure,
    })
}

fn agent_config(arguments: &Arguments) -> anyhow::Result<AgentConfig> {
    let runtime = rackmem_control::directory()?;
    rackmem_control::prepare(&runtime)?;
    let absolute = |path: &PathBuf| {
        std::path::absolute(path).with_context(|| format!("cannot make the path {} absolute", path.display()))
    };
    let mut far_options: Vec<OsString> = Vec::new();
    for (name, file) in arguments.far.options() {
        if let Some(file) = file {
            far_options.push(option(name, absolute(file)?.as_os_str()));
        }
    }
    Ok(AgentConfig {
        state: absolute(&arguments.state)?,
        runtime: absolute(&runtime)?,
        program: myself(),
        qemu: arguments.qemu.clone(),
        libvirt: arguments.libvirt.clone(),
        accelerator: arguments.accelerator.map(|kind| match kind {
            Accelerator::Kvm => AcceleratorKind::Kvm,
            Accelerator::Tcg => AcceleratorKind::Tcg,
        }),
        memory_servers: arguments.memory_servers.clone(),
        far_options,
        pool: arguments.pool,
        lender: arguments
            .join
            .lender(arguments.tls.files().as_ref(), arguments.brick_token_file.as_deref())?
            .map(Lender::new),
    })
}
