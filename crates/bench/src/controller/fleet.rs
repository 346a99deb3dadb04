//! `rackmem controller` over simulated agents: the rack file, both processes, and a client.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Result, bail};
use rackmem_api::controller::ControllerClient;
use rackmem_rack::{Event, Offer, Place, Power, SwitchKind};

use super::lab::{Lab, Size};
use crate::process::{Daemon, free_port, on_cpu, own_program};
use crate::undo::{self, Undo};

/// Simulated agents.
pub(crate) struct Fleet {
    _agents: Daemon,
    rack_file: PathBuf,
    directory: PathBuf,
    _undo: Undo,
}

/// A controller over them.
pub(crate) struct Running {
    pub(crate) daemon: Daemon,
    port: u16,
}

impl Fleet {
    /// An agent for each compute brick of racks of that size, and the rack file that names them.
    pub(crate) fn start(size: Size) -> Result<Self> {
        let (directory, undo) = undo::temporary_directory()?;
        let port = free_port()?;
        let mut command = on_cpu(None, own_program()?);
        command.arg("agents").args(["--listen", &format!("127.0.0.1:{port}")]);
        command.args(["--count", &size.computes().to_string()]).stdout(Stdio::null());
        let agents = Daemon::spawn(&mut command)?;
        agents.wait_for_port(port)?;
        let rack_file = directory.join("rack.toml");
        let events = size.layout(SwitchKind::Packet, Power::On).events();
        std::fs::write(&rack_file, text(&events, port)?)?;
        Ok(Self { _agents: agents, rack_file, directory, _undo: undo })
    }

    /// Where a controller of that name keeps its state.
    pub(crate) fn state(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// `rackmem controller` with its state in `state`.
    pub(crate) fn controller(&self, lab: &Lab, state: &Path) -> Result<Running> {
        let port = free_port()?;
        let mut command = lab.product.command(None);
        command.arg("controller").args(["--listen", &format!("127.0.0.1:{port}")]);
        command.arg("--state").arg(state).arg("--rack").arg(&self.rack_file);
        command.env("RUST_LOG", "warn").stdout(Stdio::null());
        let daemon = Daemon::spawn(&mut command)?;
        daemon.wait_for_port(port)?;
        Ok(Running { daemon, port })
    }
}

impl Running {
    /// A client of it. The place of the answer to its first request is when everything is registered.
    pub(crate) async fn client(&self) -> Result<ControllerClient> {
        let client = ControllerClient::new(format!("127.0.0.1:{}", self.port).parse()?, None, None)?;
        Ok(client.under_present().await?)
    }
}

/// The events as a rack file. Compute bricks are at the simulated agents; memory servers are only numbers.
fn text(events: &[Event], port: u16) -> Result<String> {
    let mut text = String::new();
    for event in events {
        match event {
            Event::RackAdded(name) => writeln!(text, "[[rack]]\nname = \"{name}\"")?,
            Event::TrayAdded { name, rack } => {
                writeln!(text, "[[tray]]\nname = \"{name}\"\nrack = \"{rack}\"")?;
            }
            Event::SwitchAdded(spec) => {
                let kind = if spec.kind == SwitchKind::Packet { "packet" } else { "circuit" };
                writeln!(
                    text,
                    "[[switch]]\nname = \"{}\"\nkind = \"{kind}\"\nports = {}",
                    spec.name, spec.ports
                )?;
                match &spec.place {
                    Place::Tray(name) => writeln!(text, "tray = \"{name}\"")?,
                    Place::Rack(name) => writeln!(text, "rack = \"{name}\"")?,
                    Place::Between => {}
                }
            }
            Event::BrickAdded(spec) => {
                let (name, tray, ports) = (&spec.name, &spec.tray, spec.ports);
                let (kind, offers) = match &spec.offers {
                    Offer::Compute { cores, local } => {
                        let address = format!("http://127.0.0.1:{port}/agents/{name}");
                        ("compute", format!("cores = {cores}\nlocal = \"{local}\"\naddress = \"{address}\""))
                    }
                    Offer::Memory { size } => {
                        ("memory", format!("size = \"{size}\"\naddress = \"sim:127.0.0.1:7070\""))
                    }
                    Offer::Accelerator { .. } => bail!("no accelerators here"),
                };
                writeln!(
                    text,
                    "[[{kind}]]\nname = \"{name}\"\ntray = \"{tray}\"\nports = {ports}\n{offers}"
                )?;
            }
            Event::CableAdded(spec) => {
                let [a, b] = &spec.ends;
                writeln!(text, "[[cable]]\nends = [\"{a}\", \"{b}\"]\nlatency = \"{}ns\"", spec.latency_ns)?;
            }
            other => bail!("{other:?} is nothing that a rack file has"),
        }
    }
    Ok(text)
}
