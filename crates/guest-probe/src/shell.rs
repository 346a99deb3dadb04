//! Commands for the guest's shell.

use std::process::{Command, Stdio};

use guest_probe::Ran;

use crate::refusal::Refusal;

/// What is kept of each output, so that the reply stays a line that can be read.
const OUTPUT_BYTES_MAX: usize = 64 << 10;

/// Runs `command` to its end.
pub(crate) fn run(command: &str) -> Result<Ran, Refusal> {
    const SHELL: &str = "sh";
    let output = Command::new(SHELL)
        .args(["-c", command])
        .stdin(Stdio::null())
        .output()
        .map_err(|source| Refusal::Program { program: SHELL, source })?;
    Ok(Ran { status: output.status.code(), output: end(&output.stdout), errors: end(&output.stderr) })
}

fn end(output: &[u8]) -> String {
    let start = output.len().saturating_sub(OUTPUT_BYTES_MAX);
    String::from_utf8_lossy(&output[start..]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_status_and_both_outputs() {
        let ran = run("echo far; echo near >&2; exit 3").unwrap();
        assert_eq!(ran, Ran { status: Some(3), output: "far\n".to_owned(), errors: "near\n".to_owned() });
        assert_eq!(run("kill -9 $$").unwrap().status, None);
    }

    #[test]
    fn keeps_the_end_of_a_long_output() {
        let ran = run("seq 1 100000").unwrap();
        assert_eq!(ran.output.len(), OUTPUT_BYTES_MAX);
        assert!(ran.output.ends_with("100000\n"));
    }
}
