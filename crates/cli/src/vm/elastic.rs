//! `rackmem vm elastic`: a machine's memory follows its guest's need.

use std::process::ExitCode;

use clap::Args;
use rackmem_api::VmName;
use rackmem_api::agent::{ElasticBounds, ElasticView};
use rackmem_types::Bytes;

use super::whom::Whom;
use crate::out;
use crate::progress::finish;

/// Let a machine's memory follow its guest's need; without sizes, show how it does
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// Name of the machine
    pub(crate) name: VmName,
    /// It never has less than this
    #[arg(long, value_name = "SIZE", requires = "max")]
    pub(crate) min: Option<Bytes>,
    /// It never has more than this
    #[arg(long, value_name = "SIZE", requires = "min")]
    pub(crate) max: Option<Bytes>,
    /// Follow no longer
    #[arg(long, conflicts_with_all = ["min", "max"])]
    pub(crate) off: bool,
}

impl Arguments {
    pub(crate) async fn run(&self, whom: &impl Whom) -> anyhow::Result<ExitCode> {
        let bounds = self.min.zip(self.max).map(|(min, max)| ElasticBounds { min, max });
        if bounds.is_none() && !self.off {
            let view = whom.client()?.vm_elastic_show(&self.name).await?;
            match (whom.telling().json, &view) {
                (true, view) => out::json(view)?,
                (false, None) => out::line(format_args!("{}: does not follow its guest", self.name))?,
                (false, Some(view)) => out::text(text(&self.name, view))?,
            }
            return Ok(ExitCode::SUCCESS);
        }
        let client = whom.changing().await?;
        let operation = client.vm_elastic_set(&self.name, bounds).await?;
        let done = match bounds {
            Some(ElasticBounds { min, max }) => {
                format!("{}: follows its guest from {min} to {max}", self.name)
            }
            None => format!("{}: follows its guest no longer", self.name),
        };
        finish(whom.telling(), &client, operation, &done).await
    }
}

fn text(name: &VmName, view: &ElasticView) -> String {
    let ElasticBounds { min, max } = view.bounds;
    let mut text = format!("{name}: follows its guest from {min} to {max}\n");
    for decision in &view.decisions {
        text += &format!("  from {} to {}: {}\n", decision.from, decision.to, decision.reason);
    }
    text
}
