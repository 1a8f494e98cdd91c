//! The qemu adapter: QEMU started by this product itself, under the VM's lease.
//!
//! ```text
//!            start                        exec, lease held              QMP: running
//!  Down ───────────────► launcher ──────────────────────► QEMU ─────────────────────────► Up ◄──► Paused
//!   ▲                      │ no lease, held elsewhere,      │ ends before it is ready      │  pause/resume
//!   └──────────────────────┴────────────────────────────────┴──────────────────────────────┘
//!                 LeaseRefused, StartFailed            StartFailed          Orderly, Crashed, MigratedAway
//! ```
//!
//! Truth is kept in three places, and in none of ours: the kernel (does the process exist), the lock manager (is
//! the lease its own) and QEMU (what does it do; its own record of events says how it ended). So the agent, the
//! broker and the operator's command see the same VM, and each may be restarted at any time.

pub mod accel;
mod adapter;
pub mod command_line;
mod from_conf;
mod handover;
pub mod journal;
pub mod launch;
mod look;
pub mod machine;
mod migration;
pub mod process;
pub mod qmp;
pub mod run_dir;
mod settings;
mod spawn;
mod start;
mod watch;

pub use adapter::QemuVm;
pub use from_conf::machine_from_conf;
pub use run_dir::QmpRole;
pub use settings::{MachineSource, QemuSettings};
pub use spawn::Launcher;
