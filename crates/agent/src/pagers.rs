//! The pagers of this machine's VMs: processes of their own that outlive the agent, each with its control socket.
//!
//! Pagers are started by the command line's own `rackmem attach`, which checks the target and returns once far memory is
//! in force. All waiting is done on threads that may block; the control protocol is a blocking one.

use std::ffi::OsString;
use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use rackmem_api::Problem;
use rackmem_api::agent::Attachment;
use rackmem_api::problem::ProblemType;
use rackmem_control::{
    Access, Client, ControlError, DetachReport, LendReport, Lending, LentSegment, TargetStats,
};
use rackmem_types::{Bytes, PAGE_SIZE, ServerAddress};
use rustix::fs::MemfdFlags;
use tokio::process::Command;
use tokio::sync::mpsc;
use tokio::time::sleep;

use crate::config::AgentConfig;

/// Accesses to a watched page that wait for a slow reader; when it is full the pager waits, and with it the guest.
const ACCESSES_WAITING: usize = 1024;

/// An agent that died may have left a start of its own under way, and a process is entered by one at a time.
const ATTACH_TRIES: u32 = 3;

/// Between two such tries: entering takes milliseconds.
const ATTACH_AGAIN: Duration = Duration::from_millis(500);

/// Words of a failed start that are passed on.
const LAST_WORDS_BYTES: usize = 2000;

/// All pagers.
#[derive(Clone, Debug)]
pub(crate) struct Pagers {
    program: PathBuf,
    runtime: PathBuf,
    options: Vec<OsString>,
}

/// What a new pager is told.
#[derive(Clone, Debug)]
pub(crate) struct Far {
    /// How much may stay resident.
    pub(crate) local: Bytes,
    /// The memory servers on which it may reserve segments.
    pub(crate) servers: Vec<ServerAddress>,
    /// Segments that were made for it.
    pub(crate) given: Vec<Attachment>,
    /// At most this much far memory.
    pub(crate) far_max: Option<Bytes>,
}

impl Pagers {
    /// The pagers whose sockets are in the configuration's runtime directory.
    pub(crate) fn new(config: &AgentConfig) -> Self {
        Self {
            program: config.program.clone(),
            runtime: config.runtime.clone(),
            options: config.far_options.clone(),
        }
    }

    /// Gives process `pid` far memory; answers when it is in force. Nothing happens if it has.
    pub(crate) async fn attach(&self, pid: u32, far: &Far) -> Result<(), Problem> {
        let mut tried = 0;
        loop {
            if self.is_up(pid).await {
                return Ok(());
            }
            tried += 1;
            match self.start(pid, far).await {
                Err(_) if tried < ATTACH_TRIES => sleep(ATTACH_AGAIN).await,
                started => return started,
            }
        }
    }

    /// Gives a process whose pager died a new one, which goes on where that ended.
    pub(crate) async fn succeed(&self, pid: u32, far: &Far) -> Result<(), Problem> {
        self.start(pid, far).await
    }

    async fn start(&self, pid: u32, far: &Far) -> Result<(), Problem> {
        let mut command = Command::new(&self.program);
        command.arg("attach").arg(pid.to_string()).arg(format!("--local={}", far.local.0));
        for server in &far.servers {
            command.arg(format!("--memory-server={server}"));
        }
        if let Some(far_max) = far.far_max {
            command.arg(format!("--far-max={}", far_max.0));
        }
        let given = segments_file(&far.given).map_err(internal)?;
        if let Some(file) = &given {
            // By the agent's own descriptor: the secrets lie on no disk, and nothing is left if the agent dies just now.
            command.arg(format!("--segments=/proc/{}/fd/{}", std::process::id(), file.as_raw_fd()));
        }
        // The agent's own environment could name other servers.
        command.env_remove("RACKMEM_MEMORY_SERVER").env("RACKMEM_RUNTIME_DIR", &self.runtime);
        command.args(&self.options).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let backend = |detail: String| Problem::new(ProblemType::Backend, detail);
        let output = command.output().await.map_err(|error| {
            backend(format!("cannot start the pager ({}): {error}", self.program.display()))
        })?;
        if output.status.success() || self.is_up(pid).await {
            return Ok(());
        }
        let said =
            String::from_utf8_lossy(&output.stderr[..output.stderr.len().min(LAST_WORDS_BYTES)]).into_owned();
        let said = said.trim().trim_start_matches("rackmem:").trim();
        Err(backend(format!("no far memory: {said}")))
    }

    /// Whether a pager serves process `pid`.
    pub(crate) async fn is_up(&self, pid: u32) -> bool {
        self.ask(pid, |_| Ok(())).await.is_ok()
    }

    /// What the pager of `pid` knows of it; `None` if there is no pager.
    pub(crate) async fn stats(&self, pid: u32) -> Option<TargetStats> {
        self.ask(pid, |client| client.stats()).await.ok()
    }

    /// Changes how much of `pid` may stay resident; answers when that is in force.
    pub(crate) async fn limit_set(&self, pid: u32, limit: Bytes) -> Result<(), Problem> {
        self.ask(pid, move |client| client.limit_set(limit)).await
    }

    /// Lets `pid` use exactly the far memory in `far` from now on; `None` if there is no pager.
    pub(crate) async fn lend(&self, pid: u32, far: &Far) -> Result<Option<LendReport>, Problem> {
        let lending = far.lending();
        match self.ask_raw(pid, |client| client.lend(lending)).await {
            Ok(report) => Ok(Some(report)),
            Err(ControlError::NotAttached(_)) => Ok(None),
            Err(error) => Err(problem(&error)),
        }
    }

    /// Brings all memory of `pid` home and ends its pager. Nothing happens if there is none.
    pub(crate) async fn detach(&self, pid: u32) -> Result<Option<DetachReport>, Problem> {
        let told = self.ask_raw(pid, |client| client.detach()).await;
        match told {
            Ok(report) => Ok(Some(report)),
            Err(ControlError::NotAttached(_)) => Ok(None),
            Err(error) => Err(problem(&error)),
        }
    }

    /// Each access to the page of `pid` at `address`, until the stream is dropped.
    pub(crate) async fn watch(
        &self,
        pid: u32,
        address: u64,
    ) -> Result<BoxStream<'static, Result<Access, Problem>>, Problem> {
        let runtime = self.runtime.clone();
        let (sender, receiver) = mpsc::channel(ACCESSES_WAITING);
        let opened =
            tokio::task::spawn_blocking(move || Client::open_in(&runtime, pid)?.watch(address)).await;
        let accesses = opened.map_err(internal)?.map_err(|error| problem(&error))?;
        let end = accesses.end().map_err(|error| problem(&error))?;
        // A thread of its own: it waits as long as nobody touches the page, or until nobody listens.
        std::thread::Builder::new()
            .name("watch".to_owned())
            .spawn(move || {
                for access in accesses {
                    if sender.blocking_send(access.map_err(|error| problem(&error))).is_err() {
                        return;
                    }
                }
            })
            .map_err(internal)?;
        let seen = stream::unfold((receiver, end), |(mut receiver, end)| async move {
            receiver.recv().await.map(|access| (access, (receiver, end)))
        });
        Ok(seen.boxed())
    }

    async fn ask<T: Send + 'static>(
        &self,
        pid: u32,
        question: impl FnOnce(&mut Client) -> Result<T, ControlError> + Send + 'static,
    ) -> Result<T, Problem> {
        self.ask_raw(pid, question).await.map_err(|error| problem(&error))
    }

    async fn ask_raw<T: Send + 'static>(
        &self,
        pid: u32,
        question: impl FnOnce(&mut Client) -> Result<T, ControlError> + Send + 'static,
    ) -> Result<T, ControlError> {
        let runtime = self.runtime.clone();
        let asked = tokio::task::spawn_blocking(move || question(&mut Client::open_in(&runtime, pid)?)).await;
        asked.unwrap_or_else(|error| {
            Err(ControlError::Broken { pid, source: std::io::Error::other(error.to_string()) })
        })
    }
}

impl Far {
    /// The same, but for the local limit, as a pager that runs is told.
    fn lending(&self) -> Lending {
        let lent = |entry: &Attachment| {
            let (range, size) = (entry.range(), entry.size());
            Some(LentSegment {
                server: entry.server.clone(),
                segment: entry.segment?.0,
                token: entry.token?.0,
                first: range.start / PAGE_SIZE as u64,
                pages: size.pages(),
            })
        };
        let segments = self.given.iter().filter_map(lent).collect();
        Lending { servers: self.servers.clone(), segments, far_max: self.far_max }
    }
}

/// A file in memory that names `given` as `rackmem attach --segments` reads it.
fn segments_file(given: &[Attachment]) -> std::io::Result<Option<File>> {
    if given.is_empty() {
        return Ok(None);
    }
    let entry = |entry: &Attachment| {
        let (range, size) = (entry.range(), entry.size());
        serde_json::json!({
            "server": entry.server, "segment": entry.segment, "token": entry.token,
            "offset": range.start, "size": size.0,
        })
    };
    let entries: Vec<_> = given.iter().map(entry).collect();
    let mut file = File::from(rustix::fs::memfd_create("segments", MemfdFlags::CLOEXEC)?);
    file.write_all(serde_json::Value::from(entries).to_string().as_bytes())?;
    Ok(Some(file))
}

fn problem(error: &ControlError) -> Problem {
    let kind = match error {
        ControlError::NotAttached(_) => ProblemType::WrongState,
        ControlError::Refused(_) => ProblemType::Invalid,
        _ => ProblemType::Backend,
    };
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
    Problem::new(kind, format!("{error}{cause}"))
}

fn internal(error: impl std::fmt::Display) -> Problem {
    Problem::new(ProblemType::Internal, error.to_string())
}
