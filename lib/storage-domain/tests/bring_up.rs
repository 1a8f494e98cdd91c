//! The way to storage against a scripted VDSM: what is asked, in which order, and what each fault comes to.

#![allow(clippy::unwrap_used, reason = "a failed assumption must fail the test")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use ha_config::{HostedEngineConf, Paths};
use ha_tests::vdsm::{Answer, FakeVdsm};
use serde_json::{Value, json};
use storage_domain::{DomainError, Ready, Step, StorageDomain, Volume};

const SD: &str = "sd-1";
const BLANK: &str = "00000000-0000-0000-0000-000000000000";

/// A host with its files; its storage is "mounted".
struct Host {
    dir: tempfile::TempDir,
}

impl Host {
    fn new() -> Self {
        let host = Self { dir: tempfile::tempdir().unwrap() };
        for image in ["md", "ls", "cf"] {
            let directory = host.domain().join("images").join(image);
            fs::create_dir_all(&directory).unwrap();
            fs::write(directory.join(format!("{image}-vol")), image).unwrap();
        }
        host
    }

    fn domain(&self) -> PathBuf {
        self.dir.path().join("rhev/data-center/mnt/a.example:_he").join(SD)
    }

    fn link(&self, name: &str) -> PathBuf {
        self.domain().join("ha_agent").join(name)
    }

    fn conf(&self) -> HostedEngineConf {
        self.conf_with("domainType=nfs\nstorage=a.example:/he\nconnectionUUID=c-1\n")
    }

    fn conf_with(&self, storage: &str) -> HostedEngineConf {
        let text = format!(
            "host_id=2\nspUUID=pool\nsdUUID={SD}\nmetadata_image_UUID=md\nmetadata_volume_UUID=md-vol\n\
             lockspace_image_UUID=ls\nlockspace_volume_UUID=ls-vol\nconf_image_UUID=cf\nconf_volume_UUID=cf-vol\n{storage}"
        );
        HostedEngineConf::parse(&Paths::new(self.dir.path()), &text)
    }

    /// What VDSM does on this host when all is well.
    fn answer(root: &Path, method: &str, params: &Value) -> Answer {
        Answer::Result(match method {
            "Host.ping2" => return Answer::done(),
            "StoragePool.connectStorageServer" | "StoragePool.disconnectStorageServer" => {
                let list = params["connectionParams"].as_array().unwrap();
                list.iter().map(|connection| json!({"id": connection["id"], "status": 0})).collect()
            }
            "StorageDomain.getStats" => json!({"disktotal": "10", "diskfree": "5"}),
            "StorageDomain.getInfo" => json!({"block_size": 512, "remotePath": "a.example:/he"}),
            "Image.prepare" => {
                let image = params["imageID"].as_str().unwrap();
                let prepared = root.join("run/vdsm/storage").join(SD);
                fs::create_dir_all(&prepared).unwrap();
                let images = root.join("rhev/data-center/mnt/a.example:_he").join(SD).join("images");
                // It may be there already.
                let _ = symlink(images.join(image), prepared.join(image));
                json!({"path": format!("/var/run/vdsm/storage/{SD}/{image}/{image}-vol")})
            }
            _ => return Answer::Error(-32601, "no such verb".to_owned()),
        })
    }

    /// A VDSM that does `other` first, where it gives something.
    async fn vdsm(&self, other: impl Fn(&str, &Value) -> Option<Answer> + Send + Sync + 'static) -> FakeVdsm {
        let root = self.dir.path().to_owned();
        FakeVdsm::start(move |method, params| {
            other(method, params).unwrap_or_else(|| Self::answer(&root, method, params))
        })
        .await
        .unwrap()
    }
}

async fn bring_up(vdsm: &FakeVdsm, conf: HostedEngineConf) -> (Result<Ready, DomainError>, Vec<Step>) {
    let steps = Mutex::new(Vec::new());
    let domain = StorageDomain::new(vdsm.client(), conf).with_interfaces(|_| Ok(Vec::new()));
    let result = domain.bring_up(&|step| steps.lock().unwrap().push(step.clone())).await;
    (result, steps.into_inner().unwrap())
}

#[tokio::test]
async fn everything_is_asked_for_as_the_existing_release_does() {
    let host = Host::new();
    let vdsm = host.vdsm(|_, _| None).await;
    let (ready, steps) = bring_up(&vdsm, host.conf()).await;
    let ready = ready.unwrap();
    assert_eq!(ready.block_size, Some(512));
    assert_eq!(ready.warnings, Vec::<String>::new());
    assert_eq!(ready.metadata, host.dir.path().join("run/vdsm/storage/sd-1/md/md-vol"));
    assert_eq!(fs::read_link(host.link("hosted-engine.metadata")).unwrap(), Path::new("../images/md/md-vol"));
    assert_eq!(fs::read(host.link("hosted-engine.lockspace")).unwrap(), b"ls");
    let prepare = |image: &str| {
        let params = json!({"storagepoolID": BLANK, "storagedomainID": SD, "imageID": image,
            "volumeID": format!("{image}-vol")});
        ("Image.prepare".to_owned(), params)
    };
    let of_domain = |method: &str| (method.to_owned(), json!({"storagedomainID": SD}));
    let connect = json!({"storagepoolID": "pool", "domainType": 1, "connectionParams": [
        {"connection": "a.example:/he", "user": "kvm", "id": "c-1", "protocol_version": "auto"}]});
    let asked = [
        ("Host.ping2".to_owned(), json!({})),
        of_domain("StorageDomain.getInfo"),
        ("StoragePool.connectStorageServer".to_owned(), connect),
        of_domain("StorageDomain.getStats"),
        of_domain("StorageDomain.getInfo"),
        prepare("md"),
        prepare("ls"),
        prepare("cf"),
    ];
    assert_eq!(vdsm.calls(), asked);
    let words: Vec<String> = steps.iter().map(Step::to_string).collect();
    assert_eq!(words[0], "VDSM to answer");
    assert_eq!(words[2], "VDSM to connect a.example:/he");
    assert_eq!(words.last().unwrap(), "VDSM to prepare the configuration volume");

    // Again: nothing changes.
    let (again, _) = bring_up(&vdsm, host.conf()).await;
    assert_eq!(again.unwrap(), ready);
}

#[tokio::test]
async fn a_link_that_leads_nowhere_is_repaired_and_a_file_stays() {
    let host = Host::new();
    let vdsm = host.vdsm(|_, _| None).await;
    fs::create_dir(host.domain().join("ha_agent")).unwrap();
    symlink("/run/vdsm/storage/sd-1/gone/gone", host.link("hosted-engine.metadata")).unwrap();
    fs::write(host.link("hosted-engine.lockspace"), "precious").unwrap();
    let (result, _) = bring_up(&vdsm, host.conf()).await;
    assert!(matches!(result, Err(DomainError::Link(_))), "{result:?}");
    assert_eq!(fs::read(host.link("hosted-engine.metadata")).unwrap(), b"md");
    assert_eq!(fs::read(host.link("hosted-engine.lockspace")).unwrap(), b"precious");
}

#[tokio::test]
async fn a_volume_that_vdsm_does_not_find_is_named() {
    for code in [201, 254] {
        let host = Host::new();
        let missing = move |method: &str, params: &Value| {
            (method == "Image.prepare" && params["imageID"] == "ls")
                .then_some(Answer::Error(code, "missing".to_owned()))
        };
        let vdsm = host.vdsm(missing).await;
        let (result, steps) = bring_up(&vdsm, host.conf()).await;
        let error = result.unwrap_err().to_string();
        let named = format!("no lockspace volume (image ls, volume ls-vol; code {code})");
        assert!(error.contains(&named), "{error}");
        assert_eq!(steps.last(), Some(&Step::Prepare(Volume::Lockspace)));
    }
}

#[tokio::test]
async fn only_the_configuration_volume_may_be_missing() {
    let host = Host::new();
    let missing = |method: &str, params: &Value| {
        (method == "Image.prepare" && params["imageID"] == "cf")
            .then_some(Answer::Error(201, "missing".to_owned()))
    };
    let vdsm = host.vdsm(missing).await;
    let ready = bring_up(&vdsm, host.conf()).await.0.unwrap();
    assert_eq!(ready.configuration, None);
    assert!(ready.warnings[0].contains("no configuration volume"), "{:?}", ready.warnings);
}

#[tokio::test]
async fn an_unknown_domain_and_a_failed_mount_say_what_to_do() {
    let host = Host::new();
    let unknown = |method: &str, _: &Value| {
        (method == "StorageDomain.getInfo")
            .then_some(Answer::Error(358, "Storage domain does not exist".to_owned()))
    };
    let vdsm = host.vdsm(unknown).await;
    let error = bring_up(&vdsm, host.conf()).await.0.unwrap_err();
    assert!(matches!(&error, DomainError::NoDomain { sd } if sd == SD), "{error}");

    let unmountable = |method: &str, _: &Value| {
        let answer = json!([{"id": "c-1", "status": 477}]);
        (method == "StoragePool.connectStorageServer").then_some(Answer::Result(answer))
    };
    let vdsm = host.vdsm(unmountable).await;
    let error = bring_up(&vdsm, host.conf()).await.0.unwrap_err().to_string();
    assert!(error.contains("a.example:/he (status 477): it could not be mounted"), "{error}");
}

#[tokio::test]
async fn storage_is_not_mounted_a_second_time_under_another_name() {
    let host = Host::new();
    let mounts = host.dir.path().join("rhev/data-center/mnt");
    fs::create_dir_all(mounts.join("a.example:_he_").join(SD)).unwrap();
    let elsewhere = |method: &str, _: &Value| {
        let answer = json!({"remotePath": "a.example:/he/"});
        (method == "StorageDomain.getInfo").then_some(Answer::Result(answer))
    };
    let vdsm = host.vdsm(elsewhere).await;
    let error = bring_up(&vdsm, host.conf()).await.0.unwrap_err();
    assert!(matches!(error, DomainError::OtherMount { .. }), "{error}");
    assert!(!vdsm.methods().contains(&"StoragePool.connectStorageServer".to_owned()));
}

const ISCSI: &str = "domainType=iscsi\nstorage=10.0.0.1,10.0.0.2\nport=3260,3260\niqn=iqn.x\nportal=1\nuser=joe\n\
                     password=hunter2\n";

#[tokio::test]
async fn one_of_two_portals_is_enough() {
    let host = Host::new();
    let half = |method: &str, params: &Value| {
        (method == "StoragePool.connectStorageServer").then(|| {
            let list = params["connectionParams"].as_array().unwrap().iter();
            let statuses = list.zip([0, 475]).map(|(one, status)| json!({"id": one["id"], "status": status}));
            Answer::Result(statuses.collect())
        })
    };
    let vdsm = host.vdsm(half).await;
    let domain = StorageDomain::new(vdsm.client(), host.conf_with(ISCSI)).with_interfaces(|_| Ok(Vec::new()));
    let connected = domain.connect(&|_| {}).await.unwrap();
    assert_eq!(connected.warnings.len(), 1);
    assert!(connected.warnings[0].contains("10.0.0.2:3260 iqn.x (status 475)"), "{:?}", connected.warnings);
}

#[tokio::test]
async fn a_password_in_vdsms_words_is_not_repeated() {
    let host = Host::new();
    let talkative = |method: &str, _: &Value| {
        (method == "StoragePool.connectStorageServer")
            .then_some(Answer::Error(451, "conList=[{'user': 'joe', 'password': 'hunter2'}]".to_owned()))
    };
    let vdsm = host.vdsm(talkative).await;
    let domain = StorageDomain::new(vdsm.client(), host.conf_with(ISCSI))
        .with_interfaces(|_| Err("no iscsiadm".to_owned()));
    let error = domain.connect(&|_| {}).await.unwrap_err();
    let text = format!("{error} {error:?}");
    assert!(text.contains("451") && text.contains("********"), "{text}");
    assert!(!text.contains("hunter2"), "{text}");
}

#[tokio::test]
async fn fibre_channel_is_only_looked_at() {
    let host = Host::new();
    let vdsm = host.vdsm(|_, _| None).await;
    StorageDomain::new(vdsm.client(), host.conf_with("domainType=fc\n")).connect(&|_| {}).await.unwrap();
    assert_eq!(vdsm.methods(), ["Host.ping2", "StorageDomain.getStats"]);
}

#[tokio::test]
async fn a_recovering_vdsm_is_waited_for() {
    let host = Host::new();
    let asked = AtomicUsize::new(0);
    let recovering = move |method: &str, _: &Value| {
        let first = method == "Host.ping2" && asked.fetch_add(1, Ordering::Relaxed) < 3;
        first.then_some(Answer::Error(99, "Recovering from crash or Initializing".to_owned()))
    };
    let vdsm = host.vdsm(recovering).await;
    bring_up(&vdsm, host.conf()).await.0.unwrap();
    assert_eq!(vdsm.methods().iter().filter(|method| *method == "Host.ping2").count(), 4);
}

#[tokio::test]
async fn a_connection_that_ends_is_an_error_that_can_be_tried_again() {
    let host = Host::new();
    let asked = AtomicUsize::new(0);
    let closing = move |method: &str, _: &Value| {
        (method == "Image.prepare" && asked.fetch_add(1, Ordering::Relaxed) == 0).then_some(Answer::HangUp)
    };
    let vdsm = host.vdsm(closing).await;
    let error = bring_up(&vdsm, host.conf()).await.0.unwrap_err().to_string();
    assert!(error.starts_with("waited for VDSM to prepare the metadata volume: "), "{error}");
    bring_up(&vdsm, host.conf()).await.0.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_vdsm_that_is_away_is_said_so() {
    let host = Host::new();
    let nobody = FakeVdsm::absent().await.unwrap();
    let error = StorageDomain::new(nobody, host.conf()).connect(&|_| {}).await.unwrap_err().to_string();
    assert!(error.starts_with("waited for VDSM to answer: VDSM cannot be reached"), "{error}");
}

#[tokio::test]
async fn disconnecting_tells_what_stays() {
    let host = Host::new();
    let vdsm = host.vdsm(|_, _| None).await;
    StorageDomain::new(vdsm.client(), host.conf()).disconnect(&|_| {}).await.unwrap();
    assert_eq!(vdsm.methods(), ["Host.ping2", "StoragePool.disconnectStorageServer"]);

    let busy = |method: &str, _: &Value| {
        let answer = json!([{"id": "c-1", "status": 477}]);
        (method == "StoragePool.disconnectStorageServer").then_some(Answer::Result(answer))
    };
    let vdsm = host.vdsm(busy).await;
    let error = StorageDomain::new(vdsm.client(), host.conf()).disconnect(&|_| {}).await.unwrap_err();
    assert!(matches!(error, DomainError::NotDisconnected(_)), "{error}");
}
