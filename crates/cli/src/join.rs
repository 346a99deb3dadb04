//! A brick that announces itself: its agent or memory server registers it with a controller, as soon as that answers. What the
//! brick is for does not wait for it.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use rackmem_api::ApiError;
use rackmem_api::client::Endpoint;
use rackmem_api::controller::{BrickKind, BrickNew, ControllerClient};
use rackmem_api::problem::ProblemType;
use rackmem_api::serve::TlsFiles;
use rackmem_rack::Name;

use crate::pool::brick::{Cable, cables};
use crate::token;

/// Between two attempts: a controller that was restarted hears of its bricks within this time.
const AGAIN: Duration = Duration::from_secs(2);

#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Announcing itself")]
pub(crate) struct JoinOptions {
    /// Register this brick with the controller at HOST:PORT, https://HOST:PORT or unix:PATH
    #[arg(long, value_name = "ADDRESS", requires_all = ["brick", "tray", "brick_address"])]
    controller: Option<Endpoint>,
    /// File with a token that may join
    #[arg(long, value_name = "FILE", requires = "controller")]
    join_token_file: Option<PathBuf>,
    /// Name of the brick
    #[arg(long, value_name = "NAME", requires = "controller")]
    brick: Option<Name>,
    /// The tray that it sits in
    #[arg(long, value_name = "NAME", requires = "controller")]
    tray: Option<Name>,
    /// Where others reach it: HOST:PORT, or DATA,MANAGEMENT where these are two nets
    #[arg(long, value_name = "ADDRESS", requires = "controller")]
    brick_address: Option<String>,
    /// How many ports it has
    #[arg(long, value_name = "N", requires = "controller", default_value = "1")]
    ports: u16,
    /// A cable, PORT=SWITCH:PORT, for example 0=s1:3; repeat it
    #[arg(long = "cable", value_name = "PORT=SWITCH:PORT", requires = "controller")]
    cables: Vec<Cable>,
    /// One-way latency of its cables, nanoseconds
    #[arg(long, value_name = "NS", requires = "controller", default_value = "100")]
    latency_ns: u32,
    /// Bandwidth of its cables, megabits per second
    #[arg(long, value_name = "N", requires = "controller", default_value = "10000")]
    mbps: u32,
}

impl JoinOptions {
    /// Whom an agent asks for more memory, if there is a controller.
    pub(crate) fn lender(
        &self,
        tls: Option<&TlsFiles>,
        token_file: Option<&Path>,
    ) -> anyhow::Result<Option<ControllerClient>> {
        let asks = |endpoint| client(endpoint, tls, token_file);
        self.controller.as_ref().map(asks).transpose()
    }

    /// Announces a brick that offers this, in a thread of its own, if that was asked for.
    pub(crate) fn announce(&self, offers: BrickKind, tls: Option<&TlsFiles>) -> anyhow::Result<()> {
        let (Some(endpoint), Some(name), Some(tray)) = (&self.controller, &self.brick, &self.tray) else {
            return Ok(());
        };
        let brick = BrickNew {
            name: name.to_string(),
            tray: tray.to_string(),
            ports: self.ports,
            offers,
            watts: 0,
            address: self.brick_address.clone(),
            cables: cables(&self.cables, self.latency_ns, self.mbps),
        };
        let client = client(endpoint, tls, self.join_token_file.as_deref())?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.context("cannot start")?;
        let thread = thread::Builder::new().name("join".to_owned());
        thread.spawn(move || runtime.block_on(join(client, brick))).context("cannot start a thread")?;
        Ok(())
    }
}

/// A client that shows the token in that file.
fn client(
    endpoint: &Endpoint,
    tls: Option<&TlsFiles>,
    token_file: Option<&Path>,
) -> anyhow::Result<ControllerClient> {
    let endpoint = if tls.is_some() { endpoint.clone().with_tls() } else { endpoint.clone() };
    Ok(ControllerClient::new(endpoint, tls, token::text(token_file)?.as_deref())?)
}

/// Tries until the controller has said yes or no.
async fn join(client: ControllerClient, brick: BrickNew) {
    let name = &brick.name;
    let mut is_told = false;
    loop {
        let registered = async { client.clone().under_present().await?.brick_register(&brick).await };
        match registered.await {
            Ok(_) => return tracing::info!("the controller has registered '{name}'"),
            // After a restart of this program, mostly.
            Err(ApiError::Problem(problem)) if problem.kind == ProblemType::Exists => {
                return tracing::info!("'{name}' is not registered anew: {}", problem.detail);
            }
            Err(ApiError::Problem(problem)) if problem.retry_after_s.is_none() && problem.status != 412 => {
                return tracing::error!("the controller refuses '{name}': {}", problem.detail);
            }
            Err(error) if !is_told => {
                tracing::warn!("'{name}' is not registered yet: {error}");
                is_told = true;
            }
            Err(_) => {}
        }
        tokio::time::sleep(AGAIN).await;
    }
}
