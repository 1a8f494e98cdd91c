//! `--fence-status` and `--fence-host`: what is refused, what is asked, what is said. The agent is a shell script.

use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use broker_api::BrokerClient;
use broker_api::status::StorageState;
use ha_config::Paths;
use hosted_engine_cli::fence::{Answer, Deed, FenceHostArgs, FenceStatusArgs, Host, status, switch_host};
use hosted_engine_cli::terminal::{Exit, Record, Terminal};
use metadata_format::HostId;
use tempfile::TempDir;

use crate::fake_broker::{FakeBroker, State};
use crate::{DOWN, UP, block, cluster_block, named_block};

/// An agent whose switch is a file beside it, which holds on, off, or broken.
const AGENT: &str = r#"#!/bin/sh
dir=${0%/*}
input=$(cat)
action=$(printf '%s\n' "$input" | sed -n 's/^action=//p')
plug=$(printf '%s\n' "$input" | sed -n 's/^plug=//p')
power=$dir/power$plug
[ "$action" = metadata ] || printf '%s\n' "$action$plug" >>"$dir/log"
case $action in
metadata) cat <<END
<resource-agent name="fence_toy"><parameters>
<parameter name="plug"><content type="string"/></parameter><parameter name="password"><content type="string"/></parameter>
</parameters><actions><action name="on"/><action name="off"/><action name="monitor"/>
$([ -e "$dir/blind" ] || echo '<action name="status"/>')</actions></resource-agent>
END
;;
status) case $(cat "$power") in on) exit 0 ;; off) exit 2 ;; *) echo "no answer for $input" >&2; exit 1 ;; esac ;;
on | off) echo "$action" >"$power" ;;
esac
"#;

/// Host 1 of a cluster, with ha.toml and an agent.
struct Lab {
    root: TempDir,
    paths: Paths,
    broker: FakeBroker,
}

impl Lab {
    /// Each entry is the lines of one `[[fencing.host]]`.
    fn new(state: State, entries: &[&str]) -> Self {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::new(root.path());
        let agent = root.path().join("fence_toy");
        // By another process: the kernel starts no file that a process forked off this one still has open.
        let mut writer = Command::new("/bin/sh")
            .args(["-c", "cat >\"$1\" && chmod 755 \"$1\"", "sh"])
            .arg(&agent)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        writer.stdin.take().unwrap().write_all(AGENT.as_bytes()).unwrap();
        assert!(writer.wait().unwrap().success());
        let text = |lines: &&str| format!("[[fencing.host]]\nagent = \"{}\"\n{lines}\n", agent.display());
        fs::create_dir_all(paths.ha_conf_dir()).unwrap();
        fs::write(paths.ha_toml(), entries.iter().map(text).collect::<String>()).unwrap();
        for power in ["power", "power1", "power2"] {
            fs::write(root.path().join(power), "on\n").unwrap();
        }
        Self { root, paths, broker: FakeBroker::start(state) }
    }

    fn set(&self, file: &str, text: &str) {
        fs::write(self.root.path().join(file), text).unwrap();
    }

    fn host(&self) -> Host<'_> {
        Host { paths: &self.paths, id: HostId::new(1).unwrap(), broker: &self.broker.client }
    }

    /// Runs `--fence-host`; gives what was asked, too.
    async fn fence(&self, args: FenceHostArgs, answer: Answer) -> (Exit, Record, Vec<String>) {
        let mut terminal = Terminal::recording();
        let mut asked = Vec::new();
        let mut ask = |question: &str| {
            asked.push(question.to_owned());
            answer
        };
        let exit = switch_host(&args, &self.host(), &mut ask, &mut terminal).await.unwrap();
        (exit, terminal.recorded(), asked)
    }

    async fn status(&self, id: Option<u16>) -> (Exit, Record) {
        let mut terminal = Terminal::recording();
        let args = FenceStatusArgs { host_id: id.map(|id| HostId::new(id).unwrap()) };
        let exit = status(&args, &self.host(), &mut terminal).await.unwrap();
        (exit, terminal.recorded())
    }

    /// What agents were asked to do.
    fn log(&self) -> String {
        let text = fs::read_to_string(self.root.path().join("log")).unwrap_or_default();
        text.lines().collect::<Vec<_>>().join(" ")
    }
}

fn cluster(engine_on_2: &str) -> State {
    let blocks = [(0, cluster_block(false)), (1, block(1, DOWN, 3400)), (2, block(2, engine_on_2, 900))];
    State { blocks: blocks.into(), alive: vec![1, 2], ours: true, ..State::default() }
}

fn args(id: u16, action: Deed) -> FenceHostArgs {
    FenceHostArgs { host_id: HostId::new(id).unwrap(), action, yes: false, force: false }
}

const TWO: &[&str] = &["host_id = 2"];

#[tokio::test]
async fn a_host_is_switched_off_after_a_yes() {
    let lab = Lab::new(cluster(DOWN), TWO);
    let (exit, said, asked) = lab.fence(args(2, Deed::Off), Answer::Yes).await;
    assert_eq!(exit, Exit::OK, "{said:?}");
    assert_eq!(asked, ["Host 2 (h2) is switched off, and all that runs on it ends at once."]);
    let lines: Vec<_> = said.out.lines().map(|line| line.split(" after ").next().unwrap()).collect();
    assert_eq!(lines, ["off: asked fence_toy", "off: confirmed", "Host 2 (h2): the power is off"]);
    assert_eq!(said.err, "");
    let (exit, said, asked) = lab.fence(args(2, Deed::Status), Answer::No).await;
    assert_eq!((exit, said.out.as_str()), (Exit(2), "Host 2 (h2): the power is off\n"));
    assert!(asked.is_empty());
    let (exit, said, asked) = lab.fence(args(2, Deed::On), Answer::No).await;
    assert!(exit == Exit::OK && said.out.ends_with("the power is on\n") && asked.is_empty(), "{said:?}");
    assert_eq!(lab.log(), "off status status on status");
}

#[tokio::test]
async fn nothing_happens_without_a_yes() {
    let lab = Lab::new(cluster(DOWN), TWO);
    let (exit, said, _) = lab.fence(args(2, Deed::Reboot), Answer::No).await;
    assert_eq!((exit, said.err.as_str()), (Exit::FAILED, "Nothing was done\n"));
    let (exit, said, _) = lab.fence(args(2, Deed::Off), Answer::NobodyThere).await;
    assert!(exit == Exit::FAILED && said.err.contains("use --yes when it is meant"), "{said:?}");
    assert_eq!(lab.log(), "");
    let reboot = FenceHostArgs { yes: true, ..args(2, Deed::Reboot) };
    let (exit, _, asked) = lab.fence(reboot, Answer::No).await;
    assert!(exit == Exit::OK && asked.is_empty());
    assert_eq!(lab.log(), "off status on status");
}

#[tokio::test]
async fn a_live_host_with_the_engine_vm_needs_force() {
    let lab = Lab::new(cluster(UP), TWO);
    let (exit, said, _) = lab.fence(args(2, Deed::Off), Answer::Yes).await;
    assert_eq!(exit, Exit::FAILED);
    assert!(
        said.err.starts_with("Refused: host 2 (h2) is alive and runs the engine VM; move it"),
        "{said:?}"
    );
    assert!(said.err.contains("--force does it all the same"), "{said:?}");
    assert_eq!(lab.log(), "");
    let (exit, _, _) = lab.fence(args(2, Deed::Status), Answer::No).await;
    assert_eq!(exit, Exit::OK, "looking is harmless");
    let forced = FenceHostArgs { force: true, ..args(2, Deed::Off) };
    let (exit, said, asked) = lab.fence(forced, Answer::Yes).await;
    assert_eq!((exit, asked.len()), (Exit::OK, 1), "force does not answer the question");
    assert!(said.err.starts_with("Forced, although host 2 (h2) is alive"), "{said:?}");
}

#[tokio::test]
async fn a_stale_row_with_the_engine_vm_needs_no_force() {
    let lab = Lab::new(State { alive: vec![1], ..cluster(UP) }, TWO);
    assert_eq!(lab.fence(args(2, Deed::Off), Answer::Yes).await.0, Exit::OK);
}

#[tokio::test]
async fn what_is_not_known_needs_force() {
    let no_answer = "sure, it is somewhere";
    let stuck = StorageState::Stuck { since: 0, operation: "read".to_owned(), next_try: None };
    for (state, reason) in [
        (cluster(no_answer), "it is alive, and its row does not say"),
        (State { storage: Some(stuck), ..cluster(DOWN) }, "cannot read the shared metadata at present"),
        (
            State { blocks: [(1, block(1, DOWN, 1)), (2, vec![b'x'; 512])].into(), ..cluster(DOWN) },
            "whether host 2 runs the engine VM is not known",
        ),
    ] {
        let lab = Lab::new(state, TWO);
        let (exit, said, _) = lab.fence(args(2, Deed::Reboot), Answer::Yes).await;
        assert_eq!(exit, Exit::FAILED, "{said:?}");
        assert!(said.err.contains(reason), "{reason}: {said:?}");
        assert_eq!(lab.log(), "");
    }
    let lab = Lab::new(cluster(DOWN), TWO);
    let away = BrokerClient::new(lab.root.path().join("no.socket"));
    let host = Host { broker: &away, ..lab.host() };
    let mut terminal = Terminal::recording();
    let exit = switch_host(&args(2, Deed::Off), &host, &mut |_| Answer::Yes, &mut terminal).await.unwrap();
    assert_eq!(exit, Exit::FAILED);
    assert!(terminal.recorded().err.contains("is not known (cannot connect"), "{:?}", terminal.recorded());
}

#[tokio::test]
async fn this_host_is_never_switched_not_even_by_force() {
    let lab = Lab::new(cluster(DOWN), &["host_id = 1", "host_id = 2"]);
    let forced = FenceHostArgs { force: true, yes: true, ..args(1, Deed::Off) };
    let (exit, said, _) = lab.fence(forced, Answer::Yes).await;
    assert_eq!(exit, Exit::FAILED);
    assert!(said.err.starts_with("Refused: host 1 is this host"), "{said:?}");
    assert_eq!(lab.log(), "");
    assert_eq!(lab.fence(args(1, Deed::Status), Answer::No).await.0, Exit::OK);

    let renumbered = State {
        blocks: [(1, block(1, DOWN, 1)), (2, named_block(2, "h1", DOWN, 1))].into(),
        ..cluster(DOWN)
    };
    let lab = Lab::new(renumbered, TWO);
    let forced = FenceHostArgs { force: true, yes: true, ..args(2, Deed::Reboot) };
    let (exit, said, _) = lab.fence(forced, Answer::Yes).await;
    assert_eq!(exit, Exit::FAILED);
    assert!(said.err.contains("has the name of this host, h1"), "{said:?}");
    assert_eq!(lab.log(), "");
}

#[tokio::test]
async fn a_name_that_two_rows_have_names_nobody() {
    let twins = [(1, block(1, DOWN, 1)), (2, block(2, DOWN, 1)), (3, named_block(3, "h2", DOWN, 1))];
    let lab = Lab::new(State { blocks: twins.into(), ..cluster(DOWN) }, &["name = \"h2\""]);
    let (exit, said, _) = lab.fence(args(2, Deed::Off), Answer::Yes).await;
    assert_eq!(exit, Exit::FAILED);
    assert!(said.err.contains("the rows of the hosts 2, 3 have the name h2"), "{said:?}");
    assert_eq!(lab.log(), "");
}

#[tokio::test]
async fn entries_by_name_need_to_know_the_names() {
    let entries = ["name = \"h2\"\nplug = 1\nlevel = 1", "host_id = 2\nplug = 2\nlevel = 1"];
    let lab = Lab::new(State { alive: vec![1], ..cluster(DOWN) }, &entries);
    assert_eq!(lab.fence(args(2, Deed::Off), Answer::Yes).await.0, Exit::OK);
    assert_eq!(lab.log(), "off1 status1 off2 status2");

    let nameless = State { blocks: [(1, block(1, DOWN, 1))].into(), ..cluster(DOWN) };
    let lab = Lab::new(nameless, &entries);
    let (exit, said, _) = lab.fence(args(2, Deed::Off), Answer::Yes).await;
    assert_eq!(exit, Exit::FAILED);
    assert!(said.err.contains("its row has no name). Use host_id in these entries"), "{said:?}");
    assert_eq!(lab.log(), "");
}

#[tokio::test]
async fn a_failure_is_told_with_its_reason_and_without_the_password() {
    let lab = Lab::new(cluster(DOWN), &["host_id = 2\npassword_file = \"/etc/fence.password\""]);
    let password = lab.root.path().join("etc/fence.password");
    fs::write(&password, "hunter2\n").unwrap();
    fs::set_permissions(&password, Permissions::from_mode(0o644)).unwrap();
    let (exit, said, _) = lab.fence(args(2, Deed::Status), Answer::No).await;
    assert_eq!(exit, Exit::FAILED);
    assert!(said.err.contains("has mode 0644"), "{said:?}");

    fs::set_permissions(&password, Permissions::from_mode(0o600)).unwrap();
    lab.set("power", "broken");
    let (exit, said, _) = lab.fence(args(2, Deed::Status), Answer::No).await;
    assert_eq!(exit, Exit::FAILED);
    assert!(said.err.contains("password=(secret)") && !said.err.contains("hunter2"), "{said:?}");
    assert!(said.err.contains("Host 2 (h2): \"status\" failed at every level"), "{said:?}");
}

#[tokio::test]
async fn status_has_a_line_for_each_switch() {
    let lab = Lab::new(cluster(UP), &["host_id = 2\nplug = 1", "name = \"h2\"\nplug = 2", "host_id = 5"]);
    lab.set("power2", "off\n");
    let (exit, said) = lab.status(Some(2)).await;
    assert_eq!(exit, Exit::OK);
    assert_eq!(
        said.out,
        "Host 2 (h2)\n    level 1: fence_toy plug 1: the power is on\n    level 2: fence_toy plug 2: the power is off\n"
    );
    lab.set("power2", "broken\n");
    let (exit, said) = lab.status(Some(2)).await;
    assert!(exit == Exit::FAILED && said.out.contains("failed at \"status\": exit code 1"), "{said:?}");

    lab.set("blind", "");
    let (exit, said) = lab.status(Some(2)).await;
    assert!(exit == Exit::OK && said.out.contains("its device answers; this agent cannot tell"), "{said:?}");

    let lab = Lab::new(cluster(UP), &["host_id = 2", "name = \"h9\""]);
    let (exit, said) = lab.status(None).await;
    assert_eq!((exit, said.out.lines().count()), (Exit::FAILED, 2), "{said:?}");
    assert_eq!(said.err, "[[fencing.host]] name = \"h9\": no row has this name\n");
}

#[tokio::test]
async fn a_host_without_switches_is_said_to_have_none() {
    let lab = Lab::new(cluster(DOWN), &[]);
    let (exit, said) = lab.status(None).await;
    assert!(exit == Exit::FAILED && said.out.starts_with("No host has a power switch"), "{said:?}");
    let (exit, said, _) = lab.fence(args(2, Deed::Off), Answer::Yes).await;
    assert!(exit == Exit::FAILED && said.err.starts_with("Host 2 (h2) has no power switch"), "{said:?}");
}
