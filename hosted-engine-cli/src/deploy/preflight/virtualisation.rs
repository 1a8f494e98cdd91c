//! Can this host run the VM: KVM, processors, memory.

use std::path::{Path, PathBuf};

use engine_vm::qemu::accel::{Probed, probe};
use engine_vm::qemu::command_line::Accelerator;
use engine_vm::qemu::run_dir::RunDir;
use ha_config::ha_toml::Hypervisor;
use ha_config::{HaToml, vdsm_conf};

use super::{Finding, Host};
use crate::deploy::Request;

/// What KVM came to.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Kvm {
    NoDevice,
    NoQemu(String),
    Tried(Probed),
}

pub(super) fn check(host: &Host<'_>) -> Vec<Finding> {
    let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let kvm = if Path::new("/dev/kvm").exists() { try_kvm(host) } else { Kvm::NoDevice };
    judge(&cpus, &kvm, &without(host))
}

/// What becomes of the VM without KVM.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Without {
    /// It runs in emulation.
    Emulation,
    /// VDSM does not start it.
    Nothing,
    /// VDSM is told by this file to do without.
    Faked(PathBuf),
    /// VDSM's configuration cannot be read.
    Unclear(String),
}

fn without(host: &Host<'_>) -> Without {
    match host.hypervisor() {
        Hypervisor::Qemu | Hypervisor::Libvirt => Without::Emulation,
        Hypervisor::Vdsm => match vdsm_conf::fake_kvm(host.paths) {
            Ok(None) => Without::Nothing,
            Ok(Some(file)) => Without::Faked(file),
            Err(error) => Without::Unclear(error.to_string()),
        },
    }
}

fn try_kvm(host: &Host<'_>) -> Kvm {
    let directory = match tempfile_in(host) {
        Ok(directory) => directory,
        Err(error) => return Kvm::NoQemu(error.to_string()),
    };
    let program = qemu(host);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let probed = runtime
        .and_then(|runtime| runtime.block_on(probe(&RunDir::new(&directory), &program, Accelerator::Kvm)));
    // What the probe left, if it was cut.
    let _ = std::fs::remove_dir_all(&directory);
    match probed {
        Ok(probed) => Kvm::Tried(probed),
        Err(error) => Kvm::NoQemu(format!("{}: {error}", program.display())),
    }
}

fn tempfile_in(host: &Host<'_>) -> std::io::Result<PathBuf> {
    let name = format!("hosted-engine-probe.{}", std::process::id());
    let run = host.paths.resolve("/run");
    let directory = if run.is_dir() { run } else { std::env::temp_dir() }.join(name);
    std::fs::create_dir(&directory)?;
    Ok(directory)
}

/// The QEMU that will run the VM, as far as that is known.
fn qemu(host: &Host<'_>) -> PathBuf {
    if let Request::FirstHost(first) = host.request
        && first.hypervisor == Hypervisor::Qemu
        && let Ok(toml) = HaToml::parse(host.paths, &first.ha_toml)
    {
        return toml.qemu.binary.into();
    }
    let of_red_hat = PathBuf::from("/usr/libexec/qemu-kvm");
    if of_red_hat.exists() { of_red_hat } else { PathBuf::from("qemu-system-x86_64") }
}

fn judge(cpus: &str, kvm: &Kvm, without: &Without) -> Vec<Finding> {
    let flags = cpus.lines().find(|line| line.starts_with("flags")).unwrap_or_default();
    let has_flag = flags.split_whitespace().any(|flag| matches!(flag, "vmx" | "svm"));
    let slow = |what: String, advice: &str| {
        vec![match without {
            Without::Emulation => Finding::warning(
                what,
                format!("{advice}; without it the VM runs in emulation, many times slower"),
            ),
            Without::Nothing => Finding::blocker(
                what,
                format!(
                    "{advice}; VDSM runs no VM without it, unless for tests fake_kvm_support = true stands in [vars] of \
                     /etc/vdsm/vdsm.conf"
                ),
            ),
            Without::Faked(file) => Finding::warning(
                format!("{what}, and {} has VDSM do without (fake_kvm_support)", file.display()),
                format!(
                    "{advice}; without it VDSM's hook faqemu (package vdsm-hook-faqemu) must be there, and the VM runs in \
                     emulation, many times slower: good for tests only"
                ),
            ),
            Without::Unclear(error) => Finding::blocker(
                format!("{what}, and whether VDSM does without cannot be told ({error})"),
                format!("correct VDSM's configuration; {advice}"),
            ),
        }]
    };
    match kvm {
        Kvm::Tried(Probed::Works) => Vec::new(),
        Kvm::NoQemu(why) => vec![Finding::blocker(
            format!("QEMU cannot be started ({why})"),
            "install it (qemu-kvm, or on Debian qemu-system-x86), or name it in ha.toml as qemu.binary",
        )],
        Kvm::NoDevice if has_flag => slow(
            "there is no /dev/kvm although the processors could".to_owned(),
            "load kvm_intel or kvm_amd (modprobe), and switch virtualisation on in the firmware when it is refused",
        ),
        Kvm::NoDevice => slow(
            "the processors offer no virtualisation (neither vmx nor svm in /proc/cpuinfo), and there is no /dev/kvm".to_owned(),
            "switch virtualisation on in the firmware, or nested virtualisation when this host is a VM itself",
        ),
        Kvm::Tried(Probed::Fails) => slow(
            "/dev/kvm is there, but a guest does not run with it".to_owned(),
            "look at dmesg and at the rights of /dev/kvm; when this host is a VM, see whether nested virtualisation is complete",
        ),
        Kvm::Tried(Probed::Silent) => vec![Finding::warning(
            "a guest of a few instructions did not end within 5 s",
            "the host may be too busy now: look at its load, and start again",
        )],
    }
}

pub(super) fn check_size(host: &Host<'_>) -> Vec<Finding> {
    let Request::FirstHost(first) = host.request else { return Vec::new() };
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    judge_size(&read("/proc/cpuinfo"), &read("/proc/meminfo"), first.vm.vcpus, first.vm.memory_mb)
}

fn judge_size(cpus: &str, memory: &str, vcpus: u32, memory_mb: u64) -> Vec<Finding> {
    let mut found = Vec::new();
    let processors = cpus.lines().filter(|line| line.starts_with("processor")).count();
    if processors > 0 && u32::try_from(processors).is_ok_and(|processors| processors < vcpus) {
        found.push(Finding::warning(
            format!("the VM has {vcpus} processors and this host {processors}"),
            format!("give the VM at most {processors}, and no more than the smallest host has"),
        ));
    }
    let mb = |name: &str| -> Option<u64> {
        let line = memory.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        Some(line.split_whitespace().next()?.parse::<u64>().ok()? / 1024)
    };
    match (mb("MemTotal"), mb("MemAvailable")) {
        (Some(total), _) if total < memory_mb => found.push(Finding::blocker(
            format!("the VM has {memory_mb} MB of memory, and this whole host {total} MB"),
            "give the VM less, or the host more",
        )),
        (_, Some(free)) if free < memory_mb => found.push(Finding::warning(
            format!("the VM has {memory_mb} MB of memory, and {free} MB are free on this host"),
            "end what uses it, or give the VM less",
        )),
        _ => {}
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deploy::preflight::Severity;

    #[test]
    fn without_kvm_vdsm_is_stopped_unless_it_is_told_and_others_are_warned() {
        let cpus = "processor\t: 0\nflags\t\t: fpu vmx sse\n";
        assert_eq!(judge(cpus, &Kvm::Tried(Probed::Works), &Without::Nothing), []);
        let found = judge(cpus, &Kvm::NoDevice, &Without::Nothing);
        assert_eq!(found[0].severity, Severity::Blocker);
        assert!(found[0].what.contains("although the processors could"), "{found:?}");
        let file = PathBuf::from("/etc/vdsm/vdsm.conf.d/50-test.conf");
        let found = judge(cpus, &Kvm::Tried(Probed::Fails), &Without::Faked(file));
        assert_eq!(found[0].severity, Severity::Warning);
        assert!(
            found[0].what.contains("/etc/vdsm/vdsm.conf.d/50-test.conf has VDSM do without"),
            "{found:?}"
        );
        let found = judge(cpus, &Kvm::NoDevice, &Without::Unclear("damaged".to_owned()));
        assert!(found[0].severity == Severity::Blocker && found[0].what.contains("(damaged)"), "{found:?}");
        let found = judge("flags : fpu\n", &Kvm::NoDevice, &Without::Emulation);
        assert_eq!(found[0].severity, Severity::Warning);
        assert!(found[0].what.contains("neither vmx nor svm"), "{found:?}");
        let found = judge(cpus, &Kvm::NoQemu("qemu: not found".to_owned()), &Without::Emulation);
        assert_eq!(found[0].severity, Severity::Blocker);
    }

    #[test]
    fn the_vm_must_fit_into_the_host() {
        let (cpus, memory) = (
            "processor : 0\nprocessor : 1\n",
            "MemTotal: 8388608 kB\nMemFree: 9 kB\nMemAvailable: 4194304 kB\n",
        );
        assert_eq!(judge_size(cpus, memory, 2, 4096), []);
        let found = judge_size(cpus, memory, 4, 8193);
        assert_eq!(
            found.iter().map(|finding| finding.severity).collect::<Vec<_>>(),
            [Severity::Warning, Severity::Blocker]
        );
        assert_eq!(found[1].what, "the VM has 8193 MB of memory, and this whole host 8192 MB");
        assert_eq!(judge_size(cpus, memory, 1, 5000)[0].severity, Severity::Warning);
    }
}
