//! The command line of `--deploy` and `--undeploy`.

use std::path::PathBuf;

use clap::Args;

/// Deploy the hosted engine on this host: on the first one make its storage and its VM, on others join them. Asks for
/// what no answer file says.
#[derive(Debug, Clone, Default, Args)]
#[allow(clippy::struct_excessive_bools, reason = "each is a switch of the command line")]
pub struct DeployArgs {
    /// Answer file; several are read one after the other, later ones win.
    #[arg(long, visible_alias = "answers", value_name = "FILE")]
    pub config_append: Vec<PathBuf>,
    /// Write the answers to this file, ask for nothing more, and deploy nothing.
    #[arg(long, value_name = "FILE")]
    pub generate_answer: Option<PathBuf>,
    /// Use IPv4 where a name has both.
    #[arg(long = "4", conflicts_with = "ipv6")]
    pub ipv4: bool,
    /// Use IPv6 where a name has both.
    #[arg(long = "6")]
    pub ipv6: bool,
    /// Show what would be done, or with --undo what would be taken back, and do nothing.
    #[arg(long)]
    pub plan: bool,
    /// Confirm everything; with answers for all questions no terminal is needed.
    #[arg(long)]
    pub yes: bool,
    /// Join the cluster on this storage: `server:/path`, a directory, a portal of iSCSI, or `fc` for what this host's
    /// adapters see.
    #[arg(long, value_name = "STORAGE")]
    pub join: Option<String>,
    /// Go on with a deployment that was interrupted, at the step that was cut.
    #[arg(long, conflicts_with_all = ["undo", "join", "config_append", "generate_answer"])]
    pub resume: bool,
    /// Take back what an interrupted deployment made or changed, and nothing else.
    #[arg(long, conflicts_with_all = ["join", "config_append", "generate_answer"])]
    pub undo: bool,
}
