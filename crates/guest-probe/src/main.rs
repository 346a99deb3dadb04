//! The program inside a test guest: takes orders over the guest's serial line and does them with memory of its own. The guest's
//! first program starts it, with the number of the attempt as its argument.

mod guest;
mod line;
mod memory;
mod page;
mod refusal;
mod service;

use std::env;
use std::process::ExitCode;

use crate::line::Line;
use crate::refusal::Refusal;
use crate::service::Service;

fn main() -> ExitCode {
    let run = env::args().nth(1).and_then(|number| number.parse().ok()).unwrap_or(1);
    match serve(run) {
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
