//! The files of a host whose VDSM and storage are played: what reaches vm.conf, and when.

use std::fs;
use std::path::PathBuf;
use std::sync::Mutex as Lock;

use async_trait::async_trait;
use clock::ManualClock;
use ha_config::{Paths, conf_archive};
use ovf_store::store::VolumeId;
use tokio::sync::Semaphore;
use vdsm_client::CallError;

use super::*;
use crate::ports::{ConfTrouble, Files, HostFiles};

const OVF: &str = include_str!("../../lib/ovf-store/tests/fixtures/engine-4.5.ovf");
const VM: &str = "5b1d6a0e-93c4-4f57-8a6e-0d2f7c9be113";
const DISK: &str = "1f0e2d3c-4b5a-4697-8887-766554433221";
const DOMAIN: &str = "d0e1f2a3-4b5c-4d6e-8f70-8192a3b4c5d6";

/// VDSM with one image.
#[derive(Clone)]
struct Fake(Arc<World>);

struct World {
    description: Lock<String>,
    /// Answers once for each permit.
    answers: Semaphore,
}

const OVF_STORE: &str = "{\"Updated\":true,\"Disk Description\":\"OVF_STORE\",\"Last Updated\":null}";

#[async_trait]
impl Volumes for Fake {
    async fn images(&self, _: &str) -> Result<Vec<String>, CallError> {
        self.0.answers.acquire().await.unwrap().forget();
        Ok(vec!["image".into()])
    }

    async fn volumes(&self, _: &str, _: &str, _: &str) -> Result<Vec<String>, CallError> {
        Ok(vec!["volume".into()])
    }

    async fn description(&self, _: &str, _: &str, _: &VolumeId) -> Result<Option<String>, CallError> {
        Ok(Some(self.0.description.lock().unwrap().clone()))
    }

    async fn prepare(&self, _: &str, _: &str, _: &VolumeId) -> Result<PathBuf, CallError> {
        Ok("/store".into())
    }
}

struct Host {
    files: HostFiles,
    conf: HostedEngineConf,
    vdsm: Arc<World>,
    clock: Arc<ManualClock>,
    dir: tempfile::TempDir,
}

impl Host {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::new(dir.path());
        let text = format!(
            "vmid={VM}\nvm_disk_id={DISK}\ndomainType=nfs\nstorage=a:/b\nsdUUID={DOMAIN}\nbridge=ovirtmgmt\n\
             conf_image_UUID=i\nconf_volume_UUID=v\n"
        );
        let conf = HostedEngineConf::parse(&paths, &text);
        let volume = conf.conf_volume_path().unwrap().unwrap();
        fs::create_dir_all(volume.parent().unwrap()).unwrap();
        fs::create_dir_all(paths.run_dir()).unwrap();
        let vdsm =
            Arc::new(World { description: Lock::new(OVF_STORE.into()), answers: Semaphore::new(1000) });
        let clock = Arc::new(ManualClock::default());
        let engine_conf = EngineConf::new(Fake(vdsm.clone()), &conf, clock.clone(), TimeZone::UTC).unwrap();
        let files = HostFiles::new(conf.clone(), Some(engine_conf));
        let host = Self { files, conf, vdsm, clock, dir };
        host.deploy("vmId=deployed\n");
        host
    }

    /// What the configuration volume says.
    fn deploy(&self, vm_conf: &str) {
        let archive = conf_archive::write(&[("vm.conf", vm_conf.as_bytes())], 0).unwrap();
        fs::write(self.conf.conf_volume_path().unwrap().unwrap(), archive).unwrap();
    }

    /// What the engine says.
    fn upload(&self, ovf: &str) {
        let name = format!("{VM}.ovf");
        let archive = conf_archive::write(&[(&name, ovf.as_bytes())], 0).unwrap();
        fs::write(self.dir.path().join("store"), archive).unwrap();
    }

    fn vm_conf(&self) -> String {
        fs::read_to_string(self.conf.vm_conf_path()).unwrap()
    }

    fn memory(&self) -> u64 {
        self.files.vm_memory().unwrap()
    }
}

fn with_memory(mib: u32) -> String {
    OVF.replace("<rasd:VirtualQuantity>8192", &format!("<rasd:VirtualQuantity>{mib}"))
}

#[tokio::test]
async fn the_engines_description_wins_and_follows_the_engine() {
    let host = Host::new();
    host.upload(OVF);
    assert_eq!(host.files.refresh_vm_conf().await, Ok(()));
    let first = host.vm_conf();
    assert!(
        first.starts_with("# ")
            && first.contains("\nxmlBase64=")
            && first.contains("Thu Jan  1 00:00:00 1970")
    );
    assert_eq!(host.memory(), 8192);
    host.clock.advance(Duration::from_mins(1));
    assert_eq!(host.files.refresh_vm_conf().await, Ok(()));
    assert_eq!(host.vm_conf(), first, "nothing changed: nothing is written");
    host.upload(&with_memory(6000));
    assert_eq!(host.files.refresh_vm_conf().await, Ok(()));
    assert_eq!(host.memory(), 6000);
    // The configuration volume goes to the fallback only.
    host.deploy("vmId=deployed\nmemSize=1\n");
    assert_eq!(host.files.refresh_vm_conf().await, Ok(()));
    assert_eq!(host.memory(), 6000);
    let fallback = fs::read_to_string(host.conf.paths().vm_conf_fallback()).unwrap();
    assert_eq!(fallback, "vmId=deployed\nmemSize=1\n");
}

#[tokio::test]
async fn without_the_store_the_configuration_volume_holds() {
    let host = Host::new();
    *host.vdsm.description.lock().unwrap() = "{}".into();
    assert_eq!(host.files.refresh_vm_conf().await, Ok(()));
    assert_eq!(host.vm_conf(), "vmId=deployed\n");
    // Neither: that is what the agent is told of.
    fs::remove_file(host.conf.conf_volume_path().unwrap().unwrap()).unwrap();
    assert!(matches!(host.files.refresh_vm_conf().await, Err(ConfTrouble::Storage(_))));
    // The engine's alone is as good.
    *host.vdsm.description.lock().unwrap() = OVF_STORE.into();
    host.upload(OVF);
    host.clock.advance(Duration::from_mins(5));
    assert_eq!(host.files.refresh_vm_conf().await, Ok(()));
    assert_eq!(host.memory(), 8192);
}

#[tokio::test]
async fn what_cannot_be_used_replaces_nothing() {
    let host = Host::new();
    host.upload(OVF);
    assert_eq!(host.files.refresh_vm_conf().await, Ok(()));
    let good = host.vm_conf();
    let without_xml = OVF.replace("EngineXml", "Other");
    let other_disk = without_xml.replace(DISK, "1f0e2d3c-4b5a-4697-8887-766554433222");
    let other_disk_in_xml = OVF.replace(DISK, "1f0e2d3c-4b5a-4697-8887-766554433222");
    for bad in [&OVF[..2000], "", &other_disk, &other_disk_in_xml] {
        host.upload(bad);
        assert_eq!(host.files.refresh_vm_conf().await, Ok(()), "the configuration volume is there");
        assert_eq!(host.vm_conf(), good);
        host.clock.advance(Duration::from_mins(5));
    }
    host.upload(&without_xml);
    assert_eq!(host.files.refresh_vm_conf().await, Ok(()));
    assert!(!host.vm_conf().contains("xmlBase64"), "it can be started without the engine's XML");
}

#[tokio::test(start_paused = true)]
async fn a_slow_vdsm_is_not_waited_for_and_not_asked_twice() {
    let host = Host::new();
    host.upload(OVF);
    host.vdsm.answers.forget_permits(1000);
    for _ in 0..3 {
        assert_eq!(host.files.refresh_vm_conf().await, Ok(()));
        assert_eq!(host.vm_conf(), "vmId=deployed\n");
    }
    host.vdsm.answers.add_permits(1);
    assert_eq!(host.files.refresh_vm_conf().await, Ok(()));
    assert_eq!(host.memory(), 8192);
    assert_eq!(host.vdsm.answers.available_permits(), 0, "one scan");
}

#[test]
fn comments_do_not_count_as_changes() {
    assert_eq!(without_comments("# a\n# b\n\nvmId=1\n#c\n"), "vmId=1\n#c");
    assert_eq!(without_comments("vmId=1"), "vmId=1");
    assert_eq!(without_comments("#\n"), "");
}
