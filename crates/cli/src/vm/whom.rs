//! What an agent and a controller have in common for `rackmem vm`: one command asks either.

use std::ops::Deref;
use std::process::ExitCode;

use rackmem_api::client::CommonClient;

use super::attach::Attach;
use super::{act, create, resize};
use crate::progress::Telling;

/// Whom a command asks, and how what it does is told.
pub(crate) trait Whom {
    /// Who asks.
    type Client: Deref<Target = CommonClient>;

    /// A client that reads.
    fn client(&self) -> anyhow::Result<Self::Client>;

    /// A client that changes things.
    async fn changing(&self) -> anyhow::Result<Self::Client>;

    /// How operations are told.
    fn telling(&self) -> Telling;

    /// Makes a machine.
    async fn create(&self, create: &create::Arguments) -> anyhow::Result<ExitCode>;

    /// Lists the machines.
    async fn list(&self) -> anyhow::Result<ExitCode>;

    /// Shows a machine.
    async fn show(&self, vm: &act::Name) -> anyhow::Result<ExitCode>;

    /// Changes a machine's memory.
    async fn resize(&self, resize: &resize::Arguments) -> anyhow::Result<ExitCode>;

    /// Gives far memory to a machine that somebody else runs.
    async fn attach(&self, attach: &Attach) -> anyhow::Result<ExitCode>;

    /// Takes it back.
    async fn detach(&self, vm: &act::Name) -> anyhow::Result<ExitCode>;
}
