//! VDSM's certificates, by which the engine, this program and the other hosts speak to it.

use std::path::Path;
use std::time::Duration;

use clock::{Clock as _, SystemClock};
use ha_config::ha_toml::Hypervisor;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use x509_cert::Certificate;
use x509_cert::der::Decode as _;

use super::{Finding, Host};

/// From then on the operator is warned.
const SOON: i64 = 30;
const RENEW: &str = "renew it: in the engine by enrolling the host's certificate again, on a new host by vdsm-tool configure --force";

pub(super) fn check(host: &Host<'_>) -> Vec<Finding> {
    let of_vdsm = host.hypervisor() == Hypervisor::Vdsm;
    let is_there = host.paths.vdsm_cert().exists();
    if !of_vdsm && !is_there {
        return Vec::new();
    }
    let now = SystemClock.wall().0;
    let paths = [host.paths.vdsm_cert(), host.paths.vdsm_ca()];
    let mut found: Vec<Finding> = paths.iter().filter_map(|path| judge(path, end_of(path), now)).collect();
    if !host.paths.vdsm_key().exists() {
        let what = format!("there is no {}", host.paths.vdsm_key().display());
        found.push(Finding::blocker(what, RENEW));
    }
    if !of_vdsm {
        // Another hypervisor runs the VM: VDSM's certificates serve its migrations at most.
        for finding in &mut found {
            finding.severity = finding.severity.max(super::Severity::Warning);
        }
    }
    found
}

/// When the first certificate of a PEM file ends, in seconds since 1970.
fn end_of(path: &Path) -> Result<i64, String> {
    let text = std::fs::read(path).map_err(|error| error.to_string())?;
    let encoded = CertificateDer::from_pem_slice(&text).map_err(|error| error.to_string())?;
    let certificate = Certificate::from_der(&encoded).map_err(|error| error.to_string())?;
    let end: Duration = certificate.tbs_certificate().validity().not_after.to_unix_duration();
    i64::try_from(end.as_secs()).map_err(|error| error.to_string())
}

fn judge(path: &Path, end: Result<i64, String>, now: i64) -> Option<Finding> {
    let name = path.display();
    match end.map(|end| (end - now).div_euclid(24 * 60 * 60)) {
        Err(why) => Some(Finding::blocker(format!("{name} cannot be used ({why})"), RENEW)),
        Ok(days) if days < 0 => Some(Finding::blocker(format!("{name} ended {} days ago", -days), RENEW)),
        Ok(days) if days < SOON => Some(Finding::warning(format!("{name} ends in {days} days"), RENEW)),
        Ok(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deploy::preflight::Severity;

    #[test]
    fn a_certificates_end_is_read_and_judged() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ha-agent/tests/certificates/named.pem");
        let end = end_of(&path).unwrap();
        assert_eq!(judge(&path, Ok(end), end - 40 * 86_400), None);
        let soon = judge(&path, Ok(end), end - 29 * 86_400).unwrap();
        assert!(soon.severity == Severity::Warning && soon.what.ends_with("ends in 29 days"), "{soon:?}");
        let over = judge(&path, Ok(end), end + 1).unwrap();
        assert!(over.severity == Severity::Blocker && over.what.ends_with("ended 1 days ago"), "{over:?}");
        let missing = Path::new("/no/such.pem");
        assert!(judge(missing, end_of(missing), 0).unwrap().what.contains("No such file"));
    }
}
