//! `rackmem vm`: virtual machines, by asking an agent or the controller of the racks. Thin: it reads the command line, asks, and prints.

mod act;
mod ask;
mod attach;
mod console;
mod create;
mod elastic;
mod log;
mod over;
mod resize;
mod show;
mod watch;

use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Subcommand};

pub(crate) use ask::AgentOptions;
use ask::{Asked, VmOptions};

/// Make, change and watch virtual machines
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
    #[command(flatten)]
    pub(crate) options: VmOptions,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Create(Box<create::Arguments>),
    /// List the virtual machines
    List,
    /// Show one machine: what it does, how much memory it has and where that is
    Show(act::Name),
    /// Start a stopped machine
    Start(act::Name),
    Stop(act::Stop),
    /// Let a machine's processors stand still
    Pause(act::Name),
    /// Let a paused machine go on
    Resume(act::Name),
    /// Delete a machine and all that it had; disk images stay
    Delete(act::Name),
    Console(console::Arguments),
    Log(log::Arguments),
    Resize(resize::Arguments),
    Elastic(elastic::Arguments),
    Attach(attach::Attach),
    /// Bring all memory of an attached machine home and leave it as it was found
    Detach(act::Name),
    Watch(watch::Arguments),
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("cannot start")?;
    let code = runtime.block_on(carry_out(arguments));
    // A console's thread may still wait for a key.
    runtime.shutdown_background();
    code
}

async fn carry_out(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let of_racks = matches!(&arguments.command, Command::Create(create) if create.is_over_racks());
    match arguments.options.asked(of_racks)? {
        Asked::Agent(agent) => on_agent(&agent, &arguments.command).await,
        Asked::Controller(controller) => over::carry_out(&controller, &arguments.command).await,
    }
}

async fn on_agent(agent: &AgentOptions, command: &Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Create(create) => create.run(agent).await,
        Command::List => show::list(agent).await,
        Command::Show(vm) => show::show(agent, vm).await,
        Command::Start(vm) => {
            act::change(agent, "started", vm, async |client, name| client.vm_start(name).await).await
        }
        Command::Stop(stop) => stop.run(agent).await,
        Command::Pause(vm) => {
            act::change(agent, "paused", vm, async |client, name| client.vm_pause(name).await).await
        }
        Command::Resume(vm) => {
            act::change(agent, "goes on", vm, async |client, name| client.vm_resume(name).await).await
        }
        Command::Delete(vm) => {
            act::change(agent, "deleted", vm, async |client, name| client.vm_delete(name).await).await
        }
        Command::Console(console) => console.run(agent).await,
        Command::Log(log) => log.run(agent).await,
        Command::Resize(resize) => resize.run(agent).await,
        Command::Elastic(elastic) => elastic.run(agent).await,
        Command::Attach(attach) => attach.run(agent).await,
        Command::Detach(vm) => {
            act::change(agent, "detached", vm, async |client, name| client.domain_detach(name).await).await
        }
        Command::Watch(watch) => watch.run(agent).await,
    }
}
