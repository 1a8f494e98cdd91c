//! Further parts of what a whole cluster must do: storage that a host without the VM loses for a while, and the engine VM
//! under a lease of the storage domain's volume of VM leases.

use super::*;

/// Everything that a command prints, whether it succeeds or not.
fn said(sandbox: &Sandbox, words: &[&str]) -> (bool, String) {
    let output = sandbox.run(words);
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    (output.status.success(), text.concat())
}

/// Errors for less time than the leases last, on a host without the VM: it says since when and when it tries again, and
/// goes on by itself.
pub fn a_host_without_the_vm_loses_its_storage_for_a_while(sandbox: &Sandbox) {
    let engine = all_hosts_are_live_and_one_runs_the_engine(sandbox);
    let host = HOSTS.into_iter().find(|host| *host != engine).expect("another host");
    sandbox.ok(&["fail-storage", host]);
    let shown = wait::until("the host to say so", SEEN, || {
        let text = text(sandbox, host);
        text.contains("Storage fails since ").then_some(text)
    });
    assert!(
        shown.contains("; next try at ") && shown.contains("the rows show what was read before"),
        "{shown}"
    );
    let rows = status(sandbox, engine);
    assert_eq!(rows[engine]["engine-status"]["health"], "good", "{rows}");
    sandbox.ok(&["resume-storage", host]);
    wait::until("the host to go on by itself", SEEN, || {
        let well = !text(sandbox, host).contains("Storage fails")
            && status(sandbox, host)[host]["live-data"] == true;
        well.then_some(())
    });
    assert_eq!(all_hosts_are_live_and_one_runs_the_engine(sandbox), engine, "nothing moved");
}

/// Sets or removes `vm` in `[lease]` of ha.toml on hosts 1 and 2, and starts their daemons anew.
fn set_lease(sandbox: &Sandbox, name: Option<&str>) {
    for host in ["1", "2"] {
        let toml = sandbox.dir().join(format!("h{host}/etc/ovirt-hosted-engine-ha/ha.toml"));
        let kept = fs::read_to_string(&toml).expect("ha.toml");
        let with = |name: &str| kept.replace("[lease]\n", &format!("[lease]\nvm = \"{name}\"\n"));
        let changed = name.map_or_else(|| kept.replace("vm = \"engine\"\n", ""), with);
        assert_ne!(changed, kept);
        fs::write(&toml, changed).expect("written");
        for daemon in ["ovirt-ha-broker", "ovirt-ha-agent"] {
            sandbox.ok(&["kill-daemon", host, daemon]);
        }
    }
}

fn ends(sandbox: &Sandbox) {
    let engine = is_good_again(sandbox);
    sandbox.ok(&["exec", "3", "hosted-engine", "--set-maintenance", "--mode=global"]);
    // Every agent has acted on it: none brings the VM back.
    wait::until("all hosts to be in global maintenance", SEEN, || {
        let rows = status(sandbox, "3");
        HOSTS
            .iter()
            .all(|id| {
                rows[*id]["extra"].as_str().is_some_and(|extra| extra.contains("state=GlobalMaintenance"))
            })
            .then_some(())
    });
    sandbox.ok(&["exec", engine, "hosted-engine", "--vm-poweroff"]);
}

/// What is refused at first must be had soon.
fn succeeds(sandbox: &Sandbox, words: &[&str]) -> String {
    wait::until(&words.join(" "), SEEN, || {
        let (is_done, text) = said(sandbox, words);
        is_done.then_some(text)
    })
}

/// Until its row says so, a VM that just ended counts as one that runs.
fn refuses_to_start(sandbox: &Sandbox, host: &str, why: &str) {
    wait::until(&format!("the VM's start to be refused on host {host}: {why}"), SEEN, || {
        let (is_done, text) = said(sandbox, &["exec", host, "hosted-engine", "--vm-start"]);
        assert!(!is_done, "host {host} started the VM: {text}");
        assert!(text.contains(why) || text.contains("it is up on host"), "{text}");
        text.contains(why).then_some(())
    });
}

/// The operator's steps there and back, with two hosts told of the lease and one not.
pub fn the_vm_runs_under_a_lease_of_the_volume_and_under_its_disks_again(sandbox: &Sandbox) {
    let refused = |words: &[&str]| {
        let (is_done, text) = said(sandbox, words);
        assert!(!is_done, "{words:?}: {text}");
        text
    };
    sandbox.ok(&["exec", "1", "hosted-engine", "--lease-format"]);
    sandbox.ok(&["exec", "1", "hosted-engine", "--lease-create", "engine"]);
    let running = refused(&["exec", "2", "hosted-engine", "--lease-use", "engine"]);
    assert!(running.contains("must be free: shut the engine VM down"), "{running}");
    ends(sandbox);
    succeeds(sandbox, &["exec", "2", "hosted-engine", "--lease-use", "engine"]);
    set_lease(sandbox, Some("engine"));
    // No lease is left that a host without the setting could take.
    refuses_to_start(sandbox, "3", "hosted-engine --lease-use gave the VM another one");
    succeeds(sandbox, &["exec", "1", "hosted-engine", "--vm-start"]);
    sandbox.ok(&["exec", "3", "hosted-engine", "--set-maintenance", "--mode=none"]);
    assert_eq!(is_good_again(sandbox), "1");
    let shown = sandbox.ok(&["exec", "3", "hosted-engine", "--lease-info", "engine"]);
    assert!(shown.contains("status    EXCLUSIVE\nowner     host 1 "), "{shown}");
    // The agent's own start, under the same lease.
    play(sandbox, "kill-vm", Harm::Sure);
    assert!(sandbox.ok(&["exec", "3", "hosted-engine", "--lease-info", "engine"]).contains("EXCLUSIVE"));
    let unlike = |host: &str, other: &str| {
        wait::until("the hosts to warn of each other's settings", SEEN, || {
            let text = text(sandbox, host);
            let named = format!("(id {other}) has other [lease] settings in ha.toml");
            (text.contains(&named) && text.contains("vm = \"engine\"")).then_some(())
        });
    };
    unlike("1", "3");
    unlike("3", "1");

    ends(sandbox);
    succeeds(sandbox, &["exec", "1", "hosted-engine", "--lease-use", "--disk"]);
    refuses_to_start(sandbox, "1", "still holds the lease of the VM's disk");
    set_lease(sandbox, None);
    succeeds(sandbox, &["exec", "3", "hosted-engine", "--vm-start"]);
    sandbox.ok(&["exec", "3", "hosted-engine", "--set-maintenance", "--mode=none"]);
    assert_eq!(is_good_again(sandbox), "3");
    sandbox.ok(&["exec", "1", "hosted-engine", "--lease-remove", "engine"]);
}

/// The VM moves, alive, and the others forget the host.
pub fn the_host_with_the_vm_is_taken_out(sandbox: &Sandbox) {
    let host = all_hosts_are_live_and_one_runs_the_engine(sandbox);
    let text = succeeds(sandbox, &["exec", host, "hosted-engine", "--undeploy", "--yes"]);
    assert!(
        text.contains("it moves to another one first") && text.contains("the engine VM has moved to "),
        "{text}"
    );
    let seen_from = if host == "3" { "1" } else { "3" };
    wait::until("a good engine elsewhere, and two hosts", WELL, || {
        let rows = status(sandbox, seen_from);
        let good = HOSTS.into_iter().filter(|id| rows[*id]["engine-status"]["health"] == "good");
        (rows[host].is_null() && good.count() == 1).then_some(())
    });
    assert!(!said(sandbox, &["exec", host, "hosted-engine", "--check-deployed"]).0);
}

/// The storage is VDSM's: it lets go of it.
pub fn a_host_of_vdsm_without_the_vm_is_taken_out(sandbox: &Sandbox) {
    let engine = is_good_again(sandbox);
    let host = HOSTS.into_iter().find(|host| *host != engine).expect("another host");
    let text = succeeds(sandbox, &["exec", host, "hosted-engine", "--undeploy", "--yes"]);
    assert!(text.contains("Taken back: VDSM's connection to sandbox:/storage"), "{text}");
    let mounts = sandbox.dir().join(format!("h{host}/rhev/data-center/mnt"));
    assert_eq!(fs::read_dir(mounts).expect("VDSM's directory").count(), 0);
    wait::until("two hosts, and the same engine", WELL, || {
        let rows = status(sandbox, engine);
        (rows[host].is_null() && rows[engine]["engine-status"]["health"] == "good").then_some(())
    });
    assert!(!said(sandbox, &["exec", host, "hosted-engine", "--check-deployed"]).0);
}
