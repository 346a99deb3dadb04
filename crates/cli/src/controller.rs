//! `rackmem controller`: the SDM controller, until it is told to end. What runs on the bricks runs on without it.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use clap::Args;
use rackmem_api::auth::Guard;
use rackmem_api::controller::{ControllerApi, RackFile, Role, Tokens, metrics_router, router};
use rackmem_api::serve::{Listen, ServeConfig, Server};
use rackmem_api::{Change, Problem};
use rackmem_controller::{Controller, ControllerConfig, Images, RackHands};
use rackmem_rack::Quotas;

use crate::tls::{FarProof, ServerTls};
use crate::{agent, logging, token};

/// Treat the memory of whole racks as one pool: know every brick and link, reserve, and carry it out
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// Where to listen: HOST:PORT or unix:PATH; repeat it for several places
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7090")]
    pub(crate) listen: Vec<Listen>,
    /// Where to keep the controller's state
    #[arg(long, value_name = "DIRECTORY", default_value = "/var/lib/rackmem/controller")]
    pub(crate) state: PathBuf,
    /// A rack file to register if no brick is known yet
    #[arg(long, value_name = "FILE")]
    pub(crate) rack: Option<PathBuf>,
    /// Who may ask: a JSON list of {"name", "token", "role", "project", "expires_ms"}
    #[arg(long, value_name = "FILE")]
    pub(crate) tokens: Option<PathBuf>,
    /// What projects may have, JSON: {"default": {"rack": BYTES}, "projects": {"p1": {"tray": BYTES}}}; either may be left out
    #[arg(long, value_name = "FILE")]
    pub(crate) quotas: Option<PathBuf>,
    /// Where the images of members lie on the compute bricks: DIRECTORY/PROJECT/ is a project's own, kernels and initrds may
    /// also lie in DIRECTORY/public/. Without it only administrators make machines
    #[arg(long, value_name = "DIRECTORY")]
    pub(crate) images: Option<Images>,
    /// Seconds between two looks at what bricks and switches say of themselves
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) watch_every: u64,
    /// File with the token that the agents know
    #[arg(long, value_name = "FILE", env = "RACKMEM_AGENT_TOKEN_FILE")]
    pub(crate) agent_token_file: Option<PathBuf>,
    /// Serve Prometheus metrics here, to whoever asks, for example 127.0.0.1:9090
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) metrics: Option<SocketAddr>,
    #[command(flatten)]
    pub(crate) tls: ServerTls,
    #[command(flatten)]
    pub(crate) far: FarProof,
    /// Listen on the network with neither certificates nor tokens: whoever reaches the port may do everything
    #[arg(long)]
    pub(crate) insecure: bool,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    logging::begin();
    // Before there are other threads. With 10,000 bricks it saves two fifths of what the controller needs at most.
    rackmem_uapi::heap::share_one();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.context("cannot start the controller's threads")?.block_on(serve(arguments))
}

async fn serve(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let tokens = arguments.tokens.as_deref().map(tokens).transpose()?;
    let mut config = ControllerConfig::new(&arguments.state);
    let closing = config.closing.clone();
    config.watch_every = std::time::Duration::from_secs(arguments.watch_every);
    if let Some(file) = &arguments.quotas {
        config.quotas = quotas(file)?;
    }
    config.images.clone_from(&arguments.images);
    let tls = arguments.tls.files();
    // The places first: a port that is taken is told before anything is touched.
    let server = Server::open(&ServeConfig {
        listen: arguments.listen.clone(),
        tls: tls.clone(),
        // Tokens with roles are judged by the router.
        guard: Guard { token: None },
        insecure: arguments.insecure || tokens.is_some(),
    })?;
    let scraped = arguments.metrics.map(metrics).transpose()?;
    let text = token::text(arguments.agent_token_file.as_deref())?;
    warn(tls.is_some(), tokens.as_ref(), text.is_some());
    let controller =
        Controller::start(config, Arc::new(RackHands::new(tls, text, arguments.far.credentials()?))).await?;
    if let Some(file) = &arguments.rack {
        register(&controller, file).await?;
    }
    let places: Vec<String> = server.places().iter().map(ToString::to_string).collect();
    // Nobody has to read this line for the controller to serve.
    let scraper = scraped.as_ref().map(|server| format!(", metrics on {}", server.places()[0]));
    let _ = writeln!(io::stdout(), "controller: on {}{}", places.join(" and "), scraper.unwrap_or_default());
    agent::close_when_told(closing.clone(), "told to end: what is under way goes on at the next start");
    let controller = Arc::new(controller);
    if let Some(server) = scraped {
        tokio::spawn(server.run(metrics_router(Arc::clone(&controller)), closing.clone()));
    }
    server.run(router(controller, tokens), closing.clone()).await;
    match closing.failure() {
        None => Ok(ExitCode::SUCCESS),
        Some(why) => Err(anyhow::Error::msg(why.to_owned()))
            .context("the controller ends, and whatever it has accepted goes on when it is started again"),
    }
}

/// Warns of what guards less than it seems to.
fn warn(has_tls: bool, tokens: Option<&Tokens>, has_agent_token: bool) {
    if has_tls && tokens.is_none() {
        tracing::warn!(
            "there are certificates and no tokens: whoever has a certificate of this authority is an administrator; give \
             --tokens, too, if anybody else has one"
        );
    }
    if !has_tls && has_agent_token && tokens.is_some_and(|tokens| tokens.has(Role::Join)) {
        tracing::warn!(
            "there is no TLS, so the token of the agents is shown to whatever address a brick announces: a token that may \
             join is worth as much as that one; give --tls-cert, --tls-key and --tls-ca, or have an administrator register \
             the bricks"
        );
    }
}

/// The place where metrics are fetched.
fn metrics(address: SocketAddr) -> anyhow::Result<Server> {
    let listen = vec![address.to_string().parse()?];
    Ok(Server::open(&ServeConfig { listen, insecure: true, ..ServeConfig::default() })?)
}

fn tokens(file: &Path) -> anyhow::Result<Tokens> {
    let shown = file.display();
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read the tokens in {shown}"))?;
    Tokens::read(&text).with_context(|| format!("{shown} cannot be used"))
}

fn quotas(file: &Path) -> anyhow::Result<Quotas> {
    let shown = file.display();
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read the quotas in {shown}"))?;
    serde_json::from_str(&text).with_context(|| {
        format!(
            "{shown} has a mistake; write {{\"default\": {{\"rack\": BYTES}}, \"projects\": {{\"p1\": {{\"tray\": BYTES}}}}}}"
        )
    })
}

/// Registers a rack file with a controller that knows no brick. One that was started before keeps to what it knows.
async fn register(controller: &Controller, file: &Path) -> anyhow::Result<()> {
    let shown = file.display();
    let text = crate::rack_file::read(file)?;
    let told = |problem: Problem| anyhow::anyhow!("the rack file {shown}: {}", problem.detail);
    let present = controller.controller().await.map_err(told)?;
    if present.bricks > 0 {
        tracing::info!("{} bricks are known already: {shown} is not read again", present.bricks);
        return Ok(());
    }
    let change = Change::new(present.generation, "rack file");
    controller.rack_register(change, RackFile { file: text }).await.map_err(told)?;
    Ok(())
}
