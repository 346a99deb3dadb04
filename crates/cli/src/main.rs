//! `rackmem`: the one binary. It reads the command line, calls the crate that does the work, and prints what came out
//! of it. It decides nothing about memory.

mod agent;
mod args;
mod attach;
mod away;
mod controller;
mod descriptors;
mod detach;
mod doctor;
mod facts;
mod held;
mod join;
mod lend;
mod limit;
mod logging;
mod manual;
mod memory_server;
mod options;
mod out;
mod pager;
mod pki;
mod pool;
mod process;
mod program;
mod progress;
mod ps;
mod rack;
mod rack_file;
mod rates;
mod run;
mod segment;
mod shared;
mod signals;
mod spawn;
mod style;
mod table;
mod tls;
mod token;
mod top;
mod vm;
mod watch;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let cli = args::Cli::parse();
    match cli.command.run() {
        Ok(code) => code,
        Err(error) => {
            style::print_error(&error);
            ExitCode::FAILURE
        }
    }
}
