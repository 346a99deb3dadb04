//! What an agent and a controller have in common for `rackmem vm`: one command asks either.

use std::process::ExitCode;

use futures_util::stream::BoxStream;
use rackmem_api::agent::{
    Access, AgentClient, Console, ElasticBounds, ElasticView, LogQuery, StopRequest, WatchQuery,
};
use rackmem_api::controller::ControllerClient;
use rackmem_api::{ApiError, Operation, VmName};

use super::attach::Attach;
use super::{act, create, resize};
use crate::progress::{Asked, Telling};

/// Whom a command asks, and how what it does is told.
pub(crate) trait Whom {
    /// Who asks.
    type Client: Machines;

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

/// Who has machines: what is asked in the same way of an agent and of a controller.
pub(crate) trait Machines: Asked {
    async fn start(&self, vm: &VmName) -> Result<Operation, ApiError>;
    async fn stop(&self, vm: &VmName, how: StopRequest) -> Result<Operation, ApiError>;
    async fn pause(&self, vm: &VmName) -> Result<Operation, ApiError>;
    async fn resume(&self, vm: &VmName) -> Result<Operation, ApiError>;
    async fn delete(&self, vm: &VmName) -> Result<Operation, ApiError>;
    async fn elastic_set(&self, vm: &VmName, bounds: Option<ElasticBounds>) -> Result<Operation, ApiError>;
    async fn elastic(&self, vm: &VmName) -> Result<Option<ElasticView>, ApiError>;
    async fn console(&self, vm: &VmName) -> Result<Console, ApiError>;
    async fn log(&self, vm: &VmName, query: LogQuery) -> Result<Vec<u8>, ApiError>;
    async fn accesses(&self, vm: &VmName, query: WatchQuery) -> Result<Accesses, ApiError>;
}

/// Accesses to a page, as they come.
type Accesses = BoxStream<'static, Result<Access, ApiError>>;

macro_rules! machines {
    ($($client:ty),*) => {$(
        impl Machines for $client {
            async fn start(&self, vm: &VmName) -> Result<Operation, ApiError> {
                self.vm_start(vm).await
            }

            async fn stop(&self, vm: &VmName, how: StopRequest) -> Result<Operation, ApiError> {
                self.vm_stop(vm, how).await
            }

            async fn pause(&self, vm: &VmName) -> Result<Operation, ApiError> {
                self.vm_pause(vm).await
            }

            async fn resume(&self, vm: &VmName) -> Result<Operation, ApiError> {
                self.vm_resume(vm).await
            }

            async fn delete(&self, vm: &VmName) -> Result<Operation, ApiError> {
                self.vm_delete(vm).await
            }

            async fn elastic_set(
                &self,
                vm: &VmName,
                bounds: Option<ElasticBounds>,
            ) -> Result<Operation, ApiError> {
                self.vm_elastic_set(vm, bounds).await
            }

            async fn elastic(&self, vm: &VmName) -> Result<Option<ElasticView>, ApiError> {
                self.vm_elastic_show(vm).await
            }

            async fn console(&self, vm: &VmName) -> Result<Console, ApiError> {
                self.vm_console(vm).await
            }

            async fn log(&self, vm: &VmName, query: LogQuery) -> Result<Vec<u8>, ApiError> {
                self.vm_log(vm, query).await
            }

            async fn accesses(&self, vm: &VmName, query: WatchQuery) -> Result<Accesses, ApiError> {
                self.vm_watch(vm, query).await
            }
        }
    )*};
}

machines!(AgentClient, ControllerClient);
