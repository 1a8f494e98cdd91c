//! Certificates as an oVirt host has them: an authority, and a host certificate that serves both sides of a connection.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use anyhow::Context;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose,
};

use crate::args::MakeCertificates;

/// Makes what `wanted` says. An authority that is there already signs again, with the same key.
pub fn make(wanted: &MakeCertificates) -> anyhow::Result<()> {
    let authority = wanted.authority.clone().unwrap_or_else(|| wanted.directory.join("authority"));
    let (issuer, ca) = self::authority(&authority)?;
    let name = match &wanted.name {
        Some(name) => name.clone(),
        None => rustix::system::uname().nodename().to_string_lossy().into_owned(),
    };
    let mut names = vec![name.clone(), "localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    names.extend(wanted.also.iter().cloned());
    let mut params = CertificateParams::new(names).with_context(|| format!("the host's name {name:?}"))?;
    params.distinguished_name = distinguished(&name);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let key = KeyPair::generate().context("cannot make a key")?;
    let certificate = params.signed_by(&key, &issuer).context("cannot sign the host's certificate")?;
    let (certs, keys) = (wanted.directory.join("certs"), wanted.directory.join("keys"));
    for directory in [&certs, &keys] {
        fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    }
    fs::set_permissions(&keys, fs::Permissions::from_mode(0o750))
        .with_context(|| format!("cannot protect {}", keys.display()))?;
    write(&certs.join("cacert.pem"), &ca, 0o644)?;
    write(&certs.join("vdsmcert.pem"), &certificate.pem(), 0o644)?;
    write(&keys.join("vdsmkey.pem"), &key.serialize_pem(), 0o600)
}

fn distinguished(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::OrganizationName, "oVirt stand-in");
    distinguished.push(DnType::CommonName, name);
    distinguished
}

/// The authority in `directory` and its certificate.
fn authority(directory: &Path) -> anyhow::Result<(Issuer<'static, KeyPair>, String)> {
    let (certificate_file, key_file) = (directory.join("ca.pem"), directory.join("ca-key.pem"));
    let mut params = CertificateParams::default();
    params.distinguished_name = distinguished("authority of the sandbox");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    if key_file.exists() && certificate_file.exists() {
        let read =
            |path: &Path| fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()));
        let key = KeyPair::from_pem(&read(&key_file)?)
            .with_context(|| format!("{} is no key", key_file.display()))?;
        // The same name and the same key: what it signs now fits to the certificate of then.
        return Ok((Issuer::new(params, key), read(&certificate_file)?));
    }
    fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    let key = KeyPair::generate().context("cannot make the authority's key")?;
    let pem = params.self_signed(&key).context("cannot sign the authority's certificate")?.pem();
    write(&key_file, &key.serialize_pem(), 0o600)?;
    write(&certificate_file, &pem, 0o644)?;
    Ok((Issuer::new(params, key), pem))
}

/// Replaces a file: readers see the old text or the new one, and a key is never open to others, not even at first.
fn write(path: &Path, text: &str, mode: u32) -> anyhow::Result<()> {
    let new = path.with_extension("new");
    let written = || -> io::Result<()> {
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file: File = OpenOptions::new().write(true).create_new(true).mode(mode).open(&new)?;
        file.write_all(text.as_bytes())?;
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        fs::rename(&new, path)
    };
    written().with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_hosts_share_an_authority_and_keys_are_the_owners_alone() {
        let dir = tempfile::tempdir().unwrap();
        for host in ["host1", "host2"] {
            make(&MakeCertificates {
                directory: dir.path().join(host),
                authority: Some(dir.path().join("ca")),
                name: Some(format!("{host}.sandbox.test")),
                also: vec!["10.0.0.1".to_owned()],
            })
            .unwrap();
        }
        let read = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
        assert_eq!(read("host1/certs/cacert.pem"), read("host2/certs/cacert.pem"));
        assert_ne!(read("host1/certs/vdsmcert.pem"), read("host2/certs/vdsmcert.pem"));
        let mode = fs::metadata(dir.path().join("host1/keys/vdsmkey.pem")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
