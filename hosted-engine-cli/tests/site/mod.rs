//! A storage domain with one deployed host and its real sanlock.

use std::fs;

use ha_config::{HostedEngineConf, Paths};
use ha_tests::sanlock::{SanlockDaemon, Speed};
use hosted_engine_cli::setup::LOCKSPACE_NAME;
use sanlock_client::{Disk, DiskPath, Lockspace, LockspaceName};

#[path = "../deployed/mod.rs"]
mod deployed;

#[allow(dead_code, reason = "each test program uses its own part of this")]
pub struct Site {
    pub paths: Paths,
    pub conf: HostedEngineConf,
    pub sanlock: SanlockDaemon,
    pub dir: tempfile::TempDir,
}

#[allow(dead_code, reason = "each test program uses its own part of this")]
impl Site {
    /// Host 1, named `h1`, with this ha.toml. The daemons' seconds are a tenth of ours.
    pub fn new(ha_toml: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("h1");
        let sanlock =
            SanlockDaemon::start(&Paths::new(&root).sanlock_run_dir(), "h1", Speed::Tenfold).unwrap();
        let (paths, _) = deployed::alone(&root, ha_toml);
        let conf = HostedEngineConf::load(&paths).unwrap();
        Self { paths, conf, sanlock, dir }
    }

    /// The `hosted-engine` lockspace for this host id.
    pub fn lockspace(&self, host_id: u64) -> Lockspace {
        let path = DiskPath::new(self.conf.lockspace_path().unwrap()).unwrap();
        Lockspace {
            name: LockspaceName::new(LOCKSPACE_NAME).unwrap(),
            host_id,
            disk: Disk { path, offset: 0 },
        }
    }

    pub fn backups(&self) -> usize {
        fs::read_dir(self.paths.backup_dir()).map_or(0, Iterator::count)
    }
}
