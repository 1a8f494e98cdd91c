//! ifupdown: /etc/network/interfaces and what it includes.
//!
//! The card's stanzas become the bridge's, word for word, so that addresses, routes (`up ip route …`) and name servers
//! stay as they were written; the card gets a stanza without addresses. The bridge is made by `pre-up` lines, which
//! need no further package. `ifdown` runs on the old text and `ifup` on the new one: what the gateway test then sees is
//! what the next boot makes.

use std::path::PathBuf;

use ha_config::Paths;
use serde::{Deserialize, Serialize};

use super::{KeptFile, MadeBridge, take_back_all, write_all};
use crate::deploy::made::ChangedFile;
use crate::deploy::network::plan::Nic;
use crate::deploy::{Call, DeployError, Tools};

/// What is changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stanzas {
    files: Vec<KeptFile>,
}

/// The changed files, when ifupdown runs the card.
pub(super) fn find(
    paths: &Paths,
    tools: &dyn Tools,
    nic: &Nic,
    bridge: &str,
) -> Result<Option<Stanzas>, DeployError> {
    let mut files = Vec::new();
    let mut is_made = false;
    for path in all_files(paths)? {
        let before = std::fs::read_to_string(&path).map_err(DeployError::io("read", &path))?;
        let after = bridged(&before, nic, bridge, &mut is_made);
        if after != before {
            files.push(KeptFile::Changed(ChangedFile { path, before, after }));
        }
    }
    if !is_made {
        return Ok(None);
    }
    if tools.ask(&Call::new("ifquery").arg("--list")).is_err() {
        return Err(DeployError::Refused(format!(
            "{} is in /etc/network/interfaces, but ifupdown is not installed: install it, or take the card out of the file",
            nic.name
        )));
    }
    Ok(Some(Stanzas { files }))
}

fn all_files(paths: &Paths) -> Result<Vec<PathBuf>, DeployError> {
    let main = paths.resolve("/etc/network/interfaces");
    let text = match std::fs::read_to_string(&main) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(DeployError::io("read", &main))?,
    };
    let mut files = vec![main];
    let directory = paths.resolve("/etc/network/interfaces.d");
    if text.lines().any(|line| line.trim().starts_with("source") && line.contains("interfaces.d"))
        && let Ok(entries) = std::fs::read_dir(&directory)
    {
        let mut more: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        more.retain(|path| path.is_file());
        more.sort();
        files.append(&mut more);
    }
    Ok(files)
}

/// The text with the card's stanzas given to the bridge; `is_made` once the bridge has one that makes it.
fn bridged(text: &str, nic: &Nic, bridge: &str, is_made: &mut bool) -> String {
    let name = nic.name.as_str();
    let mut new = String::new();
    for line in text.split_inclusive('\n') {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            // With hotplug it would come with the card's driver; the bridge comes with the others at boot.
            ["auto" | "allow-auto" | "allow-hotplug", names @ ..] if names.contains(&name) => {
                let others: Vec<&str> = names.iter().copied().filter(|other| *other != name).collect();
                if !others.is_empty() {
                    new.extend([words[0], " ", &others.join(" "), "\n"]);
                }
                new.extend(["auto ", bridge, "\n"]);
            }
            ["iface", of, rest @ ..] if *of == name => {
                if !*is_made {
                    new.extend(["iface ", name, " inet manual\n\n"]);
                }
                new.extend(["iface ", bridge, " ", &rest.join(" "), "\n"]);
                if !*is_made {
                    new.push_str(&making(nic, bridge));
                }
                *is_made = true;
            }
            _ => new.push_str(line),
        }
    }
    new
}

fn making(nic: &Nic, bridge: &str) -> String {
    format!(
        "    # A bridge over {name}, made by hosted-engine --deploy.\n    \
         pre-up ip link show dev {bridge} >/dev/null 2>&1 || ip link add name {bridge} address {mac} type bridge stp_state 0 forward_delay 0\n    \
         pre-up ip link set dev {name} master {bridge} up\n    \
         post-down ip link delete dev {bridge}\n",
        name = nic.name,
        mac = nic.mac
    )
}

impl Stanzas {
    pub(super) fn make(&self, made: &MadeBridge, tools: &dyn Tools) -> Result<(), DeployError> {
        // It complains of what somebody else has taken down before.
        tools.ask(&Call::new("ifdown").arg("--force").arg(&made.nic.name))?;
        write_all(&self.files)?;
        tools.run(&Call::new("ifup").arg(&made.bridge))?;
        Ok(())
    }

    pub(super) fn forget(&self, made: &MadeBridge, tools: &dyn Tools) -> Result<Option<String>, DeployError> {
        tools.ask(&Call::new("ifdown").arg(&made.bridge))?;
        tools.ask(&Call::new("ip").args(["link", "delete", "dev"]).arg(&made.bridge))?;
        let left = take_back_all(&self.files)?;
        tools.ask(&Call::new("ifup").arg(&made.nic.name))?;
        Ok(left)
    }
}
