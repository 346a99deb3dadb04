//! `rackmem vm watch`: prints each access to one page of a guest.

use std::process::ExitCode;

use clap::Args;
use futures_util::StreamExt;
use rackmem_api::VmName;
use rackmem_api::agent::{Access, WatchQuery};

use super::whom::Whom;
use crate::out;
use crate::watch::parse_address;

/// Print each access to one page of a guest
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// Name of the machine
    pub(crate) name: VmName,
    /// A guest-physical address in the page: 0x… or decimal
    #[arg(value_parser = parse_address)]
    pub(crate) address: u64,
}

impl Arguments {
    pub(crate) async fn run(&self, whom: &impl Whom) -> anyhow::Result<ExitCode> {
        let query = WatchQuery { address: self.address };
        let mut accesses = whom.client()?.vm_watch(&self.name, query).await?;
        let json = whom.telling().json;
        while let Some(access) = accesses.next().await {
            let access = access?;
            let line = if json { serde_json::to_string(&access)? } else { line(&access) };
            out::line(line)?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn line(access: &Access) -> String {
    let Access { at_us, thread, address, write } = *access;
    let kind = if write { "write" } else { "read" };
    let (seconds, rest) = (at_us / 1_000_000, at_us % 1_000_000);
    format!("{seconds:>6}.{rest:06}  thread {thread:<8} {kind:<5}  guest {address:#x}")
}
