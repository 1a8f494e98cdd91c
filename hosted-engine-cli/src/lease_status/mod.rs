//! `--lease-status`: lockspaces, hosts, leases and their owners, as the lock manager and shared storage have them.
//!
//! Only looks. It needs neither broker nor agent: what is asked of the sanlock daemon and what stands on storage is put
//! side by side, so that it answers while the services are down, which is when it is wanted.

pub(crate) mod gather;
pub(crate) mod render;

use std::process::ExitCode;

use clap::Args;
use ha_config::Paths;

use crate::repair::deployed;
use crate::terminal::{Exit, Terminal};

/// Show lockspaces, hosts, leases and their owners.
#[derive(Debug, Args)]
pub struct LeaseStatusArgs {
    /// JSON on one line.
    #[arg(long)]
    json: bool,
}

/// `--lease-status`. Exit code 1 when neither the lock manager nor storage could tell anything.
pub fn show(args: &LeaseStatusArgs, paths: &Paths, terminal: &mut Terminal) -> ExitCode {
    let conf = match deployed(paths) {
        Ok(conf) => conf,
        Err(stop) => {
            terminal.complain(&stop.text);
            return stop.code.into();
        }
    };
    let picture = gather::picture(&conf);
    if args.json {
        terminal.say(render::json(&picture));
    } else {
        terminal.print(&render::text(&picture));
    }
    if picture.is_blind() { Exit::FAILED.into() } else { Exit::OK.into() }
}
