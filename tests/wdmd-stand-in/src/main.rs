//! The command line of the stand-in; see the library.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use wdmd_stand_in::daemon::{self, Settings};
use wdmd_stand_in::device::{self, End};

/// Stands in for sanlock's watchdog daemon and for the watchdog device, in tests and sandboxes.
#[derive(Parser)]
#[command(version)]
enum Arguments {
    /// wdmd's part: serve its socket inside the host, and pet the device
    Daemon {
        /// Where to listen
        #[arg(long, default_value = "/run/wdmd/wdmd.sock")]
        socket: PathBuf,
        /// The device's socket
        #[arg(long)]
        device: PathBuf,
        /// The device's time, in the clients' seconds
        #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=600))]
        fire_timeout: u32,
        /// So many of the clients' seconds pass in one second
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
        speed: u32,
    },
    /// The device's part, outside of the host: end the host when it was not petted in time
    Device {
        /// Where to listen
        #[arg(long)]
        socket: PathBuf,
        /// Process 1 of the host
        #[arg(long)]
        host: i32,
        /// Milliseconds from the last pet until it fires
        #[arg(long, default_value_t = 60_000)]
        fire_after: u64,
    },
}

#[allow(clippy::print_stderr, reason = "standard error is this program's log")]
fn main() -> ExitCode {
    let result = match Arguments::parse() {
        Arguments::Daemon { socket, device, fire_timeout, speed } => {
            serve(Settings { socket, device, fire_timeout, speed })
        }
        Arguments::Device { socket, host, fire_after } => {
            device::watch(&socket, host, Duration::from_millis(fire_after)).map(|end| match end {
                End::Fired { after } => eprintln!(
                    "the device was not petted for {:.1} s: the host was ended, as by a reset",
                    after.as_secs_f64()
                ),
                End::HostEnded => eprintln!("the host ended"),
            })
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("wdmd-stand-in: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn serve(settings: Settings) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    tokio::task::LocalSet::new().block_on(&runtime, daemon::run(settings))
}
