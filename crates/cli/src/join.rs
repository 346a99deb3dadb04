//! A brick that announces itself: its agent or memory server registers it with a controller, as soon as that answers. What the
//! brick is for does not wait for it.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use rackmem_api::ApiError;
use rackmem_api::client::Endpoint;
use rackmem_api::controller::{BrickKind, BrickNew, BrickView, ControllerClient};
use rackmem_api::problem::ProblemType;
use rackmem_api::serve::TlsFiles;
use rackmem_rack::Name;

use crate::pool::brick::{Cable, cables};
use crate::token;

/// Between two attempts: a controller that was restarted hears of its bricks within this time.
const AGAIN: Duration = Duration::from_secs(2);

/// What is in a brick's way goes when an administrator removes it; that is asked for ever more seldom, but within this time.
const AGAIN_MAX: Duration = Duration::from_secs(30);

#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Announcing itself")]
pub(crate) struct JoinOptions {
    /// The controller at HOST:PORT, https://HOST:PORT or unix:PATH; with --brick this brick is registered there
    #[arg(long, value_name = "ADDRESS")]
    controller: Option<Endpoint>,
    /// File with a token that may join
    #[arg(long, value_name = "FILE", requires = "controller")]
    join_token_file: Option<PathBuf>,
    /// Name of the brick; without it an agent only asks the controller for more memory for its machines
    #[arg(long, value_name = "NAME", requires_all = ["controller", "tray", "brick_address"])]
    brick: Option<Name>,
    /// The tray that it sits in
    #[arg(long, value_name = "NAME", requires = "brick")]
    tray: Option<Name>,
    /// Where others reach it: HOST:PORT, or DATA,MANAGEMENT where these are two nets
    #[arg(long, value_name = "ADDRESS", requires = "brick")]
    brick_address: Option<String>,
    /// How many ports it has
    #[arg(long, value_name = "N", requires = "brick", default_value = "1")]
    ports: u16,
    /// A cable, PORT=SWITCH:PORT, for example 0=s1:3; repeat it
    #[arg(long = "cable", value_name = "PORT=SWITCH:PORT", requires = "brick")]
    cables: Vec<Cable>,
    /// One-way latency of its cables, nanoseconds
    #[arg(long, value_name = "NS", requires = "brick", default_value = "100")]
    latency_ns: u32,
    /// Bandwidth of its cables, megabits per second
    #[arg(long, value_name = "N", requires = "brick", default_value = "10000")]
    mbps: u32,
}

impl JoinOptions {
    /// Refuses a controller for a program that has nothing to do with one but to announce itself, and does not say as what.
    pub(crate) fn check_announces(&self) -> anyhow::Result<()> {
        anyhow::ensure!(
            self.controller.is_none() || self.brick.is_some(),
            "with --controller a memory server announces itself: give --brick, --tray and --brick-address, too"
        );
        Ok(())
    }

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

/// What came of an attempt, in a sentence for the log.
enum Attempt {
    /// The controller has the brick as it is.
    Joined(String),
    /// The controller says no, and would say it again.
    Refused(String),
    /// Something else has its name or its port: it can join when that is gone.
    InTheWay(String),
    /// Nobody said yes or no.
    NotYet(String),
}

/// Tries until the controller has the brick, or says no for good. What came of it is told when it is news.
async fn join(client: ControllerClient, brick: BrickNew) {
    let (mut told, mut pause) = (String::new(), AGAIN);
    loop {
        match attempt(&client, &brick).await {
            Attempt::Joined(sentence) => return tracing::info!("{sentence}"),
            Attempt::Refused(sentence) => return tracing::error!("{sentence}"),
            Attempt::InTheWay(sentence) => {
                if sentence != told {
                    tracing::error!("{sentence}");
                    (told, pause) = (sentence, AGAIN);
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(AGAIN_MAX);
            }
            Attempt::NotYet(sentence) => {
                if sentence != told {
                    tracing::warn!("{sentence}");
                    told = sentence;
                }
                pause = AGAIN;
                tokio::time::sleep(pause).await;
            }
        }
    }
}

async fn attempt(client: &ControllerClient, brick: &BrickNew) -> Attempt {
    let name = &brick.name;
    let not_yet = |error: ApiError| Attempt::NotYet(format!("'{name}' is not registered yet: {error}"));
    let registered = async { client.clone().under_present().await?.brick_register(brick).await };
    let refusal = match registered.await {
        Ok(_) => return Attempt::Joined(format!("the controller has registered '{name}'")),
        Err(ApiError::Problem(problem)) if problem.kind == ProblemType::Exists => problem.detail,
        Err(ApiError::Problem(problem)) if problem.retry_after_s.is_none() && problem.status != 412 => {
            return Attempt::Refused(format!("the controller refuses '{name}': {}", problem.detail));
        }
        Err(error) => return not_yet(error),
    };
    match client.brick_show(name).await {
        Ok(known) => match differences(brick, &known).as_slice() {
            // After a restart of this program, mostly.
            [] => Attempt::Joined(format!("'{name}' is registered already")),
            differences => Attempt::InTheWay(format!(
                "the controller knows another '{name}', and this one is not registered: {}; start this one as it is registered, or \
                 remove that one with 'rackmem brick remove {name}', and this one joins by itself",
                differences.join(", ")
            )),
        },
        Err(ApiError::Problem(problem)) if problem.kind == ProblemType::NotFound => {
            Attempt::InTheWay(format!(
                "'{name}' is not registered: {refusal}; remove what is in its way from the controller, and it joins by \
                 itself, or start it with another --brick or --cable"
            ))
        }
        Err(error) => not_yet(error),
    }
}

/// In what a brick of that name that the controller knows is another one. A pool of another size is none: the controller asks the
/// memory server for that, and believes it.
fn differences(brick: &BrickNew, known: &BrickView) -> Vec<String> {
    let address = |address: &Option<String>| address.clone().unwrap_or_else(|| "none".to_owned());
    let mut differ = vec![
        ("tray", known.tray.clone(), brick.tray.clone()),
        ("address", address(&known.address), address(&brick.address)),
        ("number of ports", known.ports.to_string(), brick.ports.to_string()),
    ];
    match (&known.offers, &brick.offers) {
        (BrickKind::Memory { .. }, BrickKind::Memory { .. }) => {}
        (known, new) => differ.push(("offer", offer(known), offer(new))),
    }
    differ.retain(|(_, known, new)| known != new);
    let told = |(what, known, new)| format!("its {what} is {known} there and {new} here");
    differ.into_iter().map(told).collect()
}

fn offer(offers: &BrickKind) -> String {
    match offers {
        BrickKind::Compute { cores, local } => format!("{cores} cores with {local}"),
        BrickKind::Memory { size } => format!("memory, {size}"),
        BrickKind::Accelerator { model, slots } => format!("{slots} slots of {model}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_brick_is_known_again_by_all_that_it_registers_with() {
        let text = r#"{"name":"c3","tray":"t1","ports":2,"offers":{"kind":"compute","cores":4,"local":1073741824},
            "address":"10.0.0.3:7080"}"#;
        let brick: BrickNew = serde_json::from_str(text).unwrap();
        let mut known: BrickView = serde_json::from_value(serde_json::json!({
            "name": "c3", "tray": "t1", "ports": 2, "offers": brick.offers, "power": "on", "reachable": true, "draining": false,
            "capacity": 4, "used": 0, "local_free": 0, "watts": 0, "address": "10.0.0.3:7080"
        }))
        .unwrap();
        assert_eq!(differences(&brick, &known), Vec::<String>::new());
        (known.tray, known.address) = ("t2".to_owned(), None);
        known.offers = BrickKind::Memory { size: rackmem_types::Bytes(1 << 30) };
        let told = differences(&brick, &known);
        assert_eq!(
            told,
            [
                "its tray is t2 there and t1 here",
                "its address is none there and 10.0.0.3:7080 here",
                "its offer is memory, 1GiB there and 4 cores with 1GiB here"
            ]
        );
        let lends = |size| BrickKind::Memory { size: rackmem_types::Bytes(size) };
        let brick = BrickNew { offers: lends(1 << 20), tray: "t2".to_owned(), address: None, ..brick };
        assert_eq!(differences(&brick, &known), Vec::<String>::new(), "its size is asked for");
    }
}
