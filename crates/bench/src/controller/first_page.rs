//! From `rackmem reserve` to the first page that the reserved memory brick serves, in a real rack of network namespaces.
//!
//! The page takes the data net: no way leads to the memory brick before the reservation's circuit is there, which is seen to first.

use std::io::Read;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rackmem_types::PAGE_SIZE;
use serde::Deserialize;

use super::lab::Lab;
use crate::client::PageStore;
use crate::client::rackmem::MemoryServer;
use crate::course::figure::{Bar, Figure};
use crate::course::samples::Samples;
use crate::process::{Workload, call, on_cpu, own_program};
use crate::undo::{self, Undo};

const MS_MAX: f64 = 100.0;

/// Reservations in one round.
const TIMES: u64 = 20;

const TOTAL: &str = "first page/from reserve on ms";

/// One compute brick and one memory brick at a circuit switch.
const RACK: &str = r#"
rack = [{ name = "r1" }]
tray = [{ name = "t1", rack = "r1" }]
compute = [{ name = "c1", tray = "t1", cores = 1, local = "256MiB", ports = 1 }]
memory = [{ name = "m1", tray = "t1", size = "1GiB", ports = 1 }]
switch = [{ name = "s1", tray = "t1", kind = "circuit", ports = 4 }]
cable = [{ ends = ["c1:0", "s1:0"] }, { ends = ["m1:0", "s1:1"] }]
"#;

/// What the memory brick's client in the compute brick is told.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct PageArgs {
    /// The memory server.
    server: String,
    /// File with its token.
    token_file: std::path::PathBuf,
}

#[derive(Deserialize)]
struct Brick {
    address: String,
}

/// A rack that stands.
struct Rack<'a> {
    lab: &'a Lab,
    racks: String,
    name: String,
    /// Where the token of its programs is.
    token_file: std::path::PathBuf,
    _down: Undo,
    _directory: Undo,
}

impl<'a> Rack<'a> {
    fn up(lab: &'a Lab) -> Result<Self> {
        let (directory, undo) = undo::temporary_directory()?;
        let file = directory.join("rack.toml");
        std::fs::write(&file, RACK)?;
        let racks = directory.join("racks").to_string_lossy().into_owned();
        let name = format!("b{}", std::process::id());
        let token_file = directory.join("racks").join(&name).join("token");
        let mut down = rackmem(lab, &racks);
        down.args(["rack", "down", &name]);
        let down = undo::later("take the rack down", move || call(&mut down).map(drop));
        call(rackmem(lab, &racks).args(["rack", "up"]).arg(&file).args(["--name", &name]))?;
        Ok(Self { lab, racks, name, token_file, _down: down, _directory: undo })
    }

    fn command(&self) -> Command {
        rackmem(self.lab, &self.racks)
    }
}

fn rackmem(lab: &Lab, racks: &str) -> Command {
    let mut command = lab.product.command(None);
    command.env("RACKMEM_RACKS", racks).env_remove("RACKMEM_CONTROLLER");
    command
}

/// One round.
pub(crate) fn run(lab: &Lab, samples: &mut Samples) -> Result<()> {
    let rack = Rack::up(lab)?;
    let shown = call(rack.command().args(["brick", "show", "m1", "--json"]))?;
    let brick: Brick = serde_json::from_str(&shown).with_context(|| format!("a brick said '{shown}'"))?;
    let server = brick.address.split(',').next().unwrap_or_default().to_owned();
    for _ in 0..lab.scaled(TIMES) {
        let mut client = on_cpu(None, rack.command().get_program());
        client.env("RACKMEM_RACKS", &rack.racks).args(["rack", "exec", &rack.name, "c1", "--"]);
        client.arg(own_program()?).args(["page", &server]).arg(&rack.token_file);
        let mut client = Workload::spawn(&mut client)?;
        client.wait_ready()?;
        let start = Instant::now();
        call(rack.command().args(["reserve", "--compute", "c1", "--memory", "64MiB", "--class", "tray"]))?;
        samples.add("first page/rackmem reserve ms", ms(start));
        client.lead("now")?;
        let served: bool = client.report()?;
        ensure!(served, "the page was not served");
        samples.add(TOTAL, ms(start));
        let shown = call(rack.command().args(["reservation", "list", "--json"]))?;
        let list: Vec<serde_json::Value> = serde_json::from_str(&shown)?;
        for reservation in list {
            call(rack.command().args(["release", &reservation["id"].to_string()]))?;
        }
    }
    Ok(())
}

fn ms(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1000.0
}

/// A client in a compute brick: sees that there is no way to the server; when it is told to, stores a page there and reads it back.
pub(crate) fn serve_page(args: &PageArgs) -> Result<()> {
    let address: std::net::SocketAddr = args.server.parse()?;
    let before = std::net::TcpStream::connect_timeout(&address, Duration::from_millis(100));
    ensure!(before.is_err(), "there is a way to {address} without a circuit");
    println!("ready");
    let mut told = [0; 1];
    std::io::stdin().read_exact(&mut told)?;
    let token = std::fs::read_to_string(&args.token_file)?;
    let mut server = MemoryServer::connect(address, 1, Some(token.trim_end()))?;
    server.send_writes(&[0], &mut |_, page| page.fill(0x5a))?;
    server.take_writes(&[0])?;
    server.send_reads(&[0])?;
    let mut served = false;
    server.take_reads(&[0], &mut |_, page| {
        served = page == [0x5a; PAGE_SIZE];
        Ok(())
    })?;
    println!("{served}");
    Ok(())
}

/// The rows of this experiment.
pub(crate) fn figures(samples: &Samples) -> Vec<Figure> {
    let spread = samples.spread(TOTAL);
    let reserve = samples.median("first page/rackmem reserve ms").unwrap_or_default();
    let worst = spread.map(|spread| spread.max).unwrap_or_default();
    vec![Figure {
        name: "from `reserve` to the first page served".to_owned(),
        unit: "ms",
        measured: spread.map(|spread| spread.median),
        bar: Some((Bar::AtMost, MS_MAX)),
        detail: format!("{reserve:.0} ms of it in `rackmem reserve`; the longest {worst:.0} ms"),
    }]
}
