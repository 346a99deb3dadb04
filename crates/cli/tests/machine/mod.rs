//! A memory server on a Unix socket and a runtime directory of its own, for tests with real targets.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

pub(crate) struct Machine {
    pub(crate) directory: tempfile::TempDir,
    server: Child,
}

impl Machine {
    /// Fails, loudly, on a machine or for a user that cannot have far memory.
    pub(crate) fn start() -> Self {
        let doctor = Command::new(env!("CARGO_BIN_EXE_rackmem")).arg("doctor").output().unwrap();
        assert!(
            doctor.status.success(),
            "this test needs root, or a machine that is ready for far memory:\n{}",
            String::from_utf8_lossy(&doctor.stdout)
        );
        let directory = tempfile::tempdir().unwrap();
        let listen = format!("unix:{}", directory.path().join("memory.sock").display());
        let mut server = Command::new(env!("CARGO_BIN_EXE_rackmem"))
            .args(["memory-server", "--size", "64MiB", "--listen", &listen])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(server.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.starts_with("memory server"), "{line}");
        Self { directory, server }
    }

    /// `rackmem`, with this machine's memory server and directory.
    pub(crate) fn rackmem(&self, arguments: &[&str]) -> Command {
        let server = format!("unix:{}", self.directory.path().join("memory.sock").display());
        let mut command = Command::new(env!("CARGO_BIN_EXE_rackmem"));
        command.args(arguments).env("RACKMEM_MEMORY_SERVER", server);
        command.env("RACKMEM_RUNTIME_DIR", self.directory.path().join("run"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}
