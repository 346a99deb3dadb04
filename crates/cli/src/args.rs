//! The command line as a whole: which subcommands there are, and which function serves each.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use rackmem_uapi::inherited::signal_reset;
use rustix::process::Signal;

use crate::{
    agent, attach, controller, detach, doctor, held, lend, limit, manual, memory_server, pager, pki, pool,
    ps, rack, run, segment, shared, top, vm, watch,
};

/// Far memory for any process: programs use the memory of other machines as if it were their own.
#[derive(Debug, Parser)]
#[command(name = "rackmem", version, propagate_version = true, infer_subcommands = false)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    MemoryServer(memory_server::Arguments),
    Run(run::Arguments),
    Attach(attach::Arguments),
    Detach(detach::Arguments),
    Limit(limit::Arguments),
    Lend(lend::Arguments),
    Ps(ps::Arguments),
    Top(top::Arguments),
    Watch(watch::Arguments),
    Agent(agent::Arguments),
    Vm(vm::Arguments),
    Controller(controller::Arguments),
    Brick(pool::brick::Arguments),
    Topology(pool::topology::Arguments),
    Reserve(pool::reserve::Arguments),
    Apply(pool::reservation::Apply),
    Release(pool::reservation::Release),
    Reservation(pool::reservation::Arguments),
    Operation(pool::operation::Arguments),
    Why(pool::operation::Why),
    Events(pool::events::Arguments),
    Rack(rack::Arguments),
    Segment(segment::Arguments),
    Shared(shared::Arguments),
    Pki(pki::Arguments),
    Doctor(doctor::Arguments),
    #[command(hide = true)]
    Held(held::Arguments),
    #[command(hide = true)]
    Pager(pager::Arguments),
    #[command(hide = true)]
    Man(manual::ManArguments),
    #[command(hide = true)]
    Completions(manual::CompletionsArguments),
}

impl Command {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Self::MemoryServer(arguments) => memory_server::run(&arguments),
            Self::Run(arguments) => run::run(&arguments),
            Self::Attach(arguments) => attach::run(&arguments),
            Self::Held(arguments) => Ok(held::run(&arguments)),
            Self::Pager(arguments) => pager::run(&arguments),
            Self::Detach(arguments) => printing(|| detach::run(&arguments)),
            Self::Limit(arguments) => printing(|| limit::run(&arguments)),
            Self::Lend(arguments) => printing(|| lend::run(&arguments)),
            Self::Ps(arguments) => printing(|| ps::run(&arguments)),
            Self::Top(arguments) => top::run(&arguments),
            Self::Watch(arguments) => printing(|| watch::run(&arguments)),
            Self::Agent(arguments) => agent::run(&arguments),
            Self::Vm(arguments) => printing(|| vm::run(&arguments)),
            Self::Controller(arguments) => controller::run(&arguments),
            Self::Brick(arguments) => printing(|| pool::run(arguments.run())),
            Self::Topology(arguments) => printing(|| pool::run(arguments.run())),
            Self::Reserve(arguments) => printing(|| pool::run(arguments.run())),
            Self::Apply(arguments) => printing(|| pool::run(arguments.run())),
            Self::Release(arguments) => printing(|| pool::run(arguments.run())),
            Self::Reservation(arguments) => printing(|| pool::run(arguments.run())),
            Self::Operation(arguments) => printing(|| pool::run(arguments.run())),
            Self::Why(arguments) => printing(|| pool::run(arguments.run())),
            Self::Events(arguments) => printing(|| pool::run(arguments.run())),
            Self::Rack(arguments) => printing(|| rack::run(&arguments)),
            Self::Segment(arguments) => printing(|| segment::run(&arguments)),
            Self::Shared(arguments) => printing(|| shared::run(&arguments)),
            Self::Pki(arguments) => printing(|| pki::run(&arguments)),
            Self::Doctor(arguments) => printing(|| doctor::run(&arguments)),
            Self::Man(arguments) => printing(|| manual::man(&arguments)),
            Self::Completions(arguments) => printing(|| manual::completions(&arguments)),
        }
    }
}

/// Runs a command that mainly prints: when its reader goes away (`rackmem ps | head -1`) it ends as other tools do.
fn printing(command: impl FnOnce() -> anyhow::Result<ExitCode>) -> anyhow::Result<ExitCode> {
    signal_reset(Signal::PIPE)?;
    command()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;
    use clap::error::ErrorKind;

    fn refused(line: &str) -> clap::Error {
        Cli::try_parse_from(line.split_whitespace()).expect_err(line)
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn run_takes_everything_after_the_dashes_as_the_program() {
        let cli = Cli::try_parse_from(
            "rackmem run --memory-server a:1 --memory-server b:2 --local 8MiB -- ls --local -l".split(' '),
        );
        let Command::Run(run) = cli.unwrap().command else { panic!("not run") };
        assert_eq!(run.program, ["ls", "--local", "-l"]);
        assert_eq!(run.far.memory_servers.len(), 2);
    }

    #[test]
    fn wrong_usage_is_refused_with_the_reason() {
        let check = |line, kind| assert_eq!(refused(line).kind(), kind, "{line}");
        check("rackmem", ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand);
        check("rackmem dance", ErrorKind::InvalidSubcommand);
        check("rackmem run --local 8MiB -- ls", ErrorKind::MissingRequiredArgument);
        check("rackmem run --memory-server a:1 --local 8MiB", ErrorKind::MissingRequiredArgument);
        check("rackmem run --memory-server a --local 8MiB -- ls", ErrorKind::ValueValidation);
        check(
            "rackmem run --memory-server a:1 --local 8MiB --without process-madvise -- ls",
            ErrorKind::InvalidValue,
        );
        check(
            "rackmem run --memory-server a:1 --local 8MiB --tls-cert c -- ls",
            ErrorKind::MissingRequiredArgument,
        );
        check("rackmem attach x --memory-server a:1 --local 8MiB", ErrorKind::ValueValidation);
        check("rackmem attach 0 --memory-server a:1 --local 8MiB", ErrorKind::ValueValidation);
        check("rackmem limit 5 0", ErrorKind::ValueValidation);
        check("rackmem lend 5", ErrorKind::MissingRequiredArgument);
        check("rackmem lend 5 --memory-server a:1 --far-max 0", ErrorKind::ValueValidation);
        check("rackmem watch 5 xyz", ErrorKind::ValueValidation);
        check("rackmem memory-server --size 1GiB", ErrorKind::MissingRequiredArgument);
        check("rackmem memory-server --size 1GiB --listen 7070", ErrorKind::ValueValidation);
        check(
            "rackmem memory-server --size 1GiB --listen a:1 --tls-key k",
            ErrorKind::MissingRequiredArgument,
        );
        assert!(refused("rackmem limit 5 0").to_string().contains("no memory at all"));
        assert!(refused("rackmem limit 5 1024TiB").to_string().contains("this machine has"));
        assert!(refused("rackmem limit 5 12MB").to_string().contains("for example 256MiB"));
    }
}
