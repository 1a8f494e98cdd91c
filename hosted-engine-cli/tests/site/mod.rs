//! A storage domain with one configured host and its real sanlock, made by the product's own set-up.

use std::fs;

use ha_config::{DomainType, HostedEngineConf, Paths};
use ha_tests::sanlock::{SanlockDaemon, Speed};
use hosted_engine_cli::setup::{
    ClusterSpec, DiskSource, HostSpec, LOCKSPACE_NAME, Quiet, StorageSpec, VmSpec, configure_host,
    create_storage,
};
use metadata_format::HostId;
use sanlock_client::{Disk, DiskPath, Lockspace, LockspaceName};

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
        let paths = Paths::new(dir.path().join("h1"));
        let storage = StorageSpec {
            domain_type: DomainType::Posixfs,
            storage: "shared".to_owned(),
            name: "s".to_owned(),
            disk: DiskSource::Empty(4096),
        };
        fs::create_dir_all(storage.mount_dir(&paths)).unwrap();
        let sanlock = SanlockDaemon::start(&paths.sanlock_run_dir(), "h1", Speed::Tenfold).unwrap();
        let cluster = ClusterSpec {
            fqdn: "e".to_owned(),
            bridge: "b".to_owned(),
            gateway: None,
            network_test: "none".to_owned(),
            tcp_target: None,
            vm: VmSpec::new(),
            ha_toml: ha_toml.to_owned(),
        };
        let made = create_storage(&paths, &storage, &cluster, 0, &Quiet).unwrap();
        let host = HostSpec { host_id: HostId::new(1).unwrap(), hostname: "h1".to_owned() };
        configure_host(&paths, &made, &host, &Quiet).unwrap();
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
