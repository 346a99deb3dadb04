//! `rackmem pki init DIR`: an authority and the certificates that it signs for the parts of a rack.
//!
//! Done again, it keeps the authority and makes new keys and certificates, so that parts that have theirs already and parts that
//! get new ones understand each other. The hosts of all times are kept in the file `hosts`, so that a renewal forgets none. The
//! authority's key never leaves the directory.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::{Context, ensure};
use clap::{Args, Subcommand};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use rustls::pki_types::ServerName;

use crate::out;

/// Who gets a certificate. Its first name says which part of the rack somebody is.
const PARTS: [&str; 4] = ["controller", "agent", "memory-server", "client"];

/// Where every part may be besides what is asked for.
const HOSTS: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// The file with what was asked for besides, a host on each line.
const KNOWN_HOSTS: &str = "hosts";

/// How long a certificate is good: long enough to be renewed once a season, with a season to spare.
const PART_LIFE: Duration = Duration::from_secs(180 * 24 * 3600);

/// How long the authority is good.
const AUTHORITY_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// Clocks of other machines may be so much behind.
const CLOCK_SKEW: Duration = Duration::from_secs(24 * 3600);

/// Certificates for TLS between the parts of a rack
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make an authority and certificates; done again, renew the certificates with the same authority
    Init {
        /// Where to keep them
        directory: PathBuf,
        /// A host name or address at which servers are reached; repeat it for all of them. Those of earlier times are kept
        #[arg(long = "host", value_name = "HOST")]
        hosts: Vec<String>,
    },
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let Command::Init { directory, hosts } = &arguments.command;
    let made = init(directory, hosts, SystemTime::now())?;
    let hosts = known_hosts(directory)?;
    let did = if made { "made an authority and" } else { "kept the authority and renewed" };
    let places = HOSTS.into_iter().chain(hosts.iter().map(String::as_str)).collect::<Vec<_>>().join(", ");
    let (parts, directory) = (PARTS.join(", "), directory.display());
    out::line(format_args!("{did} certificates for {parts} in {directory}, at {places}"))?;
    Ok(ExitCode::SUCCESS)
}

/// Whether it made the authority; else that was there.
fn init(directory: &Path, hosts: &[String], now: SystemTime) -> anyhow::Result<bool> {
    for host in hosts {
        ensure!(
            ServerName::try_from(host.as_str()).is_ok(),
            "'{host}' is neither a host name nor an address: give --host as others write it to reach a part"
        );
    }
    let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
    made.with_context(|| format!("cannot make the directory {}", directory.display()))?;
    let (key_file, certificate_file) = (directory.join("ca.key"), directory.join("ca.pem"));
    let authority = authority(now)?;
    let (has_key, has_certificate) = (key_file.exists(), certificate_file.exists());
    ensure!(
        has_key == has_certificate,
        "{} has only one of ca.pem and ca.key; put the other back, or remove both for a new authority",
        directory.display()
    );
    let is_new = !has_key;
    let key = if is_new {
        let key = KeyPair::generate().context("cannot make a key")?;
        let certificate = authority.self_signed(&key).context("cannot make the authority's certificate")?;
        write(&key_file, &key.serialize_pem(), 0o600)?;
        write(&certificate_file, &certificate.pem(), 0o644)?;
        key
    } else {
        let shown = key_file.display();
        let pem = fs::read_to_string(&key_file).with_context(|| format!("cannot read {shown}"))?;
        KeyPair::from_pem(&pem).with_context(|| format!("{shown} is not the key of an authority"))?
    };
    let mut all = known_hosts(directory)?;
    all.extend(hosts.iter().cloned());
    let lines: String = all.iter().map(|host| format!("{host}\n")).collect();
    write(&directory.join(KNOWN_HOSTS), &lines, 0o644)?;
    let issuer = Issuer::new(authority, key);
    for part in PARTS {
        let names = [part].into_iter().chain(HOSTS).chain(all.iter().map(String::as_str));
        let mut params = CertificateParams::new(names.map(str::to_owned).collect::<Vec<_>>())
            .context("a host is neither a name nor an address")?;
        named(&mut params, &format!("rackmem {part}"));
        valid(&mut params, now, PART_LIFE);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        // Every part both asks and is asked.
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().context("cannot make a key")?;
        let certificate = params.signed_by(&key, &issuer).context("cannot sign a certificate")?;
        write(&directory.join(format!("{part}.key")), &key.serialize_pem(), 0o600)?;
        write(&directory.join(format!("{part}.pem")), &certificate.pem(), 0o644)?;
    }
    Ok(is_new)
}

/// The hosts that certificates were made for so far.
fn known_hosts(directory: &Path) -> anyhow::Result<BTreeSet<String>> {
    let path = directory.join(KNOWN_HOSTS);
    match fs::read_to_string(&path) {
        Ok(text) => Ok(text.lines().filter(|host| !host.is_empty()).map(str::to_owned).collect()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeSet::new()),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

fn authority(now: SystemTime) -> anyhow::Result<CertificateParams> {
    let mut params = CertificateParams::new(Vec::new()).context("cannot describe the authority")?;
    named(&mut params, "rackmem authority");
    valid(&mut params, now, AUTHORITY_LIFE);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

fn named(params: &mut CertificateParams, name: &str) {
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
}

fn valid(params: &mut CertificateParams, now: SystemTime, life: Duration) {
    let since_epoch = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let now = date_time_ymd(1970, 1, 1) + since_epoch;
    params.not_before = now - CLOCK_SKEW;
    params.not_after = now + life;
}

/// Writes a file, whole or not at all.
fn write(path: &Path, content: &str, mode: u32) -> anyhow::Result<()> {
    let half = path.with_extension("new");
    let written = match fs::remove_file(&half) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        // A file that was there might be readable by others; a new one never is.
        _ => OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&half)
            .and_then(|mut file| file.write_all(content.as_bytes()).and_then(|()| file.sync_all()))
            .and_then(|()| fs::rename(&half, path)),
    };
    written.with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn keys_are_their_owners_and_renewing_keeps_the_authority() {
        let directory = tempfile::tempdir().unwrap();
        let read = |file: &str| fs::read_to_string(directory.path().join(file)).unwrap();
        assert!(init(directory.path(), &[], SystemTime::now()).unwrap());
        let before = (read("ca.pem"), read("ca.key"), read("agent.pem"), read("agent.key"));
        for part in PARTS.iter().chain(&["ca"]) {
            let file = directory.path().join(format!("{part}.key"));
            assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600, "{part}");
        }
        assert!(!init(directory.path(), &["10.1.2.3".to_owned()], SystemTime::now()).unwrap());
        assert_eq!((&read("ca.pem"), &read("ca.key")), (&before.0, &before.1));
        assert!(read("agent.pem") != before.2 && read("agent.key") != before.3);
        assert!(!init(directory.path(), &["m1.rack".to_owned()], SystemTime::now()).unwrap());
        assert_eq!(read("hosts"), "10.1.2.3\nm1.rack\n", "none is forgotten");
    }

    #[test]
    fn what_is_no_host_or_no_key_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        for host in ["ü", "bad host!", ""] {
            assert!(init(directory.path(), &[host.to_owned()], SystemTime::now()).is_err(), "{host}");
        }
        assert!(fs::read_dir(directory.path()).unwrap().next().is_none(), "nothing was written");
        init(directory.path(), &[], SystemTime::now()).unwrap();
        fs::write(directory.path().join("ca.key"), "nonsense").unwrap();
        let refusal = || init(directory.path(), &[], SystemTime::now()).unwrap_err().to_string();
        assert!(refusal().contains("ca.key is not the key"), "{}", refusal());
        fs::remove_file(directory.path().join("ca.key")).unwrap();
        assert!(refusal().contains("only one of"), "{}", refusal());
    }
}
