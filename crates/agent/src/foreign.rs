//! VMs that somebody else started, as they are found: by process id, or by the name that libvirt or QEMU has for them.
//!
//! libvirt is asked first, where there is one. Other QEMUs say on their command lines, in `/proc`, what they are called and
//! where their monitors are.

use std::fs;
use std::path::PathBuf;

use rackmem_api::problem::ProblemType;
use rackmem_api::{Problem, VmName};
use rackmem_qemu::ProcessIdentity;
use rackmem_types::Bytes;

use crate::libvirt::{Domains, Found};
use crate::problem::invalid;

/// A VM of somebody else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Foreign {
    /// Its process.
    pub(crate) process: ProcessIdentity,
    /// libvirt's name for it, where libvirt started it.
    pub(crate) libvirt: Option<String>,
    /// A QMP socket that nobody else has to use.
    pub(crate) qmp: Option<PathBuf>,
    /// Memory it was started with; what is resident now, where it does not say.
    pub(crate) memory: Bytes,
    /// Virtual processors.
    pub(crate) vcpus: u32,
}

/// Finds the VM `domain`: a process id or a name.
pub(crate) async fn find(domain: &str, domains: &Domains) -> Result<Foreign, Problem> {
    if let Some(Found { name, process }) = domains.foreign(domain).await? {
        let found = read(process, &arguments(process.pid));
        return Ok(Foreign { libvirt: Some(name), qmp: None, ..found });
    }
    let domain = domain.to_owned();
    let found = tokio::task::spawn_blocking(move || match domain.parse() {
        Ok(pid) => by_pid(pid),
        Err(_) => by_name(&domain),
    });
    let found = found.await.map_err(|error| Problem::new(ProblemType::Internal, error.to_string()))??;
    if let Some(name) = &found.libvirt {
        domains.may_attach(name)?;
    }
    Ok(found)
}

impl Foreign {
    /// A name for the agent's list: the domain's own, as far as it can be one.
    pub(crate) fn name(&self, domain: &str) -> Result<VmName, Problem> {
        let text = match domain.parse::<u32>() {
            Ok(pid) => format!("pid-{pid}"),
            Err(_) => domain.to_ascii_lowercase(),
        };
        text.parse().map_err(|error| invalid(format!("{error}; or give it one with --name")))
    }
}

fn by_pid(pid: u32) -> Result<Foreign, Problem> {
    let Some(process) = ProcessIdentity::of(pid) else {
        return Err(Problem::new(
            ProblemType::NotFound,
            format!("there is no process {pid}: look for it with 'pgrep -a qemu'"),
        ));
    };
    Ok(read(process, &arguments(pid)))
}

fn by_name(name: &str) -> Result<Foreign, Problem> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let mut found = pids.filter(|pid| guest_name(&arguments(*pid)).as_deref() == Some(name));
    let (first, second) = (found.next(), found.next());
    match (first.and_then(ProcessIdentity::of), second) {
        (Some(process), None) => Ok(read(process, &arguments(process.pid))),
        (Some(process), Some(other)) => Err(invalid(format!(
            "processes {} and {other} both run a machine '{name}': give the process id instead",
            process.pid
        ))),
        (None, _) => Err(Problem::new(
            ProblemType::NotFound,
            format!(
                "no QEMU runs a machine '{name}': see 'virsh list', or give the process id of any program"
            ),
        )),
    }
}

fn read(process: ProcessIdentity, arguments: &[String]) -> Foreign {
    let is_libvirts = arguments.iter().any(|argument| argument.contains("/libvirt/qemu/"));
    let libvirt = guest_name(arguments).filter(|_| is_libvirts);
    let qmp = if is_libvirts { None } else { qmp_socket(arguments) };
    let memory = memory(arguments).unwrap_or_else(|| resident(process.pid));
    let vcpus = value(arguments, "-smp").and_then(|smp| number(&smp)).unwrap_or(1);
    Foreign { process, libvirt, qmp, memory, vcpus }
}

fn arguments(pid: u32) -> Vec<String> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    line.split(|byte| *byte == 0).map(|argument| String::from_utf8_lossy(argument).into_owned()).collect()
}

fn value(arguments: &[String], option: &str) -> Option<String> {
    let at = arguments.iter().position(|argument| argument == option)?;
    arguments.get(at + 1).cloned()
}

/// `web1` of `-name web1` or `-name guest=web1,debug-threads=on`, where the program is a QEMU.
fn guest_name(arguments: &[String]) -> Option<String> {
    let program = arguments.first()?.rsplit('/').next()?;
    if !program.contains("qemu") && !program.contains("kvm") {
        return None;
    }
    let name = value(arguments, "-name")?;
    let first = name.split(',').next()?;
    Some(first.strip_prefix("guest=").unwrap_or(first).to_owned())
}

/// The socket of `-qmp unix:PATH,server=on`.
fn qmp_socket(arguments: &[String]) -> Option<PathBuf> {
    let socket = value(arguments, "-qmp")?;
    let path = socket.strip_prefix("unix:")?.split(',').next()?;
    path.starts_with('/').then(|| PathBuf::from(path))
}

/// The size in `-m 512`, `-m 4G` or `-m size=524288k,slots=16`; a bare number counts mebibytes.
fn memory(arguments: &[String]) -> Option<Bytes> {
    let given = value(arguments, "-m")?;
    let first = given.split(',').find(|part| !part.contains('=') || part.starts_with("size="))?;
    let size = first.trim_start_matches("size=");
    match size.parse::<u64>() {
        Ok(mebibytes) => Some(Bytes(mebibytes << 20)),
        Err(_) => size.parse().ok(),
    }
}

fn number(text: &str) -> Option<u32> {
    let digits = text.trim_start_matches("cpus=");
    digits[..digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len())].parse().ok()
}

fn resident(pid: u32) -> Bytes {
    let statm = fs::read_to_string(format!("/proc/{pid}/statm")).unwrap_or_default();
    Bytes::from_pages(statm.split_whitespace().nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn a_command_line_tells_what_a_machine_is() {
        let direct =
            line("/usr/bin/qemu-system-x86_64 -name web1 -m 512 -smp 2 -qmp unix:/run/w.sock,server=on");
        assert_eq!(guest_name(&direct).as_deref(), Some("web1"));
        assert_eq!(memory(&direct), Some(Bytes(512 << 20)));
        assert_eq!(qmp_socket(&direct), Some(PathBuf::from("/run/w.sock")));
        assert_eq!(value(&direct, "-smp").and_then(|smp| number(&smp)), Some(2));
        let libvirts =
            line("/usr/bin/kvm -name guest=db,debug-threads=on -m size=524288k,slots=16 -smp 4,sockets=4");
        assert_eq!(guest_name(&libvirts).as_deref(), Some("db"));
        assert_eq!(memory(&libvirts), Some(Bytes(512 << 20)));
        assert_eq!(value(&libvirts, "-smp").and_then(|smp| number(&smp)), Some(4));
        assert_eq!(guest_name(&line("vim -name web1")), None);
    }

    #[test]
    fn who_is_not_there_is_said_to_be_not_there() {
        assert_eq!(by_pid(u32::MAX).unwrap_err().kind, ProblemType::NotFound);
        assert!(by_name("no-such-machine").unwrap_err().detail.contains("virsh list"));
        assert_eq!(by_pid(std::process::id()).unwrap().process.pid, std::process::id());
    }
}
