//! Stands in for wdmd, sanlock's watchdog daemon, and for the watchdog device behind it, where there is neither: for tests
//! and sandboxes only. It is never installed.
//!
//! ```text
//!   in the host                                            outside
//! ┌─────────────────────────────────────┐              ┌──────────────────────────────┐
//! │ sanlock -w 1 ── /run/wdmd/wdmd.sock ─▶ daemon ──────▶ device ── SIGKILL ─▶ the host's │
//! │ (real)          register, test_live   (wdmd)   pet  │ (/dev/watchdog)   process 1  │
//! └─────────────────────────────────────┘              └──────────────────────────────┘
//! ```
//!
//! - [`daemon`] pets the device while all clients renew themselves in time, and stops when one does not.
//! - [`device`] ends the host, all at once, when it was not petted for its time: because the daemon stopped, or because
//!   the whole host stands still. It runs outside of the host and is not frozen with it, as the real one is a piece of
//!   hardware.
//!
//! What it does not have of the real ones: the checks of scripts in /etc/wdmd.d, and the opening of the device under the
//! control of newer sanlock releases.

pub mod clients;
pub mod daemon;
pub mod device;
pub mod wire;
