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
mod whom;

use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Subcommand};

pub(crate) use ask::{AGENT, AgentOptions};
use ask::{Asked, VmOptions};
use whom::Whom;

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
        Asked::Agent(agent) => ask(&agent, &arguments.command).await,
        Asked::Controller(controller) => ask(&controller, &arguments.command).await,
    }
}

async fn ask(whom: &impl Whom, command: &Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Create(create) => whom.create(create).await,
        Command::List => whom.list().await,
        Command::Show(vm) => whom.show(vm).await,
        Command::Start(vm) => {
            act::change(whom, "started", &vm.name, async |client, name| client.vm_start(name).await).await
        }
        Command::Stop(stop) => stop.run(whom).await,
        Command::Pause(vm) => {
            act::change(whom, "paused", &vm.name, async |client, name| client.vm_pause(name).await).await
        }
        Command::Resume(vm) => {
            act::change(whom, "goes on", &vm.name, async |client, name| client.vm_resume(name).await).await
        }
        Command::Delete(vm) => {
            act::change(whom, "deleted", &vm.name, async |client, name| client.vm_delete(name).await).await
        }
        Command::Console(console) => console.run(whom).await,
        Command::Log(log) => log.run(whom).await,
        Command::Resize(resize) => whom.resize(resize).await,
        Command::Elastic(elastic) => elastic.run(whom).await,
        Command::Attach(attach) => whom.attach(attach).await,
        Command::Detach(vm) => whom.detach(vm).await,
        Command::Watch(watch) => watch.run(whom).await,
    }
}
