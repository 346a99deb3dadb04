//! Which agent is asked, and how it knows who asks.

use std::path::PathBuf;

use clap::Args;
use rackmem_api::agent::AgentClient;
use rackmem_api::client::Endpoint;

use crate::tls::ClientTls;
use crate::token;

#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Agent")]
pub(crate) struct AgentOptions {
    /// The agent: HOST:PORT, https://HOST:PORT or unix:PATH
    #[arg(
        long,
        value_name = "ADDRESS",
        env = "RACKMEM_AGENT",
        default_value = "127.0.0.1:7080",
        global = true
    )]
    pub(crate) agent: Endpoint,
    /// File with the token that the agent knows
    #[arg(long, value_name = "FILE", env = "RACKMEM_AGENT_TOKEN_FILE", global = true)]
    pub(crate) token_file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) tls: ClientTls,
    /// Everything, as JSON
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Print the operation and do not wait for its end
    #[arg(long, global = true)]
    pub(crate) no_wait: bool,
}

impl AgentOptions {
    /// A client that reads.
    pub(crate) fn client(&self) -> anyhow::Result<AgentClient> {
        let tls = self.tls.files();
        let endpoint = if tls.is_some() { self.agent.clone().with_tls() } else { self.agent.clone() };
        let token = token::text(self.token_file.as_deref())?;
        Ok(AgentClient::new(endpoint, tls.as_ref(), token.as_deref())?)
    }

    /// A client that changes things, under the generation in force.
    pub(crate) async fn changing(&self) -> anyhow::Result<AgentClient> {
        Ok(self.client()?.under_present().await?)
    }
}
