//! What both migration labs need: an eye on both guests, a brake on the sender, and waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use engine_vm::qemu::QmpRole;
use engine_vm::qemu::qmp::Qmp;
use engine_vm::qemu::run_dir::RunDir;
use engine_vm::{EngineVm, MigrationProgress, MigrationTarget};
use serde_json::{Value, json};

use super::{Lab, SOON};

pub fn target(lab: &Lab) -> MigrationTarget {
    MigrationTarget { uri: format!("unix:{}", lab.directory.path().join("migration.sock").display()) }
}

/// Asks both QEMUs on the operator's monitor, over and over, whether their guest runs. The destination first: once
/// it runs, the source must not, at no later time.
pub struct Poller {
    is_over: Arc<AtomicBool>,
    looks: Arc<AtomicU32>,
    task: tokio::task::JoinHandle<()>,
}

impl Poller {
    pub fn start(lab: &Lab, [source, destination]: [usize; 2]) -> Self {
        let order = [destination, source];
        let hosts = order.map(|host| (host, RunDir::new(lab.run_dir(host))));
        let (is_over, looks) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
        let (over, count) = (is_over.clone(), looks.clone());
        let task = tokio::spawn(async move {
            let mut monitors = [None, None];
            while !over.load(Ordering::Acquire) {
                let mut running = Vec::new();
                for (host, dir) in &hosts {
                    if monitors[*host].as_ref().is_none_or(Qmp::is_closed) {
                        monitors[*host] = Qmp::connect(dir, QmpRole::Cli, Duration::from_secs(2)).await.ok();
                    }
                    let Some(monitor) = &monitors[*host] else { continue };
                    let state = monitor.execute("query-status", Value::Null, Duration::from_secs(2)).await;
                    if state.is_ok_and(|state| state["running"] == true) {
                        running.push(*host);
                    }
                }
                assert!(running.len() < 2, "two guests run");
                count.fetch_add(1, Ordering::Release);
            }
        });
        Self { is_over, looks, task }
    }

    /// Once it has looked often enough to have seen something, however busy the machine is.
    pub async fn end(self) {
        let has_looked = async {
            while self.looks.load(Ordering::Acquire) <= 10 && !self.task.is_finished() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(SOON, has_looked).await.unwrap();
        self.is_over.store(true, Ordering::Release);
        self.task.await.unwrap();
    }
}

/// Lets the host's QEMU send so many bytes in a second.
pub async fn limit_speed(lab: &Lab, host: usize, bytes: u64) {
    let wait = Duration::from_secs(5);
    let monitor = Qmp::connect(&RunDir::new(lab.run_dir(host)), QmpRole::Broker, wait).await.unwrap();
    let arguments = json!({"max-bandwidth": bytes});
    monitor.execute("migrate-set-parameters", arguments, wait).await.unwrap();
}

pub async fn progress_when(
    vm: &impl EngineVm,
    wanted: impl Fn(&MigrationProgress) -> bool,
) -> MigrationProgress {
    let looked = async {
        loop {
            match vm.migration_progress().await {
                Ok(progress) if wanted(&progress) => return progress,
                _ => tokio::time::sleep(Duration::from_millis(30)).await,
            }
        }
    };
    tokio::time::timeout(SOON, looked).await.unwrap()
}

/// Until the host's QEMU is in that run state, by its own word.
pub async fn run_state_when(lab: &Lab, host: usize, wanted: &str) {
    let wait = Duration::from_secs(5);
    let monitor = Qmp::connect(&RunDir::new(lab.run_dir(host)), QmpRole::Broker, wait).await.unwrap();
    let looked = async {
        while monitor.execute("query-status", Value::Null, wait).await.unwrap()["status"] != wanted {
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    };
    tokio::time::timeout(SOON, looked).await.unwrap();
}
