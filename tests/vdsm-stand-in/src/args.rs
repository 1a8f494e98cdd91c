//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use ha_config::ha_toml::Accel;

/// A stand-in for VDSM in tests: its dialect on the wire, real QEMU guests under real sanlock leases.
#[derive(Debug, Parser)]
#[command(name = "vdsm-stand-in", version, args_conflicts_with_subcommands = true)]
pub struct Arguments {
    /// What else than to serve.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// How to serve.
    #[command(flatten)]
    pub serve: Serve,
}

/// What else than to serve.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a host's certificate and key, and the authority that signs them
    MakeCertificates(MakeCertificates),
}

/// Where the certificates go.
#[derive(Debug, Args)]
pub struct MakeCertificates {
    /// Directory for certs/vdsmcert.pem, certs/cacert.pem and keys/vdsmkey.pem
    pub directory: PathBuf,
    /// Directory of the authority (ca.pem, ca-key.pem), which several hosts share; made when it is not there.
    /// Default: a new one in DIRECTORY/authority
    #[arg(long, value_name = "DIR")]
    pub authority: Option<PathBuf>,
    /// The host's name; default: this host's
    #[arg(long)]
    pub name: Option<String>,
    /// Another name or address of the host; may be given several times
    #[arg(long = "also", value_name = "NAME")]
    pub also: Vec<String>,
}

/// How to serve.
#[derive(Debug, Clone, Args)]
pub struct Serve {
    /// Directory that stands for / in every path
    #[arg(long, value_name = "DIR", env = ha_config::ROOT_ENV, default_value = "/")]
    pub root: PathBuf,
    /// Address to listen on; may be given several times. Port 0 takes a free one, and standard output tells which
    #[arg(long, value_name = "ADDRESS:PORT", default_values_t = default_listen())]
    pub listen: Vec<SocketAddr>,
    /// Without TLS, as VDSM with ssl = false
    #[arg(long)]
    pub plain: bool,
    /// Unix socket that takes one-line commands: how to misbehave
    #[arg(long, value_name = "SOCKET")]
    pub control: Option<PathBuf>,
    /// sanlock's I/O time-out in seconds with which storage domains are joined; default: sanlock's own
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=60))]
    pub io_timeout: Option<u32>,
    /// Write no leases, join no lockspaces: for tests of storage without guests
    #[arg(long)]
    pub without_sanlock: bool,
    /// Seconds between two looks at a monitored storage domain
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=60))]
    pub monitor_interval: u64,
    /// QEMU
    #[arg(long, value_name = "PROGRAM", default_value = "qemu-system-x86_64")]
    pub qemu: PathBuf,
    /// What carries out guest code: auto, kvm or tcg
    #[arg(long, default_value = "auto", value_parser = accelerator)]
    pub accel: Accel,
    /// What to log: error, warn, info, debug, trace, or a filter
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    pub log_level: String,
}

fn default_listen() -> Vec<SocketAddr> {
    ["127.0.0.1:54321", "[::1]:54321"].iter().filter_map(|text| text.parse().ok()).collect()
}

fn accelerator(text: &str) -> Result<Accel, String> {
    match text {
        "auto" => Ok(Accel::Auto),
        "kvm" => Ok(Accel::Kvm),
        "tcg" => Ok(Accel::Tcg),
        _ => Err("must be auto, kvm or tcg".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_loopback_addresses_are_the_default() {
        let arguments = Arguments::try_parse_from(["vdsm-stand-in", "--root", "/x"]).unwrap();
        let listen: Vec<String> = arguments.serve.listen.iter().map(ToString::to_string).collect();
        assert_eq!(listen, ["127.0.0.1:54321", "[::1]:54321"]);
        assert!(arguments.command.is_none());
        assert!(Arguments::try_parse_from(["vdsm-stand-in", "--accel", "hvf"]).is_err());
    }
}
