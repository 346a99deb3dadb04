//! `rackmem held`: the child of `run` between its birth and its exec. It waits on a pipe until the pager has seized
//! it, and then becomes the program. If the pipe closes first, it ends without a word: `run` says why.

use std::ffi::OsString;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use clap::Args;
use rackmem_uapi::inherited::take_descriptor;

use crate::out;
use crate::program::EXIT_NOT_EXECUTABLE;

/// Waits for a byte and becomes another program
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// Descriptor of the pipe to wait on
    #[arg(long)]
    pub(crate) fd: i32,
    /// File to execute
    #[arg(long)]
    pub(crate) file: PathBuf,
    /// Name of the program as the user gave it, and its arguments
    #[arg(last = true, required = true)]
    pub(crate) program: Vec<OsString>,
}

pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    let Ok(pipe) = take_descriptor(arguments.fd) else { return ExitCode::FAILURE };
    if File::from(pipe).read_exact(&mut [0]).is_err() {
        return ExitCode::FAILURE;
    }
    let (name, rest) =
        arguments.program.split_first().map_or_else(Default::default, |(name, rest)| (name.clone(), rest));
    let error = Command::new(&arguments.file).arg0(name).args(rest).exec();
    let why = match error.kind() {
        // The file itself was found before, so it is what its first line or its header names.
        ErrorKind::NotFound => {
            "the interpreter or loader that it asks for is missing; see its first line, or file(1)".to_owned()
        }
        _ => error.to_string(),
    };
    out::note(format_args!("rackmem: cannot run {}: {why}", arguments.file.display()));
    ExitCode::from(EXIT_NOT_EXECUTABLE)
}
