//! `--undeploy`, `--backup` and `--restore` as they are typed: the program itself, on a host that was deployed in a
//! directory, with a service manager and a broker that are none.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};

use ha_config::shared_file::SharedFile;
use ha_config::{HostedEngineConf, Paths};
use serde_json::json;

use crate::deployed;
use crate::fake_broker::{FakeBroker, State};
use crate::{DOWN, block, cluster_block};

const TOML: &str =
    "[lease]\nadapter = \"file\"\nio_timeout = 1\n[timers]\nloop = 0.1\nstorage_deadline = 5\n";
const AGENT: &str = "ovirt-ha-agent";
const BROKER: &str = "ovirt-ha-broker";

struct Host {
    paths: Paths,
    conf: HostedEngineConf,
    /// Services that run.
    running: Arc<Mutex<Vec<String>>>,
    _root: tempfile::TempDir,
}

impl Host {
    /// Host 1, beside a second one, with these services running.
    fn new(running: &[&str]) -> Self {
        let root = tempfile::tempdir().unwrap();
        let (paths, _) = deployed::alone(root.path(), TOML);
        let conf = HostedEngineConf::load(&paths).unwrap();
        let metadata = SharedFile::open(&conf.metadata_path().unwrap(), true).unwrap();
        let mut second = block(2, DOWN, 3400);
        second.resize(4096, 0);
        metadata.write(2 * 4096, &second).unwrap();
        let running = running.iter().map(|name| (*name).to_owned()).collect();
        let host = Self { paths, conf, running: Arc::new(Mutex::new(running)), _root: root };
        host.serve_services();
        host
    }

    /// A host's init: says what runs, stops what it is told to.
    fn serve_services(&self) {
        let socket = self.paths.resolve("/run/init.sock");
        fs::create_dir_all(socket.parent().unwrap()).unwrap();
        let (listener, running) = (UnixListener::bind(socket).unwrap(), Arc::clone(&self.running));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = BufReader::new(stream.unwrap());
                let mut line = String::new();
                stream.read_line(&mut line).unwrap();
                let mut running = running.lock().unwrap();
                let answer = match line.trim().split_once(' ') {
                    None => {
                        let status = |name: &str| {
                            let runs = running.iter().any(|one| one == name);
                            json!({"service": name, "pid": runs.then_some(7), "restarts": 0, "last_end": null, "wanted": runs})
                        };
                        json!([status(BROKER), status(AGENT)]).to_string()
                    }
                    Some(("stop", name)) => {
                        running.retain(|one| one != name);
                        "ok".to_owned()
                    }
                    Some(_) => "unexpected".to_owned(),
                };
                writeln!(stream.get_mut(), "{answer}").unwrap();
            }
        });
    }

    /// Runs the command without a terminal: whether it succeeds, and what it prints.
    fn types(&self, words: &[&str]) -> (bool, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_hosted-engine"))
            .arg("--root")
            .arg(self.paths.root())
            .args(words)
            .stdin(std::process::Stdio::null())
            .output()
            .unwrap();
        let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
        (output.status.success(), text.concat())
    }

    fn done(&self, words: &[&str]) -> String {
        let (is_done, text) = self.types(words);
        assert!(is_done, "{words:?}: {text}");
        text
    }

    fn refused(&self, words: &[&str]) -> String {
        let (is_done, text) = self.types(words);
        assert!(!is_done, "{words:?}: {text}");
        text
    }

    fn is_deployed(&self) -> bool {
        self.paths.hosted_engine_conf().exists()
    }
}

fn has_all(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} in {text}");
    }
}

#[test]
fn a_host_is_taken_out_as_its_plan_says_and_what_is_the_clusters_stays() {
    let host = Host::new(&[]);
    let plan = host.done(&["--undeploy", "--plan"]);
    has_all(
        &plan,
        &[
            "Host 1 leaves engine.example.com\n",
            "host id 1 is given up in the lockspaces\n",
            "ovirt-ha-broker is stopped, and neither service starts at boot any more\n",
            "stays: storage domain ",
        ],
    );
    assert!(!plan.contains("the last host"), "{plan}");
    let nobody = host.refused(&["--undeploy"]);
    has_all(&nobody, &["give --yes, or run it on a terminal"]);
    assert!(host.is_deployed());

    let domain = host.conf.metadata_path().unwrap().canonicalize().unwrap();
    let said = host.done(&["--undeploy", "--yes"]);
    has_all(&said, &["Log file: ", "This host does not belong to a hosted engine any more; the logs stay"]);
    assert!(!host.is_deployed() && !host.paths.ha_toml().exists());
    assert!(!host.paths.storage_mounts().join("_storage").exists(), "the way to the storage was made by it");
    assert!(domain.exists());
    has_all(
        &host.refused(&["--undeploy", "--yes"]),
        &["this host is not deployed: there is nothing to take out"],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_whose_agent_runs_is_emptied_first() {
    let host = Host::new(&[BROKER, AGENT]);
    let blocks = [(0, cluster_block(false)), (1, block(1, DOWN, 3400)), (2, block(2, DOWN, 3400))];
    let state = State { blocks: blocks.into(), alive: vec![1, 2], ours: true, ..State::default() };
    let broker = FakeBroker::start_at(&host.paths.broker_socket(), state);
    let plan = tokio::task::spawn_blocking(move || {
        let plan = host.done(&["--undeploy", "--plan"]);
        assert!(host.is_deployed() && host.running.lock().unwrap().len() == 2);
        plan
    });
    let local = "local maintenance is set: the engine VM leaves this host, and does not come back\n";
    has_all(
        &plan.await.unwrap(),
        &[local, "ovirt-ha-agent is stopped in order\n", "the block of host 1 is removed"],
    );
    assert!(broker.state.lock().unwrap().writes.is_empty());
}

#[test]
fn a_configuration_is_saved_and_restored_once_everything_is_stopped() {
    let host = Host::new(&[AGENT]);
    let file: PathBuf = host.paths.resolve("/cluster.backup");
    let file = file.to_str().unwrap();
    let said = host.done(&["--backup", file]);
    has_all(
        &said,
        &["host/hosted-engine.conf\n", "shared/configuration.tar\n", "keep it where only root reads it"],
    );
    has_all(&host.refused(&["--backup", file]), &["is there already: give another name"]);

    let changed = format!("{TOML}[score]\nprofile = \"founding\"\n");
    fs::write(host.paths.ha_toml(), &changed).unwrap();
    let plan = host.done(&["--restore", file, "--plan"]);
    has_all(&plan, &["ha.toml: is changed\n  - [score]\n  - profile = \"founding\"\n"]);
    let alive = host.refused(&["--restore", file, "--yes"]);
    has_all(&alive, &["ovirt-ha-agent runs on this host: stop the HA services of all hosts first"]);
    host.running.lock().unwrap().clear();
    // Host 2 is watched for as long as a living one may be silent.
    has_all(&host.refused(&["--restore", file]), &["nobody is there to confirm it"]);
    assert_eq!(fs::read_to_string(host.paths.ha_toml()).unwrap(), changed);
    let said = host.done(&["--restore", file, "--yes"]);
    has_all(&said, &["Watching host 2 (h2)", "Restored: ", "Copies of what was there before are in "]);
    assert_eq!(fs::read_to_string(host.paths.ha_toml()).unwrap(), TOML);
    has_all(&host.done(&["--restore", file, "--yes"]), &["Nothing differs: there is nothing to restore"]);
    has_all(&host.refused(&["--restore", "/no/such/file"]), &["/no/such/file"]);
}
