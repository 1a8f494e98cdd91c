//! nftables, through `nft`, where a file of the distribution makes the rules at boot.

use std::path::{Path, PathBuf};

use ha_config::{Paths, Secret};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Manager, Ports};
use crate::deploy::made::{ChangedFile, MadeFile, Undo, Undone};
use crate::deploy::{Call, DeployError, Job, ToolError, Tools, World};

/// Where distributions have the file that nftables.service loads: Debian, Fedora.
const CONFIGURATIONS: [&str; 2] = ["/etc/nftables.conf", "/etc/sysconfig/nftables.conf"];
/// Ours, included by it.
const OURS: &str = "/etc/nftables-hosted-engine.nft";
/// What stands on our rules.
const COMMENT: &str = "hosted-engine";

/// An input chain that may refuse.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chain {
    family: String,
    table: String,
    name: String,
}

impl Chain {
    fn words(&self) -> String {
        format!("{} {} {}", self.family, self.table, self.name)
    }
}

/// Where to open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chains {
    chains: Vec<Chain>,
    configuration: PathBuf,
}

/// Our rules in the kernel. The files are things of their own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenedChains {
    chains: Vec<Chain>,
}

fn ruleset(tools: &dyn Tools) -> Result<Option<Vec<Value>>, DeployError> {
    let call = Call::new("nft").args(["-j", "list", "ruleset"]);
    let said = match tools.run(&call) {
        Ok(said) => said.out,
        Err(ToolError::Missing { .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let mut all: Value = serde_json::from_str(&said)
        .map_err(|error| DeployError::Refused(format!("`{call}` answers in an unknown way: {error}")))?;
    match all.get_mut("nftables").map(Value::take) {
        Some(Value::Array(objects)) => Ok(Some(objects)),
        _ => Err(DeployError::Refused(format!(
            "`{call}` answers in an unknown way: there is no nftables in it"
        ))),
    }
}

/// The chains that decide about what comes to this host and may say no.
fn refusing(ruleset: &[Value]) -> Vec<Chain> {
    let of =
        |object: &Value, key: &str| object.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let chains = ruleset.iter().filter_map(|object| object.get("chain"));
    chains
        .filter(|chain| of(chain, "hook") == "input" && of(chain, "type") == "filter")
        .filter(|chain| matches!(of(chain, "family").as_str(), "inet" | "ip" | "ip6"))
        .filter(|chain| {
            let is_of_it = |rule: &&Value| {
                ["family", "table"].iter().all(|key| of(rule, key) == of(chain, key))
                    && of(rule, "chain") == of(chain, "name")
            };
            let rules = ruleset.iter().filter_map(|object| object.get("rule"));
            of(chain, "policy") == "drop" || rules.filter(is_of_it).any(may_refuse)
        })
        .map(|chain| Chain {
            family: of(chain, "family"),
            table: of(chain, "table"),
            name: of(chain, "name"),
        })
        .collect()
}

/// The first chain with a rule for what goes through `card` and none for what goes through `bridge`, behind which the card
/// will be seen no more. firewalld's own rules are made anew from its zones.
fn only_of_card(ruleset: &[Value], card: &str, bridge: &str) -> Option<Chain> {
    let rules: Vec<&Value> = ruleset.iter().filter_map(|object| object.get("rule")).collect();
    let of = |rule: &Value, key: &str| rule.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let chain = |rule: &Value| Chain {
        family: of(rule, "family"),
        table: of(rule, "table"),
        name: of(rule, "chain"),
    };
    let names = |rule: &Value, link: &str| {
        let parts = rule.get("expr").and_then(Value::as_array).into_iter().flatten();
        parts.filter_map(|part| part.get("match")).any(|matched| {
            let key = matched.pointer("/left/meta/key").and_then(Value::as_str);
            matches!(key, Some("iif" | "iifname" | "oif" | "oifname"))
                && matched.get("right").is_some_and(|right| holds(right, link))
        })
    };
    let of_card = rules.iter().filter(|rule| names(rule, card)).map(|rule| chain(rule));
    of_card
        .filter(|found| found.table != "firewalld")
        .find(|found| !rules.iter().any(|rule| chain(rule) == *found && names(rule, bridge)))
}

/// Whether a name, or a set of them, holds this one.
fn holds(value: &Value, name: &str) -> bool {
    match value {
        Value::String(text) => match text.strip_suffix('*') {
            Some(begin) => name.starts_with(begin),
            None => text == name,
        },
        Value::Array(values) => values.iter().any(|value| holds(value, name)),
        Value::Object(parts) => parts.values().any(|value| holds(value, name)),
        _ => false,
    }
}

/// Where rules of nftables name a card, as [`only_of_card`] tells, in words.
pub(super) fn rules_of_card(tools: &dyn Tools, card: &str, bridge: &str) -> Option<String> {
    // A host whose nft does not answer is told so by the firewall's own step.
    let ruleset = ruleset(tools).ok().flatten()?;
    only_of_card(&ruleset, card, bridge).map(|chain| chain.words())
}

/// It drops, rejects, or leads on to rules that may.
fn may_refuse(rule: &Value) -> bool {
    let parts = rule.get("expr").and_then(Value::as_array).into_iter().flatten();
    let verdicts = ["drop", "reject", "jump", "goto", "vmap", "queue", "xt"];
    parts.filter_map(Value::as_object).any(|part| verdicts.iter().any(|verdict| part.contains_key(*verdict)))
}

pub(super) fn find(paths: &Paths, tools: &dyn Tools) -> Result<Manager, DeployError> {
    // Rules of the older kind are not seen by nft.
    let legacy: Vec<&str> = ["/proc/net/ip_tables_names", "/proc/net/ip6_tables_names"]
        .into_iter()
        .filter(|path| {
            std::fs::read_to_string(path).is_ok_and(|tables| tables.lines().any(|table| table == "filter"))
        })
        .collect();
    let Some(ruleset) = ruleset(tools)? else {
        return Ok(if legacy.is_empty() {
            Manager::Nobody
        } else {
            Manager::Other("rules of iptables may refuse what comes in".to_owned())
        });
    };
    judge(paths, tools, &refusing(&ruleset), !legacy.is_empty())
}

fn judge(
    paths: &Paths,
    tools: &dyn Tools,
    chains: &[Chain],
    is_legacy: bool,
) -> Result<Manager, DeployError> {
    let other = |text: String| Ok(Manager::Other(text));
    if is_legacy {
        return other("rules of the older iptables may refuse what comes in".to_owned());
    }
    let Some(first) = chains.first() else { return Ok(Manager::Nobody) };
    if let Some(chain) = chains.iter().find(|chain| chain.name == "INPUT") {
        let by_ufw = match tools.ask(&Call::new("ufw").arg("status")) {
            Ok(said) => said.out.starts_with("Status: active"),
            Err(ToolError::Missing { .. }) => false,
            Err(error) => return Err(error.into()),
        };
        let how = if by_ufw {
            "ufw manages the firewall (ufw allow PORT/tcp, with : for - in a range)"
        } else {
            "iptables manages the firewall"
        };
        return other(format!("{how}, and its chain {} may refuse what comes in", chain.words()));
    }
    let configuration = CONFIGURATIONS.iter().map(|path| paths.resolve(path)).find(|path| path.is_file());
    let Some(configuration) = configuration else {
        return other(format!(
            "nftables' chain {} may refuse what comes in, and neither {} makes it",
            first.words(),
            CONFIGURATIONS.join(" nor ")
        ));
    };
    // What the file says is asked of nft itself, in a namespace without rules, because includes may be anywhere.
    let dry = Call::new("unshare")
        .args(["--net", "sh", "-c", "nft -f \"$0\" && exec nft list ruleset"])
        .arg(&configuration);
    let made = tools.ask(&dry)?;
    let missing = chains.iter().find(|chain| {
        let mut table = "";
        !made.out.lines().any(|line| {
            if line.starts_with("table ") {
                table = line;
            }
            table == format!("table {} {} {{", chain.family, chain.table)
                && line.trim() == format!("chain {} {{", chain.name)
        })
    });
    if let Some(chain) = missing {
        return other(format!(
            "nftables' chain {} may refuse what comes in, and {} does not make it",
            chain.words(),
            configuration.display()
        ));
    }
    Ok(Manager::Nftables(Chains { chains: chains.to_vec(), configuration }))
}

/// What `nft -f` reads: at the head of each chain, before whatever refuses.
fn script(chains: &[Chain], ports: &[Ports]) -> String {
    let list: Vec<String> = ports.iter().map(Ports::to_string).collect();
    let rule = format!("tcp dport {{ {} }} accept comment \"{COMMENT}\"", list.join(", "));
    let insert = |chain: &Chain| ["insert rule ", &chain.words(), " ", &rule, "\n"].concat();
    chains.iter().map(insert).collect()
}

pub(super) fn open(job: &mut Job<'_>, found: Chains, ports: &[Ports]) -> Result<(), DeployError> {
    let Chains { chains, configuration } = found;
    let commands = script(&chains, ports);
    let ours = job.world.paths.resolve(OURS);
    let content =
        format!("# Written by hosted-engine --deploy: what the other hosts need from this one.\n{commands}");
    job.make(MadeFile { path: ours.clone(), content: Some(content.clone()) }, |_| write(&ours, &content))?;

    let before = std::fs::read_to_string(&configuration).map_err(DeployError::io("read", &configuration))?;
    let end = if before.ends_with('\n') || before.is_empty() { "" } else { "\n" };
    let after = format!("{before}{end}include \"{}\"\n", ours.display());
    job.make(ChangedFile { path: configuration.clone(), before, after: after.clone() }, |_| {
        write(&configuration, &after)
    })?;

    job.make(OpenedChains { chains }, |world| {
        world.tools.run(&Call::new("nft").args(["-f", "-"]).input(Secret::new(commands)))?;
        Ok(())
    })
}

fn write(path: &Path, text: &str) -> Result<(), DeployError> {
    Ok(ha_config::atomic::write(path, text.as_bytes(), ha_config::atomic::Mode::KeepOr644)?)
}

impl Undo for OpenedChains {
    fn describe(&self) -> String {
        let chains: Vec<String> = self.chains.iter().map(Chain::words).collect();
        format!("rules of nftables in {}", chains.join(", "))
    }

    fn describe_undo(&self) -> String {
        format!("those with the comment {COMMENT:?} are deleted")
    }

    fn undo(&self, world: &World<'_>) -> Result<Undone, DeployError> {
        let Some(ruleset) = ruleset(world.tools)? else { return Ok(Undone::Absent) };
        let mut undone = Undone::Absent;
        for rule in ruleset.iter().filter_map(|object| object.get("rule")) {
            let of = |key: &str| rule.get(key).and_then(Value::as_str).unwrap_or_default();
            let chain =
                Chain { family: of("family").into(), table: of("table").into(), name: of("chain").into() };
            if of("comment") == COMMENT
                && self.chains.contains(&chain)
                && let Some(handle) = rule.get("handle").and_then(Value::as_u64)
            {
                let call = Call::new("nft").args([
                    "delete",
                    "rule",
                    &chain.family,
                    &chain.table,
                    &chain.name,
                    "handle",
                ]);
                world.tools.run(&call.arg(handle.to_string()))?;
                undone = Undone::TakenBack;
            }
        }
        Ok(undone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deploy::testing::Recorded;

    fn rule(chain: &str, expr: &str) -> String {
        format!(
            r#"{{"rule":{{"family":"inet","table":"filter","chain":"{chain}","handle":7,"expr":[{expr}]}}}}"#
        )
    }

    fn chain(name: &str, policy: &str) -> String {
        format!(
            r#"{{"chain":{{"family":"inet","table":"filter","name":"{name}","handle":1,"type":"filter","hook":"input","prio":0,"policy":"{policy}"}}}}"#
        )
    }

    fn of(objects: &[String]) -> Vec<Chain> {
        let text = format!(r#"{{"nftables":[{{"metainfo":{{}}}},{}]}}"#, objects.join(","));
        let tools = Recorded::new(&[("nft -j list ruleset", 0, &text, "")]);
        refusing(&ruleset(&tools).unwrap().unwrap())
    }

    #[test]
    fn only_a_chain_that_may_say_no_is_opened() {
        let accept = rule("input", r#"{"accept":null}"#);
        assert_eq!(of(&[chain("input", "accept"), accept.clone()]), []);
        assert_eq!(of(&[chain("input", "drop")])[0].words(), "inet filter input");
        assert_eq!(of(&[chain("input", "accept"), rule("input", r#"{"reject":{"type":"icmpx"}}"#)]).len(), 1);
        assert_eq!(of(&[chain("input", "accept"), rule("input", r#"{"jump":{"target":"more"}}"#)]).len(), 1);
        assert_eq!(of(&[chain("input", "accept"), rule("forward", r#"{"drop":null}"#)]), []);
        assert_eq!(of(&[chain("input", "drop").replace("\"input\",\"prio\"", "\"forward\",\"prio\"")]), []);
    }

    #[test]
    fn a_chain_that_names_the_card_alone_would_not_know_the_bridge() {
        let named = |key: &str, right: &str| {
            rule(
                "input",
                &format!(
                    r#"{{"match":{{"op":"==","left":{{"meta":{{"key":"{key}"}}}},"right":{right}}}}},{{"accept":null}}"#
                ),
            )
        };
        let card = named("iifname", r#""eth0""#);
        let of = |rules: &[&str]| {
            let text = format!(r#"{{"nftables":[{}]}}"#, rules.join(","));
            let tools = Recorded::new(&[("nft -j list ruleset", 0, &text, "")]);
            rules_of_card(&tools, "eth0", "ovirtmgmt")
        };
        assert_eq!(of(&[&card]).as_deref(), Some("inet filter input"));
        assert!(of(&[&named("oif", r#"{"set":["eth1","eth0"]}"#)]).is_some());
        assert!(of(&[&named("iifname", r#""eth*""#)]).is_some());
        // It knows both, or is no matter of the card, or is firewalld's.
        assert_eq!(of(&[&card, &named("iifname", r#""ovirtmgmt""#)]), None);
        assert_eq!(of(&[&named("iifname", r#""eth01""#), &named("mark", r#""eth0""#)]), None);
        assert_eq!(of(&[&card.replace(r#""table":"filter""#, r#""table":"firewalld""#)]), None);
    }

    #[test]
    fn rules_that_are_somebody_elses_are_left_to_him() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::new(root.path());
        let chains =
            |name: &str| vec![Chain { family: "ip".into(), table: "filter".into(), name: name.into() }];
        let other =
            |tools: &Recorded, chains: &[Chain], is_legacy| match judge(&paths, tools, chains, is_legacy)
                .unwrap()
            {
                Manager::Other(who) => who,
                found => panic!("{found:?}"),
            };
        let none = Recorded::default();
        assert!(other(&none, &[], true).contains("older iptables"));
        assert!(other(&none, &chains("input"), false).contains("neither /etc/nftables.conf nor"));
        let ufw = Recorded::new(&[("ufw status", 0, "Status: active\n", "")]);
        assert!(other(&ufw, &chains("INPUT"), false).starts_with("ufw manages"));
        let ufw = Recorded::new(&[("ufw status", 0, "Status: inactive\n", "")]);
        assert!(other(&ufw, &chains("INPUT"), false).starts_with("iptables manages"));
        std::fs::create_dir(root.path().join("etc")).unwrap();
        let file = root.path().join("etc/nftables.conf");
        std::fs::write(&file, "").unwrap();
        let call = format!("unshare --net sh -c 'nft -f \"$0\" && exec nft list ruleset' {}", file.display());
        let dry = Recorded::new(&[(&call, 0, "table inet filter {\n\tchain input {\n\t}\n}\n", "")]);
        assert!(other(&dry, &chains("input"), false).ends_with("nftables.conf does not make it"));
        assert_eq!(judge(&paths, &none, &[], false).unwrap(), Manager::Nobody);
    }
}
