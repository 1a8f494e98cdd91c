//! The engine, and this host in it.

use std::net::IpAddr;

use super::{Form, Known, Preset, Question, Section, When, check, keys};

const BASE: Question = Question { section: Section::Engine, ..Question::BASE };
const FIRST_HOST: When = When { words: "on the first host", holds: |known| !known.is_join() };

/// The questions about the engine.
pub(super) const QUESTIONS: &[Question] = &[
    Question {
        key: keys::FQDN,
        label: "Engine FQDN",
        prompt: "Please provide the fully qualified domain name of the engine",
        explanation: "Certificates and clients use it, and the HA services ask for the engine's health by it. It must \
            resolve to the address of the VM; /etc/hosts of every host will do.",
        when: FIRST_HOST,
        check: engine_name,
        ..BASE
    },
    Question {
        key: keys::APP_HOST_NAME,
        label: "Host's name in the engine",
        prompt: "Enter the name which will be used to identify this host inside the engine",
        explanation: "A name for people; further hosts get theirs when they join.",
        preset: Preset::Fixed("hosted_engine_1"),
        when: FIRST_HOST,
        check: |_, text| check::plain_name(text),
        ..BASE
    },
    Question {
        key: keys::ADMIN_PASSWORD,
        label: "Engine's admin password",
        prompt: "Enter engine admin password (leave empty to register this host yourself)",
        explanation: "What you will choose for admin when you install the engine, or what the appliance has. It is \
            used once, to register this host in the engine, and kept nowhere.",
        form: Form::Secret,
        when: FIRST_HOST,
        if_empty: Some("none: this host is not registered"),
        ..BASE
    },
    Question {
        key: keys::HOST_NAME,
        label: "Host's name",
        prompt: "Please specify this host's name",
        explanation: "As the other hosts show it in --vm-status.",
        preset: Preset::From("this host's fully qualified name", |known| {
            Some(known.facts.name.clone()).filter(|name| !name.is_empty())
        }),
        check: |_, text| host_name(text),
        is_quiet: true,
        is_of_host: true,
        ..BASE
    },
    Question {
        key: keys::HOST_ID,
        label: "Host ID",
        prompt: "Please specify this host's number",
        explanation: "Each host has a number of its own: its place in the shared metadata, and the name of its lease.",
        form: Form::Integer(1, 2000),
        preset: Preset::From(
            "1; on further hosts the one that it had, or the lowest that is free",
            |known| {
                if !known.is_join() {
                    return Some("1".to_owned());
                }
                had_before(known).or(known.cluster()?.next_id).map(|id| id.to_string())
            },
        ),
        check: |known, text| {
            let id: u16 = text.parse().map_err(|_| format!("{text:?} must be a number"))?;
            let owner = known.cluster().and_then(|cluster| cluster.taken.get(&id));
            match (had_before(known), owner) {
                (Some(had), _) if had != id => {
                    Err(format!("this host is number {had} of the cluster already"))
                }
                (None, Some(owner)) => {
                    let last = known.cluster().and_then(|cluster| cluster.last_seen.get(&id));
                    let last = last.map_or_else(String::new, |at| format!(", last seen {at}"));
                    Err(format!("{id} is the number of {owner}{last}"))
                }
                _ => Ok(text.to_owned()),
            }
        },
        when: When { words: "", holds: |known| !known.is_join() || known.cluster().is_some() },
        is_quiet: true,
        is_of_host: true,
        ..BASE
    },
];

/// The number that this host has on the storage, from a membership that was not ended in order.
fn had_before(known: &Known<'_>) -> Option<u16> {
    let name = known.get(keys::HOST_NAME)?;
    let taken = &known.cluster()?.taken;
    taken.iter().find(|(_, owner)| owner.eq_ignore_ascii_case(name)).map(|(id, _)| *id)
}

/// A name that no other host has: by it a host that joins again knows its number.
pub(super) fn host_name(text: &str) -> Result<String, String> {
    let text = check::name(text)?;
    if text.split('.').next() == Some("localhost") {
        return Err(format!(
            "{text} is the name of every host: give this one its own (hostnamectl hostname)"
        ));
    }
    Ok(text)
}

/// A name that resolves, not to this host.
fn engine_name(known: &Known<'_>, text: &str) -> Result<String, String> {
    let text = check::full_name(text)?;
    if text.eq_ignore_ascii_case(&known.facts.name) {
        return Err(format!("{text} is this host's own name: the engine VM needs one of its own"));
    }
    let addresses = known.lookups.resolve(&text, known.family()).map_err(|why| {
        format!("{text} does not resolve: {why}. Add it to the DNS, or to /etc/hosts of every host")
    })?;
    let own = |address: &&IpAddr| address.is_loopback() || known.facts.addresses.contains(address);
    if let Some(address) = addresses.iter().find(own) {
        return Err(format!(
            "{text} resolves to {address}, which is this host; it must be the engine VM's address"
        ));
    }
    if let Some((fixed, _)) = known.get(keys::VM_ADDRESS).and_then(check::address_with_prefix)
        && !addresses.contains(&fixed)
    {
        let all: Vec<_> = addresses.iter().map(ToString::to_string).collect();
        return Err(format!("{text} resolves to {}, not to the VM's address {fixed}", all.join(", ")));
    }
    Ok(text)
}
