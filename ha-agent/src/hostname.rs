//! The name by which this host introduces itself to the others.
//!
//! Where VDSM runs the VMs it is the common name of VDSM's certificate, by which the engine and the other hosts reach
//! this one; elsewhere, or when there is no such name, the system's own. Reads one file.

use std::fs;
use std::path::{Path, PathBuf};

use ha_config::Paths;
use ha_config::ha_toml::Hypervisor;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::{self, PemObject};
use x509_cert::Certificate;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::der::{self, Decode};

/// `id-at-commonName` of RFC 5280.
const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");

/// The name and where it comes from.
#[derive(Debug)]
pub struct HostName {
    /// The name.
    pub name: String,
    /// Why it is the system's although VDSM's certificate should give it; `None` when nothing is to be told.
    pub trouble: Option<NameError>,
}

/// Why the certificate gives no name.
#[derive(Debug, thiserror::Error)]
pub enum NameError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The certificate.
        path: PathBuf,
        /// The system's words.
        source: std::io::Error,
    },
    /// It is no certificate in PEM form.
    #[error("{}: this is no certificate in PEM form: {source}", path.display())]
    Pem {
        /// The certificate.
        path: PathBuf,
        /// What is wrong.
        source: pem::Error,
    },
    /// The certificate itself cannot be read.
    #[error("{}: the certificate is damaged: {source}", path.display())]
    Der {
        /// The certificate.
        path: PathBuf,
        /// What is wrong.
        source: der::Error,
    },
    /// Its subject has no common name that is a host's.
    #[error(
        "{}: the certificate's subject has no common name of letters, digits, \".\", \"-\" and \"_\"",
        .0.display()
    )]
    NoName(PathBuf),
}

/// The name of the host with these paths.
pub fn of_host(paths: &Paths, hypervisor: Hypervisor) -> HostName {
    let system = || rustix::system::uname().nodename().to_string_lossy().into_owned();
    match hypervisor {
        Hypervisor::Qemu | Hypervisor::Libvirt => HostName { name: system(), trouble: None },
        Hypervisor::Vdsm => match common_name(&paths.vdsm_cert()) {
            Ok(name) => HostName { name, trouble: None },
            Err(error) => HostName { name: system(), trouble: Some(error) },
        },
    }
}

/// The common name in the subject of the first certificate of a PEM file; text around it is passed over.
fn common_name(path: &Path) -> Result<String, NameError> {
    let text = fs::read(path).map_err(|source| NameError::Read { path: path.to_owned(), source })?;
    let encoded = CertificateDer::from_pem_slice(&text)
        .map_err(|source| NameError::Pem { path: path.to_owned(), source })?;
    let certificate =
        Certificate::from_der(&encoded).map_err(|source| NameError::Der { path: path.to_owned(), source })?;
    let names = certificate.tbs_certificate().subject().iter();
    names
        .filter(|attribute| attribute.oid == COMMON_NAME)
        .filter_map(|attribute| std::str::from_utf8(attribute.value.value()).ok())
        .find(|name| is_host_name(name))
        .map(ToOwned::to_owned)
        .ok_or_else(|| NameError::NoName(path.to_owned()))
}

fn is_host_name(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(name: &str) -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/certificates").join(name)
    }

    #[test]
    fn the_certificates_common_name_is_read() {
        assert_eq!(common_name(&certificate("named.pem")).unwrap(), "host-2.example.com");
    }

    #[test]
    fn a_certificate_without_a_usable_name_is_told() {
        for name in ["odd_name.pem", "no_name.pem"] {
            let error = common_name(&certificate(name)).unwrap_err();
            assert!(matches!(error, NameError::NoName(_)) && error.to_string().contains(name), "{error}");
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cert.pem");
        fs::write(&path, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
        assert!(matches!(common_name(&path), Err(NameError::Der { .. })));
        fs::write(&path, "no certificate").unwrap();
        assert!(matches!(common_name(&path), Err(NameError::Pem { .. })));
    }

    #[test]
    fn only_vdsms_hosts_take_their_name_from_it() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::new(dir.path());
        let system = of_host(&paths, Hypervisor::Qemu);
        assert!(system.trouble.is_none());
        let fallback = of_host(&paths, Hypervisor::Vdsm);
        assert_eq!(fallback.name, system.name);
        assert!(fallback.trouble.unwrap().to_string().contains("vdsmcert.pem"));
        fs::create_dir_all(paths.vdsm_cert().parent().unwrap()).unwrap();
        fs::copy(certificate("named.pem"), paths.vdsm_cert()).unwrap();
        let named = of_host(&paths, Hypervisor::Vdsm);
        assert_eq!((named.name.as_str(), named.trouble.is_none()), ("host-2.example.com", true));
    }
}
