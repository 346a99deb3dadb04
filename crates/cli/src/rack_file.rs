//! Rack files, as the command line reads them: a mistake is told with the file, its line and its column.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, bail};

/// Largest rack file: with 10,000 bricks and all their cables one has 10 MiB. More is something else, or has no end.
const RACK_FILE_BYTES_MAX: u64 = 64 << 20;

/// The text of a rack file.
pub(crate) fn read(path: &Path) -> anyhow::Result<String> {
    let shown = path.display();
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(RACK_FILE_BYTES_MAX + 1).read_to_end(&mut bytes))
        .with_context(|| format!("cannot read the rack file {shown}"))?;
    if bytes.len() as u64 > RACK_FILE_BYTES_MAX {
        bail!(
            "{shown} has more than 64 MiB: a rack file names racks, trays, bricks, switches and cables in TOML"
        );
    }
    let text = rackmem_rack::file::text(&bytes).with_context(|| format!("{shown} is not a rack file"))?;
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(path: &Path) -> String {
        format!("{:#}", read(path).unwrap_err())
    }

    #[test]
    fn what_is_no_rack_file_is_told_with_its_place() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("rack.toml");
        std::fs::write(&file, b"[[rack]]\nname = \"r\xe4ck\"\n").unwrap();
        assert!(told(&file).contains("line 2, column 10: byte 0xe4"), "{}", told(&file));
        std::fs::write(&file, "[[rack]]\n").unwrap();
        assert_eq!(read(&file).unwrap(), "[[rack]]\n");
        assert!(told(directory.path()).contains("cannot read the rack file"));
    }

    #[test]
    fn a_file_without_an_end_is_not_read_to_the_end() {
        assert!(told(Path::new("/dev/zero")).contains("more than 64 MiB"));
    }
}
