//! Where the cluster lives.

use super::{Choice, Form, Known, Look, Preset, Question, Section, When, check, keys};

const BASE: Question = Question { section: Section::Storage, ..Question::BASE };
const ON_A_PATH: When = When { words: "not for iscsi, fc", holds: |known| !known.is_block() };
const ISCSI: When = When { words: "for iscsi", holds: |known| known.is(keys::DOMAIN_TYPE, "iscsi") };
const FIRST_HOST: When = When { words: "on the first host", holds: |known| !known.is_join() };

/// The questions about storage.
pub(super) const QUESTIONS: &[Question] = &[
    Question {
        key: keys::DOMAIN_TYPE,
        label: "Storage type",
        prompt: "Please specify the storage you would like to use",
        explanation: "All hosts must reach the same storage. nfs finds the version by trying, nfs3 and nfs4 insist on \
            one. iscsi and fc use one device as a whole. directory is a directory that somebody else has mounted, or \
            one of this host alone.",
        form: Form::Word(&["glusterfs", "iscsi", "fc", "nfs", "nfs3", "nfs4", "directory"]),
        preset: Preset::From("nfs; with --join what its form says", |known| {
            Some(known.join.as_deref().map_or("nfs", kind_of).to_owned())
        }),
        ..BASE
    },
    Question {
        key: keys::CONNECTION,
        label: "Storage connection",
        prompt: "Please specify the full shared storage connection path to use (example: host:/path)",
        explanation: "nfs, nfs3, nfs4: SERVER:/EXPORT. glusterfs: SERVER:/VOLUME. directory: its absolute path, the \
            same on every host.",
        preset: Preset::From("--join", |known| known.join.clone()),
        when: ON_A_PATH,
        check: connection,
        ..BASE
    },
    Question {
        key: keys::MOUNT_OPTIONS,
        label: "Mount options",
        prompt: "If needed, please specify additional mount options for the connection to the storage",
        explanation: "Options of mount -o with commas between them. For glusterfs, \
            backup-volfile-servers=HOST:HOST lets the mount survive the loss of its server.",
        preset: Preset::Fixed(""),
        when: When {
            words: "for nfs, nfs3, nfs4, glusterfs",
            holds: |known| !known.is_block() && !known.is(keys::DOMAIN_TYPE, "directory"),
        },
        check: |_, text| {
            if text.contains(char::is_whitespace) {
                return Err(format!("{text:?} must have commas between the options, and no spaces"));
            }
            Ok(text.to_owned())
        },
        if_empty: Some("none"),
        ..BASE
    },
    Question {
        key: keys::PORTALS,
        label: "iSCSI portal addresses",
        prompt: "Please specify the iSCSI portal IP address",
        explanation: "Several portals of the same target with commas between them: each is a path of its own, and the \
            storage is there while one of them is. Of a name its first address is taken, with --4 or --6 of that \
            family.",
        preset: Preset::From("--join", |known| {
            known.join.as_deref().map(|text| list_part(text, |portal| portal.0))
        }),
        when: ISCSI,
        check: |known, text| {
            let portals: Result<Vec<_>, _> = check::list(text).map(|host| portal(known, host)).collect();
            Some(portals?.join(","))
                .filter(|text| !text.is_empty())
                .ok_or_else(|| "an answer is needed".to_owned())
        },
        ..BASE
    },
    Question {
        key: keys::PORTS,
        label: "iSCSI portal ports",
        prompt: "Please specify the iSCSI portal port",
        explanation: "One for all portals, or one for each, in their order.",
        preset: Preset::From("3260", |known| {
            let joined = known.join.as_deref().map(|text| list_part(text, |portal| portal.1));
            Some(joined.unwrap_or_else(|| "3260".to_owned()))
        }),
        when: ISCSI,
        check: |known, text| {
            let ports = check::ports(text)?;
            let portals = known.get(keys::PORTALS).map_or(1, |text| check::list(text).count());
            let count = check::list(&ports).count();
            if count != 1 && count != portals {
                return Err(format!(
                    "{count} ports for {portals} portals: there must be one for all, or one for each"
                ));
            }
            Ok(ports)
        },
        ..BASE
    },
    Question {
        key: keys::DISCOVERY_USER,
        label: "iSCSI discovery user",
        prompt: "Please specify the iSCSI discover user",
        explanation: "The CHAP user that the portals want before they tell their targets; empty where they want none.",
        preset: Preset::Fixed(""),
        when: ISCSI,
        check: user,
        if_empty: Some("none"),
        ..BASE
    },
    Question {
        key: keys::DISCOVERY_PASSWORD,
        label: "iSCSI discovery password",
        prompt: "Please specify the iSCSI discover password",
        explanation: "The CHAP password of the discovery user.",
        form: Form::Secret,
        when: When {
            words: "with a discovery user",
            holds: |known| (ISCSI.holds)(known) && known.get(keys::DISCOVERY_USER).is_some(),
        },
        ..BASE
    },
    Question {
        key: keys::ISCSI_USER,
        label: "iSCSI user",
        prompt: "Please specify the iSCSI portal login user",
        explanation: "The CHAP user of the target; empty where it wants none.",
        preset: Preset::Fixed(""),
        when: ISCSI,
        check: user,
        if_empty: Some("none"),
        ..BASE
    },
    Question {
        key: keys::ISCSI_PASSWORD,
        label: "iSCSI password",
        prompt: "Please specify the iSCSI portal login password",
        explanation: "The CHAP password of the target's user.",
        form: Form::Secret,
        when: When {
            words: "with an iSCSI user",
            holds: |known| (ISCSI.holds)(known) && known.get(keys::ISCSI_USER).is_some(),
        },
        ..BASE
    },
    Question {
        key: keys::TARGET,
        label: "iSCSI target",
        prompt: "Please specify the target name",
        explanation: "The targets are what the portals said.",
        preset: Preset::From("the portals' only target", |known| match known.found.targets.as_slice() {
            [only] => Some(only.name.clone()),
            _ => None,
        }),
        when: ISCSI,
        choices: |known| {
            let about = |portals: &[(String, u16)]| {
                let all: Vec<_> = portals.iter().map(|(host, port)| format!("{host}:{port}")).collect();
                all.join(" ")
            };
            let targets = known.found.targets.iter();
            targets
                .map(|target| Choice { value: target.name.clone(), about: about(&target.portals) })
                .collect()
        },
        check: |_, text| {
            let is_name = ["iqn.", "eui.", "naa."].iter().any(|start| text.starts_with(start));
            if !is_name || text.contains(char::is_whitespace) {
                return Err(format!("{text:?} must be the name of a target: iqn.…, eui.… or naa.…"));
            }
            Ok(text.to_owned())
        },
        look: Some(Look::Targets),
        ..BASE
    },
    Question {
        key: keys::TPGT,
        label: "iSCSI portal group tag",
        prompt: "Please specify the target portal group tag",
        explanation: "The target says it in its discovery.",
        form: Form::Integer(0, 65535),
        preset: Preset::From("what the target says; else 1", |known| {
            let target = known.found.targets.iter().find(|target| known.is(keys::TARGET, &target.name));
            Some(target.map_or(1, |target| target.tpgt).to_string())
        }),
        when: ISCSI,
        is_quiet: true,
        ..BASE
    },
    Question {
        key: keys::LUN,
        label: "LUN",
        prompt: "Please select the destination LUN",
        explanation: "The device is used as a whole: a first host refuses one on which there is something. Its name is \
            its WWID, the same on every host, or a path (/dev/…) that is. A further host finds it by itself: \
            --join needs no answer here.",
        preset: Preset::From("the only device; with --join none", |known| {
            match known.found.devices.as_slice() {
                _ if known.join.is_some() => Some(String::new()),
                [only] => Some(only.id.clone()),
                _ => None,
            }
        }),
        when: When { words: "for iscsi, fc", holds: |known| known.is_block() },
        choices: |known| {
            let about = |bytes: u64, about: &str| format!("{} GiB  {about}", bytes >> 30);
            let devices = known.found.devices.iter();
            devices
                .map(|device| Choice { value: device.id.clone(), about: about(device.bytes, &device.about) })
                .collect()
        },
        check: |known, text| match (text, &known.join) {
            ("", None) => Err("an answer is needed".to_owned()),
            _ => Ok(text.to_owned()),
        },
        if_empty: Some("the one with the hosted engine"),
        look: Some(Look::Devices),
        ..BASE
    },
    Question {
        key: keys::JOIN,
        label: "Join the hosted engine there",
        prompt: "There is a hosted engine on this storage already. Make this host a further one of it?",
        explanation: "A second hosted engine cannot be made on the same storage. With no, choose other storage.",
        form: Form::Bool,
        preset: Preset::Fixed("yes"),
        when: When {
            words: "without --join, where the storage has a hosted engine",
            holds: |known| known.join.is_none() && !known.found.clusters.is_empty(),
        },
        check: |known, text| {
            if text == super::NO {
                let all: Vec<_> = known.found.clusters.iter().map(|cluster| cluster.fqdn.as_str()).collect();
                return Err(format!(
                    "{} is on this storage: a new hosted engine needs other storage",
                    all.join(", ")
                ));
            }
            Ok(text.to_owned())
        },
        look: Some(Look::Clusters),
        ..BASE
    },
    Question {
        key: keys::STORAGE_DOMAIN,
        label: "Storage domain to join",
        prompt: "There are several hosted engines on this storage. Please specify the storage domain to join",
        explanation: "The uuid of a storage domain, with its engine's name beside it.",
        preset: Preset::From("the only one there", |known| match known.found.clusters.as_slice() {
            [only] => Some(only.sd_uuid.to_string()),
            _ => None,
        }),
        when: When {
            words: "on further hosts",
            holds: |known| known.is_join() && !known.found.clusters.is_empty(),
        },
        choices: |known| {
            let clusters = known.found.clusters.iter();
            clusters
                .map(|cluster| Choice { value: cluster.sd_uuid.to_string(), about: cluster.fqdn.clone() })
                .collect()
        },
        is_quiet: true,
        ..BASE
    },
    Question {
        key: keys::DOMAIN_NAME,
        label: "Storage domain name",
        prompt: "Please provide storage domain name",
        explanation: "How the engine will call the storage domain that is made.",
        preset: Preset::Fixed("hosted_storage"),
        when: FIRST_HOST,
        check: |_, text| check::plain_name(text),
        ..BASE
    },
    Question {
        key: keys::DATACENTER,
        label: "Data centre name",
        prompt: "Please enter the name of the data center",
        explanation: "How the engine calls the data centre of this storage; it need not exist yet.",
        preset: Preset::Fixed("hosted_datacenter"),
        when: FIRST_HOST,
        check: |_, text| check::plain_name(text),
        ..BASE
    },
];

/// The kind of storage that the text of `--join` looks like.
fn kind_of(text: &str) -> &'static str {
    match text {
        "fc" => "fc",
        text if text.starts_with('/') => "directory",
        text if check::split_host(text).is_some() => "nfs",
        _ => "iscsi",
    }
}

/// Of `10.0.0.1:3260,10.0.0.2` the addresses, or the ports.
fn list_part(text: &str, choose: fn((String, String)) -> String) -> String {
    let portal = |text: &str| match text.rsplit_once(':') {
        // Not within an IPv6 address without brackets.
        Some((host, port)) if port.parse::<u16>().is_ok() && (!host.contains(':') || host.ends_with(']')) => {
            (host.to_owned(), port.to_owned())
        }
        _ => (text.to_owned(), "3260".to_owned()),
    };
    check::list(text).map(|text| choose(portal(text))).collect::<Vec<_>>().join(",")
}

/// A portal's address: the initiator keeps its settings by address.
fn portal(known: &Known<'_>, text: &str) -> Result<String, String> {
    let host = check::host(text)?;
    if ha_config::text::bare_host(&host).parse::<std::net::IpAddr>().is_ok() {
        return Ok(host);
    }
    let found = known.lookups.resolve(&host, known.family()).map_err(|why| format!("{host:?}: {why}"))?;
    found.first().map(ToString::to_string).ok_or_else(|| format!("{host:?} has no address"))
}

fn connection(known: &Known<'_>, text: &str) -> Result<String, String> {
    if known.is(keys::DOMAIN_TYPE, "directory") {
        return check::path(text);
    }
    let (host, path) = check::split_host(text).ok_or_else(|| {
        format!("{text:?} must be SERVER:/PATH, for example storage.example.com:/exports/he")
    })?;
    Ok(format!("{}:{}", check::host(host)?, check::path(path)?))
}

fn user(_: &Known<'_>, text: &str) -> Result<String, String> {
    // The engine's database has no room for more.
    if text.chars().count() > 50 {
        return Err(format!("{text:?} must have at most 50 characters"));
    }
    Ok(text.to_owned())
}
