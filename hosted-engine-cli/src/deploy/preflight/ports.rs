//! TCP ports that the cluster uses on this host: free, or used by whom they are meant for.

use std::collections::BTreeSet;

use ha_config::ha_toml::Hypervisor;

use super::{Finding, Host};
use crate::deploy::Call;
use crate::deploy::firewall::{self, CONSOLES, LIBVIRT_TLS, MIGRATION, Ports, VDSM};

pub(super) fn check(host: &Host<'_>) -> Vec<Finding> {
    let Some(text) = host.hear(&Call::new("ss").args(["-H", "-l", "-t", "-n", "-p"])) else {
        return Vec::new();
    };
    let wanted: Vec<Ports> =
        firewall::wanted(host.paths, host.request).into_iter().map(|(ports, _)| ports).collect();
    judge(&listeners(&text), &wanted, host.hypervisor())
}

/// Port and program of each listener.
fn listeners(text: &str) -> BTreeSet<(u16, String)> {
    let line = |line: &str| -> Option<(u16, String)> {
        let local = line.split_whitespace().nth(3)?;
        let program =
            line.split_once("((\"").and_then(|(_, rest)| rest.split('"').next()).unwrap_or("another program");
        Some((local.rsplit_once(':')?.1.parse().ok()?, program.to_owned()))
    };
    text.lines().filter_map(line).collect()
}

fn judge(listeners: &BTreeSet<(u16, String)>, wanted: &[Ports], hypervisor: Hypervisor) -> Vec<Finding> {
    let mut found = Vec::new();
    for ports in wanted {
        let used: Vec<_> =
            listeners.iter().filter(|(port, _)| (ports.first..=ports.last).contains(port)).collect();
        let Some((port, program)) = used.first() else { continue };
        // Those that take one port each find the next free one.
        if *ports == CONSOLES {
            continue;
        }
        let is_ours = match *ports {
            VDSM => program.contains("vdsm") || program.contains("python"),
            LIBVIRT_TLS => {
                program.contains("libvirt") || program.contains("virtproxyd") || program == "systemd"
            }
            _ => program.contains("qemu"),
        };
        if is_ours {
            continue;
        }
        let what = format!("{program} listens at TCP port {port}");
        found.push(match (*ports, hypervisor) {
            (VDSM, Hypervisor::Vdsm) => {
                Finding::blocker(what, "VDSM needs it: have that program listen elsewhere")
            }
            (VDSM, _) => continue,
            (MIGRATION, _) => Finding::note(what, "live migration takes another port of its range"),
            _ => {
                Finding::warning(what, "libvirt or a migration needs it: have that program listen elsewhere")
            }
        });
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deploy::preflight::Severity;

    /// As `ss -H -l -t -n -p` of iproute2 6.1 says it.
    const SS: &str = "LISTEN 0      128          0.0.0.0:22        0.0.0.0:*    users:((\"sshd\",pid=700,fd=3))\n\
                      LISTEN 0      4096               *:54321           *:*    users:((\"nginx\",pid=9,fd=6))\n\
                      LISTEN 0      4096            [::]:16514        [::]:*    users:((\"libvirtd\",pid=8,fd=6))\n\
                      LISTEN 0      1          127.0.0.1:49153     0.0.0.0:*\n";

    #[test]
    fn a_port_that_somebody_else_has_is_named_with_him() {
        let listeners = listeners(SS);
        assert_eq!(listeners.len(), 4);
        let wanted = [CONSOLES, LIBVIRT_TLS, MIGRATION, VDSM];
        let found = judge(&listeners, &wanted, Hypervisor::Vdsm);
        assert_eq!(found.len(), 2, "{found:?}");
        assert_eq!(
            (found[0].severity, found[0].what.as_str()),
            (Severity::Note, "another program listens at TCP port 49153")
        );
        assert_eq!(
            (found[1].severity, found[1].what.as_str()),
            (Severity::Blocker, "nginx listens at TCP port 54321")
        );
        assert_eq!(judge(&listeners, &[CONSOLES], Hypervisor::Qemu), []);
    }
}
