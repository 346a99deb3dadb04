//! The program inside a test guest: takes orders over the guest's serial line and does them with memory of its own. The guest's
//! first program starts it as `guest-probe serve RUN`, with the number of the attempt. From outside, `guest-probe ask SOCKET ORDER`
//! gives an order to the probe in the guest whose line ends at `SOCKET`, and prints the answer.

mod guest;
mod line;
mod memory;
mod page;
mod refusal;
mod service;
mod shell;

use std::env;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use guest_probe::{Order, ProbeClient};

use crate::line::Line;
use crate::refusal::Refusal;
use crate::service::Service;

const USAGE: &str = "usage: guest-probe serve RUN | guest-probe ask SOCKET ORDER";

/// How long a guest may take to boot before `ask` gives up.
const BOOT_PATIENCE: Duration = Duration::from_secs(120);

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["serve", run] => run.parse().map_err(|_| Refusal::Usage(USAGE)).and_then(serve),
        ["ask", socket, order @ ..] => ask(Path::new(socket), &order.join(" ")),
        _ => Err(Refusal::Usage(USAGE)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(refusal) => {
            eprintln!("guest-probe: {refusal}");
            ExitCode::FAILURE
        }
    }
}

fn serve(run: u32) -> Result<(), Refusal> {
    let line = Line::open()?;
    let ready = guest::ready(run)?;
    println!("guest-probe: ready on {} after {} ms", line.path().display(), ready.uptime_ms);
    Service::new(run).serve(line, ready)
}

fn ask(socket: &Path, order: &str) -> Result<(), Refusal> {
    let order: Order = order.parse()?;
    let answer = ProbeClient::connect(socket, BOOT_PATIENCE)?.ask(&order)?;
    println!("{}", serde_json::to_string(&answer).map_err(|error| Refusal::Line(error.into()))?);
    Ok(())
}
