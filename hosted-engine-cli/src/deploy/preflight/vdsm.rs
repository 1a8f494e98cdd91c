//! VDSM, where it manages the host: the first step that needs it is not the first one.

use std::time::Duration;

use ha_config::ha_toml::Hypervisor;
use vdsm_client::{Client, Connection};

use super::{Finding, Host};
use crate::deploy::vdsm::ask_for;

/// One that starts at this moment takes a few seconds.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) fn check(host: &Host<'_>) -> Vec<Finding> {
    match host.hypervisor() {
        Hypervisor::Qemu | Hypervisor::Libvirt => return Vec::new(),
        Hypervisor::Vdsm => {}
    }
    let answer = ask_for(host.paths, host.request, async |vdsm| Ok(answer(vdsm).await));
    match answer.unwrap_or_else(|error| Err(error.to_string())) {
        Ok(()) => Vec::new(),
        Err(why) => vec![Finding::blocker(
            format!("VDSM does not answer ({why})"),
            "start it: systemctl enable --now vdsmd; on a new host first vdsm-tool configure --force; what it says is in \
             /var/log/vdsm/vdsm.log",
        )],
    }
}

/// Whether it answers; else why not, as soon as a connection fails.
async fn answer(vdsm: &Client) -> Result<(), String> {
    let mut connection = vdsm.connection();
    let refused = async {
        loop {
            if connection.changed().await.is_err() {
                // It has ended: the call says why.
                std::future::pending::<()>().await;
            }
            if let Connection::Down { why } = &*connection.borrow_and_update() {
                return why.clone();
            }
        }
    };
    tokio::select! {
        biased;
        answer = vdsm.ping() => answer.map_err(|error| error.to_string()),
        why = refused => Err(why),
        () = tokio::time::sleep(PATIENCE) => Err(format!("nothing within {} s", PATIENCE.as_secs())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deploy::preflight::Severity;
    use crate::deploy::storage::testing::first_host;
    use crate::deploy::storage::vdsm::tests::Host as OfVdsm;
    use crate::deploy::testing::Recorded;
    use crate::deploy::{Request, StorageKind};

    #[test]
    fn vdsm_must_answer_where_it_manages_the_host() {
        let (with, tools) = (OfVdsm::on(first_host(StorageKind::Nfs, "server:/srv/he")), Recorded::new(&[]));
        let host = Host { paths: &with.site.paths, tools: &tools, request: &with.request };
        assert_eq!(check(&host), []);

        // Nobody listens at the port of a socket that is closed.
        let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut first = with.first().clone();
        first.ha_toml = format!("[vm]\nhypervisor = \"vdsm\"\n[vdsm]\naddress = \"{address}\"\n");
        let request = Request::FirstHost(Box::new(first));
        let found = check(&Host { request: &request, ..host });
        assert_eq!(found[0].severity, Severity::Blocker);
        assert!(found[0].what.contains("Connection refused"), "{found:?}");

        std::fs::remove_file(with.site.paths.vdsm_key()).unwrap();
        let found = check(&host);
        assert!(found[0].what.contains("vdsmkey.pem"), "{found:?}");

        let request = Request::FirstHost(Box::new(first_host(StorageKind::Nfs, "server:/srv/he")));
        assert_eq!(check(&Host { request: &request, ..host }), []);
    }
}
