//! Whom `rackmem vm` asks: the agent of one brick, or the controller of the racks; and how they know who asks.

use std::env;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;
use rackmem_api::agent::AgentClient;
use rackmem_api::client::Endpoint;

use super::attach::Attach;
use super::whom::Whom;
use super::{act, create, resize, show};
use crate::pool::ask::ControllerOptions;
use crate::progress::Telling;
use crate::tls::ClientTls;
use crate::token;

/// Where an agent listens if nobody says otherwise.
pub(crate) const AGENT: &str = "127.0.0.1:7080";

#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Who is asked")]
pub(crate) struct VmOptions {
    /// The agent of a brick: HOST:PORT, https://HOST:PORT or unix:PATH [env: RACKMEM_AGENT] (default: the controller of the
    /// rack that 'rackmem rack up' built, else the agent at 127.0.0.1:7080)
    #[arg(long, value_name = "ADDRESS", global = true)]
    agent: Option<Endpoint>,
    /// The controller of the racks: HOST:PORT, https://HOST:PORT or unix:PATH [env: RACKMEM_CONTROLLER]
    #[arg(long, value_name = "ADDRESS", global = true, conflicts_with = "agent")]
    controller: Option<Endpoint>,
    /// Where the racks of this machine are kept
    #[arg(
        long,
        global = true,
        value_name = "DIRECTORY",
        env = "RACKMEM_RACKS",
        default_value = "/run/rackmem/racks"
    )]
    racks: PathBuf,
    /// File with your token [env: RACKMEM_AGENT_TOKEN_FILE or RACKMEM_CONTROLLER_TOKEN_FILE]
    #[arg(long, value_name = "FILE", global = true)]
    token_file: Option<PathBuf>,
    #[command(flatten)]
    tls: ClientTls,
    /// Everything, as JSON
    #[arg(long, global = true)]
    json: bool,
    /// Print the operation and do not wait for its end
    #[arg(long, global = true)]
    no_wait: bool,
}

/// Who is asked.
#[derive(Debug)]
pub(crate) enum Asked {
    Agent(AgentOptions),
    Controller(ControllerOptions),
}

/// Which agent is asked.
#[derive(Clone, Debug)]
pub(crate) struct AgentOptions {
    agent: Endpoint,
    token_file: Option<PathBuf>,
    tls: ClientTls,
    pub(crate) json: bool,
    pub(crate) no_wait: bool,
}

impl VmOptions {
    /// Who is meant. Some commands say by their other options that it is a controller.
    pub(crate) fn asked(&self, of_racks: bool) -> anyhow::Result<Asked> {
        let set = |name| env::var(name).ok().filter(|text| !text.is_empty());
        let by_env = (set("RACKMEM_AGENT"), set("RACKMEM_CONTROLLER"));
        let read = |text: &str| -> anyhow::Result<Endpoint> {
            text.parse().with_context(|| format!("'{text}' is no address"))
        };
        if of_racks && self.agent.is_some() {
            bail!(
                "--class, --compute, --spread and --project are for a controller, which chooses the brick, and --agent names \
                 an agent: leave one of them out"
            );
        }
        match (&self.agent, &self.controller, by_env) {
            (Some(agent), _, _) => Ok(self.of_agent(agent.clone())),
            (None, Some(controller), _) => Ok(self.of_controller(Some(controller.clone()))),
            (None, None, (_, controller)) if of_racks => {
                Ok(self.of_controller(controller.as_deref().map(read).transpose()?))
            }
            (None, None, (Some(_), Some(_))) => bail!(
                "RACKMEM_AGENT and RACKMEM_CONTROLLER are both set: say with --agent or --controller who is meant"
            ),
            (None, None, (Some(agent), None)) => Ok(self.of_agent(read(&agent)?)),
            (None, None, (None, Some(controller))) => Ok(self.of_controller(Some(read(&controller)?))),
            (None, None, (None, None)) => {
                let of_rack = self.controller_options(None);
                if of_rack.stands() {
                    Ok(Asked::Controller(of_rack))
                } else {
                    Ok(self.of_agent(AGENT.parse()?))
                }
            }
        }
    }

    fn of_agent(&self, agent: Endpoint) -> Asked {
        let Self { tls, json, no_wait, .. } = self.clone();
        Asked::Agent(AgentOptions {
            agent,
            token_file: self.token_file("RACKMEM_AGENT_TOKEN_FILE"),
            tls,
            json,
            no_wait,
        })
    }

    fn of_controller(&self, controller: Option<Endpoint>) -> Asked {
        Asked::Controller(self.controller_options(controller))
    }

    fn controller_options(&self, controller: Option<Endpoint>) -> ControllerOptions {
        let token_file = self.token_file("RACKMEM_CONTROLLER_TOKEN_FILE");
        let Self { racks, tls, json, no_wait, .. } = self.clone();
        ControllerOptions { controller, racks, token_file, tls, json, no_wait }
    }

    fn token_file(&self, variable: &str) -> Option<PathBuf> {
        self.token_file.clone().or_else(|| env::var_os(variable).map(PathBuf::from))
    }
}

impl Whom for AgentOptions {
    type Client = AgentClient;

    fn client(&self) -> anyhow::Result<AgentClient> {
        let tls = self.tls.files();
        let endpoint = if tls.is_some() { self.agent.clone().with_tls() } else { self.agent.clone() };
        let token = token::text(self.token_file.as_deref())?;
        Ok(AgentClient::new(endpoint, tls.as_ref(), token.as_deref())?)
    }

    async fn changing(&self) -> anyhow::Result<AgentClient> {
        Ok(self.client()?.under_present().await?)
    }

    fn telling(&self) -> Telling {
        Telling { json: self.json, no_wait: self.no_wait, over_racks: false }
    }

    async fn create(&self, create: &create::Arguments) -> anyhow::Result<ExitCode> {
        create.run(self).await
    }

    async fn list(&self) -> anyhow::Result<ExitCode> {
        show::list(self).await
    }

    async fn show(&self, vm: &act::Name) -> anyhow::Result<ExitCode> {
        show::show(self, vm).await
    }

    async fn resize(&self, resize: &resize::Arguments) -> anyhow::Result<ExitCode> {
        resize.run(self).await
    }

    async fn attach(&self, attach: &Attach) -> anyhow::Result<ExitCode> {
        attach.run(self).await
    }

    async fn detach(&self, vm: &act::Name) -> anyhow::Result<ExitCode> {
        act::change(self, "detached", &vm.name, async |client, name| client.domain_detach(name).await).await
    }
}
