//! Reads the file with the pre-shared token of a network's memory servers.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, ensure};

/// Longest token file: a token is a line of random characters; a larger file is some other file.
const TOKEN_BYTES_MAX: u64 = 4096;

/// The token in `file`: its content without the line end that editors leave.
pub(crate) fn read(file: &Path) -> anyhow::Result<Vec<u8>> {
    let shown = file.display();
    let mut token = Vec::new();
    File::open(file)
        .and_then(|opened| opened.take(TOKEN_BYTES_MAX + 1).read_to_end(&mut token))
        .with_context(|| format!("cannot read the token file {shown}"))?;
    ensure!(
        token.len() as u64 <= TOKEN_BYTES_MAX,
        "{shown} is longer than {TOKEN_BYTES_MAX} bytes, so it is no token file; make one with: openssl rand -hex 32"
    );
    token.truncate(token.trim_ascii_end().len());
    ensure!(
        !token.is_empty(),
        "the token file {shown} is empty; fill it with: openssl rand -hex 32 > {shown}"
    );
    Ok(token)
}

/// The same as text, where there is a file: what goes into an HTTP header.
pub(crate) fn text(file: Option<&Path>) -> anyhow::Result<Option<String>> {
    let token = file.map(read).transpose()?;
    Ok(token.map(|token| String::from_utf8_lossy(&token).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_what_stands_in_the_line() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("token");
        let check = |content: &[u8]| {
            std::fs::write(&file, content).unwrap();
            read(&file).map_err(|error| error.to_string())
        };
        assert_eq!(check(b"0123456789abcdef\n"), Ok(b"0123456789abcdef".to_vec()));
        assert_eq!(check(b" a b\r\n"), Ok(b" a b".to_vec()));
        assert!(check(b"\n").unwrap_err().contains("is empty"));
        assert!(check(&[b'x'; 5000]).unwrap_err().contains("no token file"));
        assert!(read(Path::new("/no/such/file")).unwrap_err().to_string().contains("/no/such/file"));
    }
}
