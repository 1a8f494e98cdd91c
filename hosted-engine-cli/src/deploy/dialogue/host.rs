//! This host, as the questions want to know it.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::net::{IpAddr, ToSocketAddrs};
use std::path::Path;
use std::time::Duration;

use ha_config::Paths;
use ha_config::ha_toml::Hypervisor;

use super::links;
use crate::deploy::network::picture::Picture;
use crate::deploy::questions::{HostFacts, Lookups};
use crate::deploy::vm::image::{self, Proposal};
use crate::deploy::{Call, Family, Tools};
use crate::setup::Report;

/// Longer than any ha.toml.
const MAX_TEXT: u64 = 1 << 20;

/// This host.
pub struct ThisHost<'a> {
    /// Its places.
    pub paths: &'a Paths,
    /// Its programs: `ip`, `hostname`.
    pub tools: &'a dyn Tools,
    /// For what cannot be found out: the dialogue then proposes less.
    pub report: &'a dyn Report,
}

impl ThisHost<'_> {
    /// The node's name, with its domain where the resolver knows it.
    fn name(&self) -> String {
        let node = rustix::system::uname().nodename().to_string_lossy().into_owned();
        if node.contains('.') {
            return node.to_ascii_lowercase();
        }
        let call = Call::new("hostname").arg("--fqdn").within(Duration::from_secs(10));
        // A host without a domain, or without the program.
        let said = self.tools.run(&call).map(|said| said.out.trim().to_ascii_lowercase());
        said.ok().filter(|name| !name.is_empty() && !name.starts_with("localhost")).unwrap_or(node)
    }

    fn hypervisor(&self) -> Hypervisor {
        if self.paths.vdsm_conf().exists() {
            Hypervisor::Vdsm
        } else if self.paths.libvirt_socket().exists() {
            Hypervisor::Libvirt
        } else {
            Hypervisor::Qemu
        }
    }
}

impl Lookups for ThisHost<'_> {
    fn facts(&self) -> HostFacts {
        let picture = Picture::look(self.tools).unwrap_or_else(|error| {
            self.report.warning(&error.to_string());
            Picture::default()
        });
        let text = |path: &str| fs::read_to_string(self.paths.resolve(path)).unwrap_or_default();
        HostFacts {
            name: self.name(),
            gateways: links::gateways(&picture),
            nics: links::nics(&picture),
            addresses: links::addresses(&picture),
            memory_mb: memory_mb(&fs::read_to_string("/proc/meminfo").unwrap_or_default()),
            cpus: std::thread::available_parallelism()
                .map_or(1, |cpus| u32::try_from(cpus.get()).unwrap_or(u32::MAX)),
            name_servers: name_servers(&text("/etc/resolv.conf")),
            time_zone: time_zone(self.paths),
            hypervisor: self.hypervisor(),
        }
    }

    fn resolve(&self, name: &str, family: Family) -> Result<Vec<IpAddr>, String> {
        // The port is of no matter: the function wants one.
        let found = (name, 0).to_socket_addrs().map_err(|error| error.to_string())?;
        let mut all: Vec<IpAddr> = found.map(|address| address.ip()).filter(|ip| family.has(*ip)).collect();
        all.dedup();
        if all.is_empty() {
            let kind = if family == Family::V4 { "IPv4" } else { "IPv6" };
            return Err(format!("it has no {kind} address"));
        }
        Ok(all)
    }

    fn file(&self, path: &Path) -> Result<u64, String> {
        let failed = |error: std::io::Error| format!("{} cannot be used: {error}", path.display());
        let mut file = File::open(path).map_err(failed)?;
        if file.metadata().map_err(failed)?.is_dir() {
            return Err(format!("{} cannot be used: it is a directory", path.display()));
        }
        // Of a block device too.
        match file.seek(SeekFrom::End(0)).map_err(failed)? {
            0 => Err(format!("{} cannot be used: it is empty", path.display())),
            bytes => Ok(bytes),
        }
    }

    fn image(&self, path: &Path) -> Result<Proposal, String> {
        image::inspect(path, self.tools).map(|image| image.proposal).map_err(|error| error.to_string())
    }

    fn read(&self, path: &Path) -> Result<String, String> {
        let mut text = String::new();
        let file = File::open(path).and_then(|file| file.take(MAX_TEXT).read_to_string(&mut text));
        file.map(|_| text).map_err(|error| format!("{} cannot be read: {error}", path.display()))
    }
}

/// `MemTotal` of /proc/meminfo, in MB; 0 when it does not say.
fn memory_mb(meminfo: &str) -> u64 {
    let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    total.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) / 1024
}

/// The name servers of resolv.conf that others can reach too.
fn name_servers(resolv_conf: &str) -> Vec<IpAddr> {
    let servers = resolv_conf.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    let servers = servers.filter_map(|address| address.trim().parse::<IpAddr>().ok());
    servers.filter(|address| !address.is_loopback()).collect()
}

/// From what /etc/localtime links to.
fn time_zone(paths: &Paths) -> Option<String> {
    let target = fs::read_link(paths.resolve("/etc/localtime")).ok()?;
    let (_, name) = target.to_str()?.split_once("zoneinfo/")?;
    Some(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deploy::questions::{Gateway, Nic};
    use crate::deploy::testing::{Heard, Recorded};

    /// Of `ip -json -details address show`, which tells of the links, too.
    const ADDRESSES: &str = include_str!("recorded/ip-address.json");
    const NONE: &str = "[]";

    #[test]
    fn the_host_is_read_from_its_programs_and_files() {
        let root = tempfile::tempdir().unwrap();
        let etc = root.path().join("etc");
        fs::create_dir(&etc).unwrap();
        fs::write(
            etc.join("resolv.conf"),
            "search example.com\nnameserver 127.0.0.53\nnameserver 192.0.2.53\nnameserver fd00::53\n",
        )
        .unwrap();
        std::os::unix::fs::symlink("../usr/share/zoneinfo/Europe/Prague", etc.join("localtime")).unwrap();
        let route4 = r#"[{"dst":"default","gateway":"198.51.100.1","dev":"wlan0","protocol":"dhcp","metric":600,"flags":[]},
            {"dst":"default","gateway":"192.0.2.1","dev":"br0","flags":[]}]"#;
        let route6 = r#"[{"dst":"default","gateway":"fe80::1","dev":"br0","protocol":"ra","metric":1024,"flags":[],"pref":"medium"},
            {"dst":"default","gateway":"fd00::1","dev":"br0","metric":2048,"flags":[],"pref":"medium"}]"#;
        let node = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let mut calls = vec![
            ("ip -json -4 route show table all", 0, route4, ""),
            ("ip -json -4 rule show", 0, NONE, ""),
            ("ip -json -6 route show table all", 0, route6, ""),
            ("ip -json -6 rule show", 0, NONE, ""),
            ("ip -json -details link show", 0, ADDRESSES, ""),
            ("ip -json address show", 0, ADDRESSES, ""),
        ];
        if !node.contains('.') {
            calls.push(("hostname --fqdn", 0, "Host1.Example.com\n", ""));
        }
        let (paths, tools, report) = (Paths::new(root.path()), Recorded::new(&calls), Heard::default());
        let facts = ThisHost { paths: &paths, tools: &tools, report: &report }.facts();
        tools.assert_over();
        assert!(report.all().is_empty());
        if !node.contains('.') {
            assert_eq!(facts.name, "host1.example.com");
        }
        let gateway =
            |address: &str, nic: &str| Gateway { address: address.parse().unwrap(), nic: nic.to_owned() };
        assert_eq!(
            facts.gateways,
            [gateway("192.0.2.1", "br0"), gateway("198.51.100.1", "wlan0"), gateway("fd00::1", "br0")]
        );
        let bridgeable = |nics: &[Nic]| {
            nics.iter().filter(|nic| nic.can_be_bridged).map(|nic| nic.name.clone()).collect::<Vec<_>>()
        };
        assert_eq!(bridgeable(&facts.nics), ["eth0"], "{:?}", facts.nics);
        assert!(facts.nics.iter().any(|nic| nic.is_bridge && nic.name == "br0"));
        assert_eq!(
            facts.name_servers,
            ["192.0.2.53".parse::<IpAddr>().unwrap(), "fd00::53".parse().unwrap()]
        );
        assert_eq!(facts.addresses, ["192.0.2.2".parse::<IpAddr>().unwrap(), "fd00::2".parse().unwrap()]);
        assert_eq!(facts.time_zone.as_deref(), Some("Europe/Prague"));
        assert!(facts.memory_mb > 0 && facts.cpus > 0);
        assert_eq!(facts.hypervisor, Hypervisor::Qemu);
    }

    #[test]
    fn what_cannot_be_found_out_is_told_and_not_proposed() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("etc/vdsm")).unwrap();
        fs::write(root.path().join("etc/vdsm/vdsm.conf"), "").unwrap();
        let mut calls = vec![("ip -json -4 route show table all", 0, "not JSON", "")];
        if !rustix::system::uname().nodename().to_string_lossy().contains('.') {
            calls.push(("hostname --fqdn", 1, "", "hostname: Name or service not known"));
        }
        let (paths, tools, report) = (Paths::new(root.path()), Recorded::new(&calls), Heard::default());
        let facts = ThisHost { paths: &paths, tools: &tools, report: &report }.facts();
        assert!(facts.gateways.is_empty() && facts.nics.is_empty() && !facts.name.is_empty());
        assert_eq!(facts.hypervisor, Hypervisor::Vdsm);
        let heard = report.all();
        assert_eq!(heard.len(), 1, "{heard:?}");
        assert!(heard[0].contains("answers in an unknown way"), "{heard:?}");
    }

    #[test]
    fn names_resolve_within_their_family() {
        let paths = Paths::new("/");
        let (tools, report) = (Recorded::default(), Heard::default());
        let host = ThisHost { paths: &paths, tools: &tools, report: &report };
        assert_eq!(host.resolve("192.0.2.7", Family::V4).unwrap(), ["192.0.2.7".parse::<IpAddr>().unwrap()]);
        assert!(host.resolve("192.0.2.7", Family::V6).unwrap_err().contains("no IPv6"));
        assert!(host.resolve("no-such-name.invalid", Family::Auto).is_err());
    }

    #[test]
    fn files_are_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths::new("/");
        let (tools, report) = (Recorded::default(), Heard::default());
        let host = ThisHost { paths: &paths, tools: &tools, report: &report };
        let image = folder.path().join("image");
        assert!(host.file(&image).unwrap_err().contains("image"));
        fs::write(&image, "").unwrap();
        assert!(host.file(&image).unwrap_err().contains("empty"));
        fs::write(&image, "12345").unwrap();
        assert_eq!(host.file(&image), Ok(5));
        assert!(host.image(&image).unwrap_err().contains("no whole number of sectors"));
        File::options().write(true).open(&image).unwrap().set_len((30 << 30) + 512).unwrap();
        assert_eq!(host.image(&image), Ok(Proposal { disk_gib: 31, ..Proposal::default() }));
        fs::write(&image, "12345").unwrap();
        assert_eq!(host.read(&image).unwrap(), "12345");
        assert!(host.file(folder.path()).unwrap_err().contains("directory"));
    }
}
