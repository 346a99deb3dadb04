//! `rackmem pager`: the process that `run` and `attach` leave in the background, one per target. It gets out of the
//! way of the terminal and of the caller's descriptors, hands over to `rackmem-pager`, and reports how that went.

use std::fs;
use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;

use anyhow::Context;
use clap::Args;
use nix::sys::signal::{SigSet, Signal};
use rackmem_control::Client;
use rackmem_far::{Credentials, FarConfig, TlsFiles};
use rackmem_pager::{PagerConfig, Trustee};
use rackmem_uapi::inherited::take_descriptor;

use crate::options::FarOptions;
use crate::process::{self, Process};
use crate::{descriptors, logging, segment, style, token};

/// Serves the page faults of a process
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// The process
    #[arg(long)]
    pid: u32,
    /// Name of the program, for the memory servers' lists
    #[arg(long)]
    name: String,
    /// The process is held and is going to exec
    #[arg(long)]
    exec: bool,
    /// Its pager was killed: go on where that one ended
    #[arg(long, conflicts_with = "exec")]
    take_over: bool,
    /// Descriptor to report on
    #[arg(long)]
    ready_fd: i32,
    /// The file that standard error goes to, removed when nothing was said
    #[arg(long)]
    log: PathBuf,
    #[command(flatten)]
    far: FarOptions,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let ready = take_descriptor(arguments.ready_fd).context("the descriptor to report on is missing")?;
    let report = ready.try_clone().context("cannot copy the descriptor to report on")?;
    match leave_caller(arguments.pid).and_then(|trustee| serve(arguments, ready, trustee)) {
        Ok(()) => {
            remove_if_empty(&arguments.log);
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            let line = serde_json::json!({ "error": style::sentence(&error) });
            let told = File::from(report).write_all(format!("{line}\n").as_bytes());
            // Where somebody waits, they tell the user. Where nobody does any more, the log is what is left, unless
            // the program was merely faster than its pager.
            if told.is_err() && !has_ended(arguments.pid) {
                return Err(error);
            }
            let _ = fs::remove_file(&arguments.log);
            Ok(ExitCode::FAILURE)
        }
    }
}

fn has_ended(pid: u32) -> bool {
    matches!(process::read(pid), Ok(None | Some(Process { is_zombie: true, .. })))
}

fn serve(arguments: &Arguments, ready: OwnedFd, trustee: Option<Trustee>) -> anyhow::Result<()> {
    descriptors::raise_limit();
    let config = PagerConfig {
        pid: arguments.pid,
        exec: arguments.exec,
        take_over: arguments.take_over,
        name: arguments.name.clone(),
        limit: arguments.far.local,
        far: far_config(arguments)?,
        trace: arguments.far.trace.clone(),
        without: arguments.far.without.clone(),
        trustee,
        ready: Some(ready),
    };
    rackmem_pager::run(config)?;
    Ok(())
}

fn far_config(arguments: &Arguments) -> anyhow::Result<FarConfig> {
    let far = &arguments.far;
    let tls = match (&far.tls_cert, &far.tls_key, &far.tls_ca) {
        (Some(cert), Some(key), Some(ca)) => {
            Some(TlsFiles { cert: cert.clone(), key: key.clone(), ca: ca.clone() })
        }
        _ => None,
    };
    let token = far.token_file.as_deref().map(token::read).transpose()?;
    let name = format!("{}.{}", arguments.name, arguments.pid);
    let mut config = FarConfig::new(far.memory_servers.clone(), Credentials { tls, token }, name);
    config.given = far.segments.as_deref().map(segment::read).transpose()?.unwrap_or_default();
    config.extent_pages = u32::try_from(far.extent.pages())?;
    // More than all slots there are is no limit.
    config.capacity_pages = far.far_max.and_then(|far_max| u32::try_from(far_max.pages()).ok());
    config.lost_after = std::time::Duration::from_secs(far.lost_after);
    config.lease = std::time::Duration::from_secs(far.lease);
    Ok(config)
}

/// Leaves the caller's terminal, directory and descriptors, so that neither Ctrl-C nor an unmount nor a reader who
/// waits for the end of a pipe meets the pager. Appoints the trustee when all that is left.
fn leave_caller(pid: u32) -> anyhow::Result<Option<Trustee>> {
    rustix::process::setsid().context("cannot begin a session of its own")?;
    std::env::set_current_dir("/").context("cannot leave the working directory")?;
    for entry in fs::read_dir("/proc/self/fd").context("cannot list the inherited descriptors")? {
        let name = entry.context("cannot list the inherited descriptors")?.file_name();
        if let Some(number) = name.to_str().and_then(|name| name.parse().ok()) {
            // Refuses the standard ones and this program's own.
            drop(take_descriptor(number));
        }
    }
    logging::begin();
    // Where processes are scarce the pager does without.
    let trustee = Trustee::appoint().inspect_err(|error| tracing::warn!("no trustee: {error}")).ok();
    detach_on_signal(pid)?;
    Ok(trustee)
}

/// A pager that is told to end brings everything home first: without it the target could not go on.
fn detach_on_signal(pid: u32) -> anyhow::Result<()> {
    // The caller blocked signals for itself, and this process inherited that.
    SigSet::empty().thread_set_mask().context("cannot unblock signals")?;
    let set: SigSet = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP].into_iter().collect();
    set.thread_block().context("cannot block signals")?;
    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            while let Ok(signal) = set.wait() {
                tracing::warn!(%signal, "told to end: bringing the target's memory home");
                match Client::open(pid).and_then(|mut client| client.detach()) {
                    Ok(_) => return,
                    Err(error) => tracing::error!(%error, "cannot detach"),
                }
            }
        })
        .context("cannot start the thread for signals")?;
    Ok(())
}

fn remove_if_empty(log: &Path) {
    if fs::metadata(log).is_ok_and(|metadata| metadata.len() == 0) {
        let _ = fs::remove_file(log);
    }
}
