//! The engine's name and this host's, forward and reverse, as the C library resolves them.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::{Finding, Host};
use crate::deploy::network::picture::Picture;
use crate::deploy::{Call, Family, Request};

pub(super) fn check(host: &Host<'_>) -> Vec<Finding> {
    let Request::FirstHost(first) = host.request else { return Vec::new() };
    let (fqdn, name) = (first.engine.fqdn.as_str(), first.host.name.as_str());
    let mut found = judge_name(fqdn, name);
    if !found.is_empty() {
        return found;
    }
    let addresses = resolve(host, fqdn, first.family);
    let own: BTreeSet<IpAddr> =
        Picture::look(host.tools).map(|picture| picture.all_addresses().collect()).unwrap_or_default();
    found.extend(judge_addresses(fqdn, first.family, &addresses, &own));
    // Those of a blocker are not worth a second question.
    if found.is_empty() {
        for address in &addresses {
            let names =
                host.hear(&Call::new("getent").arg("hosts").arg(address.to_string())).unwrap_or_default();
            found.extend(judge_reverse(fqdn, *address, &names));
        }
    }
    let of_host = resolve(host, name, first.family);
    if of_host.is_empty() || of_host.iter().all(IpAddr::is_loopback) {
        found.push(Finding::warning(
            format!("this host's name {name} leads to no address that others could reach"),
            "put it into DNS: the engine and the other hosts reach this one by its name",
        ));
    }
    found
}

/// Addresses of a name, in the family that is wanted.
pub(super) fn resolve(host: &Host<'_>, name: &str, family: Family) -> BTreeSet<IpAddr> {
    let database = match family {
        Family::Auto => "ahosts",
        Family::V4 => "ahostsv4",
        Family::V6 => "ahostsv6",
    };
    let said = host.hear(&Call::new("getent").arg(database).arg(name)).unwrap_or_default();
    let addresses = said.lines().filter_map(|line| line.split_whitespace().next()?.parse().ok());
    // ahostsv6 gives ::ffff:… for names that have IPv4 only.
    addresses.filter(|address| !matches!(address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some())).collect()
}

fn judge_name(fqdn: &str, host: &str) -> Vec<Finding> {
    let first = fqdn.split('.').next().unwrap_or_default();
    if first.eq_ignore_ascii_case("localhost") {
        return vec![Finding::blocker(
            format!("the engine's name {fqdn} means every host itself"),
            "give the engine a name of its own in DNS",
        )];
    }
    if fqdn.eq_ignore_ascii_case(host) {
        return vec![Finding::blocker(
            format!("the engine's name {fqdn} is this host's"),
            "give the engine a name of its own: it moves from host to host",
        )];
    }
    if !fqdn.contains('.') {
        return vec![Finding::blocker(
            format!("the engine's name {fqdn} has no domain"),
            "give it fully qualified, as engine.example.com",
        )];
    }
    Vec::new()
}

fn judge_addresses(
    fqdn: &str,
    family: Family,
    addresses: &BTreeSet<IpAddr>,
    own: &BTreeSet<IpAddr>,
) -> Vec<Finding> {
    let of = match family {
        Family::Auto => "",
        Family::V4 => " IPv4",
        Family::V6 => " IPv6",
    };
    if addresses.is_empty() {
        return vec![Finding::blocker(
            format!("the engine's name {fqdn} leads to no{of} address"),
            "put it into DNS (or into /etc/hosts of every host and of the engine), then start again",
        )];
    }
    if let Some(address) = addresses.iter().find(|address| address.is_loopback()) {
        return vec![Finding::blocker(
            format!("the engine's name {fqdn} leads to {address}, which is every host itself"),
            "remove it from /etc/hosts, and put the VM's address into DNS",
        )];
    }
    if let Some(address) = addresses.iter().find(|address| own.contains(address)) {
        return vec![Finding::blocker(
            format!("the engine's name {fqdn} leads to {address}, an address of this host"),
            "give the VM an address of its own: it moves from host to host",
        )];
    }
    Vec::new()
}

fn judge_reverse(fqdn: &str, address: IpAddr, names: &str) -> Option<Finding> {
    let mut names = names.split_whitespace().skip(1).peekable();
    let advice = "the engine's own set-up asks for it: add the PTR record";
    if names.peek().is_none() {
        return Some(Finding::warning(
            format!("{address}, the engine's address, leads back to no name"),
            advice,
        ));
    }
    let all: Vec<&str> = names.collect();
    let is_known = all.iter().any(|name| name.trim_end_matches('.').eq_ignore_ascii_case(fqdn));
    (!is_known).then(|| {
        Finding::warning(
            format!("{address} leads back to {}, not to the engine's name {fqdn}", all.join(", ")),
            advice,
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deploy::fixture::Fixture;
    use crate::deploy::preflight::Severity;
    use crate::deploy::testing::Recorded;

    #[test]
    fn a_name_that_is_not_the_engines_own_is_refused() {
        for (fqdn, words) in [
            ("localhost.localdomain", "every host itself"),
            ("HOST1.example.com", "is this host's"),
            ("engine", "has no domain"),
        ] {
            let found = judge_name(fqdn, "host1.example.com");
            assert!(found[0].severity == Severity::Blocker && found[0].what.contains(words), "{found:?}");
        }
        assert_eq!(judge_name("engine.example.com", "host1.example.com"), []);
    }

    #[test]
    fn its_address_must_be_somebody_elses_and_lead_back() {
        let address = |text: &str| -> IpAddr { text.parse().unwrap() };
        let own = BTreeSet::from([address("10.0.0.5")]);
        let judge = |list: &[&str]| {
            judge_addresses("e.x", Family::V6, &list.iter().map(|text| address(text)).collect(), &own)
        };
        assert!(judge(&[])[0].what.ends_with("leads to no IPv6 address"));
        assert!(judge(&["127.0.1.1"])[0].what.contains("every host itself"));
        assert!(judge(&["10.0.0.5"])[0].what.contains("an address of this host"));
        assert_eq!(judge(&["10.0.0.9"]), []);
        let reverse = |names| judge_reverse("e.x", address("10.0.0.9"), names);
        assert_eq!(reverse("10.0.0.9        E.x. other"), None);
        assert!(reverse("").unwrap().what.ends_with("leads back to no name"));
        assert!(reverse("10.0.0.9 old.x").unwrap().what.contains("leads back to old.x"));
    }

    #[test]
    fn the_c_library_is_asked_for_the_wanted_family() {
        // As glibc 2.36 answers for a name with both, and with IPv4 only.
        let tools = Recorded::new(&[
            (
                "getent ahosts a.x",
                0,
                "10.0.0.9        STREAM a.x\n10.0.0.9        DGRAM  \n2001:db8::9     STREAM \n",
                "",
            ),
            ("getent ahostsv6 b.x", 0, "::ffff:10.0.0.8 STREAM b.x\n", ""),
            ("getent ahostsv4 c.x", 2, "", ""),
        ]);
        let fixture = Fixture::new();
        let host = Host { paths: &fixture.paths, tools: &tools, request: &fixture.request };
        assert_eq!(resolve(&host, "a.x", Family::Auto).len(), 2);
        assert_eq!(resolve(&host, "b.x", Family::V6).len(), 0);
        assert_eq!(resolve(&host, "c.x", Family::V4).len(), 0);
        tools.assert_over();
    }
}
