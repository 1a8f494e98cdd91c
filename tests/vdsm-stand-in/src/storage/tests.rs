use std::fs;

use tempfile::TempDir;

use super::*;

const SD: &str = "ce880525-a44b-4248-8b63-d9e11b2f123a";
const IMAGE: &str = "11111111-1111-4111-8111-111111111101";
const VOLUME: &str = "11111111-1111-4111-8111-111111111102";

fn storage() -> (TempDir, Arc<Storage>) {
    let dir = tempfile::tempdir().unwrap();
    let paths = Paths::new(dir.path());
    let domain = paths.storage_mounts().join("127.0.0.1:_exports_he").join(SD);
    let image = domain.join("images").join(IMAGE);
    fs::create_dir_all(domain.join("dom_md")).unwrap();
    fs::create_dir_all(&image).unwrap();
    fs::write(
        domain.join("dom_md/metadata"),
        "ALIGNMENT=1048576\nBLOCK_SIZE=512\nCLASS=Data\nDESCRIPTION=hosted_storage\nPOOL_UUID=\n\
         REMOTE_PATH=127.0.0.1:/exports/he\nROLE=Regular\nTYPE=NFS\nVERSION=5\n",
    )
    .unwrap();
    fs::write(image.join(VOLUME), [0; 4096]).unwrap();
    fs::write(image.join(VOLUME).with_extension("lease"), "").unwrap();
    fs::write(
        image.join(VOLUME).with_extension("meta"),
        "CAP=4096\nCTIME=1700000000\nDESCRIPTION=hosted-engine.metadata\nFORMAT=RAW\nLEGALITY=LEGAL\nEOF\n",
    )
    .unwrap();
    let settings =
        StorageSettings { paths, io_timeout: None, has_sanlock: false, interval: Duration::from_secs(10) };
    (dir, Arc::new(Storage::new(settings)))
}

#[test]
fn a_domain_is_described_as_recorded() {
    let (_dir, storage) = storage();
    let domain = storage.domain(SD).unwrap();
    assert_eq!(
        domain.info().unwrap(),
        json!({"uuid": SD, "type": "NFS", "class": "Data", "name": "hosted_storage", "role": "Regular", "pool": [],
               "version": "5", "remotePath": "127.0.0.1:/exports/he", "block_size": 512, "alignment": 1_048_576})
    );
    assert_eq!(domain.images().unwrap(), [IMAGE]);
    assert_eq!(domain.volumes(IMAGE).unwrap(), [VOLUME]);
    assert_eq!(domain.volumes(BLANK).unwrap(), [VOLUME]);
    let info = domain.volume_info(IMAGE, VOLUME).unwrap();
    assert_eq!(
        (&info["description"], &info["capacity"], &info["status"]),
        (&json!("hosted-engine.metadata"), &json!("4096"), &json!("OK"))
    );
    assert!(domain.stats().unwrap()["diskfree"].as_str().unwrap().parse::<u64>().is_ok());
    assert_eq!(domain.volume_info(IMAGE, IMAGE).unwrap_err().code, 201);
    for unknown in [BLANK, "../etc", ""] {
        assert_eq!(storage.domain(unknown).unwrap_err().code, 358, "{unknown}");
    }
}

#[test]
fn a_volume_is_prepared_and_torn_down() {
    let (_dir, storage) = storage();
    let path = storage.prepare(SD, IMAGE, VOLUME).unwrap();
    assert_eq!(path, storage.paths().prepared_volumes().join(SD).join(IMAGE).join(VOLUME));
    assert_eq!(fs::metadata(&path).unwrap().len(), 4096);
    assert_eq!(storage.prepare(SD, IMAGE, VOLUME).unwrap(), path, "again");
    assert_eq!(storage.prepare(SD, BLANK, VOLUME).unwrap_err().code, 201);
    storage.teardown(SD, IMAGE).unwrap();
    assert!(!path.exists());
    storage.teardown(SD, IMAGE).unwrap();
    assert_eq!(storage.teardown(SD, BLANK).unwrap_err().code, 254);
}

#[test]
fn leases_and_paths_through_the_pool_are_found() {
    let (_dir, storage) = storage();
    let volume = storage.domain(SD).unwrap().volume_path(IMAGE, VOLUME).unwrap();
    assert_eq!(storage.lease(SD, VOLUME), Ok((volume.with_extension("lease"), 0)));
    assert!(storage.lease(SD, IMAGE).is_err());
    let pool = format!("/rhev/data-center/{BLANK}/{SD}/images/{IMAGE}/{VOLUME}");
    assert_eq!(storage.resolve(Path::new(&pool)), volume);
}

#[test]
fn an_external_lease_is_found_by_its_name_after_the_volumes_own_ones() {
    use std::os::unix::fs::FileExt;

    use sanlock_client::GridSize;
    use xleases::{Index, LeaseName, Metadata, Slot};

    let (_dir, storage) = storage();
    let missing = |name: &str| storage.lease(SD, name).unwrap_err();
    assert_eq!(missing("vm").code, Failure::domain_action("").code, "there is no volume of leases");
    let head = Metadata { lockspace: SD.to_owned(), modified: 1, is_updating: false };
    let mut index = Index::empty(head).unwrap();
    for (number, name) in [(0, "other"), (7, "vm"), (8, VOLUME)] {
        let name = LeaseName::new(name).unwrap();
        index.set(Slot::new(number).unwrap(), Some(&name), GridSize::Sector512Align1M);
    }
    let volume = storage.domain(SD).unwrap().volume_path(IMAGE, VOLUME).unwrap();
    let path = volume.ancestors().nth(3).unwrap().join("dom_md/xleases");
    let file = fs::File::create(&path).unwrap();
    file.set_len(16 << 20).unwrap();
    file.write_all_at(index.bytes(), 1 << 20).unwrap();
    assert_eq!(storage.lease(SD, "vm"), Ok((path.clone(), 10 << 20)));
    assert_eq!(storage.lease(SD, "other"), Ok((path, 3 << 20)));
    assert_eq!(
        storage.lease(SD, VOLUME),
        Ok((volume.with_extension("lease"), 0)),
        "a disk's own comes first"
    );
    assert!(missing("vm-2").message.contains("there is no lease vm-2 in the domain"));
    assert!(storage.lease(SD, "../vm").is_err());
}

/// Waits for a task's end; its code.
fn ended(storage: &Storage, task: &str) -> i64 {
    let status = || storage.task(task).unwrap();
    while status()["taskState"] != "finished" {
        std::thread::yield_now();
    }
    status()["code"].as_i64().unwrap()
}

#[tokio::test]
async fn a_domain_is_made_with_volumes_and_removed() {
    const POOL: &str = "22222222-2222-4222-8222-222222222201";
    let (dir, storage) = storage();
    let new = NewDomain {
        id: BLANK.replace('0', "3"),
        domain_type: 1,
        connection: "nfs:/he/".to_owned(),
        name: "making".to_owned(),
        class: 1,
        version: 5,
        block_size: 0,
    };
    let code = |result: Result<(), Failure>| result.map_err(|failure| failure.code);
    assert_eq!(code(storage.create_domain(&new)), Err(360), "not connected");
    let connection = [json!({"id": "c1", "connection": "nfs:/he"})];
    assert_eq!(storage.connect(1, &connection).unwrap()[0]["status"], MOUNT_ERROR);
    fs::create_dir(dir.path().join("he")).unwrap();
    for _ in 0..2 {
        assert_eq!(storage.connect(1, &connection).unwrap()[0]["status"], 0);
    }
    storage.create_domain(&new).unwrap();
    assert_eq!(code(storage.create_domain(&new)), Err(365));
    let second = NewDomain { id: BLANK.replace('0', "4"), ..new.clone() };
    assert_eq!(code(storage.create_domain(&second)), Err(361), "there is one");
    assert_eq!(storage.domains(), [new.id.as_str(), SD]);

    let volume = |pool: &str| NewVolume {
        pool: pool.to_owned(),
        domain: new.id.clone(),
        image: IMAGE.to_owned(),
        volume: VOLUME.to_owned(),
        capacity: 1 << 20,
        format: 5,
        allocation: 1,
        description: "x".to_owned(),
    };
    assert_eq!(storage.create_volume(volume(BLANK)).unwrap_err().code, 309);
    storage.create_pool(POOL, &new.id, std::slice::from_ref(&new.id)).unwrap();
    assert_eq!(code(storage.create_pool(POOL, &new.id, std::slice::from_ref(&new.id))), Err(380));
    assert_eq!(code(storage.connect_pool(POOL, 1, SD)), Err(324));
    storage.connect_pool(POOL, 1, &new.id).unwrap();
    assert_eq!(code(storage.connect_pool(SD, 1, SD)), Err(323));
    assert_eq!(storage.create_volume(volume(POOL)).unwrap_err().code, 654);
    assert_eq!(code(storage.set_description(&new.id, "y")), Err(100));
    assert_eq!(code(storage.destroy_pool(POOL, 1)), Err(100));
    let task = tokio::task::spawn_blocking({
        let (storage, runtime) = (storage.clone(), tokio::runtime::Handle::current());
        move || {
            let task = storage.start_spm(POOL, runtime).unwrap();
            assert_eq!(ended(&storage, &task), 0);
            task
        }
    });
    let task = task.await.unwrap();
    assert_eq!(storage.spm_status(POOL).unwrap()["spmStatus"], "SPM");
    assert_eq!(storage.start_spm(POOL, tokio::runtime::Handle::current()).unwrap_err().code, 656);
    storage.clear_task(&task).unwrap();
    assert_eq!(ended(&storage, &storage.create_volume(volume(POOL)).unwrap()), 0);
    assert_eq!(ended(&storage, &storage.create_volume(volume(POOL)).unwrap()), 212);
    storage.set_description(&new.id, "done").unwrap();
    assert_eq!(code(storage.disconnect_pool(POOL)), Err(656));
    assert_eq!(code(storage.format(&new.id, true)), Err(392));
    assert_eq!(code(storage.destroy_pool(POOL, 2)), Err(700));
    storage.destroy_pool(POOL, 1).unwrap();
    let info = storage.domain(&new.id).unwrap().info().unwrap();
    assert_eq!(
        (&info["name"], &info["pool"], &info["role"]),
        (&json!("done"), &json!([]), &json!("Regular"))
    );
    assert_eq!(storage.connected_pools(), Vec::<String>::new());

    storage.create_pool(POOL, &new.id, std::slice::from_ref(&new.id)).unwrap();
    assert_eq!(code(storage.format(&new.id, false)), Err(391));
    storage.format(&new.id, true).unwrap();
    assert_eq!(fs::read_dir(dir.path().join("he")).unwrap().count(), 0);
    assert_eq!(storage.disconnect(1, &connection).unwrap()[0]["status"], 0);
    assert_eq!(storage.domains(), [SD]);
}

#[test]
fn only_mounted_files_can_be_connected() {
    let (_dir, storage) = storage();
    let one = [json!({"id": "c1", "connection": "127.0.0.1:/exports/he"})];
    // It is a directory, not a mount.
    assert_eq!(storage.connect(1, &one), Ok(json!([{"id": "c1", "status": MOUNT_ERROR}])));
    assert_eq!(storage.connect(2, &one), Ok(json!([{"id": "c1", "status": CONNECTION_ERROR}])));
    assert_eq!(storage.disconnect(1, &one), Ok(json!([{"id": "c1", "status": 0}])));
    assert_eq!(storage.connect(9, &one).unwrap_err().code, 1000);
    assert_eq!(storage.connect(1, &[]).unwrap_err().code, 1000);
}

#[test]
fn a_domain_that_nobody_monitors_has_no_statistics() {
    let (_dir, storage) = storage();
    assert_eq!(storage.repo_stats(&[SD.to_owned()]), json!({}));
    assert_eq!(storage.stop_monitoring(SD), Ok(()));
    assert_eq!(storage.clear_task(SD).unwrap_err().code, 401);
}
