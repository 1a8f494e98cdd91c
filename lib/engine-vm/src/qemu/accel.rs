//! Whether this host's KVM really carries guest code.
//!
//! `/dev/kvm` may be there and be of no use: some virtual machines offer a KVM that fails as soon as a guest leaves
//! its firmware. The only proof is to run something, so a QEMU runs a boot sector (`kvm_probe.s`) that goes into
//! 64-bit mode with paging, uses vector registers, and says so. The answer is kept until the next boot.

use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::process::Command;
use tokio::time::timeout;

use super::command_line::Accelerator;
use super::process::boot_id;
use super::run_dir::RunDir;

/// The answer, kept.
const VERDICT: &str = "kvm.json";
const PROBE_IMAGE: &str = "kvm-probe.img";
/// The probe itself needs some tens of milliseconds.
const DEADLINE: Duration = Duration::from_secs(5);
/// What QEMU exits with when the boot sector came to its end: its debug-exit device gives twice the written value
/// (0x2a) plus one.
const PASSED: i32 = 0x55;

/// `kvm_probe.s` as assembled by `as kvm_probe.s -o p.o && objcopy -O binary p.o`, without its padding.
#[rustfmt::skip]
const CODE: [u8; 206] = [
    0xfa, 0x31, 0xc0, 0x8e, 0xd8, 0x8e, 0xc0, 0x8e, 0xd0, 0xbc, 0x00, 0x70, 0x66, 0xbf, 0x00, 0x10,
    0x00, 0x00, 0x66, 0x31, 0xc0, 0x66, 0xb9, 0x00, 0x0c, 0x00, 0x00, 0x66, 0xf3, 0xab, 0x66, 0xc7,
    0x06, 0x00, 0x10, 0x03, 0x20, 0x00, 0x00, 0x66, 0xc7, 0x06, 0x00, 0x20, 0x03, 0x30, 0x00, 0x00,
    0x66, 0xc7, 0x06, 0x00, 0x30, 0x83, 0x00, 0x00, 0x00, 0x0f, 0x20, 0xe0, 0x66, 0x83, 0xc8, 0x20,
    0x0f, 0x22, 0xe0, 0x66, 0xb8, 0x00, 0x10, 0x00, 0x00, 0x0f, 0x22, 0xd8, 0x66, 0xb9, 0x80, 0x00,
    0x00, 0xc0, 0x0f, 0x32, 0x66, 0x0d, 0x00, 0x01, 0x00, 0x00, 0x0f, 0x30, 0x0f, 0x20, 0xc0, 0x66,
    0x0d, 0x01, 0x00, 0x00, 0x80, 0x0f, 0x22, 0xc0, 0x0f, 0x01, 0x16, 0xc8, 0x7c, 0xea, 0x72, 0x7c,
    0x08, 0x00, 0xb8, 0x10, 0x00, 0x00, 0x00, 0x8e, 0xd8, 0x8e, 0xd0, 0x48, 0xc7, 0xc4, 0x00, 0x50,
    0x00, 0x00, 0xdb, 0xe3, 0x0f, 0x20, 0xe0, 0x48, 0x0d, 0x00, 0x06, 0x00, 0x00, 0x0f, 0x22, 0xe0,
    0x66, 0x0f, 0xef, 0xc0, 0xf3, 0x0f, 0x7f, 0x04, 0x25, 0x00, 0x60, 0x00, 0x00, 0xf0, 0x48, 0xff,
    0x04, 0x25, 0x10, 0x60, 0x00, 0x00, 0xb8, 0x2a, 0x00, 0x00, 0x00, 0xe6, 0xf4, 0xf4, 0xeb, 0xfd,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x9a, 0x20, 0x00,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x92, 0x00, 0x00, 0x17, 0x00, 0xb0, 0x7c, 0x00, 0x00,
];

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Verdict {
    boot_id: String,
    program: String,
    is_usable: bool,
}

/// [`Accelerator::Kvm`] if `program` can carry guest code with it on this host, else [`Accelerator::Tcg`]. Asks
/// once in each boot.
pub async fn best(dir: &RunDir, program: &Path) -> io::Result<Accelerator> {
    if !Path::new("/dev/kvm").exists() {
        return Ok(Accelerator::Tcg);
    }
    let (boot_id, program_name) = (boot_id()?, program.display().to_string());
    // A verdict that cannot be read is asked for anew.
    let kept: Option<Verdict> = dir.read(VERDICT).unwrap_or_default();
    let is_usable = match kept {
        Some(kept) if kept.boot_id == boot_id && kept.program == program_name => kept.is_usable,
        _ => {
            let verdict = probe(dir, program, Accelerator::Kvm).await?;
            tracing::info!(?verdict, "probed whether KVM carries guest code on this host");
            let is_usable = verdict == Probed::Works;
            // Silence may also come from a busy machine: it does not count until the next boot.
            if verdict != Probed::Silent {
                dir.write(VERDICT, &Verdict { boot_id, program: program_name, is_usable })?;
            }
            is_usable
        }
    };
    Ok(if is_usable { Accelerator::Kvm } else { Accelerator::Tcg })
}

/// What became of the boot sector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probed {
    /// It ran to its end.
    Works,
    /// QEMU ended without it.
    Fails,
    /// Nothing was heard in time.
    Silent,
}

/// Runs the boot sector.
pub async fn probe(dir: &RunDir, program: &Path, accelerator: Accelerator) -> io::Result<Probed> {
    let mut sector = [0_u8; 512];
    sector[..CODE.len()].copy_from_slice(&CODE);
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    std::fs::write(dir.file(PROBE_IMAGE), sector)?;
    let machine = match accelerator {
        Accelerator::Kvm => ["-machine", "pc,accel=kvm", "-cpu", "host"],
        Accelerator::Tcg => ["-machine", "pc,accel=tcg", "-cpu", "max"],
    };
    let mut child = Command::new(program)
        .current_dir(dir.path())
        .args(["-no-user-config", "-nodefaults", "-display", "none", "-m", "32", "-no-reboot"])
        .args(machine)
        .args(["-device", "isa-debug-exit,iobase=0xf4,iosize=4"])
        .args(["-drive", &format!("file={PROBE_IMAGE},format=raw,if=ide")])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let status = timeout(DEADLINE, child.wait()).await;
    if status.is_err() {
        child.kill().await?;
    }
    dir.remove(PROBE_IMAGE)?;
    match status {
        Ok(status) => Ok(if status?.code() == Some(PASSED) { Probed::Works } else { Probed::Fails }),
        Err(_) => Ok(Probed::Silent),
    }
}
