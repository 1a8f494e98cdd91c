//! What a former deployment left, and an engine VM that runs already.

use std::fs;

use ha_config::HostedEngineConf;

use super::{Finding, Host};
use crate::deploy::Journal;

/// Name of the engine's VM.
const VM_NAME: &str = "HostedEngine";

pub(super) fn check(host: &Host<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    let journal = host.paths.deploy_journal();
    match Journal::read(&journal) {
        Ok(Some(story)) if story.outcome.is_none() => found.push(Finding::blocker(
            format!("a deployment of this host was begun and is not over ({})", journal.display()),
            "go on with hosted-engine --deploy --resume, or take it back with hosted-engine --deploy --undo",
        )),
        Ok(_) => {}
        Err(error) => {
            found.push(Finding::blocker(error.to_string(), "a deployment cannot be written down there"));
        }
    }
    match HostedEngineConf::load(host.paths) {
        Err(error) if error.is_not_found() => {}
        Err(error) => found
            .push(Finding::blocker(error.to_string(), "correct or remove this file of a former deployment")),
        Ok(conf) => match conf.host_id() {
            Ok(Some(id)) => found.push(Finding::blocker(
                format!("this host is deployed already, as number {id}"),
                "see hosted-engine --vm-status; to deploy it anew, run hosted-engine --undeploy first",
            )),
            Ok(None) if conf.file().entries().next().is_none() => {}
            _ => found.push(Finding::warning(
                format!("{} is left of a former deployment", host.paths.hosted_engine_conf().display()),
                "it is replaced; keep a copy when you need it",
            )),
        },
    }
    found.extend(judge_processes(&processes()));
    found
}

/// Command lines, each with its process id. Those that end while they are read are not there.
fn processes() -> Vec<(u32, Vec<String>)> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    pids.filter_map(|pid| {
        let bytes = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let words = bytes.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned());
        Some((pid, words.collect()))
    })
    .collect()
}

fn judge_processes(processes: &[(u32, Vec<String>)]) -> Option<Finding> {
    let is_engine = |words: &[String]| {
        words[0].contains("qemu")
            && words.windows(2).any(|pair| {
                let name = pair[1].split(',').next().unwrap_or_default();
                pair[0] == "-name" && name.strip_prefix("guest=").unwrap_or(name) == VM_NAME
            })
    };
    let (pid, _) = processes.iter().find(|(_, words)| !words.is_empty() && is_engine(words))?;
    Some(Finding::blocker(
        format!("an engine VM runs on this host already (process {pid})"),
        "see who started it (virsh list, hosted-engine --vm-status); there must never be two",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deploy::fixture::Fixture;
    use crate::deploy::testing::Recorded;

    fn words(line: &str) -> Vec<String> {
        line.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn a_running_engine_vm_is_seen_whoever_started_it() {
        for line in [
            "/usr/libexec/qemu-kvm -name guest=HostedEngine,debug-threads=on -S",
            "qemu-system-x86_64 -name HostedEngine",
        ] {
            let found = judge_processes(&[(1, words("init")), (77, words(line))]).unwrap();
            assert!(found.what.contains("process 77"), "{found:?}");
        }
        let others = [
            (2, words("qemu-system-x86_64 -name guest=HostedEngine2")),
            (3, words("vi -name HostedEngine")),
            (4, vec![]),
        ];
        assert_eq!(judge_processes(&others), None);
    }

    #[test]
    fn what_a_former_deployment_left_is_told_with_the_way_on() {
        let fixture = Fixture::new();
        let tools = Recorded::default();
        let host = Host { paths: &fixture.paths, tools: &tools, request: &fixture.request };
        let told = |host: &Host<'_>| {
            check(host).into_iter().map(|finding| finding.to_string()).collect::<Vec<_>>().join("\n")
        };
        let clean = told(&host);
        drop(Journal::begin(&fixture.paths.deploy_journal(), 0, fixture.request.clone()).unwrap());
        fs::create_dir_all(fixture.paths.hosted_engine_conf_dir()).unwrap();
        fs::write(fixture.paths.hosted_engine_conf(), "host_id=3\n").unwrap();
        let left = told(&host);
        assert!(
            left.contains("--deploy --resume") && left.contains("deployed already, as number 3"),
            "{left}"
        );
        assert!(!clean.contains("resume") && !clean.contains("deployed already"), "{clean}");
    }
}
