//! Which controller is asked, and as whom.

use std::path::PathBuf;

use anyhow::bail;
use clap::Args;
use rackmem_api::client::Endpoint;
use rackmem_api::controller::ControllerClient;
use rackmem_emulate::Racks;

use crate::progress::Telling;
use crate::tls::ClientTls;
use crate::token;

/// Where a controller listens if nobody says otherwise.
const CONTROLLER: &str = "127.0.0.1:7090";

#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Controller")]
pub(crate) struct ControllerOptions {
    /// The controller: HOST:PORT, https://HOST:PORT or unix:PATH (default: that of the rack that 'rackmem rack up' built, else
    /// 127.0.0.1:7090)
    #[arg(long, value_name = "ADDRESS", env = "RACKMEM_CONTROLLER", global = true)]
    pub(crate) controller: Option<Endpoint>,
    /// Where the racks of this machine are kept
    #[arg(
        long,
        global = true,
        value_name = "DIRECTORY",
        env = "RACKMEM_RACKS",
        default_value = "/run/rackmem/racks"
    )]
    pub(crate) racks: PathBuf,
    /// File with your token
    #[arg(long, value_name = "FILE", env = "RACKMEM_CONTROLLER_TOKEN_FILE", global = true)]
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

impl ControllerOptions {
    /// A client that reads.
    pub(crate) fn client(&self) -> anyhow::Result<ControllerClient> {
        let tls = self.tls.files();
        let endpoint = match &self.controller {
            Some(endpoint) => endpoint.clone(),
            None => self.found()?,
        };
        let endpoint = if tls.is_some() { endpoint.with_tls() } else { endpoint };
        let token = token::text(self.token_file.as_deref())?;
        Ok(ControllerClient::new(endpoint, tls.as_ref(), token.as_deref())?)
    }

    /// A client that changes things, under the present reign.
    pub(crate) async fn changing(&self) -> anyhow::Result<ControllerClient> {
        Ok(self.client()?.under_present().await?)
    }

    /// How operations are told.
    pub(crate) fn telling(&self) -> Telling {
        Telling { json: self.json, no_wait: self.no_wait, over_racks: true }
    }

    /// Whether a rack of this machine has a controller.
    pub(crate) fn stands(&self) -> bool {
        !self.sockets().is_empty()
    }

    fn sockets(&self) -> Vec<PathBuf> {
        let racks = Racks::new(self.racks.clone());
        let standing = racks.names().into_iter().filter_map(|name| racks.find(&name).ok());
        standing.map(|rack| rack.controller_socket()).filter(|socket| socket.exists()).collect()
    }

    /// The controller of this machine's only rack, else where controllers listen.
    fn found(&self) -> anyhow::Result<Endpoint> {
        match &self.sockets()[..] {
            [] => Ok(CONTROLLER.parse()?),
            [path] => Ok(Endpoint::Unix { path: path.clone() }),
            several => {
                let places: Vec<String> =
                    several.iter().map(|path| format!("unix:{}", path.display())).collect();
                bail!(
                    "several racks stand on this machine: say which with --controller {}",
                    places.join(" or ")
                )
            }
        }
    }
}
