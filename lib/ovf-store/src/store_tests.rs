use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use ha_config::{Paths, conf_archive};

use super::*;

const OVF: &str = include_str!("../tests/fixtures/engine-4.5.ovf");
const VM: &str = "5b1d6a0e-93c4-4f57-8a6e-0d2f7c9be113";
const DOMAIN: &str = "d0e1f2a3-4b5c-4d6e-8f70-8192a3b4c5d6";

/// VDSM with volumes that are files; a volume has its image's name.
#[derive(Clone, Default)]
struct Fake(Arc<Mutex<World>>);

#[derive(Default)]
struct World {
    /// Description of each image's volume; `None` is refused.
    volumes: BTreeMap<String, Option<String>>,
    down: bool,
    asked: Vec<String>,
}

impl Fake {
    fn ask(&self, question: String) -> Result<std::sync::MutexGuard<'_, World>, CallError> {
        let mut world = self.0.lock().unwrap();
        world.asked.push(question);
        if world.down { Err(CallError::Unreachable { detail: "it is stopped".into() }) } else { Ok(world) }
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap().asked)
    }

    fn describe(&self, image: &str, text: impl Into<String>) {
        self.0.lock().unwrap().volumes.insert(image.to_owned(), Some(text.into()));
    }
}

#[async_trait]
impl Volumes for Fake {
    async fn images(&self, domain: &str) -> Result<Vec<String>, CallError> {
        assert_eq!(domain, DOMAIN);
        Ok(self.ask("images".into())?.volumes.keys().cloned().collect())
    }

    async fn volumes(&self, pool: &str, _: &str, image: &str) -> Result<Vec<String>, CallError> {
        assert_eq!(pool, BLANK_UUID);
        drop(self.ask(format!("volumes {image}"))?);
        Ok(vec![image.to_owned()])
    }

    async fn description(&self, _: &str, _: &str, volume: &VolumeId) -> Result<Option<String>, CallError> {
        let world = self.ask(format!("info {}", volume.volume))?;
        let refused =
            || CallError::Server { method: "Volume.getInfo".into(), code: 201, message: "gone".into() };
        world.volumes[&volume.image].clone().map(Some).ok_or_else(refused)
    }

    async fn prepare(&self, _: &str, _: &str, volume: &VolumeId) -> Result<PathBuf, CallError> {
        drop(self.ask(format!("prepare {}", volume.volume))?);
        Ok(format!("/run/vdsm/storage/{}", volume.volume).into())
    }
}

struct Bench {
    vdsm: Fake,
    store: OvfStore<Fake>,
    dir: tempfile::TempDir,
    now: Monotonic,
}

fn description(updated: bool, minute: u8) -> String {
    format!(
        "{{\"Updated\":{updated},\"Disk Description\":\"OVF_STORE\",\"Storage Domains\":[{{\"uuid\":\"{DOMAIN}\"}}],\
         \"Last Updated\":\"Sat Nov 21 10:{minute:02}:00 UTC 2026\"}}"
    )
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("run/vdsm/storage")).unwrap();
        let text = format!("vmid={VM}\nsdUUID={DOMAIN}\n");
        let conf = HostedEngineConf::parse(&Paths::new(dir.path()), &text);
        let vdsm = Fake::default();
        vdsm.describe("disk", "{\"DiskAlias\":\"he_virtio_disk\"}");
        vdsm.0.lock().unwrap().volumes.insert("gone".into(), None);
        vdsm.describe("old", description(true, 1));
        vdsm.describe("young", description(true, 2));
        let store = OvfStore::new(vdsm.clone(), &conf).unwrap();
        Self { vdsm, store, dir, now: Monotonic::from_secs(1000) }
    }

    fn path(&self, volume: &str) -> PathBuf {
        self.dir.path().join("run/vdsm/storage").join(volume)
    }

    /// Puts the engine VM into a volume, with a name to know it by.
    fn upload(&self, volume: &str, name: &str) {
        let ovf = OVF.replace("<Name>engine &amp; friends", &format!("<Name>{name}"));
        let file = format!("{VM}.ovf");
        let files: [(&str, &[u8]); 3] =
            [("info.json", b"{}"), (&file, ovf.as_bytes()), ("metadata.json", b"{}")];
        std::fs::write(self.path(volume), conf_archive::write(&files, 0).unwrap()).unwrap();
    }

    async fn read(&mut self, later: Duration) -> Result<String, StoreError> {
        self.now = self.now.plus(later);
        self.store.read(self.now).await.map(|vm| vm.name)
    }
}

const LATER: Duration = Duration::from_mins(1);

#[tokio::test]
async fn the_newest_is_found_once_and_read_each_time() {
    let mut bench = Bench::new();
    bench.upload("old", "old");
    bench.upload("young", "young");
    assert_eq!(bench.read(LATER).await.unwrap(), "young");
    let asked = bench.vdsm.asked();
    assert_eq!(asked.iter().filter(|question| question.starts_with("prepare")).count(), 1, "{asked:?}");
    bench.upload("young", "changed");
    bench.vdsm.0.lock().unwrap().down = true;
    assert_eq!(bench.read(LATER).await.unwrap(), "changed");
    assert_eq!(bench.vdsm.asked(), [""; 0], "it knows the way");
}

#[tokio::test]
async fn an_unfinished_or_damaged_upload_is_passed_over() {
    let mut bench = Bench::new();
    bench.upload("old", "old");
    bench.upload("young", "young");
    bench.vdsm.describe("young", description(false, 2));
    assert_eq!(bench.read(LATER).await.unwrap(), "old");
    std::fs::write(bench.path("old"), vec![b'x'; 8192]).unwrap();
    assert_eq!(bench.read(LATER).await.unwrap(), "young", "better than nothing");
}

#[tokio::test]
async fn one_that_moved_is_looked_for_at_once() {
    let mut bench = Bench::new();
    bench.upload("old", "old");
    bench.upload("young", "young");
    bench.read(LATER).await.unwrap();
    std::fs::remove_file(bench.path("young")).unwrap();
    assert_eq!(bench.read(LATER).await.unwrap(), "old");
    // The VM's OVF is not in it any more.
    std::fs::write(bench.path("old"), conf_archive::write(&[("info.json", b"{}")], 0).unwrap()).unwrap();
    let error = bench.read(LATER).await.unwrap_err().to_string();
    assert!(error.contains(&format!("old/old: {VM}.ovf is not in it")), "{error}");
    assert!(error.contains("young/young: ") && error.contains("is gone"), "{error}");
}

#[tokio::test]
async fn scans_that_find_nothing_are_rare() {
    let mut bench = Bench::new();
    for image in ["old", "young"] {
        bench.vdsm.describe(image, "{}");
    }
    assert!(matches!(bench.read(LATER).await, Err(StoreError::NotFound { .. })));
    assert!(!bench.vdsm.asked().is_empty());
    assert!(matches!(bench.read(SCAN_EVERY.saturating_sub(LATER)).await, Err(StoreError::NotFound { .. })));
    assert_eq!(bench.vdsm.asked(), [""; 0]);
    bench.vdsm.describe("old", description(true, 1));
    bench.upload("old", "old");
    assert_eq!(bench.read(LATER).await.unwrap(), "old");
}

#[tokio::test]
async fn the_better_one_is_noticed_in_time_unless_vdsm_is_down() {
    let mut bench = Bench::new();
    bench.upload("old", "old");
    bench.upload("young", "young");
    bench.read(LATER).await.unwrap();
    bench.vdsm.describe("old", description(true, 9));
    assert_eq!(bench.read(RESCAN_EVERY.saturating_sub(LATER)).await.unwrap(), "young");
    bench.vdsm.0.lock().unwrap().down = true;
    assert_eq!(bench.read(LATER).await.unwrap(), "young");
    bench.vdsm.0.lock().unwrap().down = false;
    assert_eq!(bench.read(LATER).await.unwrap(), "old");
}

#[tokio::test]
async fn vdsm_that_is_down_is_asked_again_at_once() {
    let mut bench = Bench::new();
    bench.vdsm.0.lock().unwrap().down = true;
    let error = bench.read(LATER).await.unwrap_err();
    assert!(matches!(error, StoreError::Vdsm(_)) && error.to_string().contains("it is stopped"), "{error}");
    bench.vdsm.0.lock().unwrap().down = false;
    bench.upload("young", "young");
    assert_eq!(bench.read(Duration::ZERO).await.unwrap(), "young");
}

#[tokio::test]
async fn another_vms_description_is_refused() {
    let mut bench = Bench::new();
    let other = OVF.replace(&format!("ovf:id=\"{VM}"), "ovf:id=\"5b1d6a0e-93c4-4f57-8a6e-0d2f7c9be114");
    let file = format!("{VM}.ovf");
    std::fs::write(bench.path("young"), conf_archive::write(&[(&file, other.as_bytes())], 0).unwrap())
        .unwrap();
    let error = bench.read(LATER).await.unwrap_err().to_string();
    assert!(error.contains("not the engine VM"), "{error}");
}

#[test]
fn a_vmid_that_is_none_is_refused_by_name() {
    let conf = HostedEngineConf::parse(&Paths::new("/nowhere"), "vmid=engine\nsdUUID=x\n");
    let error = OvfStore::new(Fake::default(), &conf).err().unwrap().to_string();
    assert!(error.contains("vmid=\"engine\""), "{error}");
}
