//! Starts the engine VM under its lease: registers with the lock manager, takes the lease, and becomes QEMU.
//!
//! Because the process that holds the lease *is* QEMU, the lock manager itself ends the VM when the lease cannot be
//! kept, whatever the agent does; and because it is a session of its own, the VM outlives the agent. Without the
//! lease there is no exec. Reads one launch file, answers on the launch socket, and never waits for a lease.

mod tap;

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use engine_vm::VmExit;
use engine_vm::lease::{Holding, LeaseError, open_lock};
use engine_vm::qemu::launch::{ExitRecord, LaunchFile, LaunchMode, Outcome, ProcessRecord};
use engine_vm::qemu::process::{boot_id, start_ticks};
use engine_vm::qemu::run_dir::{self, QmpRole, RunDir};
use rustix::fs::FlockOperation;
use rustix::io::FdFlags;

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    let (Some(path), None) = (args.next(), args.next()) else {
        eprintln!("usage: ovirt-ha-vm-launcher LAUNCH-FILE (it is started by the hosted-engine services)");
        return ExitCode::from(2);
    };
    let (launch, mut answer) = match prepare(Path::new(&path)) {
        Ok(ready) => ready,
        Err(error) => {
            eprintln!("ovirt-ha-vm-launcher: {error}");
            return ExitCode::FAILURE;
        }
    };
    // Returns only if the process did not become QEMU.
    let outcome = run(&launch, &mut answer);
    if let Err(error) = tell(&mut answer, &outcome) {
        eprintln!("ovirt-ha-vm-launcher: cannot tell that {outcome:?}: {error}");
    }
    ExitCode::FAILURE
}

/// Reads the launch file and reaches whoever waits for the answer. Leaves the caller's session, so that nothing
/// that happens to it reaches the VM.
fn prepare(path: &Path) -> Result<(LaunchFile, UnixStream), String> {
    let text = std::fs::read(path).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
    let launch: LaunchFile =
        serde_json::from_slice(&text).map_err(|e| format!("{} is not a launch file: {e}", path.display()))?;
    let dir = &launch.run_dir;
    std::env::set_current_dir(dir).map_err(|e| format!("cannot enter {}: {e}", dir.display()))?;
    // Fails only for the leader of a process group, who then has a session or a unit of its own already.
    let _ = rustix::process::setsid();
    let answer = UnixStream::connect(run_dir::LAUNCH_SOCKET)
        .map_err(|e| format!("nobody waits at {}/{}: {e}", dir.display(), run_dir::LAUNCH_SOCKET))?;
    Ok((launch, answer))
}

fn tell(answer: &mut UnixStream, outcome: &Outcome) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(outcome)?;
    line.push(b'\n');
    answer.write_all(&line)
}

fn run(launch: &LaunchFile, answer: &mut UnixStream) -> Outcome {
    let dir = RunDir::new(&launch.run_dir);
    let lock = match lock(&dir) {
        Ok(Some(lock)) => lock,
        Ok(None) => {
            let record: Option<ProcessRecord> = dir.read(run_dir::PROCESS).ok().flatten();
            return Outcome::AlreadyExists { pid: record.map_or(0, |record| record.pid) };
        }
        Err(error) => {
            return Outcome::Failed { detail: format!("cannot lock {}: {error}", dir.path().display()) };
        }
    };
    let outcome = match become_qemu(launch, &dir, &lock, answer) {
        Ok(never) => match never {},
        Err(outcome) => outcome,
    };
    let exit = match &outcome {
        Outcome::LeaseHeld { detail } => VmExit::LeaseRefused { detail: detail.clone() },
        Outcome::NoLease { detail } | Outcome::Failed { detail } => {
            VmExit::StartFailed { detail: detail.clone() }
        }
        Outcome::AlreadyExists { .. } | Outcome::Executing { .. } => return outcome,
    };
    // The reason of the end first: a VM that is gone without one would look like a crash.
    let kept = dir
        .write(run_dir::EXIT, &ExitRecord { process: None, exit })
        .and_then(|()| dir.remove(run_dir::PROCESS));
    if let Err(error) = kept {
        eprintln!("ovirt-ha-vm-launcher: cannot write {}: {error}", run_dir::EXIT);
    }
    outcome
}

fn lock(dir: &RunDir) -> std::io::Result<Option<File>> {
    let file = open_lock(&dir.file(run_dir::LOCK))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

fn become_qemu(
    launch: &LaunchFile,
    dir: &RunDir,
    lock: &File,
    answer: &mut UnixStream,
) -> Result<std::convert::Infallible, Outcome> {
    let failed = |what: &str| {
        let what = what.to_owned();
        move |e: std::io::Error| Outcome::Failed { detail: format!("cannot {what}: {e}") }
    };
    let log = clean(launch, dir).map_err(failed("prepare the run directory"))?;
    let (args, taps) = open_taps(launch)?;
    // Last of all, so that no lease is held while anything else can fail.
    let holding = match launch.mode {
        LaunchMode::Run | LaunchMode::Paused => launch.lease.take(),
        LaunchMode::Incoming => launch.lease.register(),
    }
    .map_err(|error| match error {
        LeaseError::Held(detail) => Outcome::LeaseHeld { detail },
        LeaseError::Missing(detail) | LeaseError::Unavailable(detail) => Outcome::NoLease { detail },
        LeaseError::Unsupported => Outcome::NoLease { detail: LeaseError::Unsupported.to_string() },
    })?;
    keep(&holding, lock, &taps).map_err(failed("keep the lease over exec"))?;
    tell(answer, &Outcome::Executing { pid: std::process::id() }).map_err(failed("answer"))?;
    let error_log = log.try_clone().map_err(failed("duplicate a descriptor"))?;
    let error = Command::new(&launch.program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::from(log))
        .stderr(Stdio::from(error_log))
        .exec();
    Err(Outcome::Failed { detail: format!("cannot run {}: {error}", launch.program.display()) })
}

/// Removes what an earlier VM left and writes what this one needs. Returns QEMU's log.
fn clean(launch: &LaunchFile, dir: &RunDir) -> std::io::Result<File> {
    let sockets = QmpRole::ALL.map(QmpRole::socket);
    let files = [
        run_dir::EXIT,
        run_dir::DESTROYING,
        run_dir::EVENTS_LOG,
        run_dir::EVENTS_KEPT,
        run_dir::SERIAL_SOCKET,
        run_dir::SERIAL_LOG,
    ];
    for name in sockets.iter().chain(&files) {
        dir.remove(name)?;
    }
    if launch.mode != LaunchMode::Incoming {
        // An arrival's was just written for it.
        dir.remove(run_dir::HANDOVER)?;
    }
    std::fs::write(dir.file(run_dir::EVENTS_INPUT), "{\"execute\":\"qmp_capabilities\"}\n")?;
    let pid = std::process::id();
    let start_ticks =
        start_ticks(pid)?.ok_or_else(|| std::io::Error::other("/proc does not show this process"))?;
    let boot_id = boot_id()?;
    dir.write(
        run_dir::PROCESS,
        &ProcessRecord { pid, start_ticks, boot_id, uuid: launch.uuid, mode: launch.mode },
    )?;
    File::create(dir.file(run_dir::QEMU_LOG))
}

fn open_taps(launch: &LaunchFile) -> Result<(Vec<String>, Vec<OwnedFd>), Outcome> {
    let mut args = launch.args.clone();
    let mut taps = Vec::with_capacity(launch.taps.len());
    for wanted in &launch.taps {
        let tap = tap::open(&wanted.bridge).map_err(|error| Outcome::Failed {
            detail: format!("cannot connect the VM to the bridge {}: {error}", wanted.bridge),
        })?;
        let number = tap.as_raw_fd().to_string();
        for index in 1..args.len() {
            if args[index - 1] == "-netdev" {
                args[index] = args[index].replace(&wanted.placeholder, &number);
            }
        }
        taps.push(tap);
    }
    Ok((args, taps))
}

fn keep(holding: &Holding, lock: &File, taps: &[OwnedFd]) -> std::io::Result<()> {
    holding.keep_across_exec()?;
    rustix::io::fcntl_setfd(lock, FdFlags::empty())?;
    for tap in taps {
        rustix::io::fcntl_setfd(tap, FdFlags::empty())?;
    }
    Ok(())
}
