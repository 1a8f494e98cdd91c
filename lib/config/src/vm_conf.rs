//! vm.conf: the engine VM's description, as the hypervisor adapters need it.
//!
//! `key=value` lines, one `devices={…}` line for each device, `#` starts a comment anywhere in a line. Of a key that
//! stands twice the last counts, except `devices`. When `xmlBase64` is there it is the whole description and wins;
//! this module keeps it and does not look inside.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::atomic::{self, Mode};
use crate::device::Device;
use crate::error::{ConfigError, Result};
use crate::paths::Paths;

/// A VM's description.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VmConf {
    path: PathBuf,
    lines: Vec<Line>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Line {
    /// Comments and empty lines, kept for writing.
    Other(String),
    Pair {
        number: usize,
        key: String,
        value: String,
    },
    Device(Device),
}

const ID: &str = "the VM's uuid";
const MEMORY: &str = "the VM's memory in MB, a number from 1 to 16777216";
const CPUS: &str = "a number of virtual processors from 1 to 4096";

impl VmConf {
    /// An empty description, to be filled with [`VmConf::set`] and [`VmConf::push_device`].
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), lines: Vec::new() }
    }

    /// Reads a text. `path` is for error texts and for [`VmConf::write`].
    pub fn parse(path: impl Into<PathBuf>, text: &str) -> Result<Self> {
        let path = path.into();
        let mut lines = Vec::new();
        for (index, raw) in text.lines().enumerate() {
            let number = index + 1;
            let syntax = |text: &str, reason: String| ConfigError::Syntax {
                path: path.clone(),
                line: number,
                text: text.chars().take(200).collect(),
                reason,
            };
            let line = raw.split('#').next().unwrap_or_default().trim();
            if line.is_empty() {
                lines.push(Line::Other(raw.to_owned()));
                continue;
            }
            // VDSM's client took a bare word as a key with an empty value.
            let (key, value) =
                line.split_once('=').map_or((line, ""), |(key, value)| (key.trim(), value.trim()));
            if key.is_empty() || !key.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c)) {
                return Err(syntax(raw, "key=value expected".to_owned()));
            }
            if key == "devices" {
                let device = Device::parse(value).map_err(|error| syntax(value, error.to_string()))?;
                lines.push(Line::Device(device));
            } else {
                lines.push(Line::Pair { number, key: key.to_owned(), value: value.to_owned() });
            }
        }
        Ok(Self { path, lines })
    }

    /// Reads a file.
    pub fn load(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        let text = atomic::read_text(&path)?;
        Self::parse(path, &text)
    }

    /// Reads the refreshed description of this host, or the fallback when there is none.
    pub fn load_active(paths: &Paths) -> Result<Self> {
        match Self::load(paths.vm_conf()) {
            Err(error) if error.is_not_found() => Self::load(paths.vm_conf_fallback()),
            other => other,
        }
    }

    /// The file's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The value of a key; an empty one counts as none.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.find(key).map(|(_, value)| value).filter(|value| !value.is_empty())
    }

    /// All keys but `devices`, in the file's order.
    pub fn entries(&self) -> impl Iterator<Item = (&str, &str)> {
        self.lines.iter().filter_map(|line| match line {
            Line::Pair { key, value, .. } => Some((key.as_str(), value.as_str())),
            Line::Other(_) | Line::Device(_) => None,
        })
    }

    /// The devices, in the file's order.
    pub fn devices(&self) -> impl Iterator<Item = &Device> {
        self.lines.iter().filter_map(|line| match line {
            Line::Device(device) => Some(device),
            Line::Other(_) | Line::Pair { .. } => None,
        })
    }

    /// `vmId`.
    pub fn vm_id(&self) -> Result<&str> {
        self.require("vmId", ID)
    }

    /// `vmName`; `HostedEngine` when absent.
    pub fn vm_name(&self) -> &str {
        self.get("vmName").unwrap_or("HostedEngine")
    }

    /// `memSize` in MB.
    pub fn mem_size(&self) -> Result<u64> {
        self.require("memSize", MEMORY)?;
        self.number("memSize", MEMORY, 1 << 24)?.ok_or_else(|| self.missing("memSize", MEMORY))
    }

    /// `smp`: virtual processors at start; 1 when absent.
    pub fn smp(&self) -> Result<u32> {
        Ok(self.number("smp", CPUS, 4096)?.map_or(1, narrow))
    }

    /// `maxVCpus`: virtual processors that may be plugged in; at least [`VmConf::smp`].
    pub fn max_vcpus(&self) -> Result<u32> {
        let smp = self.smp()?;
        Ok(self.number("maxVCpus", CPUS, 4096)?.map_or(smp, narrow).max(smp))
    }

    /// `cpuType`.
    pub fn cpu_type(&self) -> Option<&str> {
        self.get("cpuType")
    }

    /// `emulatedMachine`.
    pub fn emulated_machine(&self) -> Option<&str> {
        self.get("emulatedMachine")
    }

    /// `display`: `vnc`, `qxl` or `qxlnc`.
    pub fn display(&self) -> Option<&str> {
        self.get("display")
    }

    /// `kernel`: path of a kernel to boot without a boot loader.
    pub fn kernel(&self) -> Option<&Path> {
        self.get("kernel").map(Path::new)
    }

    /// `initrd` of [`VmConf::kernel`].
    pub fn initrd(&self) -> Option<&Path> {
        self.get("initrd").map(Path::new)
    }

    /// `kernelArgs` of [`VmConf::kernel`].
    pub fn kernel_args(&self) -> Option<&str> {
        self.get("kernelArgs")
    }

    /// `onReboot`: true for `destroy`, with which a guest that restarts ends the VM; false for `restart` and when absent.
    pub fn ends_on_reboot(&self) -> Result<bool> {
        match self.find("onReboot") {
            None | Some((_, "" | "restart")) => Ok(false),
            Some((_, "destroy")) => Ok(true),
            Some((line, value)) => Err(ConfigError::Value {
                path: self.path.clone(),
                line,
                key: "onReboot".to_owned(),
                value: value.to_owned(),
                expected: "restart or destroy".to_owned(),
            }),
        }
    }

    /// `xmlBase64`: the whole libvirt domain in base 64; wins over everything else.
    pub fn xml_base64(&self) -> Option<&str> {
        self.get("xmlBase64")
    }

    /// Gives `key` a value: on its last line if it has one, else on a new line at the end. Line breaks become spaces
    /// and `#`, which would start a comment, is left out.
    pub fn set(&mut self, key: &str, value: &str) {
        let clean = value.replace(['\n', '\r'], " ").replace('#', "").trim().to_owned();
        let fresh = self.lines.len() + 1;
        let old = self.lines.iter_mut().rev().find_map(|line| match line {
            Line::Pair { key: found, value, .. } if found == key => Some(value),
            _ => None,
        });
        match old {
            Some(value) => *value = clean,
            None => self.lines.push(Line::Pair { number: fresh, key: key.to_owned(), value: clean }),
        }
    }

    /// Adds a device at the end.
    pub fn push_device(&mut self, device: Device) {
        self.lines.push(Line::Device(device));
    }

    /// Replaces the file atomically.
    pub fn write(&self) -> Result<()> {
        atomic::write(&self.path, self.to_string().as_bytes(), Mode::KeepOr644)
    }

    fn find(&self, wanted: &str) -> Option<(usize, &str)> {
        self.lines.iter().rev().find_map(|line| match line {
            Line::Pair { number, key, value } if key == wanted => Some((*number, value.as_str())),
            _ => None,
        })
    }

    fn missing(&self, key: &str, expected: &str) -> ConfigError {
        ConfigError::Missing { path: self.path.clone(), key: key.to_owned(), expected: expected.to_owned() }
    }

    fn require(&self, key: &str, expected: &str) -> Result<&str> {
        self.get(key).ok_or_else(|| self.missing(key, expected))
    }

    fn number(&self, key: &str, expected: &str, most: u64) -> Result<Option<u64>> {
        let Some((line, value)) = self.find(key).filter(|(_, value)| !value.is_empty()) else {
            return Ok(None);
        };
        match value.parse() {
            Ok(number) if (1..=most).contains(&number) => Ok(Some(number)),
            _ => Err(ConfigError::Value {
                path: self.path.clone(),
                line,
                key: key.to_owned(),
                value: value.to_owned(),
                expected: expected.to_owned(),
            }),
        }
    }
}

/// A number that was checked to be at most 4096.
fn narrow(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

impl fmt::Display for VmConf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.lines {
            match line {
                Line::Other(text) => writeln!(f, "{text}")?,
                Line::Pair { key, value, .. } => writeln!(f, "{key}={value}")?,
                Line::Device(device) => writeln!(f, "devices={device}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TEXT: &str = "\
# made by hand
vmId=4d4c5b5e-0000-4000-8000-1f2e3d4c5b6a
memSize=4096
devices={device:scsi,model:virtio-scsi,type:controller}
devices={nicModel:pv,macAddr:00:16:3e:01:02:03,network:ovirtmgmt,type:interface,address:{slot:0x03}}
smp=2
smp=4   # twice: the last counts
kernelArgs=console=ttyS0 quiet
launchPaused
";

    #[test]
    fn reads_the_known_form() {
        let conf = VmConf::parse("vm.conf", TEXT).unwrap();
        assert_eq!(conf.vm_id().unwrap(), "4d4c5b5e-0000-4000-8000-1f2e3d4c5b6a");
        assert_eq!(conf.vm_name(), "HostedEngine");
        assert_eq!((conf.mem_size().unwrap(), conf.smp().unwrap(), conf.max_vcpus().unwrap()), (4096, 4, 4));
        assert_eq!(conf.kernel_args(), Some("console=ttyS0 quiet"));
        let nic = conf.devices().find(|device| device.kind() == Some("interface")).unwrap();
        assert_eq!(nic.text("network"), Some("ovirtmgmt"));
        assert_eq!(nic.map("address").unwrap().text("slot"), Some("0x03"));
        assert_eq!(conf.devices().count(), 2);
    }

    #[test]
    fn errors_name_line_and_value() {
        let error = VmConf::parse("vm.conf", "vmId=x\ndevices={type:disk\n").unwrap_err().to_string();
        assert!(error.contains("vm.conf:2:") && error.contains("{type:disk"), "{error}");
        let error = VmConf::parse("vm.conf", "\nwhat is this\n").unwrap_err().to_string();
        assert!(error.contains("vm.conf:2: key=value expected"), "{error}");
        let conf = VmConf::parse("vm.conf", "memSize=4G\nsmp=0\n").unwrap();
        let error = conf.mem_size().unwrap_err().to_string();
        assert!(error.contains("vm.conf:1: memSize=\"4G\""), "{error}");
        assert!(conf.smp().is_err());
        assert!(conf.vm_id().unwrap_err().to_string().contains("vmId is missing"));
    }

    #[test]
    fn fallback_is_read_when_there_is_nothing_newer() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::new(dir.path());
        std::fs::create_dir_all(paths.run_dir()).unwrap();
        assert!(VmConf::load_active(&paths).unwrap_err().is_not_found());
        let mut conf = VmConf::new(paths.vm_conf_fallback());
        conf.set("vmName", "old");
        conf.write().unwrap();
        assert_eq!(VmConf::load_active(&paths).unwrap().vm_name(), "old");
        let mut conf = VmConf::new(paths.vm_conf());
        conf.set("vmName", "new");
        conf.write().unwrap();
        assert_eq!(VmConf::load_active(&paths).unwrap().vm_name(), "new");
    }

    proptest! {
        #[test]
        fn any_text_is_refused_or_survives_writing(text in "([a-z=#{}:, ]{0,24}\n){0,6}") {
            if let Ok(conf) = VmConf::parse("x", &text) {
                let again = VmConf::parse("x", &conf.to_string()).unwrap();
                prop_assert_eq!(again.to_string(), conf.to_string());
                prop_assert_eq!(again.devices().collect::<Vec<_>>(), conf.devices().collect::<Vec<_>>());
            }
        }

        #[test]
        fn any_bytes_never_panic(text in "\\PC{0,200}") {
            let _ = VmConf::parse("x", &text).map(|conf| (conf.mem_size().is_ok(), conf.max_vcpus().is_ok()));
        }

        #[test]
        fn what_is_set_is_read(key in "[a-zA-Z]{1,8}", value in "[ -~]{1,20}") {
            let mut conf = VmConf::new("x");
            conf.set(&key, &value);
            prop_assume!(key != "devices");
            let again = VmConf::parse("x", &conf.to_string()).unwrap();
            let expected = value.replace('#', "");
            prop_assert_eq!(again.get(&key).unwrap_or(""), expected.trim());
        }
    }
}
