//! The kernel modules that a guest loads, with what they depend on, in an order in which each finds what it needs.
//! The package has no `modules.dep` (depmod makes it when a kernel is installed), but each module names its needs itself.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// A module to load.
#[derive(Debug)]
pub(super) struct Module {
    pub(super) name: String,
    pub(super) content: Vec<u8>,
}

/// `wanted` and what they depend on, from the kernel's files below `files`. What a kernel has built in has no file and is
/// left out; what the guest cannot do without is missed when it boots.
pub(super) fn closure(files: &Path, wanted: &[&str]) -> Result<Vec<Module>> {
    let mut paths = BTreeMap::new();
    collect(files, &mut paths)?;
    let mut loaded = Vec::new();
    for name in wanted {
        visit(name, &paths, &mut Vec::new(), &mut loaded)?;
    }
    Ok(loaded)
}

fn visit(
    name: &str,
    paths: &BTreeMap<String, PathBuf>,
    above: &mut Vec<String>,
    loaded: &mut Vec<Module>,
) -> Result<()> {
    if loaded.iter().any(|module| module.name == name) {
        return Ok(());
    }
    if above.iter().any(|other| other == name) {
        bail!("the kernel modules {} depend on each other in a circle", above.join(", "));
    }
    let Some(path) = paths.get(name) else { return Ok(()) };
    let content = read(path).with_context(|| format!("could not read {}", path.display()))?;
    above.push(name.to_owned());
    for needed in dependencies(&content) {
        visit(&needed, paths, above, loaded)?;
    }
    above.pop();
    loaded.push(Module { name: name.to_owned(), content });
    Ok(())
}

fn collect(directory: &Path, paths: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    let entries = fs::read_dir(directory)
        .with_context(|| format!("the kernel package has no {}", directory.display()))?;
    for entry in entries {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            collect(&path, paths)?;
        } else if let Some(name) = module_name(&entry.file_name().to_string_lossy()) {
            paths.insert(name, path);
        }
    }
    Ok(())
}

/// The kernel's name for the module in file `file`: `virtio-rng.ko` holds `virtio_rng`.
fn module_name(file: &str) -> Option<String> {
    let stem = file.strip_suffix(".xz").unwrap_or(file).strip_suffix(".ko")?;
    Some(stem.replace('-', "_"))
}

/// From Debian 13 on modules are compressed.
fn read(path: &Path) -> Result<Vec<u8>> {
    if path.extension().is_none_or(|extension| extension != "xz") {
        return Ok(fs::read(path)?);
    }
    let output = Command::new("xz").args(["--decompress", "--stdout"]).arg(path).output()?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(output.stdout)
}

/// What a module says it depends on: the string `depends=a,b` in its section `.modinfo`, whose strings end with zeros.
fn dependencies(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = module.windows(KEY.len()).position(|window| window == KEY) else { return Vec::new() };
    let text = &module[at + KEY.len()..];
    let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
    let names = String::from_utf8_lossy(text).into_owned();
    names.split(',').filter(|name| !name.is_empty()).map(|name| name.replace('-', "_")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(directory: &Path, name: &str, depends: &str) {
        fs::write(directory.join(name), format!("ELF\0license=GPL\0depends={depends}\0retpoline=Y\0"))
            .unwrap();
    }

    #[test]
    fn needs_come_before_who_needs_them() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("net")).unwrap();
        write(directory.path(), "virtio.ko", "");
        write(directory.path(), "virtio_ring.ko", "virtio");
        write(&directory.path().join("net"), "vsock-transport.ko", "virtio,virtio_ring");
        write(directory.path(), "unwanted.ko", "");
        let modules = closure(directory.path(), &["vsock_transport", "virtio", "built_in"]).unwrap();
        let names: Vec<&str> = modules.iter().map(|module| module.name.as_str()).collect();
        assert_eq!(names, ["virtio", "virtio_ring", "vsock_transport"]);
    }

    #[test]
    fn compressed_modules_are_read() {
        let directory = tempfile::tempdir().unwrap();
        write(directory.path(), "far.ko", "near");
        write(directory.path(), "near.ko", "");
        let xz = Command::new("xz").arg(directory.path().join("far.ko")).status().unwrap();
        assert!(xz.success());
        let modules = closure(directory.path(), &["far"]).unwrap();
        let names: Vec<&str> = modules.iter().map(|module| module.name.as_str()).collect();
        assert_eq!(names, ["near", "far"]);
        assert!(modules[1].content.starts_with(b"ELF"));
    }

    #[test]
    fn a_circle_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        write(directory.path(), "a.ko", "b");
        write(directory.path(), "b.ko", "a");
        let error = closure(directory.path(), &["a"]).unwrap_err().to_string();
        assert!(error.contains("circle"), "{error}");
    }
}
