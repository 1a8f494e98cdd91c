//! The step with a recorded firewalld, and with a real nftables in a network namespace.

use std::fs;
use std::process::Command;

use super::*;
use crate::deploy::fixture::Fixture;
use crate::deploy::network::lab::in_namespace;
use crate::deploy::testing::{Heard, Recorded};
use crate::deploy::{FurtherHost, Installed, Journal, Outcome, Tools, job};

fn deploy(fixture: &Fixture, tools: &dyn Tools) -> (Journal, Vec<String>) {
    let report = Heard::default();
    let mut journal = Journal::begin(&fixture.paths.deploy_journal(), 0, fixture.request.clone()).unwrap();
    let steps: Vec<Box<dyn Step>> = vec![Box::new(OpenFirewall)];
    job::run(&steps, fixture.world(tools, &report), &mut journal).unwrap();
    (journal, report.all())
}

#[test]
fn each_hypervisor_needs_its_ports() {
    let text = |hypervisor| list(&ports(hypervisor, MIGRATION));
    assert_eq!(text(Hypervisor::Qemu), "TCP 5900-6923 (consoles of VMs), 49152-49215 (live migration)");
    assert_eq!(
        text(Hypervisor::Vdsm),
        "TCP 5900-6923 (consoles of VMs), 16514 (libvirt), 49152-49215 (live migration), 54321 (VDSM)"
    );
    let mut fixture = Fixture::new();
    fixture.first().ha_toml = "[migration]\nports = \"4000-4009\"\n".to_owned();
    assert_eq!(wanted(&fixture.paths, &fixture.request)[0].0, Ports::range(4000, 4009));

    let Request::FirstHost(first) = &fixture.request else { unreachable!("made as a first host") };
    for hypervisor in [Hypervisor::Qemu, Hypervisor::Libvirt, Hypervisor::Vdsm] {
        let further = Request::FurtherHost(Box::new(FurtherHost {
            hypervisor,
            storage: first.storage.clone(),
            network: first.network.clone(),
            host: first.host.clone(),
            sd_uuid: first.ids.sd,
            moves: None,
        }));
        assert_eq!(wanted(&fixture.paths, &further), ports(hypervisor, MIGRATION));
    }
}

#[test]
fn firewalld_gets_what_its_zone_lacks_and_loses_no_more() {
    let (now, permanent) = ("firewall-cmd --zone=internal", "firewall-cmd --permanent --zone=internal");
    let (consoles, migration) = ("port=5900-6923/tcp", "port=49152-49215/tcp");
    let call = |with: &str, what: &str, port: &str| format!("{with} --{what}-{port}");
    let tools = Recorded::new(&[
        ("firewall-cmd --state", 0, "running\n", ""),
        ("firewall-cmd --get-zone-of-interface=ovirtmgmt", 2, "", "no zone\n"),
        ("firewall-cmd --get-zone-of-interface=eth0", 2, "", "no zone\n"),
        ("firewall-cmd --get-default-zone", 0, "internal\n", ""),
        (&call(now, "query", consoles), 1, "no\n", ""),
        (&call(now, "query", migration), 0, "yes\n", ""),
        (&call(permanent, "query", consoles), 1, "no\n", ""),
        (&call(permanent, "query", migration), 1, "no\n", ""),
        (&call(now, "add", consoles), 0, "success\n", ""),
        (&call(permanent, "add", consoles), 0, "success\n", ""),
        (&call(permanent, "add", migration), 0, "success\n", ""),
    ]);
    let fixture = Fixture::new();
    let (mut journal, _) = deploy(&fixture, &tools);
    tools.assert_over();

    let tools = Recorded::new(&[
        ("firewall-cmd --state", 0, "running\n", ""),
        (&call(now, "query", consoles), 0, "yes\n", ""),
        (&call(now, "remove", consoles), 0, "success\n", ""),
        // Somebody has closed this one.
        (&call(permanent, "query", consoles), 1, "no\n", ""),
        (&call(permanent, "query", migration), 0, "yes\n", ""),
        (&call(permanent, "remove", migration), 0, "success\n", ""),
    ]);
    let report = Heard::default();
    job::undo(fixture.world(&tools, &report), &mut journal).unwrap();
    tools.assert_over();
    assert_eq!(report.all(), ["Taken back: TCP ports 49152-49215, 5900-6923 in firewalld's zone internal"]);
}

#[test]
fn a_bridge_without_a_zone_comes_into_its_cards_zone_as_long_as_the_card_was_in_it() {
    let (consoles, migration) = ("port=5900-6923/tcp", "port=49152-49215/tcp");
    let call = |options: &str, what: &str| format!("firewall-cmd {options}--zone=work --{what}");
    for (permanent, is_permanent) in [("work\n", true), ("no zone\n", false)] {
        let query = |options: &str, port: &str| call(options, &format!("query-{port}"));
        let add = [call("", "add-interface=ovirtmgmt"), call("--permanent ", "add-interface=ovirtmgmt")];
        let queries = [
            query("", consoles),
            query("", migration),
            query("--permanent ", consoles),
            query("--permanent ", migration),
        ];
        let mut calls = vec![
            ("firewall-cmd --state", 0, "running\n", ""),
            ("firewall-cmd --get-zone-of-interface=ovirtmgmt", 2, "", "no zone\n"),
            ("firewall-cmd --get-zone-of-interface=eth0", 0, "work\n", ""),
            (
                "firewall-cmd --permanent --get-zone-of-interface=eth0",
                if is_permanent { 0 } else { 2 },
                permanent,
                "",
            ),
        ];
        calls.extend(queries.iter().map(|query| (query.as_str(), 0, "yes\n", "")));
        calls.extend(
            add.iter().take(1 + usize::from(is_permanent)).map(|add| (add.as_str(), 0, "success\n", "")),
        );
        let tools = Recorded::new(&calls);
        let fixture = Fixture::new();
        let (mut journal, _) = deploy(&fixture, &tools);
        tools.assert_over();

        let undo: Vec<String> =
            ["query", "remove"].map(|verb| call("", &format!("{verb}-interface=ovirtmgmt"))).into();
        let mut calls = vec![("firewall-cmd --state", 0, "running\n", "")];
        calls.extend(undo.iter().map(|call| (call.as_str(), 0, "", "")));
        let forever: Vec<String> =
            undo.iter().map(|call| call.replace("firewall-cmd", "firewall-cmd --permanent")).collect();
        if is_permanent {
            calls.extend(forever.iter().map(|call| (call.as_str(), 0, "", "")));
        }
        let (tools, report) = (Recorded::new(&calls), Heard::default());
        job::undo(fixture.world(&tools, &report), &mut journal).unwrap();
        tools.assert_over();
        assert_eq!(report.all(), ["Taken back: the bridge ovirtmgmt in firewalld's zone work"]);
    }
}

#[test]
fn a_firewall_that_is_to_be_left_alone_is_not_even_asked() {
    let mut fixture = Fixture::new();
    fixture.first().network.open_firewall = false;
    let (_, heard) = deploy(&fixture, &Recorded::default());
    assert!(heard[1].starts_with("The firewall is left as it is; the host needs TCP 5900-6923"), "{heard:?}");
}

#[test]
fn nftables_lets_in_what_is_needed_now_and_after_a_boot_until_it_is_undone() {
    in_namespace("deploy::firewall::tests::inside_nftables");
}

fn nft(args: &[&str]) -> String {
    let output = Command::new("nft").args(args).output().expect("nft starts");
    assert!(output.status.success(), "nft {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
#[ignore = "runs in a namespace, started by nftables_lets_in_what_is_needed_now_and_after_a_boot_until_it_is_undone"]
fn inside_nftables() {
    let fixture = Fixture::new();
    let (_, heard) = deploy(&fixture, &Installed);
    assert_eq!(heard[1], "No firewall refuses anything on this host");

    let configuration = fixture.paths.resolve("/etc/nftables.conf");
    fs::create_dir_all(configuration.parent().unwrap()).unwrap();
    let text = "#!/usr/sbin/nft -f\nflush ruleset\n\ntable inet filter {\n chain input {\n  type filter hook input priority filter; \
                policy accept;\n  tcp dport 22 accept\n  reject\n }\n chain forward {\n  type filter hook forward priority filter; \
                policy drop;\n }\n}\n";
    fs::write(&configuration, text).unwrap();
    let file = configuration.to_str().unwrap();
    nft(&["-f", file]);
    let before = nft(&["list", "ruleset"]);

    let (mut journal, _) = deploy(&fixture, &Installed);
    let opened = nft(&["list", "chain", "inet", "filter", "input"]);
    let rules: Vec<&str> = opened.lines().map(str::trim).skip(3).collect();
    let ours = "tcp dport { 5900-6923, 49152-49215 } accept comment \"hosted-engine\"";
    assert_eq!(rules[..3], [ours, "tcp dport 22 accept", "reject"], "{opened}");
    // What a boot does.
    nft(&["-f", file]);
    assert_eq!(nft(&["list", "chain", "inet", "filter", "input"]), opened);

    let report = Heard::default();
    job::undo(fixture.world(&Installed, &report), &mut journal).unwrap();
    assert_eq!(nft(&["list", "ruleset"]), before);
    assert_eq!(fs::read_to_string(&configuration).unwrap(), text);
    assert_eq!(fs::read_dir(configuration.parent().unwrap()).unwrap().count(), 1);
    assert_eq!(
        Journal::read(&fixture.paths.deploy_journal()).unwrap().unwrap().outcome,
        Some(Outcome::Undone)
    );
}
