//! The programs `ip` and `tc`, fed with many commands at once. A failure is told in their words.
//!
//! They end with the process that feeds them: what it was killed in the middle of is not done behind the back of whoever cleans
//! up after it. `setpriv` arranges that and becomes the program. Killed before it got so far, it leaves them with the lines that they
//! were given: who has to be sure lets them inherit a lock.

use std::io::{self, Write};
use std::process::{Command, Stdio};

use crate::SwitchError;

/// Lines of a batch that an error shows: the mistake is among the first, or the program's words name the line.
const SHOWN_LINES: usize = 3;

/// What `setpriv` ends with when there is no such program.
const NOT_FOUND: i32 = 127;

/// Runs `program` (`ip` or `tc`) once for all of `lines`, inside `namespace` if one is given, and gives what it prints. It stops
/// at the first line that fails; those before it have been done.
pub fn batch(
    program: &'static str,
    namespace: Option<&str>,
    lines: &[String],
) -> Result<Vec<u8>, SwitchError> {
    if lines.is_empty() {
        return Ok(Vec::new());
    }
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", program]);
    if let Some(namespace) = namespace {
        command.args(["-n", namespace]);
    }
    command.args(["-json", "-details", "-batch", "-"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let unusable = |program| move |reason| SwitchError::NoProgram { program, reason };
    let mut child = command.spawn().map_err(unusable("setpriv"))?;
    let mut input = lines.join("\n");
    input.push('\n');
    let stdin = child.stdin.take();
    // It reads the lines while its answers are read here: neither has to wait for the other's full pipe.
    let writer = std::thread::spawn(move || {
        // One that stops reading has failed, which its exit code says.
        stdin.map(|mut stdin| stdin.write_all(input.as_bytes()))
    });
    let output = child.wait_with_output().map_err(unusable(program))?;
    // A writer cannot panic; its error is a broken pipe.
    let _ = writer.join();
    if output.status.success() {
        return Ok(output.stdout);
    }
    if output.status.code() == Some(NOT_FOUND) {
        return Err(unusable(program)(io::ErrorKind::NotFound.into()));
    }
    let of = namespace.map(|namespace| format!(" -n {namespace}")).unwrap_or_default();
    let mut shown = lines.iter().take(SHOWN_LINES).map(String::as_str).collect::<Vec<_>>().join("; ");
    if lines.len() > SHOWN_LINES {
        shown.push_str("; …");
    }
    let words = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ");
    Err(SwitchError::Program { command: format!("{program}{of} {shown}"), words })
}
