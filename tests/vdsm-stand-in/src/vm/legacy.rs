//! From VDSM's older parameters, which have the keys of vm.conf, to a machine and its lease.

use std::fmt::Write as _;
use std::sync::Arc;

use engine_vm::qemu::machine_from_conf;
use ha_config::{Device, HaToml, HostedEngineConf, VmConf};
use serde_json::{Map, Value};

use super::description::{Described, WantedLease};
use crate::storage::Storage;

/// Reads parameters. May hang with the storage.
pub(super) fn read(params: &Map<String, Value>, storage: &Arc<Storage>) -> Result<Described, String> {
    let paths = storage.paths();
    let mut conf = VmConf::new("vmParams");
    let mut lease = None;
    for (key, value) in params {
        match value {
            Value::Array(devices) if key == "devices" => {
                for value in devices {
                    let mut value = value.clone();
                    lease = lease.or(place(&mut value, storage)?);
                    let text = braces(&value);
                    conf.push_device(
                        Device::parse(&text).map_err(|error| format!("devices: {text}: {error}"))?,
                    );
                }
            }
            Value::String(text) => conf.set(key, text),
            Value::Number(number) => conf.set(key, &number.to_string()),
            Value::Bool(truth) => conf.set(key, &truth.to_string()),
            Value::Null | Value::Array(_) | Value::Object(_) => {}
        }
    }
    // Nothing in it is asked for: each disk has its path by now.
    let host = HostedEngineConf::parse(paths, "");
    let machine =
        machine_from_conf(&conf, paths, &host, &HaToml::default()).map_err(|error| error.to_string())?;
    let starts_paused = conf.get("launchPaused").is_some_and(|value| value.eq_ignore_ascii_case("true"));
    Ok(Described { machine, lease, starts_paused })
}

/// Gives a disk its path; its lease, when nobody else may have it at the same time.
fn place(device: &mut Value, storage: &Storage) -> Result<Option<WantedLease>, String> {
    let text = |name: &str| device[name].as_str().unwrap_or_default().to_owned();
    let (domain, image, volume) = (text("domainID"), text("imageID"), text("volumeID"));
    if text("type") != "disk" || volume.is_empty() {
        return Ok(None);
    }
    let is_exclusive = text("shared") == "exclusive";
    let found = storage.domain(&domain).and_then(|found| found.volume_path(&image, &volume));
    device["path"] = found.map_err(|failure| failure.message)?.display().to_string().into();
    let lease = WantedLease { lockspace: domain, key: volume, path: None, offset: None };
    Ok(is_exclusive.then_some(lease))
}

/// In the form of vm.conf: `{key:value,…}`.
fn braces(value: &Value) -> String {
    match value {
        Value::Object(map) => {
            let mut text = "{".to_owned();
            for (place, (key, value)) in map.iter().enumerate() {
                let comma = if place == 0 { "" } else { "," };
                // Writing to a String cannot fail.
                let _ = write!(text, "{comma}{key}:{}", braces(value));
            }
            text + "}"
        }
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ha_config::Paths;
    use serde_json::json;

    use super::*;
    use crate::storage::StorageSettings;

    #[test]
    fn parameters_of_a_hosted_engine_are_understood() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::new(dir.path());
        let domain = paths.storage_mounts().join("server:_x/sd");
        std::fs::create_dir_all(domain.join("dom_md")).unwrap();
        std::fs::create_dir_all(domain.join("images/img")).unwrap();
        std::fs::write(domain.join("dom_md/metadata"), "VERSION=5\n").unwrap();
        std::fs::write(domain.join("images/img/vol"), "").unwrap();
        let settings =
            StorageSettings { paths, io_timeout: None, has_sanlock: false, interval: Duration::from_secs(1) };
        let storage = Arc::new(Storage::new(settings));
        let Value::Object(mut params) = json!({
            "vmId": "eccb9cb6-affd-4806-8200-708370581227",
            "memSize": "128",
            "smp": 2,
            "devices": [
                {"type": "disk", "device": "disk", "domainID": "sd", "imageID": "img", "volumeID": "vol",
                 "iface": "virtio", "shared": "exclusive", "specParams": {}},
                {"type": "console", "device": "console"},
            ],
        }) else {
            panic!()
        };
        let Described { machine, lease, .. } = read(&params, &storage).unwrap();
        assert_eq!((machine.memory_mib, machine.vcpus), (128, 2));
        assert_eq!(machine.disks[0].path, domain.join("images/img/vol"));
        assert_eq!(lease.map(|lease| lease.key), Some("vol".to_owned()));
        params["devices"][0]["volumeID"] = "other".into();
        assert!(read(&params, &storage).unwrap_err().contains("other"));
    }
}
