//! `rackmem vm log`: what a machine has said.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Args;
use rackmem_api::VmName;
use rackmem_api::agent::{LogQuery, LogSource};

use super::whom::Whom;

/// Print the end of a machine's log
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// Name of the machine
    pub(crate) name: VmName,
    /// Whose words
    #[arg(long, value_enum, default_value = "console")]
    pub(crate) source: Source,
    /// So many bytes from the end
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    pub(crate) tail: Option<u32>,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum Source {
    /// The guest's serial console
    Console,
    /// QEMU
    Qemu,
    /// The pager
    Pager,
}

impl Arguments {
    pub(crate) async fn run(&self, whom: &impl Whom) -> anyhow::Result<ExitCode> {
        let source = match self.source {
            Source::Console => LogSource::Console,
            Source::Qemu => LogSource::Qemu,
            Source::Pager => LogSource::Pager,
        };
        let text = whom.client()?.vm_log(&self.name, LogQuery { source, tail: self.tail }).await?;
        io::stdout().lock().write_all(&text)?;
        Ok(ExitCode::SUCCESS)
    }
}
