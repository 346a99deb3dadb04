//! rackmem as a user meets it: the `rackmem` program and its output.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use rackmem_control::TargetStats;
use rackmem_types::Bytes;

use crate::process::{Daemon, call, free_port, on_cpu, own_program};
use crate::undo::{self, Undo};

/// The `rackmem` program: `RACKMEM_BIN`, or the one built beside this program. Its pagers' sockets and logs are in a
/// directory of their own, which goes at the end.
#[derive(Clone, Debug)]
pub(crate) struct Product {
    program: PathBuf,
    sockets: PathBuf,
    _undo: Arc<Undo>,
}

/// A memory server of this machine, ended when this is dropped.
#[derive(Debug)]
pub(crate) struct MemoryServer {
    daemon: Daemon,
    address: String,
    port: u16,
}

impl Product {
    pub(crate) fn find() -> Result<Self> {
        let program = match std::env::var_os("RACKMEM_BIN") {
            Some(path) => path.into(),
            None => own_program()?.with_file_name("rackmem"),
        };
        ensure!(
            program.exists(),
            "there is no {}: build it with `cargo build --release -p rackmem-cli`",
            program.display()
        );
        let (sockets, undo) = undo::temporary_directory()?;
        Ok(Self { program, sockets, _undo: Arc::new(undo) })
    }

    /// Where the pagers' sockets are.
    pub(crate) fn sockets(&self) -> &Path {
        &self.sockets
    }

    /// `rackmem`, to be given its arguments.
    pub(crate) fn command(&self, cpu: Option<usize>) -> Command {
        let mut command = on_cpu(cpu, &self.program);
        command.env("RACKMEM_RUNTIME_DIR", &self.sockets);
        command
    }

    /// Starts a memory server on a free loopback port.
    pub(crate) fn memory_server(&self, size: Bytes, cpu: Option<usize>) -> Result<MemoryServer> {
        let port = free_port()?;
        let address = format!("127.0.0.1:{port}");
        let daemon = Daemon::spawn(
            self.command(cpu)
                .arg("memory-server")
                .args(["--size", &size.0.to_string()])
                .args(["--listen", &address])
                .env("RUST_LOG", "warn")
                .stdout(Stdio::null()),
        )?;
        daemon.wait_for_port(port)?;
        Ok(MemoryServer { daemon, address, port })
    }

    /// `rackmem run … -- program`, to be given the program's arguments.
    pub(crate) fn run(
        &self,
        server: &MemoryServer,
        local: Bytes,
        cpu: Option<usize>,
        program: &Path,
    ) -> Command {
        let mut command = self.command(cpu);
        command
            .arg("run")
            .args(["--memory-server", &server.address])
            .args(["--local", &local.0.to_string()])
            .arg("--")
            .arg(program);
        command
    }

    pub(crate) fn attach(&self, pid: u32, server: &MemoryServer, local: Bytes) -> Result<()> {
        let mut command = self.command(None);
        command
            .args(["attach", &pid.to_string()])
            .args(["--memory-server", &server.address])
            .args(["--local", &local.0.to_string()]);
        call(&mut command).map(drop)
    }

    pub(crate) fn detach(&self, pid: u32) -> Result<()> {
        call(self.command(None).args(["detach", &pid.to_string()])).map(drop)
    }

    pub(crate) fn limit(&self, pid: u32, limit: Bytes) -> Result<()> {
        call(self.command(None).args(["limit", &pid.to_string(), &limit.0.to_string()])).map(drop)
    }

    /// What `rackmem ps` says of target `pid`.
    pub(crate) fn stats(&self, pid: u32) -> Result<Option<TargetStats>> {
        Ok(self.all_stats()?.into_iter().find(|stats| stats.pid == pid))
    }

    /// What `rackmem ps` says of the one target that uses `server`, as soon as it says something; `program` is what runs it.
    pub(crate) fn target(&self, server: &MemoryServer, program: &Daemon) -> Result<TargetStats> {
        let uses =
            |stats: &TargetStats| stats.servers.iter().any(|s| s.address.to_string() == server.address);
        let mut target = None;
        program.wait_until("it in `rackmem ps`", || {
            target = self.all_stats().ok().and_then(|all| all.into_iter().find(uses));
            target.is_some()
        })?;
        target.context("no target")
    }

    fn all_stats(&self) -> Result<Vec<TargetStats>> {
        let text = call(self.command(None).args(["ps", "--json"]))?;
        serde_json::from_str(&text).with_context(|| format!("rackmem ps --json said '{text}'"))
    }
}

impl MemoryServer {
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn pid(&self) -> u32 {
        self.daemon.pid()
    }
}

/// Resident memory of a process, as the kernel counts it.
pub(crate) fn resident(pid: u32) -> Result<Bytes> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kib =
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("a process without memory")?;
    Ok(Bytes(kib.trim().trim_end_matches(" kB").parse::<u64>()? << 10))
}

/// Resident memory of a pager without its standby buffer, which is part of the target's local memory.
pub(crate) fn pager_memory(pid: u32) -> Result<Bytes> {
    let smaps = fs::read_to_string(format!("/proc/{pid}/smaps"))?;
    let mut counted = true;
    let mut kib = 0;
    for line in smaps.lines() {
        if let Some(rest) = line.strip_prefix("Rss:") {
            if counted {
                kib += rest.trim().trim_end_matches(" kB").parse::<u64>()?;
            }
        } else if line.as_bytes().first().is_some_and(|c| c.is_ascii_hexdigit() && !c.is_ascii_uppercase()) {
            counted = !line.contains("standby");
        }
    }
    Ok(Bytes(kib << 10))
}
